"""What is read from URLs that operators set, and what is not: real servers on loopback, each with one trick."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from changesource.exceptions import ConfigurationUnavailable, MappingError
from changesource.mapping.json_reading import parse
from changesource.services import download as module
from changesource.services.download import Content, download, fetch, is_refused

Talk = Callable[[socket.socket, str], None]
"""Answers one request: the connection, and what was asked for, headers included."""
JSON = b'{"message": {}}'


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def plain(content: bytes, *lines: str) -> bytes:
    return head(*lines, f"Content-Length: {len(content)}") + content


def moved(location: str) -> bytes:
    return head(f"Location: {location}", "Content-Length: 0", status="302 Found")


class Web:
    """A server that says what it is told to, byte by byte, and remembers what it was asked."""

    def __init__(self, talk: Talk, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.stop = threading.Event()
        self._talk, self._tls = talk, tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.place = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, name="web")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            if self.stop.is_set():
                connection.close()
                return
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    pass  # the client went away, as it should

    def _answer(self, connection: socket.socket) -> None:
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                more = connection.recv(65536)
                if not more:
                    return
                request += more
            self.asked.append(request.decode())
            self._talk(connection, request.decode())

    def close(self) -> None:
        self.stop.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(10)
        self._listening.close()
        assert not self._thread.is_alive()


@pytest.fixture
def web() -> Iterator[Callable[..., Web]]:
    """Make a server of what it answers: bytes, or a ``Talk``."""
    with ExitStack() as stack:

        def make(answer: bytes | Talk, **options: Any) -> Web:
            talk: Talk = (lambda connection, _: connection.sendall(answer)) if isinstance(answer, bytes) else answer
            server = Web(talk, **options)
            stack.callback(server.close)
            return server

        yield make


@contextmanager
def refused(words: str) -> Iterator[None]:
    with pytest.raises(ConfigurationUnavailable, match=words) as caught:
        yield
    assert not any(secret in str(caught.value) for secret in ("hunter2", "t0ken"))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Content-Type: application/json; charset=utf-8",),
        ("Content-Type: application/vnd.zero+json",),
        ("Content-Type: text/json",),
        ("Content-Type: text/plain",),
    ],
)
def test_json_is_read_whatever_it_is_called(web: Callable[..., Web], lines: tuple[str, ...]) -> None:
    server = web(plain(JSON, *lines))
    assert download(f"http://me:hunter2@{server.place}/schema?token=t0ken") == JSON
    request = server.asked[0].lower()
    assert request.startswith("get /schema?token=t0ken http/1.1\r\n")
    assert "accept-encoding: identity\r\n" in request
    assert f"host: {server.place}\r\n" in request
    assert "authorization: basic bwu6ahvudgvymg==\r\n" in request


def test_an_answer_in_pieces_or_without_a_length_is_read(web: Callable[..., Web]) -> None:
    chunked = head("Transfer-Encoding: chunked") + b"5\r\n" + JSON[:5] + b"\r\na\r\n" + JSON[5:] + b"\r\n0\r\n\r\n"
    assert download(f"http://{web(chunked).place}/") == JSON
    assert download(f"http://{web(head() + JSON).place}/é ü") == JSON


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "image/png"])
def test_what_is_called_something_else_is_not_json(web: Callable[..., Web], kind: str) -> None:
    with refused(f"answers with '{kind}', not with JSON"):
        download(f"http://me:hunter2@{web(plain(JSON, f'Content-Type: {kind}')).place}/?token=t0ken")


def test_no_proxy_is_asked(web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = web(plain(b"[]")), web(plain(JSON))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{proxy.place}")
    assert download(f"http://{server.place}/") == JSON
    assert proxy.asked == []


def conditions_in(request: str) -> list[str]:
    return [line for line in request.splitlines() if line.startswith("If-")]


LAST_MODIFIED = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (['ETag: "a"'], ['If-None-Match: "a"']),
        (['ETag: W/"a"'], ['If-None-Match: W/"a"']),
        (
            ['ETag: "a"', LAST_MODIFIED],
            ['If-None-Match: "a"', "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT"],
        ),
        (
            [LAST_MODIFIED, "Date: Thu, 01 Jan 2026 00:00:02 GMT"],
            ["If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT"],
        ),
        (['ETag: "a"', LAST_MODIFIED, "Date: Thu, 01 Jan 2026 00:00:01 GMT"], []),
        ([LAST_MODIFIED, "Date: today"], []),
        (["ETag: " + "a" * 1001], []),
        (["ETag: \x07", "Last-Modified: \xe9"], []),
        ([], []),
    ],
)
def test_what_has_not_changed_is_not_sent_again(web: Callable[..., Web], given: list[str], asked: list[str]) -> None:
    """Also where a redirect leads there."""

    def talk(connection: socket.socket, request: str) -> None:
        if request.startswith("GET /a"):
            connection.sendall(moved("/b"))
        elif conditions_in(request):
            connection.sendall(head(status="304 Not Modified"))
        else:
            connection.sendall(head(*given, f"Content-Length: {len(JSON)}") + JSON)

    server = web(talk)
    first = fetch(f"http://{server.place}/a")
    again = fetch(f"http://{server.place}/a", first)
    assert again.body == first.body == JSON
    assert (again is first) == bool(asked)
    assert [conditions_in(request) for request in server.asked] == [[], [], asked, asked]


def test_nothing_has_changed_of_what_is_not_known(web: Callable[..., Web]) -> None:
    server = web(head(status="304 Not Modified"))
    for known in (None, Content(JSON)):
        with refused("answers with the status 304"):
            fetch(f"http://{server.place}/", known)


def test_redirects_within_the_host_are_followed(web: Callable[..., Web]) -> None:
    def talk(connection: socket.socket, request: str) -> None:
        connection.sendall(plain(JSON) if request.startswith("GET /b?c ") else moved("/b?c#d"))

    server = web(talk)
    assert download(f"http://me:hunter2@{server.place}/a") == JSON
    assert all("Authorization" in request for request in server.asked)


def test_redirects_elsewhere_are_not_followed(web: Callable[..., Web]) -> None:
    other = web(plain(JSON))
    for location in (
        f"http://{other.place}/",
        f"http://localhost:{other.port}/",
        f"//{other.place}/",
        "http://169.254.169.254/latest/meta-data/",
    ):
        with refused("is redirected to another scheme, host or port"):
            download(f"http://me:hunter2@{web(moved(location)).place}/?token=t0ken")
    for location in ("file:///etc/passwd", "ftp://127.0.0.1/", "http://[", "gopher:x", "http://h:port/"):
        with refused("is redirected to"):
            download(f"http://{web(moved(location)).place}/")
    assert other.asked == []


def test_a_redirect_does_not_go_round_for_ever(web: Callable[..., Web]) -> None:
    server = web(moved("/"))
    with refused("is redirected more than 5 times"):
        download(f"http://{server.place}/")
    assert len(server.asked) == 6


def test_a_redirect_from_https_to_http_is_not_followed(web: Callable[..., Web], tls: ssl.SSLContext) -> None:
    plain_server = web(plain(JSON))
    server = web(moved(f"http://localhost:{plain_server.port}/"), tls=tls)
    with refused("is redirected to another scheme"):
        download(f"https://localhost:{server.port}/")
    assert plain_server.asked == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {path} -out {path}.crt"
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context, of a certificate for localhost that is trusted here."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_tls_is_checked(web: Callable[..., Web], tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    server = web(plain(JSON), tls=tls)
    assert download(f"https://localhost:{server.port}/") == JSON
    with refused("cannot be read by TLS: IP address mismatch"):
        download(f"https://me:hunter2@127.0.0.1:{server.port}/?token=t0ken")
    monkeypatch.delenv("SSL_CERT_FILE")
    with refused("cannot be read by TLS: self-signed certificate"):
        download(f"https://localhost:{server.port}/")


@pytest.mark.parametrize("part", ["head", "content", "chunks", "continue", "trailer"])
def test_one_byte_after_the_other_is_not_waited_for(
    web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Each byte comes well within the time of an answer, but their sum does not come in the time of all."""
    monkeypatch.setattr(module, "WHOLE_SECONDS", 0.5)
    begin, drop = {
        "head": (b"", b"H"),
        "content": (head("Content-Length: 1000000"), b" "),
        "chunks": (head("Transfer-Encoding: chunked"), b"1\r\n \r\n"),
        "continue": (b"", head(status="100 Continue")),
        "trailer": (head("Transfer-Encoding: chunked") + b"0\r\n", b"a: b\r\n"),
    }[part]

    def talk(connection: socket.socket, request: str) -> None:
        connection.sendall(begin)
        while not server.stop.wait(0.02):
            connection.sendall(drop)

    server = web(talk)
    with refused("did not answer within 0.5 seconds"):
        download(f"http://me:hunter2@{server.place}/?token=t0ken")


