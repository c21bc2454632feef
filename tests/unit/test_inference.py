"""Inference: what is proposed fits what was seen, on the sample data, on drift, and on whatever documents there are."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.regex import Regex
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from changesource import sample_data
from changesource.mapping.compiled import MappedTable, RowFault
from changesource.mapping.discriminators import Discriminator
from changesource.mapping.documents import Salvaged
from changesource.mapping.filters import compile_filter
from changesource.mapping.formats import read_specification
from changesource.mapping.inference import Proposal, ProposedColumn, infer
from changesource.mapping.naming import fitting_name
from changesource.mapping.paths import Document
from changesource.mapping.pipelines import compile_pipeline
from changesource.mapping.spec import TableSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def sample() -> dict[str, list[dict[str, Any]]]:
    """The sample app's documents by collection."""
    chance = random.Random(sample_data.SEED)
    users = sample_data._users(chance)
    rooms = sample_data._rooms(chance, users)
    messages = sample_data._messages(chance, users, rooms)
    return {"users": users, "rooms": rooms, "messages": messages, "accounts": sample_data._accounts(chance, users)}


def column(proposal: Proposal, path: str) -> ProposedColumn:
    return next(one for one in proposal.columns if one.spec.path == path)


def proposed(documents: Sequence[Document]) -> ProposedColumn:
    """What is proposed for the field ``a``."""
    return column(infer(documents), "a")


def table_of(proposal: Proposal) -> MappedTable:
    columns = tuple(one.spec for one in proposal.columns)
    return MappedTable(TableSpec("t", "c", columns, proposal.primary_key, id_type=proposal.id_type), "db")


def faults(proposal: Proposal, documents: Sequence[Document]) -> list[RowFault]:
    table, found = table_of(proposal), list[RowFault]()
    for document in documents:
        table.encoded(document, table.inserts, found.append)
    return found


def test_the_sample_data_is_read_as_its_mappings_are_written() -> None:
    """Wherever a mapping made by hand shows a field that inference shows too, both agree."""
    documents = sample()
    specification = read_specification(json.loads(sample_data.MAPPINGS_FILE.read_text(encoding="utf-8")))
    agreed = 0
    for table in specification.tables:
        passes = compile_filter(table.filter, "filter")
        shape = compile_pipeline(table.pipeline, "pipeline")
        chosen = [shaped for one in documents[table.collection] if passes(one) for shaped in shape(one)]
        proposal = infer(chosen)
        assert proposal.id_type == table.id_type
        assert len(proposal.primary_key) == len(table.primary_key)
        assert not faults(proposal, chosen)
        found = {one.spec.path: one.spec for one in proposal.columns}
        for written in table.columns:
            if written.path in found:
                ours = found[written.path]
                assert ours.type == written.type, written
                assert written.optional or not ours.optional, written
                agreed += 1
    assert agreed > 35


def test_nested_documents_become_paths_and_maps_and_arrays_become_json() -> None:
    documents = sample()
    users = infer(documents["users"])
    assert [one.spec.name for one in users.columns if one.spec.path.startswith("address")] == [
        "addressStreet",
        "addressCity",
        "addressZip",
    ]
    messages = infer(documents["messages"])
    assert column(messages, "reactions").spec.type == "json"
    system = column(messages, "system.kind")
    assert (system.spec.optional, system.missing, dict(system.types)) == (True, 270, {"string": 30})
    assert column(infer(documents["rooms"]), "members").spec.type == "json"


def test_the_rows_of_an_unwound_array_get_a_key_that_tells_them_apart() -> None:
    unwind = compile_pipeline([{"$unwind": "$members"}], "pipeline")
    shaped = [one for account in sample()["accounts"] for one in unwind(account)]
    assert infer(shaped).primary_key == ("id", "membersUserId")
    alike = [{"_id": 1, "n": 1}, {"_id": 1, "n": 1}]
    proposal = infer(alike)
    assert proposal.primary_key == ("id",)
    assert "no column tells them apart" in proposal.notes[-1]


def test_a_discriminator_is_found_where_other_fields_follow_it() -> None:
    documents = sample()
    assert infer(documents["rooms"]).discriminator == Discriminator("type", {"channel": 4, "group": 4, "chat": 4})
    for collection in ("users", "messages", "accounts"):
        assert infer(documents[collection]).discriminator is None
    unrelated = [{"_id": n, "kind": "ab"[n % 2], **({"x": 1} if n % 3 else {})} for n in range(60)]
    assert infer(unrelated).discriminator is None
    mixed = [*documents["rooms"], {"_id": 1, "type": 5}]
    assert infer(mixed).discriminator is None


def test_a_drifting_field_is_told_with_its_shares() -> None:
    found = proposed([{"_id": n, "a": "x" if n % 10 < 7 else n} for n in range(100)])
    assert (found.spec.type, found.spec.optional) == ("string", False)
    assert dict(found.types) == {"string": 70, "int": 30}
    assert "string in 70 %, int in 30 %" in found.note
    assert "numbers as text; json would keep each as it is" in found.note


