"""Who gets in where all places are taken, how many messages may come, and how many lines a flood may log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from changesource import health, incoming, refusals
from changesource.conf import settings
from changesource.exceptions import (
    ConnectionsExhausted,
    KeyExhausted,
    LimitReached,
    LivePagesExhausted,
    RequestRefused,
    ViewerRefused,
)
from changesource.health import HealthPages
from changesource.incoming import Doors, Pace, check_descriptors
from changesource.metrics import CONNECTIONS, REFUSALS
from changesource.occupancy import Occupancy
from changesource.refusals import LINES_AT_ONCE, SECONDS_A_LINE, StrangersRecords, refused


class Clock:
    """A time that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(incoming, "monotonic", found)
    monkeypatch.setattr(refusals, "monotonic", found)
    return found


class Channel:
    """Notes why it was turned away."""

    def __init__(self) -> None:
        self.errors: list[LimitReached] = []

    def turn_away(self, error: LimitReached) -> None:
        self.errors.append(error)


def open_now(kind: str) -> float:
    return float(CONNECTIONS.labels(kind)._value.get())


def test_who_waits_longest_gives_way_and_who_is_served_does_not() -> None:
    doors, before = Doors(3, 100), open_now("http")
    channels = {name: Channel() for name in "abcdefg"}
    for name in "abc":
        assert doors.enter(name, channels[name])
    doors.served("a")
    assert doors.enter("d", channels["d"])
    assert [name for name, channel in channels.items() if channel.errors] == ["b"]
    assert isinstance(channels["b"].errors[0], ConnectionsExhausted)
    assert open_now("http") - before == 3
    doors.leave("b")  # it closes later, and gives nothing back twice
    assert open_now("http") - before == 3
    for name in "cd":
        doors.served(name)
    assert not doors.enter("e", channels["e"]), "all are served"
    doors.waits("a", channels["a"])  # answered, and kept open
    doors.waits("c", channels["c"])
    assert doors.enter("f", channels["f"])
    assert [name for name, channel in channels.items() if channel.errors] == ["a", "b"]
    doors.waits("a", channels["a"])  # it has left
    for name in "cdf":
        doors.leave(name)
    assert open_now("http") == before
    for name in "abc":
        assert doors.enter(name, Channel())
    assert doors.enter("g", channels["g"])
    for name in "abcg":
        doors.leave(name)


def test_bodies_have_a_bound_together() -> None:
    doors = Doors(3, 100)
    assert doors.hold(60)
    assert doors.hold(40)
    assert not doors.hold(1)
    doors.drop(41)
    assert doors.hold(40)
    assert not doors.hold(2)


def test_a_pace_is_kept_and_large_messages_count_for_several(clock: Clock) -> None:
    pace = Pace(10)
    assert [pace.count(20) for _ in range(10)] == [0.0] * 10
    assert pace.count(20) == pytest.approx(0.1)
    clock.now += 0.2
    assert pace.count(0) == pytest.approx(0.0)
    clock.now += 100
    assert pace.count(9 * 1024) == 0.0
    assert pace.count(19 * 1024) == pytest.approx(2.0)


def test_a_flood_of_refusals_is_counted_and_its_log_is_rationed(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "_rations", {})
    caplog.set_level(logging.WARNING)
    count = REFUSALS.labels(ViewerRefused.code)._value
    before = count.get()
    for _ in range(1000):
        refused("connection refused", ViewerRefused("x" * 10_000), client="1.2.3.4", nothing="")
    assert count.get() - before == 1000
    assert len(caplog.records) == LINES_AT_ONCE
    first = vars(caplog.records[0])
    assert (first["code"], first["client"], len(first["why"])) == ("ZS125", "1.2.3.4", refusals.SHOWN)
    assert "nothing" not in first
    refused("connection refused", RequestRefused())
    assert len(caplog.records) == LINES_AT_ONCE + 1, "another code has lines of its own"
    clock.now += SECONDS_A_LINE
    for _ in range(3):
        refused("connection refused", ViewerRefused())
    assert len(caplog.records) == LINES_AT_ONCE + 2
    assert vars(caplog.records[-1])["unlogged"] == 1000 - LINES_AT_ONCE
    clock.now += 2 * SECONDS_A_LINE
    refused("connection refused", ViewerRefused())
    assert vars(caplog.records[-1])["unlogged"] == 2


def test_what_django_logs_of_strangers_is_rationed_and_has_no_traceback(clock: Clock) -> None:
    logger = logging.getLogger("django.request")

    def record(**extra: Any) -> logging.LogRecord:
        return logger.makeRecord(logger.name, logging.WARNING, "f", 1, "Not Found", (), (None, None, None), extra=extra)

    strangers = StrangersRecords()
    records = [record(status_code=404) for _ in range(LINES_AT_ONCE + 5)]
    assert [strangers.filter(one) for one in records] == [True] * LINES_AT_ONCE + [False] * 5
    assert records[0].exc_info is None
    for other in (record(status_code=500), record()):
        assert strangers.filter(other)
        assert other.exc_info is not None
    clock.now += SECONDS_A_LINE
    later = record(status_code=400)
    assert strangers.filter(later)
    assert vars(later)["unlogged"] == 5


