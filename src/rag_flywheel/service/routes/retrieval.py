"""Questions: retrieve, several at once, rankings alone, and an application's own candidates."""

import dataclasses
import time
from typing import Annotated

from fastapi import APIRouter, Response

from rag_flywheel.records import Candidate, Retrieval
from rag_flywheel.service.answers import answer, schema_of
from rag_flywheel.service.bodies import (
    RankManyBody,
    RerankBody,
    RetrieveBody,
    RetrieveManyBody,
)
from rag_flywheel.service.calls import Call, KeyRoute, needs
from rag_flywheel.service.problems import READS
from rag_flywheel.service.tokens import Token
from rag_flywheel.store.tenants import Tenant

router = APIRouter(tags=["retrieval"], route_class=KeyRoute, responses=READS)
Reader = Annotated[Call, needs("read")]


class Answered(schema_of(Retrieval)):  # type: ignore[misc]
    """An answer. feedback_token: where it was asked for; null when the answer was not recorded."""

    feedback_token: str | None = None


@router.post("/retrieve", response_model=Answered)
def retrieve(body: RetrieveBody, call: Reader) -> Response:
    """The best passages for a question."""
    begun = time.perf_counter()
    named = call.tenant(body.tenant, body.all_tenants)
    found = call.fw.retrieve(
        body.query,
        body.k,
        where=body.where,
        user_id=body.user_id,
        session_id=body.session_id,
        run_id=body.run_id,
        record=body.record,
        min_relevance=body.min_relevance,
        **named,
    )
    return _answered(found, begun, body, call, named["tenant"])


@router.post("/retrieve-many", response_model=list[schema_of(Retrieval)])  # type: ignore[misc]
def retrieve_many(body: RetrieveManyBody, call: Reader) -> Response:
    """The best passages for each of several questions, in their order."""
    begun = time.perf_counter()
    found = call.fw.retrieve_many(
        body.queries,
        body.k,
        where=body.where,
        run_id=body.run_id,
        record=body.record,
        min_relevance=body.min_relevance,
        **call.tenant(body.tenant, body.all_tenants),
    )
    return answer(found, headers=_timing(begun))


@router.post("/rank-many", response_model=list[list[str]])
def rank_many(body: RankManyBody, call: Reader) -> Response:
    """The ids of the best passages for each of several questions, for evaluation; never recorded."""
    begun = time.perf_counter()
    found = call.fw.rank_many(
        body.queries,
        body.k,
        where=body.where,
        min_relevance=body.min_relevance,
        **call.tenant(body.tenant, body.all_tenants),
    )
    return answer(found, headers=_timing(begun))


@router.post("/rerank", response_model=Answered)
def rerank(body: RerankBody, call: Reader) -> Response:
    """The best of the application's own candidates, reranked by votes."""
    begun = time.perf_counter()
    named = call.tenant(body.tenant, body.all_tenants)
    candidates = [
        Candidate(each.passage_id, each.text, each.score, each.title, each.metadata)
        for each in body.candidates
    ]
    found = call.fw.rerank(
        body.query,
        candidates,
        body.k,
        where=body.where,
        user_id=body.user_id,
        session_id=body.session_id,
        run_id=body.run_id,
        record=body.record,
        min_relevance=body.min_relevance,
        **named,
    )
    return _answered(found, begun, body, call, named["tenant"])


def _answered(
    found: Retrieval,
    begun: float,
    body: RetrieveBody | RerankBody,
    call: Call,
    tenant: Tenant | None,
) -> Response:
    headers = _timing(begun)
    if found.id is not None:
        headers["X-Retrieval-Id"] = found.id
    if not body.feedback_token:
        return answer(found, headers=headers)
    token = None
    if found.id is not None:
        user = None if body.user_id is None else call.fw.hashed_user(body.user_id)
        token = call.service.tokens.make(Token(found.id, call.name, tenant, user))
    fields = {each.name: getattr(found, each.name) for each in dataclasses.fields(found)}
    return answer({**fields, "feedback_token": token}, headers=headers)


def _timing(begun: float) -> dict[str, str]:
    """What the library took, in milliseconds."""
    return {"Server-Timing": f"retrieve;dur={(time.perf_counter() - begun) * 1e3:.2f}"}
