"""Which fields of a pipeline's documents are, unchanged, fields of the document that it began with.

A key must tell documents apart, so what it shows must be known to be ``_id``, or fields of a unique index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

from changesource.mapping.paths import Path
from changesource.mapping.projection import Projection
from changesource.mapping.spec import Json

ID: Path = ("_id",)


@dataclass(frozen=True)
class Image:
    """What an expression makes of a field, of which it differs wherever the field does: its text, or that as base64.

    With ``separator`` it is a longer text, in which that stands beside the image ("exact" is the field itself): it
    differs for fields of which no image holds the separator.
    """

    path: Path
    kind: Literal["exact", "text", "base64"]
    separator: str = ""


Origin: TypeAlias = Path | Image | None
"""A field of the original document, an image of one, or (None) something else."""


@dataclass(frozen=True)
class Provenance:
    """Where the fields come from, before any stage from themselves.

    ``origins`` holds what is known of paths; for all others ``same`` says whether they are what they were.
    """

    origins: Mapping[Path, Origin] = field(default_factory=dict)
    same: bool = True

    @cached_property
    def _above(self) -> frozenset[Path]:
        """The paths of which a part is known."""
        return frozenset(known[:length] for known in self.origins for length in range(len(known)))

    def of(self, path: Path) -> Origin:
        """What is at ``path`` now."""
        if path in self._above:
            return None  # a part of it is something else
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                origin = self.origins[path[:length]]
                if length == len(path) or origin is None:
                    return origin
                return None if isinstance(origin, Image) else origin + path[length:]
        return path if self.same else None

    def of_expression(self, expression: Json) -> Origin:
        """What an expression gives: of fields' paths, and of what differs wherever they do."""
        if isinstance(expression, str):
            return self._of_text(expression)
        if not isinstance(expression, dict) or len(expression) != 1:
            return None
        ((name, inner),) = expression.items()
        if name == "$concat" and isinstance(inner, list):
            return self._joined(inner)
        if name == "$convert" and isinstance(inner, dict) and set(inner) == {"input", "to"}:
            name, inner = ("$toString" if inner["to"] in ("string", 2) else name), inner["input"]
        if isinstance(inner, list) and len(inner) == 1:
            inner = inner[0]
        origin = self.of_expression(inner)
        if name == "$toString" and isinstance(origin, tuple):
            return Image(origin, "text")
        if name == "$hexToBase64Url" and isinstance(origin, tuple):
            origin = Image(origin, "text")
        if name == "$hexToBase64Url" and isinstance(origin, Image) and origin.kind == "text" and not origin.separator:
            return Image(origin.path, "base64")
        return None

    def _joined(self, parts: list[Json]) -> Origin:
        """Texts in a row: ``_id`` can be told from them where it is the first or the last, beside a constant."""
        for first, second in ((parts[:1], parts[1:2]), (parts[-1:], parts[-2:-1])):
            separator = second[0] if second else ""
            if not isinstance(separator, str) or not separator or separator.startswith("$"):
                continue
            origin = self.of_expression(first[0])
            if origin == ID:
                return Image(ID, "exact", separator)
            if isinstance(origin, Image) and origin.path == ID and not origin.separator:
                return Image(ID, origin.kind, separator)
        return None

    def _of_text(self, text: str) -> Origin:
        for prefix in ("$$ROOT.", "$$CURRENT.", "$"):
            if text.startswith(prefix):
                name = text.removeprefix(prefix)
                return None if name.startswith("$") else self.of(tuple(name.split(".")))
        return None

    def without(self, path: Path) -> Provenance:
        """After ``path`` was given another value."""
        return self._setting({path: None})

    def _setting(self, origins: Mapping[Path, Origin]) -> Provenance:
        """After all these paths, of which none is a part of another, were given what is known now."""
        kept = {
            known: value
            for known, value in self.origins.items()
            if not any(known[:length] in origins for length in range(len(known) + 1))
        }
        return Provenance({**kept, **origins}, self.same)

    def projected(self, projection: Projection) -> Provenance:
        """After ``$project``, ``$addFields`` or ``$unset``."""
        after = _NOTHING if projection.mode == "include" else self
        found = {path: self.of(path) if projection.mode == "include" else None for path in projection.named}
        found |= {path: self.of_expression(expression) for path, expression in projection.computed}
        return after._setting(found)

    def replaced(self, expression: Json) -> Provenance:
        """After ``$replaceRoot``."""
        if expression in ("$$ROOT", "$$CURRENT"):
            return self
        if isinstance(expression, str):
            return Provenance({(): self.of_expression(expression)}, same=False)
        if not isinstance(expression, dict):
            return _NOTHING
        if list(expression) == ["$mergeObjects"]:
            merged = expression["$mergeObjects"]
            return self._merged(merged if isinstance(merged, list) else [merged])
        if next(iter(expression), "").startswith("$"):
            return _NOTHING
        return Provenance({(name,): self.of_expression(inner) for name, inner in expression.items()}, same=False)

    def _merged(self, parts: list[Json]) -> Provenance:
        """The last one wins; but what a field is of that a document may lack, an earlier one may be instead."""
        after = _NOTHING
        for index, part in enumerate(parts):
            own = self.replaced(part) if part in ("$$ROOT", "$$CURRENT") or isinstance(part, dict) else _NOTHING
            after = own if index == 0 else after._overlaid(own, part)
        return after

    def _overlaid(self, over: Provenance, part: Json) -> Provenance:
        """What is left of this where ``over`` is merged into it: only ``_id`` and images of it are never lacking."""
        if not isinstance(part, dict) or next(iter(part), "").startswith("$"):
            origin = over.of(ID)
            return Provenance({ID: origin} if origin == ID else {}, same=False)
        after = self
        for path, origin in over.origins.items():
            of_id = origin == ID or (isinstance(origin, Image) and origin.path == ID)
            after = after._setting({path: origin if of_id else None})
        return after


_NOTHING = Provenance({}, same=False)
