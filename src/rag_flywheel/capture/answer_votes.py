"""Divides votes on whole answers among the passages behind them, and appends them durably.

The credits are computed when the vote comes and stored with it, so that reading it needs no
encoder.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rag_flywheel.capture.answer_credit import credits_by_support, sentences
from rag_flywheel.capture.terms import NO_TERMS, Terms
from rag_flywheel.capture.votes import check_retrieval_id, check_verdict, unknown_retrieval
from rag_flywheel.checks import (
    MOST_ANSWER_CHARS,
    MOST_ID_CHARS,
    check_optional_text,
    check_text,
    items,
)
from rag_flywheel.encoder import Encoder, TextEncoder
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.index.tokenizer import tokenizer_for
from rag_flywheel.records import AUTO, EmbeddedText
from rag_flywheel.store import passages, retrievals, users, votes, wall_clock
from rag_flywheel.store.database import BUSY_TIMEOUT_S, Database
from rag_flywheel.store.embedding import vectors_of
from rag_flywheel.store.votes import NewAnswerVote

ANSWER = "answer"
_LEAST = 0.01  # smaller credits are not stored
_Credits = dict[int, float]  # by pid
GetEncoder = Callable[[], Encoder]


@dataclass(frozen=True)
class AnswerVote:
    """A verdict of a user, given as a hash, on a whole answer; cited: the passage ids that it
    names, none of them for an empty list; None: not known."""

    retrieval_id: str | None
    verdict: str
    answer: str | None = None
    cited: Sequence[str] | None = None
    user_id: str | None = None


def append_answer_vote(
    database: Database, vote: AnswerVote, encoder: GetEncoder, terms: Terms = NO_TERMS
) -> bool:
    """Append a vote on an answer in one durable commit; False when the user opted out.

    encoder: called when texts have to be compared. Raises InputError, UnknownIdError.
    """
    retrieval_id, cited = _checked(vote)
    with database.reading() as conn:
        if users.has_opted_out(conn, vote.user_id):
            return False
    shown = shown_by(database, retrieval_id)
    credits = dict.fromkeys((pid for pid, _, _ in shown.hits), 0.0)
    if vote.verdict != "retract" and cited != []:
        credits |= parts(
            database, retrieval_id, shown, cited or (), vote.answer or shown.answer, encoder
        )
    new = NewAnswerVote(shown.rid, ANSWER, vote.verdict, vote.user_id, credits)
    return append(database, retrieval_id, new, terms)


def shown_by(database: Database, retrieval_id: str) -> retrievals.Shown:
    """The hits and the answer of a retrieval. Raises UnknownIdError."""
    with database.reading() as conn:
        shown = retrievals.shown(conn, retrieval_id)
    if shown is None:
        raise unknown_retrieval(retrieval_id)
    return shown


def append(
    database: Database,
    retrieval_id: str,
    new: NewAnswerVote,
    terms: Terms = NO_TERMS,
    *,
    wait_s: float = BUSY_TIMEOUT_S,
) -> bool:
    """Append a vote durably, unless its user opted out; returns whether it was appended.

    wait_s: for how long to wait while another program writes. Raises BusyError after it, and
    UnknownIdError when its retrieval was deleted meanwhile.
    """
    with database.transaction(durable=True, wait_s=wait_s) as conn:
        if users.has_opted_out(conn, new.user_id):
            return False
        if retrieval_id not in retrievals.shown_hits(conn, [retrieval_id]):
            raise unknown_retrieval(retrieval_id)
        at = wall_clock.now()
        new = replace(new, trust=terms.trust_of(conn, new.user_id, new.rid, kind=new.kind, at=at))
        votes.append_answer_vote(conn, new, seq=passages.advance_clock(conn), at=at)
    return True


def _checked(vote: AnswerVote) -> tuple[str, list[str] | None]:
    """(the retrieval's id, the cited passage ids; None: not known)."""
    retrieval_id = check_retrieval_id(vote.retrieval_id)
    check_verdict(vote.verdict)
    check_optional_text("answer", vote.answer, MOST_ANSWER_CHARS)
    check_optional_text("user_id", vote.user_id)
    if vote.answer is not None and not vote.answer.strip():
        raise InputError("answer is blank; expected its text, or leave it out")
    cited = check_cited(vote.cited)
    if vote.verdict == "retract" and (cited or vote.answer is not None):
        raise InputError("a retraction takes back the whole vote; leave out answer and cited")
    return retrieval_id, cited


def check_cited(given: Sequence[str] | None) -> list[str] | None:
    """The ids of cited passages; None: not known. Raises InputError."""
    if given is None:
        return None
    cited = items("cited", given, str)
    for id_ in cited:
        check_text("cited", id_, MOST_ID_CHARS)
    return cited


def parts(
    database: Database,
    retrieval_id: str,
    shown: retrievals.Shown,
    cited_ids: Sequence[str],
    answer: str | None,
    encoder: GetEncoder,
) -> _Credits:
    """The credit of each passage in an answer, at most 1 in all.

    Cited passages share a credit of 1. Without any, each passage gets as much as it supports the
    answer's text; without a text, the chance that it was the answer when it was shown.
    Raises InputError for a cited passage that was not shown.
    """
    pids = {name: pid for pid, name, _ in shown.hits}
    for id_ in cited_ids:
        if id_ not in pids:
            raise InputError(
                f"retrieval {retrieval_id} did not show the passage {quoted(id_)}; it showed "
                f"{', '.join(map(repr, pids)) or 'nothing'}"
            )
    cited = list(dict.fromkeys(pids[id_] for id_ in cited_ids))
    credits: _Credits = {}
    if answer is not None and len(cited) != 1:
        among = cited or [pid for pid, _, _ in shown.hits]
        credits = _supported(database, among, answer, encoder)
    if cited:
        total = sum(credits.values())
        if total <= 0.0:
            return dict.fromkeys(cited, 1.0 / len(cited))
        credits = {pid: credit / total for pid, credit in credits.items()}
    elif not credits:
        credits = prior_chances(shown)
    return {pid: min(c, 1.0) for pid, c in credits.items() if c >= _LEAST}


def prior_chances(shown: retrievals.Shown) -> _Credits:
    """The chance that each hit was the answer, from its logged score: at most 1 in all."""
    chances = {pid: math.exp(min(score, 0.0)) for pid, _, score in shown.hits}
    total = max(sum(chances.values()), 1.0)
    return {pid: chance / total for pid, chance in chances.items()}


def _supported(
    database: Database, pids: Sequence[int], answer: str, encoder: GetEncoder
) -> _Credits:
    """How much each of these texts that has not ended supports the answer's sentences.

    Empty when the answer has no sentence with content words, or every text has ended.
    """
    with database.reading() as conn:
        texts = passages.fetch(conn, pids)
    every = [passages.encoded_text(stored.passage) for stored in texts.values()]
    tokenizer = tokenizer_for(AUTO, every)
    given = sentences(answer, tokenizer)
    if not given or not texts:
        return {}
    side = TextEncoder.of_passages(encoder())
    order = sorted(texts)
    hashes = [texts[pid].text_hash for pid in order]
    words = {texts[pid].text_hash: passages.encoded_text(texts[pid].passage) for pid in order}
    with database.reading() as conn:
        vectors = vectors_of(conn, words, side)
    embedded = [EmbeddedText(words[h], vectors[h]) for h in hashes]
    credits = np.minimum(credits_by_support(given, embedded, side.encode, tokenizer), 1.0)
    return dict(zip(order, credits.tolist(), strict=True))
