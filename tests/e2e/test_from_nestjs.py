"""Moving from the NestJS zero-sources server: its settings and files serve here, and its replicas sync anew, once."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from bson.objectid import ObjectId
from pymongo.database import Database
from websockets.exceptions import InvalidStatus

from devtools.processes import wait_until
from devtools.zerocache import RESET_EXIT_CODE
from tests.conftest import DeploymentFactory, MongoServer, ZeroCacheFactory
from tests.harness.deployment import Deployment
from tests.harness.nestjs import NestJsServer, serving
from tests.harness.reader import Reader
from tests.harness.replicas import stored_watermark

Document = dict[str, Any]
TOKEN = "a-token-for-zero-cache"
OID = ObjectId("65f000000000000000000001")
OTHER = ObjectId("65f000000000000000000003")
AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
AT_TEXT, AT_NUMBER = "2026-01-02T03:04:05.678Z", 1767323045678


def columns(**kinds: str) -> Document:
    """Columns as ``createSchema`` writes them; ``?`` after the type makes one optional."""
    return {
        name: {"type": kind.rstrip("?"), "optional": kind.endswith("?"), "customType": None}
        for name, kind in {"_id": "string", **kinds}.items()
    }


SCHEMA: Document = {
    "tables": {
        name: {"name": name, "columns": made, "primaryKey": ["_id"]}
        for name, made in {
            "books": columns(title="string", by="json?", boughtAt="string", boughtMs="number?", secret="string?"),
            "journals": columns(by="json?", issue="number?", short="string?"),
            "lines": columns(orderId="string", item="string", amount="number"),
            "shelves": columns(room="string?", full="boolean?"),
        }.items()
    },
    "relationships": {},
}
MAPPINGS: Document = {
    "version": 1,
    "mappings": {
        "books": {
            "source": "library",
            "filter": {"kind": {"$eq": "book"}, "lost": {"$ne": True}},
            "projection": {"_id": 1, "title": 1, "by": 1, "boughtAt": 1, "boughtMs": "$boughtAt"},
        },
        "journals": {
            "source": "library",
            "filter": {"kind": {"$in": ["journal", "paper"]}},
            "projection": {
                "_id": 1,
                "by.name": 1,
                "issue": {"$toInt": "$issue"},
                "short": {"$hexToBase64Url": "$_id"},
            },
        },
        "lines": {
            "source": "orders",
            "pipeline": [
                {"$match": {"open": True}},
                {"$unwind": {"path": "$lines", "preserveNullAndEmptyArrays": False}},
                {"$addFields": {"orderId": "$_id", "item": "$lines.item", "amount": "$lines.amount"}},
                {"$project": {"_id": {"$concat": ["$orderId", "_", "$item"]}, "orderId": 1, "item": 1, "amount": 1}},
            ],
        },
    },
    "metadata": {"application": "library", "exportedAt": "2026-01-01T00:00:00.000Z"},
}


def fill(database: Database[Document]) -> None:
    """Documents of every kind that the mappings tell apart."""
    book = {"kind": "book", "title": "Walden", "by": {"name": "Thoreau", "mail": "h@t"}, "secret": "s", "boughtAt": AT}
    database["library"].insert_many(
        [
            {"_id": OID, "__v": 3, **book},
            {"_id": ObjectId("65f000000000000000000002"), **book, "lost": True},
            {"_id": OTHER, "kind": "paper", "by": {"name": "Noe", "mail": "m"}, "issue": "7"},
        ]
    )
    database["orders"].insert_one(
        {"_id": OID, "open": True, "lines": [{"item": "pen", "amount": 2}, {"item": "ink", "amount": 1}]}
    )
    database["shelves"].insert_one({"_id": "north", "room": "hall", "full": False})


def rows() -> dict[str, list[Document]]:
    """What these documents become."""
    line = {"orderId": str(OID)}
    return {
        "books": [
            {
                "_id": str(OID),
                "title": "Walden",
                "by": {"name": "Thoreau", "mail": "h@t"},
                "boughtAt": AT_TEXT,
                "boughtMs": AT_NUMBER,
                "secret": None,
            }
        ],
        "journals": [{"_id": str(OTHER), "by": {"name": "Noe"}, "issue": 7, "short": "ZfAAAAAAAAAAAAAD"}],
        "lines": [
            {"_id": f"{OID}_ink", **line, "item": "ink", "amount": 1},
            {"_id": f"{OID}_pen", **line, "item": "pen", "amount": 2},
        ],
        "shelves": [{"_id": "north", "room": "hall", "full": False}],
    }


def moved(
    deployment: DeploymentFactory, folder: Path, uri: str, *, managed: bool = True, **settings: str
) -> Deployment:
    """A deployment that knows nothing but their files and variables; unless ``managed``, no mappings among them."""
    config: Document = {
        "db": {"uri": uri, "publish": ["library", "orders", "shelves"]},
        "zero": {"auth": {"token": TOKEN}, "kv": {"provider": "zqlite", "zqlite": {"file": "./watermarks.db"}}},
    }
    if managed:
        config["schema"] = {"source": "file", "schemaFile": "./schema.json", "tableMappingsFile": "mappings.json"}
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    (folder / "mappings.json").write_text(json.dumps(MAPPINGS))
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    theirs = {"NODE_ENV": "production", "LOG_LEVEL": "log", "WATERMARK_STORAGE": "zqlite", "CORS_ORIGIN": "*"}
    blank = {"MONGODB_URI": "", "MONGODB_DATABASE": "", "DEBUG": "off"}
    return deployment(CONFIG_FILE=str(folder / "config.yml"), **theirs, **blank, **settings)


def uri_of(mongodb: MongoServer, mongo: Database[Document]) -> str:
    """The test's database by a URI that names it."""
    parts = urlsplit(mongodb.uri)
    return parts._replace(path=f"/{mongo.name}").geturl()


