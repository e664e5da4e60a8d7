"""Filters with the operators of MongoDB become filter expressions that mean the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.errors import InputError
from rag_flywheel.integrations.filters import both, from_mongo
from rag_flywheel.store.filters import passes, plain_filter

COMPARED = {
    "$eq": lambda a, b: a == b,
    "$ne": lambda a, b: a != b,
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
    "$in": lambda a, b: a in b,
    "$nin": lambda a, b: a not in b,
    "$between": lambda a, b: b[0] <= a <= b[1],
}
numbers = st.integers(-3, 3)
keys = st.sampled_from(["x", "y"])


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    key, operator = draw(keys), draw(st.sampled_from([*COMPARED, ""]))
    if operator == "":
        return {key: draw(numbers)}
    if operator in ("$in", "$nin"):
        return {key: {operator: draw(st.lists(numbers, max_size=3))}}
    if operator == "$between":
        return {key: {operator: [draw(numbers), draw(numbers)]}}
    return {key: {operator: draw(numbers)}}


filters = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=6,
)


def means(wanted: dict[str, Any], values: dict[str, int]) -> bool:
    """What MongoDB makes of it where every value is there."""
    for key, given_ in wanted.items():
        if key == "$and":
            held = all(means(each, values) for each in given_)
        elif key == "$or":
            held = any(means(each, values) for each in given_)
        elif key == "$not":
            held = not means(given_, values)
        elif isinstance(given_, dict):
            held = all(COMPARED[op](values[key], value) for op, value in given_.items())
        else:
            held = values[key] == given_
        if not held:
            return False
    return True


@given(filters, numbers, numbers)
def test_a_filter_lets_pass_what_mongodb_would(wanted: dict[str, Any], x: int, y: int) -> None:
    found = from_mongo(wanted)
    assert found is not None
    values = {"x": x, "y": y}
    assert passes(plain_filter(found), values) == means(wanted, values)


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_filter_is_none(nothing: Any) -> None:
    assert from_mongo(nothing) is None
    assert both(from_mongo(nothing), None) is None
    assert both({"a": 1}, from_mongo(nothing)) == {"a": 1}


def test_an_empty_filter_expression_is_kept_to_be_refused() -> None:
    with pytest.raises(InputError, match="expected"):
        plain_filter(both({}, None))
    with pytest.raises(InputError, match="expected"):
        plain_filter(both({"a": 1}, {}))


@pytest.mark.parametrize(
    "bad", [{"$nor": []}, {"a": {"$regex": "x"}}, {"$and": {"a": 1}}, [1], {"a": {"$between": 3}}]
)
def test_what_has_no_counterpart_is_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="filter"):
        from_mongo(bad)
