"""Requests as part of the traces that they name; imported only where the service is to trace."""

from starlette.types import ASGIApp, Receive, Scope, Send

from rag_flywheel.service.observed import Observed
from rag_flywheel.tracing.flywheel import request_context, traced


@traced
class ObservedAndTraced(Observed):
    """A Flywheel whose calls are counted, and spans of OpenTelemetry."""


class InTrace:
    """Makes spans of a request children of the span that its header `traceparent` names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = (b"traceparent", b"tracestate")
        given = {k.decode(): v.decode("latin-1") for k, v in scope["headers"] if k in wanted}
        with request_context(given):
            await self._app(scope, receive, send)
