"""The difference of two specifications is told place by place, and there is one wherever they are written apart."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given

from changesource.mapping.difference import Difference, Part, difference, table_difference
from changesource.mapping.formats import write_specification
from changesource.mapping.spec import ColumnSpec, Specification, TableSpec
from tests.specifications import specifications

TABLE = TableSpec("a", "c", (ColumnSpec("id", "string", "_id"), ColumnSpec("n", "number", "n")), ("id",))


def test_each_place_that_differs_is_told() -> None:
    after = replace(
        TABLE,
        columns=(ColumnSpec("n", "string", "n"), TABLE.columns[0], ColumnSpec("b", "json", "b", optional=True)),
        filter={"x": 1},
    )
    assert table_difference(TABLE, after) == (
        Part("order of columns", "id, n", "n, id, b"),
        Part("columns.n.type", '"number"', '"string"'),
        Part("columns.b", "", '{"type": "json", "path": "b", "optional": true}'),
        Part("filter", "{}", '{"x": 1}'),
    )
    assert table_difference(TABLE, TABLE) == ()
    assert table_difference(TABLE, replace(TABLE, name="b")) == (Part("name", '"a"', '"b"'),)


def test_the_order_of_a_filters_keys_counts() -> None:
    one, other = replace(TABLE, filter={"a": 1, "b": 2}), replace(TABLE, filter={"b": 2, "a": 1})
    assert [part.place for part in table_difference(one, other)] == ["filter"]


def test_tables_and_publications_come_and_go() -> None:
    before = Specification((TABLE, replace(TABLE, name="gone")), {"p": ("a",), "old": ()})
    after = Specification((TABLE, replace(TABLE, name="new")), {"p": ("a", "new"), "fresh": ()})
    found = difference(before, after)
    assert [(one.kind, one.name, one.change) for one in found] == [
        ("table", "gone", "removed"),
        ("table", "new", "added"),
        ("publication", "fresh", "added"),
        ("publication", "old", "removed"),
        ("publication", "p", "changed"),
    ]
    assert Part("columns.id", "", '{"type": "string", "path": "_id", "optional": false}') in found[1].parts
    assert found[4] == Difference("publication", "p", "changed", (Part("", '["a"]', '["a", "new"]'),))


@given(specifications(), specifications())
def test_there_is_a_difference_just_where_the_exports_differ(one: Specification, other: Specification) -> None:
    written = [json.dumps(write_specification(spec)) for spec in (one, other)]
    assert bool(difference(one, other)) == (written[0] != written[1])
    assert difference(one, one) == ()