@pytest.fixture
def places() -> Iterator[Occupancy]:
    found = Occupancy()
    before = {kind: open_now(kind) for kind in ("replica", "live_page")}
    yield found
    assert {kind: open_now(kind) for kind in before} == before, "all was given back"


def test_keys_and_live_pages_have_bounds_and_a_tenth_is_kept(places: Occupancy) -> None:
    chosen = replace(settings(), max_connections=10, max_connections_per_key=3, max_live_pages=2)
    one = [places.replica("one", chosen) for _ in range(3)]
    with pytest.raises(KeyExhausted, match="MAX_CONNECTIONS_PER_KEY"):
        places.replica("one", chosen)
    pages = [places.live_page(chosen) for _ in range(2)]
    with pytest.raises(LivePagesExhausted, match="MAX_LIVE_PAGES"):
        places.live_page(chosen)
    two = [places.replica("two", chosen) for _ in range(3)]
    one[0]()
    one[0]()  # given back once
    three = [places.replica("three", chosen) for _ in range(2)]
    for take in (lambda: places.replica("four", chosen), lambda: places.live_page(chosen)):
        with pytest.raises(ConnectionsExhausted, match="a tenth"):
            take()
    for release in (*one, *two, *three, *pages):
        release()
    assert not places._holders


def test_too_few_file_descriptors_are_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    chosen = replace(settings(), max_connections=500)
    for allowed, told in ((700, 0), (699, 1), (-1, 0)):
        caplog.clear()
        monkeypatch.setattr(incoming.resource, "getrlimit", lambda _, found=allowed: (found, found))
        check_descriptors(chosen)
        assert caplog.text.count("too few file descriptors") == told


def test_a_path_has_one_spelling() -> None:
    good = ("/", "/admin/x/1/change/", "/a-b_c.d~/...", "/caf%C3%A9", "/a%20b", "/..a/a..", "/a/.b/")
    bad = (
        "",
        "a",
        "*",
        "//",
        "/a//b",
        "/..",
        "/../a",
        "/a/..",
        "/a/./b",
        "/a%2Fb",
        "/a%5cb",
        "/%2E./",
        "/a;b",
        "/a\\b",
    )
    bad += ("/a#b", "/a%00", "/a%0d%0ab", "/a%7f", "/a%252fb", "/\u00e9", "/a b", "http://a/b", "/a\n")

    def is_plain(path: str) -> bool:
        data = path.encode()
        return bool(incoming.PATH.fullmatch(data)) and not incoming.ALIAS.search(data)

    assert [path for path in good if not is_plain(path)] == []
    assert [path for path in bad if is_plain(path)] == []


def test_the_client_of_a_transport_is_its_address() -> None:
    assert incoming.client_of(SimpleNamespace(getPeer=lambda: SimpleNamespace(host="1.2.3.4", port=1))) == "1.2.3.4"
    assert incoming.client_of(object()) == ""


async def test_pages_are_made_a_few_at_once_and_the_health_page_at_any_time() -> None:
    """A turn ends when the answer begins: however slowly it is read, or where it fails, the next one comes."""
    most = settings().max_requests
    made, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    inside = highest = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal inside, highest
        inside += 1
        highest = max(highest, inside)
        if inside == most:
            made.set()
        await begun.wait()
        if scope["path"] == "/fails":
            inside -= 1
            raise ValueError
        inside -= 1
        await send({"type": "http.response.start", "status": 200})
        await ended.wait()

    async def nothing(*_: Any) -> None:
        pass

    async def page(path: str) -> None:
        with suppress(ValueError):
            await pages({"path": path}, nothing, nothing)

    pages = HealthPages(app)
    async with asyncio.timeout(10):
        tasks = [asyncio.create_task(page("/fails" if n % 3 else "/")) for n in range(3 * most)]
        await made.wait()
        await pages({"path": "/healthz"}, nothing, nothing)
        assert highest == inside == most
        begun.set()
        while inside or pages._turns.waiting:
            await asyncio.sleep(0)
        assert highest == most
        ended.set()
        await asyncio.gather(*tasks)


async def test_pages_that_wait_for_their_turn_leave_half_of_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "occupancy", Occupancy())
    chosen = replace(settings(), max_connections=20, max_requests=2)
    monkeypatch.setattr(health, "settings", lambda: chosen)
    ended, statuses = asyncio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ended.wait()

    async def notes(message: Any) -> None:
        statuses.append(message.get("status"))

    pages = HealthPages(app)
    async with asyncio.timeout(10):
        tasks = [asyncio.create_task(pages({"path": "/"}, notes, notes)) for _ in range(20)]
        while pages._turns.waiting < 8:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert statuses.count(503) == 10, "two are answered, eight wait"
        ended.set()
        await asyncio.gather(*tasks)
