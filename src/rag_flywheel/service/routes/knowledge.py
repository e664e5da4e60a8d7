"""What is known and what is not: golden answers, pins, the review queue, gaps, and coverage."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from rag_flywheel.records import AddReport, GoldenItem, ReviewItem
from rag_flywheel.report.coverage import Coverage
from rag_flywheel.report.gaps import Gap
from rag_flywheel.service.answers import answer, schema_of
from rag_flywheel.service.bodies import (
    AcceptBody,
    DecisionBody,
    KnownBody,
    PinBody,
    Tenants,
    UndoBody,
    UnpinBody,
)
from rag_flywheel.service.calls import Call, needs
from rag_flywheel.service.problems import READS, WRITES
from rag_flywheel.service.repeats import OnceRoute

router = APIRouter(tags=["knowledge"], route_class=OnceRoute)
Reviewer = Annotated[Call, needs("review")]


class Changed(BaseModel):
    """Whether anything changed."""

    changed: bool


class Decided(BaseModel):
    """The item, and the passage that is an answer from now on, if there is one."""

    item_id: str
    passage_id: str | None = None


@router.get("/golden", response_model=list[schema_of(GoldenItem)], responses=READS)  # type: ignore[misc]
def golden(call: Reviewer, tenants: Tenants) -> Response:
    """The questions whose answers are known."""
    return answer(call.fw.golden.items(**call.tenant(*tenants)))


@router.post("/golden", response_model=schema_of(AddReport), responses=WRITES)
def add_golden(body: KnownBody, call: Reviewer) -> Response:
    """Import known answers, all or none."""
    rows = [(each.query, each.passage_id, each.grade) for each in body.answers]
    return answer(call.fw.golden.add_answers(rows, **call.tenant(body.tenant, body.all_tenants)))


@router.put("/pins", response_model=Changed, responses=WRITES)
def pin(body: PinBody, call: Reviewer) -> Response:
    """Put a passage first for a question."""
    named = call.tenant(body.tenant, body.all_tenants)
    return answer(
        {
            "changed": call.fw.pin(
                body.query, body.passage_id, where=body.where, grade=body.grade, **named
            )
        }
    )


@router.post("/pins:remove", response_model=Changed, responses=WRITES)
def unpin(body: UnpinBody, call: Reviewer) -> Response:
    """Take back a pin."""
    named = call.tenant(body.tenant, body.all_tenants)
    return answer(
        {"changed": call.fw.unpin(body.query, body.passage_id, where=body.where, **named)}
    )


@router.get("/review", response_model=list[schema_of(ReviewItem)], responses=READS)  # type: ignore[misc]
def review(call: Reviewer, tenants: Tenants) -> Response:
    """What waits for a decision, what has the most votes first."""
    return answer(call.fw.review.items(**call.tenant(*tenants)))


@router.post("/review:undo", response_model=Decided, responses=WRITES)
def undo(body: UndoBody, call: Reviewer) -> Response:
    """Take back a decision; without an item the last one."""
    if body.item_id is None:
        call.require_first("GET /v1/review")
    named = call.tenant(body.tenant, body.all_tenants)
    return answer({"item_id": call.fw.review.undo(body.item_id, user_id=body.user_id, **named)})


@router.post("/review/{item_id:path}:accept", response_model=Decided, responses=WRITES)
def accept(item_id: str, body: AcceptBody, call: Reviewer) -> Response:
    """Decide that the passage of an item is an answer."""
    named = call.tenant(body.tenant, body.all_tenants)
    found = call.fw.review.accept(item_id, text=body.text, user_id=body.user_id, **named)
    return answer({"item_id": item_id, "passage_id": found})


@router.post("/review/{item_id:path}:reject", response_model=Decided, responses=WRITES)
def reject(item_id: str, body: DecisionBody, call: Reviewer) -> Response:
    """Decide that the passage of an item is no answer."""
    named = call.tenant(body.tenant, body.all_tenants)
    call.fw.review.reject(item_id, user_id=body.user_id, **named)
    return answer({"item_id": item_id})


@router.get("/gaps", response_model=list[schema_of(Gap)], responses=READS)  # type: ignore[misc]
def gaps(
    call: Reviewer,
    tenants: Tenants,
    days: Annotated[float, Query(gt=0, description="Of so many last days.")] = 30.0,
    min_relevance: Annotated[float | None, Query(ge=0, le=1)] = None,
) -> Response:
    """Topics that users ask about without a good answer, those asked most first."""
    return answer(call.fw.gaps(days, min_relevance=min_relevance, **call.tenant(*tenants)))


@router.get("/coverage", response_model=schema_of(Coverage), responses=READS)
def coverage(
    call: Reviewer,
    tenants: Tenants,
    days: Annotated[float, Query(gt=0, description="Of so many last days.")] = 30.0,
) -> Response:
    """Whether votes fall where they help, what nobody is shown, and whether questions change."""
    return answer(call.fw.coverage(days, **call.tenant(*tenants)))
