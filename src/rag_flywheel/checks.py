"""Checks the arguments of callers: each function raises InputError or returns.

It knows records and errors, and must not know what is done with the values.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import TypeVar

from rag_flywheel.errors import InputError
from rag_flywheel.records import Candidate, Passage

MOST_HITS = 1_000_000
MOST_TRUST = 3.0  # three ordinary users' worth
_RISING = 5  # candidates
_LARGEST = 2**63
T = TypeVar("T")


def check_text(name: str, value: object) -> str:
    """`value`, a string that UTF-8 can hold (no half of a surrogate pair)."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {value!r}; expected a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} has {value[error.start]!r} at position {error.start}, half a surrogate pair; "
            "expected valid Unicode: decode the bytes with errors='replace'"
        ) from error
    return value


def check_name(name: str, value: object, *, instead: str = "") -> str:
    """`value`, the id of a user, a session or a tenant: a string with something in it.

    An application that has none gives "" by mistake, and all its users would count as one.
    instead: what else the caller may give.
    """
    found = check_text(name, value)
    if not found.strip():
        raise InputError(f"{name} is {value!r}; expected a string that is not blank{instead}")
    return found


def check_trust(value: object) -> float:
    """How much a user's feedback weighs, a number from 0 to 3. Raises InputError."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= MOST_TRUST
    ):
        raise InputError(
            f"trust is {value!r}; expected a number from 0, for nothing, over 1, for an ordinary "
            f"user, to {MOST_TRUST:g}"
        )
    return float(value)


def check_optional_text(name: str, value: object) -> None:
    """None, or a string that UTF-8 can hold."""
    if isinstance(value, str):
        check_text(name, value)
    elif value is not None:
        raise InputError(f"{name} is {value!r}; expected a string or None")


def items(name: str, given: object, kind: type[T]) -> list[T]:
    """The items of an iterable, all of one kind; for strings, a single string is refused."""
    if not isinstance(given, Iterable) or (kind is str and isinstance(given, str)):
        what = f"the string {given!r}" if isinstance(given, str) else type(given).__name__
        plural = "strings" if kind is str else f"{kind.__name__}s"
        raise InputError(f"{name} is {what}; expected a list of {plural}")
    found = list(given)
    for number, item in enumerate(found, 1):
        if not isinstance(item, kind):
            raise InputError(
                f"{name}: item {number}, found {type(item).__name__}; expected a {kind.__name__}"
            )
    return found


def check_query(query: object, max_chars: int) -> None:
    """A string with something in it, of at most max_chars characters."""
    if not isinstance(query, str):
        raise InputError(f"query is {type(query).__name__}; expected a string")
    if not query.strip():
        raise InputError("query is empty or blank; expected some words")
    if len(query) > max_chars:
        raise InputError(
            f"query has {len(query)} characters; expected at most {max_chars} (config "
            "max_query_chars): give the question, not the document"
        )
    check_text("query", query)


def check_k(k: object) -> None:
    """A whole number of at least 1."""
    if type(k) is not int or not 1 <= k <= MOST_HITS:
        raise InputError(f"k is {k!r}; expected a whole number, 1 or more, at most {MOST_HITS}")


def check_optional_chance(name: str, value: object) -> None:
    """A number from 0 to 1, or None."""
    if value is not None and (type(value) not in {int, float} or not 0 <= value <= 1):  # type: ignore[operator]
        raise InputError(f"{name} is {value!r}; expected a number from 0 to 1, or None")


def check_whole(name: str, value: object) -> None:
    """A whole number of at least 1."""
    if type(value) is not int or not 1 <= value < _LARGEST:
        raise InputError(f"{name} is {value!r}; expected a whole number, 1 or more")


def check_candidates(candidates: object) -> list[Candidate]:
    """Candidates with distinct ids, text and finite scores."""
    found = items("candidates", candidates, Candidate)
    seen = set[str]()
    for candidate in found:
        name = f"candidate {candidate.passage_id!r}"
        if not isinstance(candidate.passage_id, str) or not candidate.passage_id:
            raise InputError(f"{name}: expected a string id")
        check_text(name, candidate.passage_id)
        if candidate.passage_id in seen:
            raise InputError(f"{name} is given twice; expected each passage once")
        seen.add(candidate.passage_id)
        if not check_text(f"{name}: text", candidate.text).strip():
            raise InputError(f"{name} has no text; expected the text that users will see")
        if not _is_finite(candidate.score):
            raise InputError(f"{name} has score {candidate.score!r}; expected a finite number")
        if not isinstance(candidate.title, str):
            raise InputError(
                f"{name}: title is {type(candidate.title).__name__}; expected a string"
            )
        check_text(f"{name}: title", candidate.title)
        _check_metadata(name, candidate.metadata)
    return found


def look_like_distances(candidates: Sequence[Candidate]) -> bool:
    """Whether the scores of five candidates or more rise from each to the next, in the given order.

    Retrievers give the best first, so rising scores are distances; by chance the scores of five rise
    in one order of 120.
    """
    scores = [candidate.score for candidate in candidates]
    return len(scores) >= _RISING and all(a < b for a, b in pairwise(scores))


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def check_passages(given: object) -> dict[str, Passage]:
    """Passages by id: distinct ids, text with something in it, plain metadata."""
    wanted: dict[str, Passage] = {}
    for number, passage in enumerate(items("passages", given, Passage), 1):
        _check_passage(passage, number)
        if passage.id in wanted:
            raise InputError(
                f"passage id {passage.id!r} comes twice in one call (the second is number "
                f"{number}); expected each id once. Nothing was added"
            )
        wanted[passage.id] = passage
    return wanted


def _check_passage(passage: Passage, number: int) -> None:
    if not isinstance(passage.id, str) or not passage.id.strip():
        raise InputError(
            f"passage {number} has the id {passage.id!r}; expected a string, not blank"
        )
    name = f"passage {passage.id!r}"
    check_text(f"{name}: id", passage.id)
    for field in ("text", "title"):
        value: object = getattr(passage, field)
        if not isinstance(value, str):
            raise InputError(f"{name}: {field} is {type(value).__name__}; expected a string")
        check_text(f"{name}: {field}", value)
    if not passage.text.strip():
        raise InputError(f"{name} has an empty or blank text; expected something to retrieve")
    _check_metadata(name, passage.metadata)


def _check_metadata(name: str, metadata: object) -> None:
    if not isinstance(metadata, Mapping):
        raise InputError(f"{name}: metadata is {type(metadata).__name__}; expected a mapping")
    for key, value in metadata.items():
        if not isinstance(key, str) or not key or '"' in key or "\x00" in key:
            raise InputError(
                f"{name}: metadata key {key!r}; expected a string without double quotes"
            )
        check_text(f"{name}: metadata key", key)
        check_metadata_value(f"{name}: metadata {key!r}", value)


def check_metadata_value(name: str, value: object) -> None:
    """A string, a finite number that 64 bits hold, a boolean or None."""
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        check_text(name, value)
    elif isinstance(value, int):
        if not -_LARGEST <= value < _LARGEST:
            raise InputError(f"{name} is {value}; expected a number that 64 bits hold")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{name} is {value}; expected a finite number")
    else:
        raise InputError(
            f"{name} is {type(value).__name__}; expected a string, number, boolean or None"
        )
