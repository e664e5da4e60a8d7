"""Lists the notes of users to a reviewer beside the review queue, and decides them."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence

from rag_flywheel.capture.corrections import append_correction
from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.records import AddReport, MetadataValue, Passage, ReviewItem
from rag_flywheel.store import column_checks, notes, passages, wall_clock
from rag_flywheel.store.database import Database
from rag_flywheel.store.notes import Decided, Note

SOURCE = "correction"
Add = Callable[[Sequence[Passage]], AddReport]


def note_id(note: Note) -> str:
    """Ten characters that name a note."""
    name = f"{note.retrieval_id}\n{note.kind}\n{note.seq}".encode()
    return hashlib.blake2b(name, digest_size=5).hexdigest()


def waiting(database: Database) -> list[ReviewItem]:
    """The notes that wait for a decision, as items of the queue, the oldest first."""
    with database.snapshot() as conn:
        waiting = [note for note in notes.all_notes(conn) if note.decision is None]
    why = {
        "text": "a user wrote this as the answer",
        "missing": "a user says that the answer is missing",
    }
    return [ReviewItem(note_id(n), n.query, "", n.text, 0, 0, why[n.kind]) for n in waiting]


def find(database: Database, item_id: str) -> Note | None:
    """The note of an item, decided or not."""
    with database.snapshot() as conn:
        return next((n for n in notes.all_notes(conn) if note_id(n) == item_id), None)


def decide(database: Database, note: Note, kind: Decided, user: str | None, *, add: Add) -> None:
    """Accept or reject a note, or let it wait again.

    An accepted text becomes a passage, named by its author as the answer. A process that dies in
    between leaves the note waiting, and accepting it again has the same result.
    Raises InputError for rejecting or undoing a text that has become a passage.
    """
    accepted = note.decision == "accept"
    if note.kind == "text" and kind == "accept":
        passage = _passage(note)
        add([passage])
        if not accepted:
            # the correction is refused when a range in the question's filter excludes the passage
            with contextlib.suppress(UnknownIdError):
                append_correction(database, note.retrieval_id, passage.id, note.user_id)
    elif note.kind == "text" and accepted:
        raise InputError(
            f"the text of item {note_id(note)} is passage {_name(note)!r} of the index now; remove "
            "that passage instead"
        )
    with database.transaction(durable=True) as conn:
        seq = passages.advance_clock(conn)
        notes.append_decision(
            conn, seq=seq, at=wall_clock.now(), note=note.seq, kind=kind, user_id=user
        )


def _name(note: Note) -> str:
    return f"{SOURCE}-{note_id(note)}"


def _passage(note: Note) -> Passage:
    """The passage of a text, with the values of the question's filter, so that it passes the filter."""
    where = {} if note.where is None else column_checks.parsed("retrievals.filter", note.where)
    asked: dict[str, MetadataValue] = {
        key: value for key, value in where.items() if not isinstance(value, dict | list)
    }
    metadata = {**asked, "source": SOURCE, "retrieval": note.retrieval_id}
    return Passage(_name(note), note.text, metadata=metadata)
