"""What users wrote for a reviewer: listed beside the review queue, and decided there."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Literal

from rag_flywheel.capture.corrections import append_correction
from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.records import AddReport, MetadataValue, Passage, ReviewItem
from rag_flywheel.store import column_checks, notes, passages
from rag_flywheel.store.database import Database
from rag_flywheel.store.notes import Note

SOURCE = "correction"
Add = Callable[[Sequence[Passage]], AddReport]


def note_id(note: Note) -> str:
    """Ten characters that name a note."""
    name = f"{note.retrieval_id}\n{note.kind}\n{note.seq}".encode()
    return hashlib.blake2b(name, digest_size=5).hexdigest()


def waiting(database: Database) -> list[ReviewItem]:
    """The notes that nobody has decided, the oldest first."""
    with database.snapshot() as conn:
        found = notes.all_notes(conn)
    return [_item(note) for note in found if note.decision is None]


def find(database: Database, item_id: str) -> Note | None:
    """The note of an item, decided or not."""
    with database.snapshot() as conn:
        return next((n for n in notes.all_notes(conn) if note_id(n) == item_id), None)


def accept(database: Database, note: Note, user: str | None, *, add: Add) -> None:
    """Decide that a note is right; a text becomes a passage, named by its author as the answer.

    A process that dies in between leaves the note waiting: accepting it again ends the same.
    """
    if note.kind == "text":
        passage = _passage(note)
        add([passage])
        if note.decision != "accept":
            # one that a range in the question's filter keeps out cannot be named for it
            with contextlib.suppress(UnknownIdError):
                append_correction(database, note.retrieval_id, passage.id, note.user_id)
    _decide(database, note, "accept", user)


def reject(database: Database, note: Note, user: str | None) -> None:
    """Decide that a note is wrong. Raises InputError for a text that has become a passage."""
    _refuse_added(note)
    _decide(database, note, "reject", user)


def undo(database: Database, note: Note, user: str | None) -> None:
    """Let a note wait again. Raises InputError for a text that has become a passage."""
    _refuse_added(note)
    _decide(database, note, "undo", user)


def _refuse_added(note: Note) -> None:
    if note.kind == "text" and note.decision == "accept":
        raise InputError(
            f"the text of item {note_id(note)} is passage {_name(note)!r} of the index now; remove "
            "that passage instead"
        )


def _decide(
    database: Database, note: Note, kind: Literal["accept", "reject", "undo"], user: str | None
) -> None:
    with database.transaction(durable=True) as conn:
        seq = passages.advance_clock(conn)
        notes.append_decision(conn, seq=seq, at=time.time(), note=note.seq, kind=kind, user_id=user)


def _name(note: Note) -> str:
    return f"{SOURCE}-{note_id(note)}"


def _passage(note: Note) -> Passage:
    """With what the question's filter asked for, its tenant among it, so that it is found again."""
    where = {} if note.where is None else column_checks.parsed("retrievals.filter", note.where)
    asked: dict[str, MetadataValue] = {
        key: value for key, value in where.items() if not isinstance(value, dict | list)
    }
    metadata = {**asked, "source": SOURCE, "retrieval": note.retrieval_id}
    return Passage(_name(note), note.text, metadata=metadata)


def _item(note: Note) -> ReviewItem:
    why = "a user wrote this as the answer"
    if note.kind == "missing":
        why = "a user says that the answer is missing"
    return ReviewItem(note_id(note), note.query, "", note.text, 0, 0, why)
