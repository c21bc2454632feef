"""The state that the daemons leave in the database, for operators to see."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from changesource.fields import OrderedJSONField


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
