"""Answers that the application gave, as votes judge them, and as users corrected them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rag_flywheel.curate.judgments import judgments
from rag_flywheel.curate.notes import passage_id
from rag_flywheel.curate.people import of_enough_people
from rag_flywheel.export.allowed import Allowed, Asked
from rag_flywheel.export.graded import LEAST, WITHOUT_WORDS, words_of
from rag_flywheel.export.questions import TOO_FEW, Behind, Counting, behind
from rag_flywheel.records import QueryKey
from rag_flywheel.store import mutes, notes, passages, retrievals, votes
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.event_types import VoteEvent
from rag_flywheel.store.notes import Note

SOURCE_GONE = "answers from texts that are in the index no more"
NOT_REVIEWED = "corrections that no reviewer has accepted"
NO_ANSWER = "corrections of answers that were not stored"


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer to a question, and whether votes call it right; digest: of the question's words alone."""

    key: QueryKey
    words: str
    digest: bytes
    answer: str
    right: bool
    behind: Behind


@dataclass(frozen=True)
class CorrectedAnswer:
    """An answer, and what it should have been; reviewed: whether a reviewer accepted that. given: None:
    the application stored none."""

    key: QueryKey
    words: str
    digest: bytes
    given: str | None
    better: str
    reviewed: bool
    behind: Behind


def judged_answers(
    conn: Connection, asked: Asked, counting: Counting, left_out: Counter[str]
) -> list[JudgedAnswer]:
    """The stored answers on which votes are not about even, in the order of the questions' digests.

    Each person is one voice on the same answer to the same question. left_out: gets the counts of what
    was left out, by why.
    """
    allowed, numbers = Allowed(conn, asked), dict[tuple[QueryKey, str], int]()
    cast = []
    for verdict in votes.answer_verdicts(conn, asked.until(conn)):
        if allowed.holds(verdict.event):
            place = QueryKey(verdict.event.query, verdict.event.tenant), verdict.answer
            number = numbers.setdefault(place, len(numbers))
            cast.append(replace(verdict.event, lineage=number))
    heard = of_enough_people(cast, counting.least, counting.weights)
    found = [j for j in judgments(heard, counting.weights) if abs(j.helpful - j.harmful) >= LEAST]
    gone = _of_texts_gone(conn, [seq for judgment in found for seq in judgment.votes])
    there = [j for j in found if gone.isdisjoint(j.votes)]
    left_out[SOURCE_GONE] += len(found) - len(there)
    events = {event.seq: event for event in cast}
    answers = {number: place for place, number in numbers.items()}
    words = words_of(conn, asked, (answers[j.lineage][0] for j in there))
    left_out[WITHOUT_WORDS] += len({answers[j.lineage][0] for j in there} - words.keys())
    answered = retrievals.answered_by(conn, sorted({event.retrieval for event in cast}))
    judged = []
    for j in (j for j in there if answers[j.lineage][0] in words):
        key, answer = answers[j.lineage]
        right = j.helpful > j.harmful
        why = behind([e for seq in j.votes if _says(e := events[seq], right)], answered)
        if why.people < counting.min_people:
            left_out[TOO_FEW] += 1
            continue
        digest = passages.query_digest(words[key])
        judged.append(JudgedAnswer(key, words[key], digest, asked.masked(answer), right, why))
    return sorted(judged, key=lambda a: (a.digest, a.key.tenant or "", a.answer))


def _says(event: VoteEvent, right: bool) -> bool:
    return (event.verdict == "helpful") == right


def _of_texts_gone(conn: Connection, numbers: Sequence[int]) -> set[int]:
    """Those of these votes on answers in which a text has a part that is in the index no more."""
    parts = votes.credited(conn, sorted(set(numbers)))
    lineages = sorted({lineage for some in parts.values() for lineage in some})
    there = passages.pids_by_lineage(conn, lineages).keys()
    return {seq for seq, some in parts.items() if not there >= set(some)}


def corrected_answers(
    conn: Connection,
    asked: Asked,
    counting: Counting,
    left_out: Counter[str],
    *,
    unreviewed: bool,
) -> list[CorrectedAnswer]:
    """The answers in words of users that say better what was asked, in the order of the questions' digests.

    unreviewed: also those that no reviewer has accepted yet; never those that one rejected, those of people
    who are muted or weigh less than a half, and those that became a passage which is gone.
    """
    found = _notes(conn, asked, counting, left_out, unreviewed=unreviewed)
    words = words_of(conn, asked, (QueryKey(n.query_hash, n.tenant) for n in found))
    texts = passages.current_by_id(conn, [passage_id(note) for note in found])
    rows = {note.retrieval_id: retrievals.shown(conn, note.retrieval_id) for note in found}
    answered = retrievals.answered_by(conn, [row.rid for row in rows.values() if row is not None])
    corrected = []
    for note in found:
        key, row = QueryKey(note.query_hash, note.tenant), rows[note.retrieval_id]
        accepted = note.decision == "accept"
        became = texts.get(passage_id(note))
        if row is None or key not in words or (accepted and became is None):
            left_out[WITHOUT_WORDS if key not in words else SOURCE_GONE] += 1
            continue
        text = became.passage.text if accepted and became is not None else note.text
        by = answered[row.rid]
        when = behind([_as_event(note, row.rid)], {row.rid: by})
        corrected.append(
            CorrectedAnswer(
                key,
                words[key],
                passages.query_digest(words[key]),
                None if row.answer is None else asked.masked(row.answer),
                asked.masked(text),
                accepted,
                when,
            )
        )
    return sorted(corrected, key=lambda c: (c.digest, c.key.tenant or "", c.better))


def _notes(
    conn: Connection,
    asked: Asked,
    counting: Counting,
    left_out: Counter[str],
    *,
    unreviewed: bool,
) -> list[Note]:
    allowed, muted = Allowed(conn, asked), mutes.muted(conn)
    last, found = asked.until(conn), []
    every = [n for n in notes.all_notes(conn) if n.kind == "text" and n.seq <= last]
    rows = {n.retrieval_id: retrievals.shown(conn, n.retrieval_id) for n in every}
    for note in every:
        row = rows[note.retrieval_id]
        if row is None or not allowed.holds(_as_event(note, row.rid)):
            continue
        believed = note.user_id not in muted and _weight(counting.weights, note.user_id) >= LEAST
        if note.decision == "accept" or (unreviewed and note.decision is None and believed):
            found.append(note)
        else:
            left_out[NOT_REVIEWED] += 1
    return found


def _weight(weights: Mapping[str, float], user: str | None) -> float:
    return 1.0 if user is None else weights.get(user, 1.0)


def _as_event(note: Note, rid: int) -> VoteEvent:
    return VoteEvent(
        note.seq, rid, note.query_hash, note.tenant, 0, "helpful", note.user_id, note.at
    )


def best_answers(
    judged: Sequence[JudgedAnswer], corrected: Sequence[CorrectedAnswer]
) -> dict[QueryKey, str]:
    """The answer to each question that may stand as the right one: a reviewed correction, or else the
    answer that most people call helpful."""
    most: dict[QueryKey, list[JudgedAnswer]] = defaultdict(list)
    for answer in judged:
        if answer.right:
            most[answer.key].append(answer)
    found = {key: max(some, key=lambda a: a.behind.people).answer for key, some in most.items()}
    return found | {each.key: each.better for each in corrected if each.reviewed}
