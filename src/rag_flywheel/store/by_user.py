"""Reads which user did what, for counts in which each user has a bounded part."""

from collections.abc import Iterator

from rag_flywheel.records import TenantScope
from rag_flywheel.store import column_checks, wall_clock
from rag_flywheel.store.connection import Connection, append_rows
from rag_flywheel.store.event_types import ONE_TIME
from rag_flywheel.store.mutes import not_muted
from rag_flywheel.store.passages import normalised

UserKey = tuple[str, tuple[str, ...]]
"""(hash of a user, what is counted)."""
_KNOWN = "{0} IS NOT NULL AND {0} NOT LIKE '" + ONE_TIME + "%'"
# those of anonymous and of folded events are nobody in particular, so nothing bounds their part


def votes_by_user(conn: Connection, scope: TenantScope) -> Iterator[UserKey]:
    """(user, (passage id, verdict)): the last verdict of each user on each passage."""
    within, values = scope.sql("r.tenant")
    rows = conn.execute(
        "SELECT v.user_id, p.id, v.verdict FROM votes v JOIN retrievals r ON r.rid = v.rid "
        f"JOIN passages p ON p.pid = v.pid WHERE {_KNOWN.format('v.user_id')} "
        f"AND {not_muted('v.user_id')}{within} ORDER BY v.seq",
        values,
    )
    last: dict[tuple[str, str], str] = {}
    for user, passage, verdict in rows:
        last[user, passage] = verdict
    return ((u, (p, verdict)) for (u, p), verdict in last.items() if verdict != "retract")


def questions_by_user(conn: Connection, scope: TenantScope) -> Iterator[UserKey]:
    """(user, (question,)): the questions that each user asked, without what people type differently."""
    within, values = scope.sql("r.tenant")
    rows = conn.execute(
        f"SELECT r.user_id, r.query FROM retrievals r WHERE {_KNOWN.format('r.user_id')}{within}",
        values,
    )
    return ((user, (normalised(query),)) for user, query in rows if query)


def missing_by_user(conn: Connection, scope: TenantScope) -> Iterator[UserKey]:
    """(user, (question,)): the questions of which each user reported that the answer is missing."""
    within, values = scope.sql("r.tenant")
    rows = conn.execute(
        "SELECT n.user_id, r.query FROM notes n JOIN retrievals r ON r.rid = n.rid "
        f"WHERE n.kind = 'missing' AND {_KNOWN.format('n.user_id')}{within}",
        values,
    )
    return ((user, (normalised(query),)) for user, query in rows if query)


def record_release(conn: Connection, what: str, epsilon: float, delta: float) -> None:
    """Append that counts were released under this privacy loss."""
    row = {"at": wall_clock.now(), "what": what, "epsilon": epsilon, "delta": delta}
    append_rows(conn, "dp_releases", row)


def released(conn: Connection) -> tuple[float, float]:
    """(epsilon, delta) of all releases together: they add up."""
    sql = "SELECT coalesce(sum(epsilon), 0.0), coalesce(sum(delta), 0.0) FROM dp_releases"
    epsilon, delta = conn.execute(sql).fetchone()
    return (
        column_checks.number("dp_releases.epsilon", epsilon),
        column_checks.number("dp_releases.delta", delta),
    )
