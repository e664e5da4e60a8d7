"""Retrievals and votes that came in from other tools: under which keys, and what became of them.

A key outlasts what it stands for, so that a retrieval or vote that was deleted does not come in again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rag_flywheel.records import TenantScope
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection, in_chunks, scalar
from rag_flywheel.store.retrievals import (
    LoggedHit,
    hits_text,
    read_hits,
    read_query_hash,
    read_tenant,
)
from rag_flywheel.store.users import not_opted_out


@dataclass(frozen=True)
class Entry:
    """What stands under a key. rid: the row of the retrieval, None: it was deleted since; seq: the event,
    None: it is the retrieval itself."""

    key: bytes
    external: str | None
    rid: int | None
    seq: int | None = None


def append_entries(conn: Connection, entries: Sequence[Entry]) -> None:
    """Note what came in."""
    conn.executemany(
        "INSERT INTO imports (key, external, rid, seq) VALUES (?, ?, ?, ?)",
        [(e.key, e.external, e.rid, e.seq) for e in entries],
    )


def rows_of(conn: Connection, keys: Sequence[bytes]) -> dict[bytes, int | None]:
    """By each of these keys that came in: the row of its retrieval, None: it was deleted since."""
    rows = in_chunks(conn, "SELECT key, rid FROM imports WHERE key IN (%s)", keys)
    return {
        column_checks.hashed("imports.key", key): column_checks.optional_whole("imports.rid", rid)
        for key, rid in rows
    }


def rows_of_external(
    conn: Connection, source: str, ids: Sequence[str]
) -> dict[str, list[tuple[int, str | None]]]:
    """By each of these ids in a tool: (row, tenant as JSON) of the retrievals that came in under it."""
    found: dict[str, list[tuple[int, str | None]]] = {}
    rows = in_chunks(
        conn,
        "SELECT i.external, r.rid, r.tenant FROM imports i JOIN retrievals r USING (rid) "
        "WHERE i.external IN (%s) AND i.seq IS NULL AND r.source = ?",
        ids,
        (source,),
    )
    for external, rid, tenant in rows:
        found.setdefault(str(external), []).append((int(rid), read_tenant(tenant)))
    return found


def rows_of_run(
    conn: Connection, run: str, scope: TenantScope, tenant: str | None, n: int
) -> list[int]:
    """The rows of the n newest retrievals in the scope that are inside of a run, given as a hash; those of a
    tenant, as JSON, or of none; None: all."""
    within, values = scope.sql("tenant")
    if tenant is not None:
        within, values = f"{within} AND (tenant IS NULL OR tenant = ?)", (*values, tenant)
    rows = conn.execute(
        f"SELECT rid FROM runs JOIN retrievals USING (rid) WHERE run = ?{within} "
        "ORDER BY rid DESC LIMIT ?",
        (run, *values, n),
    )
    return sorted(column_checks.whole("runs.rid", row[0]) for row in rows)


def rank_of(hit: LoggedHit, place: int | None) -> int | None:
    """The rank that a hit was shown at; place: where it stands among the hits."""
    rank = hit.parts.get(column_checks.RANK, place)
    return None if rank is None else int(rank)


@dataclass(frozen=True)
class Target:
    """A stored retrieval that votes are on. tenant: as JSON; query: "" where its words are not stored."""

    rid: int
    id: str
    at: float
    tenant: str | None
    user_id: str | None
    query: str
    query_hash: bytes
    imported: bool
    hits: Sequence[LoggedHit]


def targets(conn: Connection, rids: Sequence[int]) -> dict[int, Target]:
    """These retrievals, by their rows; those that are no longer stored are left out."""
    sql = (
        "SELECT rid, id, at, tenant, user_id, query, query_hash, source IS NOT NULL, hits "
        "FROM retrievals WHERE rid IN (%s)"
    )
    return {
        int(rid): Target(
            int(rid),
            column_checks.text("retrievals.id", id_),
            column_checks.seconds("retrievals.at", at),
            read_tenant(tenant),
            column_checks.optional_text("retrievals.user_id", user),
            column_checks.text("retrievals.query", query),
            read_query_hash(query_hash),
            bool(imported),
            read_hits(hits),
        )
        for rid, id_, at, tenant, user, query, query_hash, imported, hits in in_chunks(
            conn, sql, rids
        )
    }


def is_cast(
    conn: Connection, rid: int, pid: int | None, kind: str, verdict: str, at: float
) -> bool:
    """Whether the very same feedback on a retrieval, within a second, is recorded; pid: of a vote on a
    hit."""
    if kind == "vote":
        found = scalar(
            conn,
            "SELECT 1 FROM votes WHERE rid = ? AND pid = ? AND verdict = ? AND abs(at - ?) < 1.0 LIMIT 1",
            (rid, pid, verdict, at),
        )
    else:
        credited = "EXISTS (SELECT 1 FROM credits c WHERE c.seq = v.seq AND c.pid = ?)"
        found = scalar(
            conn,
            "SELECT 1 FROM answer_votes v WHERE rid = ? AND kind = ? AND verdict = ? "
            f"AND abs(at - ?) < 1.0{'' if pid is None else f' AND {credited}'} LIMIT 1",
            (rid, kind, verdict, at, *([] if pid is None else [pid])),
        )
    return found is not None


def replace_hits(conn: Connection, rid: int, hits: Sequence[LoggedHit]) -> None:
    """Store what an imported retrieval showed, of which another file told more."""
    conn.execute(
        "UPDATE retrievals SET hits = ? WHERE rid = ? AND source IS NOT NULL",
        (hits_text(hits), rid),
    )


def fill_in(
    conn: Connection, found: Sequence[tuple[str | None, str | None, str | None, int]]
) -> None:
    """Store the (user, session, answer) of imported retrievals, by their rows, that had none; of those that
    were made anonymous, and of users who opted out, nothing."""
    conn.executemany(
        "UPDATE retrievals SET user_id = coalesce(user_id, ?), session_id = coalesce(session_id, ?), "
        "answer = coalesce(answer, ?) WHERE rid = ? AND source IS NOT NULL AND folded IS NULL "
        f"AND {not_opted_out('coalesce(retrievals.user_id, ?)')}",
        [(user, session, answer, rid, user) for user, session, answer, rid in found],
    )


_GONE = (
    "NOT EXISTS (SELECT 1 FROM retrievals r WHERE r.rid = imports.rid) OR (seq IS NOT NULL AND "
    + " AND ".join(
        f"NOT EXISTS (SELECT 1 FROM {table} t WHERE t.seq = imports.seq)"
        for table in ("votes", "answer_votes", "notes")
    )
    + ")"
)
_FORGET = f"UPDATE imports SET external = NULL, rid = NULL, seq = NULL WHERE ({_GONE}) AND "


def forget_all_deleted(conn: Connection) -> None:
    """Keep nothing but the keys of what is no longer stored."""
    conn.execute(_FORGET + "rid IS NOT NULL")


def forget_deleted(conn: Connection, retrievals: Sequence[int], events: Sequence[int]) -> None:
    """The same for these retrievals with all on them, and for these events."""
    conn.executemany(_FORGET + "rid = ?", [(rid,) for rid in retrievals])
    conn.executemany(_FORGET + "seq = ?", [(seq,) for seq in events])


def make_anonymous(conn: Connection, retrievals: Sequence[int]) -> None:
    """Take away the external ids of these retrievals and of the votes on them."""
    conn.executemany(
        "UPDATE imports SET external = NULL WHERE rid = ?", [(rid,) for rid in retrievals]
    )
