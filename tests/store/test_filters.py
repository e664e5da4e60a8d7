"""Filter expressions against the same language in plain Python, and what they refuse."""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.checks import MOST_DEPTH, MOST_KEY_CHARS, MOST_VALUES, plain_metadata
from rag_flywheel.errors import CorruptFileError, InputError
from rag_flywheel.privacy.ids import hashed
from rag_flywheel.records import Passage, Pids
from rag_flywheel.store import passages
from rag_flywheel.store.database import Database
from rag_flywheel.store.filters import (
    MOST_CONDITIONS,
    OPERATORS,
    demanded,
    keys_of,
    passes,
    plain_filter,
)
from rag_flywheel.store.metadata_columns import MetadataColumns, metadata_keys
from rag_flywheel.store.migrations import migrate
from rag_flywheel.store.place import open_database
from thorough import thorough

Row = Mapping[str, Any]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    made = open_database(tmp_path_factory.mktemp("filters"))
    migrate(made, hashed)
    yield made
    made.close()


def matching_pids(conn: sqlite3.Connection, where: Mapping[str, object]) -> Pids:
    return MetadataColumns().matching(conn, plain_filter(where))


class _UndoneError(Exception):
    pass


def matching(database: Database, rows: list[Row], where: Mapping[str, object]) -> list[int]:
    """Which of these rows of metadata pass, by their positions; nothing stays in the database."""
    found: list[int] = []
    try:
        with database.transaction(durable=False) as conn:
            pids = [
                passages.insert(
                    conn, Passage(f"p{i}", "text", "", plain_metadata("", row)), seq=1, lineage=None
                )
                for i, row in enumerate(rows)
            ]
            found = [pids.index(p) for p in matching_pids(conn, where).tolist()]
            raise _UndoneError
    except _UndoneError:
        return found


# ---- The same language in plain Python ----------------------------------------------------------

NOTHING = object()


