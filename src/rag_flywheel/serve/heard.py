"""What votes up to some event say of past queries, worked out from the store for a version to keep.

It must not know when a version is built, nor what else is in it.
"""

import sqlite3

from rag_flywheel.rank.evidence import CODES_FROM, codes_of
from rag_flywheel.rank.heard import Heard, heard_of
from rag_flywheel.rank.memory import Memory
from rag_flywheel.serve.past import past_queries, rests_on
from rag_flywheel.serve.state import Source, stored_vectors
from rag_flywheel.store import events


def heard_until(
    until: int, memory: Memory, noise: float, conn: sqlite3.Connection, source: Source
) -> Heard:
    """What a process that opens the version would find, were `until` the last vote; from a read
    transaction. Nothing where that hangs on the time.

    memory, noise: of the version; source: its queries encoded as the version does.
    """
    made = rests_on(until, noise, source.judged_by, source.of_queries, conn)
    if not made.by:
        return Heard()
    found = past_queries(memory, noise, source.judge(events.votes_until(conn, until)), conn)
    if len(found) < CODES_FROM:
        return heard_of(made, found)
    vectors = stored_vectors([key[0] for key in found], conn, source)[: len(found)]
    return heard_of(made, found, codes_of(vectors))
