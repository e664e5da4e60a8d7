"""Filters of other frameworks as filter expressions (docs/reference/filters.md).

What has no counterpart is refused, never left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import Filter

_MONGO = {
    f"${name}": name
    for name in ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists", "contains", "any", "all")
}  # fmt: skip
_OF_A_DOCUMENT = {"id", "content", "blob", "meta", "score", "embedding", "sparse_embedding"}
"""Fields of Haystack's documents, which are no metadata."""
T = TypeVar("T")
_MONGO_LOGIC = {"$and": "and", "$or": "or"}
_SIGNS = {
    "==": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "in": "in", "nin": "nin",
    "not in": "nin", "any": "any", "all": "all", "contains": "contains",
}  # fmt: skip
_COMPARATORS = {
    **{name: name for name in ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin")},
    "contain": "contains",
}


def both(*filters: Filter | None) -> Filter | None:
    """The filter that asks for all of these; None for none of them. An empty one stays, to be refused."""
    given = [each for each in filters if each is not None]
    return {"and": given} if len(given) > 1 else given[0] if given else None


def from_mongo(given: object) -> Filter | None:
    """A filter with the operators of MongoDB, {"year": {"$gte": 2020}}, as LangChain's vector stores take it.

    Raises InputError.
    """
    if not given:
        return None
    parts: list[Filter] = []
    for key, wanted in _mapping(given).items():
        if not isinstance(key, str):
            raise InputError(f"the filter has the key {quoted(key)}; expected a string")
        if key in _MONGO_LOGIC:
            inner = [_some(key, from_mongo(each)) for each in _several(key, wanted)]
            parts.append({_MONGO_LOGIC[key]: inner})
        elif key == "$not":
            parts.append({"not": _some(key, from_mongo(wanted))})
        elif key.startswith("$"):
            raise _unknown(key, [*_MONGO_LOGIC, "$not"])
        elif isinstance(wanted, Mapping):
            parts += [_mongo_condition(key, *each) for each in _some(key, wanted).items()]
        else:
            parts.append({key: {"eq": wanted}})
    return both(*parts)


def _mongo_condition(key: str, operator: str, value: Any) -> Filter:
    if operator == "$not":
        return {"not": from_mongo({key: value})}
    if operator == "$between":
        ends = _several(operator, value)
        if len(ends) != 2:
            raise InputError(
                f"$between in the filter is {quoted(value)}; expected the lowest and the highest"
            )
        return {key: {"gte": ends[0], "lte": ends[1]}}
    if operator not in _MONGO:
        raise _unknown(operator, [*_MONGO, "$not", "$between"])
    return {key: {_MONGO[operator]: value}}


def from_structured_query(given: Any) -> Filter | None:
    """LangChain's Comparison or Operation, as a query constructor makes them. Raises InputError."""
    if given is None:
        return None
    if hasattr(given, "comparator"):
        comparator = str(getattr(given.comparator, "value", given.comparator))
        if comparator not in _COMPARATORS:
            raise _unknown(comparator, _COMPARATORS)
        return {given.attribute: {_COMPARATORS[comparator]: _plain_date(given.value)}}
    operator = str(getattr(given.operator, "value", given.operator))
    return _joined(operator, [from_structured_query(each) for each in given.arguments])


def _plain_date(value: Any) -> Any:
    """A date as LangChain's parser has it, {"date": "2024-01-02", "type": "date"}, as its text."""
    return value["date"] if isinstance(value, Mapping) and "date" in value else value


def from_llama_index(given: Any) -> Filter | None:
    """LlamaIndex's MetadataFilters, however deep. Raises InputError."""
    if given is None:
        return None
    if hasattr(given, "filters"):
        if not given.filters:
            return None
        condition = str(getattr(given.condition, "value", given.condition) or "and").lower()
        parts = [from_llama_index(each) for each in given.filters]
        if condition == "not":  # here it means none of them
            return {"not": _joined("or", parts)}
        return _joined(condition, parts)
    if not hasattr(given, "operator"):
        raise InputError(
            f"found the filter {quoted(given)}; expected MetadataFilters of LlamaIndex"
        )
    operator = str(getattr(given.operator, "value", given.operator))
    if operator == "is_empty":
        return {given.key: {"in": [None, ""]}}  # a missing key is as null
    if operator not in _SIGNS:
        raise _unknown(operator, [*_SIGNS, "is_empty"])
    return {given.key: {_SIGNS[operator]: given.value}}


def from_haystack(given: object) -> Filter | None:
    """Haystack's filters: {"field": "meta.year", "operator": ">=", "value": 2020}, and their AND, OR and NOT.

    Raises InputError.
    """
    if not given:
        return None
    found = _mapping(given)
    if "conditions" in found:
        parts = [from_haystack(each) for each in _several("conditions", found["conditions"])]
        return _joined(str(found.get("operator", "")).lower(), parts)
    missing = [name for name in ("field", "operator", "value") if name not in found]
    if missing:
        raise InputError(
            f"found the filter {quoted(given)} without {missing[0]!r}; expected field, operator and value, "
            "or operator and conditions"
        )
    operator = str(found["operator"])
    if operator not in _SIGNS:
        raise _unknown(operator, _SIGNS)
    field = str(found["field"])
    if field in _OF_A_DOCUMENT:
        raise InputError(
            f"the filter has the field {quoted(field)} of a document; expected one of its meta, "
            "such as 'meta.lang'"
        )
    return {field.removeprefix("meta."): {_SIGNS[operator]: found["value"]}}


def _joined(operator: str, parts: Sequence[Filter | None]) -> Filter | None:
    """Of nothing, `and` asks for nothing; `or` and `not` would let nothing pass, and are refused."""
    if operator == "and":
        return both(*parts)
    if operator not in ("or", "not"):
        raise _unknown(operator, ["and", "or", "not"])
    given = [_some(operator, each) for each in _some(operator, parts)]
    return {"or": given} if operator == "or" else {"not": both(*given)}


def _some(name: str, given: T | None) -> T:
    """What is in a part of a filter. Raises InputError for nothing, which would let everything pass."""
    if not given:
        raise InputError(
            f"{name!r} in the filter has an empty condition; expected one or more, or no filter"
        )
    return given


def _mapping(given: object) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(f"found the filter {quoted(given)}; expected a mapping")
    return given


def _several(name: str, given: object) -> list[Any]:
    if not isinstance(given, list | tuple):
        raise InputError(f"{name} in the filter is {quoted(given)}; expected a list")
    return list(given)


def _unknown(operator: str, known: Any) -> InputError:
    return InputError(
        f"the filter has the operator {quoted(operator)}, which filter expressions lack; expected one of "
        f"{', '.join(known)}"
    )
