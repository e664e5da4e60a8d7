"""Repeated requests: a write that comes again with the same Idempotency-Key gets the first answer.

The header is that of draft-ietf-httpapi-idempotency-key-header. A key is the caller's own, and is known for
a day. Where a process died before its answer was stored, the request is done again: every write of the
library is such that doing it twice is the same as once.
"""

import hashlib
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from rag_flywheel.checks import MOST_ID_CHARS
from rag_flywheel.service.calls import key_in, service_of
from rag_flywheel.service.problems import Refused
from rag_flywheel.store import wall_clock
from rag_flywheel.store.database import Database

HEADER = "Idempotency-Key"
KNOWN_FOR_S = 24 * 3600.0
UNDER_WAY_S = 120.0
"""After so long without an answer the process that took it is held to be dead."""
_MOST_BODY = 2**20  # bytes of an answer that is stored; a larger one is made anew
_OURS = ("content-type", "x-retrieval-id", "location")


@dataclass(frozen=True)
class _Stored:
    status: int
    headers: dict[str, str]
    body: bytes


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
                    422, "InvalidRequest", f"{HEADER} has {len(key)} characters; expected 1 to {MOST_ID_CHARS}"
                )
            database = service_of(request).state
            caller = (await run_in_threadpool(key_in, request)).id
            digest = await _digest(request)
            stored = await run_in_threadpool(_begin, database, caller, key, digest)
            if stored is not None:
                headers = {**stored.headers, "Idempotent-Replayed": "true"}
                return Response(stored.body, stored.status, headers=headers)
            try:
                response = await handle(request)
            except BaseException:
                await run_in_threadpool(_drop, database, caller, key)
                raise
            body = getattr(response, "body", None)
            if body is None or len(body) > _MOST_BODY or response.status_code >= 500:
                await run_in_threadpool(_drop, database, caller, key)
            else:
                headers = {n: response.headers[n] for n in _OURS if n in response.headers}
                done = _Stored(response.status_code, headers, bytes(body))
                await run_in_threadpool(_end, database, caller, key, done)
            return response

        return once


async def _digest(request: Request) -> bytes:
    """What the request asks for; another one under the same key is an error."""
    body = await request.body()
    named = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    return hashlib.sha256(named + body).digest()


def _begin(database: Database, caller: str, key: str, digest: bytes) -> _Stored | None:
    """The stored answer; None, and the request is under way from now on, when there is none.

    Raises Refused with 409 while it is under way, and 422 when another request has the same key.
    """
    now = wall_clock.now()
    with database.transaction(durable=True) as conn:
        conn.execute("DELETE FROM requests WHERE at < ?", (now - KNOWN_FOR_S,))
        row = conn.execute(
            "SELECT digest, at, status, headers, body FROM requests WHERE caller = ? AND key = ?",
            (caller, key),
        ).fetchone()
        if row is None or (row[2] is None and row[1] < now - UNDER_WAY_S):
            conn.execute(
                "INSERT OR REPLACE INTO requests (caller, key, digest, at) VALUES (?, ?, ?, ?)",
                (caller, key, digest, now),
            )
            return None
    before, _, status, headers, body = row
    if bytes(before) != digest:
        raise Refused(422, "IdempotencyKeyReused", f"this {HEADER} was used for another request")
    if status is None:
        raise Refused(
            409, "RequestUnderWay", "the same request is under way; repeat it later", {"Retry-After": "1"}
        )
    return _Stored(int(status), json.loads(headers), bytes(body))


def _end(database: Database, caller: str, key: str, done: _Stored) -> None:
    with database.transaction(durable=False) as conn:
        conn.execute(
            "UPDATE requests SET status = ?, headers = ?, body = ? WHERE caller = ? AND key = ?",
            (done.status, json.dumps(done.headers), done.body, caller, key),
        )


def _drop(database: Database, caller: str, key: str) -> None:
    with database.transaction(durable=False) as conn:
        conn.execute("DELETE FROM requests WHERE caller = ? AND key = ?", (caller, key))
