"""What was asked and voted: retrievals, votes, judgments, voters and the history of the index."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from rag_flywheel.records import (
    DayActivity,
    Explanation,
    HistoryEntry,
    Hit,
    PassageJudgment,
    PastVotes,
    QuestionSummary,
    RecordedRetrieval,
    RecordedVote,
)
from rag_flywheel.report.questions import QuestionOrder
from rag_flywheel.report.raters import Rater
from rag_flywheel.service.answers import answer, schema_of
from rag_flywheel.service.bodies import MuteBody, RatersBody, Tenants, VotesBehindBody
from rag_flywheel.service.calls import Call, needs
from rag_flywheel.service.cursors import after, cursor
from rag_flywheel.service.problems import READS, WRITES
from rag_flywheel.service.repeats import OnceRoute

router = APIRouter(tags=["log"], route_class=OnceRoute)
Reviewer = Annotated[Call, needs("review")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many, at most.")]
Many = Annotated[int, Query(ge=1, le=100_000, description="How many, at most.")]
Cursor = Annotated[str | None, Query(alias="cursor", description="The next_cursor of a page.")]


class RetrievalPage(BaseModel):
    """Retrievals, the newest first. next_cursor: null at the end."""

    items: list[schema_of(RecordedRetrieval)]  # type: ignore[valid-type]
    next_cursor: str | None


class VotePage(BaseModel):
    """Votes, the newest first. next_cursor: null at the end."""

    items: list[schema_of(RecordedVote)]  # type: ignore[valid-type]
    next_cursor: str | None


class UsersChanged(BaseModel):
    """How many users this changes."""

    changed: int


@router.get("/retrievals", response_model=RetrievalPage, responses=READS)
def retrievals(
    call: Reviewer,
    tenants: Tenants,
    limit: Limit = 50,
    cursor_given: Cursor = None,
    before_id: Annotated[
        str | None, Query(alias="before", description="Instead of a cursor: the id of a retrieval.")
    ] = None,
) -> Response:
    """The recorded retrievals, the newest first."""
    before = before_id if cursor_given is None else after(cursor_given, str)
    found = call.fw.retrievals(limit + 1, before=before, **call.tenant(*tenants))
    more = cursor(found[limit - 1].id) if len(found) > limit else None
    return answer({"items": found[:limit], "next_cursor": more})


@router.get(
    "/retrievals/{retrieval_id:path}", response_model=schema_of(RecordedRetrieval), responses=READS
)
def retrieval(retrieval_id: str, call: Reviewer, tenants: Tenants) -> Response:
    """A recorded retrieval, as it was shown."""
    return answer(call.fw.retrieval(retrieval_id, **call.tenant(*tenants)))


@router.get("/votes", response_model=VotePage, responses=READS)
def votes(
    call: Reviewer,
    tenants: Tenants,
    limit: Limit = 50,
    cursor_given: Cursor = None,
    before_number: Annotated[
        int | None, Query(alias="before", description="Instead of a cursor: the number of a vote.")
    ] = None,
) -> Response:
    """Votes, verdicts on answers, signals and corrections, the newest first."""
    before = before_number if cursor_given is None else after(cursor_given, int)
    found = call.fw.votes(limit + 1, before=before, **call.tenant(*tenants))
    more = cursor(found[limit - 1].number) if len(found) > limit else None
    return answer({"items": found[:limit], "next_cursor": more})


@router.get("/judgments", response_model=list[schema_of(PassageJudgment)], responses=READS)  # type: ignore[misc]
def judgments(call: Reviewer, tenants: Tenants) -> Response:
    """What the votes on each passage add up to, for each question."""
    return answer(call.fw.judgments(**call.tenant(*tenants)))


@router.get("/questions", response_model=list[schema_of(QuestionSummary)], responses=READS)  # type: ignore[misc]
def questions(
    call: Reviewer, tenants: Tenants, n: Many = 50, order: QuestionOrder = "asked"
) -> Response:
    """The first questions that users asked, with how they were served and what votes say."""
    return answer(call.fw.questions(n, order=order, **call.tenant(*tenants)))


@router.get("/activity", response_model=list[schema_of(DayActivity)], responses=READS)  # type: ignore[misc]
def activity(
    call: Reviewer,
    tenants: Tenants,
    days: Annotated[float, Query(gt=0, description="Of so many last days.")] = 30.0,
) -> Response:
    """How much was asked and voted on each day (UTC), the oldest first."""
    return answer(call.fw.activity(days, **call.tenant(*tenants)))


@router.post("/votes-behind", response_model=list[schema_of(PastVotes)], responses=READS)  # type: ignore[misc]
def votes_behind(body: VotesBehindBody, call: Reviewer) -> Response:
    """The votes on similar past queries that a hit rests on, by query."""
    named = call.tenant(body.tenant, body.all_tenants)
    why = Explanation(0.0, {}, 0.0, votes=tuple(body.votes))
    return answer(call.fw.votes_behind(Hit("", 1, 0.0, "", "", {}, why), **named))


@router.get("/history", response_model=list[schema_of(HistoryEntry)], responses=READS)  # type: ignore[misc]
def history(call: Reviewer, tenants: Tenants, n: Many = 50) -> Response:
    """The newest events in the history of the index."""
    return answer(call.fw.history(n, **call.tenant(*tenants)))


@router.get("/raters", response_model=list[schema_of(Rater)], responses=READS)  # type: ignore[misc]
def raters(call: Annotated[Call, needs("review", whole_index=True)]) -> Response:
    """The users who voted, how far each is trusted, and who looks like one crowd."""
    return answer(call.fw.raters())


@router.post("/raters", response_model=list[schema_of(Rater)], responses=READS)  # type: ignore[misc]
def named_raters(
    body: RatersBody, call: Annotated[Call, needs("review", whole_index=True)]
) -> Response:
    """The same, with the ids of those users that the caller names."""
    return answer(call.fw.raters(body.names))


@router.post("/raters:mute", response_model=UsersChanged, responses=WRITES)
def mute(body: MuteBody, call: Annotated[Call, needs("review", whole_index=True)]) -> Response:
    """Leave out all votes of users."""
    return answer({"changed": call.fw.mute(body.user_id, raters=body.raters)})


@router.post("/raters:unmute", response_model=UsersChanged, responses=WRITES)
def unmute(body: MuteBody, call: Annotated[Call, needs("review", whole_index=True)]) -> Response:
    """Count the votes of users again."""
    return answer({"changed": call.fw.unmute(body.user_id, raters=body.raters)})
