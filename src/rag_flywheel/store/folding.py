"""Makes old retrievals and votes anonymous, and deletes those that no judgment rests on.

The caller decides which votes stand; this module must not know what they mean.
"""

import json
from collections.abc import Collection, Mapping, Sequence

from rag_flywheel.records import QueryKey
from rag_flywheel.store import column_checks, imports, passages, runs
from rag_flywheel.store.connection import Connection, in_chunks
from rag_flywheel.store.golden import drop_superseded_corrections
from rag_flywheel.store.notes import fold_notes
from rag_flywheel.store.users import one_time_user
from rag_flywheel.store.vectors import drop_query_vectors
from rag_flywheel.store.votes import EVENTS, votes_on_retrievals

# The first answer to a question gives the chances before its votes, so it is not deleted before them.
_FIRST = (
    "NOT EXISTS (SELECT 1 FROM retrievals e WHERE e.query_hash = r.query_hash "
    "AND e.tenant IS r.tenant AND e.rid < r.rid)"
)
Standing = tuple[int, int]
"""The number of an event, and the lineage of a passage that it is on."""


def _has_votes(where: str, of: str = "r.rid") -> str:
    """SQL: whether a retrieval has votes that match; where: a condition on their table `v`."""
    each = (f"EXISTS (SELECT 1 FROM {t} v WHERE v.rid = {of} AND {where})" for t in EVENTS)
    return f"({' OR '.join(each)})"


_VOTED_ON = (
    f"EXISTS (SELECT 1 FROM retrievals o WHERE o.query_hash = r.query_hash "
    f"AND o.tenant IS r.tenant AND {_has_votes('1 = 1', 'o.rid')})"
)


def due(conn: Connection, *, after: int, before: float, until: int, n: int) -> Sequence[int]:
    """The next n retrievals to fold, by row number above `after`: all older than `before`.

    Their votes and corrections must be older too, and no vote may have a number above `until`.
    Retrievals that were folded are due again once they get another vote.
    """
    rows = conn.execute(
        "SELECT rid FROM retrievals r WHERE rid > :after AND at < :before "
        f"AND (folded IS NULL OR {_has_votes('v.seq > r.folded')}) "
        f"AND NOT {_has_votes('(v.at >= :before OR v.seq > :until)')} AND NOT EXISTS "
        "(SELECT 1 FROM corrections c WHERE c.rid = r.rid AND c.at >= :before) AND NOT EXISTS "
        "(SELECT 1 FROM notes n WHERE n.rid = r.rid AND n.at >= :before) "
        "ORDER BY rid LIMIT :n",
        {"after": after, "before": before, "until": until, "n": n},
    )
    return [int(row[0]) for row in rows]


def fold(
    conn: Connection,
    retrievals: Sequence[int],
    standing: Collection[Standing],
    superseded: Collection[Standing],
    weights: Mapping[str, float],
    people: Mapping[QueryKey, int],
    tenant_key: str | None = None,
) -> None:
    """Reduce these retrievals to the question, its tenant, the hits and the standing votes, without user ids.

    Retrievals that no event stands on are deleted, except the first answer to a question that has
    votes. superseded: events on other retrievals that count for nothing because of events on these,
    and would count once those are deleted or anonymous; they are deleted too. weights: factors for the
    votes of users, which the votes keep. people: how many to note for each question.
    tenant_key: all that stays of their filters, with the tenant.
    """
    hashes = queries_of(conn, retrievals)
    seq = passages.read_clock(conn)
    _delete_events(conn, superseded)
    _fold_events(conn, retrievals, standing, weights)
    fold_notes(conn, retrievals)
    drop_superseded_corrections(conn, "rid", retrievals)
    conn.executemany(
        f"UPDATE corrections SET user_id = {one_time_user()} WHERE rid = ? AND user_id IS NOT NULL",
        [(r,) for r in retrievals],
    )
    tenants = in_chunks(conn, "SELECT rid, tenant FROM retrievals WHERE rid IN (%s)", retrievals)
    conn.executemany(
        "UPDATE retrievals SET user_id = NULL, session_id = NULL, answer = NULL, latency_ms = 0, "
        "filter = ?, folded = ? WHERE rid = ?",
        [(_filter_of(tenant_key, tenant), seq, rid) for rid, tenant in list(tenants)],
    )
    conn.executemany(
        "UPDATE retrievals SET voters = ?, voters_at = ? "
        "WHERE query_hash = ? AND tenant IS ? AND folded IS NOT NULL",
        [(n, seq, *question) for question, n in people.items()],
    )
    runs.unlink(conn, retrievals)
    imports.make_anonymous(conn, retrievals)
    _delete_unused(conn, hashes)
    imports.forget_deleted(conn, retrievals, [seq for seq, _ in superseded])
    drop_query_vectors(conn, hashes)


