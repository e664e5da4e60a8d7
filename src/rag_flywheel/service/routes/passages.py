"""Passages: put, listed, read and removed, one by one and as lines of JSON."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import AddReport, Passage
from rag_flywheel.service.answers import answer, encoded, schema_of
from rag_flywheel.service.bodies import NewPassage, PassageBody, PassagesBody, RemoveBody, Tenants
from rag_flywheel.service.calls import Call, needs
from rag_flywheel.service.cursors import after, cursor
from rag_flywheel.service.problems import READS, WRITES
from rag_flywheel.service.repeats import OnceRoute

router = APIRouter(tags=["passages"], route_class=OnceRoute)
Reader = Annotated[Call, needs("read")]
Writer = Annotated[Call, needs("write")]
NDJSON = "application/x-ndjson"
_AT_ONCE = 500  # passages in memory
_LINES = {"content": {NDJSON: {"schema": {"type": "string"}}}, "description": "A passage a line."}
Where = Annotated[
    str | None, Query(description="A filter on metadata, as JSON.", examples=['{"lang": "en"}'])
]
PassageId = Annotated[str, Path(description="The id of the passage.", examples=["reset"])]


class PassagePage(BaseModel):
    """Passages in the order of their ids. next_cursor: null at the end."""

    items: list[schema_of(Passage)]  # type: ignore[valid-type]
    next_cursor: str | None


class Removed(BaseModel):
    """How many were removed."""

    removed: int


def filter_given(text: str | None) -> dict[str, Any] | None:
    """The filter that a query parameter holds. Raises InputError."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"where is {quoted(text)}; expected a JSON object")
    return found


@router.get("/passages", response_model=PassagePage, responses=READS)
def passages(
    call: Reader,
    tenants: Tenants,
    where: Where = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor_given: Annotated[str | None, Query(alias="cursor")] = None,
    after_id: Annotated[
        str | None, Query(alias="after", description="Instead of a cursor: ids after this one.")
    ] = None,
) -> Response:
    """The passages of the index, in pages."""
    begin = after_id if cursor_given is None else after(cursor_given, str)
    found = call.fw.passages(
        filter_given(where), n=limit + 1, after=begin or "", **call.tenant(*tenants)
    )
    more = cursor(found[limit - 1].id) if len(found) > limit else None
    return answer({"items": found[:limit], "next_cursor": more})


@router.get("/passages.ndjson", response_class=StreamingResponse, responses={**READS, 200: _LINES})
def export_passages(call: Reader, tenants: Tenants, where: Where = None) -> Response:
    """All passages that pass a filter, a JSON object a line."""
    named = call.tenant(*tenants)
    filtered = filter_given(where)
    first = call.fw.passages(
        filtered, n=_AT_ONCE, after="", **named
    )  # what is wrong is told at once

    def lines() -> Iterator[bytes]:
        some = first
        while some:
            yield b"".join(encoded(each) + b"\n" for each in some)
            some = call.fw.passages(filtered, n=_AT_ONCE, after=some[-1].id, **named)

    return StreamingResponse(lines(), media_type=NDJSON)


@router.post("/passages", response_model=schema_of(AddReport), responses=WRITES)
def add_passages(body: PassagesBody, call: Writer) -> Response:
    """Add passages, or update those with the same ids, and remove others, all or none."""
    given = [_passage(each) for each in body.passages]
    return answer(call.fw.add(given, remove=body.remove, tenant=call.tenant(body.tenant)["tenant"]))


@router.post(
    "/passages.ndjson",
    response_model=schema_of(AddReport),
    responses=WRITES,
    openapi_extra={"requestBody": {"required": True, "content": _LINES["content"]}},
)
async def import_passages(request: Request, call: Writer, tenants: Tenants) -> Response:
    """Add passages from lines of JSON, {"id", "text", "title", "metadata"} each, all or none."""
    body = await request.body()
    given = await run_in_threadpool(_read_lines, body, call.service.settings.batch_rows)
    named = call.tenant(*tenants)["tenant"]
    return answer(await run_in_threadpool(call.fw.add, given, tenant=named))


@router.post("/passages:remove", response_model=Removed, responses=WRITES)
def remove_passages(body: RemoveBody, call: Writer) -> Response:
    """Remove passages, all or none; no answer shows them from now on."""
    named = call.tenant(body.tenant, body.all_tenants)
    return answer({"removed": call.fw.remove(body.ids, **named)})


@router.get("/passages/{passage_id:path}", response_model=schema_of(Passage), responses=READS)
def passage(passage_id: PassageId, call: Reader, tenants: Tenants) -> Response:
    """One passage."""
    return answer(call.fw.passage(passage_id, **call.tenant(*tenants)))


@router.put("/passages/{passage_id:path}", response_model=schema_of(AddReport), responses=WRITES)
def put_passage(
    passage_id: PassageId, body: PassageBody, call: Writer, tenants: Tenants
) -> Response:
    """Add a passage, or update the one with this id."""
    given = Passage(passage_id, body.text, body.title, body.metadata)
    return answer(call.fw.add([given], tenant=call.tenant(*tenants)["tenant"]))


@router.delete("/passages/{passage_id:path}", response_model=Removed, responses=WRITES)
def remove_passage(passage_id: PassageId, call: Writer, tenants: Tenants) -> Response:
    """Remove a passage; no answer shows it from now on."""
    return answer({"removed": call.fw.remove([passage_id], **call.tenant(*tenants))})


def _passage(body: NewPassage) -> Passage:
    return Passage(body.id, body.text, body.title, body.metadata)


def _read_lines(body: bytes, most: int) -> list[Passage]:
    """The passages of lines of JSON; blank lines are left out. Raises InputError, naming the line."""
    found: list[Passage] = []
    for number, line in enumerate(body.splitlines(), 1):
        if not line.strip():
            continue
        if len(found) == most:
            raise InputError(f"found more than {most} lines; send some at a time")
        try:
            found.append(_passage(NewPassage.model_validate_json(line)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the line"
            raise InputError(f"line {number}: {where}: {first['msg']}") from None
    return found
