"""Retrieval records and votes: appended, and never changed here.

Only forgetting a user and folding old events take rows away. This module must not know what votes
mean for a ranking.
"""

import heapq
import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from rag_flywheel.records import Kind, PastVotes, Signal, Verdict, VoteEvent
from rag_flywheel.store import cells
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
        str(id_): (int(rid), {name: pid for pid, name, _ in cells.hits("retrievals.hits", hits)})
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
    hits = tuple(cells.hits("retrievals.hits", row[1]))
    return Shown(int(row[0]), hits, cells.optional_text("retrievals.answer", row[2]))


def logged_scores(
    conn: sqlite3.Connection, retrievals: Sequence[int]
) -> dict[int, list[tuple[int, float]]]:
    """By row of a retrieval: (lineage, score) of each hit it showed, the best first."""
    rows = in_chunks(conn, "SELECT rid, hits FROM retrievals WHERE rid IN (%s)", list(retrievals))
    hits = {
        int(rid): [(pid, score) for pid, _, score in cells.hits("retrievals.hits", text)]
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
            (cells.whole("passages.lineage", lineages.get(pid, pid)), score) for pid, score in found
        ]
        for rid, found in hits.items()
    }
    return cells.complete("retrievals.rid", scores, retrievals)


def first_retrievals(
    conn: sqlite3.Connection, questions: Collection[tuple[bytes, str | None]]
) -> dict[tuple[bytes, str | None], int]:
    """{(query hash, tenant): row of the first retrieval}, which no vote on the query had moved."""
    rows = in_chunks(
        conn,
        "SELECT query_hash, tenant, min(rid) FROM retrievals WHERE query_hash IN (%s) "
        "GROUP BY query_hash, tenant",
        sorted({query for query, _ in questions}),
    )
    first = {(_query(h), _tenant(tenant)): int(rid) for h, tenant, rid in rows}
    return cells.complete("retrievals.query_hash", first, questions)


def filters_of(conn: sqlite3.Connection, retrievals: Sequence[int]) -> dict[int, str | None]:
    """{row of a retrieval: its metadata filter as JSON, None: none}."""
    rows = in_chunks(conn, "SELECT rid, filter FROM retrievals WHERE rid IN (%s)", list(retrievals))
    found = {int(rid): cells.optional_text("retrievals.filter", where) for rid, where in rows}
    return cells.complete("retrievals.rid", found, retrievals)


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


@dataclass(frozen=True)
class NewVote:
    """A vote to append: on row `pid` of retrieval row `rid`."""

    rid: int
    pid: int
    verdict: str
    user_id: str | None
    reason: str | None


def append_votes(
    conn: sqlite3.Connection, votes: Sequence[NewVote], *, first_seq: int, at: float
) -> None:
    """Append votes under consecutive event numbers from `first_seq`."""
    conn.executemany(
        "INSERT INTO votes (seq, rid, pid, verdict, user_id, reason, at) VALUES (?,?,?,?,?,?,?)",
        [
            (first_seq + i, v.rid, v.pid, v.verdict, v.user_id, v.reason, at)
            for i, v in enumerate(votes)
        ],
    )


_VERDICTS = get_args(Verdict)
SIGNALS: tuple[str, ...] = get_args(Signal)
KINDS: tuple[str, ...] = ("vote", "answer", "correction", "adopted", *SIGNALS)
_COLUMNS = "v.seq, v.rid, r.query_hash, r.tenant, p.lineage, v.verdict, v.user_id, v.at"
_SAID = (
    f"SELECT {_COLUMNS}, 1.0, 'vote', 1.0 FROM votes v JOIN retrievals r ON r.rid = v.rid "
    "JOIN passages p ON p.pid = v.pid WHERE ",
    f"SELECT {_COLUMNS}, c.credit, v.kind, coalesce(k.trust, 1.0) FROM answer_votes v "
    "JOIN credits c ON c.seq = v.seq LEFT JOIN trusts k ON k.kind = v.kind "
    "JOIN retrievals r ON r.rid = v.rid JOIN passages p ON p.pid = c.pid WHERE ",
)
"""Votes on hits, and the part of each hit in what was said of whole answers."""
EVENTS = ("votes", "answer_votes")
"""The tables of what was said of retrievals: columns seq, rid, verdict, user_id and at in each."""


def votes_until(conn: sqlite3.Connection, last: int) -> Iterator[VoteEvent]:
    """Every vote up to event number `last`, in order."""
    rows = (conn.execute(sql + "v.seq <= ? ORDER BY v.seq, p.pid", (last,)) for sql in _SAID)
    return heapq.merge(*(map(_vote, each) for each in rows), key=lambda vote: vote.seq)


def votes_on_queries(
    conn: sqlite3.Connection, queries: Sequence[bytes], last: int
) -> list[VoteEvent]:
    """Every vote up to event number `last` on these queries, in order."""
    where = "r.query_hash IN (%s) AND v.seq <= ? ORDER BY v.seq, p.pid"
    rows = (row for sql in _SAID for row in in_chunks(conn, sql + where, list(queries), (last,)))
    return sorted(map(_vote, rows), key=lambda vote: vote.seq)


