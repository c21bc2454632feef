"""``$project``, ``$addFields`` and ``$unset``: what they keep of a document, and what they add to it.

All three are one tree over the fields' paths. Where a path meets an array, each of its elements is treated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from changesource.exceptions import MappingError
from changesource.mapping.budget import PART, charge
from changesource.mapping.expressions import Expression, compile_expression
from changesource.mapping.literals import field_name, is_extended
from changesource.mapping.paths import MISSING, Document, as_document, split_path
from changesource.mapping.spec import Json

Mode: TypeAlias = Literal["include", "exclude", "add"]


@dataclass
class _Branch:
    """What happens to the fields of one document or embedded document."""

    mode: Mode
    named: set[str] = field(default_factory=set)  # kept or taken away, by the mode
    computed: dict[str, Expression] = field(default_factory=dict)
    children: dict[str, _Branch] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)  # of what is computed, here or below

    @property
    def computes(self) -> bool:
        """Whether anything is computed here or below."""
        return bool(self.order)

    def document(self, root: Document, value: Mapping[str, object]) -> dict[str, object]:
        """``value`` as this branch leaves it; what is computed sees ``root``, the whole document before."""
        return self._with_computed(root, self._projected(value))

    def _projected(self, value: Mapping[str, object]) -> dict[str, object]:
        if self.mode == "add":
            return dict(value)
        result: dict[str, object] = {}
        included = self.mode == "include"
        charge(len(value))
        for name, inner in value.items():
            child = self.children.get(name)
            if child is not None:
                left = child.projected(inner)
                if left is not MISSING:
                    result[name] = left
            elif (name in self.named) is included:
                result[name] = inner
        return result

    def projected(self, value: object) -> object:
        """What is left of a value below this branch's path."""
        if isinstance(value, list):
            charge(PART * len(value))
            left = [self.projected(element) for element in value]
            return [element for element in left if element is not MISSING]
        document = as_document(value)
        if document is not None:
            return self._projected(document)
        return MISSING if self.mode == "include" else value

    def _with_computed(self, root: Document, result: dict[str, object]) -> dict[str, object]:
        for name in self.order:
            child = self.children.get(name)
            if child is not None:
                value = child._added(root, result.get(name, MISSING))
            else:
                value = self.computed[name](root)
            if value is MISSING:
                result.pop(name, None)
            else:
                result[name] = value
        return result

    def _added(self, root: Document, value: object) -> object:
        if isinstance(value, list):
            charge(PART * len(value))
            return [self._added(root, element) for element in value]
        document = as_document(value)
        # A value that has no fields makes way for a document of those that are computed.
        return self._with_computed(root, {} if document is None else dict(document))


@dataclass(frozen=True)
class Projection:
    """A compiled stage: a function of documents, with what provenance needs to know of it.

    ``named`` are the paths that are kept or taken away, ``computed`` those that are given a value, as it stands.
    """

    mode: Mode
    named: tuple[tuple[str, ...], ...]
    computed: tuple[tuple[tuple[str, ...], Json], ...]
    _branch: _Branch

    def __call__(self, document: Document) -> dict[str, object]:
        """The document as the stage leaves it."""
        return self._branch.document(document, document)


def compile_project(stage: Json, place: str) -> Projection:
    """``$project``: which fields are kept (or taken away), and which are computed."""
    if not isinstance(stage, dict) or not stage:
        raise MappingError(place, "takes an object of at least one field")
    leaves = _leaves(stage, place)
    flags = [kind for path, kind, _, _ in leaves if path != ("_id",) and kind is not None]
    computes = any(kind is None for _, kind, _, _ in leaves)
    if computes or any(flags) or (not flags and _id_flag(leaves) is True):
        if not all(flags):
            excluded = next(own for path, kind, _, own in leaves if kind is False and path != ("_id",))
            raise MappingError(excluded, "a field cannot be taken away where others are kept or computed")
        kept = [leaf for leaf in leaves if leaf[1] is not False]
        if _id_flag(leaves) is None and not any(path[0] == "_id" for path, *_ in leaves):
            kept.insert(0, (("_id",), True, True, f"{place}._id"))
        return _tree("include", kept)
    gone = [leaf for leaf in leaves if leaf[1] is False]
    return _tree("exclude", gone)


def compile_add_fields(stage: Json, place: str) -> Projection:
    """``$addFields`` and ``$set``."""
    if not isinstance(stage, dict) or not stage:
        raise MappingError(place, "takes an object of at least one field")
    leaves = _leaves(stage, place, flags=False)
    return _tree("add", leaves)


def compile_unset(stage: Json, place: str) -> Projection:
    """``$unset``: one path or a list of them."""
    paths = stage if isinstance(stage, list) else [stage]
    if not paths:
        raise MappingError(place, "names no field")
    leaves: list[_Leaf] = []
    for path in paths:
        if not isinstance(path, str):
            raise MappingError(place, "takes a field's path, or a list of them")
        leaves.append((split_path(path, place), False, False, place))
    return _tree("exclude", leaves)


# A path; True or False where it is kept or taken away, None where it is computed; what stands there; its place.
_Leaf: TypeAlias = tuple[tuple[str, ...], bool | None, Json, str]


def _leaves(stage: dict[str, Json], place: str, prefix: tuple[str, ...] = (), *, flags: bool = True) -> list[_Leaf]:
    """What a stage says of each path; an embedded object that is no expression speaks of the fields below."""
    found: list[_Leaf] = []
    for key, value in stage.items():
        own = f"{place}.{key}"
        path = (*prefix, *split_path(field_name(key, place), own))
        if flags and isinstance(value, bool | int | float):
            found.append((path, bool(value), value, own))
        elif value == {}:
            raise MappingError(own, 'an empty object says nothing; as a value it is written as {"$literal": {}}')
        elif isinstance(value, dict) and not is_extended(value) and not next(iter(value), "$").startswith("$"):
            found += _leaves(value, own, path, flags=flags)
        else:
            found.append((path, None, value, own))
    return found


def _id_flag(leaves: list[_Leaf]) -> bool | None:
    return next((kind for path, kind, _, _ in leaves if path == ("_id",)), None)


def _tree(mode: Mode, leaves: list[_Leaf]) -> Projection:
    root = _Branch(mode)
    for path, kind, value, place in leaves:
        branch = root
        for name in path[:-1]:
            if name in branch.named or name in branch.computed:
                raise MappingError(place, "stands below a path that is given too")
            branch = branch.children.setdefault(name, _Branch(mode))
        last = path[-1]
        if last in branch.named or last in branch.computed or last in branch.children:
            raise MappingError(place, "is given twice, or stands above a path that is given too")
        if kind is None:
            branch.computed[last] = compile_expression(value, place)
        else:
            branch.named.add(last)
    for path, kind, _, _ in leaves:
        if kind is None:
            branch = root
            for name in path:
                if name not in branch.order:
                    branch.order.append(name)
                if name in branch.children:
                    branch = branch.children[name]
    named = tuple(path for path, kind, _, _ in leaves if kind is not None)
    computed = tuple((path, value) for path, kind, value, _ in leaves if kind is None)
    return Projection(mode, named, computed, root)
