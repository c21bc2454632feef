"""``manage.py infermapping``: propose a table from a collection's documents."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from changesource.conf import settings
from changesource.management.commands._coded import CodedCommand
from changesource.mapping.formats import write_specification
from changesource.mapping.json_reading import obj, parse
from changesource.mapping.spec import Specification, TableSpec
from changesource.services.inference import SAMPLE, infer_table

SECONDS = 30.0
MAX_SAMPLE = 100_000


class Command(CodedCommand):
    """Writes a mapping in the form that importmappings reads; what led to it, to standard error."""

    help = "Propose a table from a sample of a collection's documents; nothing is saved."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """COLLECTION, --table, --filter, --pipeline, --sample."""
        parser.add_argument("collection", metavar="COLLECTION", help="the collection's name")
        parser.add_argument("--table", metavar="NAME", default="", help="the table's name; else the collection's")
        parser.add_argument("--filter", metavar="JSON", default="{}", help="documents that the table shows")
        parser.add_argument("--pipeline", metavar="JSON", default="[]", help="stages that shape them")
        parser.add_argument("--sample", metavar="N", type=int, default=SAMPLE, help=f"documents to read ({SAMPLE})")

    def handle(
        self, *args: Any, collection: str, table: str, filter: str, pipeline: str, sample: int, **options: Any
    ) -> None:
        """Propose, explain, write."""
        if not 1 <= sample <= MAX_SAMPLE:
            raise CommandError(f"--sample is a number from 1 to {MAX_SAMPLE}.")
        stages = parse(pipeline.encode(), "--pipeline")
        if not isinstance(stages, list):
            raise CommandError("--pipeline is a list of stages.")
        asked = TableSpec(
            table,
            collection,
            (),
            (),
            filter=obj("--filter", parse(filter.encode(), "--filter")),
            pipeline=tuple(stages),
        )
        inferred = infer_table(settings(), asked, size=sample, seconds=SECONDS)
        proposal = inferred.proposal
        if not proposal.documents:
            nothing = f"No document of {collection} passes."
            missing = f"There is no collection {collection} in the database {settings().mongodb_database}."
            raise CommandError(nothing if inferred.exists else missing)
        for column in proposal.columns:
            seen = ", ".join(f"{kind} {count}" for kind, count in column.types.items())
            missing = f", missing {column.missing}" if column.missing else ""
            self.stderr.write(f"{column.spec.name}: {seen}{missing}. {column.note}".rstrip())
        if proposal.discriminator:
            values = ", ".join(f"{value} {count}" for value, count in proposal.discriminator.values.items())
            self.stderr.write(f"{proposal.discriminator.path} tells kinds of documents apart: {values}.")
        for note in proposal.notes:
            self.stderr.write(note)
        self.stdout.write(json.dumps(write_specification(Specification((inferred.table,))), indent=2))
