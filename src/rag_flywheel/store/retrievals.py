"""Recorded retrievals: who was shown which hits for which query, when, and from which version.

They are appended; only the answer an application gave is filled in later.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from rag_flywheel.records import QueryKey
from rag_flywheel.store import column_checks
from rag_flywheel.store.database import in_chunks


@dataclass(frozen=True)
class LoggedHit:
    """A hit as it was shown; parts are the terms of its score by name."""

    pid: int
    passage_id: str
    score: float
    parts: dict[str, float]


@dataclass(frozen=True)
class RetrievalRecord:
    """One logged retrieval, as written. `hits` are in the order of their ranks, from 1."""

    id: str
    kind: str
    at: float
    query: str
    query_hash: bytes
    k: int
    filter: str | None
    tenant: str | None
    version: str | None
    seen: int
    user_id: str | None
    session_id: str | None
    latency_ms: float
    hits: Sequence[LoggedHit]


def record_retrievals(conn: sqlite3.Connection, records: Iterable[RetrievalRecord]) -> None:
    """Append retrievals."""
    conn.executemany(
        "INSERT INTO retrievals (id, kind, at, query, query_hash, k, filter, tenant, version, "
        "seen, user_id, session_id, latency_ms, hits) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        [
            (
                r.id,
                r.kind,
                r.at,
                r.query,
                r.query_hash,
                r.k,
                r.filter,
                r.tenant,
                r.version,
                r.seen,
                r.user_id,
                r.session_id,
                r.latency_ms,
                json.dumps([[h.pid, h.passage_id, h.score, h.parts] for h in r.hits]),
            )
            for r in records
        ],
    )


def shown_hits(
    conn: sqlite3.Connection, retrieval_ids: Sequence[str]
) -> dict[str, tuple[int, dict[str, int]]]:
    """By retrieval id: (its row number, {passage id: pid} of the hits it showed)."""
    rows = in_chunks(
        conn, "SELECT id, rid, hits FROM retrievals WHERE id IN (%s)", list(retrieval_ids)
    )
    return {
        str(id_): (
            int(rid),
            {name: pid for pid, name, _ in column_checks.hits("retrievals.hits", hits)},
        )
        for id_, rid, hits in rows
    }


@dataclass(frozen=True)
class Shown:
    """A retrieval as it was answered: its row, (pid, passage id, score) of each hit, and the answer
    that the application gave."""

    rid: int
    hits: tuple[tuple[int, str, float], ...]
    answer: str | None


def shown(conn: sqlite3.Connection, retrieval_id: str) -> Shown | None:
    """What a retrieval showed; None when there is none such."""
    row = conn.execute(
        "SELECT rid, hits, answer FROM retrievals WHERE id = ?", (retrieval_id,)
    ).fetchone()
    if row is None:
        return None
    hits = tuple(column_checks.hits("retrievals.hits", row[1]))
    return Shown(int(row[0]), hits, column_checks.optional_text("retrievals.answer", row[2]))


def logged_scores(
    conn: sqlite3.Connection, retrievals: Sequence[int]
) -> dict[int, list[tuple[int, float]]]:
    """By row of a retrieval: (lineage, score) of each hit it showed, the best first."""
    rows = in_chunks(conn, "SELECT rid, hits FROM retrievals WHERE rid IN (%s)", list(retrievals))
    hits = {
        int(rid): [(pid, score) for pid, _, score in column_checks.hits("retrievals.hits", text)]
        for rid, text in rows
    }
    pids = sorted({pid for found in hits.values() for pid, _ in found})
    lineages = dict(
        in_chunks(
            conn,
            "SELECT pid, lineage FROM passages WHERE pid IN (%s) AND lineage != pid",
            pids,
        )
    )
    scores = {
        rid: [
            (column_checks.whole("passages.lineage", lineages.get(pid, pid)), score)
            for pid, score in found
        ]
        for rid, found in hits.items()
    }
    return column_checks.complete("retrievals.rid", scores, retrievals)


def first_retrievals(
    conn: sqlite3.Connection, questions: Collection[QueryKey]
) -> dict[QueryKey, int]:
    """{(query hash, tenant): row of the first retrieval}, which no vote on the query had moved."""
    rows = in_chunks(
        conn,
        "SELECT query_hash, tenant, min(rid) FROM retrievals WHERE query_hash IN (%s) "
        "GROUP BY query_hash, tenant",
        sorted({query for query, _ in questions}),
    )
    first = {QueryKey(read_query_hash(h), read_tenant(tenant)): int(rid) for h, tenant, rid in rows}
    return column_checks.complete("retrievals.query_hash", first, questions)


def filters_of(conn: sqlite3.Connection, retrievals: Sequence[int]) -> dict[int, str | None]:
    """{row of a retrieval: its metadata filter as JSON, None: none}."""
    rows = in_chunks(conn, "SELECT rid, filter FROM retrievals WHERE rid IN (%s)", list(retrievals))
    found = {
        int(rid): column_checks.optional_text("retrievals.filter", where) for rid, where in rows
    }
    return column_checks.complete("retrievals.rid", found, retrievals)


def set_answer(conn: sqlite3.Connection, retrieval_id: str, answer: str) -> bool:
    """Keep the answer that an application gave from a retrieval; False when there is none such.

    Nothing is kept when the user who asked has opted out since.
    """
    row = conn.execute(
        "SELECT rid, EXISTS (SELECT 1 FROM opted_out o WHERE o.user_id = r.user_id) "
        "FROM retrievals r WHERE id = ?",
        (retrieval_id,),
    ).fetchone()
    if row is not None and not row[1]:
        conn.execute("UPDATE retrievals SET answer = ? WHERE rid = ?", (answer, row[0]))
    return row is not None


def query_texts(conn: sqlite3.Connection, queries: Sequence[bytes]) -> dict[bytes, str]:
    """Texts of past queries by hash."""
    rows = in_chunks(
        conn, "SELECT DISTINCT query_hash, query FROM retrievals WHERE query_hash IN (%s)", queries
    )
    texts = {read_query_hash(h): column_checks.text("retrievals.query", text) for h, text in rows}
    return column_checks.complete("retrievals.query_hash", texts, queries)


def count_retrievals(conn: sqlite3.Connection) -> int:
    """How many retrievals are recorded."""
    return int(conn.execute("SELECT count(*) FROM retrievals").fetchone()[0])


def read_query_hash(found: object) -> bytes:
    """The hash of a query as the database holds it, checked."""
    return column_checks.hashed("retrievals.query_hash", found)


def read_tenant(found: object) -> str | None:
    """A tenant, as JSON, as the database holds it, checked."""
    return column_checks.optional_text("retrievals.tenant", found)


@dataclass(frozen=True)
class AskedQuery:
    """A question that was asked; best: the score of its first hit, -inf without one."""

    question: QueryKey
    query: str
    at: float
    best: float


def asked_since(conn: sqlite3.Connection, since: float) -> list[AskedQuery]:
    """Every retrieval since a time in seconds since 1970, the oldest first."""
    rows = conn.execute(
        "SELECT query_hash, tenant, query, at, hits FROM retrievals WHERE at >= ? ORDER BY rid",
        (since,),
    )
    return [
        AskedQuery(
            QueryKey(read_query_hash(hashed), read_tenant(tenant)),
            column_checks.text("retrievals.query", query),
            column_checks.seconds("retrievals.at", at),
            max(
                (s for _, _, s in column_checks.hits("retrievals.hits", hits)),
                default=-float("inf"),
            ),
        )
        for hashed, tenant, query, at, hits in rows
    ]


@dataclass(frozen=True)
class Pair:
    """A question and the one before it in its session: the id of the latter, who asked, how many
    seconds lie between, and the hashes of both."""

    before: str
    user_id: str | None
    seconds: float
    hashes: tuple[bytes, bytes]


def with_the_one_before(conn: sqlite3.Connection, retrieval_id: str) -> Pair | None:
    """The pair that a retrieval ends; None without a session, or a question before it in other
    words and for the same tenant and user."""
    row = conn.execute(
        "SELECT b.id, a.user_id, a.at - b.at, a.query_hash, b.query_hash, a.tenant IS b.tenant "
        "AND a.user_id IS b.user_id FROM retrievals a JOIN retrievals b "
        "ON b.session_id = a.session_id AND b.rid < a.rid "
        "WHERE a.id = ? ORDER BY b.rid DESC LIMIT 1",
        (retrieval_id,),
    ).fetchone()
    if row is None or row[3] == row[4] or not row[5]:
        return None
    return Pair(
        column_checks.text("retrievals.id", row[0]),
        column_checks.optional_text("retrievals.user_id", row[1]),
        max(0.0, column_checks.number("retrievals.at", row[2])),
        (read_query_hash(row[3]), read_query_hash(row[4])),
    )
