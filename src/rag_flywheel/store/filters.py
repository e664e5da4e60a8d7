"""Filter expressions on metadata: checks them, and tests values.

It knows the filter language and nothing else.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from operator import eq, is_, is_not, ne
from typing import Any

from msgspec import UNSET

from rag_flywheel.checks import (
    MOST_DEPTH,
    MOST_VALUES,
    as_python,
    check_key,
    check_text,
    is_list,
    plain_list,
    plain_scalar,
    value_at,
)
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import Filter, Scalar

PlainFilter = dict[str, Any]
"""A checked filter expression, in the types of JSON."""
Metadata = Mapping[str, Any]
"""The metadata of a passage, as it was read from JSON."""
Test = Callable[[Any], bool]
"""Tests the value at a key; UNSET, where there is none, passes as None does."""

MOST_CONDITIONS = 10_000
LOGIC = ("and", "or", "not")
_SCALAR = ("eq", "ne", "gt", "gte", "lt", "lte", "contains")
_LIST = ("in", "nin", "any", "all")
OPERATORS = (*_SCALAR, *_LIST, "exists", "prefix")
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)


def passes(where: Filter, metadata: Metadata) -> bool:
    """Whether metadata in the types of JSON passes a filter. Raises InputError."""
    return _passes(plain_filter(where), metadata)


def plain_filter(where: object) -> PlainFilter:
    """A filter expression in the types of JSON, which means the same. Raises InputError."""
    return _plain_filter(where, 1, _Left(iter(range(MOST_CONDITIONS)), iter(range(MOST_VALUES))))


@dataclass(frozen=True)
class _Left:
    """How many more conditions, and values in lists, a filter may have."""

    conditions: Iterator[int]
    values: Iterator[int]

    def take_condition(self) -> None:
        """Count one more condition. Raises InputError when none is left."""
        if next(self.conditions, None) is None:
            raise InputError(
                f"where has more than {MOST_CONDITIONS} conditions; expected at most {MOST_CONDITIONS}"
            )


def _plain_filter(where: object, depth: int, left: _Left) -> PlainFilter:
    if not isinstance(where, Mapping):
        raise InputError(
            f'where is {_short(where)}; expected a filter expression such as {{"lang": "en"}}'
        )
    if not where:
        raise InputError("where is {}, without any condition; expected one, or None for no filter")
    if depth > MOST_DEPTH:
        raise InputError(
            f"where has more than {MOST_DEPTH} levels of and, or and not; expected at most {MOST_DEPTH}"
        )
    plain: PlainFilter = {}
    for key, wanted in where.items():
        key = check_key("filter key", key)
        left.take_condition()
        if key == "not":
            plain[key] = _plain_filter(wanted, depth + 1, left)
        elif key in LOGIC:
            if not isinstance(wanted, list | tuple) or not wanted:
                raise InputError(
                    f"filter {quoted(key)} is {_short(wanted)}; expected a list of filter "
                    "expressions, not empty"
                )
            plain[key] = [_plain_filter(each, depth + 1, left) for each in wanted]
        elif isinstance(wanted, Mapping):
            plain[key] = _plain_tests(key, wanted, left)
        elif is_list(wanted):
            raise InputError(
                f'filter {quoted(key)} is {_short(wanted)}; expected a value, or {{"in": [...]}}, '
                '{"any": [...]} or {"all": [...]}'
            )
        else:
            plain[key] = plain_scalar(f"filter {quoted(key)}", wanted)
    return plain


def _plain_tests(key: str, tests: Mapping[Any, object], left: _Left) -> PlainFilter:
    """The operators of a key with what each compares with."""
    if not tests:
        raise InputError(
            f"filter {quoted(key)} has no condition; expected a value or an operator: {', '.join(OPERATORS)}"
        )
    plain: PlainFilter = {}
    for operator, value in tests.items():
        left.take_condition()
        name = f"filter {quoted(key)}: {quoted(operator)}"
        if operator in _SCALAR:
            plain[operator] = plain_scalar(name, value)
        elif operator in _LIST:
            plain[operator] = _options(name, operator, value, left)
        elif operator == "exists":
            if not isinstance(found := as_python(value), bool):
                raise InputError(f"{name} is {_short(value)}; expected True or False")
            plain[operator] = found
        elif operator == "prefix":
            plain[operator] = check_text(name, value)
            if not value:
                raise InputError(f"{name} is empty; expected how strings begin")
        else:
            raise InputError(
                f"filter {quoted(key)} has the unknown operator {_short(operator)}; known: "
                f"{', '.join(OPERATORS)}; for keys in an object: {quoted(key + '.key')}"
            )
    return plain


def _options(name: str, operator: str, value: object, left: _Left) -> list[Scalar]:
    if not is_list(value):
        raise InputError(f"{name} is {_short(value)}; expected a list of values")
    options = plain_list(name, value, left.values)
    if operator == "all" and not options:
        raise InputError(f"{name} has an empty list, which every list passes; expected a value")
    return options


def _short(value: object) -> str:
    if isinstance(value, list | tuple | dict) and value:
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)[:80]


def demanded(plain: PlainFilter) -> Iterator[tuple[str, Scalar]]:
    """The keys that a passage must equal a value at, with that value."""
    for key, wanted in plain.items():
        if key == "and":
            for each in wanted:
                yield from demanded(each)
        elif key not in LOGIC:
            if not isinstance(wanted, dict):
                yield key, wanted
            elif "eq" in wanted:
                yield key, wanted["eq"]


def keys_of(plain: PlainFilter) -> Iterator[str]:
    """Every key that a condition is about, once for each condition on it."""
    for key, wanted in plain.items():
        if key == "not":
            yield from keys_of(wanted)
        elif key in LOGIC:
            for each in wanted:
                yield from keys_of(each)
        else:
            yield from [key] * (len(wanted) if isinstance(wanted, dict) else 1)


def _passes(plain: PlainFilter, row: Metadata) -> bool:
    return all(_holds(key, wanted, row) for key, wanted in plain.items())


def _holds(key: str, wanted: Any, row: Metadata) -> bool:
    if key == "not":
        return not _passes(wanted, row)
    if key == "and":
        return all(_passes(each, row) for each in wanted)
    if key == "or":
        return any(_passes(each, row) for each in wanted)
    value = value_at(row, key)
    return all(value_test(*test)(value) for test in operators_of(wanted).items())


def operators_of(wanted: Any) -> Mapping[str, Any]:
    """The operators of a key in a checked filter, with what each compares with."""
    return wanted if isinstance(wanted, dict) else {"eq": wanted}


def _not(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: not test(value)


def value_test(operator: str, wanted: Any) -> Test:
    """What tests the value at a key; it is given UNSET where there is no value."""
    if operator == "exists":
        return lambda value: (value is not UNSET) is wanted
    if operator in ("eq", "ne"):
        return _equals(wanted, equal=operator == "eq")
    if operator in ("in", "nin"):
        test = _one_of(wanted)
        return test if operator == "in" else _not(test)
    if operator in ("contains", "any"):
        test = _one_of([wanted] if operator == "contains" else wanted)
        return lambda value: type(value) is list and any(map(test, value))
    if operator == "all":
        test = _one_of(wanted)
        every = {(type(each) is bool, each) for each in wanted}
        return lambda value: (
            type(value) is list
            and every <= {(type(each) is bool, each) for each in value if test(each)}
        )
    if operator == "prefix":
        return lambda value: type(value) is str and value.startswith(wanted)
    return _range(operator, wanted)


def _equals(wanted: Scalar, *, equal: bool) -> Test:
    if isinstance(wanted, str):
        return partial(eq if equal else ne, wanted)
    if isinstance(wanted, bool):
        return partial(is_ if equal else is_not, wanted)
    if wanted is None:
        return lambda value: (value is None or value is UNSET) is equal
    return lambda value: (value == wanted and type(value) is not bool) is equal


def _one_of(options: Sequence[Scalar]) -> Test:
    flags = {option for option in options if type(option) is bool}
    others: set[Any] = {option for option in options if type(option) is not bool}
    if None in others:
        others.add(UNSET)

    def test(value: Any) -> bool:
        kind = type(value)
        if kind is bool:
            return value in flags
        return kind is not list and kind is not dict and value in others

    return test


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def _range(operator: str, wanted: Scalar) -> Test:
    """Only values of the same kind match: dates, other strings, numbers, or booleans."""
    compare = _COMPARE[operator]
    if isinstance(wanted, str):
        wanted_moment = moment(wanted)
        if wanted_moment is None:
            return lambda value: type(value) is str and compare(value, wanted)

        def of_dates(value: Any) -> bool:
            at = moment(value) if type(value) is str else None
            return at is not None and compare(at, wanted_moment)

        return of_dates
    if wanted is None:
        return lambda value: False
    kinds = {bool} if isinstance(wanted, bool) else {int, float}
    return lambda value: type(value) in kinds and compare(value, wanted)


def moment(text: str) -> datetime | None:
    """The moment of an ISO 8601 date or date and time, in UTC unless it says its zone; else None."""
    if not _DATE.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:  # there is no 30 February
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
