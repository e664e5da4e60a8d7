"""What pages may send themselves: votes by feedback tokens, which need no secret key.

A body names a token, what is said, and nothing else. It may be sent as text/plain, as
`navigator.sendBeacon` does, and the public key then stands in the address: ?key=fw_...
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from rag_flywheel.service.bodies import (
    BrowserAnswerBody,
    BrowserBody,
    BrowserMissingBody,
    BrowserSignalBody,
    BrowserVoteBody,
)
from rag_flywheel.service.calls import Call, TenantArguments, call_on, key_in, service_of
from rag_flywheel.service.problems import WRITES, Refused
from rag_flywheel.service.recorded import Cast, Recorded, is_recorded, recorded
from rag_flywheel.service.repeats import OnceRoute
from rag_flywheel.service.tokens import Token
from rag_flywheel.store.service.keys import Key

router = APIRouter(tags=["browser"], route_class=OnceRoute, responses=WRITES)
_TYPES = ("application/json", "text/plain")
_Body = TypeVar("_Body", bound=BrowserBody)


@dataclass(frozen=True)
class Ballot:
    """A vote that may be cast: the call, and what its token is for."""

    call: Call
    token: Token
    named: TenantArguments

    def record(self, cast: Cast | None, write: Callable[[], bool]) -> Response:
        """Count the vote towards the limits and write it, unless the first attempt did."""
        self.call.count_votes((self.token.user, self.token.retrieval_id))
        done = cast is not None and is_recorded(self.call, self.named, [cast])
        return recorded(done or write())


@dataclass(frozen=True)
class Opener:
    """Opens the token of a body, for a key that may vote."""

    request: Request
    key: Key

    def ballot(self, text: str) -> Ballot:
        """Raises Refused: 401 for a bad token, 403 for that of another index or tenant."""
        token = service_of(self.request).tokens.read(text)
        if self.request.path_params.get("index", token.index) != token.index:
            raise Refused(403, "Forbidden", "this feedback token is of another index")
        call = call_on(self.request, token.index, self.key)
        every = token.tenant is None and self.key.tenant is None
        return Ballot(call, token, call.tenant(token.tenant, every))


async def needs_voter(request: Request) -> Opener:
    """A dependency: any key that may vote will do, and most of all a public one.

    Raises Refused with 403 for another.
    """
    key = key_in(request)
    if "vote" not in key.scopes:
        raise Refused(403, "Forbidden", "this key lacks the scope vote")
    return Opener(request, key)


Voter = Annotated[Opener, Depends(needs_voter)]


def _sent(body: type[_Body]) -> Any:
    """A dependency: the body, of this type, whether it was sent as JSON or as plain text."""

    async def read(request: Request) -> _Body:
        sent_as = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if sent_as not in _TYPES:
            message = f"content-type is {sent_as[:100]!r}; expected {' or '.join(_TYPES)}"
            raise Refused(422, "InvalidRequest", message)
        try:
            return body.model_validate_json(await request.body())
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False)
            raise RequestValidationError(
                [{**each, "loc": ("body", *each["loc"])} for each in found]
            ) from None

    return Depends(read)


def _documented(body: type[BrowserBody]) -> dict[str, Any]:
    content = {"application/json": {"schema": body.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/browser/feedback",
    response_model=Recorded,
    openapi_extra=_documented(BrowserVoteBody),
)
def feedback(body: Annotated[BrowserVoteBody, _sent(BrowserVoteBody)], voter: Voter) -> Response:
    """Record a vote on a hit of the token's retrieval; `retract` withdraws the last one."""
    ballot = voter.ballot(body.token)
    token = ballot.token
    write = partial(
        ballot.call.fw.feedback,
        token.retrieval_id,
        body.passage_id,
        body.verdict,
        user_id=token.user,
        reason=body.reason,
        **ballot.named,
    )
    cast = Cast("vote", token.retrieval_id, token.user, body.passage_id, body.verdict)
    return ballot.record(cast, write)


@router.post(
    "/browser/answer-feedback",
    response_model=Recorded,
    openapi_extra=_documented(BrowserAnswerBody),
)
def answer_feedback(
    body: Annotated[BrowserAnswerBody, _sent(BrowserAnswerBody)], voter: Voter
) -> Response:
    """Record a verdict on the whole answer that was given from the token's retrieval."""
    ballot = voter.ballot(body.token)
    token = ballot.token
    write = partial(
        ballot.call.fw.answer_feedback,
        token.retrieval_id,
        body.verdict,
        cited=body.cited,
        user_id=token.user,
        **ballot.named,
    )
    return ballot.record(Cast("answer", token.retrieval_id, token.user, None, body.verdict), write)


@router.post(
    "/browser/signals",
    response_model=Recorded,
    openapi_extra=_documented(BrowserSignalBody),
)
def signal(body: Annotated[BrowserSignalBody, _sent(BrowserSignalBody)], voter: Voter) -> Response:
    """Record what the user did with the answer, or with one passage of it."""
    ballot = voter.ballot(body.token)
    token = ballot.token
    write = partial(
        ballot.call.fw.signal,
        token.retrieval_id,
        body.kind,
        body.value,
        passage_id=body.passage_id,
        user_id=token.user,
        **ballot.named,
    )
    cast = Cast(body.kind, token.retrieval_id, token.user, body.passage_id)
    return ballot.record(cast, write)


@router.post(
    "/browser/missing",
    response_model=Recorded,
    openapi_extra=_documented(BrowserMissingBody),
)
def missing(
    body: Annotated[BrowserMissingBody, _sent(BrowserMissingBody)], voter: Voter
) -> Response:
    """Record that the answer is missing; the same note twice is one."""
    ballot = voter.ballot(body.token)
    token = ballot.token
    write = partial(
        ballot.call.fw.missing,
        token.retrieval_id,
        body.note,
        user_id=token.user,
        **ballot.named,
    )
    return ballot.record(None, write)
