"""What operators keep in the database: mappings, publications, keys; and what was published of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import models
from django.utils import timezone

from changesource.exceptions import MappingError
from changesource.fields import OrderedJSONField
from changesource.mapping.rows import compile_table
from changesource.mapping.spec import ColumnSpec, ColumnType, ErrorPolicy, IdType, LargeIntegers, TableSpec
from changesource.protocol.request import APP_ID

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
