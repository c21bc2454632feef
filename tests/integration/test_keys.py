"""What a process knows of the API keys: as of a moment ago, also while the database is away, and when each was used."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from changesource.exceptions import AccessRefused, AccessUnchecked, KeyExpired, KeyOfAnotherApp, KeyRevoked
from changesource.models import ApiKey
from changesource.services import keys as service
from changesource.services.keys import Keys, check_app
from changesource.store import api_keys
from changesource.store.api_keys import KeptKey, KeptKeys
from tests.harness.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(service, "MAX_AGE", 0.01)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each read of the keys."""
    calls: list[int] = []
    kept = api_keys.kept

    def counted() -> api_keys.KeptKeys:
        calls.append(1)
        return kept()

    monkeypatch.setattr(api_keys, "kept", counted)
    return calls


async def known(keys: Keys, name: str) -> KeptKey:
    """What is known of the key of this name, made where it is missing."""
    await database_sync_to_async(api_keys.create)(name)
    return {key.name: key for key in (await keys.ask()).keys.values()}[name]


def update(name: str, **values: Any) -> Any:
    return database_sync_to_async(ApiKey.objects.filter(name=name).update)(**values)


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({"revoked": timezone.now()}, KeyRevoked, "The API key 'zero' is revoked."),
        ({"expires": timezone.now() - timedelta(seconds=1)}, KeyExpired, "'zero' expired at"),
        ({"app_ids": "other, more"}, KeyOfAnotherApp, "'zero' is bound to app ids, and not good for that of this"),
        ({"hash": "another"}, KeyRevoked, "'zero' was deleted"),
    ],
)
async def test_the_guard_wakes_where_the_key_is_good_no_more(
    values: dict[str, Any], kind: type[AccessRefused], words: str
) -> None:
    keys = Keys()
    key = await known(keys, "zero")
    guard = asyncio.create_task(keys.guard(key, "app"))
    await update("zero", app_ids="app, other", expires=timezone.now() + timedelta(hours=1))
    await asyncio.sleep(0.1)
    assert not guard.done()
    await update("zero", **values)
    async with asyncio.timeout(5):
        with pytest.raises(kind, match=words) as caught:
            await guard
    assert isinstance(caught.value, AccessRefused)


async def test_a_thousand_connections_ask_no_more_than_one(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_AGE", 0.2)
    keys = Keys()
    key = await known(keys, "zero")
    began, before = asyncio.get_running_loop().time(), len(asked)
    guards = [asyncio.create_task(keys.guard(key, f"app{number}")) for number in range(1000)]
    await until(lambda: len(asked) - before >= 3)
    assert len(asked) - before <= (asyncio.get_running_loop().time() - began) / 0.2 + 1
    for guard in guards:
        guard.cancel()
    await asyncio.gather(*guards, return_exceptions=True)


async def test_handshakes_that_come_at_once_share_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that began before they came: what was revoked since would be let in."""
    keys, begun, go_on = Keys(), threading.Event(), threading.Event()
    answers = [KeptKeys(), KeptKeys({"a": KeptKey("since", "a")})]

    def slow() -> KeptKeys:
        found = answers.pop(0)
        begun.set()
        go_on.wait(10)
        return found

    monkeypatch.setattr(api_keys, "kept", slow)
    first = asyncio.create_task(keys.ask())
    await asyncio.to_thread(begun.wait, 10)
    others = [asyncio.create_task(keys.ask()) for _ in range(100)]
    await asyncio.sleep(0.05)
    others.pop().cancel()
    go_on.set()
    assert not (await first).any_made
    assert all([(await other).any_made for other in others])
    assert not answers


async def test_while_the_database_is_away_what_was_known_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys()
    key = await known(keys, "zero")
    failed: list[int] = []

    def away() -> None:
        failed.append(1)
        raise OperationalError("no such host")

    monkeypatch.setattr(api_keys, "kept", away)
    with pytest.raises(AccessUnchecked, match="no such host"):
        await keys.ask()
    guard = asyncio.create_task(keys.guard(key, "app"))
    await until(lambda: len(failed) > 5)
    assert not guard.done()
    guard.cancel()
    # Time goes on without a database.
    later = timezone.now() + timedelta(hours=1)
    keys._known = api_keys.KeptKeys({key.hash: KeptKey("zero", key.hash, expires=later)})
    monkeypatch.setattr(timezone, "now", lambda: later)
    async with asyncio.timeout(5):
        with pytest.raises(KeyExpired):
            await keys.guard(key, "app")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Lets a function of ``api_keys`` hang until the end of the test."""
    end = threading.Event()

    def hang(name: str) -> None:
        monkeypatch.setattr(api_keys, name, lambda *_: end.wait(30), raising=True)

    yield hang
    end.set()


async def test_a_database_that_hangs_is_said_so_in_time(
    monkeypatch: pytest.MonkeyPatch, hanging: Callable[[str], None]
) -> None:
    monkeypatch.setattr(service, "ASK_SECONDS", 0.1)
    hanging("kept")
    async with asyncio.timeout(5):
        with pytest.raises(AccessUnchecked, match="does not answer"):
            await Keys().ask()


async def test_a_use_is_written_once_a_minute_and_waited_for_by_nobody(
    monkeypatch: pytest.MonkeyPatch, hanging: Callable[[str], None]
) -> None:
    keys = Keys()
    key = await known(keys, "zero")
    row = await ApiKey.objects.aget()
    assert row.last_used is None
    keys.used(key)
    await until(lambda: not keys._writing)
    first = (await ApiKey.objects.aget()).last_used
    assert first is not None
    # Neither by this process, which does not even ask, nor by another.
    keys.used(key)
    assert not keys._writing
    for other in (keys, Keys()):
        other.used(key)
        await until(lambda other=other: not other._writing)  # type: ignore[misc]
        assert (await ApiKey.objects.aget()).last_used == first
    await update("zero", last_used=first - timedelta(minutes=2))
    other = Keys()
    other.used(key)
    await until(lambda: not other._writing)
    assert (await ApiKey.objects.aget()).last_used >= first  # type: ignore[operator]
    hanging("note_use")
    began = asyncio.get_running_loop().time()
    Keys().used(key)
    assert asyncio.get_running_loop().time() - began < 10  # it hangs for 30 s


async def test_a_connection_that_lasts_is_a_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "USE_SECONDS", 0.05)
    keys = Keys()
    guard = asyncio.create_task(keys.guard(await known(keys, "zero"), "app"))
    seen: set[object] = set()
    async with asyncio.timeout(10):
        while len(seen - {None}) < 3:
            seen.add((await ApiKey.objects.aget()).last_used)
    guard.cancel()
    await until(lambda: not keys._writing)


