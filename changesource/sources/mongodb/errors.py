"""Translates what the driver raises into our errors, in this one place.

Codes are those of MongoDB's error_codes.yml.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import BSONError
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    CursorNotFound,
    DuplicateKeyError,
    OperationFailure,
    ProtocolError,
    PyMongoError,
    WriteConcernError,
    WTimeoutError,
)

from changesource.exceptions import (
    CursorLost,
    HistoryLost,
    NotReplicaSet,
    PrivilegeMissing,
    ReplyTooLarge,
    ReplyUnreadable,
    SourceRefused,
    SourceUnavailable,
    ZerosourceError,
)
from changesource.sources.mongodb.privileges import DOCUMENT, Need

HISTORY_LOST = {136, 260, 280, 286}  # CappedPositionLost, InvalidResumeToken, ChangeStreamFatalError, ...HistoryLost
CURSOR_LOST = {43, 175, 237, 11601}  # CursorNotFound, QueryPlanKilled (a drop or rename), CursorKilled, Interrupted
AUTHENTICATION = 18  # AuthenticationFailed
PRIVILEGE = {13, AUTHENTICATION, 8000}  # Unauthorized, AuthenticationFailed, AtlasError
# What MongoDB and Atlas say, under the codes of a missing privilege, to those who are not logged in.
NO_LOGIN = ("requires authentication", "bad auth", "Authentication failed")
STANDALONE = {40573}  # $changeStream is only supported on replica sets
TOO_LARGE = {10334, 17280}  # BSONObjectTooLarge
# What will not pass by itself: the command, an option or the namespace is wrong, or the server knows no such thing.
# BadValue, FailedToParse, TypeMismatch, IllegalOperation, CommandNotFound, InvalidOptions, InvalidNamespace,
# CommandNotSupported(OnView), OptionNotSupportedOnView, APIVersionError and its kin, an unknown field, no code at all.
REFUSED = {0, 2, 9, 14, 20, 59, 72, 73, 115, 166, 167, 322, 323, 324, 40415}
# Stages and options that this server does not have.
UNKNOWN_STAGE = {40324}
PASSING_LABELS = (
    *("RetryableWriteError", "ResumableChangeStreamError", "TransientTransactionError"),
    *("SystemOverloadedError", "RetryableError"),
)


def translate(error: PyMongoError, need: Need | None = None) -> ZerosourceError:
    """Return our error for a driver's; the driver's own words are in the message.

    ``need`` is the privilege that the command wants, which the error names where it lacks.
    """
    words = str(error).partition(", full error:")[0]
    match error:
        case CursorNotFound():
            return CursorLost(words)
        case ConnectionFailure() | DuplicateKeyError() | WTimeoutError() | WriteConcernError():
            # Or two processes that first write a barrier at once, or a majority that is not there now.
            return SourceUnavailable(words)
        case OperationFailure():
            return _of_code(error, words, need)
        case ProtocolError():
            return ReplyTooLarge(words)
        case ConfigurationError() if _is_of_dns(error):
            return SourceUnavailable(words)
        case _:
            return SourceRefused(words)


def _is_of_dns(error: ConfigurationError) -> bool:
    """Whether the servers of a ``mongodb+srv`` URI could not be asked for; the driver tells it by its words alone."""
    cause = error.__cause__ or error.__context__
    return type(cause).__module__.startswith("dns.") or str(error).startswith("The DNS ")


def _of_code(error: OperationFailure, words: str, need: Need | None) -> ZerosourceError:
    code = error.code or 0
    if code in PRIVILEGE:
        return _missing(code, words, need)
    for codes, kind in (
        (HISTORY_LOST, HistoryLost),
        (CURSOR_LOST, CursorLost),
        (STANDALONE, NotReplicaSet),
        (TOO_LARGE, ReplyTooLarge),
    ):
        if code in codes:
            return kind(words)
    if any(error.has_error_label(label) for label in PASSING_LABELS):
        return SourceUnavailable(words)
    # All else may pass (elections, conflicts, overload, a collection that is just being dropped), and MongoDB's
    # releases add to it: a try too many costs a line in the log, a connection that ends costs an initial sync.
    return SourceRefused(words) if code in REFUSED | UNKNOWN_STAGE else SourceUnavailable(words)


def _missing(code: int, words: str, need: Need | None) -> PrivilegeMissing:
    words = words.rstrip(".")
    if code == AUTHENTICATION or any(said in words for said in NO_LOGIN):
        return PrivilegeMissing(
            f"MongoDB does not let the user in: {words}.",
            remedy="Correct the user, its password or authSource in MONGODB_URI.",
        )
    if need is None:
        return PrivilegeMissing(words)
    return PrivilegeMissing(
        f"The MongoDB user lacks {need}: {words}.", remedy=f"Grant it: {need.grant} (see {DOCUMENT})."
    )


@contextmanager
def translated(need: Need | None = None) -> Iterator[None]:
    """Raise our errors for the driver's within the block, and a cancellation that the driver forgot.

    ``need`` is the privilege that the block's command wants.
    """
    try:
        yield
    except PyMongoError as error:
        _remember_cancellation()
        raise translate(error, need) from error
    except BSONError as error:
        # What the driver could make nothing of; its words quote bytes.
        _remember_cancellation()
        raise ReplyUnreadable(f"A reply of MongoDB cannot be read ({type(error).__name__}).") from error
    _remember_cancellation()


def _remember_cancellation() -> None:
    """Raise ``CancelledError`` where the running task was told to end.

    The driver sends by ``asyncio.wait_for``, which before Python 3.12 returns as if nothing were where a cancellation
    meets its end (https://github.com/python/cpython/issues/86296). A loop would then go on for good.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return  # no event loop: the driver's synchronous side
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
