"""Metadata filters in SQL against the same language in plain Python."""

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.errors import InputError
from rag_flywheel.privacy.ids import hashed
from rag_flywheel.records import MetadataValue, Passage
from rag_flywheel.store import passages
from rag_flywheel.store.database import Database
from rag_flywheel.store.filters import filter_sql, matching_pids
from rag_flywheel.store.migrations import migrate
from thorough import thorough


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    made = Database(tmp_path_factory.mktemp("filters") / "flywheel.db")
    migrate(made, hashed)
    yield made
    made.close()


class _UndoneError(Exception):
    pass


def matching(
    database: Database, rows: list[Mapping[str, MetadataValue]], where: Mapping[str, object]
) -> list[int]:
    """Which of these rows of metadata pass, by their positions; nothing stays in the database."""
    found: list[int] = []
    try:
        with database.transaction(durable=False) as conn:
            pids = [
                passages.insert(conn, Passage(f"p{i}", "text", "", row), seq=1, lineage=None)
                for i, row in enumerate(rows)
            ]
            found = [pids.index(p) for p in matching_pids(conn, where).tolist()]
            raise _UndoneError
    except _UndoneError:
        return found


def comparable(a: object, b: object) -> bool:
    """Whether < is defined between them: two strings, or two numbers (booleans are numbers)."""
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) and isinstance(b, str)
    return a is not None and b is not None


def test_one(value: Any, operator: str, wanted: Any) -> bool:
    if operator == "in":
        return any(value == option for option in wanted)
    if operator in ("eq", "ne"):
        return bool((value == wanted) == (operator == "eq"))
    if not comparable(value, wanted):
        return False
    tests = {
        "gt": value > wanted,
        "gte": value >= wanted,
        "lt": value < wanted,
        "lte": value <= wanted,
    }
    return bool(tests[operator])


test_one.__test__ = False  # type: ignore[attr-defined]


def passes(row: Mapping[str, MetadataValue], where: Mapping[str, object]) -> bool:
    return all(
        test_one(row.get(key), operator, value)
        for key, wanted in where.items()
        for operator, value in (wanted if isinstance(wanted, dict) else {"eq": wanted}).items()
    )


keys = st.sampled_from(["lang", "year", "a.b", "a b", "a'b", "ключ", "$.x", "[0]", "%s?:1"])
numbers = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.5, 1e300, 2**53, -(2**62)]))
values = st.one_of(
    st.none(), st.booleans(), numbers, st.sampled_from(["", "1", "en", "de", "ß", "true", "'", "%"])
)
metadata = st.dictionaries(keys, values, max_size=4)
tests_of_a_key = st.one_of(
    values,
    st.dictionaries(st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]), values, max_size=3),
    st.lists(values, max_size=4).map(lambda options: {"in": options}),
)
filters = st.dictionaries(keys, tests_of_a_key, min_size=1, max_size=2)


@thorough(500, few=100)
@given(rows=st.lists(metadata, max_size=12), where=filters)
def test_filters_equal_plain_python(
    database: Database, rows: list[Mapping[str, MetadataValue]], where: dict[str, object]
) -> None:
    expected = [i for i, row in enumerate(rows) if passes(row, where)]
    assert matching(database, rows, where) == expected


ROWS: list[Mapping[str, MetadataValue]] = [
    {"x": 1},
    {"x": 1.0},
    {"x": True},
    {"x": "1"},
    {"x": None},
    {},
    {"x": 2.5},
    {"x": "b"},
    {"x": False},
]


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (1, [0, 1, 2]),  # as in Python, 1 == 1.0 == True
        (1.0, [0, 1, 2]),
        (True, [0, 1, 2]),
        ("1", [3]),
        (0, [8]),
        (None, [4, 5]),
        ({"eq": "b"}, [7]),
        ({"ne": 1}, [3, 4, 5, 6, 7, 8]),
        ({"ne": None}, [0, 1, 2, 3, 6, 7, 8]),
        ({"in": []}, []),
        ({"in": [1, "b"]}, [0, 1, 2, 7]),
        ({"in": ("1",)}, [3]),
        ({"in": {2.5}}, [6]),
        ({"in": [None, "b"]}, [4, 5, 7]),
        ({"gt": 1}, [6]),
        ({"gte": 1}, [0, 1, 2, 6]),
        ({"lt": 1}, [8]),
        ({"lte": 1}, [0, 1, 2, 8]),
        ({"gte": "1"}, [3, 7]),
        ({"lt": "b"}, [3]),
        ({"gt": None}, []),
        ({"gte": 1, "lt": 2}, [0, 1, 2]),
        ({"gte": 1, "ne": True}, [6]),
        ({}, list(range(9))),
    ],
)
def test_table_of_tests(database: Database, test: object, expected: list[int]) -> None:
    assert matching(database, ROWS, {"x": test}) == expected


