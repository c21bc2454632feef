"""What operators keep in the database, and the state that the daemons leave there for them to see.

Configuration (``TableMapping``, ``ColumnMapping``, ``Publication``, ``ApiKey``) is written by operators,
``MappingRevision`` by publishing, state (``Watermark``, ``RowError``, ``Lease``, ``ManagedContent``,
``ManagedReading``) by the daemons.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import models
from django.utils import timezone

from .exceptions import MappingError
from .fields import OrderedJSONField
from .mapping.rows import compile_table
from .mapping.spec import ColumnSpec, ColumnType, ErrorPolicy, IdType, LargeIntegers, TableSpec
from .protocol.request import APP_ID

MANAGED_HELP = "Where the mapping comes from. Managed mappings are edited there; empty: made here, and edited here."
LONGEST_NAME = 200  # characters of a key's name
# Where the compiler speaks of a key of the JSON form, the admin shows it at this field.
FIELD_OF_KEY = {
    "name": "name",
    "collection": "collection",
    "filter": "filter",
    "pipeline": "pipeline",
    "primaryKey": "primary_key",
    "idType": "id_type",
    "errorPolicy": "error_policy",
    "largeIntegers": "large_integers",
}


class TableMapping(models.Model):
    """One Zero table and where its rows come from: a draft, until it is published."""

    class IdKind(models.TextChoices):
        """The BSON type of a collection's ``_id``."""

        UNKNOWN = "", "found out when published"
        OBJECT_ID = "objectId", "ObjectId"
        STRING = "string", "string"
        NUMBER = "number", "number"
        UUID = "uuid", "UUID"
        DATE = "date", "date"

    class LargeIntegers(models.TextChoices):
        """What a number column makes of an integer beyond 2^53 - 1."""

        REJECT = "reject", "it does not fit"
        ROUND = "round", "the nearest double"

    class Policy(models.TextChoices):
        """What becomes of a value that its column cannot hold."""

        COERCE = "coerce", "convert it, or send null where the column is optional; else leave the row out"
        SKIP = "skip", "leave the row out"
        STOP = "stop", "stop the table's replicas until it is mended"

    name = models.CharField(
        unique=True, help_text="The table's name in Zero. Another name is another table: replicas sync anew."
    )
    collection = models.CharField(help_text="The MongoDB collection that is shown. An edit makes replicas sync anew.")
    filter = OrderedJSONField(
        default=dict,
        blank=True,
        help_text="A MongoDB filter in extended JSON; {} takes every document. An edit makes replicas sync anew.",
    )
    pipeline = OrderedJSONField(
        default=list,
        blank=True,
        help_text="Aggregation stages that shape each document, such as $unwind; [] for none. Columns show what they "
        "give. An edit makes replicas sync anew.",
    )
    primary_key = OrderedJSONField(
        default=list,
        help_text='The columns that tell a row, such as ["id"] or ["accountId", "userId"]: one shows _id, or all show '
        "fields of a unique index. An edit makes replicas sync anew.",
    )
    id_type = models.CharField(
        "type of _id",
        choices=IdKind.choices,
        default=IdKind.UNKNOWN,
        blank=True,
        help_text="Documents whose _id has another type are listed as row errors. An edit makes replicas sync anew.",
    )
    error_policy = models.CharField(
        choices=Policy.choices,
        default=Policy.COERCE,
        help_text="What becomes of a value that its column cannot hold. An edit makes replicas sync anew.",
    )
    large_integers = models.CharField(
        choices=LargeIntegers.choices,
        default=LargeIntegers.REJECT,
        help_text="What a number column makes of an integer beyond 2^53 - 1, which Zero's numbers cannot hold exactly. "
        "An edit makes replicas sync anew.",
    )
    enabled = models.BooleanField(
        default=True,
        help_text="Whether the table is served. Switching it makes the replicas that have, or would get, it sync anew.",
    )
    description = models.TextField(default="", blank=True, help_text="For people; an edit changes nothing else.")
    managed_by = models.CharField(default="", blank=True, editable=False, help_text=MANAGED_HELP)

    # The form, if any, that checks the mapping together with its columns, which are saved after it.
    checked_by: object = None

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        """The table's name."""
        return self.name

    def table_spec(self, columns: Iterable[ColumnMapping]) -> TableSpec:
        """This mapping with these columns, as the value that the compiler takes.

        Raises ``MappingError`` where a JSON field holds another kind of JSON.
        """
        place = f"tables.{self.name}"
        if not isinstance(self.filter, dict):
            raise MappingError(f"{place}.filter", "must be an object")
        if not isinstance(self.pipeline, list):
            raise MappingError(f"{place}.pipeline", "must be a list of stages")
        key = self.primary_key
        if not isinstance(key, list) or not all(isinstance(column, str) for column in key):
            raise MappingError(f"{place}.primaryKey", "must be a list of columns' names")
        return TableSpec(
            name=self.name,
            collection=self.collection,
            columns=tuple(column.column_spec() for column in columns),
            primary_key=tuple(key),
            filter=self.filter,
            pipeline=tuple(self.pipeline),
            id_type=cast(IdType, self.id_type),
            error_policy=cast(ErrorPolicy, self.error_policy),
            large_integers=cast(LargeIntegers, self.large_integers),
            enabled=self.enabled,
            description=self.description,
        )

    def clean(self) -> None:
        """Refuse what the compiler refuses, in its words. A new mapping is checked once it has columns."""
        if self.checked_by is not None or self.pk is None:
            return
        try:
            compile_table(self.table_spec(self.columns.all()))
        except MappingError as error:
            raise ValidationError({self.field_at_fault(error): str(error.problem)}) from error

    def field_at_fault(self, error: MappingError) -> str:
        """The field of this model that the error's place speaks of, or the key of errors of the whole."""
        key = error.place.removeprefix(f"tables.{self.name}").lstrip(".").partition(".")[0]
        return FIELD_OF_KEY.get(key, NON_FIELD_ERRORS)


