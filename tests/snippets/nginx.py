"""Runs a page's configuration in a real nginx, and asks through it for a page and for the change stream."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import subprocess
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from websockets.asyncio.client import connect

from devtools.processes import ManagedProcess, ProcessError, free_port, port_answers
from tests.snippets.placeholders import Reader

AROUND = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{inside}
}}
"""
PATH = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin"


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def run(text: str, reader: Reader, folder: Path) -> None:
    """Fails, or raises ``ProcessError``, where nginx does not take ``text``, or what is asked for does not arrive."""
    binary = shutil.which("nginx", path=PATH)
    if binary is None:
        raise ProcessError("nginx is not installed: apt-get install nginx-light")
    secure = "ssl" in text
    if secure:
        _certify(folder)
        text = re.sub(r"/etc/ssl/\w+\.(pem|key)", rf"{folder}/own.\1", text)
    text = re.sub(r"127\.0\.0\.1:3000|zerosource\.internal:3000", f"127.0.0.1:{reader.port}", text)
    ports = {"443": free_port(), "80": free_port()}
    text = re.sub(r"listen (443|80)\b", lambda match: f"listen 127.0.0.1:{ports[match[1]]}", text)
    if "server {" not in text:
        text = f"server {{ listen 127.0.0.1:{ports['80']};\n{text}}}"
    configuration = folder / "nginx.conf"
    configuration.write_text(AROUND.format(folder=folder, inside=text))
    command = [binary, "-e", "stderr", "-c", str(configuration)]
    said = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    if said.returncode or "[warn]" in said.stderr:
        raise ProcessError(said.stderr)
    process = ManagedProcess(command, folder / "nginx.log", {"PATH": PATH})
    try:
        process.wait_until(lambda: port_answers("127.0.0.1", ports["80"]), "nginx to answer", 30)
        port = ports["443" if secure else "80"]
        if secure:
            _ask_pages(ports)
        # The form with the key in nginx is asked without one.
        key = "" if "Authorization" in text else f"zero:{reader.key}@"
        asyncio.run(_stream(f"{'wss' if secure else 'ws'}://{key}127.0.0.1:{port}/changes/v0/stream"))
    finally:
        process.kill()


def _certify(folder: Path) -> None:
    subject = ["-subj", "/CN=zerosource.example", "-days", "1", "-nodes", "-newkey", "ec"]
    files = ["-keyout", f"{folder}/own.key", "-out", f"{folder}/own.pem"]
    curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subprocess.run(["openssl", "req", "-x509", *subject, *curve, *files], check=True, capture_output=True)


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _ask_pages(ports: dict[str, int]) -> None:
    """The login page comes by https, and what is asked by http is sent there."""
    opener = build_opener(HTTPSHandler(context=_any_certificate()), _Stay())
    login = f"https://127.0.0.1:{ports['443']}/admin/login/"
    assert _status(opener, login)[0] == 200, "the login page does not come through nginx"
    status, place = _status(opener, f"http://127.0.0.1:{ports['80']}/admin/")
    assert (status, place) == (301, "https://zerosource.example/admin/"), "http is not sent to https"


def _status(opener: OpenerDirector, url: str) -> tuple[int, str]:
    try:
        with opener.open(Request(url, headers={"Host": "zerosource.example"}), timeout=10) as answer:  # noqa: S310
            return answer.status, ""
    except HTTPError as error:
        return error.code, error.headers.get("Location", "")


async def _stream(url: str) -> None:
    """An initial sync begins."""
    context = _any_certificate() if url.startswith("wss") else None
    async with connect(f"{url}?appID=nginx&shardNum=0", ssl=context, max_size=None, open_timeout=20) as socket:
        frame = await asyncio.wait_for(socket.recv(), 20)
        assert frame.startswith('["begin"'), frame
