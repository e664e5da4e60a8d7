"""Signals: what users did with an answer, as weak evidence on the passages behind it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rag_flywheel.capture.answer_votes import (
    GetEncoder,
    append,
    check_cited,
    parts,
    prior_chances,
    shown_by,
)
from rag_flywheel.capture.terms import NO_TERMS, Terms
from rag_flywheel.capture.votes import check_retrieval_id
from rag_flywheel.checks import (
    MOST_ANSWER_CHARS,
    MOST_ID_CHARS,
    MOST_NOTE_CHARS,
    as_python,
    check_optional_text,
    check_text,
)
from rag_flywheel.errors import BusyError, InputError, quoted
from rag_flywheel.store import retrievals, votes
from rag_flywheel.store.database import BUSY_TIMEOUT_S, Database
from rag_flywheel.store.vectors import read_vectors
from rag_flywheel.store.votes import NewAnswerVote

log = logging.getLogger("rag_flywheel")
SIGNS = {
    "copied": 1.0,
    "accepted": 1.0,
    "task_done": 1.0,
    "regenerated": -1.0,
    "abandoned": -1.0,
    "rephrased": -1.0,
    "escalated": -1.0,
}
"""The direction of signals without a value; that of rating and edited follows from their value."""


@dataclass(frozen=True)
class SignalGiven:
    """What a user, given as a hash, did with an answer, or with one passage of it."""

    retrieval_id: str | None
    kind: str
    value: object = None
    passage_id: str | None = None
    user_id: str | None = None


def append_signal(
    database: Database, given: SignalGiven, encoder: GetEncoder, terms: Terms = NO_TERMS
) -> bool:
    """Append a signal in one durable commit; False when the user opted out.

    Raises InputError, UnknownIdError.
    """
    retrieval_id = check_retrieval_id(given.retrieval_id)
    check_optional_text("user_id", given.user_id)
    check_optional_text("passage_id", given.passage_id, MOST_ID_CHARS)
    if given.kind not in votes.SIGNALS:
        raise InputError(
            f"kind is {quoted(given.kind)}; expected one of {', '.join(votes.SIGNALS)}"
        )
    shown = shown_by(database, retrieval_id)
    level = level_of(replace(given, value=as_python(given.value)), shown.answer)
    credits = dict.fromkeys((pid for pid, _, _ in shown.hits), 0.0)
    if level:
        cited = [] if given.passage_id is None else [given.passage_id]
        shared = parts(database, retrieval_id, shown, cited, shown.answer, encoder)
        credits |= {pid: abs(level) * credit for pid, credit in shared.items()}
    verdict = "harmful" if level < 0 else "helpful"
    new = NewAnswerVote(shown.rid, given.kind, verdict, given.user_id, credits)
    return append(database, retrieval_id, new, terms)


def level_of(given: SignalGiven, answer: str | None) -> float:
    """The strength of a signal: from 1, wholly for the answer, to -1, wholly against it."""
    if given.kind == "rating":
        return _rated(given.value)
    if given.kind == "edited":
        return _edited(given.value, answer)
    if given.kind == "task_done" and given.value is False:
        return -1.0
    if given.value is not None and not (given.kind == "task_done" and given.value is True):
        raise InputError(f"{given.kind} has the value {quoted(given.value)}; expected none")
    return SIGNS[given.kind]


def _rated(value: object) -> float:
    """Whole numbers, and those above 1, are 1 to 5 stars; other numbers from 0 to 1 are shares."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if (isinstance(value, int) or value > 1.0) and 1 <= value <= 5:
            return (value - 3.0) / 2.0
        if isinstance(value, float) and 0.0 <= value <= 1.0:
            return 2.0 * value - 1.0
    raise InputError(f"rating is {quoted(value)}; expected 1 to 5, or a number from 0.0 to 1.0")


def _edited(value: object, answer: str | None) -> float:
    """2 r - 1 with r the share of words that stayed: of both texts, those of the longest common
    subsequence. The text is not stored."""
    final = check_text("value of edited", value, MOST_ANSWER_CHARS)
    if answer is None:
        raise InputError(
            "no answer is stored with this retrieval, so an edited one cannot be compared; give "
            "it to `answer` first"
        )
    from rapidfuzz.distance import Indel  # 30 ms to load

    return 2.0 * float(Indel.normalized_similarity(answer.split(), final.split())) - 1.0


def append_adopted(
    database: Database,
    retrieval_id: str | None,
    used: bool,
    why: str,
    user_id: str | None,
    encoder: GetEncoder,
    terms: Terms = NO_TERMS,
    cited: Sequence[str] | None = None,
) -> bool:
    """Append whether an answer was used, and why, as `append_signal` does.

    cited: the passages that it was made of; none of them, []: no passage gets a share.
    """
    retrieval_id, named = check_retrieval_id(retrieval_id), check_cited(cited)
    check_optional_text("user_id", user_id)
    if not isinstance(as_python(used), bool):
        raise InputError(f"used is {quoted(used)}; expected True or False")
    check_text("why", why, MOST_NOTE_CHARS)
    shown = shown_by(database, retrieval_id)
    credits = dict.fromkeys((pid for pid, _, _ in shown.hits), 0.0)
    if named != []:
        credits |= parts(database, retrieval_id, shown, named or (), shown.answer, encoder)
    verdict = "helpful" if used else "harmful"
    new = NewAnswerVote(shown.rid, "adopted", verdict, user_id, credits, why or None)
    return append(database, retrieval_id, new, terms)


def note_rephrased(
    database: Database,
    retrieval_id: str,
    *,
    within_s: float,
    least_cosine: float,
    vectors: tuple[str, int],
    wait_s: float = BUSY_TIMEOUT_S,
) -> bool:
    """Append that a question rephrases the one before it in its session, if it does.

    It does when it came within `within_s` seconds in other words, with a cosine of at least
    `least_cosine`. The earlier answer gets a harmful vote, divided by the chances of its hits.
    Nothing is appended while one of the two has no vector, nor when another program goes on writing for
    wait_s: the answer must not wait for it.
    vectors: the encoder revision and the dimension of the vectors of questions.
    """
    with database.reading() as conn:
        pair = retrievals.with_the_one_before(conn, retrieval_id)
        if pair is None or pair.seconds > within_s:
            return False
        found, (this, before) = read_vectors(conn, pair.hashes, *vectors), pair.hashes
        if len(found) < 2 or float(found[this] @ found[before]) < least_cosine:
            return False
        shown = retrievals.shown(conn, pair.before)
    if shown is None:
        return False
    credits = prior_chances(shown)
    new = NewAnswerVote(shown.rid, "rephrased", "harmful", pair.user_id, credits)
    try:
        return append(database, pair.before, new, wait_s=wait_s)
    except BusyError as error:
        log.warning("that a question was rephrased was not recorded: %s", error)
        return False