class ColumnMapping(models.Model):
    """One column of a Zero table."""

    class Kind(models.TextChoices):
        """The types that Zero knows."""

        STRING = "string", "string"
        NUMBER = "number", "number"
        BOOLEAN = "boolean", "boolean"
        JSON = "json", "json"

    table = models.ForeignKey(TableMapping, on_delete=models.CASCADE, related_name="columns")
    name = models.CharField(help_text="The column's name in Zero. An edit makes replicas sync anew.")
    type = models.CharField(
        choices=Kind.choices,
        default=Kind.STRING,
        help_text="The column's type in Zero; dates are numbers (milliseconds). An edit makes replicas sync anew.",
    )
    path = models.CharField(
        blank=True,
        default="",
        help_text="The dotted path of the field that is shown, such as _id or address.city. "
        "An edit makes replicas sync anew.",
    )
    expression = OrderedJSONField(
        null=True,
        blank=True,
        help_text='Instead of a path: an aggregation expression, such as {"$toLower": "$email"}. '
        "An edit makes replicas sync anew.",
    )
    optional = models.BooleanField(
        default=False,
        help_text="Whether null is allowed: for a field that is missing or null. An edit makes replicas sync anew.",
    )
    key_type = models.CharField(
        "type of key",
        choices=[("", "as found"), *TableMapping.IdKind.choices[1:]],
        default=TableMapping.IdKind.UNKNOWN,
        blank=True,
        help_text="For a column of the key that shows a field of a unique index: the field's BSON type. Documents with "
        "another are listed as row errors. An edit makes replicas sync anew.",
    )
    position = models.PositiveIntegerField(default=0, help_text="The column's place in the table, from 0.")

    class Meta:
        ordering = ("position", "id")
        constraints = (models.UniqueConstraint(fields=("table", "name"), name="column_once_a_table"),)

    def __str__(self) -> str:
        """The column's name."""
        return self.name

    def column_spec(self) -> ColumnSpec:
        """This column as the value that the compiler takes."""
        return ColumnSpec(
            name=self.name,
            type=cast(ColumnType, self.type),
            path=self.path,
            optional=self.optional,
            expression=self.expression,
            key_type=cast(IdType, self.key_type),
        )


class Publication(models.Model):
    """A named set of tables, which a zero-cache asks for by ZERO_APP_PUBLICATIONS."""

    name = models.CharField(
        unique=True,
        help_text="What ZERO_APP_PUBLICATIONS of a zero-cache names. Renamed, it is refused until it follows.",
    )
    tables = models.ManyToManyField(
        TableMapping,
        related_name="publications",
        blank=True,
        help_text="The tables that such a zero-cache gets. An edit makes its replicas sync anew.",
    )
    managed_by = models.CharField(default="", blank=True, editable=False, help_text=MANAGED_HELP)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        """The publication's name."""
        return self.name


class MappingRevision(models.Model):
    """What was published: the latest one is served."""

    number = models.BigAutoField(primary_key=True, help_text="Rises with each publishing.")
    specification = OrderedJSONField(
        help_text="The enabled tables and the publications, as exportmappings writes them."
    )
    fingerprints = OrderedJSONField(
        help_text="A short hash for each table of all that decides what is sent for it; another one is a sync anew."
    )
    content_hash = models.CharField(help_text="The hash of the specification.")
    created_at = models.DateTimeField(default=timezone.now, help_text="When it was published.")
    created_by = models.CharField(default="", blank=True, help_text="Who or what published it.")
    note = models.TextField(default="", blank=True, help_text="Why.")

    class Meta:
        ordering = ("-number",)

    def __str__(self) -> str:
        """Its number."""
        return f"revision {self.number}"


