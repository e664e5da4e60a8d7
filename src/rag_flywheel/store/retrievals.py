"""Recorded retrievals: who was shown which hits for which query, when, and from which version.

They are appended; only the answer an application gave is filled in later.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from rag_flywheel.records import ALL_TENANTS, QueryKey, TenantScope
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection, append_rows, in_chunks, scalar
from rag_flywheel.store.period import ALWAYS, Period
from rag_flywheel.store.runs import link
from rag_flywheel.store.users import not_opted_out


@dataclass(frozen=True)
class LoggedHit:
    """A hit as it was shown; parts are the terms of its score by name, and its relevance."""

    pid: int
    passage_id: str
    score: float
    parts: dict[str, float]


@dataclass(frozen=True)
class RetrievalRecord:
    """One logged retrieval, as written. `hits` are in the order of their ranks, from 1.

    candidates: (pid, the application's score) of its own candidates, None: it gave none.
    answerable: the chance that one of the k best passages answers the question.
    source: the tool that it was imported from, None: it was recorded here.
    runs: the hashes of the runs of other programs that it belongs to.
    """

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
    candidates: Sequence[tuple[int, float]] | None = None
    answerable: float | None = None
    source: str | None = None
    runs: Sequence[str] = ()


def record_retrievals(conn: Connection, records: Iterable[RetrievalRecord]) -> None:
    """Append retrievals."""
    records = list(records)
    append_rows(conn, "retrievals", *map(_row, records))
    for r in records:
        if r.runs:
            (rid, _) = rows_by_id(conn, [r.id])[r.id]
            link(conn, [(run, rid) for run in r.runs])


def _row(record: RetrievalRecord) -> dict[str, object]:
    given = None if record.candidates is None else json.dumps(record.candidates)
    row = {**vars(record), "hits": hits_text(record.hits), "candidates": given}
    del row["runs"]
    return row


def hits_text(hits: Iterable[LoggedHit]) -> str:
    """Hits as they are stored."""
    return json.dumps([[h.pid, h.passage_id, h.score, h.parts] for h in hits])


def rows_by_id(conn: Connection, ids: Sequence[str]) -> dict[str, tuple[int, str | None]]:
    """(row number, tenant as JSON) of each of these retrievals that is recorded, by its id."""
    rows = in_chunks(conn, "SELECT id, rid, tenant FROM retrievals WHERE id IN (%s)", ids)
    return {str(id_): (int(rid), read_tenant(tenant)) for id_, rid, tenant in rows}


def ids_by_row(conn: Connection, rids: Collection[int]) -> dict[int, str]:
    """The id of each of these retrievals that is recorded, by its row number; a row of one that was deleted
    may be another's later."""
    rows = in_chunks(conn, "SELECT rid, id FROM retrievals WHERE rid IN (%s)", sorted(rids))
    return {int(rid): str(id_) for rid, id_ in rows}


def read_hits(text: object) -> list[LoggedHit]:
    """Stored hits, with their parts. Raises CorruptFileError."""
    return [LoggedHit(*row) for row in column_checks.hits_with_parts("retrievals.hits", text)]


def shown_hits(
    conn: Connection, retrieval_ids: Sequence[str]
) -> dict[str, tuple[int, dict[str, int]]]:
    """By retrieval id: (its row number, {passage id: pid} of the hits it showed)."""
    sql = "SELECT id, rid, hits FROM retrievals WHERE id IN (%s)"
    pids_by_id = {}
    for id_, rid, hits in in_chunks(conn, sql, list(retrieval_ids)):
        pids = {name: pid for pid, name, _ in column_checks.hits("retrievals.hits", hits)}
        pids_by_id[str(id_)] = (int(rid), pids)
    return pids_by_id


@dataclass(frozen=True)
class Shown:
    """A recorded retrieval.

    rid: its row number.
    hits: (pid, passage id, score) of each hit that it showed.
    answer: the answer that the application gave.
    """

    rid: int
    hits: tuple[tuple[int, str, float], ...]
    answer: str | None


def shown(conn: Connection, retrieval_id: str) -> Shown | None:
    """The hits and the answer of a retrieval; None when none has this id."""
    row = conn.execute(
        "SELECT rid, hits, answer FROM retrievals WHERE id = ?", (retrieval_id,)
    ).fetchone()
    if row is None:
        return None
    hits = tuple(column_checks.hits("retrievals.hits", row[1]))
    return Shown(int(row[0]), hits, column_checks.optional_text("retrievals.answer", row[2]))


def logged_hits(
    conn: Connection, retrievals: Sequence[int]
) -> dict[int, list[tuple[int, str, float]]]:
    """By row of a retrieval: (pid, passage id, score) of each hit it showed, in the order shown."""
    rows = in_chunks(conn, "SELECT rid, hits FROM retrievals WHERE rid IN (%s)", retrievals)
    return {int(rid): column_checks.hits("retrievals.hits", hits) for rid, hits in rows}


def logged_scores(
    conn: Connection, retrievals: Sequence[int], *, with_known: bool = True
) -> dict[int, list[tuple[int, float]]]:
    """By row of a retrieval: (lineage, score) of each hit it showed, in the order shown.

    with_known: False takes off what known answers of the very question added to the score.
    """
    rows = in_chunks(conn, "SELECT rid, hits FROM retrievals WHERE rid IN (%s)", list(retrievals))
    read = column_checks.hits if with_known else column_checks.hits_without_known
    hits = {
        int(rid): [(pid, score) for pid, _, score in read("retrievals.hits", text)]
        for rid, text in rows
    }
    pids = sorted({pid for scored in hits.values() for pid, _ in scored})
    inherited = "SELECT pid, lineage FROM passages WHERE pid IN (%s) AND lineage != pid"
    lineages = dict(in_chunks(conn, inherited, pids))
    scores = {
        rid: [
            (column_checks.whole("passages.lineage", lineages.get(pid, pid)), score)
            for pid, score in scored
        ]
        for rid, scored in hits.items()
    }
    return column_checks.complete("retrievals.rid", scores, retrievals)


def first_retrievals(conn: Connection, questions: Collection[QueryKey]) -> dict[QueryKey, int]:
    """The row of the first retrieval of each question: no vote had changed its ranking yet."""
    rows = in_chunks(
        conn,
        "SELECT query_hash, tenant, min(rid) FROM retrievals WHERE query_hash IN (%s) "
        "GROUP BY query_hash, tenant",
        sorted({query for query, _ in questions}),
    )
    first = {QueryKey(read_query_hash(h), read_tenant(tenant)): int(rid) for h, tenant, rid in rows}
    return column_checks.complete("retrievals.query_hash", first, questions)


def explored_for(conn: Connection, question: QueryKey, *, newest: int) -> list[int]:
    """The pids of the hits that were explored in the newest retrievals of a question, one a time."""
    rows = conn.execute(
        "SELECT hits FROM (SELECT hits FROM retrievals WHERE query_hash = ? AND tenant IS ? "
        "ORDER BY rid DESC LIMIT ?) newest WHERE hits LIKE ?",
        (*question, newest, f'%"{column_checks.EXPLORED}"%'),
    )
    return [pid for (hits,) in rows for pid in column_checks.explored("retrievals.hits", hits)]


def filters_of(conn: Connection, retrievals: Sequence[int]) -> dict[int, str | None]:
    """By row of a retrieval: its metadata filter as JSON, None without one."""
    rows = in_chunks(conn, "SELECT rid, filter FROM retrievals WHERE rid IN (%s)", list(retrievals))
    filters = {
        int(rid): column_checks.optional_text("retrievals.filter", where) for rid, where in rows
    }
    return column_checks.complete("retrievals.rid", filters, retrievals)


def candidates_of(
    conn: Connection, retrievals: Sequence[int]
) -> dict[int, list[tuple[int, float]]]:
    """By row of a retrieval whose candidates were given: (pid, the given score) of each, in order."""
    sql = "SELECT rid, candidates FROM retrievals WHERE candidates IS NOT NULL AND rid IN (%s)"
    return {
        int(rid): column_checks.candidates("retrievals.candidates", given)
        for rid, given in in_chunks(conn, sql, list(retrievals))
    }


def given_pid(conn: Connection, rid: int, passage_id: str) -> int | None:
    """The pid of the candidate with this id that an application gave for a retrieval; None: of none."""
    pids = {pid for pid, _ in candidates_of(conn, [rid]).get(rid, ())}
    rows = conn.execute("SELECT pid FROM passages WHERE id = ? ORDER BY pid", (passage_id,))
    return next((int(row[0]) for row in rows if row[0] in pids), None)


def set_answer(conn: Connection, retrieval_id: str, answer: str) -> bool:
    """Store the answer that an application gave from a retrieval; False when none has this id.

    Nothing is stored when the user who asked has opted out since.
    """
    conn.execute(
        f"UPDATE retrievals SET answer = ? WHERE id = ? AND {not_opted_out('retrievals.user_id')}",
        (answer, retrieval_id),
    )
    return bool(rows_by_id(conn, [retrieval_id]))


def link_run(conn: Connection, retrieval_id: str, run: str) -> bool:
    """Store that a retrieval belongs to a run; False when none has this id. Nothing is stored when the user
    who asked has opted out since."""
    conn.execute(
        "INSERT INTO runs (run, rid) SELECT ?, rid FROM retrievals WHERE id = ? "
        f"AND {not_opted_out('retrievals.user_id')} ON CONFLICT DO NOTHING",
        (run, retrieval_id),
    )
    return bool(rows_by_id(conn, [retrieval_id]))


def query_texts(
    conn: Connection, queries: Sequence[bytes], scope: TenantScope = ALL_TENANTS
) -> dict[bytes, str]:
    """The texts of past queries, by hash, as they were asked in the scope; "" of those whose words are
    not stored."""
    within, values = scope.sql("tenant")
    sql = f"SELECT DISTINCT query_hash, query FROM retrievals WHERE query_hash IN (%s){within}"
    rows = in_chunks(conn, sql, queries, values)
    texts: dict[bytes, str] = {}
    for name, text in rows:
        if text or name not in texts:
            texts[read_query_hash(name)] = column_checks.text("retrievals.query", text)
    return column_checks.complete("retrievals.query_hash", texts, queries)


def first_words(
    conn: Connection, queries: Sequence[bytes], scope: TenantScope = ALL_TENANTS
) -> dict[QueryKey, str]:
    """The words of past questions of the scope as they were first typed by somebody who has not opted out;
    questions whose words are not stored are left out."""
    within, values = scope.sql("tenant")
    sql = (
        "SELECT query_hash, tenant, query FROM (SELECT query_hash, tenant, query, row_number() OVER "
        "(PARTITION BY query_hash, tenant ORDER BY at, rid) AS n FROM retrievals WHERE query_hash IN "
        f"(%s) AND query != '' AND {not_opted_out('retrievals.user_id')}{within}) asked WHERE n = 1"
    )
    return {
        QueryKey(read_query_hash(name), read_tenant(tenant)): column_checks.text(
            "retrievals.query", words
        )
        for name, tenant, words in in_chunks(conn, sql, queries, values)
    }


@dataclass(frozen=True)
class AnsweredBy:
    """The id of a retrieval, and the index version that answered, None: none was live."""

    id: str
    version: str | None


def answered_by(conn: Connection, retrievals: Sequence[int]) -> dict[int, AnsweredBy]:
    """By row of a retrieval: its id and its version."""
    rows = in_chunks(conn, "SELECT rid, id, version FROM retrievals WHERE rid IN (%s)", retrievals)
    return {
        int(rid): AnsweredBy(
            column_checks.text("retrievals.id", id_),
            column_checks.optional_text("retrievals.version", version),
        )
        for rid, id_, version in rows
    }


@dataclass(frozen=True)
class LastAsked:
    """The newest retrieval of a question: its row, its time in seconds since 1970, and the answer that the
    application gave."""

    rid: int
    at: float
    answer: str | None


def last_asked(
    conn: Connection,
    queries: Sequence[bytes],
    scope: TenantScope = ALL_TENANTS,
    period: Period = ALWAYS,
) -> dict[QueryKey, LastAsked]:
    """The newest retrieval of each question in the scope and the period, of those that people asked for
    who have not opted out."""
    found: dict[QueryKey, LastAsked] = {}
    sql = (
        "SELECT rid, query_hash, tenant, at, answer FROM retrievals WHERE query_hash IN (%s) AND "
        f"{not_opted_out('retrievals.user_id')} ORDER BY at, rid"
    )
    for rid, name, tenant, at, answer in in_chunks(conn, sql, queries):
        seconds = column_checks.seconds("retrievals.at", at)
        question = QueryKey(read_query_hash(name), read_tenant(tenant))
        if scope.holds(question.tenant) and period.holds(seconds):
            text = column_checks.optional_text("retrievals.answer", answer)
            found[question] = LastAsked(int(rid), seconds, text)
    return found


def drop_query_texts(conn: Connection, n: int) -> int:
    """Delete the words of the next n recorded questions that still have them, and of the reviews of all but
    known ones; returns of how many retrievals. Hashes and vectors stay."""
    conn.execute(
        "UPDATE reviews SET query = '' WHERE query != '' AND NOT EXISTS "
        "(SELECT 1 FROM golden g WHERE g.query_hash = reviews.query_hash)"
    )
    return conn.execute(
        "UPDATE retrievals SET query = '' WHERE rid IN "
        "(SELECT rid FROM retrievals WHERE query != '' LIMIT ?)",
        (n,),
    ).rowcount


def has_query_texts(conn: Connection) -> bool:
    """Whether the words of any recorded question are stored."""
    return bool(scalar(conn, "SELECT EXISTS (SELECT 1 FROM retrievals WHERE query != '')"))


def tenants_of(conn: Connection, ids: Sequence[str]) -> dict[str, str | None]:
    """The tenants of retrievals, as JSON, by their ids; unknown ids are left out."""
    rows = in_chunks(conn, "SELECT id, tenant FROM retrievals WHERE id IN (%s)", ids)
    return {str(id_): read_tenant(tenant) for id_, tenant in rows}


def count_retrievals(conn: Connection) -> int:
    """How many retrievals are recorded."""
    return int(scalar(conn, "SELECT count(*) FROM retrievals"))


def read_query_hash(value: object) -> bytes:
    """The stored hash of a query. Raises CorruptFileError."""
    return column_checks.hashed("retrievals.query_hash", value)


def read_query_hashes(values: Iterable[object]) -> list[bytes]:
    """The stored hashes of queries. Raises CorruptFileError."""
    return column_checks.hashes("retrievals.query_hash", values)


def read_tenant(value: object) -> str | None:
    """The stored tenant of a retrieval, as JSON. Raises CorruptFileError."""
    return column_checks.optional_text("retrievals.tenant", value)


@dataclass(frozen=True)
class AskedQuery:
    """A recorded retrieval of a question; answerable: the chance that one of its hits is right, None:
    an earlier release recorded it. user_id: None: not given."""

    question: QueryKey
    query: str
    at: float
    answerable: float | None
    user_id: str | None


def asked_since(conn: Connection, since: float) -> list[AskedQuery]:
    """Every retrieval since a time in seconds since 1970, those that were imported first, then in the
    order of recording."""
    rows = conn.execute(
        "SELECT query_hash, tenant, query, at, answerable, user_id FROM retrievals WHERE at >= ? "
        "ORDER BY source IS NULL, rid",
        (since,),
    )
    return [
        AskedQuery(
            QueryKey(read_query_hash(hashed), read_tenant(tenant)),
            column_checks.text("retrievals.query", query),
            column_checks.seconds("retrievals.at", at),
            column_checks.optional_share("retrievals.answerable", answerable),
            column_checks.optional_text("retrievals.user_id", user),
        )
        for hashed, tenant, query, at, answerable, user in rows
    ]


@dataclass(frozen=True)
class Pair:
    """A question and the one before it in its session.

    before: the id of the earlier retrieval.
    user_id: the user who asked both.
    seconds: the time between the two.
    hashes: the query hashes of the later and the earlier question.
    """

    before: str
    user_id: str | None
    seconds: float
    hashes: tuple[bytes, bytes]


def with_the_one_before(conn: Connection, retrieval_id: str) -> Pair | None:
    """The pair of a retrieval and the one before it in its session.

    None without a session or an earlier retrieval in it, or when that one had the same words,
    another tenant or another user, or belongs to the same run: then a program asked both for one question.
    """
    row = conn.execute(
        "SELECT b.id, a.user_id, a.at - b.at, a.query_hash, b.query_hash, a.tenant IS b.tenant "
        "AND a.user_id IS b.user_id AND NOT EXISTS (SELECT 1 FROM runs x JOIN runs y USING (run) "
        "WHERE x.rid = a.rid AND y.rid = b.rid) FROM retrievals a JOIN retrievals b "
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
