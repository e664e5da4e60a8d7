"""Finds the passages that pass a filter, from the metadata of all, which is held in memory by key.

A key that filters speak of has a column: the number of each passage's value among the distinct ones. A
condition is tested once for each distinct value, and changes of passages change a few numbers.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from rag_flywheel.checks import MOST_DEPTH, value_at
from rag_flywheel.records import Filter, Pids, Scalar
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection, each_row
from rag_flywheel.store.filters import (
    LOGIC,
    Metadata,
    PlainFilter,
    keys_of,
    moment,
    operators_of,
    passes,
    value_test,
)
from rag_flywheel.store.passages import PRESENT, present_pids
from rag_flywheel.store.timeline import read_moment

Mask = npt.NDArray[np.bool_]
T = TypeVar("T")
Places = npt.NDArray[np.int64]
_MOST_COLUMNS = 64
_MOST_GONE = 0.5  # of the rows in memory, when they are more than a few
_FEW = 1_000
_MOST_FIELDS = 32
_NO_FIELD = re.compile(r'["\\\x00-\x1f]')  # keys that a struct of msgspec cannot have
_UNREADABLE = (msgspec.DecodeError, TypeError, RecursionError, UnicodeError)
_EXACT = 2**53  # whole numbers up to here are exact as float64
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_COMPARE = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}
_EVERY = f"SELECT pid, metadata FROM passages WHERE {PRESENT} ORDER BY pid"


class MetadataColumns:
    """The columns of the keys that filters speak of, brought up to date at each call; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start_over()

    def _start_over(self) -> None:
        self._timeline = ""
        self._seq = 0
        self._pids = np.empty(0, dtype=np.int64)  # ascending
        self._present = np.empty(0, dtype=bool)
        self._columns: OrderedDict[str, _Column] = OrderedDict()  # the last used last

    def matching(self, conn: Connection, where: PlainFilter) -> Pids:
        """Ascending pids of the present texts whose metadata passes a filter, from a read transaction.

        Raises CorruptFileError.
        """
        with self._lock:
            try:
                self._catch_up(conn)
                self._read_missing(conn, set(keys_of(where)))
                passing = self._of_texts(self._part(where))
                while len(self._columns) > _MOST_COLUMNS:
                    self._columns.popitem(last=False)
            except BaseException:
                self._start_over()
                raise
            found: Pids = self._pids[passing & self._present]
            return found

    def _catch_up(self, conn: Connection) -> None:
        now = read_moment(conn)
        if now.timeline != self._timeline or now.seq < self._seq or self._many_are_gone():
            self._start_over()
            self._timeline, self._seq = now
            self._pids = present_pids(conn)
            self._present = np.ones(len(self._pids), dtype=bool)
        elif now.seq > self._seq:
            self._append(_rows(conn, "born > ?", self._seq))
            edited = _rows(conn, "edited > ?", self._seq)
            self._set(self._places([pid for pid, _ in edited]), edited)
            ended = conn.execute("SELECT pid FROM passages WHERE ended > ?", (self._seq,))
            self._present[self._places([pid for (pid,) in ended])] = False
            self._seq = now.seq

    def _many_are_gone(self) -> bool:
        n_gone = len(self._present) - int(np.count_nonzero(self._present))
        return n_gone > max(_FEW, _MOST_GONE * len(self._present))

    def _append(self, rows: Sequence[tuple[int, Any]]) -> None:
        if not rows:
            return
        new = np.array([pid for pid, _ in rows], dtype=np.int64)
        start = len(self._pids)
        self._pids = np.concatenate([self._pids, new])
        self._present = np.concatenate([self._present, np.ones(len(new), dtype=bool)])
        for column in self._columns.values():
            column.grow(len(self._pids))
        self._set(np.arange(start, len(self._pids)), rows)

    def _places(self, pids: Sequence[int]) -> Places:
        """Where those of these ascending pids are that are in memory."""
        return np.flatnonzero(np.isin(self._pids, np.array(pids, dtype=np.int64)))

    def _set(self, places: Places, rows: Sequence[tuple[int, Any]]) -> None:
        """Set the values of all keys at these places."""
        if not rows or not self._columns:
            return
        values_of = _values_at(list(self._columns))
        for place, (pid, metadata) in zip(places.tolist(), rows, strict=True):
            for column, value in zip(
                self._columns.values(), _taken(values_of, pid, metadata), strict=True
            ):
                column.codes[place] = column.code(value)

    def _read_missing(self, conn: Connection, keys: set[str]) -> None:
        """Read the columns of these keys that are not there, all in one pass."""
        for key in keys:
            if key in self._columns:
                self._columns.move_to_end(key)
        missing = sorted(keys - self._columns.keys())
        if not missing:
            return
        self._columns.update((key, _Column(len(self._pids))) for key in missing)
        codes = [self._columns[key].code for key in missing]
        values_of, found = _values_at(missing), list[int]()
        for pid, metadata in each_row(conn, _EVERY):
            values = _taken(values_of, pid, metadata)
            found.extend(code(value) for code, value in zip(codes, values, strict=True))
        table = np.array(found, dtype=np.int32).reshape(-1, len(missing))
        for key, column in zip(missing, table.T, strict=True):
            self._columns[key].codes[self._present] = column

    def _part(self, where: PlainFilter) -> "_Part":
        """What passes a filter expression, all of whose conditions must hold."""
        parts = list[_Part]()
        for key, wanted in where.items():
            if key == "not":
                part = self._part(wanted)
                parts.append(_Part(part.key, ~part.passing))
            elif key in LOGIC:
                join = np.logical_and if key == "and" else np.logical_or
                parts.append(self._joined([self._part(each) for each in wanted], join))
            else:
                passing = self._columns[key].passing
                parts += (_Part(key, passing(*test)) for test in operators_of(wanted).items())
        return self._joined(parts, np.logical_and)

    def _joined(self, parts: Iterable["_Part"], join: np.ufunc) -> "_Part":
        """Parts as one; those about the same key are joined by its distinct values."""
        by_key: dict[str | None, Mask] = {}
        for key, passing in parts:
            by_key[key] = join(by_key[key], passing) if key in by_key else passing
        if len(by_key) == 1:
            return _Part(*by_key.popitem())
        return _Part(None, join.reduce([self._of_texts(_Part(*each)) for each in by_key.items()]))

    def _of_texts(self, part: "_Part") -> Mask:
        """Which texts in memory pass a part."""
        return part.passing if part.key is None else part.passing[self._columns[part.key].codes]


