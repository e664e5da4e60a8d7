"""What is wrong with the rows of a database, one sentence for each kind of damage; drops bad vectors."""

import sqlite3
from collections.abc import Callable, Iterator

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.store import column_checks, journal, passages
from rag_flywheel.store.schema import schema_problems
from rag_flywheel.store.vectors import noted_revisions
from rag_flywheel.store.votes import KINDS

_Row = tuple[object, ...]
_Check = Callable[[_Row], object]


def row_problems(conn: sqlite3.Connection, revision: str | None, dim: int | None) -> list[str]:
    """Every kind of damage in the rows, with how many rows have it.

    revision, dim: of the encoder; None: no vector has been made yet.
    """
    from rag_flywheel.store.migrations import migrations  # sqlite-utils takes 50 ms to load

    found = [f"flywheel.db: {problem}" for problem in schema_problems(conn, migrations)]
    if found:
        return found
    for table, sql, check in _CHECKS:
        found += _problems(conn, table, sql, check)
    found += _clock_problems(conn)
    found += _journal_problems(conn)
    found += [
        f"flywheel.db: {table}: {n} rows name a row of {other} that is not stored"
        for table, other, column in _REFERENCES
        if (n := _orphans(conn, table, other, column))
    ]
    if revision is not None and dim is not None:
        bad = list(bad_vectors(conn, revision, dim))
        if bad:
            found.append(
                f"flywheel.db: vectors: {len(bad)} cannot be used (the first {bad[0][1]}); "
                "`rag-flywheel repair` makes them anew"
            )
    return found


def bad_vectors(conn: sqlite3.Connection, revision: str, dim: int) -> Iterator[tuple[int, str]]:
    """(row number, what is wrong) of each stored vector of this encoder, as it was made or tuned, that
    cannot be used."""
    used = {revision, *noted_revisions(conn)}
    rows = conn.execute("SELECT rowid, text_hash, revision, vector FROM vectors")
    for rowid, text_hash, of, vector in rows:
        if type(text_hash) is not bytes or len(text_hash) != column_checks.HASH_BYTES:
            yield rowid, "has no hash of 16 bytes"
        elif of in used and (problem := column_checks.vector_problem(vector, dim)) is not None:
            yield rowid, problem


def drop_vectors(conn: sqlite3.Connection, rows: list[int]) -> None:
    """Delete these rows of vectors, which can be made anew from the texts."""
    conn.executemany("DELETE FROM vectors WHERE rowid = ?", [(row,) for row in rows])


def _problems(conn: sqlite3.Connection, table: str, sql: str, check: _Check) -> list[str]:
    n, first = 0, ""
    for row in conn.execute(sql):
        try:
            check(row)
        except CorruptFileError as error:
            n += 1
            first = first or str(error).removeprefix("flywheel.db: ").split(". Run ")[0]
    if not n:
        return []
    return [f"flywheel.db: {table}: {n} rows cannot be used; the first: {first}"]


def _check_passage(row: _Row) -> None:
    stored = passages.stored_row(row[:7])
    column_checks.whole("passages.born", row[7])
    column_checks.optional_whole("passages.ended", row[8])
    if row[9] not in {"index", "rerank"}:
        column_checks.refuse("passages.origin", row[9], "index or rerank")
    if stored.text_hash != passages.passage_hash(stored.passage):
        column_checks.refuse(
            f"passages.text_hash of row {stored.pid}", row[5], "the hash of its text"
        )


def _check_retrieval(row: _Row) -> None:
    column_checks.text("retrievals.id", row[0])
    query = column_checks.text("retrievals.query", row[1])
    if column_checks.hashed("retrievals.query_hash", row[2]) != passages.query_hash(query):
        column_checks.refuse("retrievals.query_hash", row[2], "the hash of its query")
    if row[3] is not None and not isinstance(
        column_checks.parsed("retrievals.filter", row[3]), dict
    ):
        column_checks.refuse("retrievals.filter", row[3], "a JSON object")
    if row[4] is not None:
        column_checks.parsed("retrievals.tenant", row[4])
    column_checks.hits("retrievals.hits", row[5])
    column_checks.seconds("retrievals.at", row[6])
    for name, value in zip(("version", "user_id", "session_id", "answer"), row[7:], strict=True):
        column_checks.optional_text(f"retrievals.{name}", value)


