"""Checks and durably appends corrections: a named passage, a user's own words, or a missing answer."""

import json

from rag_flywheel.capture.terms import NO_TERMS, Terms
from rag_flywheel.capture.votes import check_retrieval_id, unknown_retrieval
from rag_flywheel.checks import MOST_ID_CHARS, MOST_NOTE_CHARS, check_optional_text, check_text
from rag_flywheel.errors import InputError, UnknownIdError, quoted
from rag_flywheel.records import Passage
from rag_flywheel.store import golden, notes, passages, retrievals, users, votes, wall_clock
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.filters import passes
from rag_flywheel.store.notes import NoteKind
from rag_flywheel.store.votes import NewAnswerVote


def append_correction(
    database: Database,
    retrieval_id: str | None,
    passage_id: str | None,
    user_id: str | None,
    terms: Terms = NO_TERMS,
) -> bool:
    """Append that a user names a passage as the answer: one that was shown, or one of the index.

    False, and nothing is stored, when the user opted out. Raises InputError, UnknownIdError.
    """
    retrieval_id = check_retrieval_id(retrieval_id)
    passage_id = check_text("passage_id", passage_id, MOST_ID_CHARS)
    check_optional_text("user_id", user_id)
    with database.transaction(durable=True) as conn:
        if users.has_opted_out(conn, user_id):
            return False
        rid, hits = _shown(conn, retrieval_id)
        pid = hits.get(passage_id)
        if pid is None:
            pid = retrievals.given_pid(conn, rid, passage_id)
        if pid is None:
            present = passages.current_by_id(conn, [passage_id]).get(passage_id)
            if present is None or not _may_show(conn, rid, present.passage):
                raise UnknownIdError(
                    f"no passage {quoted(passage_id)} is in this index and passes the filter of "
                    f"retrieval {retrieval_id}, which did not show one; expected the id of a passage that "
                    "answers it: add it first"
                )
            pid = present.pid
        seq = passages.advance_clock(conn)
        now = wall_clock.now()
        golden.append_correction(conn, seq=seq, at=now, rid=rid, pid=pid, user_id=user_id)
        credits = dict.fromkeys(votes.named_before(conn, rid, user_id), 0.0) | {pid: 1.0}
        trust = terms.trust_of(conn, user_id, rid, kind="correction", at=now)
        vote = NewAnswerVote(rid, "correction", "helpful", user_id, credits, trust=trust)
        votes.append_answer_vote(conn, vote, seq=seq, at=now)
    return True


def append_text(
    database: Database, retrieval_id: str | None, text: str, user_id: str | None
) -> bool:
    """Append the answer in a user's own words, for a reviewer; False when the user opted out.

    Raises InputError, UnknownIdError.
    """
    if not check_text("text", text, MOST_NOTE_CHARS).strip():
        raise InputError("text is blank; expected the answer in the user's words")
    return _append_note(database, retrieval_id, "text", text, user_id)


def append_missing(
    database: Database, retrieval_id: str | None, note: str, user_id: str | None
) -> bool:
    """Append that the index has no answer, for a reviewer; False when the user opted out.

    Raises InputError, UnknownIdError.
    """
    check_text("note", note, MOST_NOTE_CHARS)
    return _append_note(database, retrieval_id, "missing", note, user_id)


def _append_note(
    database: Database, retrieval_id: str | None, kind: NoteKind, text: str, user_id: str | None
) -> bool:
    retrieval_id = check_retrieval_id(retrieval_id)
    check_optional_text("user_id", user_id)
    with database.transaction(durable=True) as conn:
        if users.has_opted_out(conn, user_id):
            return False
        rid, _ = _shown(conn, retrieval_id)
        if notes.waits(conn, rid=rid, kind=kind, text=text, user_id=user_id):
            return True  # a caller repeats what was recorded
        notes.append_note(
            conn,
            seq=passages.advance_clock(conn),
            at=wall_clock.now(),
            rid=rid,
            kind=kind,
            text=text,
            user_id=user_id,
        )
    return True


def _shown(conn: Connection, retrieval_id: str) -> tuple[int, dict[str, int]]:
    """(row of the retrieval, {passage id: pid} of its hits). Raises UnknownIdError."""
    shown = retrievals.shown_hits(conn, [retrieval_id])
    if retrieval_id not in shown:
        raise unknown_retrieval(retrieval_id)
    return shown[retrieval_id]


def _may_show(conn: Connection, rid: int, passage: Passage) -> bool:
    """Whether a passage passes the retrieval's filter, which holds its tenant."""
    where = retrievals.filters_of(conn, [rid])[rid]
    return where is None or passes(json.loads(where), passage.metadata)
