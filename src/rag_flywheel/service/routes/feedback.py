"""What users say of answers: votes, verdicts, signals, corrections, and that an answer is missing."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel

from rag_flywheel.records import Vote
from rag_flywheel.service.answers import answer
from rag_flywheel.service.bodies import (
    AdoptedBody,
    AnswerBody,
    AnswerFeedbackBody,
    CorrectionBody,
    MissingBody,
    RelevanceBody,
    SignalBody,
    VoteBody,
    VotesBody,
)
from rag_flywheel.service.calls import Call, needs
from rag_flywheel.service.problems import WRITES
from rag_flywheel.service.repeats import OnceRoute

router = APIRouter(tags=["feedback"], route_class=OnceRoute, responses=WRITES)
Voter = Annotated[Call, needs("vote")]


class Recorded(BaseModel):
    """How many were recorded, on the disk; 0 of a user who opted out."""

    recorded: int


def recorded(n: int) -> Response:
    """The answer to a call that recorded n of something."""
    return answer({"recorded": int(n)})


@router.post("/feedback", response_model=Recorded)
def feedback(body: VoteBody, call: Voter) -> Response:
    """Record one vote on a hit; `retract` withdraws the user's last one."""
    return recorded(
        call.fw.feedback(
            body.retrieval_id,
            body.passage_id,
            body.verdict,
            user_id=body.user_id,
            reason=body.reason,
            **call.tenant(body.tenant, body.all_tenants),
        )
    )


@router.post("/feedback-many", response_model=Recorded)
def feedback_many(body: VotesBody, call: Voter) -> Response:
    """Record many votes, all or none."""
    votes = [
        Vote(each.retrieval_id, each.passage_id, each.verdict, each.user_id, each.reason)
        for each in body.votes
    ]
    return recorded(call.fw.feedback_many(votes, **call.tenant(body.tenant, body.all_tenants)))


@router.post("/relevance", response_model=Recorded)
def relevance(body: RelevanceBody, call: Voter) -> Response:
    """Record a vote on each of these hits, all or none: helpful where true, else harmful."""
    return recorded(
        call.fw.relevance(
            body.retrieval_id,
            body.helpful,
            user_id=body.user_id,
            **call.tenant(body.tenant, body.all_tenants),
        )
    )


@router.post("/answer-feedback", response_model=Recorded)
def answer_feedback(body: AnswerFeedbackBody, call: Voter) -> Response:
    """Record a verdict on a whole answer, divided among the passages that it rests on."""
    return recorded(
        call.fw.answer_feedback(
            body.retrieval_id,
            body.verdict,
            answer=body.answer,
            cited=body.cited,
            user_id=body.user_id,
            **call.tenant(body.tenant, body.all_tenants),
        )
    )


@router.post("/adopted", response_model=Recorded)
def adopted(body: AdoptedBody, call: Voter) -> Response:
    """Record whether an answer was used."""
    return recorded(
        call.fw.adopted(
            body.retrieval_id,
            used=body.used,
            why=body.why,
            user_id=body.user_id,
            **call.tenant(body.tenant, body.all_tenants),
        )
    )


@router.post("/signals", response_model=Recorded)
def signal(body: SignalBody, call: Voter) -> Response:
    """Record what a user did with an answer, or with one passage of it."""
    return recorded(
        call.fw.signal(
            body.retrieval_id,
            body.kind,
            body.value,
            passage_id=body.passage_id,
            user_id=body.user_id,
            **call.tenant(body.tenant, body.all_tenants),
        )
    )


@router.post("/corrections", response_model=Recorded)
def correct(body: CorrectionBody, call: Voter) -> Response:
    """Record the passage that a user names as the answer, or the answer that a user writes."""
    return recorded(
        call.fw.correct(
            body.retrieval_id,
            body.passage_id,
            body.text,
            user_id=body.user_id,
            **call.tenant(body.tenant, body.all_tenants),
        )
    )


@router.post("/missing", response_model=Recorded)
def missing(body: MissingBody, call: Voter) -> Response:
    """Record that a user reports a missing answer."""
    return recorded(
        call.fw.missing(
            body.retrieval_id,
            body.note,
            user_id=body.user_id,
            **call.tenant(body.tenant, body.all_tenants),
        )
    )


@router.put("/retrievals/{retrieval_id:path}/answer", status_code=204)
def keep_answer(retrieval_id: str, body: AnswerBody, call: Voter) -> Response:
    """Store the answer that the application gave from a retrieval."""
    call.fw.answer(retrieval_id, body.text, **call.tenant(body.tenant, body.all_tenants))
    return Response(status_code=204)
