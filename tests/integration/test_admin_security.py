"""Logins, sessions, cookies, headers and refusals of the admin."""

from __future__ import annotations

import logging
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.utils import timezone

from changesource import conf, consumers, gate, proxies, refusals, sessions, views
from changesource.admin import login as login_page
from changesource.exceptions import SettingError
from changesource.logs import TextFormatter
from changesource.models import LoginTry
from changesource.services import access, startup
from changesource.store import logins
from tests.harness.deployment import MANAGE
from tests.harness.desk import ADMIN, logged_in, scene
from tests.harness.environment import blank_environment, process_environment

pytestmark = pytest.mark.django_db

NAME, PASSWORD = "boss", "k7#hhWq2-long"
ELSEWHERE = "203.0.113.9"


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets settings: ``chosen(login_tries=2)``."""

    def choose(**values: Any) -> None:
        made = replace(conf.settings(), **values)
        for module in (conf, gate, login_page, proxies, sessions, views):
            monkeypatch.setattr(module, "settings", lambda: made)

    return choose


@pytest.fixture
def boss() -> User:
    return User.objects.create_superuser(NAME, password=PASSWORD)


def log_in(name: str = NAME, password: str = PASSWORD, client: Client | None = None, **headers: Any) -> HttpResponse:
    """Send the login's form."""
    found = (client or Client()).post("/admin/login/", {"username": name, "password": password}, **headers)
    assert isinstance(found, HttpResponse)
    return found


def is_in(answer: HttpResponse) -> bool:
    assert answer.status_code in (200, 302)
    return answer.status_code == 302


def is_throttled(answer: HttpResponse) -> bool:
    return "Too many tries" in answer.content.decode()


# Logins.


def test_tries_are_counted_by_address_and_user(boss: User, chosen: Any) -> None:
    chosen(login_tries=3)
    for _ in range(3):
        assert not is_throttled(log_in(password="wrong"))
    for password in ("wrong", PASSWORD):
        refused = log_in(password=password)
        assert is_throttled(refused)
        assert not is_in(refused)
    # Nobody else is locked out: not the same user elsewhere, nor another one here.
    assert is_in(log_in(REMOTE_ADDR=ELSEWHERE))
    User.objects.create_superuser("other", password=PASSWORD)
    assert is_in(log_in("other"))
    # What was refused is not written, so it does not prolong anything either.
    assert LoginTry.objects.count() == 3
    assert PASSWORD not in str(list(LoginTry.objects.values()))
    assert NAME not in str(list(LoginTry.objects.values()))
    LoginTry.objects.update(at=timezone.now() - timedelta(seconds=901))
    assert is_in(log_in())
    assert not LoginTry.objects.exists()


def test_one_address_does_not_try_many_users(boss: User, chosen: Any) -> None:
    chosen(login_tries=1)
    for number in range(logins.ALL_USERS):
        assert not is_throttled(log_in(f"user{number}", "wrong"))
    assert is_throttled(log_in())
    assert is_in(log_in(REMOTE_ADDR=ELSEWHERE))


def test_a_network_of_ipv6_is_one_address(boss: User, chosen: Any) -> None:
    chosen(login_tries=1)
    log_in(password="wrong", REMOTE_ADDR="2001:db8::1")
    assert is_throttled(log_in(REMOTE_ADDR="2001:db8::ffff:2"))
    assert is_in(log_in(REMOTE_ADDR="2001:db8:0:1::1"))


def test_success_forgets_the_slips(boss: User, chosen: Any) -> None:
    chosen(login_tries=2)
    for _ in range(3):
        log_in(password="wrong")
        assert is_in(log_in())
    assert not LoginTry.objects.exists()


def test_many_at_once_are_counted_too(boss: User, chosen: Any) -> None:
    """Another try is written after this one looked, and before it is written."""
    chosen(login_tries=1)
    looked = logins._reached
    others: list[Any] = []

    def look(place: str, who: str, *more: Any) -> bool:
        found = looked(place, who, *more)
        if not others:
            others.append(LoginTry.objects.create(place=place, who=who))
        return found

    with patch.object(logins, "_reached", look):
        assert is_throttled(log_in())
    assert list(LoginTry.objects.all()) == others


def test_what_is_kept_of_tries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MAX_KEPT", 10)
    for number in range(50):
        assert logins.begin(f"10.0.0.{number}", "any", 5, 900, timezone.now())
    assert LoginTry.objects.count() == 10


@pytest.mark.parametrize(("trusted", "counted"), [((), "127.0.0.1"), (("127.0.0.1",), ELSEWHERE)])
def test_an_address_is_taken_from_trusted_proxies_alone(chosen: Any, trusted: Any, counted: str) -> None:
    chosen(trusted_proxies=trusted)
    log_in(password="wrong", HTTP_X_FORWARDED_FOR=f"198.51.100.1, {ELSEWHERE}")
    assert LoginTry.objects.get().place == counted


