"""A Zero schema as the TypeScript that clients of ``@rocicorp/zero`` import.

Whatever an operator named reaches the text as an identifier, or as a JSON string, which is one of TypeScript too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from .schema_formats import Schema, SchemaColumn, SchemaTable, schema_of
from .spec import TableSpec

PACKAGE = "@rocicorp/zero"


def zero_table(table: TableSpec) -> str:
    """The declaration of one valid table, as ``zero_schema`` has it where no other table takes its client's name."""
    return _declaration(*schema_of([table]))


def zero_schema(tables: Iterable[TableSpec]) -> str:
    """A TypeScript module of valid tables: exports each as ``nameTable``, the schema, and its type ``Schema``."""
    schema = schema_of(tables)
    names = [*sorted({column.type for table in schema for column in table.columns}), *(["table"] if schema else [])]
    parts = [
        f"import {{{', '.join(sorted(['createSchema', *names]))}}} from {json.dumps(PACKAGE)};",
        *(f"export {_declaration(table)}" for table in schema),
        f"export const schema = createSchema({{\n  tables: [{_listed(schema)}],\n}});",
        "export type Schema = typeof schema;",
    ]
    return "\n\n".join(parts) + "\n"


def _declaration(table: SchemaTable) -> str:
    columns = "".join(f"    {column.alias}: {_column(column)},\n" for column in table.columns)
    key = ", ".join(json.dumps(table.alias_of(column)) for column in table.primary_key)
    return (
        f"const {_constant(table)} = table({json.dumps(table.alias)}){_from(table)}\n"
        f"  .columns({{\n{columns}  }})\n  .primaryKey({key});"
    )


def _column(column: SchemaColumn) -> str:
    return f"{column.type}(){_from(column)}{'.optional()' if column.optional else ''}"


def _from(named: SchemaTable | SchemaColumn) -> str:
    return "" if named.alias == named.name else f".from({json.dumps(named.name)})"


def _constant(table: SchemaTable) -> str:
    # Not the bare name: a table may be called `class`, or `string`.
    return f"{table.alias}Table"


def _listed(schema: Schema) -> str:
    return "".join(f"\n    {_constant(table)}," for table in schema) + ("\n  " if schema else "")
