"""The log as callers read it: recorded retrievals and votes.

What votes mean is not known here.
"""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from rag_flywheel.records import (
    DayActivity,
    QueryKey,
    RecordedHit,
    RecordedRetrieval,
    RecordedVote,
    TenantScope,
)
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection, each_row, in_chunks, scalar
from rag_flywheel.store.mutes import not_muted
from rag_flywheel.store.period import Period
from rag_flywheel.store.retrievals import read_query_hash, read_tenant
from rag_flywheel.store.users import not_opted_out

EXPLICIT = ("vote", "correction")  # kinds that are on one passage, and on no other
_AT_ONCE = 500  # votes whose shares are read together
_RETRIEVALS = (
    "SELECT id, kind, at, query, k, filter, tenant, version, user_id, session_id, latency_ms, hits, "
    "answerable, answer, source, (SELECT external FROM imports i WHERE i.rid = retrievals.rid "
    "AND i.seq IS NULL) FROM retrievals WHERE "
)
# a correction and a signal on one passage are verdicts whose only credit is that passage's
_VOTES = {
    "votes": "SELECT v.seq, v.at, r.id, p.id, 'vote', v.verdict, v.user_id, v.reason, v.trust, r.query, "
    "r.tenant, v.source, r.session_id FROM votes v JOIN retrievals r ON r.rid = v.rid "
    "JOIN passages p ON p.pid = v.pid",
    "answer_votes": "SELECT v.seq, v.at, r.id, CASE WHEN v.kind NOT IN ('answer', 'adopted') THEN "
    "(SELECT max(p.id) FROM credits c JOIN passages p ON p.pid = c.pid WHERE c.seq = v.seq "
    "AND c.credit > 0 HAVING count(*) = 1) END, v.kind, v.verdict, v.user_id, v.why, v.trust, r.query, "
    "r.tenant, v.source, r.session_id FROM answer_votes v JOIN retrievals r ON r.rid = v.rid",
}


def retrieval(conn: Connection, retrieval_id: str, scope: TenantScope) -> RecordedRetrieval | None:
    """A recorded retrieval of the scope; None when none has this id."""
    within, values = scope.sql("tenant")
    row = conn.execute(_RETRIEVALS + "id = ?" + within, (retrieval_id, *values)).fetchone()
    return None if row is None else _retrieval(*row)


def row_number(conn: Connection, retrieval_id: str, scope: TenantScope) -> int | None:
    """Where a recorded retrieval of the scope stands in the order of recording."""
    within, values = scope.sql("tenant")
    sql = "SELECT rid FROM retrievals WHERE id = ?" + within
    row = conn.execute(sql, (retrieval_id, *values)).fetchone()
    return None if row is None else column_checks.whole("retrievals.rid", row[0])


def retrievals(
    conn: Connection, n: int, scope: TenantScope, *, before: int | None = None
) -> list[RecordedRetrieval]:
    """The n newest retrievals of the scope, of those recorded before this row number."""
    within, values = scope.sql("tenant")
    last = before if before is not None else 2**63 - 1
    sql = f"{_RETRIEVALS}rid < ?{within} ORDER BY rid DESC LIMIT ?"
    return [_retrieval(*row) for row in conn.execute(sql, (last, *values, n))]


def votes(
    conn: Connection, n: int, scope: TenantScope, *, before: int | None = None
) -> list[RecordedVote]:
    """The n newest votes, verdicts, signals and corrections of the scope, before this event number."""
    within, values = scope.sql("r.tenant")
    last = before if before is not None else 2**63 - 1
    each: list[Iterator[tuple[Any, ...]]] = [
        conn.execute(
            f"{sql} WHERE v.seq < ?{within} ORDER BY v.seq DESC LIMIT ?", (last, *values, n)
        )
        for sql in _VOTES.values()
    ]
    newest = heapq.merge(*each, key=lambda row: -row[0])
    return [_vote(*row[:-1]) for row in itertools.islice(newest, n)]


def count_retrievals(conn: Connection, scope: TenantScope, period: Period) -> int:
    """How many retrievals of the scope and the period are recorded."""
    within, values = _named(scope, "tenant")
    sql = f"SELECT count(*) FROM retrievals WHERE 1 = 1{within}{period.sql('at')}"
    return int(scalar(conn, sql, {**values, **period.values}))


def every_retrieval(
    conn: Connection, scope: TenantScope, period: Period
) -> Iterator[RecordedRetrieval]:
    """The retrievals of the scope and the period, the oldest first, but for those of people who opted
    out."""
    within, values = _named(scope, "tenant")
    sql = (
        f"{_RETRIEVALS}{not_opted_out('retrievals.user_id')}{within}{period.sql('at')} ORDER BY rid"
    )
    for row in each_row(conn, sql, {**values, **period.values}):
        found = _retrieval(*row)
        yield replace(found, at=_exact_utc(row[2]))


