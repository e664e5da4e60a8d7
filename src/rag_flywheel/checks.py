"""Checks the arguments of callers: each function raises InputError or returns.

It knows records and errors, and must not know what is done with the values.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from msgspec import UNSET

from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import Candidate, MetadataValue, Passage, Scalar

MOST_HITS = 1_000_000
MOST_DEPTH = 32  # objects in one another, in metadata and in filters
MOST_KEY_CHARS = 1_000
MOST_VALUES = 100_000  # of the metadata of a passage, or of a filter
MOST_ID_CHARS = 5_000  # of a passage, retrieval, user, session or item
MOST_NAME_CHARS = 1_000  # of a name of files, a pattern, or the address of a site
MOST_NOTE_CHARS = 20_000  # of what users write: reasons, notes, corrections
MOST_TEXT_CHARS = 4_000_000  # of a passage or a candidate, and of its title
MOST_ANSWER_CHARS = 100_000  # of an answer, and of what a user made of it
MOST_TRUST = 3.0  # three ordinary users' worth
_RISING = 5  # candidates
_LARGEST = 2**63
T = TypeVar("T")
NOT_GIVEN: Any = None
"""The default of an argument that must be given, and stands behind one that need not be."""


def check_text(name: str, value: object, most: int | None = None) -> str:
    """`value`, a string that UTF-8 can hold (no half of a surrogate pair), of at most `most` characters."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {quoted(value)}; expected a string")
    if most is not None and len(value) > most:
        raise InputError(f"{name} has {len(value)} characters; expected at most {most}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} has {quoted(value[error.start])} at position {error.start}, half a surrogate pair; "
            "expected valid Unicode: decode the bytes with errors='replace'"
        ) from error
    return value


def as_python(value: object) -> object:
    """A numpy scalar as the Python value that it is; anything else as it was given."""
    if isinstance(value, np.datetime64):
        unit = "D" if np.datetime_data(value.dtype)[0] in {"Y", "M", "W", "D"} else "us"
        found = value.astype(f"datetime64[{unit}]").item()
        return found if isinstance(found, date) else value
    if isinstance(value, np.floating):
        return float(value)
    return value.item() if isinstance(value, np.generic) else value


def as_number(value: object) -> int | float | None:
    """An int or float, of Python or numpy, as one of Python's; None for anything else, and booleans."""
    value = as_python(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_whole(value: object) -> int | None:
    """An int of Python or numpy as Python's; None for anything else, and booleans."""
    number = as_number(value)
    return number if isinstance(number, int) else None


def check_name(name: str, value: object, *, instead: str = "") -> str:
    """`value`, the id of a user, a session or a tenant: a string with something in it.

    An application that has none gives "" by mistake, and all its users would count as one.
    instead: what else the caller may give.
    """
    found = check_text(name, value, MOST_ID_CHARS)
    if not found.strip():
        raise InputError(f"{name} is {quoted(value)}; expected a string that is not blank{instead}")
    return found


def check_trust(value: object) -> float:
    """How much a user's feedback weighs, a number from 0 to 3. Raises InputError."""
    number = as_number(value)
    if number is None or not 0 <= number <= MOST_TRUST:
        raise InputError(
            f"trust is {quoted(value)}; expected a number from 0, for nothing, over 1, for an ordinary "
            f"user, to {MOST_TRUST:g}"
        )
    return float(number)


def check_optional_text(name: str, value: object, most: int | None = None) -> None:
    """None, or a string that UTF-8 can hold, of at most `most` characters."""
    if isinstance(value, str):
        check_text(name, value, most)
    elif value is not None:
        raise InputError(f"{name} is {quoted(value)}; expected a string or None")


def items(name: str, given: object, kind: type[T]) -> list[T]:
    """The items of an iterable, all of one kind; for strings, a single string is refused."""
    if not isinstance(given, Iterable) or (kind is str and isinstance(given, str)):
        what = f"the string {quoted(given)}" if isinstance(given, str) else type(given).__name__
        plural = "strings" if kind is str else f"{kind.__name__}s"
        raise InputError(f"{name} is {what}; expected a list of {plural}")
    found = list(given)
    for number, item in enumerate(found, 1):
        if not isinstance(item, kind):
            raise InputError(
                f"{name}: item {number}, found {type(item).__name__}; expected a {kind.__name__}"
            )
    return found


def check_one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """One of these words."""
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name} is {quoted(value)}; expected one of {', '.join(allowed)}")


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


