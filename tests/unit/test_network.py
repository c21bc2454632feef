"""What each mode of a link does to a connection, before, during and after the fault."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from devtools.processes import wait_until
from tests.harness.network import DELAY_SECONDS, Link, Mode, Network, owns_connection


class Echo:
    """A server that sends back what it is sent, ``received`` in all; ``name`` comes before all of it."""

    def __init__(self, name: bytes = b"") -> None:
        self.name = name
        self.received = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        if self._listening.fileno() >= 0:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(self.name)
                while sent := connection.recv(1000):
                    self.received += sent
                    connection.sendall(sent)
            except OSError:
                return


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as running:
        yield running


@pytest.fixture
def echo() -> Iterator[Callable[..., Echo]]:
    with ExitStack() as stack:

        def start(name: bytes = b"") -> Echo:
            server = Echo(name)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def link(network: Network, echo: Callable[..., Echo]) -> Link:
    return network.link("link", echo().port)


@pytest.fixture
def connect() -> Iterator[Callable[[int], socket.socket]]:
    """Connects to a port, and closes all at the end."""
    with ExitStack() as stack:
        yield lambda port: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))


def asked(client: socket.socket, text: bytes = b"hello") -> bytes:
    """Send, and return as much as was sent, or what comes before the end."""
    client.sendall(text)
    answer = b""
    while len(answer) < len(text) and (more := client.recv(1000)):
        answer += more
    return answer


def silent(client: socket.socket) -> bool:
    """Whether neither a byte nor an end comes for a while."""
    client.settimeout(0.3)
    try:
        client.recv(1)
    except TimeoutError:
        client.settimeout(10)
        return True
    return False


def test_a_link_passes_everything_on(link: Link, connect: Callable[[int], socket.socket]) -> None:
    client = connect(link.port)
    large = bytes(range(256)) * 2_000
    assert asked(client) == b"hello"
    threading.Thread(target=client.sendall, args=(large,), daemon=True).start()
    answer = b""
    while len(answer) < len(large):
        answer += client.recv(100_000)
    assert answer == large
    assert (link.connected, link.affected) == (True, 0)


def test_drop_resets_all_and_refuses_new_ones(
    network: Network, link: Link, connect: Callable[[int], socket.socket]
) -> None:
    client = connect(link.port)
    assert asked(client) == b"hello"
    network.strike(link, Mode.DROP)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(link.port)
    assert link.affected == 1
    network.heal(link)
    assert asked(connect(link.port)) == b"hello"


def test_delay_holds_each_chunk(network: Network, link: Link, connect: Callable[[int], socket.socket]) -> None:
    client = connect(link.port)
    assert asked(client) == b"hello"
    network.strike(link, Mode.DELAY)
    began = time.monotonic()
    assert asked(client) == b"hello"
    assert time.monotonic() - began >= 2 * DELAY_SECONDS
    assert link.affected == 1


def test_half_open_loses_everything_and_closes_nothing(
    network: Network, link: Link, connect: Callable[[int], socket.socket]
) -> None:
    """Those that it happened to cannot go on, and are reset at its end; one that said nothing meanwhile goes on."""
    idle, old = connect(link.port), connect(link.port)
    assert asked(idle) == asked(old) == b"hello"
    network.strike(link, Mode.HALF_OPEN)
    new = connect(link.port)
    for client in (old, new):
        client.sendall(b"lost")
        assert silent(client)
    wait_until(lambda: link.affected == 2, "both to be met")
    network.heal(link)
    for client in (old, new):
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert asked(idle) == b"hello"


def test_half_open_tells_nobody_of_an_end(
    network: Network, link: Link, connect: Callable[[int], socket.socket]
) -> None:
    """A client that goes away is still there for the server, until the end of the fault."""
    client = connect(link.port)
    assert asked(client) == b"hello"
    network.strike(link, Mode.HALF_OPEN)
    client.close()
    time.sleep(0.2)
    assert link.connected
    network.heal(link)
    wait_until(lambda: not link.connected, "the end of the connection")


def test_cut_passes_a_part_and_resets(
    network: Network, echo: Callable[..., Echo], connect: Callable[[int], socket.socket]
) -> None:
    server = echo()
    link = network.link("to be cut", server.port)
    client = connect(link.port)
    assert asked(client) == b"hello"
    network.strike(link, Mode.CUT)
    client.sendall(b"0123456789")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    wait_until(lambda: server.received == b"hello01234", "the part that passed")
    assert link.affected == 1


def test_a_link_leads_to_one_that_accepts(
    network: Network, echo: Callable[..., Echo], connect: Callable[[int], socket.socket]
) -> None:
    """One after the other, while there is one."""
    one, other = echo(b"a"), echo(b"b")
    link = network.link("several", one.port, other.port)
    assert {connect(link.port).recv(1) for _ in range(2)} == {b"a", b"b"}
    one.close()
    assert {connect(link.port).recv(1) for _ in range(3)} == {b"b"}
    other.close()
    with pytest.raises(ConnectionResetError):
        connect(link.port).recv(1)


def test_a_fork_chooses_by_the_port_that_a_connection_comes_from(
    network: Network, echo: Callable[..., Echo], connect: Callable[[int], socket.socket]
) -> None:
    """And a link that does not listen itself refuses by resets."""
    links = [network.link(name.decode(), echo(name).port, listens=False) for name in (b"a", b"b")]
    chosen: list[int] = []

    def choose(port: int) -> Link:
        chosen.append(port)
        return links[len(chosen) % 2]

    fork = network.fork(choose)
    clients = [connect(fork.port), connect(fork.port)]
    assert {client.recv(1) for client in clients} == {b"a", b"b"}
    assert chosen == [client.getsockname()[1] for client in clients]
    network.strike(links[1], Mode.DROP)
    with pytest.raises(ConnectionResetError):
        connect(fork.port).recv(1)
    assert connect(fork.port).recv(1) == b"a"


def test_the_owner_of_a_connection_is_found(link: Link, connect: Callable[[int], socket.socket]) -> None:
    port = connect(link.port).getsockname()[1]
    assert owns_connection(os.getpid(), port)
    assert not owns_connection(1, port)
    assert not owns_connection(os.getpid(), 1)
