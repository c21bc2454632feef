"""Whose word on a client's address is taken."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from changesource import conf, proxies
from changesource.proxies import client_behind, client_of, is_among, parsed

TRUSTED = [ipaddress.ip_network(one) for one in ("10.0.0.0/8", "fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),  # the first was written by the client
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("fd00::1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, <script>", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9,", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
    ],
)
def test_the_last_address_that_a_trusted_proxy_vouches_for(peer: str, forwarded_for: str, client: str) -> None:
    assert client_behind(peer, forwarded_for, TRUSTED) == client


def test_addresses_are_of_networks() -> None:
    assert is_among("::ffff:10.1.2.3", TRUSTED)
    assert not is_among("11.0.0.1", TRUSTED)
    assert not is_among("", TRUSTED)
    assert parsed("1.2.3.4.5") is None


def test_a_websocket_comes_from_where_the_proxy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(conf.settings(), trusted_proxies=("10.0.0.0/8",))
    monkeypatch.setattr(proxies, "settings", lambda: made)
    headers = [(b"x-forwarded-for", b"198.51.100.1"), (b"x-forwarded-for", b"203.0.113.9")]
    assert client_of({"client": ["10.0.0.1", 4711], "headers": headers}) == "203.0.113.9"
    assert client_of({"client": ["192.0.2.1", 4711], "headers": headers}) == "192.0.2.1"
    assert client_of({"client": None, "headers": headers}) == ""
