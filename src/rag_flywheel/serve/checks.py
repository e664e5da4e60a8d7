"""What callers ask for is checked before anything is done."""

import math
from collections.abc import Sequence

from rag_flywheel.errors import InputError
from rag_flywheel.records import Candidate


def check_query(query: object, max_chars: int) -> None:
    """Raises InputError unless `query` is a string with something in it, of at most max_chars."""
    if not isinstance(query, str):
        raise InputError(f"query is {type(query).__name__}; expected a string")
    if not query.strip():
        raise InputError("query is empty or blank; expected some words")
    if len(query) > max_chars:
        raise InputError(
            f"query has {len(query)} characters; expected at most {max_chars} (config "
            "max_query_chars): give the question, not the document"
        )
    if not query.isascii():
        check_encodable("query", query)


def check_encodable(name: str, text: str) -> None:
    """Raises InputError for text that UTF-8 cannot hold (half a surrogate pair)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} has {text[error.start]!r} at position {error.start}, half a surrogate pair; "
            "expected valid Unicode: decode the bytes with errors='replace'"
        ) from error


def check_k(k: object) -> None:
    """Raises InputError unless k is a whole number of at least 1."""
    if type(k) is not int or k < 1:
        raise InputError(f"k is {k!r}; expected a whole number, 1 or more")


def check_candidates(candidates: Sequence[object]) -> None:
    """Raises InputError for anything but Candidates with distinct ids, text and finite scores."""
    seen = set[str]()
    for candidate in candidates:
        if not isinstance(candidate, Candidate):
            raise InputError(f"found {type(candidate).__name__}; expected a Candidate")
        name = f"candidate {candidate.passage_id!r}"
        if not isinstance(candidate.passage_id, str) or not candidate.passage_id:
            raise InputError(f"{name}: expected a string id")
        if candidate.passage_id in seen:
            raise InputError(f"{name} is given twice; expected each passage once")
        seen.add(candidate.passage_id)
        if not isinstance(candidate.text, str) or not candidate.text.strip():
            raise InputError(f"{name} has no text; expected the text that users will see")
        score = candidate.score
        if (
            isinstance(score, bool)
            or not isinstance(score, int | float)
            or not math.isfinite(score)
        ):
            raise InputError(f"{name} has score {score!r}; expected a finite number")
        check_encodable(name, candidate.text)
