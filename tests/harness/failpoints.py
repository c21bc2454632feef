"""Commands that MongoDB refuses, or connections that it drops, on purpose; and the codes by which it does.

The names are those of MongoDB's ``error_codes.yml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database

APP_NAME = "zerosource"
HELD_MS = 500
# What a change stream is resumed after, by the drivers' specification of change streams.
RESUMABLE = {
    43: "CursorNotFound",
    6: "HostUnreachable",
    7: "HostNotFound",
    89: "NetworkTimeout",
    91: "ShutdownInProgress",
    189: "PrimarySteppedDown",
    262: "ExceededTimeLimit",
    9001: "SocketException",
    10107: "NotWritablePrimary",
    11600: "InterruptedAtShutdown",
    11602: "InterruptedDueToReplStateChange",
    13435: "NotPrimaryNoSecondaryOk",
    13436: "NotPrimaryOrSecondary",
    63: "StaleShardVersion",
    150: "StaleEpoch",
    13388: "StaleConfig",
    234: "RetryChangeStream",
    133: "FailedToSatisfyReadPreference",
}
# What the specification leaves to the server's label ResumableChangeStreamError, or to nobody, and passes all the same:
# a time-out, an operator's killOp, an election, a conflict, an overload, an end that the server itself means to resume.
PASSING = {
    24: "LockTimeout",
    50: "MaxTimeMSExpired",
    112: "WriteConflict",
    134: "ReadConcernMajorityNotAvailableYet",
    175: "QueryPlanKilled",
    202: "NetworkInterfaceExceededTimeLimit",
    216: "ElectionInProgress",
    222: "CloseChangeStream",
    237: "CursorKilled",
    246: "SnapshotUnavailable",
    279: "ClientDisconnect",
    290: "TransactionExceededLifetimeLimitSeconds",
    358: "InternalTransactionNotSupported",
    365: "TemporarilyUnavailable",
    384: "ConnectionError",
    402: "ResourceExhausted",
    407: "PooledConnectionAcquisitionExceededTimeLimit",
    412: "UpdatesStillPending",
    433: "AdmissionQueueOverflow",
    449: "RateLimitExceeded",
    462: "IngressRequestRateLimitExceeded",
    11601: "Interrupted",
}
RETRYABLE = RESUMABLE | PASSING
# The position is gone, and what comes after it cannot be had any more.
HISTORY_LOST = {
    136: "CappedPositionLost",
    260: "InvalidResumeToken",
    280: "ChangeStreamFatalError",
    286: "ChangeStreamHistoryLost",
}
# What will not pass by trying again, each with our code: somebody has to grant, correct or replace something.
REFUSED = {
    13: ("Unauthorized", "ZS311"),
    18: ("AuthenticationFailed", "ZS311"),
    8000: ("AtlasError", "ZS311"),
    40573: ("$changeStream is only supported on replica sets", "ZS312"),
    2: ("BadValue", "ZS310"),
    9: ("FailedToParse", "ZS310"),
    14: ("TypeMismatch", "ZS310"),
    20: ("IllegalOperation", "ZS310"),
    59: ("CommandNotFound", "ZS310"),
    72: ("InvalidOptions", "ZS310"),
    73: ("InvalidNamespace", "ZS310"),
    115: ("CommandNotSupported", "ZS310"),
    166: ("CommandNotSupportedOnView", "ZS310"),
    167: ("OptionNotSupportedOnView", "ZS310"),
    322: ("APIVersionError", "ZS310"),
    323: ("APIStrictError", "ZS310"),
    324: ("APIDeprecationError", "ZS310"),
    40415: ("a field that the command does not know", "ZS310"),
}


def fail_next(client: MongoClient[dict[str, Any]], command: str, *, code: int) -> None:
    """Fail our own next ``command``, once."""
    data = {"failCommands": [command], "appName": APP_NAME, "errorCode": code}
    client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})


@contextmanager
def failing(
    client: MongoClient[dict[str, Any]], commands: Sequence[str], mode: object, *, code: int = 0
) -> Iterator[None]:
    """Fail our own ``commands`` within the block; ``mode`` is "alwaysOn" or ``{"times": N}``.

    Without a ``code`` the connection is dropped instead.
    """
    how: dict[str, object] = {"errorCode": code} if code else {"closeConnection": True}
    data = {"failCommands": list(commands), "appName": APP_NAME, **how}
    client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})
    try:
        yield
    finally:
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@contextmanager
def catalog_held(database: Database[dict[str, Any]]) -> Iterator[None]:
    """Keep our own looks at the catalog out of the block: each waits half a second, those under way end before it.

    SecantusDB replaces a collection by ``$out`` in two steps, where MongoDB does it in one, and hangs for good where
    collections are listed or modified between the two: both want its catalog, and each waits for the other.
    """
    commands = ["listCollections", "collMod"]
    data = {"failCommands": commands, "appName": APP_NAME, "blockConnection": True, "blockTimeMS": HELD_MS}
    admin = database.client.admin
    admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        # One that began before takes no longer than one that begins now.
        list(database.list_collections())
        yield
    finally:
        admin.command({"configureFailPoint": "failCommand", "mode": "off"})
