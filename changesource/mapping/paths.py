"""Dotted field paths, by the two readings that MongoDB has: that of `find` and that of aggregation.

They differ on arrays. In `find` a path reaches many values, and a number may be an index; in aggregation `$a.b`
is one value, an array where the path goes through one, and a number is a field's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from bson.dbref import DBRef

from changesource.exceptions import MappingError
from changesource.mapping.budget import PART, charge

Document: TypeAlias = Mapping[str, object]
Path: TypeAlias = tuple[str, ...]
Test: TypeAlias = Callable[[object], bool]
Predicate: TypeAlias = Callable[[Document], bool]


class Missing:
    """The type of ``MISSING``, which stands for a field that is not there."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
REFERENCE_FIELDS = ("$ref", "$id", "$db")
"""The fields of a DBRef: the only ones that a path may name although they begin with $."""


def split_path(path: str, place: str) -> Path:
    """The components of a dotted path; ``MappingError`` at ``place`` where it is not one."""
    if not path:
        raise MappingError(place, "the path is empty")
    parts = tuple(path.split("."))
    for part in parts:
        if not part:
            raise MappingError(place, f"the path {path!r} has an empty component")
        if part.startswith("$") and (part not in REFERENCE_FIELDS or part is parts[0]):
            raise MappingError(place, f"the path {path!r} has a component that starts with $; write field names alone")
        if "\0" in part:
            raise MappingError(place, "a field name cannot hold U+0000")
        if not is_unicode(part):
            raise MappingError(place, "a field name cannot hold a lone surrogate")
    return parts


def is_unicode(text: str) -> bool:
    """Whether ``text`` holds no lone surrogate, so that it can be encoded at all."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def reader(path: Path) -> Callable[[Document], object]:
    """A function that gives a document's value at ``path`` as aggregation's `$a.b` does; None where it is missing."""
    if len(path) == 1:
        field = path[0]
        return lambda document: document.get(field)

    def read(document: Document) -> object:
        value = read_value(document.get(path[0], MISSING), path, 1)
        return None if value is MISSING else value

    return read


def read_value(value: object, path: Path, index: int = 0) -> object:
    """What aggregation finds in ``value`` by the components of ``path`` from ``index`` on; ``MISSING`` for nothing."""
    while index < len(path):
        if isinstance(value, list):
            charge(PART * len(value))
            # Arrays right inside an array are not entered: aggregation leaves them out.
            found = [read_value(element, path, index) for element in value if as_document(element) is not None]
            return [element for element in found if element is not MISSING]
        document = as_document(value)
        if document is None:
            return MISSING
        value = document.get(path[index], MISSING)
        index += 1
    return value


def matcher(path: Path, test: Test, *, entered: bool = True) -> Predicate:
    """A predicate that holds where any value that `find` reaches by ``path`` passes ``test``.

    An array at the end of the path is reached element by element and then as a whole; as a whole alone unless
    ``entered``. ``test`` gets ``MISSING`` where there is nothing.
    """
    if not entered:
        return lambda document: _any_value(document, path, test, entered=False)
    if len(path) == 1:
        field = path[0]

        def matches_field(document: Document) -> bool:
            value = document.get(field, MISSING)
            if type(value) is list:
                return _any_element(value, (), test)
            return test(value)

        return matches_field
    return lambda document: _any_value(document, path, test)


def _any_value(document: Document, path: Path, test: Test, *, entered: bool = True) -> bool:
    value: object = document
    for index, part in enumerate(path):
        inner = document if index == 0 else as_document(value)
        if inner is None:
            return test(MISSING)
        value = inner.get(part, MISSING)
        if isinstance(value, list) and (entered or index + 1 < len(path)):
            return _any_element(value, path[index + 1 :], test, entered=entered)
    return test(value)


def _any_element(array: list[object], rest: Path, test: Test, *, entered: bool = True) -> bool:
    charge(PART * (1 + len(array)))
    if not rest:
        return any(map(test, array)) or test(array)
    for index, element in enumerate(array):
        document = as_document(element)
        if document is not None and _any_value(document, rest, test, entered=entered):
            return True
        if rest[0] == str(index) and _at_index(element, rest[1:], test, entered=entered):
            return True
    # Nothing is tested where no element has the rest of the path: not even null matches there.
    return False


def _at_index(element: object, rest: Path, test: Test, *, entered: bool) -> bool:
    """The element that a number in the path names: unlike a field's value, an array here is not entered at the end."""
    if not rest:
        return test(element)
    if isinstance(element, list):
        return _any_element(element, rest, test, entered=entered)
    document = as_document(element)
    return document is not None and _any_value(document, rest, test, entered=entered)


def as_document(value: object) -> dict[str, object] | None:
    """``value`` as an embedded document, or None; the driver shows some embedded documents as ``DBRef``."""
    if isinstance(value, dict):
        return value
    if isinstance(value, DBRef):
        return value.as_doc()
    return None
