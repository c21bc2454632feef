"""TypeScript's compiler takes the schema at its strictest, and knows the types of its rows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from changesource.mapping.formats import read_specification
from changesource.mapping.spec import ColumnSpec, TableSpec
from changesource.mapping.typescript import zero_schema
from devtools import node
from tests.harness.app import MAPPINGS
from tests.unit.test_typescript import HYPHENED

# Names that mean something in JavaScript, or that the module itself imports.
WORDS = (
    "class", "default", "constructor", "prototype", "toString", "string", "table", "schema", "Schema", "_", "_-proto__",
)  # fmt: skip
WORDY = tuple(
    TableSpec(name, "c", tuple(ColumnSpec(w, "string", "_id", optional=w != "_") for w in WORDS), ("_",))
    for name in WORDS
)
USES = """
import {createBuilder, type Row} from "@rocicorp/zero";
import {schema, type Schema} from "./schema.ts";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>) => {};

type Item = Row<Schema["tables"]["item"]>;
same<Item["id"], string>(true);
same<Item["count"], number | null>(true);
same<Row<Schema["tables"]["user"]>["active"], boolean | null>(true);
same<Row<Schema["tables"]["class_of"]>["the_id"], number | null>(true);
same<Schema["tables"]["class_of"]["columns"]["the_id_2"]["serverName"], string>(true);
const builder = createBuilder(schema);
builder.item.where("name", "x").orderBy("count", "asc");
builder.class_of.where("the_id_2", "x");
"""
WRONG = """
// @ts-expect-error there is no such column
builder.item.where("colour", "x");
// @ts-expect-error it is a string
builder.item.where("name", 1);
"""


OPTIONS = {
    "strict": True,
    "noUnusedLocals": True,
    "noUncheckedIndexedAccess": True,
    "exactOptionalPropertyTypes": True,
    "noEmit": True,
    "skipLibCheck": True,  # what others declare is not judged here
    "target": "es2022",
    "module": "nodenext",
    "allowImportingTsExtensions": True,
    "types": [],
}


def compiled(directory: Path, uses: str) -> tuple[int, str]:
    """What ``tsc`` says of the schema and of what uses it."""
    (directory / "node_modules").symlink_to(node.MODULES)
    (directory / "package.json").write_text('{"type": "module"}')
    tables = (*read_specification(MAPPINGS).tables, HYPHENED, *WORDY)
    (directory / "schema.ts").write_text(zero_schema(tables))
    (directory / "uses.ts").write_text(uses)
    (directory / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "include": ["*.ts"]}))
    done = subprocess.run(
        [node.node_binary(), node.MODULES / "typescript" / "bin" / "tsc"],
        cwd=directory,
        env=node.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_it_compiles_and_its_rows_have_types(tmp_path: Path) -> None:
    node.install()
    assert compiled(tmp_path, USES + WRONG) == (0, "")