def _check_vote(row: _Row) -> None:
    column_checks.whole("votes.seq", row[0])
    if row[1] not in {"helpful", "harmful", "retract"}:
        column_checks.refuse("votes.verdict", row[1], "helpful, harmful or retract")
    column_checks.optional_text("votes.user_id", row[2])
    column_checks.optional_text("votes.reason", row[3])
    column_checks.seconds("votes.at", row[4])


def _check_answer_vote(row: _Row) -> None:
    column_checks.whole("answer_votes.seq", row[0])
    if row[1] not in KINDS:
        column_checks.refuse("answer_votes.kind", row[1], " or ".join(KINDS))
    if row[2] not in {"helpful", "harmful", "retract"}:
        column_checks.refuse("answer_votes.verdict", row[2], "helpful, harmful or retract")
    column_checks.optional_text("answer_votes.user_id", row[3])
    column_checks.seconds("answer_votes.at", row[4])
    column_checks.optional_text("answer_votes.why", row[5])


def _check_credit(row: _Row) -> None:
    column_checks.share("credits.credit", row[0])


def _check_note(row: _Row) -> None:
    column_checks.text("notes.text", row[0])
    column_checks.optional_text("notes.user_id", row[1])
    column_checks.seconds("notes.at", row[2])


def _check_trust(row: _Row) -> None:
    column_checks.text("trusts.kind", row[0])
    column_checks.trust("trusts.trust", row[1])


def _check_refresh(row: _Row) -> None:
    column_checks.seconds("refreshes.at", row[0])
    column_checks.text("refreshes.outcome", row[1])
    column_checks.optional_text("refreshes.version", row[2])
    column_checks.parsed("refreshes.scores", row[3])


def _check_meta(row: _Row) -> None:
    column_checks.text("meta.key", row[0])
    column_checks.text("meta.value", row[1])


_CHECKS: tuple[tuple[str, str, _Check], ...] = (
    (
        "passages",
        "SELECT pid, id, title, text, metadata, text_hash, lineage, born, ended, origin "
        "FROM passages",
        _check_passage,
    ),
    (
        "retrievals",
        "SELECT id, query, query_hash, filter, tenant, hits, at, version, user_id, session_id, "
        "answer FROM retrievals",
        _check_retrieval,
    ),
    ("votes", "SELECT seq, verdict, user_id, reason, at FROM votes", _check_vote),
    (
        "answer_votes",
        "SELECT seq, kind, verdict, user_id, at, why FROM answer_votes",
        _check_answer_vote,
    ),
    ("credits", "SELECT credit FROM credits", _check_credit),
    ("notes", "SELECT text, user_id, at FROM notes", _check_note),
    ("trusts", "SELECT kind, trust FROM trusts", _check_trust),
    ("refreshes", "SELECT at, outcome, version, scores FROM refreshes", _check_refresh),
    ("meta", "SELECT key, value FROM meta", _check_meta),
)
_REFERENCES = (
    ("votes", "retrievals", "rid"),
    ("votes", "passages", "pid"),
    ("answer_votes", "retrievals", "rid"),
    ("credits", "answer_votes", "seq"),
    ("notes", "retrievals", "rid"),
    ("credits", "passages", "pid"),
    ("golden", "passages", "pid"),
    ("corrections", "retrievals", "rid"),
    ("corrections", "passages", "pid"),
    ("reviews", "passages", "pid"),
)


def _clock_problems(conn: sqlite3.Connection) -> list[str]:
    try:
        seq = passages.read_clock(conn)
        newest = conn.execute(
            "SELECT max((SELECT coalesce(max(born), 0) FROM passages), "
            "(SELECT coalesce(max(ended), 0) FROM passages), "
            "(SELECT coalesce(max(seq), 0) FROM votes), "
            "(SELECT coalesce(max(seq), 0) FROM answer_votes))"
        ).fetchone()[0]
        if type(newest) is int and newest > seq:
            return [f"flywheel.db: clock says {seq}, but there is an event of number {newest}"]
    except CorruptFileError as error:
        return [str(error)]
    return []


def _journal_problems(conn: sqlite3.Connection) -> list[str]:
    try:
        journal.last_live_change(conn)
    except CorruptFileError as error:
        return [str(error)]
    return []


def _orphans(conn: sqlite3.Connection, table: str, other: str, column: str) -> int:
    sql = (
        f"SELECT count(*) FROM {table} t WHERE NOT EXISTS "
        f"(SELECT 1 FROM {other} o WHERE o.{column} = t.{column})"
    )
    return int(conn.execute(sql).fetchone()[0])
