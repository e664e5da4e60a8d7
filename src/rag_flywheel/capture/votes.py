"""Checks votes on hits against the hits that were shown, and appends them durably."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from rag_flywheel.capture.terms import NO_TERMS, Terms
from rag_flywheel.checks import (
    MOST_ANSWER_CHARS,
    MOST_ID_CHARS,
    MOST_NOTE_CHARS,
    as_python,
    check_optional_text,
    check_text,
    check_trust,
    items,
)
from rag_flywheel.errors import InputError, UnknownIdError, quoted
from rag_flywheel.records import TenantScope, Verdict, Vote
from rag_flywheel.store import passages, retrievals, wall_clock
from rag_flywheel.store import users as user_store
from rag_flywheel.store import votes as vote_store
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.votes import NewVote

VERDICTS: tuple[str, ...] = get_args(Verdict)


def append_votes(database: Database, given: Iterable[Vote], terms: Terms = NO_TERMS) -> int:
    """Append all of these votes in one durable commit, or none of them; returns how many.

    Votes of users who opted out are skipped without being checked. terms: under which they count,
    besides the trust of each.
    Raises InputError for an unknown verdict or a passage that the retrieval did not show,
    UnknownIdError for an unknown retrieval.
    """
    votes = items("votes", given, Vote)
    if not votes:
        return 0
    with database.transaction(durable=True) as conn:
        users = {v.user_id for v in votes if v.user_id is not None}
        out = user_store.opted_out(conn, users) if users else set[str]()
        votes = [v for v in votes if v.user_id not in out]
        for vote in votes:
            check_retrieval_id(vote.retrieval_id)
            check_text("passage_id", vote.passage_id, MOST_ID_CHARS)
            check_optional_text("user_id", vote.user_id)
            check_optional_text("reason", vote.reason, MOST_NOTE_CHARS)
            check_verdict(vote.verdict)
            check_trust(vote.trust)
        if not votes:
            return 0
        shown = retrievals.shown_hits(conn, sorted({str(v.retrieval_id) for v in votes}))
        new, at = [_resolve(vote, shown) for vote in votes], wall_clock.now()
        first = passages.advance_clock(conn, len(new))
        counted = _counted(conn, new, terms, at)
        vote_store.append_votes(conn, counted, first_seq=first, at=at)
    return len(votes)


def _counted(conn: Connection, new: Sequence[NewVote], terms: Terms, at: float) -> list[NewVote]:
    """The votes, those beyond what one user may cast in a day without any trust."""
    left: dict[str | int, float] = {}
    if len(new) > 1:
        users = sorted({vote.user_id for vote in new if vote.user_id is not None})
        if len(users) > 1:
            left.update(terms.left_of_users(conn, users, at=at).items())
    found = []
    for vote in new:
        voice = vote.user_id if vote.user_id is not None else vote.rid
        if voice not in left:
            left[voice] = terms.left(conn, vote.user_id, vote.rid, kind="vote", at=at)
        found.append(vote if left[voice] > 0 else replace(vote, trust=0.0))
        left[voice] -= 1
    return found


def relevance_votes(
    retrieval_id: str | None, helpful: object, user_id: str | None, run: str | None = None
) -> list[Vote]:
    """A vote for each passage id, helpful for True and harmful for False. Raises InputError."""
    if not isinstance(helpful, Mapping):
        raise InputError(
            f"relevance is {type(helpful).__name__}; expected {{passage id: True or False}}"
        )
    for passage_id, relevant in helpful.items():
        if not isinstance(as_python(relevant), bool):
            raise InputError(
                f"relevance of {quoted(passage_id)} is {quoted(relevant)}; expected True or False"
            )
    return [
        Vote(retrieval_id, passage_id, "helpful" if relevant else "harmful", user_id, run=run)
        for passage_id, relevant in helpful.items()
    ]


def check_verdict(verdict: object) -> None:
    """One of the three verdicts. Raises InputError."""
    if verdict not in VERDICTS:
        raise InputError(f"verdict is {quoted(verdict)}; expected one of {', '.join(VERDICTS)}")


def check_retrieval_id(retrieval_id: object) -> str:
    """`retrieval_id`, a string. Raises InputError; an answer that was not recorded has None."""
    if retrieval_id is None:
        raise InputError(
            "retrieval_id is None; expected a string: an answer that was not recorded has no id and "
            "takes no votes (record=False, a user who opted out, or a database that another program "
            "was writing to: see `recorded`). Or give run, the id of a run that retrievals belong to"
        )
    return check_text("retrieval_id", retrieval_id, MOST_ID_CHARS)


def _resolve(vote: Vote, shown: dict[str, tuple[int, dict[str, int]]]) -> vote_store.NewVote:
    retrieval_id = str(vote.retrieval_id)
    if retrieval_id not in shown:
        raise unknown_retrieval(retrieval_id)
    rid, hits = shown[retrieval_id]
    if vote.passage_id not in hits:
        raise InputError(
            f"retrieval {vote.retrieval_id} did not show passage {quoted(vote.passage_id)}; it showed "
            f"{', '.join(map(repr, hits)) or 'nothing'}. A vote is on a passage the user has seen"
        )
    pid = hits[vote.passage_id]
    return NewVote(rid, pid, vote.verdict, vote.user_id, vote.reason, vote.trust)


def keep_answer(database: Database, retrieval_id: str, text: str) -> None:
    """Store the answer an application gave from a retrieval. Raises InputError, UnknownIdError."""
    if not isinstance(retrieval_id, str) or not isinstance(text, str):
        raise InputError(
            f"answer got {type(retrieval_id).__name__} and {type(text).__name__}; expected the id "
            "of a retrieval and the answer's text"
        )
    check_text("retrieval_id", retrieval_id, MOST_ID_CHARS)
    check_text("answer", text, MOST_ANSWER_CHARS)
    with database.transaction() as conn:
        if not retrievals.set_answer(conn, retrieval_id, text):
            raise unknown_retrieval(retrieval_id)


def require_own(database: Database, ids: Iterable[object], scope: TenantScope) -> None:
    """Raises UnknownIdError for a retrieval that another tenant asked for, as for one that there is not."""
    if scope.tenant is None:
        return
    with database.reading() as conn:
        found = retrievals.tenants_of(conn, sorted({i for i in ids if isinstance(i, str)}))
    for id_, tenant in found.items():
        if not scope.holds(tenant):
            raise unknown_retrieval(id_)


def unknown_retrieval(retrieval_id: str) -> UnknownIdError:
    """The error for the id of a retrieval that is not recorded."""
    return UnknownIdError(
        f"no retrieval {quoted(retrieval_id)} is recorded in this index; expected the id of an answer "
        "that retrieve() or rerank() gave with record=True"
    )
