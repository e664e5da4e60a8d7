"""Takes from old retrievals and votes what says who, and deletes those that say nothing any more.

Which votes stand is for the caller to say; this module must not know what they mean.
"""

import sqlite3
from collections.abc import Collection, Sequence

from rag_flywheel.store import passages
from rag_flywheel.store.database import in_chunks
from rag_flywheel.store.golden import drop_superseded_corrections
from rag_flywheel.store.notes import fold_notes
from rag_flywheel.store.users import one_time_user
from rag_flywheel.store.vectors import drop_query_vectors
from rag_flywheel.store.votes import EVENTS, votes_on_retrievals

# Chances before votes on a question come from its first answer: it stays while there are votes.
_FIRST = (
    "NOT EXISTS (SELECT 1 FROM retrievals e WHERE e.query_hash = r.query_hash "
    "AND e.tenant IS r.tenant AND e.rid < r.rid)"
)
Standing = tuple[int, int]
"""The number of an event that stands, and the lineage of the passage that it stands on."""


def _statements(where: str, of: str = "r.rid") -> str:
    """SQL: whether anything was said of a retrieval; where: of `v`, one of the tables of events."""
    each = (f"EXISTS (SELECT 1 FROM {t} v WHERE v.rid = {of} AND {where})" for t in EVENTS)
    return f"({' OR '.join(each)})"


_VOTED_ON = (
    f"EXISTS (SELECT 1 FROM retrievals o WHERE o.query_hash = r.query_hash "
    f"AND o.tenant IS r.tenant AND {_statements('1', 'o.rid')})"
)


def due(
    conn: sqlite3.Connection, *, after: int, before: float, until: int, n: int
) -> Sequence[int]:
    """The next n retrievals, by row number above `after`, that are older than `before`.

    Only those whose votes and corrections are all older too, with votes up to event number
    `heard`; and that are as they were recorded, or got a vote since they were folded.
    """
    rows = conn.execute(
        "SELECT rid FROM retrievals r WHERE rid > :after AND at < :before "
        f"AND (folded IS NULL OR {_statements('v.seq > r.folded')}) "
        f"AND NOT {_statements('(v.at >= :before OR v.seq > :heard)')} AND NOT EXISTS "
        "(SELECT 1 FROM corrections c WHERE c.rid = r.rid AND c.at >= :before) AND NOT EXISTS "
        "(SELECT 1 FROM notes n WHERE n.rid = r.rid AND n.at >= :before) "
        "ORDER BY rid LIMIT :n",
        {"after": after, "before": before, "heard": until, "n": n},
    )
    return [int(row[0]) for row in rows]


def fold(
    conn: sqlite3.Connection, retrievals: Sequence[int], standing: Collection[Standing]
) -> None:
    """Leave of these retrievals the question, what was shown, and the standing votes, of nobody.

    Retrievals that nothing stands on are deleted, the first answer to a question that has votes
    excepted.
    """
    hashes = _hashes(conn, retrievals)
    seq = passages.read_clock(conn)
    _fold_events(conn, retrievals, standing)
    fold_notes(conn, retrievals)
    drop_superseded_corrections(conn, "rid", retrievals)
    conn.executemany(
        f"UPDATE corrections SET user_id = {one_time_user()} WHERE rid = ? AND user_id IS NOT NULL",
        [(r,) for r in retrievals],
    )
    conn.executemany(
        "UPDATE retrievals SET user_id = NULL, session_id = NULL, answer = NULL, latency_ms = 0, "
        "folded = ? WHERE rid = ?",
        [(seq, r) for r in retrievals],
    )
    _delete_silent(conn, hashes)
    drop_query_vectors(conn, hashes)


def _fold_events(
    conn: sqlite3.Connection, retrievals: Sequence[int], standing: Collection[Standing]
) -> None:
    kept = {seq for seq, _ in standing}
    said = votes_on_retrievals(conn, retrievals)
    conn.executemany(
        "DELETE FROM credits WHERE seq = ? AND pid IN (SELECT pid FROM passages WHERE lineage = ?)",
        [(v.seq, v.lineage) for v in said if (v.seq, v.lineage) not in standing],
    )
    for table in EVENTS:
        found = in_chunks(conn, f"SELECT seq FROM {table} WHERE rid IN (%s)", retrievals)
        superseded = [row for row in list(found) if row[0] not in kept]
        conn.executemany(f"DELETE FROM {table} WHERE seq = ?", superseded)
        conn.executemany("DELETE FROM credits WHERE seq = ?", superseded)
        conn.executemany(
            f"UPDATE {table} SET user_id = {one_time_user()} WHERE seq = ? AND user_id IS NOT NULL",
            [(s,) for s in sorted(kept)],
        )
    for table, column in (("votes", "reason"), ("answer_votes", "why")):
        conn.executemany(
            f"UPDATE {table} SET {column} = NULL WHERE seq = ?", [(s,) for s in sorted(kept)]
        )


def _hashes(conn: sqlite3.Connection, retrievals: Sequence[int]) -> list[bytes]:
    rows = in_chunks(conn, "SELECT query_hash FROM retrievals WHERE rid IN (%s)", retrievals)
    return sorted({bytes(row[0]) for row in rows})


def _delete_silent(conn: sqlite3.Connection, hashes: Sequence[bytes]) -> None:
    """Delete folded retrievals of these questions that nothing stands on."""
    silent = in_chunks(
        conn,
        "SELECT rid FROM retrievals r WHERE query_hash IN (%s) AND folded IS NOT NULL "
        f"AND NOT {_statements('1')} "
        "AND NOT EXISTS (SELECT 1 FROM corrections c WHERE c.rid = r.rid) "
        "AND NOT EXISTS (SELECT 1 FROM notes n WHERE n.rid = r.rid) "
        f"AND NOT ({_FIRST} AND {_VOTED_ON})",
        hashes,
    )
    conn.executemany("DELETE FROM retrievals WHERE rid = ?", list(silent))
