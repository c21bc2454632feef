"""Which fields of a pipeline's documents are, unchanged, fields of the document that it began with.

A key must tell documents apart, so what it shows must be known to be ``_id``, or fields of a unique index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from changesource.mapping.paths import Path
from changesource.mapping.projection import Projection
from changesource.mapping.spec import Json


@dataclass(frozen=True)
class Provenance:
    """Where the fields come from, before any stage from themselves.

    ``origins`` holds what is known of paths (None: something else); for all others ``same`` says whether they are
    what they were.
    """

    origins: Mapping[Path, Path | None] = field(default_factory=dict)
    same: bool = True

    def of(self, path: Path) -> Path | None:
        """The path in the original document of what is at ``path`` now; None where it is something else."""
        if any(known[: len(path)] == path and len(known) > len(path) for known in self.origins):
            return None  # a part of it is
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                origin = self.origins[path[:length]]
                return None if origin is None else origin + path[length:]
        return path if self.same else None

    def of_expression(self, expression: Json) -> Path | None:
        """The same of what an expression gives: a field's path alone can be one."""
        if not isinstance(expression, str) or not expression.startswith("$"):
            return None
        name = expression.removeprefix("$$ROOT.").removeprefix("$$CURRENT.").removeprefix("$")
        return None if name.startswith("$") else self.of(tuple(name.split(".")))

    def without(self, path: Path) -> Provenance:
        """After ``path`` was given another value."""
        return self._setting(path, None)

    def _setting(self, path: Path, origin: Path | None) -> Provenance:
        kept = {known: value for known, value in self.origins.items() if known[: len(path)] != path}
        return Provenance({**kept, path: origin}, self.same)

    def projected(self, projection: Projection) -> Provenance:
        """After ``$project``, ``$addFields`` or ``$unset``."""
        after = Provenance({}, same=False) if projection.mode == "include" else self
        for path in projection.named:
            after = after._setting(path, self.of(path) if projection.mode == "include" else None)
        for path, expression in projection.computed:
            after = after._setting(path, self.of_expression(expression))
        return after

    def replaced(self, expression: Json) -> Provenance:
        """After ``$replaceRoot``."""
        if expression in ("$$ROOT", "$$CURRENT"):
            return self
        if isinstance(expression, str):
            return Provenance({(): self.of_expression(expression)}, same=False)
        if not isinstance(expression, dict):
            return Provenance({}, same=False)
        if list(expression) == ["$mergeObjects"]:
            merged = expression["$mergeObjects"]
            return self._merged(merged if isinstance(merged, list) else [merged])
        return self._document(Provenance({}, same=False), expression)

    def _document(self, after: Provenance, fields: Mapping[str, Json]) -> Provenance:
        if next(iter(fields), "").startswith("$"):
            return Provenance({}, same=False)
        for name, inner in fields.items():
            after = after._setting((name,), self.of_expression(inner))
        return after

    def _merged(self, parts: list[Json]) -> Provenance:
        """The last one wins, but a field that it lacks is an earlier one's; ``_id`` is never lacking."""
        after = Provenance({}, same=False)
        for index, part in enumerate(parts):
            if part in ("$$ROOT", "$$CURRENT"):
                after = self if index == 0 else Provenance({("_id",): self.of(("_id",))}, same=False)
            elif isinstance(part, dict):
                after = self._document(after, part)
            else:
                after = Provenance({}, same=False)
        return after
