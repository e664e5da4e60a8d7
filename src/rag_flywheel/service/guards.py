"""What every request must pass before a route sees it: its host and origin, the size of its body, the time.

Pure ASGI, since it wraps each call.
"""

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag_flywheel.service.problems import problem
from rag_flywheel.service.settings import Settings

_LOCAL = ("localhost", "127.0.0.1", "[::1]")


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
        refused = self._refused(headers, scope["method"])
        if refused is not None:
            status, name, message = refused
            await problem(status, name, message)(scope, receive, send)
            return
        await self._limited(scope, receive, send)

    def _refused(self, headers: dict[str, str], method: str) -> tuple[int, str, str] | None:
        host = headers.get("host", "")
        if self._local_only and _without_port(host) not in _LOCAL:
            # a page whose name was pointed at this machine must not read what only it may
            return (
                403,
                "Forbidden",
                f"found the host {host[:100]!r}; expected this machine's own name",
            )
        origin = headers.get("origin")
        if (
            origin is not None
            and method not in ("GET", "HEAD", "OPTIONS")
            and origin not in self._origins
            and urlsplit(origin).netloc != host
        ):
            return (
                403,
                "Forbidden",
                "found the origin of another site, which is not in the list of origins",
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._most:
            return 413, "TooLarge", self._too_large()
        return None

    def _too_large(self) -> str:
        return f"the body is too large; expected at most {self._most} bytes: send a part at a time"

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken, began, too_large = 0, False, False

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
            if not too_large or began:  # else the application answers that it could not read
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


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def origins_problem(origins: Iterable[str]) -> str | None:
    """What is wrong with a list of origins; None: nothing."""
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/"):
            return f"found the origin {origin!r}; expected such as https://help.example.com"
    return None