def found(reader: Reader, names: list[str]) -> dict[str, list[Document]]:
    return {name: [row for _, row in sorted(reader.model.rows(name).items())] for name in names}


def test_their_settings_and_files_serve(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Document], tmp_path: Path
) -> None:
    fill(mongo)
    server = moved(deployment, tmp_path, uri_of(mongodb, mongo)).server()
    log = server.log_text()
    taken = "db.uri as MONGODB_URI, zero.auth.token as CHANGE_SOURCE_API_KEYS, schema.schemaFile as SCHEMA_FILE"
    assert f"Of NestJS      config.yml: {taken}, schema.tableMappingsFile as TABLE_MAPPINGS_FILE\n" in log
    for name in ("WATERMARK_STORAGE", "CORS_ORIGIN", "db.publish", "zero.kv"):
        assert log.count(f"Of NestJS      {name} has no meaning here: ") == 1
    assert "NODE_ENV" not in log
    assert TOKEN not in log
    with pytest.raises(InvalidStatus, match="HTTP 403"):
        asyncio.run(Reader(f"{server.stream_url}?k=another-token-of-some-length").sync())
    reader = Reader(f"{server.stream_url}?k={TOKEN}")
    asyncio.run(reader.sync())
    wanted = rows()
    assert found(reader, list(wanted)) == wanted

    mongo["library"].update_one({"_id": OID}, {"$set": {"kind": "journal", "issue": 8}, "$unset": {"by": 1}})
    mongo["orders"].update_one({"_id": OID}, {"$set": {"lines": [{"item": "ink", "amount": 5}]}})
    mongo["shelves"].replace_one({"_id": "north"}, {"room": "cellar"})
    changed = {"_id": str(OID), "by": None, "issue": 8, "short": "ZfAAAAAAAAAAAAAB"}
    after = {
        "books": [],
        "journals": [changed, *wanted["journals"]],
        "lines": [{**wanted["lines"][0], "amount": 5}],
        "shelves": [{"_id": "north", "room": "cellar", "full": None}],
    }
    asyncio.run(reader.follow(lambda: found(reader, list(after)) == after))


def test_their_files_are_imported(
    deployment: DeploymentFactory, mongodb: MongoServer, mongo: Database[Document], tmp_path: Path
) -> None:
    """Their tables are edited in the admin from then on."""
    fill(mongo)
    place = moved(deployment, tmp_path, uri_of(mongodb, mongo), managed=False)
    command = ("importmappings", str(tmp_path / "mappings.json"), "--schema", str(tmp_path / "schema.json"))
    assert place.manage(*command, "--dry-run") == "would be made: books, journals, lines, shelves\n"
    assert place.manage(*command) == "made: books, journals, lines, shelves\n"
    place.manage("check", "--tag", "changesource")
    reader = Reader(f"{place.server().stream_url}?k={TOKEN}")
    asyncio.run(reader.sync())
    wanted = rows()
    assert found(reader, list(wanted)) == wanted


@pytest.mark.slow
def test_a_replica_of_theirs_syncs_anew_once(
    deployment: DeploymentFactory,
    zero_cache: ZeroCacheFactory,
    mongodb: MongoServer,
    mongo: Database[Document],
    tmp_path: Path,
) -> None:
    """Only ``ZERO_UPSTREAM_DB`` is another: file, databases and app id of the zero-cache stay."""
    fill(mongo)
    server = moved(deployment, tmp_path, uri_of(mongodb, mongo), LOG_FORMAT="json").server()
    kinds = {"_id": "string", "room": "string", "full": "boolean"}
    theirs = NestJsServer("shelves", kinds, [{"_id": "old", "room": "attic", "full": True}], TOKEN)
    with serving(theirs) as address:
        cache = zero_cache(address)
        cache.wait_ready()
        theirs.insert({"_id": "older", "room": "attic"})
        wait_until(lambda: stored_watermark(cache) == "01", "their watermark", 30, detail=cache.log_tail)
        assert theirs.asked == ["", "00"]
        assert sorted(row["_id"] for row in cache.rows("shelves")) == ["old", "older"]
        cache.stop()

    cache.upstream = f"{server.stream_url}?k={TOKEN}"
    cache.start()
    wait_until(lambda: cache.exits == [RESET_EXIT_CODE], "one reset", 60, detail=cache.log_tail)
    cache.wait_ready()
    assert [row["_id"] for row in cache.rows("shelves")] == ["north"]
    assert [row["_id"] for row in cache.rows("lines")] == [f"{OID}_ink", f"{OID}_pen"]
    mongo["shelves"].insert_one({"_id": "south"})
    wait_until(lambda: len(cache.rows("shelves")) == 2, "a change", 30, detail=cache.log_tail)
    cache.stop()
    cache.start()
    cache.wait_ready()
    mongo["shelves"].insert_one({"_id": "west"})
    wait_until(lambda: len(cache.rows("shelves")) == 3, "a change after a restart", 30, detail=cache.log_tail)
    assert cache.exits == [RESET_EXIT_CODE]
    resets = [json.loads(line) for line in server.log_text().splitlines() if '"replica must be reset"' in line]
    assert [(reset["code"], "'01' is not one of ours" in reset["why"]) for reset in resets] == [("ZS201", True)]
