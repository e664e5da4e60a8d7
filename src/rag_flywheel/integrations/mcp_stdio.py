"""MCP over standard input and output: a line that is no message is answered by an error.

The protocol's library passes over such a line, and whoever sent it would wait until its own time is up.
"""

import json
import os
from collections.abc import AsyncIterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import anyio
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

_EXPECTED = "expected one JSON-RPC 2.0 message a line, with a method and an id that is text or a whole number"


class Lines:
    """The lines of a stream that are messages; the others are answered once there is somebody to write to."""

    def __init__(self, stream: "anyio.AsyncFile[str]") -> None:
        self._stream = stream
        self._opened = anyio.Event()
        self._write: Any = None

    def answer_to(self, write: Any) -> None:
        """Where errors go: the stream of the server's messages."""
        self._write = write
        self._opened.set()

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self._stream:
            refused = refusal(line)
            if refused is not None:
                await self._opened.wait()
                await self._write.send(SessionMessage(refused))
            elif line.strip():
                yield line


def refusal(line: str) -> JSONRPCError | None:
    """The error for a line that is no message; None for a message, and for what gets no answer: a blank line,
    a notification, or an answer of the other side."""
    if not line.strip():
        return None
    problem = ""
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        if not isinstance(message, JSONRPCNotification) or '"id"' not in line:
            return None
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        problem = found["msg"] if found["type"] == "json_invalid" else ""
    value = _parsed(line)
    if isinstance(value, dict) and _gets_no_answer(value):
        return None
    id_ = _usable_id(value.get("id")) if isinstance(value, dict) else None
    if not problem:
        what = ErrorData(code=INVALID_REQUEST, message=f"Invalid request; {_EXPECTED}")
    else:
        if value is not None and not _is_text(json.dumps(value, ensure_ascii=False)):
            problem = "a text has half of a surrogate pair, which is no character"
        what = ErrorData(code=PARSE_ERROR, message=f"Parse error: {problem}; {_EXPECTED}")
    return JSONRPCError(jsonrpc="2.0", id=id_, error=what)


def _gets_no_answer(value: dict[str, object]) -> bool:
    """Whether it is a notification, or an answer to a request of the server."""
    if "method" in value:
        return "id" not in value
    return "result" in value or "error" in value


def _parsed(line: str) -> object:
    """The value of a line, as far as this has a looser reading of JSON than the protocol's library."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _usable_id(given: object) -> str | int | None:
    if isinstance(given, str):
        return given if _is_text(given) else None
    return given if isinstance(given, int) and not isinstance(given, bool) else None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def serve_stdio(server: Any) -> None:
    """Serve a low-level server over standard input and output until the input ends."""
    private = os.dup(0)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # what else reads the input must not take a message
    wire = TextIOWrapper(
        os.fdopen(private, "rb", closefd=False),  # a thread may still be reading it at the end
        encoding="utf-8",
        errors="replace",
    )
    lines = Lines(anyio.wrap_file(wire))
    async with stdio_server(stdin=lines) as (read, write):
        lines.answer_to(write)
        await server.run(read, write, server.create_initialization_options())
