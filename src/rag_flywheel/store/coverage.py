"""What `coverage` reads of the log: what was asked since when, what was shown for it, what was voted on."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from rag_flywheel.records import Pids, QueryKey, TenantScope
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection, in_chunks, scalar
from rag_flywheel.store.filters import plain_filter
from rag_flywheel.store.metadata_columns import MetadataColumns
from rag_flywheel.store.passages import present_pids
from rag_flywheel.store.retrievals import read_query_hash, read_tenant

# a correction is stored among the verdicts on answers; signals of use are no votes
_VOTES = (
    "SELECT r.query_hash, r.tenant, v.at FROM votes v JOIN retrievals r ON r.rid = v.rid "
    "WHERE v.verdict != 'retract' AND v.at >= ?",
    "SELECT r.query_hash, r.tenant, v.at FROM answer_votes v JOIN retrievals r ON r.rid = v.rid "
    "WHERE v.verdict != 'retract' AND v.kind IN ('answer', 'correction') AND v.at >= ?",
)


class Asking(NamedTuple):
    """One time that a question was asked: the row of the retrieval, when, and the chance of an answer."""

    rid: int
    question: QueryKey
    at: float
    answerable: float | None


def askings(
    conn: Connection, since: float, until: float, n: int, scope: TenantScope
) -> list[Asking]:
    """The n newest retrievals of a period, in seconds since 1970, the newest first."""
    within, values = scope.sql("tenant")
    rows = conn.execute(
        "SELECT rid, query_hash, tenant, at, answerable FROM retrievals "
        f"WHERE at >= ? AND at < ?{within} ORDER BY at DESC, rid DESC LIMIT ?",
        (since, until, *values, n),
    )
    return [
        Asking(
            column_checks.whole("retrievals.rid", rid),
            QueryKey(read_query_hash(hashed), read_tenant(tenant)),
            column_checks.seconds("retrievals.at", at),
            column_checks.optional_share("retrievals.answerable", answerable),
        )
        for rid, hashed, tenant, at, answerable in rows
    ]


def votes_since(
    conn: Connection, since: float, n: int, scope: TenantScope
) -> list[tuple[QueryKey, float]]:
    """(question, when) of the newest votes, verdicts on answers and corrections, n of each at most."""
    within, values = scope.sql("r.tenant")
    return [
        (QueryKey(read_query_hash(hashed), read_tenant(tenant)), column_checks.seconds("at", at))
        for sql in _VOTES
        for hashed, tenant, at in conn.execute(
            f"{sql}{within} ORDER BY v.seq DESC LIMIT ?", (since, *values, n)
        )
    ]


def first_askings(conn: Connection, questions: Collection[QueryKey]) -> dict[QueryKey, int]:
    """The row of the first retrieval of each question, however often it was asked since."""
    sql = "SELECT rid FROM retrievals WHERE query_hash = ? AND tenant IS ? ORDER BY rid LIMIT 1"
    rows = {question: scalar(conn, sql, question) for question in questions}
    first = {question: int(rid) for question, rid in rows.items() if rid is not None}
    return column_checks.complete("retrievals.query_hash", first, questions)


def first_hits(conn: Connection, rids: Sequence[int]) -> dict[int, float | None]:
    """By row of a retrieval: the relevance of its first hit, 0: it had none, None: it was not logged."""
    rows = in_chunks(conn, "SELECT rid, hits FROM retrievals WHERE rid IN (%s)", list(rids))
    every = (
        (rid, column_checks.hits_with_relevance("retrievals.hits", hits)) for rid, hits in rows
    )
    return {int(rid): hits[0][3] if hits else 0.0 for rid, hits in every}


def shown_counts(conn: Connection, rids: Sequence[int]) -> Counter[int]:
    """How often each passage text was shown in these retrievals, by the row whose votes it inherits."""
    rows = in_chunks(conn, "SELECT rid, hits FROM retrievals WHERE rid IN (%s)", list(rids))
    by_pid = Counter(
        pid for _, hits in rows for pid, _, _ in column_checks.hits("retrievals.hits", hits)
    )
    inherited = "SELECT pid, lineage FROM passages WHERE pid IN (%s) AND lineage != pid"
    lineages = dict(in_chunks(conn, inherited, list(by_pid)))
    counts: Counter[int] = Counter()
    for pid, n in by_pid.items():
        counts[int(lineages.get(pid, pid))] += n
    return counts


def voted(conn: Connection) -> set[int]:
    """The passage texts that any vote was ever on, by the rows whose votes they inherit."""
    rows = conn.execute(
        "SELECT pid FROM votes UNION SELECT pid FROM credits WHERE credit > 0"
    ).fetchall()
    inherited = _inherited(conn)
    return {inherited.get(pid, pid) for (pid,) in rows}


def present_lineages(conn: Connection, scope: TenantScope) -> list[int]:
    """For each passage in the index and in the scope, the row whose votes it inherits."""
    inherited = _inherited(conn)
    return [inherited.get(pid, pid) for pid in _pids(conn, scope).tolist()]


def _inherited(conn: Connection) -> dict[int, int]:
    """The row whose votes each text inherits, where that is another one; no text is read."""
    rows = conn.execute(
        "SELECT pid, lineage FROM passages INDEXED BY passages_lineage WHERE lineage != pid"
    )
    return {int(pid): column_checks.whole("passages.lineage", lineage) for pid, lineage in rows}


def _pids(conn: Connection, scope: TenantScope) -> Pids:
    if scope.where is None:
        return present_pids(conn)
    return MetadataColumns().matching(conn, plain_filter(scope.where))