def test_silence_is_not_waited_for(web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    server = web(lambda connection, _: bool(connection.recv(1)))
    with refused("or sent nothing for 0.2"):
        download(f"http://{server.place}/")
    tls_that_hangs = web(plain(JSON))
    with refused("did not answer|cannot be read"):
        download(f"https://{tls_that_hangs.place}/")


def test_size_is_bounded_whatever_the_head_says(web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    endless = head("Transfer-Encoding: chunked") + b"ffffffff\r\n" + b" " * 2000
    for answer in (plain(b" " * 1001), head() + b" " * 2000, endless):
        with refused("answers with more than 1000 bytes"):
            download(f"http://me:hunter2@{web(answer).place}/?token=t0ken")
    # A length that is too small cuts the content, one that is too large is noticed.
    assert download(f"http://{web(head('Content-Length: 2') + JSON).place}/") == JSON[:2]
    with refused("broke off in the middle|IncompleteRead"):
        download(f"http://{web(head('Content-Length: 500') + JSON).place}/")


def test_packed_content_is_not_unpacked(web: Callable[..., Web]) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    with refused("packed content"):
        download(f"http://{web(plain(bomb, 'Content-Encoding: gzip')).place}/")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (head(status="404 Not Found"), "the status 404"),
        (head("Content-Length: 2", status="206 Partial Content") + b"[]", "the status 206"),
        (b"", "RemoteDisconnected"),
        (b"SSH-2.0-t0ken hunter2\r\n", "cannot be read: BadStatusLine"),
        (head(*(f"h{i}: x" for i in range(200))), "cannot be read: HTTPException"),
        (head(f"h: {'x' * 70_000}"), "cannot be read: LineTooLong"),
    ],
)
def test_no_answer_of_another_kind_is_taken(web: Callable[..., Web], answer: bytes, words: str) -> None:
    with refused(words):
        download(f"http://me:hunter2@{web(answer).place}/?token=t0ken")


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.16689662",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "168.63.129.16",
    ],
)
def test_metadata_is_not_read_however_it_is_written(host: str) -> None:
    with refused("link-local or metadata address"):
        download(f"http://me:hunter2@{host}/latest?token=t0ken")


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "192.168.1.1", "::1", "fd12::1", "8.8.8.8", "2606::1"])
def test_private_and_public_addresses_may_be_read(address: str) -> None:
    assert not is_refused(address)


