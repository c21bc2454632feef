"""What is to be known of a table before it is served, or while it is: its collection, key, indexes, images, documents.

Asked for the page of a mapping and by ``manage.py check`` alike. Nothing is changed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pymongo import timeout

from changesource.conf import Settings
from changesource.exceptions import PostImagesMissing, SourceRefused, SourceUnavailable, ZerosourceError
from changesource.mapping.compiled import MappedTable
from changesource.mapping.pushdown import filtered_fields, is_indexed, pushed_down
from changesource.mapping.questions import questions_of
from changesource.mapping.spec import TableSpec
from changesource.services.advice import FULL, SHORT_OPLOG_HOURS, hours_in_words
from changesource.services.inspection import inspector
from changesource.services.preview import Preview, previews
from changesource.services.runtime import mongodb_uri
from changesource.sources.mongodb.looking import PATIENCE, Look, looking
from changesource.sources.mongodb.server import Oplog
from changesource.sources.mongodb.survey import has_images

Level = Literal["ok", "note", "warning", "error"]
SAMPLE = 500
SMALL = 100_000  # documents that are read without an index in a second or so
SEE_PRIVILEGES = "docs/privileges.md says what it takes."


@dataclass(frozen=True)
class Finding:
    """What one check found; ``about`` says what it looked at, ``remedy`` what to do.

    ``code`` is that of ``manage.py check``: of an error, ``ZS...``, of a warning, ``W...``. ``mends`` names what the
    page can do about it.
    """

    level: Level
    about: str
    message: str
    remedy: str = ""
    code: str = ""
    mends: Literal["", "images"] = ""


def table_findings(chosen: Settings, spec: TableSpec, seconds: float = PATIENCE) -> list[Finding]:
    """What there is to say of ``spec``, asking MongoDB for so many seconds in all. ``MappingError`` where it is wrong.

    Where MongoDB does not answer in time, the last finding says so, by the code of ``SourceUnavailable``.
    """
    table = MappedTable(spec, chosen.mongodb_database, chosen.max_row_bytes)
    found: list[Finding] = []
    try:
        with timeout(seconds):
            found += _publishable(table)
            with looking(mongodb_uri(chosen), chosen.mongodb_database, seconds) as look:
                # One by one, so that those before a failure are kept.
                found.extend(_looked(chosen, table, look))
    except (SourceUnavailable, SourceRefused) as error:
        found.append(_of_error(error, "MongoDB", "warning"))
    return found


def _publishable(table: MappedTable) -> Iterator[Finding]:
    """What publishing itself would refuse, in its words."""
    inspect = inspector(switch=False)
    if inspect is None:
        return
    try:
        inspect(questions_of([table.compiled]))
    except PostImagesMissing:
        pass  # told with the images
    except SourceRefused as error:
        yield _of_error(error, "publishing", "error")


def _looked(chosen: Settings, table: MappedTable, look: Look) -> Iterator[Finding]:
    name = table.collection
    collection = look.collections().get(name)
    if collection is None:
        message = f"The collection {name} does not exist. The table is empty until it does."
        yield Finding("warning", "collection", message, "Check its name, and MONGODB_DATABASE.", "W002")
        return
    count = look.count(name)
    yield Finding("ok", "collection", f"The collection {name} has about {count:,} documents.")
    yield _images(chosen, table, collection)
    yield _index(table, look, count)
    yield from _sampled(table, chosen.mongodb_database, look)
    yield oplog_finding(chosen, look.oplog())


def _images(chosen: Settings, table: MappedTable, collection: Mapping[str, Any]) -> Finding:
    name, about = table.collection, "images"
    if has_images(collection):
        return Finding("ok", about, f"MongoDB keeps pre- and post-images of {name}.")
    switch = f"db.runCommand({{collMod: {json.dumps(name)}, changeStreamPreAndPostImages: {{enabled: true}}}})"
    if not table.has_history:
        message = (
            f"MongoDB keeps no pre- and post-images of {name}: changed documents are looked up when they are read."
        )
        if chosen.post_images == "off":
            return Finding("note", about, message)
        return Finding("note", about, f"{message} They are switched on when the table is served.", mends="images")
    message = f"The rows of this table need pre-images of {name}, which MongoDB does not keep."
    if chosen.post_images == "off":
        return Finding(
            "error", about, message, f"Set POST_IMAGES=auto, or run {switch}.", PostImagesMissing.code, "images"
        )
    return Finding("warning", about, message, f"Publishing switches them on, as does {switch}.", "W003", "images")


def _index(table: MappedTable, look: Look, count: int) -> Finding:
    about, filter = "filter", pushed_down(table.spec.filter)
    if not table.spec.filter:
        return Finding("ok", about, "All documents are read; no index is needed.")
    if not filter:
        message = "MongoDB cannot apply this filter for us: a snapshot reads the whole collection."
        return Finding("ok" if count < SMALL else "note", about, message)
    fields = filtered_fields(filter)
    try:
        indexes = look.index_keys(table.collection)
    except SourceRefused as error:
        return Finding("note", about, f"Which indexes there are is not known: {error.message}", error.remedy)
    if is_indexed(filter, {keys[0] for keys in indexes}):
        return Finding("ok", about, f"An index serves the filter ({', '.join(fields)}).")
    message = (
        f"No index begins with a field of the filter ({', '.join(fields)}): a snapshot reads the whole collection."
    )
    if count < SMALL:
        return Finding("ok", about, f"{message} It is small, so that is quick.")
    keys = ", ".join(f"{json.dumps(field)}: 1" for field in (*fields, "_id"))
    return Finding("warning", about, message, f"Create one: db.{table.collection}.createIndex({{{keys}}}).", "W004")


def _sampled(table: MappedTable, database: str, look: Look) -> Iterator[Finding]:
    """Of documents at random: whether keys meet, and how many are row errors."""
    documents = look.sample(table.collection, SAMPLE, pushed_down(table.spec.filter))
    found = [
        preview
        for preview in previews(table.spec, database, documents, table.max_row_bytes)
        if preview.rows or preview.faults
    ]
    if not found:
        empty = "No document passes the filter and the pipeline." if documents else "There is no document yet."
        yield Finding("note", "documents", empty)
        return
    yield _keys(table, found)
    yield _faults(found)


def _keys(table: MappedTable, found: Sequence[Preview]) -> Finding:
    names = table.compiled.key_columns
    owners: dict[str, set[int]] = {}
    for number, preview in enumerate(found):
        for row in preview.rows:
            owners.setdefault(json.dumps([row[name] for name in names]), set()).add(number)
    shared = [key for key, documents in owners.items() if len(documents) > 1]
    shown = ", ".join(names)
    if not shared:
        return Finding("ok", "key", f"The key ({shown}) tells the rows of {len(found)} sampled documents apart.")
    message = f"{len(shared)} keys ({shown}) are shared by several of {len(found)} sampled documents."
    return Finding(
        "error", "key", message, "Declare the type of _id, or add a column that shows it to the key.", "E001"
    )


def _faults(found: Sequence[Preview]) -> Finding:
    """How many documents do not fit, and most often why."""
    odd = [preview for preview in found if preview.faults]
    if not odd:
        return Finding("ok", "row errors", f"All of {len(found)} sampled documents fit.")
    reasons = Counter(
        f"{fault.column}: {fault.reason}" if fault.column else fault.reason for one in odd for fault in one.faults
    )
    told = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    share = f"{100 * len(odd) / len(found):.1f} %"
    message = f"{len(odd)} of {len(found)} sampled documents ({share}) would be row errors. {told}."
    return Finding("warning", "row errors", message, "Make the columns optional, or change their types.", "W005")


def oplog_finding(chosen: Settings, oplog: Oplog | None) -> Finding:
    """What is to be said of how far the oplog reaches back."""
    about = "oplog"
    if oplog is None:
        return Finding(
            "note", about, "How far the oplog reaches back is not known: it may not be read.", SEE_PRIVILEGES
        )
    reach, seconds = hours_in_words(oplog.hours), oplog.hours * 3600
    if oplog.filled < FULL:
        return Finding("ok", about, f"The oplog reaches back {reach}, and has room for more ({oplog.filled:.0%} full).")
    if seconds < max(10 * chosen.keepalive_seconds, 2 * chosen.snapshot_catch_up_seconds):
        message = (
            f"The oplog reaches back {reach} only; positions are kept fresh every {chosen.keepalive_seconds:g} s, "
        )
        message += f"and a snapshot reads what has changed every {chosen.snapshot_catch_up_seconds:g} s."
        return Finding("warning", about, message, "Enlarge the oplog: replSetResizeOplog.", "W006")
    if oplog.hours < SHORT_OPLOG_HOURS:
        message = f"The oplog reaches back {reach}: a replica that is away for longer syncs anew."
        return Finding("note", about, message)
    return Finding("ok", about, f"The oplog reaches back {reach}.")


def _of_error(error: ZerosourceError, about: str, level: Level) -> Finding:
    return Finding(level, about, error.message, error.remedy, error.code)
