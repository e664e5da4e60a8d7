"""Counts, times and logs each request, and gives it an id; pure ASGI, around everything else."""

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag_flywheel.service import metrics
from rag_flywheel.service.logs import ACCESS

access = logging.getLogger(ACCESS)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OF_INDEX = "/indexes/{index}"
_NO_ROUTE = "none"
_QUIET = frozenset({"/livez", "/healthz", "/readyz", "/metrics"})  # asked for every few seconds


class Observe:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, default_index: str) -> None:
        self._app = app
        self._default_index = default_index

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                header = (b"x-request-id", request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        metrics.in_progress.inc()
        try:
            await self._app(scope, receive, sent)
        finally:
            metrics.in_progress.dec()
            self._note(scope, status, time.perf_counter() - begun, request_id)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = template_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics.requests.labels(route, method, str(status)).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route in _QUIET and status < 400 else logging.INFO
        if access.isEnabledFor(level):
            index = scope.get("path_params", {}).get("index", self._default_index)
            ms, key = round(seconds * 1e3, 2), getattr(scope["state"].get("key"), "id", None)
            fields = {
                "route": route,
                "method": method,
                "status": status,
                "ms": ms,
                "index": index if status != 404 else None,
                "key": key or None,
                "request_id": request_id,
            }
            words = f"{method} {route} {status} {ms} ms, key {key or '-'}, request {request_id}"
            access.log(level, "%s", words, extra=fields)


def template_of(scope: Scope) -> str:
    """The template of the route that a request was for, the same with and without the name of an index."""
    route, values = scope.get("route"), scope.get("path_params", {})
    template = getattr(route, "path_format", None)
    if template is None:
        return _NO_ROUTE
    try:
        path, end = scope["path"], template.format(**values)
    except (KeyError, IndexError, ValueError):
        return str(template)
    prefix = path.removesuffix(end) if path.endswith(end) else ""  # which the router was given
    if (index := values.get("index")) is not None:
        prefix = prefix.replace(f"/{index}", "/{index}")
    return f"{prefix}{template}".replace(_OF_INDEX, "")


def _request_id(scope: Scope) -> str:
    """The id that a request came with, or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return str(given)
    return secrets.token_hex(8)
