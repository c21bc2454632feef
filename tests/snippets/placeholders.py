"""What examples leave to their reader, and what stands there while they are run."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

# Hosts that stand for a server of zerosource, by the port 3000 or PORT, or by none.
OURS = r"(?:HOST|localhost|127\.0\.0\.1|change-source|zerosource(?:-\d)?\.example|zerosource\.internal)"
LOGIN = r"(?P<login>[^@/\s'\"]*@)?"
UNKNOWN_HOST = re.compile(r"(?<=[/@\"' ])[\w-]+(?:\.[\w-]+)*\.(?:example|internal)\b(?=[:/])")
# Words of capitals with an underscore that are no settings.
NOT_SETTINGS = {
    "TRANSFORM_VERSION": "a constant of the code, which docs tell of",
    "HTTP_PROXY": "an environment variable that is not looked at",
    "SSL_CERT_FILE": "of OpenSSL",
    "COLL_MOD": "Atlas's name of a privilege",
    "LIST_INDEXES": "the same",
}

# What pages tell of other programs: names that are not held against what there is here.
OF_OTHERS = {
    "docs/moving-from-nestjs.md": {
        *(
            "config.yml",
            "/opt/zerosource/app",
            "CONFIG_FILE",
            "SCHEMA_SOURCE",
            "WATERMARK_STORAGE",
            "WATERMARK_DB_PATH",
        ),
        *("NATS_SERVERS", "NATS_BUCKET", "CORS_ORIGIN", "NODE_ENV", "/health", "/docs"),
        *("/api/schema/export", "/api/schema/table-mappings", "/api/schema/combined"),
    },
    # pymongo's own span, and OpenTelemetry's names of a protocol and a path.
    "docs/tracing.md": {"find items", "http/protobuf", "/v1/traces"},
}


@dataclass
class Reader:
    """Who follows a page: the folder, and the services by which examples are replaced.

    ``postgres`` and ``redis`` start theirs when they are first asked for a URL.
    """

    folder: Path
    mongodb_uri: str
    port: int
    zero_port: int
    key: str
    postgres: Callable[[], str]
    redis: Callable[[], str]

    def mongodb(self, database: str = "app") -> str:
        """The URI of the page's MongoDB, with a database in its path."""
        parts = urlsplit(self.mongodb_uri)
        return urlunsplit((parts.scheme, parts.netloc, f"/{database}", parts.query, ""))


Filling = Callable[[Reader, "re.Match[str]"], str]
PLACEHOLDERS: tuple[tuple[str, Filling], ...] = (
    (r"mongodb(?:\+srv)?://[^/\s'\"]*(?:/(?P<name>[\w-]*))?(?:\?[^\s'\"]*)?", lambda r, m: r.mongodb(m["name"] or "")),
    (r"postgres(?:ql)?://[^\s'\"]+", lambda r, _: r.postgres()),
    (r"rediss?://[^\s'\"]+", lambda r, _: r.redis()),
    (rf"wss?://{LOGIN}{OURS}(?::(?:3000|PORT))?(?=/)", lambda r, m: f"ws://{m['login'] or ''}127.0.0.1:{r.port}"),
    (
        rf"https?://{LOGIN}{OURS}(?::(?:3000|PORT))?(?![\w.:-])",
        lambda r, m: f"http://{m['login'] or ''}127.0.0.1:{r.port}",
    ),
    (r"localhost:4848\b", lambda r, _: f"127.0.0.1:{r.zero_port}"),
    (r"(?<=-p )3000\b", lambda r, _: str(r.port)),
    (r"passwordPrompt\(\)", lambda r, _: '"secret"'),
    (r"at least 50 random characters", lambda r, _: "of-fifty-characters-or-more-as-they-should-be-made-0123456789"),
    (r"\bBASE64\b", lambda r, _: base64.b64encode(f"zero:{r.key}".encode()).decode()),
    (r"\bKEY\b", lambda r, _: r.key),
)


def fill(text: str, reader: Reader) -> str:
    """Put what is there into the places of what stands for it. Fails at an example's host that nothing stands for."""
    for pattern, filling in PLACEHOLDERS:
        text = re.sub(pattern, lambda match, filling=filling: filling(reader, match), text)
    unknown = UNKNOWN_HOST.findall(text)
    assert not unknown, f"{unknown[0]} stands for nothing that tests/snippets/placeholders.py knows"
    return text
