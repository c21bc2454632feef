"""Translates what the driver raises into our errors, in this one place.

Codes are those of MongoDB's error_codes.yml.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import (
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
    SourceRefused,
    SourceUnavailable,
    ZerosourceError,
)

HISTORY_LOST = {136, 260, 280, 286}  # CappedPositionLost, InvalidResumeToken, ChangeStreamFatalError, ...HistoryLost
CURSOR_LOST = {43, 175, 237, 11601}  # CursorNotFound, QueryPlanKilled (a drop or rename), CursorKilled, Interrupted
PRIVILEGE = {13, 18, 8000}  # Unauthorized, AuthenticationFailed, AtlasError
STANDALONE = {40573}  # $changeStream is only supported on replica sets
TOO_LARGE = {10334, 17280}  # BSONObjectTooLarge
PASSING = {
    *(6, 7, 24, 50, 63, 64, 89, 91, 112, 133, 134, 150, 189, 202, 211, 234, 246, 262, 317, 365, 384, 462),
    *(9001, 10058, 10107, 11600, 11602, 13388, 13435, 13436),
}
PASSING_LABELS = ("RetryableWriteError", "ResumableChangeStreamError", "TransientTransactionError")


def translate(error: PyMongoError) -> ZerosourceError:
    """Return our error for a driver's; the driver's own words are in the message."""
    words = str(error).partition(", full error:")[0]
    match error:
        case CursorNotFound():
            return CursorLost(words)
        case DuplicateKeyError() | WTimeoutError() | WriteConcernError():
            # Two processes that first write a barrier at once, or a majority that is not there now.
            return SourceUnavailable(words)
        case OperationFailure():
            return _of_code(error, words)
        case ProtocolError():
            return ReplyTooLarge(words)
        case ConnectionFailure():
            return SourceUnavailable(words)
        case _:
            return SourceRefused(words)


def _of_code(error: OperationFailure, words: str) -> ZerosourceError:
    code = error.code or 0
    for codes, kind in (
        (HISTORY_LOST, HistoryLost),
        (CURSOR_LOST, CursorLost),
        (PRIVILEGE, PrivilegeMissing),
        (STANDALONE, NotReplicaSet),
        (TOO_LARGE, ReplyTooLarge),
        (PASSING, SourceUnavailable),
    ):
        if code in codes:
            return kind(words)
    if any(error.has_error_label(label) for label in PASSING_LABELS):
        return SourceUnavailable(words)
    return SourceRefused(words)


@contextmanager
def translated() -> Iterator[None]:
    """Raise our errors for the driver's within the block, and a cancellation that the driver forgot."""
    try:
        yield
    except PyMongoError as error:
        _remember_cancellation()
        raise translate(error) from error
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
