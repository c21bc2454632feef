"""A browser without scripts, which logs in to a running server, opens pages and sends forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from http.cookiejar import CookieJar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

from tests.harness.browser import ADMIN
from tests.harness.deployment import Server

LINKS = re.compile(r'href="(/[^"#]*)"')
SKIPPED = re.compile(r"logout|static/")
MOST_PAGES = 120


class Visitor:
    """Keeps its cookies."""

    def __init__(self, server: Server, see: Callable[[str, str], None] = lambda where, text: None) -> None:
        """``see`` is given all that is answered: where, and headers and page in one."""
        self.server, self.see = server, see
        self.opener = build_opener(HTTPCookieProcessor(CookieJar()))

    def get(self, path: str, data: dict[str, str] | None = None, **headers: str) -> tuple[int, str]:
        """Open a page, or send a form; what it answers, headers and all, is kept."""
        body = urlencode(data).encode() if data is not None else None
        request = Request(self.server.url + path, body, headers)  # noqa: S310
        try:
            with self.opener.open(request, timeout=30) as answer:
                status, head, text = answer.status, answer.headers, answer.read().decode()
        except HTTPError as error:
            status, head, text = error.code, error.headers, error.read().decode()
        except (URLError, OSError) as error:
            status, head, text = 0, "", str(error)
        self.see(f"{path} {status}", f"{head}{text}")
        return status, text

    def log_in(self) -> None:
        """As the first admin."""
        token = self.token("/admin/login/")
        names = {"username": ADMIN["DJANGO_SUPERUSER_USERNAME"], "password": ADMIN["DJANGO_SUPERUSER_PASSWORD"]}
        status, text = self.get("/admin/login/?next=/admin/", {**names, "csrfmiddlewaretoken": token})
        assert status == 200
        assert "Log out" in text

    def token(self, path: str) -> str:
        """The token of a page's form."""
        return self.get(path)[1].partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]

    def walk(self) -> set[str]:
        """Open all pages that links lead to."""
        metadata = [f"/metadata/{name}" for name in ("status", "tables", "schemas", "openapi.json")]
        seen, ahead = set[str](), ["/admin/", "/metrics", *metadata, "/healthz", "/readyz", "/nothing"]
        while ahead:
            path = ahead.pop()
            if path in seen or len(seen) == MOST_PAGES:
                continue
            seen.add(path)
            found = {
                link.replace("&amp;", "&") for link in LINKS.findall(self.get(path)[1]) if not SKIPPED.search(link)
            }
            ahead += sorted(found - seen)
        return seen
