"""What clients send: query strings, headers, acks, the live page's messages, resume positions; and the environment."""

from __future__ import annotations

import base64
import json
import random
import tempfile
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

import orjson
from channels.sessions import CookieMiddleware
from hypothesis import strategies as st

from changesource.conf import Settings, read_settings
from changesource.consumers import ChangeStreamConsumer, LiveConsumer
from changesource.exceptions import AccessRefused, SettingError, WatermarkInvalid, ZerosourceError
from changesource.protocol.request import StreamRequest
from changesource.protocol.watermark import MAX_CLUSTER_TIME, Watermark
from changesource.services import access
from changesource.services.live import LiveFeed
from tests.fuzz.drawing import (
    TEXTS,
    json_value,
    mutated_bytes,
    mutated_json,
    of_corpus,
    plain,
    seeded,
)
from tests.fuzz.targets import Plant, Target, finished, gives_nothing, hangs, raises_key_error, refused
from tests.harness.environment import blank_environment

MARK = str(Watermark(7_300_000_000_000_000_001, 2**63 + 5))
ASCII = st.binary(max_size=60)

# Query strings.

QUERIES = (
    b"appID=zero&shardNum=0",
    b"appID=zero&shardNum=0&publications=a&publications=b",
    f"appID=zero&shardNum=0&lastWatermark={MARK}&replicaVersion={MARK}&apiKey=secret".encode(),
    b"k=a%2Bb&appID=a_1&shardNum=3&publications=p%C3%A9",
)
NAMES = ("appID", "shardNum", "publications", "lastWatermark", "replicaVersion", "apiKey", "k", "x")


def _query(chance: random.Random) -> bytes:
    pairs = [
        (chance.choice(NAMES), chance.choice((plain(chance), "zero", "0", MARK))) for _ in range(chance.randrange(7))
    ]
    return urlencode(pairs).encode()


def check_query(query: bytes) -> None:
    """A request says what the query says, and no more; a key is that of the query."""
    try:
        request = StreamRequest.parse(query)
    except ZerosourceError as error:
        refused(error)
    else:
        given = parse_qsl(query.decode(), keep_blank_values=True)
        assert ("appID", request.app_id) in given
        assert request.shard_num >= 0
        assert set(request.publications) == {value for name, value in given if name == "publications" and value}
        assert request.last_watermark == dict(given).get("lastWatermark", "")
        _check_position(request.last_watermark)
    try:
        key = access.presented_key({"query_string": query, "headers": []})
    except AccessRefused as error:
        refused(error)
    else:
        assert key in [value for name, value in parse_qsl(query.decode()) if name in access.KEY_PARAMETERS]


def _check_position(position: str) -> None:
    try:
        mark = Watermark.parse(position)
    except WatermarkInvalid as error:
        refused(error)
        assert len(str(error)) < 400
    else:
        assert str(mark) == position
        assert 0 <= mark.cluster_time <= MAX_CLUSTER_TIME


def _position(chance: random.Random) -> str:
    marks = (MARK, str(Watermark(0, 0)), str(Watermark(2**64 - 1, 2**64 - 1)), "00.00", "1z.00")
    if chance.random() < 0.2:
        return str(Watermark(chance.randrange(2**66), chance.randrange(2**64)))
    return mutated_bytes(chance.choice(marks).encode(), chance).decode("utf-8", "replace")


# Headers.

HEADER_VALUES = (
    b"Basic " + base64.b64encode(b"any:key"), b"Basic " + base64.b64encode(b"key:"), b"Basic", b"basic  ====",
    b"Bearer x",
    b"Basic " + base64.b64encode(b"\xff\xfe"), b"Basic \xff", b"http://localhost:3000", b"localhost:3000", b"null", b"",
    b"http://", b"https://[::1]:443", b"[::1", b"http://[", b"localhost:99999999999999999999", b"http://a@b:c:d", b"*",
    b'sessionid="\\000\\377aaaaaaaa"; csrftoken=', b"sessionid=" + b"a" * 5000, b";;;=;=", b"a=b; a=c",
    b"\xc3\x28", b":",
)  # fmt: skip
HEADER_NAMES = (b"authorization", b"origin", b"host", b"cookie", b"user-agent")


def _headers(chance: random.Random) -> list[tuple[bytes, bytes]]:
    def value() -> bytes:
        chosen = chance.choice(HEADER_VALUES)
        return mutated_bytes(chosen, chance) if chance.random() < 0.5 else chosen

    return [(chance.choice(HEADER_NAMES), value()) for _ in range(chance.randrange(1, 5))]


