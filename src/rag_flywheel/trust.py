"""How much signals are believed: estimated from the votes beside them, at a refresh.

It must not know what a signal does to a ranking.
"""

from rag_flywheel.curate.weights import trusts
from rag_flywheel.store import votes
from rag_flywheel.store.database import Database
from rag_flywheel.store.votes import has_signals, replace_trusts


def calibrate(database: Database, *, until: int) -> None:
    """Estimate the trust in each kind of signal from events up to a number, and keep it."""
    with database.snapshot() as conn:
        if not has_signals(conn):
            return
        found = trusts(votes.votes_until(conn, until))
    with database.transaction() as conn:
        replace_trusts(conn, {str(kind): trust for kind, trust in found.items()})