@dataclass(frozen=True)
class LoggedVote:
    """A vote in the log, its time to the microsecond, since several may be cast in a second.

    session: the keyed hash of the session of its question. shares: the part of each passage, by its id, in
        what is neither a vote on one nor a correction; None: it is one.
    """

    vote: RecordedVote
    session: str | None
    shares: Mapping[str, float] | None


_ALLOWED = f"{not_opted_out('v.user_id')} AND {not_opted_out('r.user_id')}"


def count_votes(
    conn: Connection, scope: TenantScope, period: Period
) -> dict[Literal["all", "opted out", "muted"], int]:
    """How many votes of the scope and the period there are; how many are of people who opted out, or on
    their questions; and how many of the others are of people who are muted."""
    within, values = _named(scope, "r.tenant")
    conditions: dict[Literal["all", "opted out", "muted"], str] = {
        "all": "1 = 1",
        "opted out": f"NOT ({_ALLOWED})",
        "muted": f"{_ALLOWED} AND NOT ({not_muted('v.user_id')})",
    }
    counts = {}
    for name, condition in conditions.items():
        each = (
            f"(SELECT count(*) FROM {table} v JOIN retrievals r ON r.rid = v.rid "
            f"WHERE {condition}{within}{period.sql('v.at')})"
            for table in _VOTES
        )
        sql = f"SELECT {' + '.join(each)}"
        counts[name] = int(scalar(conn, sql, {**values, **period.values}))
    return counts


def every_vote(conn: Connection, scope: TenantScope, period: Period) -> Iterator[LoggedVote]:
    """The votes of the scope and the period, the oldest first, but for those of people who opted out, on
    their questions, or of people who are muted."""
    within, values = _named(scope, "r.tenant")
    where = f"{_ALLOWED} AND {not_muted('v.user_id')}{within}{period.sql('v.at')}"
    each: list[Iterator[tuple[Any, ...]]] = [
        each_row(conn, f"{sql} WHERE {where} ORDER BY v.seq", {**values, **period.values})
        for sql in _VOTES.values()
    ]
    merged = heapq.merge(*each, key=lambda row: row[0])
    while some := list(itertools.islice(merged, _AT_ONCE)):
        shares = _shares(conn, [row[0] for row in some if row[4] not in EXPLICIT])
        for *row, session in some:
            yield LoggedVote(
                replace(_vote(*row), at=_exact_utc(row[1])),
                column_checks.optional_text("retrievals.session_id", session),
                None if row[4] in EXPLICIT else shares.get(row[0], {}),
            )


def _shares(conn: Connection, numbers: Sequence[int]) -> dict[int, dict[str, float]]:
    """By number of a vote: the part of each passage in it, by its id."""
    found: dict[int, dict[str, float]] = defaultdict(dict)
    sql = (
        "SELECT c.seq, p.id, c.credit FROM credits c JOIN passages p ON p.pid = c.pid "
        "WHERE c.seq IN (%s) ORDER BY c.seq, c.pid"
    )
    for seq, id_, credit in in_chunks(conn, sql, numbers):
        found[seq][column_checks.text("passages.id", id_)] = column_checks.share(
            "credits.credit", credit
        )
    return found


def _exact_utc(at: object) -> str:
    """Seconds since 1970 as ISO 8601, in UTC, to the microsecond."""
    seconds = column_checks.seconds("at", at)
    found = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    return found.replace("+00:00", "Z")


def _named(scope: TenantScope, column: str) -> tuple[str, dict[str, str]]:
    """As `TenantScope.sql`, with named values."""
    if scope.tenant is None:
        return "", {}
    return f" AND {column} = :tenant", {"tenant": scope.tenant}


@dataclass(frozen=True)
class Askings:
    """How often a question was asked; first, last: when, in seconds since 1970. newest: the row of the
    last retrieval. query: its words, "" where they are not stored."""

    question: QueryKey
    query: str
    n: int
    n_people: int
    first: float
    last: float
    newest: int


def askings(conn: Connection, scope: TenantScope) -> list[Askings]:
    """Every question that was asked in the scope, the most asked first."""
    within, values = scope.sql("tenant")
    rows = conn.execute(
        "SELECT query_hash, tenant, max(query), count(*) AS n, count(DISTINCT user_id), min(at), "
        f"max(at), max(rid) FROM retrievals WHERE 1 = 1{within} GROUP BY query_hash, tenant "
        "ORDER BY n DESC, max(rid) DESC",
        values,
    )
    return [
        Askings(
            QueryKey(read_query_hash(name), read_tenant(tenant)),
            column_checks.text("retrievals.query", query),
            n,
            n_people,
            column_checks.seconds("retrievals.at", first),
            column_checks.seconds("retrievals.at", last),
            column_checks.whole("retrievals.rid", newest),
        )
        for name, tenant, query, n, n_people, first, last, newest in rows
    ]


