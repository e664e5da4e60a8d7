"""Repeated requests: a write that comes again with the same Idempotency-Key gets the first answer.

The header is that of draft-ietf-httpapi-idempotency-key-header. A key is the caller's own, and is known for
a day by every process and host of the service. A call that takes too long goes on, and its answer is stored
for who asks again. Where a process died before the answer was stored, or lost the server that it wrote to,
the request is done again, and `Call.tried` says since which event its first attempt may have written.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from rag_flywheel.checks import MOST_ID_CHARS
from rag_flywheel.errors import ClosedError, StorageError, UnreachableError
from rag_flywheel.service.calls import KeyRoute, Service, key_in, service_of
from rag_flywheel.service.guards import is_for_browsers
from rag_flywheel.service.problems import Refused
from rag_flywheel.store.database import Database
from rag_flywheel.store.service import requests

_T = TypeVar("_T")
HEADER = "Idempotency-Key"
_MOST_BODY = 2**20  # bytes of an answer that is stored; a larger one is made anew
_OURS = ("content-type", "x-retrieval-id", "location")
_AGAIN_S = 0.5  # after which a record that could not be written is tried again
_running: set[asyncio.Task[Any]] = set()  # or a task that nobody waits for could be collected


class OnceRoute(KeyRoute):
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
            service = service_of(request)
            database = service.state
            caller = (await run_in_threadpool(key_in, request)).id
            digest = await _digest(request)
            if is_for_browsers(request.scope["path"]):
                # where many who share a key must not share this one
                caller = f"{caller} {digest.hex()}"
            seen = await run_in_threadpool(_seen, service, request)
            attempt = requests.Attempt(caller, key, secrets.token_hex(8))
            try:
                found = await run_in_threadpool(requests.begin, database, attempt, digest, seen)
            except UnreachableError:  # perhaps after it was written, and then nobody would end it
                _beside(_noted_later(partial(requests.leave, database, attempt)))
                raise
            if isinstance(found, requests.StoredAnswer):
                return _again(found, digest)
            request.state.tried = found.tried  # for `calls.Call`
            task = _beside(_finished(handle(request), database, attempt, digest))
            return await asyncio.shield(task)

        return once


def _seen(service: Service, request: Request) -> requests.Seen:
    """The newest event of each index that the request may write to, before it does."""
    every = dict(service.indexes)
    if not is_for_browsers(request.scope["path"]):  # where a token names the index
        name = request.path_params.get("index", service.indexes.default)
        every = {name: every[name]} if name in every else {}
    return {name: fw.newest_event() for name, fw in every.items()}


async def _finished(
    answered: Awaitable[Response], database: Database, attempt: requests.Attempt, digest: bytes
) -> Response:
    """The answer, once it is stored."""
    try:
        response = await answered
    except asyncio.CancelledError:
        raise  # the service ends, and what the call has written is not known
    except UnreachableError:  # perhaps after it was written, before the server said so
        await _noted(partial(requests.leave, database, attempt))
        raise
    except BaseException:
        await _noted(partial(requests.drop, database, attempt))
        raise
    body = getattr(response, "body", None)
    if body is None or len(body) > _MOST_BODY or response.status_code >= 500:
        await _noted(partial(requests.drop, database, attempt))
    else:
        headers = {n: response.headers[n] for n in _OURS if n in response.headers}
        done = requests.StoredAnswer(digest, response.status_code, headers, bytes(body))
        await _noted(partial(requests.end, database, attempt, done))
    return response


async def _noted(note: Callable[[], None]) -> None:
    """Write to the records how a request ended; where they fail, beside the calls, as soon as they can be
    written: the answer is true all the same."""
    try:
        await run_in_threadpool(note)
    except ClosedError:
        return
    except StorageError:
        _beside(_noted_later(note))


async def _noted_later(note: Callable[[], None]) -> None:
    until = asyncio.get_running_loop().time() + requests.UNDER_WAY_S / 2
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(_AGAIN_S)
        try:
            await run_in_threadpool(note)
        except ClosedError:
            return
        except StorageError:
            continue
        return


def _beside(work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
    """A task that is finished whether or not somebody waits for it."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: "asyncio.Task[Any]") -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()  # nobody may be left to raise it to


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