class ManagedContent(models.Model):
    """A content of SCHEMA_* and TABLE_MAPPINGS_* that was loaded once, so that it is known when it comes again."""

    content_hash = models.CharField(unique=True, help_text="The hash of the content.")
    loaded_from = models.CharField(help_text="Where it was read.")
    loaded_at = models.DateTimeField(default=timezone.now, help_text="When it took effect last.")

    class Meta:
        ordering = ("-loaded_at",)

    def __str__(self) -> str:
        """The beginning of its hash."""
        return self.content_hash[:12]


class ManagedReading(models.Model):
    """What came of reading SCHEMA_* and TABLE_MAPPINGS_* the last time: one row."""

    class Result(models.TextChoices):
        """What came of it."""

        LOADED = "loaded", "another content took effect"
        UNCHANGED = "unchanged", "the content that took effect last"
        OLDER = "older", "a content that was replaced, which is not taken again"
        FAILED = "failed", "it cannot be used"

    result = models.CharField(choices=Result.choices, help_text="What came of it.")
    code = models.CharField(default="", blank=True, help_text="The code of the error, where it failed.")
    problem = models.TextField(default="", blank=True, help_text="The error in words.")
    read_at = models.DateTimeField(default=timezone.now, help_text="When it was tried.")
    since = models.DateTimeField(default=timezone.now, help_text="Since when it comes out so, or is well.")

    def __str__(self) -> str:
        """What came of it."""
        return self.result


class Watermark(models.Model):
    """How far the watcher or a replica is. Written by the daemons alone."""

    class Kind(models.TextChoices):
        """Whose position it is."""

        WATCHER = "watcher", "watcher"
        REPLICA = "replica", "replica"

    kind = models.CharField(choices=Kind.choices, help_text="Whose position this is.")
    app_id = models.CharField(default="", blank=True, help_text="ZERO_APP_ID of the zero-cache.")
    shard_num = models.PositiveIntegerField(default=0, help_text="The zero-cache's shard.")
    publications = OrderedJSONField(default=list, blank=True, help_text="The publications that it asked for.")
    replica_version = models.CharField(default="", blank=True, help_text="The watermark of its initial sync.")
    sync_end = models.CharField(
        default="", blank=True, help_text="The position up to which that initial sync brought everything."
    )
    sent = models.CharField(default="", blank=True, help_text="The last watermark that was sent.")
    acked = models.CharField(default="", blank=True, help_text="The last watermark that it acknowledged.")
    state = models.CharField(default="", blank=True, help_text="What it is doing: syncing, streaming, disconnected.")
    message = models.TextField(default="", blank=True, help_text="More about the state, such as why it was reset.")
    connected_at = models.DateTimeField(null=True, blank=True, help_text="When its connection began.")
    updated_at = models.DateTimeField(default=timezone.now, help_text="When this row was last written.")
    resync_wanted = models.BooleanField(
        default=False, help_text="Set: the replica is told to sync anew, when connected or as soon as it is."
    )
    lag_ms = models.BigIntegerField(null=True, blank=True, help_text="How old the last change was when it was sent.")
    rows_per_second = models.FloatField(default=0, help_text="The rows that it was sent, over the last ten seconds.")
    snapshot = OrderedJSONField(
        null=True,
        blank=True,
        help_text="How far its last snapshot is: rows sent, documents read, about how many are expected, the rate.",
    )

    class Meta:
        ordering = ("kind", "app_id", "shard_num")
        constraints = (models.UniqueConstraint(fields=("kind", "app_id", "shard_num"), name="one_watermark_a_replica"),)

    def __str__(self) -> str:
        """Whose it is."""
        return f"{self.app_id}/{self.shard_num}" if self.kind == self.Kind.REPLICA else self.kind


class ReplicaMinute(models.Model):
    """What a replica was sent in one minute of the last hour. Written by the daemons alone.

    A replica has a row for each minute of the clock, which the next hour overwrites: so there are never more than 60.
    """

    replica = models.ForeignKey(Watermark, on_delete=models.CASCADE, related_name="minutes")
    slot = models.PositiveSmallIntegerField(help_text="The minute of the hour, from 0 to 59.")
    minute = models.PositiveBigIntegerField(help_text="Which minute it was, counted from 1970.")
    rows = models.PositiveBigIntegerField(default=0, help_text="How many rows were sent.")
    lag_ms = models.BigIntegerField(null=True, blank=True, help_text="How old a change was when sent, at the most.")

    class Meta:
        constraints = (models.UniqueConstraint(fields=("replica", "slot"), name="sixty_minutes_a_replica"),)

    def __str__(self) -> str:
        """Whose and which."""
        return f"{self.replica_id} {self.minute}"


