"""Errors as problem+json (RFC 9457): the library's message, its name, and the status that fits it."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from rag_flywheel.errors import (
    AccessError,
    BusyError,
    ClosedError,
    ConfigError,
    EncoderError,
    EngineError,
    FlywheelError,
    InputError,
    LockedError,
    RateLimitedError,
    ReadOnlyError,
    ServiceError,
    StorageError,
    UnknownIdError,
    UnreachableError,
)

MEDIA_TYPE = "application/problem+json"
_MOST_FIELDS = 20
STATUSES: Mapping[type[FlywheelError], int] = {
    UnknownIdError: 404,
    LockedError: 409,
    InputError: 422,
    ConfigError: 422,
    BusyError: 503,
    ReadOnlyError: 403,
    EncoderError: 503,
    EngineError: 503,
    StorageError: 503,
    ClosedError: 503,
    AccessError: 403,  # these three: of another service
    RateLimitedError: 429,
    ServiceError: 503,
    FlywheelError: 500,
}
"""The status of an error is that of the first class that it is of."""


class Problem(BaseModel):
    """What is wrong, and what to do (RFC 9457)."""

    type: str
    title: Annotated[str, Field(description="The name of the error.", examples=["UnknownIdError"])]
    status: int
    detail: Annotated[str, Field(description="What was found, what was expected, what to do.")]
    fields: list[dict[str, str]] | None = None


def _documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {s: {"description": _WORDS[s], "content": content} for s in statuses}


_WORDS = {
    400: "The request cannot be read.",
    401: "There is no key, or it is unknown.",
    403: "The key may not do this.",
    404: "Nothing has this id.",
    409: "Another one is under way.",
    413: "The body is too large.",
    422: "The request cannot be used as it is.",
    429: "Too many; Retry-After says when.",
    503: "The index cannot be used now; the detail says what to do.",
}
READS = _documented(400, 401, 403, 404, 413, 422, 429, 503)
"""The problems that a route may answer with which changes nothing."""
WRITES = _documented(*_WORDS)
"""Those of one that writes."""


class Refused(Exception):  # noqa: N818 - a refusal is an answer
    """An answer other than what was asked for, with its status.

    name: the kind of problem, as the library names its errors. headers: to go with it.
    """

    def __init__(
        self, status: int, name: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.name, self.message = status, name, message
        self.headers = dict(headers or {})


def problem(
    status: int,
    name: str,
    message: str,
    *,
    fields: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response. fields: what is wrong with which part of the body, {"field", "message"}."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": name,
        "status": status,
        "detail": message,
    }
    if fields:
        body["fields"] = fields
    content = msgspec.json.encode(body)
    return Response(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def status_of(error: FlywheelError) -> int:
    """The HTTP status of an error of the library."""
    return next(status for kind, status in STATUSES.items() if isinstance(error, kind))


def of_error(error: FlywheelError) -> Response:
    """An error of the library as a response."""
    status = status_of(error)
    again = {}
    if isinstance(error, BusyError):
        again = {"Retry-After": "2" if isinstance(error, UnreachableError) else "1"}
    return problem(status, type(error).__name__, str(error), headers=again)


def install(app: FastAPI) -> None:
    """Make every error that the application answers with a problem."""

    @app.exception_handler(FlywheelError)
    async def _flywheel(_: Request, error: FlywheelError) -> Response:
        return of_error(error)

    @app.exception_handler(Refused)
    async def _refused(_: Request, error: Refused) -> Response:
        return problem(error.status, error.name, error.message, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        fields = [
            {"field": ".".join(str(part) for part in each["loc"]), "message": str(each["msg"])}
            for each in found[:_MOST_FIELDS]
        ]
        first = fields[0] if fields else {"field": "body", "message": "cannot be read"}
        message = f"{first['field']}: {first['message']}"
        return problem(422, "InvalidRequest", message, fields=fields)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        return problem(
            error.status_code, "HTTPError", str(error.detail), headers=error.headers or {}
        )
