"""Hypothesis strategies for specifications that the compiler takes."""

from __future__ import annotations

from hypothesis import strategies as st

from changesource.mapping.spec import ColumnSpec, Json, Specification, TableSpec

WORDS = st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
PATHS = st.lists(WORDS, min_size=1, max_size=3).map(".".join)
SCALARS: st.SearchStrategy[Json] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.just({"$oid": "64b7f0a1c2d3e4f5a6b7c8d9"}),
    st.just({"$date": "2024-05-01T08:00:00Z"}),
    st.just({"$numberDecimal": "1.50"}),
)
VALUES: st.SearchStrategy[Json] = SCALARS | st.dictionaries(WORDS, SCALARS, min_size=2, max_size=3)
CONDITIONS: st.SearchStrategy[Json] = st.one_of(
    VALUES,
    st.builds(lambda value: {"$ne": value}, VALUES),
    st.builds(lambda values: {"$in": values}, st.lists(VALUES, max_size=3)),
    st.builds(lambda flag: {"$exists": flag}, st.booleans()),
)
FLAT_FILTERS = st.dictionaries(PATHS, CONDITIONS, max_size=3)
FILTERS = FLAT_FILTERS | st.builds(lambda parts: {"$or": parts}, st.lists(FLAT_FILTERS, min_size=1, max_size=2))


EXPRESSIONS: st.SearchStrategy[Json] = st.one_of(
    PATHS.map(lambda path: f"${path}"),
    PATHS.map(lambda path: {"$toUpper": f"${path}"}),
    st.builds(lambda path, value: {"$ifNull": [f"${path}", {"$literal": value}]}, PATHS, SCALARS),
    st.lists(TEXT.filter(lambda text: not text.startswith("$")), max_size=2).map(list),
)
STAGES: st.SearchStrategy[Json] = st.one_of(
    FLAT_FILTERS.map(lambda filter: {"$match": filter}),
    PATHS.map(lambda path: {"$unwind": {"path": f"${path}", "preserveNullAndEmptyArrays": True}}),
    st.builds(lambda name, expression: {"$set": {f"x{name}": expression}}, WORDS, EXPRESSIONS),
)


@st.composite
def tables(draw: st.DrawFn, name: str) -> TableSpec:
    """One table: a key from ``_id`` and up to four columns more."""
    more = draw(st.lists(WORDS, max_size=4, unique=True))
    columns = [
        ColumnSpec(
            column, draw(st.sampled_from(["string", "number", "boolean", "json"])), draw(PATHS), draw(st.booleans())
        )
        for column in more
        if column != "id"
    ]
    computed = draw(st.lists(EXPRESSIONS, max_size=2))
    columns += (ColumnSpec(f"x_{n}", "json", "", True, expression) for n, expression in enumerate(computed))
    columns.insert(draw(st.integers(0, len(columns))), ColumnSpec("id", "string", "_id"))
    return TableSpec(
        name=name,
        collection=draw(WORDS),
        columns=tuple(columns),
        primary_key=("id",),
        filter=draw(FILTERS),
        id_type=draw(st.sampled_from(["", "objectId", "string", "uuid"])),
        error_policy=draw(st.sampled_from(["coerce", "skip", "stop"])),
        large_integers=draw(st.sampled_from(["reject", "round"])),
        pipeline=tuple(draw(st.lists(STAGES, max_size=2))),
        enabled=draw(st.booleans()),
        description=draw(TEXT),
    )


@st.composite
def specifications(draw: st.DrawFn) -> Specification:
    """Up to four tables, in any order, and publications of them."""
    names = draw(st.lists(WORDS, max_size=4, unique=True))
    members = st.lists(st.sampled_from(names), unique=True) if names else st.just([])
    publications = draw(st.dictionaries(TEXT.filter(bool), members.map(tuple), max_size=3))
    return Specification(tuple(draw(tables(name)) for name in names), publications)
