"""What users say of answers: votes, verdicts, signals, corrections, and that an answer is missing."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Response

from rag_flywheel.records import Vote
from rag_flywheel.service.bodies import (
    AdoptedBody,
    AnswerBody,
    AnswerFeedbackBody,
    CorrectionBody,
    MissingBody,
    OneVote,
    RelevanceBody,
    SignalBody,
    Tenanted,
    VoteBody,
    VotesBody,
)
from rag_flywheel.service.calls import Call, TenantArguments, needs
from rag_flywheel.service.problems import WRITES
from rag_flywheel.service.recorded import Cast, Recorded, is_recorded, recorded
from rag_flywheel.service.repeats import OnceRoute

router = APIRouter(tags=["feedback"], route_class=OnceRoute, responses=WRITES)
Voter = Annotated[Call, needs("vote")]


def record(
    call: Call, named: TenantArguments, votes: Sequence[Cast], write: Callable[[], int]
) -> Response:
    """Count these votes towards the limits and write them, unless the first attempt of the call did."""
    call.count_votes(*((vote.user_id, vote.retrieval_id) for vote in votes))
    return recorded(len(votes) if is_recorded(call, named, votes) else write())


@router.post("/feedback", response_model=Recorded)
def feedback(body: VoteBody, call: Voter) -> Response:
    """Record one vote on a hit; `retract` withdraws the user's last one."""
    return _votes(call, body, [body])


@router.post("/feedback-many", response_model=Recorded)
def feedback_many(body: VotesBody, call: Voter) -> Response:
    """Record many votes, all or none."""
    return _votes(call, body, body.votes)


def _votes(call: Call, body: Tenanted, given: Sequence[OneVote]) -> Response:
    named = call.tenant(body.tenant, body.all_tenants)
    votes = [
        Vote(each.retrieval_id, each.passage_id, each.verdict, each.user_id, each.reason)
        for each in given
    ]
    casts = [
        Cast("vote", each.retrieval_id, each.user_id, each.passage_id, each.verdict)
        for each in given
    ]
    return record(call, named, casts, lambda: call.fw.feedback_many(votes, **named))


@router.post("/relevance", response_model=Recorded)
def relevance(body: RelevanceBody, call: Voter) -> Response:
    """Record a vote on each of these hits, all or none: helpful where true, else harmful."""
    named = call.tenant(body.tenant, body.all_tenants)
    casts = [
        Cast("vote", body.retrieval_id, body.user_id, id_, "helpful" if helpful else "harmful")
        for id_, helpful in body.helpful.items()
    ]
    write = partial(
        call.fw.relevance, body.retrieval_id, body.helpful, user_id=body.user_id, **named
    )
    return record(call, named, casts, write)


@router.post("/answer-feedback", response_model=Recorded)
def answer_feedback(body: AnswerFeedbackBody, call: Voter) -> Response:
    """Record a verdict on a whole answer, divided among the passages that it rests on."""
    named = call.tenant(body.tenant, body.all_tenants)
    write = partial(
        call.fw.answer_feedback,
        body.retrieval_id,
        body.verdict,
        answer=body.answer,
        cited=body.cited,
        user_id=body.user_id,
        **named,
    )
    cast = Cast("answer", body.retrieval_id, body.user_id, verdict=body.verdict)
    return record(call, named, [cast], write)


@router.post("/adopted", response_model=Recorded)
def adopted(body: AdoptedBody, call: Voter) -> Response:
    """Record whether an answer was used."""
    named = call.tenant(body.tenant, body.all_tenants)
    write = partial(
        call.fw.adopted,
        body.retrieval_id,
        used=body.used,
        why=body.why,
        cited=body.cited,
        user_id=body.user_id,
        **named,
    )
    cast = Cast("adopted", body.retrieval_id, body.user_id)
    return record(call, named, [cast], write)


@router.post("/signals", response_model=Recorded)
def signal(body: SignalBody, call: Voter) -> Response:
    """Record what a user did with an answer, or with one passage of it."""
    named = call.tenant(body.tenant, body.all_tenants)
    write = partial(
        call.fw.signal,
        body.retrieval_id,
        body.kind,
        body.value,
        passage_id=body.passage_id,
        user_id=body.user_id,
        **named,
    )
    cast = Cast(body.kind, body.retrieval_id, body.user_id, body.passage_id)
    return record(call, named, [cast], write)


@router.post("/corrections", response_model=Recorded)
def correct(body: CorrectionBody, call: Voter) -> Response:
    """Record the passage that a user names as the answer, or the answer that a user writes."""
    named = call.tenant(body.tenant, body.all_tenants)
    write = partial(
        call.fw.correct,
        body.retrieval_id,
        body.passage_id,
        body.text,
        user_id=body.user_id,
        **named,
    )
    cast = Cast("correction", body.retrieval_id, body.user_id, body.passage_id)
    if body.passage_id is None:  # a text waits for review once, however often it is sent
        call.count_votes((body.user_id, body.retrieval_id))
        return recorded(write())
    return record(call, named, [cast], write)


@router.post("/missing", response_model=Recorded)
def missing(body: MissingBody, call: Voter) -> Response:
    """Record that a user reports a missing answer; the same one twice is one."""
    named = call.tenant(body.tenant, body.all_tenants)
    call.count_votes((body.user_id, body.retrieval_id))
    return recorded(call.fw.missing(body.retrieval_id, body.note, user_id=body.user_id, **named))


@router.put("/retrievals/{retrieval_id:path}/answer", status_code=204)
def keep_answer(retrieval_id: str, body: AnswerBody, call: Voter) -> Response:
    """Store the answer that the application gave from a retrieval."""
    call.fw.answer(retrieval_id, body.text, **call.tenant(body.tenant, body.all_tenants))
    return Response(status_code=204)
