"""Metadata filters as SQL.

It knows the filter language and nothing else.
"""

import sqlite3
from collections.abc import Mapping

import numpy as np

from rag_flywheel.errors import InputError
from rag_flywheel.records import Filter, MetadataValue, Pids

_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "ne": "IS NOT"}


def matching_pids(conn: sqlite3.Connection, where: Filter) -> Pids:
    """Pids of the present texts whose metadata passes the filter. Raises InputError on a bad one."""
    conditions, values = filter_sql(where)
    rows = conn.execute(
        f"SELECT pid FROM passages WHERE ended IS NULL AND origin = 'index' AND {conditions}",
        values,
    )
    return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))


def filter_sql(where: Filter) -> tuple[str, list[MetadataValue]]:
    """A metadata filter as an SQL condition and its values.

    {"key": value} asks for equality (None: absent or null), {"key": {"in": [...]}} for one of
    several, {"key": {"gt"|"gte"|"lt"|"lte": value}} for a range (only values of the same kind,
    number or string, match), {"key": {"ne": value}} for anything else. All must hold.
    """
    conditions, values = ["1"], list[MetadataValue]()
    for key, wanted in where.items():
        field = f"json_extract(metadata, {_json_path(key)})"
        tests = wanted if isinstance(wanted, Mapping) else {"eq": wanted}
        for operator, value in tests.items():
            condition, bound = _condition(field, key, operator, value)
            conditions.append(condition)
            values += bound
    return " AND ".join(conditions), values


def _condition(
    field: str, key: str, operator: object, value: object
) -> tuple[str, list[MetadataValue]]:
    if operator == "eq":
        return f"{field} IS ?", [_scalar(key, value)]
    if operator == "in":
        if not isinstance(value, list | tuple | set | frozenset):
            raise InputError(f"filter {key!r}: 'in' got {value!r}; expected a list of values")
        options = [_scalar(key, option) for option in value]
        return f"{field} IN ({', '.join('?' * len(options))})", options
    if isinstance(operator, str) and operator in _OPERATORS:
        bound = _scalar(key, value)
        kind = "'text'" if isinstance(bound, str) else "'integer', 'real', 'true', 'false'"
        typed = f"json_type(metadata, {_json_path(key)}) IN ({kind})"
        test = f"{field} {_OPERATORS[operator]} ?"
        return (test if operator == "ne" else f"({typed} AND {test})"), [bound]
    known = ", ".join(["eq", "in", *sorted(_OPERATORS)])
    raise InputError(f"filter {key!r} has the unknown operator {operator!r}; known: {known}")


def _json_path(key: object) -> str:
    if not isinstance(key, str) or not key or '"' in key or "\x00" in key:
        raise InputError(
            f"filter key {key!r} cannot be used; expected a metadata key without quotes"
        )
    return "'$.\"" + key.replace("'", "''") + "\"'"


def _scalar(key: object, value: object) -> MetadataValue:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise InputError(
        f"filter {key!r} compares with {type(value).__name__}; "
        "expected a string, number, boolean or None"
    )
