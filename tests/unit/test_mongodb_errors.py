"""What the driver raises, and what it is for us."""

from __future__ import annotations

import pytest
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    CursorNotFound,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidName,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ProtocolError,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from changesource.exceptions import (
    CursorLost,
    HistoryLost,
    NotReplicaSet,
    PrivilegeMissing,
    ReplyTooLarge,
    ServerTooOld,
    ShardedCluster,
    SourceRefused,
    SourceUnavailable,
    ZerosourceError,
)
from changesource.sources.mongodb.errors import PASSING_LABELS, translate, translated
from changesource.sources.mongodb.privileges import Need
from changesource.sources.mongodb.survey import check_server
from tests.harness.failpoints import HISTORY_LOST, REFUSED, RETRYABLE

# The lists of what ends a change stream are those that the failpoints use.
CURSORS = [43, 175, 237, 11601]
CODES: dict[type[ZerosourceError], list[int]] = {
    HistoryLost: [*HISTORY_LOST],
    # CursorNotFound, QueryPlanKilled, CursorKilled, Interrupted
    CursorLost: CURSORS,
    PrivilegeMissing: [code for code, (_, ours) in REFUSED.items() if ours == PrivilegeMissing.code],
    NotReplicaSet: [code for code, (_, ours) in REFUSED.items() if ours == NotReplicaSet.code],
    # BSONObjectTooLarge, an element too large
    ReplyTooLarge: [10334, 17280],
    # What names a host, an election, a shutdown, a time-out, a conflict, overload, a collection that is being dropped,
    # writes that are blocked, a full disk; and one that nobody knows.
    SourceUnavailable: [
        *sorted(RETRYABLE.keys() - set(CURSORS)),
        *(46, 64, 94, 96, 143, 211, 215, 261, 264, 314, 317, 355, 371, 391, 14031, 10058, 123456789),
    ],
    # Beside these: a stage that the server has not, no code at all
    SourceRefused: [*(code for code, (_, ours) in REFUSED.items() if ours == SourceRefused.code), 40324, 0],
}
CASES = [(code, kind) for kind, codes in CODES.items() for code in codes]


@pytest.mark.parametrize(("code", "kind"), CASES)
def test_a_code(code: int, kind: type[ZerosourceError]) -> None:
    error = translate(OperationFailure("what MongoDB says, full error: {'secret': 1}", code, {"code": code}))
    assert type(error) is kind
    assert error.message.rstrip(".").endswith("what MongoDB says")
    assert "secret" not in str(error)


def test_a_failure_without_a_code_is_a_refusal() -> None:
    assert type(translate(OperationFailure("x"))) is SourceRefused


@pytest.mark.parametrize("label", PASSING_LABELS)
def test_a_label_that_says_try_again(label: str) -> None:
    failure = OperationFailure("x", 2, {"errorLabels": [label]})
    assert type(translate(failure)) is SourceUnavailable


def test_a_label_does_not_outdo_history_that_is_lost() -> None:
    failure = OperationFailure("x", 286, {"errorLabels": ["NonResumableChangeStreamError", *PASSING_LABELS]})
    assert type(translate(failure)) is HistoryLost


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CursorNotFound("x", 43), CursorLost),
        (AutoReconnect("x"), SourceUnavailable),
        (NetworkTimeout("x"), SourceUnavailable),
        (NotPrimaryError("x"), SourceUnavailable),
        (ConnectionFailure("x"), SourceUnavailable),
        (ServerSelectionTimeoutError("x"), SourceUnavailable),
        (WaitQueueTimeoutError("x"), SourceUnavailable),
        (ExecutionTimeout("x", 50), SourceUnavailable),
        (DuplicateKeyError("x", 11000), SourceUnavailable),
        (WriteConcernError("x", 100), SourceUnavailable),
        (WTimeoutError("x", 64), SourceUnavailable),
        (ProtocolError("x"), ReplyTooLarge),
        (ConfigurationError("x"), SourceRefused),
        (ConfigurationError("The DNS query name does not exist: _mongodb._tcp.x."), SourceUnavailable),
        (InvalidName("x"), SourceRefused),
        (PyMongoError("x"), SourceRefused),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, Exception) else "",
)
def test_a_class(error: PyMongoError, kind: type[ZerosourceError]) -> None:
    found = translate(error)
    assert type(found) is kind
    assert found.retryable is issubclass(kind, SourceUnavailable)


def test_the_cause_is_kept() -> None:
    cause = OperationFailure("x", 13)
    with pytest.raises(PrivilegeMissing) as raised, translated():
        raise cause
    assert raised.value.__cause__ is cause
    assert "docs/privileges.md" in raised.value.remedy


NEED = Need(("update", "insert"), 'my "app"', "_zerosource")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (13, 'not authorized on app to execute command { update: "_zerosource", ordered: true, $db: "app" }'),
        (13, "Failing command via 'failCommand' failpoint"),
        (8000, "user is not allowed to do action [update] on [app._zerosource]."),
    ],
)
def test_a_privilege_that_lacks_is_named(code: int, words: str) -> None:
    error = translate(OperationFailure(words, code), NEED)
    assert error.message == f'The MongoDB user lacks update and insert on my "app"._zerosource: {words.rstrip(".")}.'
    assert error.remedy == (
        'Grant it: db.getSiblingDB("my \\"app\\"").grantPrivilegesToRole("zerosource", [{resource: {'
        'db: "my \\"app\\"", collection: "_zerosource"}, actions: ["update", "insert"]}]) (see docs/privileges.md).'
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (18, "Authentication failed."),
        (13, "command aggregate requires authentication"),
        (13, "Command find requires authentication"),
        (8000, "bad auth : authentication failed"),
        (8000, "bad auth : Authentication failed."),
    ],
)
def test_a_user_who_is_not_let_in(code: int, words: str) -> None:
    """No privilege would help."""
    error = translate(OperationFailure(words, code), NEED)
    assert type(error) is PrivilegeMissing
    assert words.rstrip(".") in error.message
    assert "MONGODB_URI" in error.remedy
    assert "grant" not in str(error)


def test_servers() -> None:
    check_server({"setName": "rs0", "maxWireVersion": 17})
    with pytest.raises(ShardedCluster, match=r"sharded.*replica set"):
        check_server({"msg": "isdbgrid", "maxWireVersion": 25})
    with pytest.raises(NotReplicaSet, match=r"standalone.*replSet"):
        check_server({"maxWireVersion": 25})
    with pytest.raises(ServerTooOld, match=r"older than 6\.0.*Upgrade"):
        check_server({"setName": "rs0", "maxWireVersion": 13})
    with pytest.raises(ServerTooOld):
        check_server({"setName": "rs0"})