def test_a_zone_does_not_hide_an_address() -> None:
    assert is_refused("fe80::1%eth0")


def test_a_name_is_resolved_once_and_all_its_addresses_count(
    web: Callable[..., Web], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second answer of a name that is bound anew is never asked for; one bad address of several is enough."""
    server = web(plain(JSON))
    answers = [["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1", "169.254.169.254"]]

    def resolve(host: str, port: int, **options: Any) -> list[Any]:
        assert host == "rebound.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers.pop(0)]

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", resolve)
        assert download(f"http://rebound.example:{server.port}/") == JSON
        for _ in range(2):
            with refused("link-local or metadata address"):
                download(f"http://rebound.example:{server.port}/")
    assert len(server.asked) == 1


def test_a_host_that_does_not_exist_is_said() -> None:
    with refused("cannot be read: "):
        download("http://me:hunter2@no-such-host.invalid/?token=t0ken")


def test_the_key_given_twice_is_found_among_many() -> None:
    """As quickly as any: a content of 8 MiB has half a million keys."""
    many = ",".join(f'"k{number}":1' for number in range(100_000))
    with pytest.raises(MappingError, match="the key 'k99999' is given twice"):
        parse(f'{{{many},"k99999":2}}'.encode(), "schema")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "9" * 5000, "1e999", "NaN"])
def test_json_that_python_would_choke_on_is_refused(text: str) -> None:
    with pytest.raises(MappingError):
        parse(text.encode(), "schema")
