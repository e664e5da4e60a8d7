"""What users say of answers: votes, verdicts, signals, corrections, and that an answer is missing."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Annotated

from fastapi import APIRouter, Response

from rag_flywheel.capture.runs import Run
from rag_flywheel.capture.votes import check_retrieval_id
from rag_flywheel.records import Vote
from rag_flywheel.service.bodies import (
    AdoptedBody,
    AnswerBody,
    AnswerFeedbackBody,
    CorrectionBody,
    MissingBody,
    OfARetrieval,
    OneVote,
    RelevanceBody,
    RunBody,
    SignalBody,
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
    return _votes(call, call.tenant(body.tenant, body.all_tenants), [body])


@router.post("/feedback-many", response_model=Recorded)
def feedback_many(body: VotesBody, call: Voter) -> Response:
    """Record many votes, all or none."""
    return _votes(call, call.tenant(body.tenant, body.all_tenants), body.votes)


def _about(
    call: Call, named: TenantArguments, body: OfARetrieval, choose: Callable[[Run], list[str]]
) -> list[str]:
    """The retrieval that a call names, or those chosen of the run that it names."""
    if body.run is None:
        return [check_retrieval_id(body.retrieval_id)]
    return choose(call.fw.run(body.retrieval_id, body.run, **named))


def _cited(
    call: Call, named: TenantArguments, body: OfARetrieval, cited: list[str] | None
) -> dict[str, list[str] | None]:
    """By the id of each retrieval that a verdict on an answer is about: the passages that it rests on."""
    if body.run is None:
        return {check_retrieval_id(body.retrieval_id): cited}
    return call.fw.run(body.retrieval_id, body.run, **named).citing(cited)


def _votes(call: Call, named: TenantArguments, given: Sequence[OneVote]) -> Response:
    find = lru_cache(partial(call.fw.run, **named))
    votes = []
    for each in given:
        if each.run is None:
            id_ = check_retrieval_id(each.retrieval_id)
        else:
            id_ = find(each.retrieval_id, each.run).showing(each.passage_id)
        votes.append(Vote(id_, each.passage_id, each.verdict, each.user_id, each.reason))
    casts = [Cast("vote", str(v.retrieval_id), v.user_id, v.passage_id, v.verdict) for v in votes]
    return record(call, named, casts, lambda: call.fw.feedback_many(votes, **named))


@router.post("/relevance", response_model=Recorded)
def relevance(body: RelevanceBody, call: Voter) -> Response:
    """Record a vote on each of these hits, all or none: helpful where true, else harmful."""
    votes = [
        OneVote(
            retrieval_id=body.retrieval_id,
            run=body.run,
            passage_id=passage,
            verdict="helpful" if relevant else "harmful",
            user_id=body.user_id,
        )
        for passage, relevant in body.helpful.items()
    ]
    return _votes(call, call.tenant(body.tenant, body.all_tenants), votes)


@router.post("/answer-feedback", response_model=Recorded)
def answer_feedback(body: AnswerFeedbackBody, call: Voter) -> Response:
    """Record a verdict on a whole answer, divided among the passages that it rests on."""
    named = call.tenant(body.tenant, body.all_tenants)
    cited = _cited(call, named, body, body.cited)

    def write(id_: str) -> bool:
        return call.fw.answer_feedback(
            id_,
            body.verdict,
            answer=body.answer,
            cited=cited[id_],
            user_id=body.user_id,
            **named,
        )

    casts = [Cast("answer", id_, body.user_id, verdict=body.verdict) for id_ in cited]
    return record(call, named, casts, lambda: sum(map(write, cited)))


@router.post("/adopted", response_model=Recorded)
def adopted(body: AdoptedBody, call: Voter) -> Response:
    """Record whether an answer was used."""
    named = call.tenant(body.tenant, body.all_tenants)
    cited = _cited(call, named, body, body.cited)

    def write(id_: str) -> bool:
        return call.fw.adopted(
            id_, used=body.used, why=body.why, cited=cited[id_], user_id=body.user_id, **named
        )

    casts = [Cast("adopted", id_, body.user_id) for id_ in cited]
    return record(call, named, casts, lambda: sum(map(write, cited)))


@router.post("/signals", response_model=Recorded)
def signal(body: SignalBody, call: Voter) -> Response:
    """Record what a user did with an answer, or with one passage of it."""
    named = call.tenant(body.tenant, body.all_tenants)
    ids = _about(call, named, body, lambda run: run.meant(body.passage_id))

    def write(id_: str) -> bool:
        return call.fw.signal(
            id_,
            body.kind,
            body.value,
            passage_id=body.passage_id,
            user_id=body.user_id,
            **named,
        )

    casts = [Cast(body.kind, id_, body.user_id, body.passage_id) for id_ in ids]
    return record(call, named, casts, lambda: sum(map(write, ids)))


@router.post("/corrections", response_model=Recorded)
def correct(body: CorrectionBody, call: Voter) -> Response:
    """Record the passage that a user names as the answer, or the answer that a user writes."""
    named = call.tenant(body.tenant, body.all_tenants)
    (id_,) = _about(call, named, body, lambda run: [run.newest])
    write = partial(call.fw.correct, id_, body.passage_id, body.text, user_id=body.user_id, **named)
    cast = Cast("correction", id_, body.user_id, body.passage_id)
    if body.passage_id is None:  # a text waits for review once, however often it is sent
        call.count_votes((body.user_id, id_))
        return recorded(write())
    return record(call, named, [cast], write)


@router.post("/missing", response_model=Recorded)
def missing(body: MissingBody, call: Voter) -> Response:
    """Record that a user reports a missing answer; the same one twice is one."""
    named = call.tenant(body.tenant, body.all_tenants)
    (id_,) = _about(call, named, body, lambda run: [run.newest])
    call.count_votes((body.user_id, id_))
    return recorded(call.fw.missing(id_, body.note, user_id=body.user_id, **named))


@router.post("/runs", status_code=204)
def link_run(body: RunBody, call: Annotated[Call, needs("read")]) -> Response:
    """Store that a retrieval belongs to a run, so that feedback may name the run."""
    named = call.tenant(body.tenant, body.all_tenants)
    call.fw.link_run(body.retrieval_id, body.run_id, **named)
    return Response(status_code=204)


@router.put("/retrievals/{retrieval_id:path}/answer", status_code=204)
def keep_answer(retrieval_id: str, body: AnswerBody, call: Voter) -> Response:
    """Store the answer that the application gave from a retrieval."""
    call.fw.answer(retrieval_id, body.text, **call.tenant(body.tenant, body.all_tenants))
    return Response(status_code=204)