def as_written(value: Any) -> Any:
    """What an application gave, as the value that JSON keeps of it."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else value


def look_up(row: Row, key: str) -> Any:
    if key in row:
        return row[key]
    words = key.split(".")
    for n in range(len(words) - 1, 0, -1):
        inner = row.get(".".join(words[:n]))
        if isinstance(inner, dict):
            found = look_up(inner, ".".join(words[n:]))
            if found is not NOTHING:
                return found
    return NOTHING


def kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def same(a: Any, b: Any) -> bool:
    return kind(a) == kind(b) and kind(a) not in ("list", "dict") and a == b


def moment(value: Any) -> datetime | None:
    if not isinstance(value, str) or value[4:5] != "-" or value[7:8] != "-":
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def in_order(value: Any, operator: str, wanted: Any) -> bool:
    if kind(value) != kind(wanted) or kind(value) in ("null", "list", "dict"):
        return False
    if moment(wanted) is not None:
        value, wanted = moment(value), moment(wanted)
        if value is None:
            return False
    return {
        "gt": value > wanted,
        "gte": value >= wanted,
        "lt": value < wanted,
        "lte": value <= wanted,
    }[operator]


def holds(value: Any, operator: str, wanted: Any) -> bool:
    if operator == "exists":
        return (value is not NOTHING) == wanted
    value = None if value is NOTHING else value
    if isinstance(wanted, list | tuple | set):
        wanted = [as_written(each) for each in wanted]
    wanted = as_written(wanted)
    if operator in ("eq", "ne"):
        return same(value, wanted) == (operator == "eq")
    if operator in ("in", "nin"):
        return any(same(value, each) for each in wanted) == (operator == "in")
    if operator == "prefix":
        return isinstance(value, str) and value.startswith(wanted)
    if operator in ("contains", "any", "all"):
        if not isinstance(value, list):
            return False
        has = [
            any(same(v, w) for v in value) for w in ([wanted] if operator == "contains" else wanted)
        ]
        return all(has) if operator == "all" else any(has)
    return in_order(value, operator, wanted)


def plainly_passes(row: Row, where: Mapping[str, Any]) -> bool:
    for key, wanted in where.items():
        if key == "not":
            ok = not plainly_passes(row, wanted)
        elif key in ("and", "or"):
            every = [plainly_passes(row, each) for each in wanted]
            ok = all(every) if key == "and" else any(every)
        else:
            tests = wanted if isinstance(wanted, dict) else {"eq": wanted}
            ok = all(holds(look_up(row, key), op, value) for op, value in tests.items())
        if not ok:
            return False
    return True


names = ["lang", "a", "b", "a.b", "a.b.c", "b.c", "a b", "a'b", 'say "x"', "ключ", "🚀", "$.x", "[0]",
         "%s?:1", "\\", "a\nb", ".", "a."]  # fmt: skip
keys = st.sampled_from(names)
moments = st.sampled_from([
    date(2031, 2, 3), datetime(2031, 2, 3), datetime(2031, 2, 3, 4, 5, 6, 789),
    datetime(2031, 2, 3, 1, tzinfo=timezone(timedelta(hours=2))), datetime(2031, 2, 2, 23, tzinfo=UTC),
    "2031-02-03", "2031-02-03T01:00:00+02:00", "2031-02-02T23:00Z", "2031-02", "2031-02-30", "2031-1-1",
    "2031-02-03 04:05:06.7", "20310203",
])  # fmt: skip
numbers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(
        [0.5, 1.0, -2.5, -0.0, 1e300, 1e22, 0.1, np.float32(0.1), np.int64(2), np.uint8(1)]
    ),
    st.sampled_from([2**53, 2**53 + 1, float(2**53), -(2**62), 2**63 - 1, 10**15, 1e15, 1e16]),
)
words = st.sampled_from(["", "1", "1.0", "en", "en-GB", "de", "ß", "ss", "true", "'", "%", '"', "\\", "🚀",
                         "é", "é", "null", "[]"])  # fmt: skip
scalars = st.one_of(st.none(), st.booleans(), st.just(np.True_), numbers, words, moments)
lists = st.lists(scalars, max_size=4)
metadata = st.dictionaries(
    keys,
    st.recursive(
        st.one_of(scalars, lists),
        lambda inner: st.dictionaries(
            st.sampled_from(["a", "b", "c", "b.c", "x"]), inner, max_size=3
        ),
        max_leaves=6,
    ),
    max_size=5,
)
tests_of_a_key = st.dictionaries(
    st.sampled_from(OPERATORS), st.just(None), min_size=1, max_size=2
).flatmap(lambda chosen: st.fixed_dictionaries({each: operands(each) for each in chosen}))


def operands(operator: str) -> st.SearchStrategy[Any]:
    if operator == "exists":
        return st.booleans()
    if operator == "prefix":
        return words.filter(bool)
    if operator in ("in", "nin", "any"):
        return st.one_of(lists, lists.map(tuple))
    return lists.filter(bool) if operator == "all" else scalars


conditions = st.dictionaries(keys, st.one_of(scalars, tests_of_a_key), min_size=1, max_size=3)
filters = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.builds(lambda a, b: {**a, **b}, conditions, inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"or": some}),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"and": some}),
        inner.map(lambda one: {"not": one}),
    ),
    max_leaves=5,
)


@thorough(10_000, few=150)
@given(rows=st.lists(metadata, max_size=5), where=filters)
def test_filters_equal_plain_python(
    database: Database, rows: list[Row], where: dict[str, object]
) -> None:
    stored = [json.loads(json.dumps(plain_metadata("", row))) for row in rows]
    expected = [i for i, row in enumerate(stored) if plainly_passes(row, where)]
    assert matching(database, rows, where) == expected
    assert [i for i, row in enumerate(stored) if passes(where, row)] == expected
    again = json.loads(json.dumps(plain_filter(where)))  # as it is recorded
    assert matching(database, rows, again) == expected


@thorough(1_000, few=50)
@given(row=metadata, where=filters)
def test_not_is_the_opposite(row: Row, where: dict[str, object]) -> None:
    plain = plain_metadata("", row)
    assert passes({"not": where}, plain) != passes(where, plain)


# ---- Tables -------------------------------------------------------------------------------------

ROWS: list[Row] = [
    {"x": 1},
    {"x": 1.0},
    {"x": True},
    {"x": "1"},
    {"x": None},
    {},
    {"x": 2.5},
    {"x": "b"},
    {"x": False},
    {"x": ["b", 1]},
    {"x": []},
    {"x": {"y": "b"}},
]


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (1, [0, 1]),
        (1.0, [0, 1]),
        (True, [2]),
        (np.bool_(True), [2]),
        ("1", [3]),
        (0, []),
        (False, [8]),
        (None, [4, 5]),
        ({"eq": "b"}, [7]),
        ({"ne": 1}, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ({"ne": None}, [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]),
        ({"in": []}, []),
        ({"in": [1, "b"]}, [0, 1, 7]),
        ({"in": ("1",)}, [3]),
        ({"in": {2.5}}, [6]),
        ({"in": np.array([2.5, 1])}, [0, 1, 6]),
        ({"in": [None, "b"]}, [4, 5, 7]),
        ({"in": [False]}, [8]),
        ({"nin": [1, "b"]}, [2, 3, 4, 5, 6, 8, 9, 10, 11]),
        ({"nin": [None]}, [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]),
        ({"nin": []}, list(range(12))),
        ({"gt": 1}, [6]),
        ({"gte": 1}, [0, 1, 6]),
        ({"lt": 3}, [0, 1, 6]),
        ({"gte": False}, [2, 8]),
        ({"gte": "1"}, [3, 7]),
        ({"lt": "b"}, [3]),
        ({"gt": None}, []),
        ({"gte": 1, "lt": 2}, [0, 1]),
        ({"gte": 1, "ne": 2.5}, [0, 1]),
        ({"exists": True}, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]),
        ({"exists": False}, [5]),
        ({"exists": True, "eq": None}, [4]),
        ({"contains": "b"}, [9]),
        ({"contains": True}, []),
        ({"any": ["c", 1]}, [9]),
        ({"any": []}, []),
        ({"all": ["b", 1]}, [9]),
        ({"all": ["b", True]}, []),
        ({"prefix": "b"}, [7]),
    ],
)
def test_table_of_tests(database: Database, test: object, expected: list[int]) -> None:
    assert matching(database, ROWS, {"x": test}) == expected


def test_numbers_beyond_two_to_the_53_are_compared_exactly(database: Database) -> None:
    big = 2**53
    rows: list[Row] = [{"n": big}, {"n": big + 1}, {"n": float(big)}, {"n": 2**63 - 1}]
    assert matching(database, rows, {"n": big}) == [0, 2]
    assert matching(database, rows, {"n": big + 1}) == [1]
    assert matching(database, rows, {"n": {"gt": float(big)}}) == [1, 3]
    assert matching(database, rows, {"n": {"in": [np.int64(2**63 - 1)]}}) == [3]


def test_the_longest_key_goes_before_the_nested_one(database: Database) -> None:
    rows: list[Row] = [
        {"a.b": 1, "a": {"b": 2}},
        {"a": {"b": 2}},
        {"a": {"b": {"c": 2}}, "a.b": {"d": 3}},
        {"a": {"b.c": 4, "b": {"c": 5}}},
        {"a": ["b"]},
        {"a": "b"},
    ]
    assert matching(database, rows, {"a.b": 1}) == [0]
    assert matching(database, rows, {"a.b": 2}) == [1]
    assert matching(database, rows, {"a.b.c": 2}) == [2]
    assert matching(database, rows, {"a.b.c": 4}) == [3]
    assert matching(database, rows, {"a.b": {"exists": False}}) == [4, 5]


def test_ranges_of_dates_are_of_moments(database: Database) -> None:
    rows: list[Row] = [
        {"at": "2031-02-03T01:30:00+02:00"},  # 23:30 of the day before in UTC
        {"at": "2031-02-03T00:30:00Z"},
        {"at": date(2031, 2, 3)},
        {"at": datetime(2031, 2, 3, 1, tzinfo=timezone(timedelta(hours=-5)))},
        {"at": "soon"},
        {"at": 2031},
        {"at": np.datetime64("2031-02-03T00:00:01")},
    ]
    day = date(2031, 2, 3)
    for start in (day, "2031-02-03", datetime(2031, 2, 3, tzinfo=UTC), np.datetime64("2031-02-03")):
        assert matching(database, rows, {"at": {"gte": start}}) == [1, 2, 3, 6]
        assert matching(database, rows, {"at": {"lt": start}}) == [0]
    assert matching(database, rows, {"at": day}) == [2]
    same_moment = datetime(2031, 2, 3, 6, tzinfo=UTC)
    assert matching(database, rows, {"at": same_moment}) == [3]  # both are written in UTC
    assert matching(database, rows, {"at": {"gte": "2031-02-03x"}}) == [4]  # text


def test_an_object_in_a_filter_is_no_nested_key() -> None:
    with pytest.raises(
        InputError, match=r"unknown operator 'city'.*for keys in an object: 'home.key'"
    ):
        plain_filter({"home": {"city": "Bonn"}})


@pytest.mark.parametrize(
    "key", [*names, "a/b", "?1", "--", "a;b", "\x7f", "\x01", "tab\there", "a\x00b"]
)
def test_any_key_that_add_takes_can_be_asked_for(database: Database, key: str) -> None:
    rows: list[Row] = [{key: "yes"}, {key: "no"}, {}, {"z": "yes", "Z": "yes"}]
    assert matching(database, rows, {key: "yes"}) == [0]
    assert matching(database, rows, {key: {"gte": "yes"}}) == [0]
    assert matching(database, rows, {key: {"exists": False}}) == [2, 3]


@pytest.mark.parametrize(
    "attack",
    [
        "x' OR '1'='1",
        "x'); DROP TABLE passages; --",
        "') OR 1=1 --",
        'x") IS 1 OR ("',
        "$.x') IS NOT NULL OR ('1",
        "lang' COLLATE NOCASE --",
        "?",
        ":name",
    ],
)
def test_keys_and_values_cannot_carry_sql(database: Database, attack: str) -> None:
    rows: list[Row] = [{"lang": "en"}, {attack: "en"}, {"lang": attack}, {"lang": [attack]}]
    assert matching(database, rows, {attack: "en"}) == [1]
    assert matching(database, rows, {"lang": attack}) == [2]
    assert matching(database, rows, {"lang": {"in": [attack, "en"]}}) == [0, 2]
    assert matching(database, rows, {"lang": {"ne": attack}}) == [0, 1, 3]
    assert matching(database, rows, {"lang": {"contains": attack}}) == [3]
    with database.reading() as conn:
        assert conn.execute("SELECT count(*) FROM passages").fetchone() == (0,)


# ---- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"team": {}},
        {"lang": "en", "team": {}},
        {"or": []},
        {"and": []},
        {"not": {}},
        {"or": [{"lang": "en"}, {}]},
        {"and": [{"not": {"or": [{}]}}]},
        {"roles": {"all": []}},
        {"lang": {"prefix": ""}},
    ],
)
def test_an_empty_condition_is_refused(where: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        plain_filter(where)


@pytest.mark.parametrize("where", ["lang=en", 3, [{"lang": "en"}], None, [], True])
def test_a_filter_is_a_mapping(where: object) -> None:
    with pytest.raises(InputError, match="expected a filter expression"):
        plain_filter(where)


@pytest.mark.parametrize(
    "where", [{"or": {"a": 1}}, {"and": "x"}, {"not": [{"a": 1}]}, {"or": [3]}]
)
def test_logic_takes_filter_expressions(where: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"expected a (list of )?filter expression"):
        plain_filter(where)


@pytest.mark.parametrize("key", ["", None, 3, ("a",), "\ud800"])
def test_keys_that_no_metadata_can_have_are_refused(key: Any) -> None:
    with pytest.raises(InputError, match="filter key"):
        plain_filter({key: 1})


@pytest.mark.parametrize(
    "operator", ["like", "=", "GTE", "", "$in", None, 1, "gt; --", "or", ("eq",)]
)
def test_unknown_operators_are_refused(operator: Any) -> None:
    with pytest.raises(
        InputError, match=r"filter 'x' has the unknown operator .*known: eq, ne, gt"
    ):
        plain_filter({"x": {operator: 1}})


@pytest.mark.parametrize(
    "value", [[1], (1,), {1}, b"en", object(), 1j, np.array([1]), {"a": 1}, [[]]]
)
def test_values_that_are_no_scalars_are_refused(value: object) -> None:
    for test in (value, {"gt": value}, {"in": ["en", value]}, {"contains": value}):
        with pytest.raises(InputError, match=r"filter 'x'.*(expected|known)"):
            plain_filter({"x": test})


@pytest.mark.parametrize("operator", ["in", "nin", "any", "all"])
@pytest.mark.parametrize("value", ["en", 3, None, {"a": 1}, np.array([[1]])])
def test_lists_of_values_are_lists(operator: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{operator!r}.* expected a list"):
        plain_filter({"x": {operator: value}})


@pytest.mark.parametrize("value", [1, "yes", None, 0])
def test_exists_takes_a_boolean(value: object) -> None:
    with pytest.raises(InputError, match="expected True or False"):
        plain_filter({"x": {"exists": value}})


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, 10**30, float("nan"), np.inf, "\ud800", np.datetime64("NaT", "s")],
)
def test_values_that_metadata_cannot_hold_are_refused(value: object) -> None:
    for test in (value, {"gte": value}, {"any": [value]}):
        with pytest.raises(InputError, match="filter 'x'"):
            plain_filter({"x": test})
    with pytest.raises(InputError, match="metadata 'x'"):
        plain_metadata("passage 'a'", {"x": value})


# ---- Hostile sizes ------------------------------------------------------------------------------


def deep(n: int, how: str) -> dict[str, Any]:
    where: dict[str, Any] = {"x": 1}
    for _ in range(n):
        where = {how: where if how == "not" else [where]}
    return where


@pytest.mark.parametrize("how", ["and", "or", "not"])
def test_the_depth_of_a_filter_is_limited(database: Database, how: str) -> None:
    found = matching(database, [{"x": 1}, {}], deep(MOST_DEPTH - 1, how))
    assert found == ([1] if how == "not" and MOST_DEPTH % 2 == 0 else [0])
    for n in (MOST_DEPTH, 100_000):
        with pytest.raises(InputError, match=f"more than {MOST_DEPTH} levels"):
            plain_filter(deep(n, how))


def test_a_filter_that_holds_itself_is_refused() -> None:
    endless: dict[str, Any] = {"x": 1}
    endless["not"] = endless
    with pytest.raises(InputError, match="levels"):
        plain_filter(endless)
    doubled: dict[str, Any] = {"x": 1}
    for _ in range(MOST_DEPTH - 2):  # 2^30 conditions in some 30 objects
        doubled = {"or": [doubled, doubled]}
    with pytest.raises(InputError, match=f"more than {MOST_CONDITIONS} conditions"):
        plain_filter(doubled)
    with pytest.raises(InputError, match=f"more than {MOST_CONDITIONS} conditions"):
        plain_filter({f"k{i}": 1 for i in range(MOST_CONDITIONS + 1)})


def test_many_keys_and_values_are_linear(database: Database) -> None:
    rows: list[Row] = [
        {f"k{i}": i for i in range(1000)},
        {"k0": 0},
        {"v": 9_999},
        {"v": [9_999, "x"]},
    ]
    began = time.process_time()
    assert matching(database, rows, {f"k{i}": i for i in range(1000)}) == [0]
    assert matching(database, rows, {"or": [{f"k{i}": i} for i in range(1000)]}) == [0, 1]
    assert matching(database, rows, {"v": {"in": list(range(10_000))}}) == [2]
    assert matching(database, rows, {"v": {"any": list(range(10_000))}}) == [3]
    assert matching(database, rows, {"v": {"all": list(range(10_000))}}) == []
    assert time.process_time() - began < 5.0
    with pytest.raises(InputError, match=f"more than {MOST_VALUES} values"):
        plain_filter({"v": {"nin": list(range(MOST_VALUES + 1))}})


def test_a_key_of_many_dots_is_quick() -> None:
    key = "a" + ".a" * (MOST_KEY_CHARS // 2 - 1)
    row: dict[str, Any] = {"a": {"a": {"a.a": {"b": 1}}}}
    began = time.process_time()
    assert not passes({key: 1}, row)
    assert passes({"a.a.a.a.b": 1}, row)
    assert not passes({"and": [{key: i} for i in range(300)], "x": 1}, row)
    assert time.process_time() - began < 5.0
    for where in ({key + ".a": 1}, {"not": {"x" * (MOST_KEY_CHARS + 1): 1}}):
        with pytest.raises(InputError, match=f"filter key has .* at most {MOST_KEY_CHARS}"):
            plain_filter(where)


# ---- Metadata that is stored --------------------------------------------------------------------


def test_metadata_is_kept_in_the_types_of_json() -> None:
    given: Row = {
        "n": np.int64(3),
        "share": np.float32(0.5),
        "ok": np.bool_(True),
        "tags": {"b", "a"},
        "both": ("x", 1, None, date(2031, 2, 3)),
        "at": datetime(2031, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        "local": datetime(2031, 2, 3, 4, 5),
        "day": np.datetime64("2031-02-03"),
        "row": np.array([1, 2]),
        "org": {"id": np.uint8(7)},
        "word": np.str_("x"),
    }
    plain = plain_metadata("", given)
    assert plain == {
        "n": 3,
        "share": 0.5,
        "ok": True,
        "tags": ["a", "b"],
        "both": ["x", 1, None, "2031-02-03"],
        "at": "2031-02-03T02:05:00+00:00",
        "local": "2031-02-03T04:05:00",
        "day": "2031-02-03",
        "row": [1, 2],
        "org": {"id": 7},
        "word": "x",
    }
    assert json.loads(json.dumps(plain)) == plain
    assert {type(v) for v in plain.values()} == {int, float, bool, str, list, dict}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1]], "metadata 'x': item 1 is list; expected a string"),
        ([{"a": 1}], "metadata 'x': item 1 is dict"),
        ({"y": [b"z"]}, "metadata 'x' 'y': item 1 is bytes"),
        ({"": 1}, "metadata 'x' key is ''"),
        ({3: 1}, "metadata 'x' key is 3"),
        (object(), "metadata 'x' is object"),
        (np.zeros((2, 2)), "metadata 'x' is ndarray"),
        (range(MOST_VALUES), "metadata 'x' is range"),
        (list(range(MOST_VALUES)), f"more than {MOST_VALUES} values"),
    ],
)
def test_other_metadata_is_refused(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plain_metadata("passage 'a'", {"x": value})


def test_the_depth_of_metadata_is_limited() -> None:
    def nested(n: int) -> dict[str, Any]:
        row: dict[str, Any] = {"x": 1}
        for _ in range(n - 1):
            row = {"a": row}
        return row

    assert passes({"a." * (MOST_DEPTH - 1) + "x": 1}, plain_metadata("", nested(MOST_DEPTH)))
    endless: dict[str, Any] = {}
    endless["a"] = endless
    for row in (nested(MOST_DEPTH + 1), nested(50_000), endless):
        with pytest.raises(InputError, match=f"more than {MOST_DEPTH} objects in one another"):
            plain_metadata("", row)


def test_keys_of_the_metadata_with_their_kinds(database: Database) -> None:
    with database.transaction(durable=False) as conn:
        for i, row in enumerate(
            [{"a": 1, "o": {"x.y": "z", "n": None}}, {"a": "x", "l": [1], "b": True}]
        ):
            passages.insert(conn, Passage(f"p{i}", "text", "", row), seq=1, lineage=None)
        found = metadata_keys(conn)
        conn.execute("DELETE FROM passages")
    assert found == {
        "a": {"number", "string"},
        "o": {"object"},
        "o.x.y": {"string"},
        "o.n": {"null"},
        "l": {"list"},
        "b": {"boolean"},
    }


def test_what_a_filter_demands_and_is_about() -> None:
    plain = plain_filter({
        "a": 1, "b": {"eq": "x", "ne": 2}, "and": [{"c": None}, {"d": {"gt": 1}}],
        "or": [{"e": 1}], "not": {"f": 1},
    })  # fmt: skip
    assert dict(demanded(plain)) == {"a": 1, "b": "x", "c": None}
    assert sorted(keys_of(plain)) == ["a", "b", "b", "c", "d", "e", "f"]


# ---- Which texts ---------------------------------------------------------------------------------


def test_texts_that_ended_and_texts_of_other_retrievers_do_not_match(tmp_path: Any) -> None:
    database = open_database(tmp_path)
    migrate(database, hashed)
    with database.transaction(durable=False) as conn:
        row = {"x": 1}
        old = passages.insert(conn, Passage("a", "old", "", row), seq=1, lineage=None)
        passages.end(conn, [old], 2)
        new = passages.insert(conn, Passage("a", "new", "", row), seq=2, lineage=None)
        passages.insert(conn, Passage("b", "own", "", row), seq=2, lineage=None, origin="rerank")
        assert matching_pids(conn, {"x": 1}).tolist() == [new]
    database.close()


@pytest.mark.parametrize(
    "damaged", ["{", "[1]", "", b"\xff", 3, '{"x": 1, "a":' * 60_000, '{"x": "\xff']
)
def test_damaged_metadata_is_named(tmp_path: Any, damaged: object) -> None:
    database = open_database(tmp_path)
    migrate(database, hashed)
    with database.transaction(durable=False) as conn:
        pid = passages.insert(conn, Passage("a", "old", "", {"x": 1}), seq=1, lineage=None)
        conn.execute("UPDATE passages SET metadata = ?", (damaged,))
        with pytest.raises(CorruptFileError, match=f"passages.metadata of row {pid} holds"):
            matching_pids(conn, {"x": {"gt": 0}})
    database.close()
