"""Retrievals and votes that came in from other tools: under which keys, and what became of them.

A key outlasts what it stands for, so that a retrieval or vote that was deleted does not come in again.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from rag_flywheel.store import column_checks
from rag_flywheel.store.database import in_chunks
from rag_flywheel.store.retrievals import LoggedHit, hits_text

KEY_BYTES = 16


@dataclass(frozen=True)
class Entry:
    """What stands under a key. rid: the row of the retrieval, None: it was deleted since; seq: the event,
    None: it is the retrieval itself."""

    key: bytes
    external: str | None
    rid: int | None
    seq: int | None = None


def append_entries(conn: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Note what came in."""
    conn.executemany(
        "INSERT INTO imports (key, external, rid, seq) VALUES (?, ?, ?, ?)",
        [(e.key, e.external, e.rid, e.seq) for e in entries],
    )


def rows_of(conn: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, int | None]:
    """By each of these keys that came in: the row of its retrieval, None: it was deleted since."""
    rows = in_chunks(conn, "SELECT key, rid FROM imports WHERE key IN (%s)", keys)
    return {
        column_checks.hashed("imports.key", key): column_checks.optional_whole("imports.rid", rid)
        for key, rid in rows
    }


def external_ids(conn: sqlite3.Connection, retrieval_ids: Sequence[str]) -> dict[str, str]:
    """By the id of each of these retrievals that was imported: its id in the tool it came from."""
    sql = (
        "SELECT r.id, i.external FROM retrievals r JOIN imports i ON i.rid = r.rid "
        "WHERE i.seq IS NULL AND i.external IS NOT NULL AND r.id IN (%s)"
    )
    return {
        column_checks.text("retrievals.id", id_): column_checks.text("imports.external", external)
        for id_, external in in_chunks(conn, sql, retrieval_ids)
    }


def replace_hits(conn: sqlite3.Connection, rid: int, hits: Sequence[LoggedHit]) -> None:
    """Store what an imported retrieval showed, of which another file told more."""
    conn.execute(
        "UPDATE retrievals SET hits = ? WHERE rid = ? AND source IS NOT NULL",
        (hits_text(hits), rid),
    )


def forget_deleted(conn: sqlite3.Connection) -> None:
    """Keep nothing but the keys of what is no longer stored."""
    gone = "NOT EXISTS (SELECT 1 FROM {table} t WHERE t.{column} = imports.{column})"
    conn.execute(
        "UPDATE imports SET external = NULL, rid = NULL, seq = NULL WHERE rid IS NOT NULL AND ("
        + gone.format(table="retrievals", column="rid")
        + " OR (seq IS NOT NULL AND "
        + " AND ".join(
            gone.format(table=table, column="seq") for table in ("votes", "answer_votes", "notes")
        )
        + "))"
    )


def make_anonymous(conn: sqlite3.Connection, retrievals: Sequence[int]) -> None:
    """Take away the external ids of these retrievals and of the votes on them."""
    conn.executemany(
        "UPDATE imports SET external = NULL WHERE rid = ?", [(rid,) for rid in retrievals]
    )
