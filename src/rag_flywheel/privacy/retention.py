"""Folds old events: keeps questions and verdicts, deletes users, times of asking and reasons."""

import sqlite3
from collections.abc import Collection, Mapping

from rag_flywheel.config import Config
from rag_flywheel.curate.judgments import standing_votes, superseded_elsewhere
from rag_flywheel.curate.people import people_noted
from rag_flywheel.records import QueryKey
from rag_flywheel.store import folding, votes, wall_clock
from rag_flywheel.store.database import Database
from rag_flywheel.store.given_texts import drop_old_given
from rag_flywheel.store.passages import read_clock

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
    """Fold retrievals that are older than so many days; returns how many.

    The judgments of all votes stay the same. Each batch is a transaction: a process that dies in
    between leaves the remaining ones for the next call.
    until: the number of the last vote that the live version was built from. Retrievals with later
    votes wait, so that no refresh misses a vote. weights: of users in that version, by their hashes,
    which stay with their votes.
    """
    before = wall_clock.now() - days * _DAY_S
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
        if not rows:
            break
        n, last = n + len(rows), rows[-1]
    if n:
        with database.transaction() as conn:
            drop_old_given(conn, config.tenant_key)
    return n


def _people(
    conn: sqlite3.Connection,
    rows: Collection[int],
    superseded: Collection[folding.Standing],
    weights: Mapping[str, float],
) -> dict[QueryKey, int]:
    """The people to note for each question of these retrievals, by all votes so far."""
    every = votes.votes_on_queries(conn, folding.queries_of(conn, list(rows)), read_clock(conn))
    gone, of = set(superseded), set(rows)
    leaving = [v for v in every if v.retrieval in of or (v.seq, v.lineage) in gone]
    return people_noted(every, leaving, weights)