def check_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """A foreign origin is refused, a key is what Basic says, cookies are text."""
    try:
        access.check_origin(headers, ("localhost", "127.0.0.1", "[::1]"))
    except ZerosourceError as error:
        refused(error)
    else:
        found = dict(headers)
        if b"origin" in found:
            place = found[b"origin"].lower().partition(b"://")[2]
            assert place.startswith((b"localhost", b"127.0.0.1", b"[::1]")), found
    try:
        key = access.presented_key({"query_string": b"", "headers": headers})
    except AccessRefused as error:
        refused(error)
    else:
        sent = [value.partition(b" ")[2].strip() for name, value in headers if name == b"authorization"]
        assert key.encode() in base64.b64decode(sent[0])
    seen: dict[str, Any] = {}

    async def inner(scope: dict[str, Any], *_: object) -> None:
        seen.update(scope["cookies"])

    finished(CookieMiddleware(inner)({"type": "websocket", "headers": headers}, None, None))
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in seen.items())


# What comes over the open socket.

ACKS = (
    json.dumps(["status", {"tag": "commit"}, {"watermark": MARK}]),
    json.dumps(["status", {}, {"watermark": MARK, "more": 1}, 5]),
    json.dumps(["keepalive", {}]),
    "[" * 100_000,
    '["status",{},{"watermark":"' + "9" * 100_000 + '"}]',
    '["status",{},{"watermark":"\\ud800"}]',
)


def _frame(corpus: tuple[str, ...]) -> st.SearchStrategy[str]:
    def make(chance: random.Random) -> str:
        kind = chance.randrange(4)
        if kind == 0:
            return json.dumps(json_value(chance))
        chosen = chance.choice(corpus)
        if kind == 1 and len(chosen) < 1000:
            return json.dumps(mutated_json(json.loads(chosen), chance, rate=0.15))
        # As the server's library gives it: UTF-8 was checked.
        return mutated_bytes(chosen[:500].encode("utf-8", "replace"), chance).decode("utf-8", "replace")

    return seeded(make)


class _Session:
    """What takes acks."""

    def __init__(self) -> None:
        self.acked: list[str] = []

    def ack(self, watermark: str) -> None:
        self.acked.append(watermark)


def check_ack(frame: str) -> None:
    """A status frame's watermark is taken, and nothing else."""
    consumer = ChangeStreamConsumer()
    session = _Session()
    consumer.session = cast("Any", session)
    finished(consumer.receive(text_data=frame))
    finished(consumer.receive(bytes_data=frame.encode("utf-8", "surrogatepass")))
    try:
        orjson.loads(frame)  # which refuses numbers that no double holds
        match json.loads(frame):
            case ["status", dict(), {"watermark": str(mark)}, *_] if mark and not any(
                "\ud800" <= c <= "\udfff" for c in mark
            ):
                assert session.acked == [mark]
            case _:
                assert session.acked == []
    except (ValueError, RecursionError):
        assert session.acked == []
    for mark in session.acked:
        _check_position(mark)


ASKED = (
    '{"table": "", "key": "", "paused": false}',
    '{"table": "message", "key": "5", "paused": true}',
    '{"table": "a", "key": "\\u0000", "paused": true, "more": []}',
)


def check_live(frame: str) -> None:
    """What the page asks for is taken where it is whole, and what is sent then can be made."""
    consumer = LiveConsumer()
    consumer.feed = LiveFeed(1.0, 0.0)
    before = consumer.feed.wanted

    class Asked:
        done = False

        def set(self) -> None:
            self.done = True

    asked = Asked()
    consumer.asked = cast("Any", asked)
    finished(consumer.receive(text_data=frame))
    try:
        orjson.loads(frame)  # which refuses numbers that no double holds, and halves of characters
        given = json.loads(frame)
    except (ValueError, RecursionError):
        given = None
    whole = isinstance(given, dict) and [type(given.get(name)) for name in ("table", "key", "paused")] == [
        str,
        str,
        bool,
    ]
    if not whole:
        assert (consumer.feed.wanted, asked.done) == (before, False)
    elif asked.done:
        assert (consumer.feed.wanted.table, consumer.feed.wanted.key) == (given["table"], given["key"])
        consumer.feed.wanted.may_want(b'{"a":5}')
    else:
        assert "\\ud" in frame.lower(), frame  # JSON's half characters are no text


# The environment.

SETTINGS = [*blank_environment(), "DATA_DIR"]
VALUES = (
    *(text for text in TEXTS if "\0" not in text and not any("\ud800" <= c <= "\udbff" for c in text)),
    "~nobody-of-this-name/x", "/dev/null", "/dev/null/x", "http://[", "http://h:x/", "mongodb://",
    "mongodb://u:p@", "on",
    "mongodb://h/?replicaSet", "mongodb://h:1,h:x/a", "mongodb://%/", "mongodb://u:%zz@h/a%00b",
    "mongodb+srv://h", "\udcff",
    "mongodb://h/a\udcff", "sqlite://", "sqlite:///x", "postgresql://h:x/", "postgres://[", "postgresql://u:p@h/d?a=b",
    "redis://", "unix://x", "1e400", "nan", "-inf", "٣", "0x10", "1_000", ",,,", "a,,b", "system.x", "3" * 5000,
    "file:///x",
    "https://h/%00", "http://\udcff", "redis://h:99999",
)  # fmt: skip


