"""Filter expressions on metadata: checks them, and finds the passages that pass.

It knows the filter language and nothing else.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from operator import attrgetter, eq, is_, is_not, ne
from typing import Any

import msgspec
import numpy as np
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
from rag_flywheel.records import Filter, Pids, Scalar
from rag_flywheel.store import column_checks

PlainFilter = dict[str, Any]
"""A checked filter expression, in the types of JSON."""
Metadata = Mapping[str, Any]
"""The metadata of a passage, as it was read from JSON."""
Passes = Callable[[Any], bool]
"""Tests a row of metadata."""
Test = Callable[[Any], bool]
"""Tests the value at a key; UNSET, where there is none, passes as None does."""
Get = Callable[[str], Callable[[Any], Any]]
"""Makes a function that takes the value at a key, without its dots, from a row; UNSET: there is none."""

MOST_CONDITIONS = 10_000
_LOGIC = ("and", "or", "not")
_SCALAR = ("eq", "ne", "gt", "gte", "lt", "lte", "contains")
_LIST = ("in", "nin", "any", "all")
OPERATORS = (*_SCALAR, *_LIST, "exists", "prefix")
_MOST_NEEDLES = 16
_MOST_FIELDS = 32
_NO_FIELD = re.compile(r'["\\\x00-\x1f]')  # keys that a struct of msgspec cannot have
_UNREADABLE = (msgspec.DecodeError, TypeError, RecursionError, UnicodeError)
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)


def matching_pids(conn: sqlite3.Connection, where: Filter) -> Pids:
    """Ascending pids of the present texts whose metadata passes the filter. Raises InputError."""
    plain = plain_filter(where)
    decode, get = _reader(frozenset(keys_of(plain)))
    test = _passes(plain, get)
    sql, needles = "", list[str]()
    for any_of in _needles(plain):
        if len(needles) + len(any_of) <= _MOST_NEEDLES:
            sql += f" AND ({' OR '.join(['instr(metadata, ?)'] * len(any_of))})"
            needles += any_of
    rows = _present(conn, sql, needles)
    try:
        found = [pid for pid, metadata in rows if test(decode(metadata))]
    except _UNREADABLE:
        found = [
            pid for pid, row in _read(_present(conn)) if test(decode(msgspec.json.encode(row)))
        ]
    return np.sort(np.array(found, dtype=np.int64))


@lru_cache(maxsize=64)
def _reader(keys: frozenset[str]) -> tuple[Callable[[Any], Any], Get]:
    """What decodes the metadata of a passage into a row, and what takes values from it.

    Where it can, a row has the fields of these keys alone, which is quicker than decoding all.
    """
    if len(keys) + sum(key.count(".") for key in keys) > _MOST_FIELDS:
        return msgspec.json.Decoder(dict[str, Any]).decode, _from_object
    names = {key[:end] for key in keys for end in (*_dots(key), len(key))}
    if any(_NO_FIELD.search(name) for name in names):
        return msgspec.json.Decoder(dict[str, Any]).decode, _from_object
    fields = {name: f"f{i}" for i, name in enumerate(names)}
    row = msgspec.defstruct(
        "Row",
        [(field, Any, UNSET) for field in fields.values()],
        rename={field: name for name, field in fields.items()},
        gc=False,
    )
    return msgspec.json.Decoder(row).decode, lambda name: attrgetter(fields[name])


def _from_object(name: str) -> Callable[[Metadata], Any]:
    return lambda row: row.get(name, UNSET)


def _dots(key: str) -> list[int]:
    """The positions of dots in a key, the last first."""
    return [i for i in range(len(key) - 1, -1, -1) if key[i] == "."]


def passes(where: Filter, metadata: Metadata) -> bool:
    """Whether metadata in the types of JSON passes a filter. Raises InputError."""
    return _passes(plain_filter(where), _from_object)(metadata)


def metadata_keys(conn: sqlite3.Connection, where: Filter | None = None) -> dict[str, set[str]]:
    """The keys of the present texts that pass a filter, nested ones with dots, and the kinds of values
    at each.

    The kinds are string, number, boolean, null, list and object.
    """
    kinds: dict[str, set[str]] = {}
    for _, metadata in _read(_present(conn)):
        if where is None or passes(where, metadata):
            _add_kinds(kinds, "", metadata, MOST_DEPTH)
    return kinds


def _add_kinds(kinds: dict[str, set[str]], prefix: str, metadata: Metadata, depth: int) -> None:
    for key, value in metadata.items():
        kinds.setdefault(prefix + key, set()).add(_KINDS[type(value)])
        if isinstance(value, dict) and depth:
            _add_kinds(kinds, f"{prefix}{key}.", value, depth - 1)


_KINDS = {
    str: "string", int: "number", float: "number", bool: "boolean", type(None): "null",
    list: "list", dict: "object",
}  # fmt: skip


def _present(
    conn: sqlite3.Connection, more: str = "", values: Sequence[str] = ()
) -> Iterator[tuple[int, Any]]:
    """(pid, metadata as JSON) of the present texts."""
    return conn.execute(
        f"SELECT pid, metadata FROM passages WHERE ended IS NULL AND origin = 'index'{more}", values
    )


def _read(rows: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Metadata]]:
    """Rows with their metadata decoded. Raises CorruptFileError."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for pid, text in rows:
        try:
            yield pid, decode(text)
        except _UNREADABLE:
            yield pid, column_checks.metadata(f"passages.metadata of row {pid}", text)


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
        elif key in _LOGIC:
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
        elif key not in _LOGIC:
            if not isinstance(wanted, dict):
                yield key, wanted
            elif "eq" in wanted:
                yield key, wanted["eq"]