class _Part(NamedTuple):
    """A part of a filter. passing: which distinct values of this key pass it; key None: which texts do."""

    key: str | None
    passing: Mask


class _Column:
    """The values at a key: codes int32 (n,), the number of each text's value among the distinct ones, of
    which the first is UNSET."""

    def __init__(self, n: int) -> None:
        self.codes = np.zeros(n, dtype=np.int32)
        self._values: list[Any] = [UNSET]
        self._code: dict[Any, int] = {UNSET: 0}
        self._numbers = _Ordered(np.float64, _number)
        self._moments = _Ordered(np.int64, _moment_us)
        self._exact = True  # every number is one of float64

    def grow(self, n: int) -> None:
        """Have room for n texts; the new ones have no value."""
        self.codes = np.concatenate([self.codes, np.zeros(n - len(self.codes), dtype=np.int32)])

    def code(self, value: Any) -> int:
        """The number of a value; a new one is given the next."""
        key = _key(value)
        found = self._code.get(key)
        if found is None:
            found = self._code[key] = len(self._values)
            self._values.append(value)
            self._exact &= type(value) is not int or abs(value) <= _EXACT
        return found

    def passing(self, operator: str, wanted: Any) -> Mask:
        """Which of the distinct values pass a condition."""
        if operator == "exists":
            passes = np.full(len(self._values), wanted)
            passes[0] = not wanted
            return passes
        if operator in ("eq", "in"):
            return self._equal([wanted] if operator == "eq" else wanted)
        if operator in ("ne", "nin"):
            return ~self._equal([wanted] if operator == "ne" else wanted)
        if operator in _COMPARE:
            if (at := _moment_us(wanted)) is not None:
                return self._moments.passing(self._values, operator, at)
            number = _number(wanted)
            if number is not None and self._exact and abs(number) <= _EXACT:
                return self._numbers.passing(self._values, operator, number)
        test = value_test(operator, wanted)
        return np.fromiter(map(test, self._values), dtype=bool, count=len(self._values))

    def _equal(self, options: Iterable[Scalar]) -> Mask:
        """Which values are one of these; None is also no value."""
        passes = np.zeros(len(self._values), dtype=bool)
        codes = [self._code.get(_key(option)) for option in options]
        passes[[code for code in codes if code is not None]] = True
        passes[0] = None in options
        return passes


