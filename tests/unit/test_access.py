"""Which key a request presents, which Origin it may have, and that no log line shows a key."""

from __future__ import annotations

import base64
import io
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from daphne.access import AccessLogGenerator
from django.db import InterfaceError

from changesource import access_log
from changesource.conf import settings
from changesource.exceptions import AccessRefused, AccessUnchecked, OriginRefused
from changesource.logs import JsonFormatter, TextFormatter
from changesource.services.access import admit, check_origin, is_loopback, key_of, presented_key
from changesource.store import api_keys
from changesource.store.api_keys import KeptKey, KeptKeys, hash_of

KEY = "zs_" + "Abc-_9" * 7


def scope(query: str = "", *authorization: str) -> dict[str, Any]:
    """A WebSocket's scope with this query and these Authorization headers."""
    return {
        "type": "websocket",
        "query_string": query.encode(),
        "headers": [(b"host", b"a:1"), *((b"authorization", value.encode()) for value in authorization)],
    }


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("query", "authorization", "key"),
    [
        ("apiKey=one", (), "one"),
        ("appID=zero&k=one", (), "one"),
        ("apiKey=one&k=one&apiKey=one", (), "one"),
        ("apiKey=a%2Bb%3D%C3%A9", (), "a+b=é"),
        ("apiKey=one,two", (), "one,two"),
        ("apiKey=one", (basic("proxy:password"),), "one"),
        ("", (basic("anybody:one"),), "one"),
        ("", (basic(":one"),), "one"),
        ("", (basic("one:"),), "one"),
        ("", (basic("one"),), "one"),
        ("", (basic("user:one:two"),), "one:two"),
        ("", (basic("user:é").replace("Basic ", "basic  "),), "é"),
    ],
)
def test_the_key_that_is_presented(query: str, authorization: tuple[str, ...], key: str) -> None:
    assert presented_key(scope(query, *authorization)) == key


@pytest.mark.parametrize(
    ("query", "authorization", "why"),
    [
        ("appID=zero", (), "no API key"),
        ("apikey=one", (), "no API key"),
        ("apiKey=", (), "empty"),
        ("apiKey", (), "empty"),
        ("apiKey=", (basic("user:one"),), "empty"),
        ("apiKey=one&apiKey=two", (), "several"),
        ("apiKey=one&k=two", (), "several"),
        ("apiKey=one&apiKey=", (), "several"),
        ("apiKey=é", (), "not readable"),
        ("&".join(["apiKey=one"] * 300), (), "not readable"),
        ("", (basic(":"),), "empty"),
        ("", ("Basic",), "empty"),
        ("", ("Basic !!!",), "not readable"),
        ("", (f"{basic('u:one')},{basic('u:two')}",), "not readable"),
        ("", ("Basic /w==",), "not readable"),
        ("", ("Bearer one",), "another Authorization"),
        ("", (basic("u:one"), basic("u:two")), "several"),
    ],
)
def test_no_single_key(query: str, authorization: tuple[str, ...], why: str) -> None:
    with pytest.raises(AccessRefused, match=why) as caught:
        presented_key(scope(query, *authorization))
    assert caught.value.code == "ZS122"
    assert "one" not in caught.value.message.replace("one is wanted", "")
    assert caught.value.__cause__ is None


