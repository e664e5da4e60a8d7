"""Counts the questions that wait for the next refresh to embed them."""

import sqlite3

from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.store import encoders
from rag_flywheel.store.waiting import count_waiting


def questions_waiting(conn: sqlite3.Connection, live: Manifest | None) -> int:
    """How many questions with votes have no vector of the encoder of queries of the live version, whose
    refresh embedded all that had votes then; None: there is no version yet."""
    if live is not None:
        return count_waiting(conn, live.tuned or live.revision, live.votes_until)
    encoder = encoders.identity(conn)
    return 0 if encoder is None else count_waiting(conn, encoder.revision, 0)
