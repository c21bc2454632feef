"""Row errors go from the list once nothing is wrong any more, whatever mended it; others stay."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from channels.db import database_sync_to_async
from django.db.models import F

from changesource.mapping.compiled import CompiledMapping, RowFault
from changesource.models import RowError
from changesource.services import mending
from changesource.services.mending import Mending
from changesource.sources.scripted import ScriptedSource
from changesource.store import row_errors
from tests.harness.chat import CHAT, MESSAGE, compiled

pytestmark = pytest.mark.django_db(transaction=True)


class Place:
    """A source, a mapping that may change, and the list."""

    def __init__(self) -> None:
        self.source = ScriptedSource()
        self.current = compiled()
        self.mending = Mending(self.source, self.mapping)

    async def mapping(self) -> CompiledMapping:
        return self.current

    async def listed(self) -> list[tuple[str, str, str]]:
        """What is listed, after everything was mapped and listed and looked at."""
        await self.mending.look()
        rows = RowError.objects.order_by("pk").values_list("table", "document_id", "column")
        return await database_sync_to_async(list)(rows)

    async def list_all(self) -> None:
        """List what is wrong with the documents as they are now."""
        faults: list[RowFault] = []
        for table in self.current.tables.values():
            for document in self.source.state.get(table.collection, {}).values():
                table.encoded(document, table.inserts, faults.append)
        await database_sync_to_async(row_errors.record)(Counter(faults))


async def test_each_way_to_mend_a_document_takes_it_off() -> None:
    it = Place()
    for name in ("updated", "deleted", "half", "same"):
        it.source.insert("messages", {"_id": name, "body": "b", "stats": {"likes": "many"}, "tags": []})
    it.source.insert("rooms", {"_id": 1, "kind": "chat", "title": ["no"]})
    await it.list_all()
    wrong = [("message", f'"{name}"', "likes") for name in ("updated", "deleted", "half", "same")]
    assert await it.listed() == [*wrong, ("chat", "1", "title")]
    it.source.update("messages", "updated", stats={"likes": 1})
    it.source.delete("messages", "deleted")
    it.source.update("messages", "half", body=[1])
    it.source.update("rooms", 1, kind="other")
    await it.list_all()
    # A row that is left out is told of by the first column that does not fit.
    assert await it.listed() == [wrong[3], ("message", '"half"', "body")]
    it.current = compiled(replace(MESSAGE, columns=MESSAGE.columns[:1]))
    assert await it.listed() == []


async def test_a_table_that_is_gone_takes_its_errors_with_it() -> None:
    it = Place()
    it.source.insert("messages", {"_id": "a", "body": ["x"]})
    await it.list_all()
    it.current = compiled(CHAT)
    assert await it.listed() == []


async def test_an_error_seen_again_meanwhile_stays() -> None:
    it = Place()
    it.source.insert("messages", {"_id": "a", "body": ["x"]})
    await it.list_all()
    (listed,) = await database_sync_to_async(row_errors.after)(0, 10)
    await database_sync_to_async(RowError.objects.update)(count=F("count") + 1)
    await database_sync_to_async(row_errors.clear)([listed])
    assert await database_sync_to_async(RowError.objects.count)() == 1


async def test_a_long_list_is_looked_at_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "AT_ONCE", 3)
    it = Place()
    for number in range(8):
        it.source.insert("messages", {"_id": f"m{number}", "body": ["x"]})
    await it.list_all()
    assert len(await it.listed()) == 8
    for number in range(8):
        it.source.update("messages", f"m{number}", body="good")
    # The first three were looked at above.
    assert [len(await it.listed()) for _ in range(3)] == [5, 3, 0]


@pytest.mark.parametrize("shown", ['{"half": of an _id', '"no UTF-8: \ufffd"', "null"])
async def test_what_cannot_be_looked_up_stays(shown: str) -> None:
    """One that is too long to be listed whole, and those that could not be decoded."""
    it = Place()
    fault = RowFault("message", shown, "body", "does not fit", left_out=True)
    await database_sync_to_async(row_errors.record)(Counter([fault]))
    assert len(await it.listed()) == 1
