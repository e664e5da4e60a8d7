"""Counts the votes and known answers on texts, by lineage: which follow their text, and which are lost."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from rag_flywheel.records import AddReport
from rag_flywheel.store import passages
from rag_flywheel.store.connection import Connection, in_chunks
from rag_flywheel.store.passages import StoredPassage

_VOTES = (
    "SELECT p.lineage, count(*) FROM passages p JOIN votes v ON v.pid = p.pid "
    "WHERE p.lineage IN (%s) GROUP BY p.lineage",
    "SELECT p.lineage, count(*) FROM passages p JOIN credits c ON c.pid = p.pid "
    "WHERE p.lineage IN (%s) AND c.credit > 0 GROUP BY p.lineage",
)
_ANSWERS = (
    "SELECT p.lineage, g.query_hash, g.tenant FROM passages p JOIN golden g ON g.pid = p.pid "
    "WHERE p.lineage IN (%s) AND g.grade > 0",
    "SELECT p.lineage, r.query_hash, r.tenant FROM passages p JOIN reviews r ON r.pid = p.pid "
    "WHERE p.lineage IN (%s) AND r.decision = 'accept'",
)


def absent(conn: Connection, lineages: Collection[int]) -> set[int]:
    """Those of these lineages that no text in the index has."""
    return set(lineages) - passages.ids_by_lineage(conn, sorted(set(lineages))).keys()


def with_any(conn: Connection, lineages: Collection[int]) -> set[int]:
    """Those of these lineages that have a vote or a known answer."""
    wanted = sorted(lineages)
    return {int(row[0]) for sql in (*_VOTES, *_ANSWERS) for row in in_chunks(conn, sql, wanted)}


def count(conn: Connection, lineages: Collection[int]) -> tuple[int, int]:
    """(votes on these lineages, pairs of a question and one of them that was ever known to answer it)."""
    wanted = sorted(lineages)
    n_votes = sum(int(row[1]) for sql in _VOTES for row in in_chunks(conn, sql, wanted))
    answers = {tuple(row) for sql in _ANSWERS for row in in_chunks(conn, sql, wanted)}
    return n_votes, len(answers)


def lost_since(conn: Connection, seq: int) -> tuple[int, int]:
    """What `count` says of the texts that ended after event number `seq` and are in the index no longer."""
    ended = conn.execute("SELECT DISTINCT lineage FROM passages WHERE ended > ?", (seq,))
    return count(conn, absent(conn, [int(row[0]) for row in ended]))


def with_followed(
    conn: Connection,
    report: AddReport,
    left: Iterable[StoredPassage],
    came_back: Collection[int],
    last: int,
) -> AddReport:
    """The report of a change with the votes and known answers that followed their texts, or were lost.

    left: the rows that the change ended. came_back: lineages that no text had before it. last: the
    number of the last row before it.
    """
    ids: dict[int, set[str]] = {lineage: set() for lineage in came_back}
    for stored in left:
        ids.setdefault(stored.lineage, set()).add(stored.passage.id)
    there = passages.ids_by_lineage(conn, sorted(ids))
    moved = {
        lineage
        for lineage, found in there.items()
        if all(pid > last and id_ not in ids[lineage] for id_, pid in found.items())
    }
    moved_votes, moved_answers = count(conn, moved)
    lost_votes, lost_answers = count(conn, ids.keys() - there.keys())
    return replace(
        report,
        moved_votes=moved_votes,
        lost_votes=lost_votes,
        moved_answers=moved_answers,
        lost_answers=lost_answers,
    )
