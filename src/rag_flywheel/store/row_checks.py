"""Checks the rows of a database, one sentence for each kind of damage; deletes unusable vectors."""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import get_args

from rag_flywheel.errors import CorruptFileError, InputError, counted
from rag_flywheel.records import Verdict
from rag_flywheel.store import column_checks, encoders, golden, journal, passages
from rag_flywheel.store.column_checks import (
    optional_share,
    optional_text,
    optional_whole,
    parsed,
    refuse,
    seconds,
    text,
    whole,
)
from rag_flywheel.store.database import scalar
from rag_flywheel.store.filters import plain_filter
from rag_flywheel.store.questions import query_hash, question_key
from rag_flywheel.store.schema import schema_problems
from rag_flywheel.store.vectors import noted_revisions
from rag_flywheel.store.votes import KINDS


def row_problems(conn: sqlite3.Connection, revision: str | None, dim: int | None) -> list[str]:
    """Every kind of damage in the rows, with how many rows have it.

    revision, dim: of the encoder; None while no vector has been stored yet.
    """
    from rag_flywheel.store.migrations import migrations  # sqlite-utils takes 50 ms to load

    problems = [f"flywheel.db: {problem}" for problem in schema_problems(conn, migrations)]
    if problems:
        return problems
    for table, checks in _checks(conn).items():
        problems += _table_problems(conn, table, checks)
    for check in (_check_clock, journal.last_live_change, encoders.known, encoders.change):
        try:
            check(conn)
        except CorruptFileError as error:
            problems.append(str(error))
    for table, other, column in _REFERENCES:
        n = scalar(
            conn,
            f"SELECT count(*) FROM {table} t WHERE NOT EXISTS "
            f"(SELECT 1 FROM {other} o WHERE o.{column} = t.{column})",
        )
        if n:
            which = counted(n, "row names", "rows name")
            problems.append(f"flywheel.db: {table}: {which} a row of {other} that is not stored")
    if revision is not None and dim is not None:
        bad = list(bad_vectors(conn, revision, dim))
        if bad:
            problems.append(
                f"flywheel.db: vectors: {len(bad)} cannot be used (the first {bad[0][1]}); "
                "`rag-flywheel repair` makes them anew"
            )
    return problems


def bad_vectors(conn: sqlite3.Connection, revision: str, dim: int) -> Iterator[tuple[int, str]]:
    """(row number, what is wrong) of each stored vector that cannot be used.

    Only vectors of this encoder revision, of the other encoders that are noted, and of those that were
    tuned from any of them, are checked.
    """
    widths = {of: [each.dim] for of, each in encoders.known(conn).items()} | {revision: [dim]}
    every = sorted({dim for (dim,) in widths.values()})
    widths |= dict.fromkeys(noted_revisions(conn), every)  # of whichever they were tuned from
    rows = conn.execute("SELECT rowid, text_hash, revision, vector FROM vectors")
    for rowid, text_hash, of, vector in rows:
        if type(text_hash) is not bytes or len(text_hash) != column_checks.HASH_BYTES:
            yield rowid, "has no hash of 16 bytes"
        elif of in widths:
            found = [column_checks.vector_problem(vector, width) for width in widths[of]]
            if all(problem is not None for problem in found):
                yield rowid, str(found[0])


def drop_vectors(conn: sqlite3.Connection, rows: list[int]) -> None:
    """Delete these rows of vectors, which `repair` encodes again from the texts."""
    conn.executemany("DELETE FROM vectors WHERE rowid = ?", [(row,) for row in rows])


def _table_problems(
    conn: sqlite3.Connection, table: str, checks: Mapping[str, Callable[..., object]]
) -> list[str]:
    n, first = 0, ""
    for row in conn.execute(f"SELECT {', '.join(checks)} FROM {table}"):
        values = iter(row)
        try:
            for columns, check in checks.items():
                check(f"{table}.{columns}", *islice(values, columns.count(",") + 1))
        except CorruptFileError as error:
            n += 1
            first = first or str(error).removeprefix("flywheel.db: ").split(". Run ")[0]
    return (
        [f"flywheel.db: {table}: {counted(n, 'row')} cannot be used; the first: {first}"]
        if n
        else []
    )


def _check_passage(_columns: str, *row: object) -> None:
    *columns, origin = row
    stored = passages.stored_row(tuple(columns))
    if origin == "rerank" and not stored.passage.text:
        return  # erased: its digest is all that is left
    if stored.text_hash != passages.passage_hash(stored.passage):
        where = f"passages.text_hash of row {stored.pid}"
        refuse(where, stored.text_hash, "the hash of its text")


def _check_query_hash(key: bytes, columns: str, hashed: object, query: str) -> None:
    where = columns.partition(",")[0]
    if query == "":
        return  # its words are not stored
    if column_checks.hashed(where, hashed) != query_hash(key, query):
        refuse(where, hashed, "the hash of its query")


