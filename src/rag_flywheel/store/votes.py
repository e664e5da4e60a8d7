"""Votes on hits and on whole answers: appended, and never changed here.

Only forgetting a user and folding old events delete rows. This module must not know what votes mean
for a ranking.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from rag_flywheel.records import ALL_TENANTS, PastVotes, Signal, TenantScope, Verdict
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection, append_rows, each_row, in_chunks, scalar
from rag_flywheel.store.event_types import ONE_TIME, Kind, VoteEvent
from rag_flywheel.store.mutes import not_muted
from rag_flywheel.store.retrievals import read_query_hash, read_query_hashes, read_tenant


@dataclass(frozen=True)
class NewVote:
    """A vote to append: on row `pid` of retrieval row `rid`."""

    rid: int
    pid: int
    verdict: str
    user_id: str | None
    reason: str | None
    trust: float = 1.0
    source: str | None = None


def append_votes(conn: Connection, votes: Sequence[NewVote], *, first_seq: int, at: float) -> None:
    """Append votes under consecutive event numbers from `first_seq`."""
    rows = (
        (seq, at, v.rid, v.pid, v.verdict, v.user_id, v.reason, v.trust, v.source)
        for seq, v in enumerate(votes, first_seq)
    )
    conn.executemany(
        "INSERT INTO votes (seq, at, rid, pid, verdict, user_id, reason, trust, source) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )


_VERDICTS = get_args(Verdict)
SIGNALS: tuple[str, ...] = get_args(Signal)
KINDS: tuple[str, ...] = ("vote", "answer", "correction", "adopted", "judge", *SIGNALS)
_COLUMNS = (
    "v.seq, v.rid, r.query_hash, r.tenant, p.lineage, v.verdict, v.user_id, v.at, r.session_id, "
    "r.voters, r.voters_at, v.source IS NOT NULL, v.trust"
)
_HEARD = f"WHERE {not_muted('v.user_id')} AND "
_FROM_VOTES = (
    "FROM votes v JOIN retrievals r ON r.rid = v.rid JOIN passages p ON p.pid = v.pid " + _HEARD
)
_FROM_ANSWER_VOTES = (
    "FROM answer_votes v JOIN credits c ON c.seq = v.seq LEFT JOIN trusts k ON k.kind = v.kind "
    "JOIN retrievals r ON r.rid = v.rid JOIN passages p ON p.pid = c.pid " + _HEARD
)
_SELECT_VOTES = (
    f"SELECT {_COLUMNS}, 1.0, 'vote', 1.0 {_FROM_VOTES}",
    f"SELECT {_COLUMNS}, c.credit, v.kind, coalesce(k.trust, 1.0) {_FROM_ANSWER_VOTES}",
)
"""SQL: votes on hits, and the part of each hit in the votes on whole answers, of users who are heard."""
EVENTS = ("votes", "answer_votes")
"""The tables of votes; both have the columns seq, rid, verdict, user_id and at."""


def votes_until(conn: Connection, last: int) -> Iterator[VoteEvent]:
    """Every vote up to event number `last`, in order."""
    rows = (
        each_row(conn, sql + "v.seq <= ? ORDER BY v.seq, p.pid", (last,)) for sql in _SELECT_VOTES
    )
    return heapq.merge(*(map(_vote, each) for each in rows), key=lambda vote: vote.seq)


def votes_on_queries(conn: Connection, queries: Sequence[bytes], last: int) -> list[VoteEvent]:
    """Every vote up to event number `last` on these queries, in order."""
    where = "r.query_hash IN (%s) AND v.seq <= ? ORDER BY v.seq, p.pid"
    rows = (
        row for sql in _SELECT_VOTES for row in in_chunks(conn, sql + where, list(queries), (last,))
    )
    return sorted(map(_vote, rows), key=lambda vote: vote.seq)


def votes_on_retrievals(conn: Connection, retrievals: Sequence[int]) -> list[VoteEvent]:
    """Every vote on these retrieval rows, in order."""
    where = "v.rid IN (%s) ORDER BY v.seq, p.pid"
    rows = (row for sql in _SELECT_VOTES for row in in_chunks(conn, sql + where, list(retrievals)))
    return sorted(map(_vote, rows), key=lambda vote: vote.seq)


def questions_voted_on(conn: Connection, after: int, last: int) -> dict[str | None, list[bytes]]:
    """The questions that got votes after event number `after`, up to `last`: distinct hashes by tenant,
    in the order of their first votes."""
    each = " UNION ALL ".join(
        f"SELECT r.query_hash, r.tenant FROM {table} v JOIN retrievals r ON r.rid = v.rid "
        "WHERE v.seq > :after AND v.seq <= :last"
        for table in EVENTS
    )
    found: dict[str | None, dict[bytes, None]] = defaultdict(dict)
    for name, tenant in conn.execute(each, {"after": after, "last": last}):
        found[tenant][name] = (
            None  # no object of its own for each, which the garbage collector follows
        )
    return {read_tenant(tenant): read_query_hashes(names) for tenant, names in found.items()}


_BY_NUMBER = (
    f"SELECT r.query_hash, r.query, p.id, r.tenant, v.verdict, NULL, 'vote' {_FROM_VOTES} v.seq IN (%s)",
    "SELECT r.query_hash, r.query, p.id, r.tenant, v.verdict, c.credit * coalesce(k.trust, 1.0), v.kind "
    f"{_FROM_ANSWER_VOTES} c.credit > 0 AND v.seq IN (%s)",
)


def votes_by_number(
    conn: Connection,
    numbers: Sequence[int],
    weights: Mapping[Kind, float],
    scope: TenantScope = ALL_TENANTS,
) -> list[PastVotes]:
    """Those of these votes that are in the scope, summed by query and passage, those with the most first.

    weights: of each kind.
    """
    within, values = scope.sql("r.tenant")
    counts: dict[tuple[bytes, str, str, str | None], dict[str, float]] = {}
    for name, query, passage, tenant, verdict, credit, kind in (
        row for sql in _BY_NUMBER for row in in_chunks(conn, sql + within, list(numbers), values)
    ):
        key = (
            read_query_hash(name),
            column_checks.text("retrievals.query", query),
            column_checks.text("passages.id", passage),
            read_tenant(tenant),
        )
        n = counts.setdefault(key, defaultdict(float))
        if credit is None:
            n[_verdict(verdict)] += 1
        else:
            sign = {"helpful": 1.0, "harmful": -1.0}.get(_verdict(verdict), 0.0)
            n["shared"] += (
                sign * weights[_kind(kind)] * column_checks.number("credits.credit", credit)
            )
    totals = (
        PastVotes(query, passage, int(n["helpful"]), int(n["harmful"]), n["shared"], tenant)
        for (_, query, passage, tenant), n in counts.items()
    )
    return sorted(
        totals,
        key=lambda v: (
            -v.helpful - v.harmful,
            -abs(v.shared),
            v.query,
            v.passage_id,
            v.tenant or "",
        ),
    )


def count_of_voice(
    conn: Connection,
    user_id: str | None,
    rid: int,
    *,
    since: float,
    until: float,
    corrections: bool,
) -> int:
    """How many votes whoever votes on retrieval row `rid` gave between two times, or how many corrections.

    Without a user id these are the votes of the retrieval's session, and without one those on it.
    """
    sql = _COUNTING[corrections, user_id is None]
    return int(scalar(conn, sql, {"since": since, "until": until, "user": user_id, "rid": rid}))


def count_of_users(
    conn: Connection, users: Sequence[str], *, since: float, until: float
) -> Counter[str]:
    """How many votes each of these users gave between two times; corrections are none."""
    found: Counter[str] = Counter()
    for table, kinds in (("votes", ""), ("answer_votes", " AND kind != 'correction'")):
        sql = (
            f"SELECT user_id, count(*) FROM {table} WHERE user_id IN (%s) AND at > ? AND at <= ?{kinds} "
            "GROUP BY user_id"
        )
        found.update({str(user): int(n) for user, n in in_chunks(conn, sql, users, (since, until))})
    return found


def _counting(*, corrections: bool, anonymous: bool) -> str:
    """SQL of `count_of_voice`."""
    kinds = f"v.kind {'=' if corrections else '!='} 'correction'"
    parts = [
        f"SELECT count(*) FROM answer_votes v WHERE {kinds} AND v.at > :since AND v.at <= :until AND "
    ]
    if not corrections:
        parts.append("SELECT count(*) FROM votes v WHERE v.at > :since AND v.at <= :until AND ")
    whose = "v.user_id = :user"
    if anonymous:
        whose = (
            "v.user_id IS NULL AND v.rid IN (SELECT o.rid FROM retrievals r JOIN retrievals o ON "
            "o.session_id = r.session_id WHERE r.rid = :rid UNION SELECT :rid)"
        )
    return "SELECT " + " + ".join(f"({part}{whose})" for part in parts)


_COUNTING = {
    (corrections, anonymous): _counting(corrections=corrections, anonymous=anonymous)
    for corrections in (False, True)
    for anonymous in (False, True)
}


@dataclass(frozen=True)
class CastByUser:
    """How many votes a user cast, on how many questions, and how many of them without any trust."""

    votes: int
    questions: int
    over: int


def cast_by_user(conn: Connection) -> dict[str, CastByUser]:
    """The votes of each user who has an id, by it."""
    every = " UNION ALL ".join(
        f"SELECT v.user_id AS user_id, r.query_hash AS query, v.trust AS trust FROM {table} v "
        "JOIN retrievals r ON r.rid = v.rid WHERE v.user_id IS NOT NULL"
        for table in EVENTS
    )
    rows = conn.execute(
        f"SELECT user_id, count(*), count(DISTINCT query), sum(CASE WHEN trust <= 0.0 THEN 1 ELSE 0 END) "
        f"FROM ({every}) cast_votes "
        f"WHERE user_id NOT LIKE '{ONE_TIME}%' GROUP BY user_id ORDER BY user_id"
    )
    return {
        column_checks.text("votes.user_id", user): CastByUser(int(n), int(n_questions), int(over))
        for user, n, n_questions, over in rows
    }


def queries_of_users(conn: Connection, users: Sequence[str]) -> list[bytes]:
    """Hashes of the queries that these users voted on."""
    found: set[bytes] = set()
    for table in EVENTS:
        sql = (
            f"SELECT DISTINCT r.query_hash FROM {table} v JOIN retrievals r ON r.rid = v.rid "
            "WHERE v.user_id IN (%s)"
        )
        found |= {read_query_hash(row[0]) for row in in_chunks(conn, sql, list(users))}
    return sorted(found)


def count_votes(conn: Connection, after: int = 0) -> int:
    """How many votes, on hits or on answers, came after event number `after`."""
    each = " + ".join(f"(SELECT count(*) FROM {table} WHERE seq > :after)" for table in EVENTS)
    return int(scalar(conn, f"SELECT {each}", {"after": after}))


def _vote(row: tuple[Any, ...]) -> VoteEvent:
    seq, rid, query, tenant, lineage, verdict, user, at, session, voters, voters_at, *rest = row
    imported, given, credit, kind, trust = rest
    return VoteEvent(
        column_checks.whole("votes.seq", seq),
        column_checks.whole("votes.rid", rid),
        read_query_hash(query),
        read_tenant(tenant),
        column_checks.whole("passages.lineage", lineage),
        _verdict(verdict),
        column_checks.optional_text("votes.user_id", user),
        column_checks.seconds("votes.at", at),
        column_checks.share("credits.credit", credit),
        _kind(kind),
        column_checks.trust("trusts.trust", trust) * column_checks.trust("votes.trust", given),
        column_checks.optional_text("retrievals.session_id", session),
        column_checks.optional_whole("retrievals.voters", voters) or 0,
        column_checks.optional_whole("retrievals.voters_at", voters_at) or 0,
        bool(imported),
    )


def _verdict(value: object) -> Verdict:
    if value not in _VERDICTS:
        column_checks.refuse("votes.verdict", value, " or ".join(_VERDICTS))
    return cast(Verdict, value)


def _kind(value: object) -> Kind:
    if value not in KINDS:
        column_checks.refuse("answer_votes.kind", value, " or ".join(KINDS))
    return cast(Kind, value)


def replace_trusts(conn: Connection, trusts: Mapping[str, float]) -> None:
    """Store these factors by kind of signal, and delete all others."""
    conn.execute("DELETE FROM trusts")
    append_rows(conn, "trusts", *({"kind": k, "trust": t} for k, t in trusts.items()))


def stored_trusts(conn: Connection) -> dict[str, float]:
    """The factors that are stored, by kind of signal."""
    rows = conn.execute("SELECT kind, trust FROM trusts ORDER BY kind")
    return {
        column_checks.text("trusts.kind", k): column_checks.trust("trusts.trust", t)
        for k, t in rows
    }


def has_signals(conn: Connection) -> bool:
    """Whether any signal, or any trust in one, is stored."""
    sql = (
        "SELECT EXISTS (SELECT 1 FROM answer_votes WHERE kind NOT IN ('answer', 'correction')) "
        "OR EXISTS (SELECT 1 FROM trusts)"
    )
    return bool(scalar(conn, sql))


@dataclass(frozen=True)
class NewAnswerVote:
    """A vote on the answer of retrieval row `rid`; credits: the part of each pid in it, 0 to 1."""

    rid: int
    kind: str
    verdict: str
    user_id: str | None
    credits: Mapping[int, float]
    why: str | None = None
    trust: float = 1.0
    source: str | None = None


def append_answer_vote(conn: Connection, new: NewAnswerVote, *, seq: int, at: float) -> None:
    """Append a vote on an answer under an event number."""
    row = {"seq": seq, "at": at, **vars(new)}
    credits = row.pop("credits")
    append_rows(conn, "answer_votes", row)
    append_rows(conn, "credits", *({"seq": seq, "pid": p, "credit": c} for p, c in credits.items()))


def named_before(conn: Connection, rid: int, user_id: str | None) -> list[int]:
    """Pids that a user has named as the answer of retrieval row `rid`."""
    rows = conn.execute(
        "SELECT DISTINCT c.pid FROM answer_votes v JOIN credits c ON c.seq = v.seq "
        "WHERE v.rid = ? AND v.kind = 'correction' AND v.user_id IS ?",
        (rid, user_id),
    )
    return [int(row[0]) for row in rows]


def drop_loose_credits(conn: Connection) -> None:
    """Delete the credits of events that are no longer stored."""
    conn.execute(
        "DELETE FROM credits WHERE NOT EXISTS "
        "(SELECT 1 FROM answer_votes v WHERE v.seq = credits.seq)"
    )


def waiting(conn: Connection, after: int) -> tuple[int, float]:
    """(how many votes came after an event, when the first of them did, in seconds since 1970 UTC)."""
    n, first = conn.execute(
        "SELECT count(*), min(at) FROM (SELECT at FROM votes WHERE seq > ? UNION ALL "
        "SELECT at FROM answer_votes WHERE seq > ?) newer",
        (after, after),
    ).fetchone()
    return int(n), column_checks.seconds("votes.at", first) if n else 0.0


@dataclass(frozen=True)
class AnswerVerdict:
    """A verdict on the answer of a retrieval, whose text is stored; event: the vote itself, with the row of
    the retrieval in the place of a passage text. query: "" where its words are not stored."""

    event: VoteEvent
    query: str
    answer: str


def answer_verdicts(conn: Connection, last: int) -> Iterator[AnswerVerdict]:
    """Every verdict on an answer whose text is stored, up to event number `last`, in order."""
    columns = _COLUMNS.replace("p.lineage", "v.rid")
    rows = conn.execute(
        f"SELECT {columns}, 1.0, 'answer', 1.0, r.query, r.answer FROM answer_votes v "
        f"JOIN retrievals r ON r.rid = v.rid {_HEARD} v.kind = 'answer' AND r.answer IS NOT NULL "
        "AND v.seq <= ? ORDER BY v.seq",
        (last,),
    )
    for *event, query, answer in rows:
        yield AnswerVerdict(
            _vote(tuple(event)),
            column_checks.text("retrievals.query", query),
            column_checks.text("retrievals.answer", answer),
        )


def credited(conn: Connection, numbers: Sequence[int]) -> dict[int, list[int]]:
    """By number of a vote on an answer: the lineages of the texts that have a part in it."""
    found: dict[int, list[int]] = defaultdict(list)
    sql = (
        "SELECT c.seq, p.lineage FROM credits c JOIN passages p ON p.pid = c.pid "
        "WHERE c.credit > 0 AND c.seq IN (%s)"
    )
    for seq, lineage in in_chunks(conn, sql, numbers):
        found[int(seq)].append(column_checks.whole("passages.lineage", lineage))
    return found
