"""Folds old events: keeps questions and verdicts, deletes users, times of asking and reasons."""

from collections.abc import Collection, Mapping

from rag_flywheel.config import Config
from rag_flywheel.curate.judgments import standing_votes, superseded_elsewhere
from rag_flywheel.curate.people import people_noted
from rag_flywheel.privacy.wipe import note_deleted
from rag_flywheel.records import QueryKey
from rag_flywheel.store import folding, votes, wall_clock
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.given_texts import drop_old_given
from rag_flywheel.store.passages import read_clock

FOLDED = "folded rows to wipe"
"""The key under which `wipe` finds that rows were folded."""
_DAY_S = 86_400.0
_AT_ONCE = 500  # retrievals in one transaction, which other writers wait for


def fold_old(
    database: Database,
    config: Config,
    *,
    days: float,
    until: int,
    weights: Mapping[str, float],
) -> int:
    """Fold retrievals that were older than so many days at the last midnight UTC; returns how many.

    What it deletes may still be in unused bytes of the file and in its log afterwards, until `wipe`.

    The judgments of all votes stay the same. Each batch is a transaction: a process that dies in
    between leaves the remaining ones for the next call.
    until: the number of the last vote that the live version was built from. Retrievals with later
    votes wait, so that no refresh misses a vote. weights: of users in that version, by their hashes,
    which stay with their votes.
    """
    before = _due_before(wall_clock.now(), days)
    n, last = 0, 0
    while True:
        with database.transaction() as conn:
            rows = folding.due(conn, after=last, before=before, until=until, n=_AT_ONCE)
            cast = votes.votes_on_queries(conn, folding.queries_of(conn, rows), until)
            if rows:
                standing = {(v.seq, v.lineage) for v in standing_votes(cast)}
                superseded = superseded_elsewhere(cast, standing, set(rows))
                noted = _people(conn, rows, superseded, weights)
                key = config.tenant_key
                folding.fold(conn, rows, standing, superseded, weights, noted, key)
                note_deleted(conn, FOLDED)
        if not rows:
            break
        n, last = n + len(rows), rows[-1]
    if n:
        with database.transaction() as conn:
            drop_old_given(conn, config.tenant_key)
    return n


def _due_before(now: float, days: float) -> float:
    """The time before which retrievals are folded. It moves once a day, at midnight UTC, for the file is
    written anew after each time that something was folded."""
    step = min(days, 1.0) * _DAY_S
    return now // step * step - days * _DAY_S


def _people(
    conn: Connection,
    rows: Collection[int],
    superseded: Collection[folding.Standing],
    weights: Mapping[str, float],
) -> dict[QueryKey, int]:
    """The people to note for each question of these retrievals, by all votes so far."""
    every = votes.votes_on_queries(conn, folding.queries_of(conn, list(rows)), read_clock(conn))
    gone, of = set(superseded), set(rows)
    leaving = [v for v in every if v.retrieval in of or (v.seq, v.lineage) in gone]
    return people_noted(every, leaving, weights)