def test_logins_are_logged_without_what_was_typed(boss: User, chosen: Any, caplog: pytest.LogCaptureFixture) -> None:
    chosen(login_tries=1)
    with caplog.at_level(logging.INFO, "changesource"):
        log_in()
        log_in("typed-password", "typed-too")
        log_in("typed-password", "typed-too")
    assert [record.message for record in caplog.records] == ["login", "login failed", "login refused"]
    assert "typed" not in "".join(TextFormatter().format(record) for record in caplog.records)


def test_logins_that_are_refused_fill_no_disk(boss: User, chosen: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As other refusals they are rationed; one that is looked at is logged all the same."""
    chosen(login_tries=1)
    for _ in range(refusals.LINES_AT_ONCE + 20):
        log_in(password="wrong")
    log_in(REMOTE_ADDR=ELSEWHERE)
    ration = refusals.StrangersRecords()
    written = [record.message for record in caplog.records if ration.filter(record)]
    assert written.count("login refused") <= refusals.LINES_AT_ONCE + 1
    assert (written.count("login failed"), written.count("login")) == (1, 1)


@pytest.mark.parametrize("password", ["short", "password"])
def test_the_first_admin_has_no_weak_password(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_USERNAME", NAME)
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", password)
    with pytest.raises(SettingError, match=r"too short|too common"):
        startup.first_admin(generate=False)
    assert not User.objects.exists()
    startup.first_admin(generate=True)  # in development
    assert User.objects.get().check_password(password)


def test_a_name_that_is_taken_keeps_no_server_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_USERNAME", NAME)
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    User.objects.create_user(NAME)
    assert startup.first_admin(generate=False) is None
    assert not User.objects.get().is_superuser


# Sessions.


def ends(client: Client) -> datetime:
    found: datetime = Session.objects.get(pk=sessions.kept_as(client.cookies["sessionid"].value)).expire_date
    return found


@pytest.fixture
def clock() -> Iterator[list[datetime]]:
    """The time that sessions go by; it may be moved on."""
    now = [timezone.now()]
    with patch("django.utils.timezone.now", lambda: now[0]):
        yield now


def test_sessions_end_when_idle_and_after_a_day(clock: list[datetime]) -> None:
    client = logged_in("viewer")
    chosen = conf.settings()
    idle, whole = timedelta(seconds=chosen.session_idle_seconds), timedelta(seconds=chosen.session_seconds)
    began = clock[0]
    while clock[0] < began + whole - idle:
        assert client.get("/admin/").status_code == 200
        assert ends(client) == clock[0] + idle
        clock[0] += idle * 0.75
    client.get("/admin/")
    assert abs(ends(client) - (began + whole)) < timedelta(seconds=1)
    cookies = {"sessionid": client.cookies["sessionid"].value}
    assert access.is_viewer(cookies)
    clock[0] = began + whole + timedelta(seconds=1)
    assert not access.is_viewer(cookies)
    assert client.get("/admin/").headers["Location"].startswith("/admin/login/")


def test_a_page_left_alone_ends_though_it_refreshes_itself(clock: list[datetime]) -> None:
    client = logged_in("viewer")
    client.get("/admin/")
    end = ends(client)
    while clock[0] < end:
        assert client.get("/admin/overview/").status_code == 200
        clock[0] += timedelta(seconds=600)
    assert client.get("/admin/overview/").status_code == 302
    assert client.get("/admin/").status_code == 302


def test_pages_in_a_row_write_the_session_once(clock: list[datetime]) -> None:
    client = logged_in("viewer")
    client.get("/admin/")
    end = ends(client)
    clock[0] += timedelta(seconds=30)
    client.get("/admin/")
    assert ends(client) == end


def test_sessions_that_ended_are_deleted_at_a_login(boss: User) -> None:
    assert is_in(log_in())
    Session.objects.update(expire_date=datetime(2020, 1, 1, tzinfo=UTC))
    assert is_in(log_in())
    assert Session.objects.count() == 1


def test_a_new_secret_key_logs_nobody_out(settings: Any) -> None:
    """Not though the live page's WebSocket, which can set no cookie, is back before any page is opened."""
    client = logged_in("viewer")
    client.get("/admin/")
    cookies = {"sessionid": client.cookies["sessionid"].value}
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = secrets.token_urlsafe(50)
    for _ in range(2):
        assert access.is_viewer(cookies)
    assert client.get("/admin/").status_code == 200
    assert client.cookies["sessionid"].value != cookies["sessionid"]
    assert not access.is_viewer(cookies)
    settings.SECRET_KEY_FALLBACKS = []
    assert client.get("/admin/").status_code == 200
    assert Session.objects.count() == 1


@pytest.mark.django_db(transaction=True)
async def test_who_reads_the_database_has_nobodys_cookie(boss: User) -> None:
    """What asks asynchronously finds the same sessions."""
    client = Client()
    assert is_in(await sync_to_async(log_in)(client=client))
    cookie = client.cookies["sessionid"].value
    (kept,) = [session.session_key async for session in Session.objects.all()]
    assert kept == sessions.kept_as(cookie) != cookie
    for key, status in ((cookie, 200), (kept, 302)):
        stranger = AsyncClient()
        stranger.cookies["sessionid"] = key
        assert (await stranger.get("/admin/")).status_code == status
        store = sessions.SessionStore(key)
        assert await sync_to_async(store.exists)(key) == await store.aexists(key) == (status == 200)
        assert ("_auth_user_id" in await store.aload()) == (status == 200)
    made = sessions.SessionStore()
    await made.acreate()
    assert await made.aexists(str(made.session_key))
    await made.adelete()
    assert not await made.aexists(str(made.session_key))
    await sync_to_async(client.post)("/admin/logout/")
    assert not await Session.objects.aexists()


# Cookies, headers, https.


def test_cookies_are_for_https_and_no_script(boss: User) -> None:
    client = Client()
    client.get("/admin/login/")
    assert is_in(log_in(client=client))
    for name in ("sessionid", "csrftoken"):
        cookie = client.cookies[name]
        assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax"), name


@pytest.mark.parametrize(
    "path", ["/admin/login/", "/nothing", "/changes/v0/stream", "/metrics", "/static/unfold/css/styles.css"]
)
def test_every_answer_has_the_headers(path: str) -> None:
    found = Client().get(path).headers
    assert found["X-Content-Type-Options"] == "nosniff"
    assert found["Referrer-Policy"] == "same-origin"
    policy = dict(part.split(" ", 1) for part in found["Content-Security-Policy"].split("; "))
    assert policy["script-src"] == "'self' 'unsafe-eval'"
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"


def test_pages_are_not_framed_and_not_kept(boss: User) -> None:
    client = Client()
    client.force_login(boss)
    for path in ("/admin/", f"{ADMIN}/tablemapping/", "/admin/live/", f"{ADMIN}/tablemapping/export/"):
        found = client.get(path).headers
        assert found["X-Frame-Options"] == "DENY", path
        assert "no-store" in found["Cache-Control"], path


@pytest.mark.parametrize(("trusted", "believed"), [((), False), (("127.0.0.1",), True)])
def test_https_is_taken_from_trusted_proxies_alone(
    boss: User, chosen: Any, settings: Any, trusted: Any, believed: bool
) -> None:
    """With Origin and X-Forwarded-Proto as a proxy that ends TLS sends them."""
    chosen(trusted_proxies=trusted)
    settings.SECURE_HSTS_SECONDS = 3600
    client = Client(enforce_csrf_checks=True, headers={"X-Forwarded-Proto": "https", "Host": "localhost"})
    page = client.get("/admin/login/")
    assert ("Strict-Transport-Security" in page.headers) == believed
    token = page.content.decode().partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    form = {"username": NAME, "password": PASSWORD, "csrfmiddlewaretoken": token}
    here = {"HTTP_ORIGIN": "https://localhost", "HTTP_REFERER": "https://localhost/admin/login/"}
    answer = client.post("/admin/login/", form, **here)
    assert answer.status_code == (302 if believed else 403)
    if not believed:
        assert "TRUSTED_PROXIES" in answer.content.decode()


# Refusals.


def test_each_refusal_has_a_page_that_says_what_to_do(settings: Any) -> None:
    scene()
    viewer = logged_in("viewer")
    viewer.raise_request_exception = False
    assert "permission" in viewer.get(f"{ADMIN}/tablemapping/publish/").content.decode()
    missing = viewer.get("/<b>nothing</b>")
    assert missing.status_code == 404
    assert "nothing" not in missing.content.decode()
    host = viewer.get("/admin/", HTTP_HOST="evil.example")
    assert host.status_code == 400
    assert "ALLOWED_HOSTS" in host.content.decode()
    with patch("changesource.admin.live.current", side_effect=ValueError("password-of-it")):
        failed = viewer.get("/admin/live/")
    assert failed.status_code == 500
    assert "log has the reason" in failed.content.decode()
    assert "password-of-it" not in failed.content.decode()
    for page in (missing, host, failed):
        assert "zerosource" in page.content.decode()


@pytest.mark.parametrize("debug", [True, False])
def test_no_error_page_shows_settings(debug: bool) -> None:
    assert django_settings.DEBUG is False
    assert conf.read_settings({"DEBUG": str(debug)}, conf.ROOT).debug is debug


def test_a_refusal_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    [handler] = [one for one in logging.getLogger("django").handlers if isinstance(one.formatter, TextFormatter)]
    viewer = logged_in("viewer")
    with caplog.at_level(logging.INFO):
        viewer.get(f"{ADMIN}/tablemapping/publish/")
        viewer.get("/nothing%0a2026 INFO forged")
        viewer.get("/admin/", HTTP_HOST="evil.example")
        Client(enforce_csrf_checks=True).post("/admin/login/", {})
    lines = []
    for record in caplog.records:
        assert handler.filter(record)
        lines.append(handler.format(record))
    assert len(lines) == 4, lines
    assert all("\n" not in line for line in lines), lines


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/metrics", "/metadata/schemas", "/metadata/status", "/metadata/openapi.json"])
async def test_metrics_are_closed_unless_opened(chosen: Any, path: str) -> None:
    """And who is refused is told how to send a key, not what a zero-cache is told."""
    chosen(debug=False)
    refused = await AsyncClient().get(path)
    assert refused.status_code == 401
    assert "HTTP Basic" in refused.content.decode()
    assert "ZERO_UPSTREAM_DB" not in refused.content.decode()
    chosen(open_metrics=True)
    opened = await AsyncClient().get(path)
    assert opened.status_code in (200, 503)  # no schema is published here
    assert refused.headers["Cache-Control"] == opened.headers["Cache-Control"] == "no-store"


def test_the_live_page_takes_trusted_origins() -> None:
    headers = [(b"host", b"inside:3000"), (b"origin", b"https://zerosource.example")]
    with pytest.raises(access.OriginRefused):
        access.check_origin(headers, ("inside",))
    access.check_origin(headers, ("inside",), ("https://zerosource.example",))
    assert consumers.access is access


@pytest.mark.parametrize(
    ("host", "scheme", "let_in"),
    [
        ("zerosource.example", "https", True),
        ("zerosource.example", "http", False),  # anybody on the way may have written that page
        ("zerosource.example:80", "http", False),
        ("localhost:3000", "http", True),
        ("[::1]:3000", "http", True),
    ],
)
def test_the_live_page_takes_no_page_that_came_by_plain_http(host: str, scheme: str, let_in: bool) -> None:
    headers = [(b"host", host.encode()), (b"origin", f"{scheme}://{host}".encode())]
    hosts = ("zerosource.example", "localhost", "[::1]")
    access.check_origin(headers, hosts)  # where there is no TLS on purpose
    if let_in:
        access.check_origin(headers, hosts, secure=True)
    else:
        with pytest.raises(access.OriginRefused):
            access.check_origin(headers, hosts, secure=True)


POSTED = [
    *(f"{ADMIN}/{path}/" for path in ("tablemapping/publish", "tablemapping/import", "tablemapping/add", "apikey/add")),
    *(f"{ADMIN}/{model}/" for model in ("tablemapping", "watermark", "rowerror", "apikey", "publication")),
    "/admin/login/",
    "/admin/logout/",
    "/admin/password_change/",
    "/admin/auth/user/add/",
]


@pytest.mark.parametrize("path", POSTED)
def test_no_form_is_taken_from_another_site(boss: User, path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(boss)
    for headers in ({}, {"HTTP_ORIGIN": "https://evil.example"}):
        answer = client.post(path, {"post": "yes", "confirmed": "yes"}, **headers)
        assert answer.status_code == 403
        assert "This form is refused" in answer.content.decode()


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, []),
        ({"HSTS_SECONDS": ""}, ["security.W004"]),
        ({"TRUSTED_PROXIES": ""}, ["changesource.W003"]),
        ({"DEBUG": "1", "SECURE_COOKIES": "off"}, ["changesource.W002", "security.W012", "security.W016"]),
    ],
)
def test_check_deploy_has_nothing_to_say_in_production(
    tmp_path: Path, changes: dict[str, str], codes: list[str]
) -> None:
    """With the settings that docs/security.md names."""
    production = {
        "DATA_DIR": str(tmp_path),
        "ALLOWED_HOSTS": "zerosource.example",
        "TRUSTED_PROXIES": "10.0.0.0/8",
        "HSTS_SECONDS": "31536000",
        "SECRET_KEY": secrets.token_urlsafe(50),
    }
    done = subprocess.run(
        [*MANAGE, "check", "--deploy", "--tag", "security", "--fail-level", "WARNING"],
        env={**process_environment(), **blank_environment(), **production, **changes},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert re.findall(r"\((\w+\.W\d+)\)", done.stderr) == codes, done.stderr
    assert bool(done.returncode) is bool(codes)
