"""A table proposed from a collection's documents, as its filter and pipeline leave them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from changesource.conf import Settings
from changesource.mapping.filters import compile_filter
from changesource.mapping.inference import Proposal, infer
from changesource.mapping.naming import fitting_name
from changesource.mapping.paths import Document
from changesource.mapping.pipelines import PipelineFailed, compile_pipeline
from changesource.mapping.pushdown import pushed_down
from changesource.mapping.spec import TableSpec
from changesource.services.runtime import mongodb_uri
from changesource.sources.mongodb.looking import PATIENCE, looking

SAMPLE = 1000


@dataclass(frozen=True)
class Inferred:
    """A table that may be saved, and what it was proposed from; ``exists`` says whether there is such a collection."""

    table: TableSpec
    proposal: Proposal
    exists: bool = True


def infer_table(chosen: Settings, table: TableSpec, *, size: int = SAMPLE, seconds: float = PATIENCE) -> Inferred:
    """Propose columns, key and type of ``_id`` for ``table``, of which the collection, filter and pipeline count.

    Its name, where that is empty, is made of the collection's. Raises ``MappingError`` where the filter or the
    pipeline is wrong, and as ``looking`` does, for ``seconds`` in all.
    """
    place = f"tables.{table.name}"
    passes = compile_filter(table.filter, f"{place}.filter")
    shape = compile_pipeline(table.pipeline, f"{place}.pipeline")
    with looking(mongodb_uri(chosen), chosen.mongodb_database, seconds) as look:
        documents = look.sample(table.collection, size, pushed_down(table.filter))
        exists = bool(documents) or table.collection in look.collections()
    shaped: list[Document] = []
    for document in documents:
        try:
            if passes(document):
                shaped += shape(document)
        except (PipelineFailed, ValueError):
            continue  # a row error, which says nothing of the columns
    proposal = infer(shaped)
    proposed = replace(
        table,
        name=table.name or fitting_name([table.collection]),
        columns=tuple(column.spec for column in proposal.columns),
        primary_key=proposal.primary_key,
        id_type=proposal.id_type,
    )
    return Inferred(proposed, proposal, exists)
