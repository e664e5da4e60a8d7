"""Stores which runs of other programs, such as those of a framework, recorded retrievals belong to.

The id of a run is a keyed hash here; this module must not know how it is computed.
"""

import sqlite3
from collections.abc import Collection, Iterable

from rag_flywheel.records import TenantScope
from rag_flywheel.store import column_checks
from rag_flywheel.store.database import scalar


def link(conn: sqlite3.Connection, pairs: Iterable[tuple[str, int]]) -> None:
    """Store pairs of a run and the row of a retrieval that belongs to it."""
    conn.executemany("INSERT OR IGNORE INTO runs (run, rid) VALUES (?, ?)", pairs)


def count_runs(conn: sqlite3.Connection, retrieval_id: str) -> int:
    """How many runs a retrieval belongs to."""
    sql = "SELECT count(*) FROM runs JOIN retrievals USING (rid) WHERE id = ?"
    return int(scalar(conn, sql, (retrieval_id,)))


def of_run(
    conn: sqlite3.Connection, run: str, scope: TenantScope, n: int
) -> list[tuple[str, str | None, list[str]]]:
    """(id, tenant as JSON, the passage ids that it showed) of the n newest retrievals of a run, the newest
    first."""
    within, values = scope.sql("tenant")
    rows = conn.execute(
        f"SELECT id, tenant, hits FROM runs JOIN retrievals USING (rid) WHERE run = ?{within} "
        "ORDER BY rid DESC LIMIT ?",
        (run, *values, n),
    )
    return [
        (
            column_checks.text("retrievals.id", id_),
            column_checks.optional_text("retrievals.tenant", tenant),
            [name for _, name, _ in column_checks.hits("retrievals.hits", hits)],
        )
        for id_, tenant, hits in rows
    ]


def unlink(conn: sqlite3.Connection, retrievals: Collection[int]) -> None:
    """Delete the runs of these retrievals, given by their rows."""
    conn.executemany("DELETE FROM runs WHERE rid = ?", [(rid,) for rid in retrievals])


def unlink_user(conn: sqlite3.Connection, user: str) -> None:
    """Delete the runs of all retrievals of a user, given as a hash."""
    conn.execute(
        "DELETE FROM runs WHERE rid IN (SELECT rid FROM retrievals WHERE user_id = ?)", (user,)
    )
