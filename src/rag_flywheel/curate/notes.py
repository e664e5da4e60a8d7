"""Lists the notes of users to a reviewer beside the review queue, and decides them."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence

from rag_flywheel.capture.corrections import append_correction
from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.records import AddReport, Passage, ReviewItem, TenantScope
from rag_flywheel.store import column_checks, notes, passages, wall_clock
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.filters import demanded
from rag_flywheel.store.notes import Decided, Note

SOURCE = "correction"
EDITED = "edited_in_review"
"""The metadata key of a text that its reviewer edited: a digest of it as it was accepted."""
Add = Callable[[Sequence[Passage]], AddReport]
Remove = Callable[[list[str]], int]


def note_id(note: Note) -> str:
    """Ten characters that name a note."""
    name = f"{note.retrieval_id}\n{note.kind}\n{note.seq}".encode()
    return hashlib.blake2b(name, digest_size=5).hexdigest()


def waiting(database: Database, scope: TenantScope) -> list[ReviewItem]:
    """The notes in the scope that wait for a decision, as items of the queue, the oldest first."""
    with database.snapshot() as conn:
        waiting = [note for note in _notes_in(conn, scope) if note.decision is None]
    why = {
        "text": "a user wrote this as the answer",
        "missing": "a user says that the answer is missing",
    }
    return [
        ReviewItem(note_id(n), n.query, "", n.text, 0, 0, why[n.kind], n.tenant) for n in waiting
    ]


def last_decided(database: Database, scope: TenantScope) -> tuple[int, Note] | None:
    """(event number, note) of the last decision on a note in the scope that stands; None: there is none."""
    with database.snapshot() as conn:
        last = notes.last_decided(conn, scope)
        found = [n for n in notes.all_notes(conn) if last is not None and n.seq == last[1]]
    return (last[0], found[0]) if last is not None and found else None


def find(database: Database, item_id: str, scope: TenantScope) -> Note | None:
    """The note of an item in the scope, decided or not."""
    with database.snapshot() as conn:
        return next((n for n in _notes_in(conn, scope) if note_id(n) == item_id), None)


def _notes_in(conn: Connection, scope: TenantScope) -> list[Note]:
    return [note for note in notes.all_notes(conn) if scope.holds(note.tenant)]


def decide(
    database: Database,
    note: Note,
    kind: Decided,
    user: str | None,
    *,
    add: Add,
    remove: Remove,
    edited: str | None = None,
) -> str | None:
    """Accept or reject a note, or let it wait again; returns the id of the passage of an accepted text.

    edited: the text as the reviewer would have it; None: as its author wrote it.

    An accepted text becomes a passage, named by its author as the answer; undoing that removes the
    passage. A process that dies in between leaves the decision as it was, and repeating the call has the
    same result.
    Raises InputError for rejecting a text that has become a passage, and for undoing one that was edited.
    """
    made: str | None = None
    accepted = note.kind == "text" and note.decision == "accept"
    if edited is not None and note.kind != "text":
        raise InputError("found a text for a note that an answer is missing; correct adds a text")
    if note.kind == "text" and kind == "accept":
        made = _add(database, note, note.text if edited is None else edited, add)
    elif accepted and kind == "undo":
        _remove(database, note, remove)
    elif accepted:
        raise InputError(
            f"the text of item {note_id(note)} is passage {passage_id(note)!r} of the index now; undo the "
            f"acceptance first: rag-flywheel review undo {note_id(note)}"
        )
    with database.transaction(durable=True) as conn:
        seq = passages.advance_clock(conn)
        notes.append_decision(
            conn, seq=seq, at=wall_clock.now(), note=note.seq, kind=kind, user_id=user
        )
    return made


def _add(database: Database, note: Note, text: str, add: Add) -> str:
    """Add the passage of a text, as its author or the reviewer has it; returns its id."""
    passage = _passage(note, text)
    add([passage])
    with database.reading() as conn:
        named_before = notes.was_accepted(conn, note.seq)
    if not named_before:
        # the correction is refused when a range in the question's filter excludes the passage
        with contextlib.suppress(UnknownIdError):
            append_correction(database, note.retrieval_id, passage.id, note.user_id)
    return passage.id


def _remove(database: Database, note: Note, remove: Remove) -> None:
    """Remove the passage of a text, if it is still there. Raises InputError when it was edited."""
    name = passage_id(note)
    with database.reading() as conn:
        present = passages.current_by_id(conn, [name]).get(name)
    if present is None:
        return
    as_accepted = present.passage.metadata.get(EDITED) == _digest(present.passage.text)
    if present.passage.text != note.text and not as_accepted:
        raise InputError(
            f"passage {name!r}, which item {note_id(note)} became, was edited since; remove it "
            f"yourself if it is to go: rag-flywheel remove {name}, then undo the acceptance"
        )
    remove([name])


def passage_id(note: Note) -> str:
    """The id of the passage that the text of a note becomes when it is accepted."""
    return f"{SOURCE}-{note_id(note)}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _passage(note: Note, text: str) -> Passage:
    """The passage of a text, with the values of the question's filter, so that it passes the filter."""
    where = {} if note.where is None else column_checks.parsed("retrievals.filter", note.where)
    metadata = {**dict(demanded(where)), "source": SOURCE, "retrieval": note.retrieval_id}
    if text != note.text:
        metadata[EDITED] = _digest(text)
    return Passage(passage_id(note), text, metadata=metadata)
