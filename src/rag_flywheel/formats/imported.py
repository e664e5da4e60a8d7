"""What readers of other tools' files say, besides retrievals and votes: scores, what surrounds a retrieval,
and what is left out."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from rag_flywheel.checks import as_number
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import ImportedHit, ImportedRetrieval, ImportedVote

_UNITS = (1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6), (1e20, 1e-9)


@dataclass(frozen=True)
class Score:
    """A score that a tool gave, whose name and value say what it means.

    on: the id of a retrieval, or of what one was inside of. value: a number, a word, or a boolean.
    by_model: whether a language model gave it. rank: from 1, of the passage that it is on. author: who
    gave it, None: whoever asked. text: the correction, where the score is one. label: a word beside
    a number, which says what it means.
    """

    id: str
    on: str
    name: str
    value: float | str | bool | None
    by_model: bool = False
    by_program: bool = False
    rank: int | None = None
    passage_id: str | None = None
    author: str | None = None
    at: str | float | None = None
    comment: str | None = None
    text: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Around:
    """What retrievals may be inside of: a trace, or a run. parent: what it is inside of itself."""

    id: str
    parent: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Seen:
    """A passage that a retrieval showed, told apart from the retrieval."""

    retrieval_id: str
    hit: ImportedHit


@dataclass(frozen=True)
class LeftOut:
    """Something that cannot be used, and why."""

    reason: str


class Foreign(LeftOut):
    """Something that is no record of the tool. A file of nothing else is not one of its files."""


Read: TypeAlias = ImportedRetrieval | ImportedVote | Score | Around | Seen | LeftOut
Reading: TypeAlias = Iterator[Read]


def seconds_of(at: object) -> float | None:
    """Seconds since 1970 of a time: a number of seconds, or of milli-, micro- or nanoseconds where it
    would else be after the year 5000; a datetime; or ISO 8601, in UTC where it names no zone. None for
    None and "".

    Raises InputError.
    """
    if at is None or at == "":
        return None
    if isinstance(at, datetime):
        return _timestamp(at)
    number = as_number(at)
    if number is None and isinstance(at, str):
        try:
            return _timestamp(datetime.fromisoformat(at.strip()))
        except ValueError:
            pass
        try:
            number = float(at) if len(at) < 40 else None
        except ValueError:
            number = None
    if number is not None:
        for most, factor in _UNITS:
            if 0 <= number < most:
                return float(number) * factor
    raise InputError(f"time is {quoted(at)}; expected ISO 8601, or seconds since 1970")


def _timestamp(at: datetime) -> float:
    try:
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError, OSError) as error:
        raise InputError(f"time is {quoted(at)}, which no calendar has") from error
