"""Filters of frameworks let pass what each framework itself lets pass."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rag_flywheel.errors import InputError
from rag_flywheel.integrations.filters import (
    from_haystack,
    from_llama_index,
    from_mongo,
    from_structured_query,
)
from rag_flywheel.records import Filter
from rag_flywheel.store.filters import passes, plain_filter

numbers = st.integers(-2, 2)
lists = st.lists(numbers, min_size=1, max_size=3)
keys = st.sampled_from(["x", "y"])
metadata = st.fixed_dictionaries({}, optional={"x": numbers, "y": numbers, "tags": lists})


def lets_pass(wanted: Filter | None, values: dict[str, Any]) -> bool:
    return wanted is None or passes(plain_filter(wanted), values)


# --- LlamaIndex ------------------------------------------------------------


def llama_condition(key: str, operator: str, value: Any) -> Any:
    types = pytest.importorskip(
        "llama_index.core.vector_stores.types", reason="needs llama-index-core"
    )
    return types.MetadataFilter(key=key, value=value, operator=operator)


llama_conditions = st.one_of(
    st.tuples(keys, st.sampled_from(["==", "!=", ">", ">=", "<", "<="]), numbers),
    st.tuples(keys, st.sampled_from(["in", "nin"]), lists),
    st.tuples(st.just("tags"), st.just("contains"), numbers),
    st.tuples(st.just("tags"), st.sampled_from(["any", "all"]), lists),
    st.tuples(st.sampled_from(["x", "y"]), st.just("is_empty"), st.none()),
)


@given(
    st.lists(llama_conditions, max_size=4), st.sampled_from(["and", "or", "not", None]), metadata
)
def test_llama_index(given_: list[Any], condition: str | None, values: dict[str, Any]) -> None:
    types = pytest.importorskip(
        "llama_index.core.vector_stores.types", reason="needs llama-index-core"
    )
    from llama_index.core.vector_stores.utils import build_metadata_filter_fn

    filters = types.MetadataFilters(
        filters=[llama_condition(*each) for each in given_], condition=condition
    )
    theirs = build_metadata_filter_fn(lambda _: values, filters)("any")
    assert lets_pass(from_llama_index(filters), values) == theirs


# --- Haystack ------------------------------------------------------------

haystack_conditions = st.one_of(
    st.fixed_dictionaries(
        {
            "field": keys.map("meta.{}".format),
            "operator": st.sampled_from(["==", "!=", ">", ">=", "<", "<="]),
            "value": numbers,
        }
    ),
    st.fixed_dictionaries(
        {
            "field": keys.map("meta.{}".format),
            "operator": st.sampled_from(["in", "not in"]),
            "value": lists,
        }
    ),
)
haystack_filters = st.recursive(
    haystack_conditions,
    lambda inner: st.fixed_dictionaries(
        {
            "operator": st.sampled_from(["AND", "OR", "NOT"]),
            "conditions": st.lists(inner, max_size=3),
        }
    ),
    max_leaves=6,
)


@given(haystack_filters, metadata)
def test_haystack(wanted: dict[str, Any], values: dict[str, Any]) -> None:
    """An empty OR or NOT, which lets nothing pass there, is refused."""
    haystack = pytest.importorskip("haystack", reason="needs haystack-ai")
    from haystack.utils.filters import document_matches_filter

    try:
        found = from_haystack(wanted)
    except InputError as error:
        assert "empty condition" in str(error)
        assume(False)
    document = haystack.Document(content="text", meta=values)
    assert lets_pass(found, values) == document_matches_filter(wanted, document)


# --- LangChain ------------------------------------------------------------

PLAIN = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "gt": lambda a, b: a is not None and a > b,
    "gte": lambda a, b: a is not None and a >= b,
    "lt": lambda a, b: a is not None and a < b,
    "lte": lambda a, b: a is not None and a <= b,
    "in": lambda a, b: a in b,
    "nin": lambda a, b: a not in b,
    "contain": lambda a, b: a is not None and b in a,
}
structured_conditions = st.one_of(
    st.tuples(keys, st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]), numbers),
    st.tuples(keys, st.sampled_from(["in", "nin"]), lists),
    st.tuples(st.just("tags"), st.just("contain"), numbers),
)
structured_queries = st.recursive(
    structured_conditions,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("not"), st.lists(inner, min_size=1, max_size=1)),
    ),
    max_leaves=6,
)


def structured(given_: Any) -> Any:
    query = pytest.importorskip("langchain_core.structured_query", reason="needs langchain-core")
    if len(given_) == 3:
        key, comparator, value = given_
        return query.Comparison(attribute=key, comparator=query.Comparator(comparator), value=value)
    operator, inner = given_
    arguments = [structured(each) for each in inner]
    return query.Operation(operator=query.Operator(operator), arguments=arguments)


def plainly(given_: Any, values: dict[str, Any]) -> bool:
    if len(given_) == 3:
        key, comparator, value = given_
        return bool(PLAIN[comparator](values.get(key), value))
    operator, inner = given_
    held = [plainly(each, values) for each in inner]
    return {"and": all(held), "or": any(held), "not": not all(held)}[operator]


@given(structured_queries, metadata)
def test_langchain(wanted: Any, values: dict[str, Any]) -> None:
    assert lets_pass(from_structured_query(structured(wanted)), values) == plainly(wanted, values)


# --- what would let everything pass, or nothing ------------------------------------------------------------

EN = {"field": "meta.lang", "operator": "==", "value": "en"}


@pytest.mark.parametrize(
    "bad",
    [{"lang": {}}, {"$or": [{"lang": {}}, {"a": 1}]}, {"$and": [{}]}, {"$not": {}}, {"a": {"$not": {}}},
     {1: 2}, {"a": {"$between": [1]}}, {"a": {"$between": [1, 2, 3]}}],
)  # fmt: skip
def test_empty_and_malformed_parts_of_mongo_filters_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match=r"in the filter|the filter has the key"):
        from_mongo(bad)


@pytest.mark.parametrize(
    "bad",
    [{"operator": "OR", "conditions": []}, {"operator": "NOT", "conditions": []},
     {"operator": "OR", "conditions": [{}, EN]}, {"operator": "NOT", "conditions": [None]},
     {**EN, "field": "id"}, {**EN, "field": "content"}],
)  # fmt: skip
def test_parts_of_haystack_filters_that_say_nothing_here_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="filter"):
        from_haystack(bad)


def test_an_empty_text_is_empty_to_llama_index() -> None:
    wanted = from_llama_index(llama_condition("x", "is_empty", None))
    assert lets_pass(wanted, {"x": ""})
    assert lets_pass(wanted, {"x": None})
    assert not lets_pass(wanted, {"x": "a"})


@pytest.mark.parametrize("bad", [{"lang": "en"}, "lang", 3])
def test_what_is_no_filter_of_llama_index_is_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="expected MetadataFilters"):
        from_llama_index(bad)
