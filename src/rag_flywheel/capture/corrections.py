"""Corrections: the passage that a user names as the answer, checked and appended durably.

It must not know what a correction is used for.
"""

import time

from rag_flywheel.capture.votes import check_retrieval_id, unknown_retrieval
from rag_flywheel.checks import check_optional_text, check_text
from rag_flywheel.errors import UnknownIdError
from rag_flywheel.store import events, golden, passages, people
from rag_flywheel.store.database import Database


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
            if present is None:
                raise UnknownIdError(
                    f"no passage {passage_id!r} is in this index, and retrieval {known} did not "
                    "show one; expected the id of a passage that answers it: add it first"
                )
            pid = present.pid
        seq = passages.advance_clock(conn)
        golden.append_correction(conn, seq=seq, at=time.time(), rid=rid, pid=pid, user_id=user_id)
