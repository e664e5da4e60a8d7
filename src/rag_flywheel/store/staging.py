"""Holds what is read from the files of an import until all of it is there, in a file that ends with it.

Records come in any order, and memory stays bounded: SQLite keeps what does not fit its cache in a temporary
file without a name. It must not know what the records mean.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from types import TracebackType

_CACHE_KIB = 32_768
_TABLES = """
CREATE TABLE parts (n INTEGER PRIMARY KEY, id TEXT NOT NULL, at REAL, record BLOB NOT NULL);
CREATE TABLE votes (n INTEGER PRIMARY KEY, at REAL, record BLOB NOT NULL);
CREATE TABLE around (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE shown (id TEXT, tenant TEXT, record BLOB NOT NULL, PRIMARY KEY (id, tenant)) WITHOUT ROWID;
CREATE TABLE inside (outer TEXT, id TEXT, tenant TEXT, PRIMARY KEY (outer, id, tenant)) WITHOUT ROWID
"""


class Staging:
    """A context manager; records are bytes, ids texts, and times seconds since 1970 or None."""

    def __init__(self) -> None:
        self._conn = sqlite3.connect("", isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._conn.execute(f"PRAGMA {pragma}")
        for statement in _TABLES.split(";\n"):
            self._conn.execute(statement)
        self._conn.execute("BEGIN")
        self.n_parts = self.n_votes = 0

    def __enter__(self) -> "Staging":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._conn.close()

    def add_part(self, id_: str, at: float | None, record: bytes) -> None:
        """Keep a part of what is known of a retrieval."""
        self.n_parts += 1
        self._conn.execute("INSERT INTO parts (id, at, record) VALUES (?, ?, ?)", (id_, at, record))

    def add_vote(self, at: float | None, record: bytes) -> None:
        """Keep a vote."""
        self.n_votes += 1
        self._conn.execute("INSERT INTO votes (at, record) VALUES (?, ?)", (at, record))

    def put_around(self, id_: str, record: bytes) -> None:
        """Keep what is known of something that retrievals may be inside of, in place of what was."""
        self._conn.execute("INSERT OR REPLACE INTO around VALUES (?, ?)", (id_, record))

    def around(self, id_: str) -> bytes | None:
        """What was kept of it; None: nothing."""
        row = self._conn.execute("SELECT record FROM around WHERE id = ?", (id_,)).fetchone()
        return None if row is None else bytes(row[0])

    def retrievals(self) -> Iterator[tuple[str, list[bytes]]]:
        """Each retrieval's id and its parts, in the order of the times of the retrievals."""
        self._conn.execute("CREATE INDEX IF NOT EXISTS parts_id ON parts (id)")
        rows = self._conn.execute(
            "SELECT p.id, p.record FROM (SELECT id, min(at) AS first, min(n) AS n FROM parts GROUP BY id) g "
            "JOIN parts p ON p.id = g.id ORDER BY g.first, g.n, p.n"
        )
        id_, parts = "", list[bytes]()
        for next_id, record in rows:
            if parts and next_id != id_:
                yield id_, parts
                parts = []
            id_ = next_id
            parts.append(bytes(record))
        if parts:
            yield id_, parts

    def votes(self) -> Iterator[bytes]:
        """Each vote, in the order of their times, those without one first."""
        for (record,) in self._conn.execute("SELECT record FROM votes ORDER BY at, n"):
            yield bytes(record)

    def put_shown(self, id_: str, tenant: str | None, record: bytes, outers: Sequence[str]) -> None:
        """Keep what became of a retrieval, which several tenants may have one of this id, and what it was
        inside of. tenant: as JSON, None: not said."""
        whose = tenant or ""
        self._conn.execute("INSERT OR REPLACE INTO shown VALUES (?, ?, ?)", (id_, whose, record))
        self._conn.executemany(
            "INSERT OR IGNORE INTO inside VALUES (?, ?, ?)",
            [(outer, id_, whose) for outer in outers],
        )

    def shown(self, id_: str, tenant: str | None) -> list[bytes]:
        """What became of the retrievals of this id: of a tenant, as JSON, and that whose records do not say
        whose it is; None: one of each tenant that has one."""
        within, values = _of(tenant)
        rows = self._conn.execute(
            f"SELECT record FROM shown WHERE id = ?{within} ORDER BY tenant", (id_, *values)
        )
        return [bytes(record) for (record,) in rows.fetchall()]

    def shown_inside(self, outer: str, tenant: str | None) -> list[bytes]:
        """The same of each retrieval inside of something."""
        within, values = _of(tenant)
        rows = self._conn.execute(
            "SELECT s.record FROM inside i JOIN shown s USING (id, tenant) "
            f"WHERE i.outer = ?{within} ORDER BY s.id, s.tenant",
            (outer, *values),
        )
        return [bytes(record) for (record,) in rows.fetchall()]


def _of(tenant: str | None) -> tuple[str, tuple[str, ...]]:
    """SQL to append to a condition, and its values: that a row is of a tenant, or of none; None: any."""
    return ("", ()) if tenant is None else (" AND tenant IN ('', ?)", (tenant,))