def votes_on_retrievals(conn: sqlite3.Connection, retrievals: Sequence[int]) -> list[VoteEvent]:
    """Every vote on these retrieval rows, in order."""
    where = "v.rid IN (%s) ORDER BY v.seq, p.pid"
    rows = (row for sql in _SAID for row in in_chunks(conn, sql + where, list(retrievals)))
    return sorted(map(_vote, rows), key=lambda vote: vote.seq)


def queries_voted_on(conn: sqlite3.Connection, after: int, last: int) -> list[bytes]:
    """Hashes of the queries that got votes after event number `after`, up to `last`."""
    each = " UNION ".join(
        f"SELECT r.query_hash FROM {table} v JOIN retrievals r ON r.rid = v.rid "
        "WHERE v.seq > :after AND v.seq <= :last"
        for table in EVENTS
    )
    return [_query(row[0]) for row in conn.execute(each, {"after": after, "last": last})]


_BY_NUMBER = (
    "SELECT r.query, p.id, v.verdict, NULL, 'vote' FROM votes v JOIN retrievals r ON r.rid = v.rid "
    "JOIN passages p ON p.pid = v.pid WHERE v.seq IN (%s)",
    "SELECT r.query, p.id, v.verdict, c.credit * coalesce(k.trust, 1.0), v.kind "
    "FROM answer_votes v JOIN credits c ON c.seq = v.seq AND c.credit > 0 "
    "LEFT JOIN trusts k ON k.kind = v.kind JOIN retrievals r ON r.rid = v.rid "
    "JOIN passages p ON p.pid = c.pid WHERE v.seq IN (%s)",
)


def votes_by_number(
    conn: sqlite3.Connection, numbers: Sequence[int], weights: Mapping[Kind, float]
) -> list[PastVotes]:
    """These votes by query and passage, those with the most votes first; weights: of each kind."""
    counts: dict[tuple[str, str], dict[str, float]] = {}
    for query, passage, verdict, credit, kind in (
        row for sql in _BY_NUMBER for row in in_chunks(conn, sql, list(numbers))
    ):
        key = cells.text("retrievals.query", query), cells.text("passages.id", passage)
        n = counts.setdefault(key, defaultdict(float))
        if credit is None:
            n[_verdict(verdict)] += 1
        else:
            sign = {"helpful": 1.0, "harmful": -1.0}.get(_verdict(verdict), 0.0)
            n["shared"] += sign * weights[_kind(kind)] * cells.number("credits.credit", credit)
    found = [
        PastVotes(*key, int(n["helpful"]), int(n["harmful"]), n["shared"])
        for key, n in counts.items()
    ]
    return sorted(
        found, key=lambda v: (-v.helpful - v.harmful, -abs(v.shared), v.query, v.passage_id)
    )


def query_texts(conn: sqlite3.Connection, queries: Sequence[bytes]) -> dict[bytes, str]:
    """Texts of past queries by hash."""
    rows = in_chunks(
        conn, "SELECT DISTINCT query_hash, query FROM retrievals WHERE query_hash IN (%s)", queries
    )
    texts = {_query(h): cells.text("retrievals.query", text) for h, text in rows}
    return cells.complete("retrievals.query_hash", texts, queries)


def count_votes(conn: sqlite3.Connection, after: int = 0) -> int:
    """How many votes, on hits or on answers, came after event number `after`."""
    each = " + ".join(f"(SELECT count(*) FROM {table} WHERE seq > :after)" for table in EVENTS)
    return int(conn.execute(f"SELECT {each}", {"after": after}).fetchone()[0])


def count_retrievals(conn: sqlite3.Connection) -> int:
    """How many retrievals are recorded."""
    return int(conn.execute("SELECT count(*) FROM retrievals").fetchone()[0])


def _vote(row: tuple[Any, ...]) -> VoteEvent:
    seq, rid, query, tenant, lineage, verdict, user, at, credit, kind, trust = row
    return VoteEvent(
        cells.whole("votes.seq", seq),
        cells.whole("votes.rid", rid),
        _query(query),
        _tenant(tenant),
        cells.whole("passages.lineage", lineage),
        _verdict(verdict),
        cells.optional_text("votes.user_id", user),
        cells.seconds("votes.at", at),
        cells.share("credits.credit", credit),
        _kind(kind),
        cells.trust("trusts.trust", trust),
    )


def _query(found: object) -> bytes:
    return cells.hashed("retrievals.query_hash", found)


def _tenant(found: object) -> str | None:
    return cells.optional_text("retrievals.tenant", found)


def _verdict(found: object) -> Verdict:
    if found not in _VERDICTS:
        cells.refuse("votes.verdict", found, " or ".join(_VERDICTS))
    return cast(Verdict, found)


def _kind(found: object) -> Kind:
    if found not in KINDS:
        cells.refuse("answer_votes.kind", found, " or ".join(KINDS))
    return cast(Kind, found)
