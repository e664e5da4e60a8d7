"""What every request must pass before a route sees it: its host and origin, the size of its body, the time.

Pure ASGI, since it wraps each call.
"""

import asyncio
import re
from collections.abc import Iterable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag_flywheel.service.problems import problem
from rag_flywheel.service.settings import Settings
from rag_flywheel.store.service.addresses import is_local_name, same_origin

_FOR_BROWSERS = re.compile(r"/v1(/indexes/[^/]+)?/browser/[a-z-]+")
_SHOWN = ("Idempotent-Replayed", "RateLimit", "RateLimit-Policy", "Retry-After")


def is_for_browsers(path: str) -> bool:
    """Whether a path is of the routes that pages of other origins may call."""
    return _FOR_BROWSERS.fullmatch(path) is not None


class BrowserOrigins:
    """Cross-origin headers (CORS) for the pages of listed origins, on the routes for browsers alone.

    Without credentials: a page sends no cookies, and the service knows none.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self._app = app
        self._shared = CORSMiddleware(
            app,
            allow_origins=tuple(origins),
            allow_methods=("POST",),
            allow_headers=("Authorization", "Content-Type", "Idempotency-Key", "X-API-Key"),
            expose_headers=_SHOWN,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; answer the question of a browser whether it may send one."""
        browsers = scope["type"] == "http" and is_for_browsers(scope["path"])
        await (self._shared if browsers else self._app)(scope, receive, send)


class Guards:
    """Answers with a problem what is too large, takes too long, or comes from a page that may not ask."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._most = settings.body_bytes
        self._call_s = settings.call_s
        self._origins = frozenset(settings.origins)
        self._local_only = settings.on_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        refused = self._refused(headers, scope)
        if refused is not None:
            status, name, message = refused
            await problem(status, name, message)(scope, receive, send)
            return
        await self._limited(scope, receive, send)

    def _refused(self, headers: dict[str, str], scope: Scope) -> tuple[int, str, str] | None:
        host = headers.get("host", "")
        if self._local_only and not is_local_name(host):
            # a page whose name was pointed at this machine must not read what only it may
            return (
                403,
                "Forbidden",
                f"found the host {host[:100]!r}; expected this machine's own name",
            )
        origin = headers.get("origin")
        if (
            origin is not None
            and scope["method"] not in ("GET", "HEAD", "OPTIONS")
            and not (origin in self._origins and is_for_browsers(scope["path"]))
            and not same_origin(origin, host)
        ):
            return (
                403,
                "Forbidden",
                "found the origin of another site; those in the list of origins may call "
                "/v1/browser/ alone",
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._most:
            return 413, "TooLarge", self._too_large()
        return None

    def _too_large(self) -> str:
        return f"the body is too large; expected at most {self._most} bytes: send a part at a time"

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken, began, too_large = 0, False, False
        scope.setdefault("state", {})  # what a route notes for the headers of its answer

        async def received() -> Message:
            nonlocal taken, too_large
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most:
                too_large = True
                raise _TooLarge
            return message

        async def sent(message: Message) -> None:
            nonlocal began
            if too_large and not began:
                return  # the application answers that it could not read
            if not began and message["type"] == "http.response.start":
                more: dict[str, str] = scope["state"].get("headers", {})
                message["headers"] = [
                    *message.get("headers", ()),
                    *((n.lower().encode(), v.encode()) for n, v in more.items()),
                ]
            began = True
            await send(message)

        try:
            async with asyncio.timeout(self._call_s) as limit:
                await self._app(scope, received, sent)
        except _TooLarge:
            pass
        except TimeoutError:
            if began or not limit.expired():
                raise
            message = f"the call took more than {self._call_s:g} s; what it wrote may be done"
            await problem(503, "TimedOut", message)(scope, receive, send)
            return
        if too_large and not began:
            await problem(413, "TooLarge", self._too_large())(scope, receive, send)


class _TooLarge(Exception):  # noqa: N818
    pass
