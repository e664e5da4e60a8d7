"""Filters of other frameworks as filter expressions (docs/reference/filters.md).

What has no counterpart is refused, never left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import Filter

_MONGO = {
    f"${name}": name
    for name in ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists", "contains", "any", "all")
}  # fmt: skip
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
    """The filter that asks for all of these; None for none of them."""
    given = [each for each in filters if each]
    return {"and": given} if len(given) > 1 else given[0] if given else None


def from_mongo(given: object) -> Filter | None:
    """A filter with the operators of MongoDB, {"year": {"$gte": 2020}}, as LangChain's vector stores take it.

    Raises InputError.
    """
    if not given:
        return None
    parts: list[Filter] = []
    for key, wanted in _mapping(given).items():
        if key in _MONGO_LOGIC:
            parts.append({_MONGO_LOGIC[key]: [from_mongo(each) for each in _several(key, wanted)]})
        elif key == "$not":
            parts.append({"not": from_mongo(wanted)})
        elif key.startswith("$"):
            raise _unknown(key, [*_MONGO_LOGIC, "$not"])
        elif isinstance(wanted, Mapping):
            parts += [_mongo_condition(key, *each) for each in wanted.items()]
        else:
            parts.append({key: {"eq": wanted}})
    return both(*parts)


def _mongo_condition(key: str, operator: str, value: Any) -> Filter:
    if operator == "$not":
        return {"not": from_mongo({key: value})}
    if operator == "$between":
        low, high = _several(operator, value)
        return {key: {"gte": low, "lte": high}}
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
        condition = str(getattr(given.condition, "value", given.condition) or "and")
        return _joined(condition.lower(), [from_llama_index(each) for each in given.filters])
    operator = str(getattr(given.operator, "value", given.operator))
    if operator == "is_empty":
        return {"or": [{given.key: {"exists": False}}, {given.key: {"eq": None}}]}
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
    return {str(found["field"]).removeprefix("meta."): {_SIGNS[operator]: found["value"]}}


def _joined(operator: str, parts: Sequence[Filter | None]) -> Filter | None:
    given = [each for each in parts if each]
    if operator == "not":
        return {"not": both(*given)} if given else None
    if operator not in ("and", "or"):
        raise _unknown(operator, ["and", "or", "not"])
    return {operator: given} if given else None


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
