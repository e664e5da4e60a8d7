"""What the store asks of a connection to a database, and small helpers over it.

A connection of sqlite3 satisfies it as it is, so that nothing stands between the store and SQLite.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

Values: TypeAlias = Sequence[object] | Mapping[str, Any]
"""The values of a statement, for each `?` or by the name behind each `:`."""
_CHUNK = 500  # bound variables in one statement; the limit of every database is higher
_PART = 2_000  # rows


class Rows(Protocol):
    """The rows of a statement, as tuples."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    def fetchone(self) -> Any:
        """The next row, None: there is none."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...


class Connection(Protocol):
    """A connection on which statements are run."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def execute(self, sql: str, parameters: Values = ..., /) -> Rows:
        """Run a statement."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Rows:
        """Run a statement once for each of these values."""
        ...


@runtime_checkable
class _ReadsAllAtOnce(Protocol):
    """A connection whose `execute` has all rows in memory, so that it has another way for very many."""

    def each(self, sql: str, parameters: Values, size: int, /) -> Iterator[Any]:
        """The rows of a statement, so many at a time."""
        ...


def each_row(conn: Connection, sql: str, values: Values = ()) -> Iterator[Any]:
    """The rows of `sql`, which may be very many: only some of them are in memory at a time."""
    if isinstance(conn, _ReadsAllAtOnce):
        return conn.each(sql, values, _PART)
    return conn.execute(sql, values)


def in_parts(rows: Iterator[Any], size: int = _PART) -> Iterator[list[Any]]:
    """Rows, so many at a time."""
    while part := list(islice(rows, size)):
        yield part


def in_chunks(
    conn: Connection,
    sql: str,
    values: Sequence[object],
    more: tuple[object, ...] = (),
) -> Iterator[tuple[Any, ...]]:
    """The rows of `sql`, which holds one `IN (%s)`, over any number of values."""
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        marks = ", ".join("?" * len(part))
        for row in conn.execute(sql % marks, (*part, *more)):  # noqa: UP028 - it would close the
            yield row  # cursor when it is dropped, perhaps after its connection


def scalar(conn: Connection, sql: str, values: Values = ()) -> Any:
    """The first column of the first row of `sql`; None when it has no row."""
    row = conn.execute(sql, values).fetchone()
    return None if row is None else row[0]


def append_rows(conn: Connection, table: str, *rows: Mapping[str, object]) -> None:
    """Insert rows into a table, each as values by column name; all must name the same columns."""
    if rows:
        names = ", ".join(rows[0])
        values = ", ".join(f":{name}" for name in rows[0])
        conn.executemany(f"INSERT INTO {table} ({names}) VALUES ({values})", rows)