def check_k(k: object) -> int:
    """A whole number of at least 1."""
    number = as_whole(k)
    if number is None or not 1 <= number <= MOST_HITS:
        raise InputError(
            f"k is {quoted(k)}; expected a whole number, 1 or more, at most {MOST_HITS}"
        )
    return number


def check_optional_chance(name: str, value: object) -> float | None:
    """A number from 0 to 1, or None."""
    number = as_number(value)
    if value is not None and (number is None or not 0 <= number <= 1):
        raise InputError(f"{name} is {quoted(value)}; expected a number from 0 to 1, or None")
    return number


def check_optional_seconds(name: str, value: object) -> float | None:
    """A number above 0, or None."""
    number = as_number(value)
    if value is not None and (number is None or not 0 < number < _LARGEST):
        raise InputError(
            f"{name} is {quoted(value)}; expected a number of seconds above 0, or None"
        )
    return number


def check_days(value: object) -> float:
    """A number of days above 0 and below 100,000, as a float."""
    number = as_number(value)
    if number is None or not 0 < number < 1e5:
        raise InputError(f"days is {quoted(value)}; expected a number above 0")
    return float(number)


def check_whole(name: str, value: object) -> int:
    """A whole number of at least 1."""
    number = as_whole(value)
    if number is None or not 1 <= number < _LARGEST:
        raise InputError(f"{name} is {quoted(value)}; expected a whole number, 1 or more")
    return number


def check_candidates(candidates: object) -> list[Candidate]:
    """Candidates with distinct ids, text, finite scores, and metadata in the types of JSON."""
    found = list[Candidate]()
    seen = set[str]()
    for candidate in items("candidates", candidates, Candidate):
        name = f"candidate {quoted(candidate.passage_id)}"
        if not isinstance(candidate.passage_id, str) or not candidate.passage_id:
            raise InputError(f"{name}: expected a string id")
        check_text(f"{name}: id", candidate.passage_id, MOST_ID_CHARS)
        if candidate.passage_id in seen:
            raise InputError(f"{name} is given twice; expected each passage once")
        seen.add(candidate.passage_id)
        if not check_text(f"{name}: text", candidate.text, MOST_TEXT_CHARS).strip():
            raise InputError(f"{name} has no text; expected the text that users will see")
        if not _is_finite(candidate.score):
            raise InputError(
                f"{name} has score {quoted(candidate.score)}; expected a finite number"
            )
        if not isinstance(candidate.title, str):
            raise InputError(
                f"{name}: title is {type(candidate.title).__name__}; expected a string"
            )
        check_text(f"{name}: title", candidate.title, MOST_TEXT_CHARS)
        found.append(replace(candidate, metadata=plain_metadata(name, candidate.metadata)))
    return found


def look_like_distances(candidates: Sequence[Candidate]) -> bool:
    """Whether the scores of five candidates or more rise from each to the next, in the given order.

    Retrievers give the best first, so rising scores are distances; by chance the scores of five rise
    in one order of 120.
    """
    scores = [candidate.score for candidate in candidates]
    return len(scores) >= _RISING and all(a < b for a, b in pairwise(scores))


def _is_finite(value: object) -> bool:
    number = as_number(value)
    try:
        return number is not None and math.isfinite(float(number))
    except OverflowError:
        return False


def check_passages(given: object) -> dict[str, Passage]:
    """Passages by id: distinct ids, text with something in it, metadata in the types of JSON."""
    wanted: dict[str, Passage] = {}
    for number, passage in enumerate(items("passages", given, Passage), 1):
        passage = _checked_passage(passage, number)
        if passage.id in wanted:
            raise InputError(
                f"passage id {quoted(passage.id)} comes twice in one call (the second is number "
                f"{number}); expected each id once. Nothing was added"
            )
        wanted[passage.id] = passage
    return wanted


def _checked_passage(passage: Passage, number: int) -> Passage:
    if not isinstance(passage.id, str) or not passage.id.strip():
        raise InputError(
            f"passage {number} has the id {quoted(passage.id)}; expected a string, not blank"
        )
    name = f"passage {quoted(passage.id)}"
    check_text(f"{name}: id", passage.id, MOST_ID_CHARS)
    for field in ("text", "title"):
        value: object = getattr(passage, field)
        if not isinstance(value, str):
            raise InputError(f"{name}: {field} is {type(value).__name__}; expected a string")
        check_text(f"{name}: {field}", value, MOST_TEXT_CHARS)
    if not passage.text.strip():
        raise InputError(f"{name} has an empty or blank text; expected something to retrieve")
    return replace(passage, metadata=plain_metadata(name, passage.metadata))


