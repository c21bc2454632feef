"""What publishing the draft would do to the replicas, said before it is done."""

from __future__ import annotations

from changesource.conf import settings
from changesource.exceptions import MappingError, UnknownPublication
from changesource.mapping.compiled import CompiledMapping
from changesource.mapping.spec import Specification
from changesource.services.configuration import current, to_serve
from changesource.store import watermarks
from changesource.store.mappings import read_draft


def consequences() -> str:
    """Return it in a sentence or two. Asks nothing of MongoDB, so a type of ``_id`` not known yet counts as changed."""
    published = current()
    try:
        draft = to_serve(read_draft(), None)
    except MappingError as error:
        return f"The draft cannot be published as it is: {error.message}."
    if published is None:
        return ""
    if draft == published.specification:
        return "The draft is what is served."
    before, after = _compiled(published.specification), _compiled(draft)
    reset, refused = [], []
    for name, publications, state in watermarks.replicas():
        shown = f"{name} ({state})" if state else name
        try:
            changed = before.published(publications).fingerprint != after.published(publications).fingerprint
        except UnknownPublication:
            refused.append(shown)
            continue
        if changed:
            reset.append(shown)
    parts = [f"Publishing the draft makes these replicas sync anew: {', '.join(reset)}."] if reset else []
    if refused:
        parts.append(f"These ask for a publication that would not exist, and would be refused: {', '.join(refused)}.")
    return " ".join(parts) or "Publishing the draft resets no replica."


def _compiled(spec: Specification) -> CompiledMapping:
    return CompiledMapping.compile(spec, settings().mongodb_database)
