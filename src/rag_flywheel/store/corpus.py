"""Adds and removes passages: checks them, embeds those without a vector, writes in one commit."""

import difflib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence

from rag_flywheel.checks import check_passages, check_text
from rag_flywheel.encoder import Encoder, TextEncoder
from rag_flywheel.errors import InputError, UnknownIdError, counted
from rag_flywheel.records import AddReport, Filter, Passage, Progress
from rag_flywheel.store import filters
from rag_flywheel.store import passages as store
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import store_vectors
from rag_flywheel.store.passages import StoredPassage
from rag_flywheel.store.vectors import hashes_with_vector

_LONG = 4000  # words above which an edit is compared as a bag of words: difflib is quadratic


def add(
    database: Database,
    encoder: Encoder,
    given: Iterable[Passage],
    *,
    edit_keeps_votes: float,
    progress: Progress | None = None,
) -> AddReport:
    """Add passages, or change those that are there under the same id: all of them, or none.

    Vectors are stored as they are encoded, so that a repeated call after an interruption goes on
    where it stopped. Raises InputError.
    edit_keeps_votes: the similarity, from 0 to 1, from which on an edited text inherits the votes.
    """
    wanted = check_passages(given)
    with database.reading() as conn:
        current = store.current_by_id(conn, list(wanted))
    texts = {
        store.passage_hash(p): store.encoded_text(p)
        for p in wanted.values()
        if p.id not in current or current[p.id].text_hash != store.passage_hash(p)
    }
    embed(database, encoder, texts, progress)
    with database.reading() as conn:
        heirs = {
            p.id: _lineage(conn, p, current.get(p.id), edit_keeps_votes) for p in wanted.values()
        }
    with database.transaction() as conn:
        now = store.current_by_id(conn, list(wanted))
        seq = store.advance_clock(conn)
        added = updated = 0
        for passage in wanted.values():
            old = now.get(passage.id)
            if _same(old, passage):
                continue
            added, updated = added + (old is None), updated + (old is not None)
            if old is not None and _same_words(old, passage):
                store.update_in_place(conn, old.pid, passage)
                continue
            before = current.get(passage.id)
            if (old and old.pid) != (before and before.pid):  # another process was in between
                heirs[passage.id] = _lineage(conn, passage, old, edit_keeps_votes)
            if old is not None:
                store.end(conn, [old.pid], seq)
            store.insert(conn, passage, seq=seq, lineage=heirs[passage.id])
    return AddReport(added, updated, len(wanted) - added - updated)


def remove(database: Database, ids: Sequence[str]) -> int:
    """Remove passages, all or none; returns how many. Raises InputError, UnknownIdError."""
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        what = f"the string {ids!r}" if isinstance(ids, str) else type(ids).__name__
        raise InputError(f"ids is {what}; expected a list of passage ids")
    given = list(ids)
    for id_ in given:
        if not isinstance(id_, str):
            raise InputError(f"passage id {id_!r} is {type(id_).__name__}; expected a string")
        check_text("passage id", id_)
    wanted = list(dict.fromkeys(given))
    if not wanted:
        return 0
    with database.transaction() as conn:
        current = store.current_by_id(conn, wanted)
        missing = [id_ for id_ in wanted if id_ not in current]
        if missing:
            raise UnknownIdError(
                f"no passage {missing[0]!r} is in this index"
                + (f" (nor {counted(len(missing) - 1, 'other')} given)" if len(missing) > 1 else "")
                + "; expected ids of passages that were added and not removed. Nothing was removed"
            )
        store.end(conn, [p.pid for p in current.values()], store.advance_clock(conn))
    return len(wanted)


def stored(database: Database, where: Filter | None) -> list[Passage]:
    """The passages in the index that pass a filter. Raises InputError."""
    with database.snapshot() as conn:
        if where is None:
            return [s.passage for s in store.present(conn)]
        pids = filters.matching_pids(conn, where).tolist()
        return [s.passage for s in store.fetch(conn, pids).values()]


def embed(
    database: Database,
    encoder: Encoder,
    texts: dict[bytes, str],
    progress: Progress | None = None,
) -> int:
    """Encode and store the vectors that these texts, by hash, do not have yet; returns how many."""
    with database.reading() as conn:
        present = hashes_with_vector(conn, list(texts), encoder.revision)
    longest_first = sorted(texts, key=lambda h: -len(texts[h]))
    missing = {h: texts[h] for h in longest_first if h not in present}
    passages = TextEncoder.of_passages(encoder)
    for _ in store_vectors(database, missing, passages, progress, "embed"):
        pass
    if progress is not None and missing:
        progress("embed", len(missing), len(missing))
    return len(missing)


def near_identical(old: str, new: str, least: float) -> bool:
    """Whether at least the share `least` of the words stays in place (difflib ratio over words).

    Texts of more than 4,000 words are compared as bags of words: an upper bound of the same ratio.
    """
    a, b = old.split(), new.split()
    if a == b:
        return True
    shared = (Counter(a) & Counter(b)).total()
    if least >= 1.0 or 2.0 * shared < least * (len(a) + len(b)):
        return False
    if max(len(a), len(b)) > _LONG:
        return True
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= least


def _lineage(
    conn: sqlite3.Connection, passage: Passage, current: StoredPassage | None, least: float
) -> int | None:
    """The row whose votes a new text of this passage inherits, None when there is none.

    The text must be near-identical to an earlier text of the passage and also to the one that the
    votes began on, so that many small edits do not carry votes to other words.
    least: as in `near_identical`.
    """
    text = store.encoded_text(passage)
    latest = [] if current is None else [current]
    for old in [*latest, *store.earlier_texts(conn, passage.id, store.passage_hash(passage))]:
        if near_identical(store.encoded_text(old.passage), text, least):
            first = store.text_of(conn, old.lineage)
            if first is not None and near_identical(first, text, least):
                return old.lineage
    return None


def _same(old: StoredPassage | None, new: Passage) -> bool:
    return (
        old is not None
        and (old.passage.title, old.passage.text) == (new.title, new.text)
        and store.metadata_json(old.passage.metadata) == store.metadata_json(new.metadata)
    )


def _same_words(old: StoredPassage, new: Passage) -> bool:
    """Whether the encoded text is the same, and the title ends where it did."""
    return old.text_hash == store.passage_hash(new) and old.passage.title == new.title
