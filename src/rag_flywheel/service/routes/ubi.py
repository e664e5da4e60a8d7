"""User Behavior Insights: what its collectors post, as votes on the retrievals that the events name."""

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.formats import ubi
from rag_flywheel.service.answers import answer
from rag_flywheel.service.bodies import Tenants
from rag_flywheel.service.calls import Call, TenantArguments, needs
from rag_flywheel.service.problems import WRITES, Refused
from rag_flywheel.service.recorded import Cast, is_recorded
from rag_flywheel.service.repeats import OnceRoute

router = APIRouter(tags=["ubi"], route_class=OnceRoute, responses=WRITES)
Voter = Annotated[Call, needs("vote")]
_EXAMPLE = {
    "action_name": "thumbs_up",
    "query_id": "01a2b3c4d5e6f708192a3b4",
    "timestamp": "2026-11-30T12:00:00Z",
    "event_attributes": {"object": {"object_id": "reset"}, "position": {"ordinal": 1}},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"anyOf": [{"type": "object"}, {"type": "array"}]},
                "example": [_EXAMPLE],
            }
        },
    }
}


class Taken(BaseModel):
    """What became of the documents: how many there were, how many were recorded as votes or signals, and
    how many were ignored, by why."""

    documents: int
    recorded: int
    ignored: dict[str, int]


@router.post("/ubi_events", response_model=Taken, openapi_extra=_BODY)
async def ubi_events(request: Request, call: Voter, tenants: Tenants) -> Response:
    """Take events: one, an array, one a line, or a bulk request of OpenSearch.

    query_id is the id of a retrieval. Thumbs become votes, on the passage that object_id names or else on
    the answer; "copied" and the other signals become signals. What means nothing here is counted.
    """
    return await _take(request, call, "ubi_events", call.tenant(*tenants))


@router.post("/ubi_queries", response_model=Taken, openapi_extra=_BODY)
async def ubi_queries(request: Request, call: Voter, tenants: Tenants) -> Response:
    """Take queries, in the same forms. Retrievals are recorded when they are asked for, so none is stored."""
    return await _take(request, call, "ubi_queries", call.tenant(*tenants))


async def _take(
    request: Request, call: Call, target: ubi.Target, named: TenantArguments
) -> Response:
    body = await request.body()
    most = call.service.settings.batch_rows
    return answer(await run_in_threadpool(_taken, body, target, most, call, named))


def _taken(
    body: bytes, target: ubi.Target, most: int, call: Call, named: TenantArguments
) -> dict[str, Any]:
    found = ubi.documents(body, target, most)
    call.fw.votes(1, **named)  # or the tenant is not named as the index wants it
    why = Counter(_record(call, named, *each) for each in found)
    return {
        "documents": len(found),
        "recorded": why.pop("", 0),
        "ignored": dict(sorted(why.items())),
    }


def _record(call: Call, named: TenantArguments, target: ubi.Target, document: object) -> str:
    """Why a document was not recorded; "": it was."""
    if not isinstance(document, dict):
        return "not an object"
    try:
        return (
            _event(call, named, document)
            if target == "ubi_events"
            else _query(call, named, document)
        )
    except UnknownIdError:
        return "unknown retrieval"
    except Refused as refused:
        if refused.status != 429:
            raise
        return "over the limit of votes"
    except InputError:
        return "not usable with this retrieval"


def _query(call: Call, named: TenantArguments, document: ubi.Document) -> str:
    query = document.get("query_id")
    if not isinstance(query, str) or not query:
        return "no query_id"
    call.fw.retrieval(query, **named)
    return "recorded when it was asked"


def _event(call: Call, named: TenantArguments, document: ubi.Document) -> str:
    said = ubi.said(document)
    if said is None:
        return "no action_name or query_id"
    if said.verdict is None and said.signal is None:
        return f"action {said.action}"
    shown = {hit.passage_id for hit in call.fw.retrieval(said.retrieval_id, **named).hits}
    if said.passage_id is not None and said.passage_id not in shown:
        return "object_id was not shown"
    call.count_votes((said.user_id, said.retrieval_id))
    kind: Any = said.signal or ("answer" if said.passage_id is None else "vote")
    cast = Cast(kind, said.retrieval_id, said.user_id, said.passage_id, said.verdict)
    if is_recorded(call, named, [cast]) or _write(call, named, said):
        return ""
    return "the user opted out"


def _write(call: Call, named: TenantArguments, said: ubi.Said) -> bool:
    fw, user = call.fw, said.user_id
    if said.signal is not None:
        return fw.signal(
            said.retrieval_id, said.signal, passage_id=said.passage_id, user_id=user, **named
        )
    assert said.verdict is not None
    if said.passage_id is None:
        return fw.answer_feedback(said.retrieval_id, said.verdict, user_id=user, **named)
    return fw.feedback(said.retrieval_id, said.passage_id, said.verdict, user_id=user, **named)