def split_app_ids(text: str) -> list[str]:
    """The app ids of a text that has commas or blanks between them, each once, in order. Raises ``ValidationError``."""
    app_ids = sorted(set(text.replace(",", " ").split()))
    for app_id in app_ids:
        if not APP_ID.fullmatch(app_id):
            raise ValidationError(f"{app_id!r} is no app id: 1 to 63 of the characters a to z, 0 to 9 and _.")
    return app_ids


class ApiKey(models.Model):
    """A key that a zero-cache connects with; kept as a hash. Only ``last_used`` is written by the daemons."""

    name = models.CharField(unique=True, help_text="What the key is for.")
    hash = models.CharField(unique=True, editable=False, help_text="The hash of the key; the key itself is not kept.")
    prefix = models.CharField(default="", blank=True, editable=False, help_text="The key's first characters.")
    created = models.DateTimeField(default=timezone.now, editable=False, help_text="When it was made.")
    app_ids = models.CharField(
        "app ids",
        default="",
        blank=True,
        help_text="ZERO_APP_ID of each zero-cache that may use the key, with commas between; empty: any. One that may "
        "not any more is disconnected within two seconds.",
    )
    expires = models.DateTimeField(
        null=True,
        blank=True,
        help_text="From then on (UTC) the key is refused, and its connections end; empty: never.",
    )
    last_used = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When it was last in use, to the minute."
    )
    revoked = models.DateTimeField(
        null=True, blank=True, help_text="Since then the key is refused. Its connections ended within two seconds."
    )

    # The key itself, on the one object that it was just made with.
    made = ""

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        """Its name."""
        return self.name

    def clean(self) -> None:
        """Write the app ids in one form, and refuse a new key that has expired already."""
        try:
            self.app_ids = ", ".join(split_app_ids(self.app_ids))
        except ValidationError as error:
            raise ValidationError({"app_ids": error}) from error
        if self.pk is None and len(self.name) > LONGEST_NAME:  # PostgreSQL's index takes no more than some 2,700 bytes
            raise ValidationError({"name": f"A name has at most {LONGEST_NAME} characters."})
        if self.pk is None and self.expires is not None and self.expires <= timezone.now():
            raise ValidationError({"expires": "That is past."})


class RowError(models.Model):
    """A value or row that could not be sent as it was. Written by the daemons alone."""

    table = models.CharField(help_text="The Zero table.")
    document_id = models.CharField(help_text="The document's _id, in extended JSON.")
    column = models.CharField(default="", blank=True, help_text="The column at fault.")
    reason = models.TextField(help_text="Why, without the document's contents.")
    count = models.PositiveBigIntegerField(default=1, help_text="How often it was seen.")
    first_seen = models.DateTimeField(default=timezone.now, help_text="When it was first seen.")
    last_seen = models.DateTimeField(default=timezone.now, help_text="When it was last seen.")

    class Meta:
        ordering = ("-last_seen",)
        constraints = (
            models.UniqueConstraint(fields=("table", "document_id", "column"), name="one_row_error_a_value"),
        )

    def __str__(self) -> str:
        """Where it is."""
        return f"{self.table} {self.document_id} {self.column}".rstrip()


class Lease(models.Model):
    """Which process leads. Written by the daemons alone."""

    name = models.CharField(unique=True, help_text="What is led, such as the watcher.")
    holder = models.CharField(default="", blank=True, help_text="The process that leads: host, process, and a mark.")
    token = models.PositiveBigIntegerField(
        default=0, help_text="Rises with each renewal; standing still, it is given up."
    )
    renewed_at = models.DateTimeField(
        default=timezone.now, help_text="When it was last renewed, by its holder's clock."
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        """What is led."""
        return self.name


class LoginTry(models.Model):
    """A try to log in to the admin that failed, or is under way. Kept for LOGIN_TRIES_SECONDS."""

    place = models.CharField(help_text="The client's address; of IPv6 its network.")
    who = models.CharField(help_text="A hash of the user name: people type their password there by mistake.")
    at = models.DateTimeField(default=timezone.now, help_text="When it began.")

    class Meta:
        indexes = (models.Index(fields=("place", "at"), name="login_tries_of_a_place"),)

    def __str__(self) -> str:
        """Where it came from."""
        return self.place