def test_bound_keys_and_pages() -> None:
    bound, free = KeptKey("bound", "h", frozenset({"one"})), KeptKey("free", "h")
    for key, app_id in ((bound, "one"), (free, "one"), (free, ""), (None, "one"), (None, "")):
        check_app(key, app_id)
    for app_id in ("two", "", "on"):
        with pytest.raises(KeyOfAnotherApp) as caught:
            check_app(bound, app_id)
        assert "one" not in caught.value.message


# The commands.


def listed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of ``listapikeys``."""
    capsys.readouterr()
    call_command("listapikeys")
    return capsys.readouterr().out.splitlines()


def test_commands_make_bind_and_list_keys(capsys: pytest.CaptureFixture[str]) -> None:
    call_command(
        "createapikey", "one", "--app-id", "b", "--app-id", "a", "--app-id", "b", "--expires", "2999-01-31T12:30"
    )
    key = capsys.readouterr().out.strip()
    call_command("createapikey", "two", "--expires", "90d")
    first, second = listed(capsys)
    assert first == f"one: {key[:9]}..., app ids a, b, expires 2999-01-31 12:30, never used"
    assert second.startswith("two: zs_")
    assert f"expires {timezone.now() + timedelta(days=90):%Y-%m-%d}" in second
    api_keys.note_use([api_keys.hash_of(key)])
    call_command("changeapikey", "one", "--app-id", "c")
    assert f"app ids c, expires 2999-01-31 12:30, last used {timezone.now():%Y-%m-%d}" in listed(capsys)[0]
    call_command("changeapikey", "one", "--any-app", "--never")
    call_command("revokeapikey", "one")
    assert "app ids any, never expires, last used" in listed(capsys)[0]
    assert f"revoked {timezone.now():%Y-%m-%d}" in listed(capsys)[0]
    assert key not in "".join(listed(capsys))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["createapikey", "new", "--app-id", "Shop"], "'Shop' is no app id"),
        (["createapikey", "new", "--app-id", "a,b-c"], "'b-c' is no app id"),
        (["createapikey", "new", "--expires", "2020-01-01"], "That is past"),
        (["createapikey", "n" * 201], "at most 200 characters"),
        (["createapikey", "new", "--expires", "soon"], "neither a date nor a number of days"),
        (["createapikey", "new", "--expires", "0d"], "neither a date"),
        (["createapikey", "new", "--expires", "99999999999d"], "neither a date"),
        (["changeapikey", "old", "--app-id", "é"], "is no app id"),
        (["changeapikey", "old", "--app-id", "a", "--any-app"], "exclude each other"),
        (["changeapikey", "none", "--any-app"], "no key named 'none'"),
    ],
)
def test_commands_refuse_in_one_line(command: list[str], words: str) -> None:
    api_keys.create("old", ["a"])
    with pytest.raises(CommandError, match=words):
        call_command(*command)
    [row] = ApiKey.objects.all()
    assert (row.name, row.app_ids) == ("old", "a")


def test_app_ids_are_kept_in_one_form() -> None:
    row = ApiKey(name="one", app_ids=" b,a  c,,b ")
    row.clean()
    assert row.app_ids == "a, b, c"
    for wrong in ("A", "a-b", "a;b", "a" * 64, "é", "*"):
        with pytest.raises(ValidationError):
            ApiKey(name="one", app_ids=wrong).clean()