def keys_of(plain: PlainFilter) -> Iterator[str]:
    """Every key that a condition is about, once for each condition on it."""
    for key, wanted in plain.items():
        if key == "not":
            yield from keys_of(wanted)
        elif key in _LOGIC:
            for each in wanted:
                yield from keys_of(each)
        else:
            yield from [key] * (len(wanted) if isinstance(wanted, dict) else 1)


def _passes(plain: PlainFilter, get: Get) -> Passes:
    tests = list[Passes]()
    for key, wanted in plain.items():
        if key == "not":
            tests.append(_not(_passes(wanted, get)))
        elif key == "and":
            tests += (_passes(each, get) for each in wanted)
        elif key == "or":
            tests.append(_or([_passes(each, get) for each in wanted]))
        else:
            value_of, operators = _value_of(key, get), _operators(wanted)
            tests += (_at(value_of, operator, value) for operator, value in operators.items())
    return tests[0] if len(tests) == 1 else _and(tests)


def _operators(wanted: Any) -> Mapping[str, Any]:
    return wanted if isinstance(wanted, dict) else {"eq": wanted}


def _and(tests: Sequence[Passes]) -> Passes:
    if len(tests) == 2:  # as most are
        first, second = tests
        return lambda row: first(row) and second(row)
    return lambda row: all(test(row) for test in tests)


def _or(tests: Sequence[Passes]) -> Passes:
    return lambda row: any(test(row) for test in tests)


def _not(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: not test(value)


def _at(value_of: Callable[[Any], Any], operator: str, wanted: Any) -> Passes:
    if operator == "exists":
        return lambda row: (value_of(row) is not UNSET) is wanted
    test = _test(operator, wanted)
    return lambda row: test(value_of(row))


def _value_of(key: str, get: Get) -> Callable[[Any], Any]:
    """Takes the value at a key, whose dots lead into objects where no key has them itself."""
    if "." not in key:
        return get(key)
    if get is _from_object:
        return lambda row: value_at(row, key)
    whole, parts = get(key), [(get(key[:dot]), key[dot + 1 :]) for dot in _dots(key)]

    def value_of(row: Any) -> Any:
        found = whole(row)
        for inner_of, rest in parts:  # the longest key of the object first
            if found is not UNSET:
                break
            inner = inner_of(row)
            if isinstance(inner, dict):
                found = value_at(inner, rest)
        return found

    return value_of


def _test(operator: str, wanted: Any) -> Test:
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
        moment = _moment(wanted)
        if moment is None:
            return lambda value: type(value) is str and compare(value, wanted)

        def of_dates(value: Any) -> bool:
            at = _moment(value) if type(value) is str else None
            return at is not None and compare(at, moment)

        return of_dates
    if wanted is None:
        return lambda value: False
    kinds = {bool} if isinstance(wanted, bool) else {int, float}
    return lambda value: type(value) in kinds and compare(value, wanted)


def _moment(text: str) -> datetime | None:
    """The moment of an ISO 8601 date or date and time, in UTC unless it says its zone; else None."""
    if not _DATE.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:  # there is no 30 February
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _needles(plain: PlainFilter) -> Iterator[list[str]]:
    """Texts of which the JSON of metadata that passes must have one, so that SQL reads fewer rows."""
    for key, wanted in plain.items():
        if key == "and":
            for each in wanted:
                yield from _needles(each)
        elif key not in _LOGIC:
            for operator, value in _operators(wanted).items():
                any_of = _needles_of(operator, value)
                if any_of and None not in any_of:
                    yield [each for each in any_of if each is not None]


def _needles_of(operator: str, value: Any) -> list[str | None]:
    if operator in ("eq", "contains"):
        return [_needle(value)]
    if operator in ("in", "any") and len(value) <= _MOST_NEEDLES:
        return [_needle(each) for each in value]
    if operator == "all":
        return [_needle(value[0])]
    if operator == "prefix":
        return [_needle(value)[:-1]]  # type: ignore[index]
    return []


def _needle(value: Scalar) -> str | None:
    """A part of every way in which JSON writes a value; None: there is no such part."""
    if value is None:  # it may be missing
        return None
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    whole = value == int(value)
    if whole:
        return str(int(value)) if abs(value) < 1e15 else None
    return repr(value)