def _check_filter(where: str, value: object) -> None:
    if value is None:
        return
    try:
        plain_filter(parsed(where, value))
    except InputError:
        refuse(where, value, "a filter expression")


def _check_tenant(where: str, value: object) -> None:
    if value is not None:
        parsed(where, value)


def _check_candidates(where: str, value: object) -> None:
    if value is not None:
        column_checks.candidates(where, value)


def _one_of(options: Collection[str], expected: str) -> Callable[[str, object], None]:
    def check(where: str, value: object) -> None:
        if value not in options:
            refuse(where, value, expected)

    return check


_check_verdict = _one_of(get_args(Verdict), "helpful, harmful or retract")

# By table: the check of each column, or of several columns that are checked together.
_CHECKS: Mapping[str, Mapping[str, Callable[..., object]]] = {
    "passages": {
        "pid, id, title, text, metadata, text_hash, lineage, origin": _check_passage,
        "born": whole,
        "ended": optional_whole,
        "origin": _one_of(("index", "rerank"), "index or rerank"),
    },
    "retrievals": {
        "id": text,
        "query": text,
        "filter": _check_filter,
        "tenant": _check_tenant,
        "hits": column_checks.hits,
        "candidates": _check_candidates,
        "at": seconds,
        "version": optional_text,
        "user_id": optional_text,
        "session_id": optional_text,
        "answer": optional_text,
        "answerable": optional_share,
        "voters": optional_whole,
        "voters_at": optional_whole,
        "source": optional_text,
    },
    "votes": {
        "seq": whole,
        "verdict": _check_verdict,
        "user_id": optional_text,
        "reason": optional_text,
        "at": seconds,
        "trust": column_checks.trust,
        "source": optional_text,
    },
    "answer_votes": {
        "seq": whole,
        "kind": _one_of(KINDS, " or ".join(KINDS)),
        "verdict": _check_verdict,
        "user_id": optional_text,
        "at": seconds,
        "why": optional_text,
        "trust": column_checks.trust,
        "source": optional_text,
    },
    "credits": {"credit": column_checks.share},
    "golden": {
        "seq": whole,
        "query": text,
        "tenant": _check_tenant,
        "grade": whole,
        "source": _one_of(golden.SOURCES, " or ".join(golden.SOURCES)),
        "at": seconds,
    },
    "notes": {"text": text, "user_id": optional_text, "at": seconds},
    "runs": {"run": text},
    "forgotten": {"key": column_checks.hashed},
    "imports": {
        "key": column_checks.hashed,
        "external": optional_text,
        "rid": optional_whole,
        "seq": optional_whole,
    },
    "trusts": {"kind": text, "trust": column_checks.trust},
    "mutes": {"seq": whole, "user_id": text, "at": seconds},
    "refreshes": {"at": seconds, "outcome": text, "version": optional_text, "scores": parsed},
    "attempts": {"at": seconds, "pid": whole, "reason": optional_text, "to_do": optional_text},
    "meta": {"key": text, "value": text},
}
_WITH_QUERIES = "retrievals", "golden"
_REFERENCES = (
    ("votes", "retrievals", "rid"),
    ("votes", "passages", "pid"),
    ("answer_votes", "retrievals", "rid"),
    ("credits", "answer_votes", "seq"),
    ("notes", "retrievals", "rid"),
    ("runs", "retrievals", "rid"),
    ("credits", "passages", "pid"),
    ("golden", "passages", "pid"),
    ("corrections", "retrievals", "rid"),
    ("corrections", "passages", "pid"),
    ("reviews", "passages", "pid"),
)


def _checks(conn: sqlite3.Connection) -> Mapping[str, Mapping[str, Callable[..., object]]]:
    """The checks with those that take the key of the index."""
    named = partial(_check_query_hash, question_key(conn))
    more = {"query_hash, query": named}
    return {t: {**checks, **(more if t in _WITH_QUERIES else {})} for t, checks in _CHECKS.items()}


def _check_clock(conn: sqlite3.Connection) -> None:
    seq = passages.read_clock(conn)
    newest = scalar(
        conn,
        "SELECT max((SELECT coalesce(max(born), 0) FROM passages), "
        "(SELECT coalesce(max(ended), 0) FROM passages), "
        "(SELECT coalesce(max(seq), 0) FROM votes), "
        "(SELECT coalesce(max(seq), 0) FROM answer_votes), "
        "(SELECT coalesce(max(seq), 0) FROM golden), "
        "(SELECT coalesce(max(seq), 0) FROM mutes))",
    )
    if type(newest) is int and newest > seq:
        raise CorruptFileError(
            f"flywheel.db: clock says {seq}, but there is an event of number {newest}"
        )