def _environment(chance: random.Random) -> dict[str, str]:
    found = {name: chance.choice(VALUES) for name in chance.sample(SETTINGS, chance.randrange(1, 4))}
    return {name: value[:6000] for name, value in found.items()}


class _Places:
    """A folder for each input, since what is kept in one would help the next."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="zerosource-fuzz-")
        self.number = 0

    def next(self) -> Path:
        self.number += 1
        path = Path(self.folder.name) / str(self.number)
        path.mkdir()
        return path


_places = _Places()


def check_settings(variables: dict[str, str]) -> None:
    """Settings, or one line that names the variable at fault, without what may be secret in it."""
    given = {"SECRET_KEY": "s", **variables}
    try:
        found = read_settings(given, _places.next())
    except SettingError as error:
        refused(error)
        named = [name for name in SETTINGS if name in error.message]
        assert named, str(error)
        assert "\n" not in str(error)
        for name in ("MONGODB_URI", "DATABASE_URL", "REDIS_URL", "SCHEMA_URL", "SECRET_KEY"):
            assert not error.message.startswith(name) or len(given[name]) < 12 or given[name] not in str(error)
    else:
        assert isinstance(found, Settings)
        assert 1 <= found.port <= 65535
        assert len(found.api_keys) <= given.get("CHANGE_SOURCE_API_KEYS", "").count(",") + 1


TARGETS = [
    Target(
        "query",
        st.one_of(ASCII, of_corpus(QUERIES, mutated_bytes), seeded(_query)),
        check_query,
        [
            Plant("a parser that raises", "changesource.consumers.StreamRequest.parse", raises_key_error),
            Plant("a parser that hangs", "changesource.protocol.request.parse_qs", hangs),
            Plant("a publication that is lost", "changesource.protocol.request.sorted", lambda *_: []),
        ],
        [*QUERIES, b"&" * 5000, b"appID=%", b"a=1&" * 300, b"appID=zero&shardNum=0&publications=%00"],
    ),
    Target(
        "positions",
        seeded(_position),
        _check_position,
        [
            Plant("a parser that raises", "changesource.protocol.watermark.unlexi", raises_key_error),
            Plant("a parser that hangs", "changesource.protocol.watermark.unlexi", hangs),
            Plant("a position that is another", "changesource.protocol.watermark.unlexi", len),
        ],
        ["", MARK, MARK + "\n", "d" + "z" * 14 + ".00", "z" * 5000, "٣٣.٣٣"],
    ),
    Target(
        "headers",
        seeded(_headers),
        check_headers,
        [
            Plant("a parser that raises", "changesource.services.access.basic_key", raises_key_error),
            Plant("a foreign origin that is let in", "changesource.services.access.check_origin", gives_nothing),
            Plant("a parser that hangs", "changesource.services.access.basic_key", hangs),
        ],
        [[(b"origin", value), (b"host", value)] for value in HEADER_VALUES],
    ),
    Target(
        "acks",
        _frame(ACKS),
        check_ack,
        [
            Plant("a parser that raises", "changesource.consumers.acked_watermark", raises_key_error),
            Plant("a parser that hangs", "changesource.consumers.acked_watermark", hangs),
            Plant("acks that are lost", "changesource.consumers.acked_watermark", gives_nothing),
        ],
        ACKS,
    ),
    Target(
        "live",
        _frame(ASKED),
        check_live,
        [
            Plant("a page's wish that raises", "changesource.consumers.Wanted", raises_key_error),
            Plant("a page's wish that hangs", "changesource.consumers.Wanted", hangs),
            Plant(
                "a page's wish that is another", "changesource.consumers.Wanted", lambda *_: LiveFeed(1.0, 0.0).wanted
            ),
        ],
        [*ASKED, "", "[]", "5", "null", '"x"', "[" * 100_000],
    ),
    Target(
        "settings",
        seeded(_environment),
        check_settings,
        [
            Plant("a bound that raises", "changesource.conf._Reader.integer", raises_key_error),
            Plant("a path that hangs", "changesource.conf._Reader.path", hangs),
            Plant(
                "an error that names no variable", "changesource.conf.wrong", lambda *_: SettingError("It is wrong.")
            ),
        ],
        [
            {"SCHEMA_FILE": "~nobody-of-this-name/x"},
            {"DATA_DIR": "/dev/null/x"},
            {"DATA_DIR": "/dev/null/x", "SECRET_KEY": ""},
            {"MONGODB_DATABASE": "\udcff"},
            {"MONGODB_URI": "mongodb://h/a\udcff"},
            {"BARRIER_COLLECTION": "\udcff"},
            {"PORT": "3" * 5000},
        ],
        full=5_000,
        quick=200,
    ),
]
