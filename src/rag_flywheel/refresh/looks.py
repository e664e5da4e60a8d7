"""Counts the votes that looks of the gate go by, and records what became of what they let in.

Forgetting a user must not buy a look: votes that were deleted with their users count on here.
"""

from collections.abc import Iterable

from rag_flywheel.curate.source import Source
from rag_flywheel.records import Judgment
from rag_flywheel.store import forgetting, journal, passages, votes
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import Look

ARMS = "weights", "encoder"


def votes_ever(conn: Connection, judged: Iterable[Judgment]) -> int:
    """How many votes count, or did until their users were forgotten; judged: all judgments.

    Votes that do not count, as those that a later one replaced, must not bring looks nearer.
    """
    return len({seq for judgment in judged for seq in judgment.votes}) + forgetting.count_counted(
        conn
    )


def recount(database: Database, source: Source, version: str | None) -> None:
    """Let the next look of each arm need no more votes than half as many again as count now, since
    those of muted users, who may have cast most, count no more. The looks before are still counted."""
    with database.transaction() as conn:
        n = votes_ever(conn, source.judge(votes.votes_until(conn, passages.read_clock(conn))))
        for arm in ARMS:
            if n < journal.looks(conn, arm)[1]:
                journal.record_look(conn, Look(version or "", n, 0.0, None, "recounted", arm))
