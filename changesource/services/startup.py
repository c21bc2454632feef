"""What a process does before it serves or watches: the database, the first admin, the mappings."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction

from changesource.backoff import Backoff
from changesource.conf import Settings
from changesource.exceptions import (
    ConfigurationUnavailable,
    DatabaseUnavailable,
    KeyNotUnique,
    SettingError,
    SourceUnavailable,
    ZerosourceError,
)
from changesource.mapping.questions import questions_of
from changesource.mapping.rows import compile_table
from changesource.services import configuration
from changesource.services.inspection import inspector
from changesource.services.runtime import mongodb_uri
from changesource.sources.mongodb.source import MongoSource
from changesource.store import api_keys, mappings

logger = logging.getLogger(__name__)
T = TypeVar("T")
MIGRATION_LOCK = 0x7A65726F  # any number that is ours
LOAD_TRIES = 5
COLLECTED_AT = 50_000  # objects; a reply's documents are about as many
# Seconds that a process waits for its database at the start; then its supervisor may start it again.
DATABASE_PATIENCE = 60.0
FIRST_API_KEY = "first"


def prepare_database(patience: float = 0) -> None:
    """Apply migrations that are missing; processes that start at once take turns.

    A database that does not answer is waited for up to ``patience`` seconds. Raises ``DatabaseUnavailable``.
    """

    def migrate() -> None:
        with _alone():
            call_command("migrate", verbosity=0, interactive=False)

    patiently(migrate, patience)


def patiently(action: Callable[[], T], patience: float = DATABASE_PATIENCE) -> T:
    """Do ``action`` again until the database answers, for up to ``patience`` seconds; return what it returns.

    Raises ``DatabaseUnavailable``.
    """
    deadline, backoff = time.monotonic() + patience, Backoff("database", first=0.5, longest=5.0)
    while True:
        try:
            return action()
        except (OperationalError, InterfaceError) as error:
            connection.close()
            if time.monotonic() >= deadline:
                raise DatabaseUnavailable.of(error) from error
            logger.warning("the database does not answer, waiting", extra={"error": str(DatabaseUnavailable.of(error))})
            backoff.block()


def prepare(chosen: Settings) -> None:
    """Do ``load_mappings`` and ``check_source``; a database that goes away meanwhile is waited for again."""
    patiently(lambda: load_mappings(chosen))
    patiently(lambda: check_source(chosen))
    _spare_collections()


def _spare_collections() -> None:
    """Have the garbage collector leave alone what is loaded by now, and come less often.

    Documents are decoded by the thousand and freed by their last reference. Each time so many are made it would look
    for cycles in them, and now and then in all that Django is.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_AT, 10, 10)


@contextmanager
def _alone() -> Iterator[None]:
    """Hold PostgreSQL's advisory lock; SQLite locks its file by itself."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])


def first_admin(*, generate: bool) -> tuple[str, str] | None:
    """Make an admin user where there is none, by DJANGO_SUPERUSER_USERNAME, _PASSWORD and _EMAIL.

    With ``generate`` a missing password is made up; return (name, password) then, to be printed this once. Without it
    a given one must be as strong as those that are chosen in the admin. Raises ``SettingError``.
    """
    name = os.environ.get("DJANGO_SUPERUSER_USERNAME", "admin" if generate else "")
    given = os.environ.get("DJANGO_SUPERUSER_PASSWORD", "")
    password = given or (secrets.token_urlsafe(12) if generate else "")
    if not name or not password:
        return None
    # Of several processes that start at once the first one makes it.
    with _alone():
        if has_admin():
            return None
        user = get_user_model()._default_manager.model(
            username=name, email=os.environ.get("DJANGO_SUPERUSER_EMAIL", ""), is_staff=True, is_superuser=True
        )
        if not generate:
            try:
                validate_password(password, user)
            except ValidationError as error:
                raise SettingError(
                    "DJANGO_SUPERUSER_PASSWORD is refused, unless DEBUG is on.", remedy=" ".join(error.messages)
                ) from error
        user.set_password(password)
        try:
            with transaction.atomic():
                user.save()
        except IntegrityError:
            # By somebody who is no superuser: nothing that must keep replicas waiting.
            logger.warning("no admin user made", extra={"user": name, "why": "the name is taken"})
            return None
    logger.info("admin user made", extra={"user": name})
    return None if given else (name, password)


def has_admin() -> bool:
    """Whether there is a superuser."""
    return get_user_model()._default_manager.filter(is_superuser=True).exists()


def first_api_key(chosen: Settings) -> str | None:
    """Make an API key at the very first start and return it, to be printed this once.

    None where DEBUG is on, where the environment has keys, and where one was made before, even if all were revoked.
    """
    if chosen.debug or chosen.api_keys or api_keys.kept().any_made:
        return None
    # Of several processes that start at once the first one makes it; the name is taken for the others.
    return api_keys.create(FIRST_API_KEY)


def load_mappings(chosen: Settings) -> None:
    """Read the managed mappings. Where they cannot be used, what was loaded before is served on, if anything was.

    Else it tries again where that may help, and then raises what ``load_managed`` does.
    """
    backoff = Backoff("mappings", first=1.0)
    for attempt in range(LOAD_TRIES):
        try:
            configuration.load_managed(chosen, inspector())
            return
        except ZerosourceError as error:
            passing = isinstance(error, ConfigurationUnavailable | SourceUnavailable)
            if passing and attempt < LOAD_TRIES - 1:
                logger.warning("mappings cannot be loaded, trying again", extra={"error": str(error)})
                backoff.block()
            elif mappings.latest_content() is None:
                raise
            else:
                logger.warning(
                    "managed mappings cannot be used, keeping the last ones",
                    extra={"code": error.code, "why": error.message},
                )
                return


def check_source(chosen: Settings) -> None:
    """See that MongoDB can be watched and that barriers can be written there.

    Raises ``SourceRefused`` of a kind, whose remedy says what to grant or change. A MongoDB that does not answer is
    waited for later, by what reads it.
    """
    try:
        asyncio.run(_check_source(chosen))
        _check_keys()
    except SourceUnavailable as error:
        logger.warning("MongoDB does not answer yet", extra={"error": str(error)})


def _check_keys() -> None:
    """Tell of keys whose unique index is gone, or that were published without MongoDB being asked."""
    inspect, published = inspector(switch=False), configuration.current()
    if inspect is None or published is None:
        return
    for table in published.specification.tables:
        try:
            inspect(questions_of([compile_table(table)]))
        except KeyNotUnique as error:
            logger.error("two documents may have one key", extra={"table": table.name, "error": str(error)})


async def _check_source(chosen: Settings) -> None:
    published = await configuration.acurrent()
    tables = published.specification.tables if published else ()
    source = MongoSource(
        mongodb_uri(chosen),
        chosen.mongodb_database,
        chosen.barrier_collection,
        post_images=chosen.post_images,
    )
    try:
        compiled = [compile_table(table) for table in tables]
        history = {table.spec.collection for table in compiled if table.has_history}
        await source.prepare({table.collection for table in tables}, history)
        await source.barrier("start")
    finally:
        await source.close()
