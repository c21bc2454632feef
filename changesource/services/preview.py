"""What a table makes of real documents, without a replica: for operators, before they publish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from bson import encode, json_util
from bson.binary import Binary
from bson.errors import BSONError, InvalidId
from bson.objectid import ObjectId
from bson.regex import Regex
from pymongo import timeout

from changesource.conf import Settings
from changesource.exceptions import MappingError, TableStopped
from changesource.mapping.compiled import SHOWN, MappedTable, RowFault
from changesource.mapping.pushdown import pushed_down
from changesource.mapping.rows import JsonRow
from changesource.mapping.spec import TableSpec
from changesource.services.configuration import resolved
from changesource.services.inspection import inspector
from changesource.services.runtime import mongodb_uri
from changesource.sources.mongodb.looking import PATIENCE, looking
from changesource.store.mappings import read_draft

Document = Mapping[str, object]
MAX_SHOWN = 20_000  # characters
COMMAND_SECONDS = 30.0  # a command may wait longer than a page


@dataclass(frozen=True)
class Preview:
    """One document, the rows that it becomes, the frames that insert them, and what did not fit."""

    document: Document
    rows: tuple[JsonRow, ...]
    frames: tuple[str, ...]
    faults: tuple[RowFault, ...]

    @property
    def shown_document(self) -> str:
        """The document in extended JSON."""
        return json_util.dumps(self.document, json_options=SHOWN)

    @property
    def pretty_document(self) -> str:
        """The same, over several lines; a very long one is cut."""
        text = json_util.dumps(self.document, json_options=SHOWN, indent=2, ensure_ascii=False)
        return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}\n…"


def preview_table(chosen: Settings, name: str, *, document_id: str = "", size: int = 3) -> list[Preview]:
    """Show what the table ``name`` makes, as it is kept in the draft; see ``preview``."""
    spec = next((table for table in read_draft().tables if table.name == name), None)
    if spec is None:
        raise MappingError(f"tables.{name}", "there is no such table")
    return preview(chosen, spec, document_id=document_id, size=size, seconds=COMMAND_SECONDS)


def preview(
    chosen: Settings, spec: TableSpec, *, document_id: str = "", size: int = 3, seconds: float = PATIENCE
) -> list[Preview]:
    """Show what ``spec``, saved or not, makes of the document with an id, or of ``size`` at random.

    Raises ``MappingError`` where it is wrong, and as ``looking`` does, for ``seconds`` in all.
    """
    with timeout(seconds), looking(mongodb_uri(chosen), chosen.mongodb_database, seconds) as look:
        spec = resolved(spec, inspector(switch=False))
        if document_id:
            found = look.by_id(spec.collection, ids_of(document_id))
        else:
            found = look.sample(spec.collection, size, pushed_down(spec.filter))
    return list(previews(spec, chosen.mongodb_database, found, chosen.max_row_bytes))


def previews(
    spec: TableSpec, database: str, documents: Iterable[Document], max_row_bytes: int | None = None
) -> Iterator[Preview]:
    """Give what ``spec`` makes of each document; ``MappingError`` where it is wrong."""
    table = MappedTable(spec, database, max_row_bytes)
    for document in documents:
        rows: list[JsonRow] = []
        faults: list[RowFault] = []

        def encode(row: JsonRow, rows: list[JsonRow] = rows) -> bytes:
            rows.append(row)
            return table.frames.insert(row)

        try:
            frames = table.encoded(document, table.inserts._replace(encode=encode), faults.append)
        except TableStopped:
            rows, frames = [], []
        yield Preview(document, tuple(rows), tuple(frame.decode() for frame in frames), tuple(faults))


def ids_of(text: str) -> list[object]:
    """The values of ``_id`` that ``text`` may mean: extended JSON, an ObjectId, a UUID, or the text itself."""
    found: list[object] = [text]
    try:
        found.append(json_util.loads(text))
    except (ArithmeticError, BSONError, LookupError, RecursionError, TypeError, ValueError):
        pass  # no JSON, so one of the others
    try:
        found.append(ObjectId(text))
    except InvalidId:
        pass
    try:
        found.append(Binary.from_uuid(UUID(text)))
    except ValueError:
        pass
    return list(filter(_may_be_id, found))


def _may_be_id(value: object) -> bool:
    """Whether a document can have it: an array or a regular expression it cannot, which would match others' ids."""
    if isinstance(value, list | Regex) or (isinstance(value, dict) and any(name.startswith("$") for name in value)):
        return False
    try:
        encode({"_id": value})
    except (ArithmeticError, BSONError, RecursionError, TypeError, ValueError):
        return False
    return True