class _Ordered:
    """Those of the distinct values that are numbers or moments, as an array; each is read once."""

    def __init__(self, dtype: type, read: Callable[[Any], float | None]) -> None:
        self._read = read
        self._n_read = 0
        self._codes = np.empty(0, dtype=np.int64)
        self._values: npt.NDArray[Any] = np.empty(0, dtype=dtype)

    def passing(self, values: Sequence[Any], operator: str, wanted: float) -> Mask:
        """Which of all values are on that side of the one that is wanted."""
        new = [
            (i, at)
            for i in range(self._n_read, len(values))
            if (at := self._read(values[i])) is not None
        ]
        if new:
            codes, found = zip(*new, strict=True)
            self._codes = np.append(self._codes, codes)
            self._values = np.append(self._values, np.array(found, dtype=self._values.dtype))
        self._n_read = len(values)
        passes = np.zeros(len(values), dtype=bool)
        passes[self._codes[_COMPARE[operator](self._values, wanted)]] = True
        return passes


def _number(value: Any) -> float | None:
    return value if type(value) in (int, float) else None


def _moment_us(value: Any) -> int | None:
    """Microseconds since 1970 of a date and time."""
    found = moment(value) if type(value) is str else None
    return None if found is None else (found - _EPOCH) // _MICROSECOND


def _key(value: Any) -> Any:
    """What equal values, and only they, have in common."""
    kind = type(value)
    if kind is bool:
        return kind, value
    return msgspec.json.encode(value) if kind in (list, dict) else value


def _values_at(keys: Sequence[str]) -> Callable[[str], Sequence[Any]]:
    """Takes the values at keys from metadata as JSON.

    Where it can, only these keys are decoded, which is quicker.
    """
    names = {key[:end] for key in keys for end in (*_dots(key), len(key))}
    if len(names) > _MOST_FIELDS or any(_NO_FIELD.search(name) for name in names):
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        return lambda metadata: [value_at(row, key) for row in (decode(metadata),) for key in keys]
    fields = {name: f"f{i}" for i, name in enumerate(names)}
    row = msgspec.defstruct(
        "Row",
        [(field, Any, UNSET) for field in fields.values()],
        rename={field: name for name, field in fields.items()},
        gc=False,
    )
    decode_row = msgspec.json.Decoder(row).decode
    get = [_getter(key, fields) for key in keys]
    return lambda metadata: [of(row) for row in (decode_row(metadata),) for of in get]


def _getter(key: str, fields: Mapping[str, str]) -> Callable[[Any], Any]:
    """Takes the value at a key, whose dots lead into objects where no key has them itself."""
    whole = attrgetter(fields[key])
    if "." not in key:
        return whole
    parts = [(attrgetter(fields[key[:dot]]), key[dot + 1 :]) for dot in _dots(key)]

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


def _dots(key: str) -> list[int]:
    """The positions of dots in a key, the last first."""
    return [i for i in range(len(key) - 1, -1, -1) if key[i] == "."]


def metadata_keys(conn: Connection, where: Filter | None = None) -> dict[str, set[str]]:
    """The keys of the present texts that pass a filter, nested ones with dots, and the kinds of values
    at each.

    The kinds are string, number, boolean, null, list and object.
    """
    kinds: dict[str, set[str]] = {}
    for metadata in _decoded(conn):
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


def _decoded(conn: Connection) -> Iterator[Metadata]:
    """The metadata of the present texts."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for pid, metadata in each_row(conn, f"SELECT pid, metadata FROM passages WHERE {PRESENT}"):
        yield _taken(decode, pid, metadata)


def _rows(conn: Connection, where: str, value: int) -> list[tuple[int, Any]]:
    """(pid, metadata as JSON) of present texts."""
    sql = f"SELECT pid, metadata FROM passages WHERE {PRESENT} AND {where} ORDER BY pid"
    return conn.execute(sql, (value,)).fetchall()


def _taken(take: Callable[[Any], T], pid: int, metadata: Any) -> T:
    """What is taken from the metadata of a row. Raises CorruptFileError."""
    try:
        return take(metadata)
    except _UNREADABLE:
        read = column_checks.metadata(f"passages.metadata of row {pid}", metadata)
        return take(msgspec.json.encode(read))