def plain_metadata(name: str, metadata: object) -> dict[str, MetadataValue]:
    """Metadata in the types of JSON: scalars as `plain_scalar` makes them, lists of them, and objects.

    Raises InputError for anything else, for objects more than 32 deep, and for over 100,000 values.
    """
    if not isinstance(metadata, Mapping):
        raise InputError(f"{name}: metadata is {type(metadata).__name__}; expected a mapping")
    return _plain_object(f"{name}: metadata", metadata, 1, iter(range(MOST_VALUES)))


def _plain_object(
    name: str, values: Mapping[object, object], depth: int, left: Iterator[int]
) -> dict[str, MetadataValue]:
    if depth > MOST_DEPTH:
        raise InputError(
            f"{name} has more than {MOST_DEPTH} objects in one another; expected at most {MOST_DEPTH}"
        )
    plain: dict[str, MetadataValue] = {}
    for key, value in values.items():
        key = check_key(f"{name} key", key)
        where = f"{name} {quoted(key)}"
        take_one(name, left)
        if isinstance(value, Mapping):
            plain[key] = _plain_object(where, value, depth + 1, left)
        elif is_list(value):
            plain[key] = plain_list(where, value, left)
        else:
            plain[key] = plain_scalar(where, value)
    return plain


def take_one(name: str, left: Iterator[int]) -> None:
    """Count one more value. Raises InputError when none is left."""
    if next(left, None) is None:
        raise InputError(
            f"{name} has more than {MOST_VALUES} values; expected at most {MOST_VALUES}"
        )


def check_key(name: str, key: object) -> str:
    """A key of metadata: a string, not empty, of at most 1,000 characters."""
    if not isinstance(key, str) or not key:
        raise InputError(f"{name} is {quoted(key)}; expected a string, not empty")
    if len(key) > MOST_KEY_CHARS:
        raise InputError(
            f"{name} has {len(key)} characters; expected at most {MOST_KEY_CHARS}: {quoted(key[:40])}..."
        )
    return str.__str__(check_text(name, key))


def is_list(value: object) -> bool:
    """Whether a value is a list, tuple, set, or numpy array of one dimension."""
    return isinstance(value, list | tuple | Set) or (
        isinstance(value, np.ndarray) and value.ndim == 1
    )


def plain_list(name: str, values: object, left: Iterator[int]) -> list[Scalar]:
    """The scalars of a list; those of a set in a fixed order. Raises InputError."""
    plain = list[Scalar]()
    for value in values:  # type: ignore[attr-defined]
        take_one(name, left)
        plain.append(plain_scalar(f"{name}: item {len(plain) + 1}", value))
    if isinstance(values, Set):
        plain.sort(key=lambda v: (type(v).__name__, 0 if v is None else v))
    return plain


def plain_scalar(name: str, value: object) -> Scalar:
    """A string, boolean, None, or finite number that 64 bits hold, in the types of JSON.

    Numpy scalars become numbers, dates and times text: as in ISO 8601, in UTC where they have a zone.
    """
    value = as_python(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(check_text(name, value))
    if isinstance(value, int):
        if not -_LARGEST <= value < _LARGEST:
            raise InputError(f"{name} is {value}; expected a number that 64 bits hold")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{name} is {value}; expected a finite number")
        return float(value)
    if isinstance(value, date) and value == value:  # NaT is unequal to itself
        return _iso(value)
    raise InputError(
        f"{name} is {type(value).__name__}; expected a string, number, boolean, date or None"
    )


def _iso(value: date) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        with suppress(OverflowError):  # within a day of the years 1 and 9999
            value = value.astimezone(UTC)
    return value.isoformat()


def value_at(metadata: Mapping[str, Any], key: str) -> Any:
    """The value of metadata at a key, whose dots lead into objects where no key has them itself;
    msgspec.UNSET: there is none."""
    found, dot = metadata.get(key, UNSET), key.rfind(".")
    while found is UNSET and dot >= 0:
        inner = metadata.get(key[:dot])
        if isinstance(inner, dict):
            found = value_at(inner, key[dot + 1 :])
        dot = key.rfind(".", 0, dot)
    return found
