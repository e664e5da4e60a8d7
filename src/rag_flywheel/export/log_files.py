"""Writes retrievals, votes and judgments as they are recorded, one row each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from rag_flywheel.curate.judgments import judgments
from rag_flywheel.export.allowed import Asked, allowed_votes
from rag_flywheel.formats.row_files import Column, Row, write_rows
from rag_flywheel.records import Progress, QueryKey
from rag_flywheel.store import log, passages, retrievals
from rag_flywheel.store.connection import Connection

RETRIEVALS = (
    Column("id", "text"),
    Column("kind", "text"),
    Column("at", "time"),
    Column("query", "text"),
    Column("k", "whole"),
    Column("where", "json"),
    Column("tenant", "text"),
    Column("version", "text"),
    Column("user", "text"),
    Column("session", "text"),
    Column("latency_ms", "number"),
    Column("hits", "json"),
    Column("answerable", "number"),
    Column("answer", "text"),
    Column("source", "text"),
    Column("external_id", "text"),
)
VOTES = (
    Column("number", "whole"),
    Column("at", "time"),
    Column("retrieval_id", "text"),
    Column("passage_id", "text"),
    Column("kind", "text"),
    Column("verdict", "text"),
    Column("user", "text"),
    Column("session", "text"),
    Column("reason", "text"),
    Column("trust", "number"),
    Column("query", "text"),
    Column("tenant", "text"),
    Column("source", "text"),
    Column("shares", "json"),
)
JUDGMENTS = (
    Column("query", "text"),
    Column("tenant", "text"),
    Column("passage_id", "text"),
    Column("helpful", "number"),
    Column("harmful", "number"),
    Column("votes", "wholes"),
)
OF_THOSE_WHO_OPTED_OUT = "votes of people who opted out, or on their questions"
OF_THE_MUTED = "votes of people who are muted"
_TELL_EVERY = 1_000  # rows
Written = tuple[Mapping[str, int], Mapping[str, int]]
"""How many rows were written, and how many left out, by what they are."""


def write_retrievals(
    conn: Connection, asked: Asked, path: Path, ending: str, progress: Progress | None
) -> Written:
    """Write the retrievals, the oldest first."""
    n = log.count_retrievals(conn, asked.scope, asked.period)
    found = log.every_retrieval(conn, asked.scope, asked.period)
    rows = (
        {
            **vars(each),
            "query": asked.masked(each.query),
            "answer": None if each.answer is None else asked.masked(each.answer),
            "hits": [asdict(hit) for hit in each.hits],
        }
        for each in found
    )
    written = write_rows(path, RETRIEVALS, told(rows, "writing retrievals", n, progress), ending)
    return {"retrievals": written}, _some({"retrievals of people who opted out": n - written})


def write_votes(
    conn: Connection, asked: Asked, path: Path, ending: str, progress: Progress | None
) -> Written:
    """Write the votes, verdicts on answers, signals and corrections, the oldest first."""
    n = log.count_votes(conn, asked.scope, asked.period)
    rows = (
        {
            **vars(each.vote),
            "session": each.session,
            "shares": each.shares,
            "query": asked.masked(each.vote.query),
            "reason": None if each.vote.reason is None else asked.masked(each.vote.reason),
        }
        for each in log.every_vote(conn, asked.scope, asked.period)
    )
    written = write_rows(path, VOTES, told(rows, "writing votes", n["all"], progress), ending)
    return {"votes": written}, _some(
        {
            OF_THOSE_WHO_OPTED_OUT: n["opted out"],
            OF_THE_MUTED: n["muted"],
        }
    )


def write_judgments(
    conn: Connection, asked: Asked, path: Path, ending: str, progress: Progress | None
) -> Written:
    """Write what the votes on each passage add up to, in the order of first votes."""
    found = judgments(allowed_votes(conn, asked))
    ids = passages.ids_by_lineage(conn, sorted({j.lineage for j in found}))
    words = retrievals.first_words(conn, sorted({j.query for j in found}), asked.scope)
    there = [j for j in found if j.lineage in ids]
    rows = (
        {
            **vars(j),
            "query": asked.masked(words.get(QueryKey(j.query, j.tenant), "")),
            "passage_id": id_,
            "votes": list(j.votes),
        }
        for j in there
        for id_ in sorted(ids[j.lineage])
    )
    written = write_rows(
        path, JUDGMENTS, told(rows, "writing judgments", len(there), progress), ending
    )
    return {"judgments": written}, _some(
        {"judgments of texts that are in the index no more": len(found) - len(there)}
    )


def told(rows: Iterable[Row], step: str, total: int, progress: Progress | None) -> Iterator[Row]:
    """The rows, of which `progress` is told now and then."""
    for n, row in enumerate(rows):
        if progress is not None and n % _TELL_EVERY == 0:
            progress(step, min(n, total), total)
        yield row
    if progress is not None:
        progress(step, total, total)


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {what: n for what, n in counts.items() if n}
