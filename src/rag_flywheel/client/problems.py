"""What the service refuses, as the errors of the library; and what may be asked again."""

import random
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from rag_flywheel import errors
from rag_flywheel.errors import (
    AccessError,
    FlywheelError,
    InputError,
    RateLimitedError,
    ServiceError,
    quoted,
)

_TRANSIENT = frozenset({429, 502, 503, 504})
_UNDER_WAY = "RequestUnderWay"
_INPUT = frozenset({400, 413, 422})
_MOST_WAIT_S = 5.0


@dataclass(frozen=True)
class Retries:
    """How often a request is repeated, and how long it is waited for before: twice as long each time.

    What the service asks for by Retry-After is waited for, if it is no longer than most_s.
    """

    times: int
    first_s: float = 0.1
    most_s: float = _MOST_WAIT_S

    def wait_s(self, attempt: int, response: httpx.Response | None) -> float | None:
        """How long to wait before the next attempt, the first being 0; None: there is none."""
        if attempt >= self.times:
            return None
        asked = None if response is None else retry_after_s(response)
        if asked is not None:
            return asked if asked <= self.most_s else None
        return float(min(self.most_s, self.first_s * 2**attempt) * random.uniform(0.5, 1.0))


def is_transient(response: httpx.Response) -> bool:
    """Whether the same request may be answered later."""
    if response.status_code in _TRANSIENT:
        return True
    return response.status_code == 409 and problem_of(response).get("title") == _UNDER_WAY


def retry_after_s(response: httpx.Response) -> float | None:
    """The seconds of Retry-After; None without it."""
    try:
        found = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return found if 0 <= found < float("inf") else None


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """The problem+json of a response; {} where it is something else."""
    try:
        found = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def error_of(response: httpx.Response) -> FlywheelError:
    """The error of the library that a response tells of, with its message."""
    found, status = problem_of(response), response.status_code
    title, detail = found.get("title"), found.get("detail")
    if not isinstance(title, str) or not isinstance(detail, str):
        return ServiceError(
            f"{response.url} answered {status} with {quoted(response.text[:200])}; expected a "
            "rag-flywheel service: look at the address"
        )
    if status == 429:
        return RateLimitedError(detail, retry_after_s(response))
    if (named := _named(title)) is not None:
        return named(detail)
    if status in (401, 403):
        return AccessError(detail)
    if status in _INPUT and title != "IdempotencyKeyReused":
        return InputError(detail)
    return ServiceError(f"{response.url} answered {status}: {detail}")


def error_named(name: str, message: str) -> FlywheelError:
    """The error of the library with this name; a ServiceError where there is none."""
    named = _named(name)
    return ServiceError(f"{name}: {message}") if named is None else named(message)


def _named(name: str) -> type[FlywheelError] | None:
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, FlywheelError):
        return found
    return None
