"""Takes from old retrievals and votes what says who, and deletes those that say nothing any more.

Which votes stand is for the caller to say; this module must not know what they mean.
"""

import sqlite3
from collections.abc import Sequence

from rag_flywheel.records import ONE_TIME
from rag_flywheel.store import passages
from rag_flywheel.store.database import in_chunks
from rag_flywheel.store.events import votes_on_retrievals
from rag_flywheel.store.vectors import drop_query_vectors

_ONE_TIME = f"'{ONE_TIME}' || lower(hex(randomblob(16)))"  # two voices stay two
# Chances before votes on a question come from its first answer: it stays while there are votes.
_FIRST = (
    "NOT EXISTS (SELECT 1 FROM retrievals e WHERE e.query_hash = r.query_hash "
    "AND e.tenant IS r.tenant AND e.rid < r.rid)"
)
_VOTED_ON = (
    "EXISTS (SELECT 1 FROM retrievals o JOIN votes v ON v.rid = o.rid "
    "WHERE o.query_hash = r.query_hash AND o.tenant IS r.tenant)"
)


def due(
    conn: sqlite3.Connection, *, after: int, before: float, heard: int, n: int
) -> Sequence[int]:
    """The next n retrievals, by row number above `after`, that are older than `before`.

    Only those whose votes and corrections are all older too, with votes up to event number
    `heard`; and that are as they were recorded, or got a vote since they were folded.
    """
    rows = conn.execute(
        "SELECT rid FROM retrievals r WHERE rid > ? AND at < ? AND (folded IS NULL OR "
        "EXISTS (SELECT 1 FROM votes v WHERE v.rid = r.rid AND v.seq > r.folded)) AND NOT EXISTS "
        "(SELECT 1 FROM votes v WHERE v.rid = r.rid AND (v.at >= ? OR v.seq > ?)) AND NOT EXISTS "
        "(SELECT 1 FROM corrections c WHERE c.rid = r.rid AND c.at >= ?) ORDER BY rid LIMIT ?",
        (after, before, before, heard, before, n),
    )
    return [int(row[0]) for row in rows]


def fold(conn: sqlite3.Connection, retrievals: Sequence[int], standing: Sequence[int]) -> None:
    """Leave of these retrievals the question, what was shown, and the standing votes, of nobody.

    standing: event numbers. Retrievals that nothing stands on are deleted, the first answer to a
    question that has votes excepted.
    """
    hashes = _hashes(conn, retrievals)
    seq = passages.read_clock(conn)
    rows = [(r,) for r in retrievals]
    conn.executemany(
        f"UPDATE votes SET reason = NULL, user_id = CASE WHEN user_id IS NULL THEN NULL "
        f"ELSE {_ONE_TIME} END WHERE seq = ?",
        [(s,) for s in standing],
    )
    kept = set(standing)
    superseded = [(v.seq,) for v in votes_on_retrievals(conn, retrievals) if v.seq not in kept]
    conn.executemany("DELETE FROM votes WHERE seq = ?", superseded)
    conn.executemany(
        "DELETE FROM corrections WHERE rid = ? AND user_id IS NOT NULL AND EXISTS (SELECT 1 FROM "
        "corrections l WHERE l.rid = corrections.rid AND l.user_id = corrections.user_id AND "
        "l.seq > corrections.seq)",
        rows,
    )
    conn.executemany(
        f"UPDATE corrections SET user_id = {_ONE_TIME} WHERE rid = ? AND user_id IS NOT NULL", rows
    )
    conn.executemany(
        "UPDATE retrievals SET user_id = NULL, session_id = NULL, answer = NULL, latency_ms = 0, "
        "folded = ? WHERE rid = ?",
        [(seq, r) for r in retrievals],
    )
    _delete_silent(conn, hashes)
    drop_query_vectors(conn, hashes)


def _hashes(conn: sqlite3.Connection, retrievals: Sequence[int]) -> list[bytes]:
    rows = in_chunks(conn, "SELECT query_hash FROM retrievals WHERE rid IN (%s)", retrievals)
    return sorted({bytes(row[0]) for row in rows})


def _delete_silent(conn: sqlite3.Connection, hashes: Sequence[bytes]) -> None:
    """Delete folded retrievals of these questions that nothing stands on."""
    silent = in_chunks(
        conn,
        "SELECT rid FROM retrievals r WHERE query_hash IN (%s) AND folded IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM votes v WHERE v.rid = r.rid) "
        "AND NOT EXISTS (SELECT 1 FROM corrections c WHERE c.rid = r.rid) "
        f"AND NOT ({_FIRST} AND {_VOTED_ON})",
        hashes,
    )
    conn.executemany("DELETE FROM retrievals WHERE rid = ?", list(silent))