def test_any_of_several_keys_fits_and_nothing_else() -> None:
    kept = KeptKeys({hash_of(key): KeptKey(key, hash_of(key)) for key in ("k1", "k2")})
    assert [key_of(key, kept).name for key in ("k1", "k2")] == ["k1", "k2"]
    for wrong in ("", "k", "k3", "k1k2", "k1,k2", "k2,k1", "k1 ", " k1", "K1", "k1\0", hash_of("k1")):
        with pytest.raises(AccessRefused, match="The API key is wrong"):
            key_of(wrong, kept)
    with pytest.raises(AccessRefused):
        key_of("k1", KeptKeys())


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "anything.example", ("localhost",)),
        ("http://localhost:3000", "localhost:3000", ("localhost",)),
        ("HTTP://LocalHost:3000", "localhost:3000", ("localhost",)),
        ("http://[::1]:3000", "[::1]:3000", ("[::1]",)),
        ("https://zero.example", "zero.example", (".example",)),
        ("https://zero.example", "zero.example:443", ("zero.example",)),
        ("http://zero.example:80", "zero.example", ("*",)),
    ],
)
def test_origins_of_ours(origin: str | None, host: str, allowed: tuple[str, ...]) -> None:
    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin else [])
    check_origin(headers, allowed)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "localhost:3000"),
        ("", "localhost:3000"),
        ("null", "null"),
        ("http://evil.example", "localhost:3000"),
        ("http://localhost", "localhost:3000"),
        ("http://localhost:3001", "localhost:3000"),
        ("http://localhost:3000.evil.example", "localhost:3000"),
        ("http://evil.example@localhost:3000", "localhost:3000"),
        ("https://localhost:80", "localhost"),
        ("localhost:3000", "localhost:3000"),
        ("file://", "localhost:3000"),
        ("chrome-extension://localhost:3000", "localhost:3000"),
        ("http://", ""),
        # Another site's name that points here.
        ("http://evil.example:3000", "evil.example:3000"),
    ],
)
def test_foreign_origins(origin: str, host: str) -> None:
    with pytest.raises(OriginRefused) as caught:
        check_origin([(b"host", host.encode()), (b"origin", origin.encode())], ("localhost", "null"))
    assert caught.value.code == "ZS123"


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1"))
    assert not any(is_loopback(host) for host in ("::", "192.168.1.2", "localhost.example", ""))


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_no_line_shows_a_key(formatter: logging.Formatter) -> None:
    url = f"/changes/v0/stream?shardNum=0&{{}}={KEY}&appID=zero"
    for where in (url.format("apiKey"), url.format("k"), f"b'apiKey={KEY}'", f"'apiKey={KEY}'"):
        logger = logging.getLogger("changesource.x")
        try:
            raise ValueError(f"No route found for {where}.")
        except ValueError as error:
            record = logger.makeRecord(
                "changesource.x",
                logging.ERROR,
                "f",
                1,
                "at %s",
                (where,),
                (type(error), error, None),
                extra={"u": where},
            )
        line = formatter.format(record)
        assert KEY not in line
        assert line.count("***") == 3
        if isinstance(formatter, JsonFormatter):
            assert json.loads(line)["event"].startswith("at ")


@pytest.mark.parametrize("form", ["Authorization: {}", "[(b'authorization', b'{}')]", '{{"authorization": "{}"}}'])
def test_no_line_shows_a_header_that_has_a_key(form: str) -> None:
    header = basic(f"zero:{KEY}")
    line = TextFormatter().format(logging.makeLogRecord({"msg": form.format(header), "name": "x"}))
    assert header.removeprefix("Basic ") not in line
    assert "asic ***" in line


def test_other_parts_of_a_line_stay() -> None:
    record = logging.makeLogRecord({"msg": "read https://h/m.json?v=1&kind=k k=1", "name": "x"})
    assert TextFormatter().format(record).endswith("read https://h/m.json?v=1&kind=k k=1")


def test_the_access_log_shows_paths_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AccessLogGenerator, "write_entry", AccessLogGenerator.write_entry)
    access_log.leave_out_queries()
    access_log.leave_out_queries()
    lines = io.StringIO()
    log = AccessLogGenerator(lines)
    path = f"/changes/v0/stream?apiKey={KEY}&a%70iKey={KEY}"
    log("http", "complete", {"client": "c", "method": "GET", "path": path, "status": 426, "size": 7})
    log("websocket", "connecting", {"client": "c", "path": "/changes/v0/stream"})
    first, second = lines.getvalue().splitlines()
    assert first.endswith('"GET /changes/v0/stream" 426 7')
    assert second.endswith('"WSCONNECTING /changes/v0/stream" - -')


@pytest.mark.parametrize(
    ("debug", "client", "any_made", "let_in"),
    [
        (True, ["127.0.0.1", 5], False, True),
        (True, ["::1", 5], False, True),
        (True, ["192.168.1.2", 5], False, False),
        (True, None, False, False),
        (False, ["127.0.0.1", 5], False, False),
        (True, ["127.0.0.1", 5], True, False),  # every key was revoked
    ],
)
@pytest.mark.django_db(transaction=True)
async def test_without_keys_only_this_machine_is_let_in_and_only_with_debug(
    monkeypatch: pytest.MonkeyPatch, debug: bool, client: list[object] | None, any_made: bool, let_in: bool
) -> None:
    monkeypatch.setattr(api_keys, "kept", lambda: KeptKeys({"h": KeptKey("k", "h", revoked=True)} if any_made else {}))
    chosen = replace(settings(), debug=debug, api_keys=())
    attempt = admit({**scope("apiKey=any"), "client": client}, chosen)
    if let_in:
        await attempt
    else:
        with pytest.raises(AccessRefused):
            await attempt


@pytest.mark.django_db(transaction=True)
async def test_a_database_that_is_away_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise InterfaceError("connection already closed")

    monkeypatch.setattr(api_keys, "kept", away)
    chosen = replace(settings(), api_keys=("one",))
    await admit(scope("apiKey=one"), chosen)
    with pytest.raises(AccessUnchecked, match="connection already closed") as caught:
        await admit(scope("apiKey=two"), chosen)
    assert caught.value.code == "ZS124"