@pytest.mark.parametrize(
    "key",
    [
        "a.b",
        "a b",
        "a'b",
        "''",
        "ключ",
        "名前",
        "é",
        "$",
        "[0]",
        "a/b",
        "%s",
        "?1",
        "--",
        "a;b",
        "\x7f",
        "a\\b",
        "a\\",
        "\\u0041",
        "a\nb",
        "tab\there",
        "\x01",
    ],
)
def test_any_key_that_add_takes_can_be_asked_for(database: Database, key: str) -> None:
    rows: list[Mapping[str, MetadataValue]] = [
        {key: "yes"},
        {key: "no"},
        {},
        {"a": "yes", "A": "yes"},
    ]
    assert matching(database, rows, {key: "yes"}) == [0]
    assert matching(database, rows, {key: {"gte": "yes"}}) == [0]


@pytest.mark.parametrize(
    "attack",
    [
        "x' OR '1'='1",
        "x'); DROP TABLE passages; --",
        "') OR 1=1 --",
        "$.x') IS NOT NULL OR ('1",
        "lang' COLLATE NOCASE --",
        "?",
        ":name",
    ],
)
def test_keys_and_values_cannot_carry_sql(database: Database, attack: str) -> None:
    rows: list[Mapping[str, MetadataValue]] = [{"lang": "en"}, {attack: "en"}, {"lang": attack}]
    assert matching(database, rows, {attack: "en"}) == [1]
    assert matching(database, rows, {"lang": attack}) == [2]
    assert matching(database, rows, {"lang": {"in": [attack, "en"]}}) == [0, 2]
    assert matching(database, rows, {"lang": {"ne": attack}}) == [0, 1]
    with database.reading() as conn:
        assert conn.execute("SELECT count(*) FROM passages").fetchone() == (0,)


@pytest.mark.parametrize("key", ['x") IS 1 OR ("', '"', "", None, 3, ("a",), "a\x00b"])
def test_keys_that_no_metadata_can_have_are_refused(key: Any) -> None:
    with pytest.raises(InputError, match=r"filter key .* cannot be used"):
        filter_sql({key: 1})


@pytest.mark.parametrize("operator", ["like", "=", "GTE", "", "$in", None, 1, "gt; --"])
def test_unknown_operators_are_refused(operator: Any) -> None:
    with pytest.raises(
        InputError, match=r"filter 'x' has the unknown operator .*known: eq, in, gt"
    ):
        filter_sql({"x": {operator: 1}})


@pytest.mark.parametrize("value", [[1], (1,), {1}, b"en", object(), 1j])
def test_values_that_are_no_scalars_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="filter 'x' compares with"):
        filter_sql({"x": value})
    with pytest.raises(InputError, match="filter 'x' compares with"):
        filter_sql({"x": {"gt": value}})
    with pytest.raises(InputError, match="filter 'x' compares with"):
        filter_sql({"x": {"in": ["en", value]}})


@pytest.mark.parametrize("value", ["en", 3, None, {"a": 1}])
def test_in_without_a_list_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"'in' got .*expected a list"):
        filter_sql({"x": {"in": value}})


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30, float("nan"), "\ud800"])
def test_values_that_sqlite_cannot_hold_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="filter 'x'"):
        filter_sql({"x": value})


def test_texts_that_ended_and_texts_of_other_retrievers_do_not_match(tmp_path: Any) -> None:
    database = Database(tmp_path / "flywheel.db")
    migrate(database, hashed)
    with database.transaction(durable=False) as conn:
        row = {"x": 1}
        old = passages.insert(conn, Passage("a", "old", "", row), seq=1, lineage=None)
        passages.end(conn, [old], 2)
        new = passages.insert(conn, Passage("a", "new", "", row), seq=2, lineage=None)
        passages.insert(conn, Passage("b", "own", "", row), seq=2, lineage=None, origin="rerank")
        assert matching_pids(conn, {"x": 1}).tolist() == [new]
    database.close()


def test_the_condition_is_sql_of_its_own() -> None:
    condition, bound = filter_sql({"x": {"gt": 1}, "y": "b"})
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE TABLE t (metadata TEXT)")
    conn.execute("""INSERT INTO t VALUES ('{"x": 2, "y": "b"}'), ('{"x": 2}'), ('{"y": "b"}')""")
    assert conn.execute(f"SELECT rowid FROM t WHERE {condition}", bound).fetchall() == [(1,)]
    conn.close()