@pytest.mark.parametrize(
    ("values", "type_", "words"),
    [
        ([True, False], "boolean", ""),
        ([1, 2.5, Int64(3)], "number", ""),
        ([NOW, DatetimeMS(2**50)], "number", "milliseconds since 1970"),
        ([NOW, 5], "number", "Mixed: date in 50 %, int in 50 %"),
        ([1, 2**60], "string", "1 of 2 numbers are beyond"),
        ([Decimal128("19.99")], "number", ""),
        ([Decimal128("0.1234567890123456789")], "string", "more digits"),
        ([Decimal128("1E+400")], "string", "beyond"),
        ([ObjectId(), "x"], "string", "A string column takes them all."),
        ([Binary(uuid.uuid4().bytes, 4)], "string", ""),
        (["x", True, NOW], "string", '"true" and "false" and dates in ISO 8601'),
        ([1, True], "json", "json alone keeps each"),
        (["x", {"b": 1}], "json", "Mixed: string in 50 %, document in 50 %"),
        ([[1]], "json", ""),
        ([Timestamp(1, 1)], "json", ""),
        ([Regex("x")], "json", ""),
        ([DBRef("c", 1)], "json", ""),
        ([{"👍": 1}], "json", ""),
        ([{}], "json", ""),
        ([*([1] * 95), *(["x"] * 5)], "string", "If the others are mistakes, a number column lists them"),
        ([None], "string", "a guess"),
    ],
)
def test_the_type_takes_all_that_was_seen(values: list[object], type_: str, words: str) -> None:
    documents = [{"_id": n, "a": value} for n, value in enumerate(values)]
    found = proposed(documents)
    assert found.spec.type == type_
    assert words in found.note
    assert bool(words) == bool(found.note)
    assert not faults(infer(documents), documents)


def test_what_is_missing_null_or_no_number_makes_a_column_optional() -> None:
    assert not proposed([{"_id": 1, "a": 1}]).spec.optional
    for other in ({"_id": 2}, {"_id": 2, "a": None}, {"_id": 2, "a": float("nan")}, Salvaged({"_id": 2}, ("a",))):
        found = proposed([{"_id": 1, "a": 1}, other])
        assert (found.spec.type, found.spec.optional) == ("number", True)
    assert "NaN" in proposed([{"_id": 1, "a": float("nan")}]).note
    assert dict(proposed([{"_id": 1, "a": 1}, Salvaged({"_id": 2}, ("a",))]).types) == {"int": 1, "undecodable": 1}


@pytest.mark.parametrize(
    ("ids", "id_type", "type_"),
    [
        ([ObjectId()], "objectId", "string"),
        (["a"], "string", "string"),
        ([1, Int64(2)], "number", "number"),
        ([1, 2**60], "number", "string"),
        ([Binary(uuid.uuid4().bytes, 4)], "uuid", "string"),
        ([NOW], "date", "number"),
    ],
)
def test_the_key_shows_the_id(ids: list[object], id_type: str, type_: str) -> None:
    documents = [{"_id": one} for one in ids]
    proposal = infer(documents)
    assert (proposal.primary_key, proposal.id_type, proposal.columns[0].spec.type) == (("id",), id_type, type_)
    assert not proposal.notes
    assert not faults(proposal, documents)


def test_ids_of_several_types_are_told() -> None:
    proposal = infer([{"_id": "a"}, {"_id": "b"}, {"_id": 1}])
    assert proposal.id_type == "string"
    assert "string in 67 %, number in 33 %. Documents whose _id is no string" in proposal.notes[0]
    none = infer([{"_id": {"a": 1}}])
    assert "No _id is of a type that can be a key" in none.notes[0]
    assert (none.primary_key, none.columns[0].spec.type) == ((), "json")
    without = infer([{"a": 1}])
    assert (without.primary_key, without.notes) == (
        (),
        ("No document has an _id any more: keep it in the pipeline, since the key needs it.",),
    )


def test_names_fit_zero_and_differ() -> None:
    document = {"_id": 1, "id": 2, "Größe": 3, "1st": 4, "sqlite_x": 5, "a b": 6, "A_B": 7, "x" * 90: 8, "日": 9}
    names = [one.spec.name for one in infer([document]).columns]
    assert names == ["_id", "id", "Gro_e", "f_1st", "f_sqlite_x", "a_b", "A_B_2", "x" * 59, "_"]
    assert fitting_name(["address", "city"], ["ADDRESSCITY", "addresscity_2"]) == "addressCity_3"
    left_out = infer([{"_id": 1, "a.b": 1, "$c": 1, "": 1}])
    assert [one.spec.name for one in left_out.columns] == ["id"]
    assert "'a.b', '$c', ''" in left_out.notes[0]


def test_of_very_many_fields_those_are_shown_that_most_documents_have() -> None:
    documents = [{"often": n, "_id": n, **{f"f{n}_{m}": m for m in range(60)}} for n in range(3)]
    proposal = infer(documents)
    assert len(proposal.columns) == 100
    assert {"id", "often"} <= {one.spec.name for one in proposal.columns}
    assert "There are 182 fields" in proposal.notes[0]


def test_nothing_is_proposed_of_nothing() -> None:
    assert infer([]) == Proposal(0, (), (), "", None, ())


SCALARS: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=5),
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from([ObjectId(), Decimal128("1.5"), Decimal128("NaN"), Binary(b"x"), Timestamp(1, 1), Regex("a")]),
)
NAMES = st.sampled_from(["a", "A", "b", "b.c", "$d", "", "id", "Id", "_id_2", "1x", "日本", "__proto__"])
INNER: st.SearchStrategy[object] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)


@given(st.lists(st.dictionaries(NAMES, INNER, max_size=5), min_size=1, max_size=12))
def test_whatever_the_documents_the_proposal_compiles_and_takes_them_all(parts: list[dict[str, object]]) -> None:
    documents: list[dict[str, object]] = [{"_id": number, **part} for number, part in enumerate(parts)]
    proposal = infer(documents)
    assert proposal.primary_key
    assert not faults(proposal, documents)
    counted = [sum(one.types.values()) + one.missing for one in proposal.columns]
    assert counted == [len(documents)] * len(counted)
