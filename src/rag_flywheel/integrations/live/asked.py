"""What is asked of a tool's API, where its rows go, and how its failures are told."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import AccessError, FlywheelError, InputError, ServiceError, quoted
from rag_flywheel.formats.imported import seconds_of

Moment: TypeAlias = str | float | datetime
"""A day or time: ISO 8601, in UTC where it names no zone; seconds since 1970; or a datetime."""
Told: TypeAlias = Callable[[int], None]
"""Takes the number of rows fetched so far."""
_REFUSED = (401, 403)
_NOT_FOUND = 404
_DETAIL = 200  # characters of what a server said


@dataclass(frozen=True, slots=True)
class Asked:
    """A period, from `since` (None: the beginning) to before `until`, and where it is asked of."""

    since: datetime | None
    until: datetime
    project: str | None
    url: str | None


class Rows:
    """Writes rows of an API into a file of JSON lines, as they come; what is no JSON, as text."""

    def __init__(self, path: Path, told: Told) -> None:
        self._path, self._told, self._n = path, told, 0
        with disk_errors(path):
            self._file = path.open("w", encoding="utf-8")

    def __enter__(self) -> "Rows":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with disk_errors(self._path):
            self._file.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row. Raises StorageError."""
        with disk_errors(self._path):
            self._file.write(json.dumps(row, default=str) + "\n")
        self._n += 1
        self._told(self._n)


def moment_of(name: str, at: Moment) -> datetime:
    """The time of an argument. Raises InputError."""
    try:
        seconds = seconds_of(at)
    except InputError:
        seconds = None
    try:
        if seconds is not None:
            return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        pass
    raise InputError(
        f"{name} is {quoted(at)}; expected a day or time such as 2026-11-30 or 2026-11-30T08:00Z"
    )


def failed(tool: str, url: str, problem: str, status: int | None, keys: str) -> FlywheelError:
    """The error of a call to an API. keys: the environment variables that its keys are in."""
    short = problem.strip().replace("\n", " ")[:_DETAIL]
    if status in _REFUSED:
        return AccessError(
            f"{tool} at {url} refused the keys ({status}: {short}); expected those of a project there in "
            f"{keys}. Nothing was imported"
        )
    if status is None:
        what, to_do = "cannot be reached", "see that the address is right, and repeat the command"
    elif status == _NOT_FOUND:
        what, to_do = "answered 404", "the address or the project is wrong, or the server too old"
    else:
        what, to_do = f"answered {status}", "repeat the command later"
    return ServiceError(f"{tool} at {url} {what}: {short}. Nothing was imported; {to_do}")
