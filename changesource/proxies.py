"""Proxies before us: what they say of a client is believed only of those that TRUSTED_PROXIES names."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpRequest
from django.utils.deprecation import MiddlewareMixin

from changesource.conf import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# What a client may write as well as a proxy, and Django would read.
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO")


class TrustedProxies(MiddlewareMixin):
    """Puts the client's own address into REMOTE_ADDR, and takes the headers away from everybody but trusted proxies."""

    def process_request(self, request: HttpRequest) -> None:
        """Correct what the request says of where it comes from."""
        trusted = _trusted()
        peer = request.META.get("REMOTE_ADDR", "")
        if not is_among(peer, trusted):
            for name in FORWARDED:
                request.META.pop(name, None)
            return
        request.META["REMOTE_ADDR"] = client_behind(peer, request.META.get("HTTP_X_FORWARDED_FOR", ""), trusted)


def client_of(scope: Mapping[str, Any]) -> str:
    """The address of the client of an ASGI scope, as ``TrustedProxies`` would see it."""
    peer, trusted = (scope.get("client") or [""])[0], _trusted()
    if not is_among(peer, trusted):
        return str(peer)
    entries = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    return client_behind(peer, entries.decode("latin1"), trusted)


def _trusted() -> list[Network]:
    return [ipaddress.ip_network(one) for one in settings().trusted_proxies]


def client_behind(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """Return the last address that a trusted proxy vouches for.

    ``forwarded_for`` is a comma-separated list, to which each proxy adds at the right whom it was asked by; what stands
    left of the first one that is not trusted was written by anybody.
    """
    for entry in reversed(forwarded_for.split(",")):
        address = parsed(entry)
        if address is None:
            break
        peer = str(address)
        if not is_among(peer, trusted):
            break
    return peer


def is_among(address: str, networks: Sequence[Network]) -> bool:
    """Whether one of ``networks`` holds this address."""
    found = parsed(address)
    return found is not None and any(found in network for network in networks)


def parsed(text: str) -> Address | None:
    """The address of ``1.2.3.4``, ``1.2.3.4:5678``, ``::1`` or ``[::1]:5678``; None where it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