def _filter_of(key: str | None, tenant: object) -> str | None:
    """The filter that asks for a tenant, given as JSON, and for nothing else."""
    if key is None or tenant is None:
        return None
    value = column_checks.parsed("retrievals.tenant", tenant)
    return json.dumps({key: value}, ensure_ascii=False, separators=(",", ":"))


def queries_of(conn: Connection, retrievals: Sequence[int]) -> list[bytes]:
    """The hashes of the questions of these retrievals."""
    rows = in_chunks(conn, "SELECT query_hash FROM retrievals WHERE rid IN (%s)", retrievals)
    return sorted({bytes(row[0]) for row in rows})


def _fold_events(
    conn: Connection,
    retrievals: Sequence[int],
    standing: Collection[Standing],
    weights: Mapping[str, float],
) -> None:
    seqs = {seq for seq, _ in standing}
    cast = votes_on_retrievals(conn, retrievals)
    _delete_credits(conn, [(v.seq, v.lineage) for v in cast if (v.seq, v.lineage) not in standing])
    for table, column in zip(EVENTS, ("reason", "why"), strict=True):
        sql = f"SELECT seq, user_id FROM {table} WHERE rid IN (%s)"
        rows = list(in_chunks(conn, sql, retrievals))
        superseded = [(seq,) for seq, _ in rows if seq not in seqs]
        stand = [(seq,) for seq, _ in rows if seq in seqs]
        weighed = [(weights[user], seq) for seq, user in rows if user in weights]
        conn.executemany(f"UPDATE {table} SET trust = trust * ? WHERE seq = ?", weighed)
        conn.executemany(f"DELETE FROM {table} WHERE seq = ?", superseded)
        conn.executemany("DELETE FROM credits WHERE seq = ?", superseded)
        conn.executemany(
            f"UPDATE {table} SET user_id = {one_time_user()} WHERE seq = ? AND user_id IS NOT NULL",
            stand,
        )
        conn.executemany(f"UPDATE {table} SET {column} = NULL WHERE seq = ?", stand)


def _delete_events(conn: Connection, events: Collection[Standing]) -> None:
    """Delete these votes on passages, and what votes on answers say of these passages."""
    _delete_credits(conn, events)
    conn.executemany(
        "DELETE FROM votes WHERE seq = ? AND pid IN (SELECT pid FROM passages WHERE lineage = ?)",
        sorted(events),
    )


def _delete_credits(conn: Connection, events: Collection[Standing]) -> None:
    conn.executemany(
        "DELETE FROM credits WHERE seq = ? AND pid IN (SELECT pid FROM passages WHERE lineage = ?)",
        sorted(events),
    )


def _delete_unused(conn: Connection, hashes: Sequence[bytes]) -> None:
    """Delete folded retrievals of these questions that no event stands on."""
    unused = in_chunks(
        conn,
        "SELECT rid FROM retrievals r WHERE query_hash IN (%s) AND folded IS NOT NULL "
        f"AND NOT {_has_votes('1 = 1')} "
        "AND NOT EXISTS (SELECT 1 FROM corrections c WHERE c.rid = r.rid) "
        "AND NOT EXISTS (SELECT 1 FROM notes n WHERE n.rid = r.rid) "
        f"AND NOT ({_FIRST} AND {_VOTED_ON})",
        hashes,
    )
    conn.executemany("DELETE FROM retrievals WHERE rid = ?", list(unused))
