"""Stores which runs of other programs, such as those of a framework, recorded retrievals belong to.

The id of a run is a keyed hash here; this module must not know how it is computed.
"""

from collections.abc import Collection

from rag_flywheel.records import TenantScope
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection, scalar


def link_run(conn: Connection, retrieval_id: str, run: str) -> bool:
    """Store that a retrieval belongs to a run; False when no retrieval has this id.

    Nothing is stored when the user who asked has opted out since.
    """
    row = conn.execute(
        "SELECT rid, EXISTS (SELECT 1 FROM opted_out o WHERE o.user_id = r.user_id) "
        "FROM retrievals r WHERE id = ?",
        (retrieval_id,),
    ).fetchone()
    if row is not None and not row[1]:
        conn.execute(
            "INSERT INTO runs (run, rid) VALUES (?, ?) ON CONFLICT DO NOTHING", (run, row[0])
        )
    return row is not None


def count_runs(conn: Connection, retrieval_id: str) -> int:
    """How many runs a retrieval belongs to."""
    sql = "SELECT count(*) FROM runs JOIN retrievals USING (rid) WHERE id = ?"
    return int(scalar(conn, sql, (retrieval_id,)))


def of_run(conn: Connection, run: str, scope: TenantScope, n: int) -> list[tuple[str, list[str]]]:
    """(id, the passage ids that it showed) of the n newest retrievals of a run, the newest first."""
    within, values = scope.sql("tenant")
    rows = conn.execute(
        f"SELECT id, hits FROM runs JOIN retrievals USING (rid) WHERE run = ?{within} "
        "ORDER BY rid DESC LIMIT ?",
        (run, *values, n),
    )
    return [
        (
            column_checks.text("retrievals.id", id_),
            [name for _, name, _ in column_checks.hits("retrievals.hits", hits)],
        )
        for id_, hits in rows
    ]


def unlink(conn: Connection, retrievals: Collection[int]) -> None:
    """Delete the runs of these retrievals, given by their rows."""
    conn.executemany("DELETE FROM runs WHERE rid = ?", [(rid,) for rid in retrievals])


def unlink_user(conn: Connection, user: str) -> None:
    """Delete the runs of all retrievals of a user, given as a hash."""
    conn.execute(
        "DELETE FROM runs WHERE rid IN (SELECT rid FROM retrievals WHERE user_id = ?)", (user,)
    )
