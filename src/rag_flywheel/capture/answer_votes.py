"""Votes on whole answers: shared out among the passages behind them, and appended durably.

The parts are worked out when the vote comes and stored with it, so that nobody who reads it needs
an encoder.
"""

import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rag_flywheel.capture.answer_credit import credits_by_support, sentences
from rag_flywheel.capture.votes import VERDICTS, check_retrieval_id, unknown_retrieval
from rag_flywheel.checks import check_optional_text, check_text, items
from rag_flywheel.encoder import Encoder, TextEncoder
from rag_flywheel.errors import InputError
from rag_flywheel.records import EmbeddedText
from rag_flywheel.store import passages, retrievals, users, votes
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import vectors_of
from rag_flywheel.store.votes import NewAnswerVote

ANSWER = "answer"
_LEAST = 0.01  # a smaller part says nothing
_Credits = dict[int, float]  # by pid
GetEncoder = Callable[[], Encoder]


@dataclass(frozen=True)
class AnswerVote:
    """What a user, given as a hash, says of a whole answer; cited: passage ids that it names."""

    retrieval_id: str | None
    verdict: str
    answer: str | None = None
    cited: Sequence[str] | None = None
    user_id: str | None = None


def append_answer_vote(database: Database, vote: AnswerVote, encoder: GetEncoder) -> bool:
    """Append a vote on an answer in one durable commit; False: the user opted out, nothing is kept.

    encoder: called when texts have to be compared. Raises InputError, UnknownIdError.
    """
    known, cited = _checked(vote)
    with database.reading() as conn:
        if _opted_out(conn, vote.user_id):
            return False
        shown = retrievals.shown(conn, known)
    if shown is None:
        raise unknown_retrieval(known)
    _pids(known, shown, cited)
    credits = dict.fromkeys((pid for pid, _, _ in shown.hits), 0.0)
    if vote.verdict != "retract":
        credits |= parts(database, known, shown, cited, vote.answer or shown.answer, encoder)
    new = NewAnswerVote(shown.rid, ANSWER, vote.verdict, vote.user_id, credits)
    return append(database, known, new)


def append(database: Database, retrieval_id: str, new: NewAnswerVote) -> bool:
    """Append it durably, unless its user opted out. Raises UnknownIdError when it was forgotten."""
    with database.transaction(durable=True) as conn:
        if _opted_out(conn, new.user_id):
            return False
        if retrieval_id not in retrievals.shown_hits(conn, [retrieval_id]):
            raise unknown_retrieval(retrieval_id)
        votes.append_answer_vote(conn, new, seq=passages.advance_clock(conn), at=time.time())
    return True


def _checked(vote: AnswerVote) -> tuple[str, list[str]]:
    """(the retrieval's id, what is cited)."""
    known = check_retrieval_id(vote.retrieval_id)
    if vote.verdict not in VERDICTS:
        raise InputError(f"verdict is {vote.verdict!r}; expected one of {', '.join(VERDICTS)}")
    check_optional_text("answer", vote.answer)
    check_optional_text("user_id", vote.user_id)
    if vote.answer is not None and not vote.answer.strip():
        raise InputError("answer is blank; expected its text, or leave it out")
    cited = [] if vote.cited is None else items("cited", vote.cited, str)
    for id_ in cited:
        check_text("cited", id_)
    if vote.verdict == "retract" and (cited or vote.answer is not None):
        raise InputError("a retraction takes back the whole vote; leave out answer and cited")
    return known, cited


def _opted_out(conn: sqlite3.Connection, user_id: str | None) -> bool:
    return user_id is not None and bool(users.opted_out(conn, {user_id}))


def _pids(retrieval_id: str, shown: retrievals.Shown, cited: Sequence[str]) -> list[int]:
    pids = {name: pid for pid, name, _ in shown.hits}
    for id_ in cited:
        if id_ not in pids:
            raise InputError(
                f"retrieval {retrieval_id} did not show the passage {id_!r}; it showed "
                f"{', '.join(map(repr, pids)) or 'nothing'}"
            )
    return list(dict.fromkeys(pids[id_] for id_ in cited))


def parts(
    database: Database,
    retrieval_id: str,
    shown: retrievals.Shown,
    of: Sequence[str],
    answer: str | None,
    encoder: GetEncoder,
) -> _Credits:
    """Parts of at most 1 in all: of the cited passages 1 in all, else what the answer's text says
    for each, else the chance that each was the answer when it was shown.

    of: ids of the cited ones. Raises InputError for one that was not shown.
    """
    cited = _pids(retrieval_id, shown, of)
    among = cited or [pid for pid, _, _ in shown.hits]
    found: _Credits = {}
    if answer is not None and len(cited) != 1:
        found = _supported(database, among, answer, encoder)
    if cited:
        total = sum(found.values())
        if total <= 0.0:
            return dict.fromkeys(cited, 1.0 / len(cited))
        found = {pid: credit / total for pid, credit in found.items()}
    elif answer is None or not found:
        found = prior_chances(shown)
    return {pid: min(c, 1.0) for pid, c in found.items() if c >= _LEAST}


def prior_chances(shown: retrievals.Shown) -> _Credits:
    """The chance that each hit was the answer, as it was logged with it: at most 1 in all."""
    chances = {pid: math.exp(min(score, 0.0)) for pid, _, score in shown.hits}
    total = max(sum(chances.values()), 1.0)
    return {pid: chance / total for pid, chance in chances.items()}


def _supported(
    database: Database, pids: Sequence[int], answer: str, encoder: GetEncoder
) -> _Credits:
    """What the answer's sentences say for each text that still stands; empty when nothing can be
    compared."""
    said = sentences(answer)
    with database.reading() as conn:
        texts = passages.fetch(conn, pids)
    if not said or not texts:
        return {}
    side = TextEncoder.of_passages(encoder())
    order = sorted(texts)
    words = {texts[pid].text_hash: passages.encoded_text(texts[pid].passage) for pid in order}
    with database.reading() as conn:
        vectors = vectors_of(conn, words, side)
    hashes = [texts[pid].text_hash for pid in order]
    found = credits_by_support(
        said, [EmbeddedText(words[h], vectors[h]) for h in hashes], side.encode
    )
    return dict(zip(order, np.minimum(found, 1.0).tolist(), strict=True))
