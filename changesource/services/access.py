"""Who may read the change stream: whoever has an API key, and no browser's page from elsewhere.

The live page of the admin shows changes to staff, by Django's own permissions.

Any key of CHANGE_SOURCE_API_KEYS will do, and any kept in the database that is neither revoked nor expired, so that
keys are rotated with both the old and the new one valid for a while. Nothing here writes or raises what a client sent.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

from django.conf import settings as django_settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host

from changesource.conf import LOCAL_HOSTS, Settings
from changesource.exceptions import AccessRefused, OriginRefused, SettingError
from changesource.services.keys import check_app, check_key, keys
from changesource.store import api_keys
from changesource.store.api_keys import KeptKey, KeptKeys

Headers = Iterable[tuple[bytes, bytes]]

KEY_PARAMETERS = ("apiKey", "k")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


# What the live page shows is no more than the mappings and where the stream stands.
VIEWER_PERMISSIONS = ("changesource.view_tablemapping", "changesource.view_watermark")


def may_view(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether the live page is shown to this user."""
    return (
        isinstance(user, PermissionsMixin) and getattr(user, "is_staff", False) and user.has_perms(VIEWER_PERMISSIONS)
    )


class _LookedAt(dict[str, Any]):
    """What a session holds, for Django to find its user by; what Django changes of it is kept nowhere.

    Django gives a session that was signed by a former SECRET_KEY another name, which no WebSocket can tell its browser.
    """

    def cycle_key(self) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing: the user is not found then."""


def is_viewer(cookies: Mapping[str, str]) -> bool:
    """Whether the session of these cookies is, now, that of somebody whom the live page is shown to."""
    request: Any = HttpRequest()
    store = import_module(django_settings.SESSION_ENGINE).SessionStore
    request.session = _LookedAt(store(cookies.get(django_settings.SESSION_COOKIE_NAME)).load())
    return may_view(get_user(request))


async def admit(scope: Mapping[str, Any], chosen: Settings) -> KeptKey | None:
    """Return the key of the database that lets the connection of this ASGI scope in.

    None: one of the environment does, which is good without the database, for all, and for as long as the process
    runs; or none is needed. Raises ``OriginRefused``, ``AccessRefused``, or ``AccessUnchecked`` while the database is
    away. What the key is bound to is for ``check_app``.
    """
    check_origin(scope["headers"], chosen.allowed_hosts, chosen.csrf_trusted_origins)
    if chosen.api_keys and is_one_of(presented_key(scope), map(api_keys.hash_of, chosen.api_keys)):
        return None
    kept = await keys().ask()
    if not chosen.api_keys and not kept.any_made:
        _check_keyless(scope, chosen)
        return None
    key = key_of(presented_key(scope), kept)
    check_key(key)
    keys().used(key)
    return key


async def admit_to_page(scope: Mapping[str, Any], chosen: Settings) -> None:
    """Return where a page is shown to whoever has this ASGI scope; raises as ``admit``. A bound key opens none."""
    check_app(await admit(scope, chosen), "")


def key_of(presented: str, kept: KeptKeys) -> KeptKey:
    """The kept key that was presented; all are compared, each in constant time. Raises ``AccessRefused``."""
    own = api_keys.hash_of(presented)
    found = [key for known, key in kept.keys.items() if hmac.compare_digest(own, known)]
    if not found:
        raise AccessRefused("The API key is wrong.")
    return found[0]


def _check_keyless(scope: Mapping[str, Any], chosen: Settings) -> None:
    """There is no API key anywhere: with DEBUG on, processes of this machine need none."""
    if not chosen.debug:
        raise AccessRefused("No API key exists, so nobody is let in.")
    client = scope.get("client")
    if any(name in (b"x-forwarded-for", b"forwarded") for name, _ in scope["headers"]):
        raise AccessRefused("No API key exists, so only clients on this machine are let in, and none by a proxy.")
    if not client or not is_loopback(client[0]):
        raise AccessRefused("No API key exists, so only clients on this machine are let in.")


def is_one_of(key: str, hashes: Iterable[str]) -> bool:
    """Whether one of ``hashes`` is the key's. All are compared, each in constant time."""
    own = api_keys.hash_of(key)
    # A list, since a generator would end at the first that fits.
    return any([hmac.compare_digest(own, known) for known in hashes])


def presented_key(scope: Mapping[str, Any]) -> str:
    """The key of the query (``apiKey`` or ``k``), else of HTTP Basic.

    Raises ``AccessRefused`` where there is none, or more than one. The query comes first, since a proxy before us may
    have a Basic password of its own.
    """
    try:
        values = parse_qs(scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=200)
    except ValueError:
        raise AccessRefused("The query string is not readable.") from None
    found: set[str] = {value for name in KEY_PARAMETERS for value in values.get(name, [])}
    if not found:
        found = {basic_key(value) for name, value in scope["headers"] if name == b"authorization"}
    if not found:
        raise AccessRefused("There is no API key in the request.")
    if len(found) > 1:
        raise AccessRefused("The request has several API keys; one is wanted.")
    key = found.pop()
    if not key:
        raise AccessRefused("The API key in the request is empty.")
    return key


def basic_key(value: bytes) -> str:
    """The key of an Authorization header: the password, or where that is empty, the user. Raises ``AccessRefused``."""
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() != b"basic":
        raise AccessRefused("The request has another Authorization than Basic.")
    try:
        user, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise AccessRefused("The Authorization header is not readable.") from None
    return password or user


def check_origin(
    headers: Headers, allowed_hosts: Collection[str], trusted: Collection[str] = (), *, secure: bool = False
) -> None:
    """Refuse a browser's page from elsewhere, and one of no site (``null``). zero-cache sends no Origin.

    With ``secure`` a page that came by plain http is one from elsewhere, but on this machine: anybody on the way to the
    browser may have written it, in this host's name.

    Origins that are ``trusted`` pass. For others the Host must be one of ``allowed_hosts``: another site may have its
    name point here. Raises ``OriginRefused``.
    """
    found = {name: value.decode("latin1").lower() for name, value in headers if name in (b"origin", b"host")}
    if b"origin" not in found or found[b"origin"] in trusted:
        return
    host = found.get(b"host", "")
    scheme, _, place = found[b"origin"].partition("://")
    port = DEFAULT_PORTS.get(scheme)
    if port is None or not place or place.removesuffix(port) != host.removesuffix(port):
        raise OriginRefused()
    if secure and scheme == "http" and split_domain_port(host)[0] not in LOCAL_HOSTS:
        raise OriginRefused()
    if not validate_host(split_domain_port(host)[0], allowed_hosts):
        raise OriginRefused("The Host of a browser's request is not among ALLOWED_HOSTS.")


def check_host(host: str, chosen: Settings) -> None:
    """Raise ``SettingError`` where listening on ``host`` would serve the world without a key (see ``admit``)."""
    if chosen.debug and not chosen.api_keys and not is_loopback(host) and not api_keys.kept().any_made:
        raise SettingError(
            f"--host {host} is refused: no API key exists, and DEBUG is on.",
            remedy="Make a key (manage.py createapikey NAME, or CHANGE_SOURCE_API_KEYS), or leave --host out.",
        )


def is_loopback(host: str) -> bool:
    """Whether this is an address of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
