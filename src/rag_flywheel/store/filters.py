"""Metadata filters as SQL.

It knows the filter language and nothing else.
"""

import sqlite3
from collections.abc import Mapping

import numpy as np

from rag_flywheel.checks import check_metadata_value, check_text
from rag_flywheel.errors import InputError
from rag_flywheel.records import Filter, MetadataValue, Pids

Test = tuple[str, list[MetadataValue]]
"""An SQL condition on the metadata, and the values it is bound to."""
_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "ne": "IS NOT"}


def matching_pids(conn: sqlite3.Connection, where: Filter) -> Pids:
    """Ascending pids of the present texts whose metadata passes the filter. Raises InputError."""
    test, values = filter_sql(where)
    rows = conn.execute(
        f"SELECT pid FROM passages WHERE ended IS NULL AND origin = 'index' AND {test}", values
    )
    return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))


def filter_sql(where: Filter) -> Test:
    """A metadata filter as an SQL condition and its values.

    {"key": value} asks for equality (None: absent or null), {"key": {"in": [...]}} for one of
    several, {"key": {"gt"|"gte"|"lt"|"lte": value}} for a range (only values of the same kind,
    number or string, match), {"key": {"ne": value}} for anything else. All must hold.
    """
    conditions, values = ["1"], list[MetadataValue]()
    if not isinstance(where, Mapping):
        raise InputError(f'where is {where!r}; expected a mapping such as {{"lang": "en"}}')
    for key, wanted in where.items():
        if not isinstance(key, str) or not key or '"' in key or "\x00" in key:
            raise InputError(
                f"filter key {key!r} cannot be used; expected a metadata key without quotes"
            )
        check_text("filter key", key)
        tests = wanted if isinstance(wanted, Mapping) else {"eq": wanted}
        for operator, value in tests.items():
            condition, bound = _condition(key, operator, value)
            conditions.append(condition)
            values += bound
    return " AND ".join(conditions), values


# json_each and not a JSON path: paths compare keys as they are written in JSON, escapes included
_FIELD = "(SELECT {} FROM json_each(metadata) WHERE key = ?)"


def _condition(key: str, operator: object, value: object) -> tuple[str, list[MetadataValue]]:
    field = _FIELD.format("value")
    if operator == "eq":
        return f"{field} IS ?", [key, _scalar(key, value)]
    if operator == "in":
        if not isinstance(value, list | tuple | set | frozenset):
            raise InputError(f"filter {key!r}: 'in' got {value!r}; expected a list of values")
        options = [_scalar(key, option) for option in value]
        test = f"{field} IN ({', '.join('?' * len(options))})"
        if None in options:  # absent counts as None, as it does in an equality
            return f"({test} OR {field} IS NULL)", [key, *options, key]
        return test, [key, *options]
    if isinstance(operator, str) and operator in _OPERATORS:
        bound = _scalar(key, value)
        if operator == "ne":
            return f"{field} IS NOT ?", [key, bound]
        kind = "'text'" if isinstance(bound, str) else "'integer', 'real', 'true', 'false'"
        typed = f"{_FIELD.format('type')} IN ({kind})"
        return f"({typed} AND {field} {_OPERATORS[operator]} ?)", [key, key, bound]
    known = ", ".join(["eq", "in", *sorted(_OPERATORS)])
    raise InputError(f"filter {key!r} has the unknown operator {operator!r}; known: {known}")


def _scalar(key: object, value: object) -> MetadataValue:
    if value is None or isinstance(value, str | int | float | bool):
        check_metadata_value(f"filter {key!r}", value)
        return value
    raise InputError(
        f"filter {key!r} compares with {type(value).__name__}; "
        "expected a string, number, boolean or None"
    )
