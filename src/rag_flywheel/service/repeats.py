"""Repeated requests: a write that comes again with the same Idempotency-Key gets the first answer.

The header is that of draft-ietf-httpapi-idempotency-key-header. A key is the caller's own, and is known for
a day. Where a process died before its answer was stored, the request is done again: every write of the
library is such that doing it twice is the same as once.
"""

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from rag_flywheel.checks import MOST_ID_CHARS
from rag_flywheel.service.calls import key_in, service_of
from rag_flywheel.service.problems import Refused
from rag_flywheel.store.service import requests

HEADER = "Idempotency-Key"
_MOST_BODY = 2**20  # bytes of an answer that is stored; a larger one is made anew
_OURS = ("content-type", "x-retrieval-id", "location")


class OnceRoute(APIRoute):
    """A route whose writes are done once for each Idempotency-Key of a caller."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that asks for the stored answer first."""
        handle = super().get_route_handler()

        async def once(request: Request) -> Response:
            key = request.headers.get(HEADER)
            if key is None or request.method in ("GET", "HEAD"):
                return await handle(request)
            if not key or len(key) > MOST_ID_CHARS:
                raise Refused(
                    422,
                    "InvalidRequest",
                    f"{HEADER} has {len(key)} characters; expected 1 to {MOST_ID_CHARS}",
                )
            database = service_of(request).state
            caller = (await run_in_threadpool(key_in, request)).id
            digest = await _digest(request)
            stored = await run_in_threadpool(requests.begin, database, caller, key, digest)
            if stored is not None:
                return _again(stored, digest)
            try:
                response = await handle(request)
            except BaseException:
                await run_in_threadpool(requests.drop, database, caller, key)
                raise
            body = getattr(response, "body", None)
            if body is None or len(body) > _MOST_BODY or response.status_code >= 500:
                await run_in_threadpool(requests.drop, database, caller, key)
            else:
                headers = {n: response.headers[n] for n in _OURS if n in response.headers}
                done = requests.StoredAnswer(digest, response.status_code, headers, bytes(body))
                await run_in_threadpool(requests.end, database, caller, key, done)
            return response

        return once


async def _digest(request: Request) -> bytes:
    """What the request asks for; another one under the same key is an error."""
    body = await request.body()
    named = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    return hashlib.sha256(named + body).digest()


def _again(stored: requests.StoredAnswer, digest: bytes) -> Response:
    """The stored answer. Raises Refused: 409 while the request is under way, 422 for another request."""
    if stored.digest != digest:
        raise Refused(422, "IdempotencyKeyReused", f"this {HEADER} was used for another request")
    if stored.status is None:
        message = "the same request is under way; repeat it later"
        raise Refused(409, "RequestUnderWay", message, {"Retry-After": "1"})
    headers = {**stored.headers, "Idempotent-Replayed": "true"}
    return Response(stored.body, stored.status, headers=headers)