def answerable(conn: Connection, rows: Sequence[int]) -> dict[int, float | None]:
    """By row of a retrieval: the chance that one of its hits is right, None: not recorded."""
    found = in_chunks(conn, "SELECT rid, answerable FROM retrievals WHERE rid IN (%s)", list(rows))
    return {rid: column_checks.optional_share("retrievals.answerable", each) for rid, each in found}


def by_day(conn: Connection, since: float, scope: TenantScope) -> list[DayActivity]:
    """What was asked and voted on each day since a time in seconds since 1970, the oldest first."""
    within, values = scope.sql("r.tenant")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for day, n in conn.execute(
        "SELECT date(r.at, 'unixepoch'), count(*) FROM retrievals r "
        f"WHERE r.at >= ?{within} GROUP BY 1",
        (since, *values),
    ):
        counts[day]["retrievals"] = n
    for table, kinds in (("votes", ""), ("answer_votes", "v.kind IN ('answer', 'adopted') AND ")):
        for day, verdict, n in conn.execute(
            f"SELECT date(v.at, 'unixepoch'), v.verdict, count(*) FROM {table} v "
            f"JOIN retrievals r ON r.rid = v.rid WHERE {kinds}v.at >= ?{within} GROUP BY 1, 2",
            (since, *values),
        ):
            counts[day][verdict] += n
    return [
        DayActivity(day, n["retrievals"], n["helpful"], n["harmful"])
        for day, n in sorted(counts.items())
    ]


def utc(at: object) -> str:
    """Seconds since 1970 as ISO 8601, in UTC."""
    seconds = column_checks.seconds("at", at)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _retrieval(
    id_: str,
    kind: str,
    at: float,
    query: str,
    k: int,
    where: str | None,
    tenant: str | None,
    version: str | None,
    user: str | None,
    session: str | None,
    latency_ms: float,
    hits: str,
    answerable: float | None,
    answer: str | None,
    source: str | None,
    external_id: str | None,
) -> RecordedRetrieval:
    checked = column_checks
    return RecordedRetrieval(
        id=checked.text("retrievals.id", id_),
        kind="rerank" if kind == "rerank" else "retrieve",
        at=utc(at),
        query=checked.text("retrievals.query", query),
        k=checked.whole("retrievals.k", k),
        where=None if where is None else checked.parsed("retrievals.filter", where),
        tenant=checked.optional_text("retrievals.tenant", tenant),
        version=checked.optional_text("retrievals.version", version),
        user=checked.optional_text("retrievals.user_id", user),
        session=checked.optional_text("retrievals.session_id", session),
        latency_ms=checked.number("retrievals.latency_ms", latency_ms),
        hits=tuple(
            RecordedHit(passage_id, rank, score, relevance)
            for passage_id, rank, score, relevance in checked.hits_with_relevance(
                "retrievals.hits", hits
            )
        ),
        answerable=checked.optional_share("retrievals.answerable", answerable),
        answer=checked.optional_text("retrievals.answer", answer),
        source=checked.optional_text("retrievals.source", source),
        external_id=checked.optional_text("imports.external", external_id),
    )


def _vote(
    seq: int,
    at: float,
    retrieval_id: str,
    passage_id: str | None,
    kind: str,
    verdict: str,
    user: str | None,
    reason: str | None,
    trust: float,
    query: str,
    tenant: str | None,
    source: str | None,
) -> RecordedVote:
    checked = column_checks
    if verdict not in ("helpful", "harmful", "retract"):
        checked.refuse("votes.verdict", verdict, "a verdict")
    return RecordedVote(
        number=checked.whole("votes.seq", seq),
        at=utc(at),
        retrieval_id=checked.text("retrievals.id", retrieval_id),
        passage_id=checked.optional_text("passages.id", passage_id),
        kind=checked.text("votes.kind", kind),
        verdict=verdict,  # type: ignore[arg-type]
        user=checked.optional_text("votes.user_id", user),
        reason=checked.optional_text("votes.reason", reason),
        trust=checked.trust("votes.trust", trust),
        query=checked.text("retrievals.query", query),
        tenant=checked.optional_text("retrievals.tenant", tenant),
        source=checked.optional_text("votes.source", source),
    )
