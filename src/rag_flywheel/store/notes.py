"""Notes of users to a reviewer, and the decisions on them: appended, never changed here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rag_flywheel.records import TenantScope
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection, append_rows, in_chunks, scalar

NoteKind = Literal["text", "missing"]
Decided = Literal["accept", "reject", "undo"]


@dataclass(frozen=True)
class Note:
    """A stored note with the retrieval that it was written on.

    where: the retrieval's metadata filter as JSON.
    decision: the last one; None while the note waits for one.
    """

    seq: int
    kind: NoteKind
    text: str
    user_id: str | None
    at: float
    retrieval_id: str
    query: str
    query_hash: bytes
    tenant: str | None
    where: str | None
    decision: str | None


def append_note(
    conn: Connection,
    *,
    seq: int,
    at: float,
    rid: int,
    kind: NoteKind,
    text: str,
    user_id: str | None,
) -> None:
    """Append the note of a user on retrieval row `rid`."""
    row = {"seq": seq, "rid": rid, "kind": kind, "text": text, "user_id": user_id, "at": at}
    append_rows(conn, "notes", row)


def waits(conn: Connection, *, rid: int, kind: NoteKind, text: str, user_id: str | None) -> bool:
    """Whether the very same note of a user on retrieval row `rid` waits for its first decision."""
    sql = (
        "SELECT 1 FROM notes n WHERE rid = ? AND kind = ? AND text = ? AND user_id IS ? "
        "AND NOT EXISTS (SELECT 1 FROM note_reviews d WHERE d.note = n.seq) LIMIT 1"
    )
    return scalar(conn, sql, [rid, kind, text, user_id]) is not None


def append_decision(
    conn: Connection, *, seq: int, at: float, note: int, kind: Decided, user_id: str | None
) -> None:
    """Append the decision of a reviewer on a note."""
    row = {"seq": seq, "note": note, "decision": kind, "user_id": user_id, "at": at}
    append_rows(conn, "note_reviews", row)


def all_notes(conn: Connection) -> list[Note]:
    """Every note, the oldest first."""
    rows = conn.execute(
        "SELECT n.seq, n.kind, n.text, n.user_id, n.at, r.id, r.query, r.query_hash, r.tenant, r.filter, "
        "(SELECT decision FROM note_reviews d WHERE d.note = n.seq ORDER BY d.seq DESC LIMIT 1) "
        "FROM notes n JOIN retrievals r ON r.rid = n.rid ORDER BY n.seq"
    )
    return [_note(row) for row in rows]


def was_accepted(conn: Connection, note: int) -> bool:
    """Whether a note was ever accepted, undone or not."""
    sql = "SELECT 1 FROM note_reviews WHERE note = ? AND decision = 'accept' LIMIT 1"
    return scalar(conn, sql, [note]) is not None


def last_decided(conn: Connection, scope: TenantScope) -> tuple[int, int] | None:
    """(event number, note) of the last decision on a note in the scope that stands; None: there is none."""
    within, values = scope.sql("r.tenant")
    row = conn.execute(
        "SELECT d.seq, d.note FROM note_reviews d JOIN notes n ON n.seq = d.note "
        "JOIN retrievals r ON r.rid = n.rid WHERE d.decision != 'undo' AND NOT EXISTS (SELECT 1 "
        f"FROM note_reviews l WHERE l.note = d.note AND l.seq > d.seq){within} "
        "ORDER BY d.seq DESC LIMIT 1",
        values,
    ).fetchone()
    return None if row is None else (int(row[0]), int(row[1]))


def _note(row: tuple[Any, ...]) -> Note:
    seq, kind, text, user, at, retrieval, query, hashed, tenant, where, decision = row
    if kind not in {"text", "missing"}:
        column_checks.refuse("notes.kind", kind, "text or missing")
    if decision not in {None, "accept", "reject", "undo"}:
        column_checks.refuse("note_reviews.decision", decision, "accept, reject or undo")
    return Note(
        column_checks.whole("notes.seq", seq),
        kind,
        column_checks.text("notes.text", text),
        column_checks.optional_text("notes.user_id", user),
        column_checks.seconds("notes.at", at),
        column_checks.text("retrievals.id", retrieval),
        column_checks.text("retrievals.query", query),
        column_checks.hashed("retrievals.query_hash", hashed),
        column_checks.optional_text("retrievals.tenant", tenant),
        column_checks.optional_text("retrievals.filter", where),
        None if decision == "undo" else decision,
    )


def delete_notes_of(conn: Connection, user: str, mine: str) -> int:
    """Delete a user's notes, and all notes on their retrievals; returns how many were deleted.

    Their decisions on other notes stay, without their author.
    mine: SQL for the rows of their retrievals, with one `?` for the user.
    """
    deleted = conn.execute(
        f"DELETE FROM notes WHERE user_id = ? OR rid IN ({mine})", (user, user)
    ).rowcount
    _drop_loose_decisions(conn)
    conn.execute("UPDATE note_reviews SET user_id = NULL WHERE user_id = ?", (user,))
    return max(deleted, 0)


def fold_notes(conn: Connection, retrievals: Sequence[int]) -> None:
    """Delete the decided notes on these retrievals, and make the others anonymous."""
    rows = list(in_chunks(conn, "SELECT seq FROM notes WHERE rid IN (%s)", retrievals))
    waits = (
        "(SELECT decision FROM note_reviews d WHERE d.note = notes.seq ORDER BY d.seq DESC LIMIT 1)"
    )
    conn.executemany(f"DELETE FROM notes WHERE seq = ? AND {waits} IN ('accept', 'reject')", rows)
    conn.executemany("UPDATE notes SET user_id = NULL WHERE seq = ?", rows)
    _drop_loose_decisions(conn)


def _drop_loose_decisions(conn: Connection) -> None:
    conn.execute("DELETE FROM note_reviews WHERE note NOT IN (SELECT seq FROM notes)")
