"""Corrections: the passage that a user names as the answer, checked and appended durably.

It must not know what a correction is used for.
"""

import json
import sqlite3
import time

from rag_flywheel.capture.votes import check_retrieval_id, unknown_retrieval
from rag_flywheel.checks import check_optional_text, check_text
from rag_flywheel.errors import UnknownIdError
from rag_flywheel.store import events, golden, passages, people
from rag_flywheel.store.database import Database
from rag_flywheel.store.filters import matching_pids


def append_correction(
    database: Database, retrieval_id: str | None, passage_id: str, user_id: str | None
) -> None:
    """Append that a user names a passage as the answer: one that was shown, or of the index.

    Nothing is kept of a user who opted out. Raises InputError, UnknownIdError.
    """
    known = check_retrieval_id(retrieval_id)
    check_text("passage_id", passage_id)
    check_optional_text("user_id", user_id)
    with database.transaction(durable=True) as conn:
        if user_id is not None and people.opted_out(conn, {user_id}):
            return
        shown = events.shown_hits(conn, [known]).get(known)
        if shown is None:
            raise unknown_retrieval(known)
        rid, hits = shown
        pid = hits.get(passage_id)
        if pid is None:
            present = passages.current_by_id(conn, [passage_id]).get(passage_id)
            if present is None or not _may_show(conn, rid, present.pid):
                raise UnknownIdError(
                    f"no passage {passage_id!r} is in this index and passes the filter of "
                    f"retrieval {known}, which did not show one; expected the id of a passage that "
                    "answers it: add it first"
                )
            pid = present.pid
        seq = passages.advance_clock(conn)
        golden.append_correction(conn, seq=seq, at=time.time(), rid=rid, pid=pid, user_id=user_id)


def _may_show(conn: sqlite3.Connection, rid: int, pid: int) -> bool:
    """Whether a passage passes the filter, and so the tenant, that the retrieval was asked under."""
    where = events.filters_of(conn, [rid])[rid]
    return where is None or pid in matching_pids(conn, json.loads(where))
