"""Checks values read from the database, since an untrusted file may hold anything in any column.

Each function returns the value or raises CorruptFileError; it must not know what values are for.
"""

import json
import math
from collections.abc import Iterable
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
import numpy as np

from rag_flywheel.checks import MOST_DEPTH
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.records import Vectors

HASH_BYTES = 16
_LARGEST = 2**62
_HUGE = 1e300
_UNIT_TOLERANCE = 0.02
_NEVER = 1e11  # seconds since 1970
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def refuse(where: str, value: object, expected: str) -> NoReturn:
    """Raise CorruptFileError for a value."""
    what = f"{type(value).__name__} {repr(value)[:60]}"
    raise CorruptFileError(
        f"flywheel.db: {where} holds {what}; expected {expected}. Run `rag-flywheel verify`, and "
        "restore the database from a backup: it cannot be rebuilt"
    )


def complete(where: str, value: dict[_Key, _Value], wanted: Iterable[_Key]) -> dict[_Key, _Value]:
    """`value`, which must have every wanted key, since other rows name them."""
    for key in wanted:
        if key not in value:
            name = repr(tuple(key) if isinstance(key, tuple) else key)[:60]
            refuse(where, "nothing", f"a row for {name}, which other rows name")
    return value


def text(where: str, value: object) -> str:
    """A string."""
    if type(value) is not str:
        refuse(where, value, "text")
    return value


def optional_text(where: str, value: object) -> str | None:
    """A string or NULL."""
    return None if value is None else text(where, value)


def whole(where: str, value: object) -> int:
    """A whole number from 0 to 2**62."""
    if type(value) is not int or not 0 <= value <= _LARGEST:
        refuse(where, value, "a whole number, 0 or more")
    return value


def optional_whole(where: str, value: object) -> int | None:
    """A whole number from 0 to 2**62, or NULL."""
    return None if value is None else whole(where, value)


def number(where: str, value: object) -> float:
    """A finite number."""
    if type(value) not in {int, float} or not abs(value) < _HUGE:  # type: ignore[arg-type]
        refuse(where, value, "a finite number")
    return float(value)  # type: ignore[arg-type]


def share(where: str, value: object, *, most: int = 1) -> float:
    """A number from 0 to `most`."""
    value = number(where, value)
    if not 0.0 <= value <= most:
        refuse(where, value, f"a number from 0 to {most}")
    return value


def trust(where: str, value: object) -> float:
    """A factor from 0 to 100."""
    return share(where, value, most=100)


def optional_share(where: str, value: object) -> float | None:
    """A number from 0 to 1, or NULL."""
    return None if value is None else share(where, value)


def seconds(where: str, value: object) -> float:
    """Seconds since 1970."""
    value = number(where, value)
    if not 0 <= value < _NEVER:
        refuse(where, value, "seconds since 1970")
    return value


def hashed(where: str, value: object) -> bytes:
    """The 16 bytes that name a text."""
    if type(value) is not bytes or len(value) != HASH_BYTES:
        refuse(where, value, f"a hash of {HASH_BYTES} bytes")
    return value


def hashes(where: str, values: Iterable[object]) -> list[bytes]:
    """The 16 bytes that name each of many texts."""
    every: list[Any] = list(values)
    if set(map(type, every)) <= {bytes} and set(map(len, every)) <= {HASH_BYTES}:
        return every
    return [hashed(where, value) for value in every]  # which names what is wrong


def parsed(where: str, value: object) -> Any:
    """The value of JSON text."""
    try:
        return json.loads(text(where, value))
    except (ValueError, RecursionError):
        refuse(where, value, "JSON")


def metadata(where: str, value: object) -> dict[str, Any]:
    """A JSON object of scalars, lists of scalars, and objects of these."""
    values = parsed(where, value)
    if not _is_metadata(values, MOST_DEPTH):
        refuse(where, value, "a JSON object of scalars, lists of scalars, and objects of these")
    return values  # type: ignore[no-any-return]


def _is_metadata(values: object, depth: int) -> bool:
    """Whether a parsed value is an object of metadata, with at most `depth` objects in one another."""
    if not isinstance(values, dict) or not depth:
        return False
    for value in values.values():
        if isinstance(value, dict) and not _is_metadata(value, depth - 1):
            return False
        if isinstance(value, list) and any(isinstance(each, list | dict) for each in value):
            return False
    return True


RANK = "rank"
"""The rank of a logged hit, where it is not its place among the hits: passages of other tools, which are
not in the index, may have stood before it. It is no part of the score."""
KNOWN = "known"
"""The part of a logged score that comes from known answers of the very question."""
EXPLORED, STAYED = "explored", "stayed"
"""The probability with which the last place of an answer went to this hit, of one that was explored and
of one that might have lost its place; logged with the parts of its score, of which it is none."""


class _Hit(msgspec.Struct, array_like=True, gc=False):
    """A logged hit; what follows its score is not read."""

    pid: Annotated[int, msgspec.Meta(gt=-_LARGEST, lt=_LARGEST)]
    name: str
    score: Annotated[float, msgspec.Meta(gt=-_HUGE, lt=_HUGE)]


_AS_HITS = msgspec.json.Decoder(list[_Hit])


def hits(where: str, value: object) -> list[tuple[int, str, float]]:
    """(pid, passage id, score) of each logged hit."""
    if type(value) is str:
        try:
            return [(hit.pid, hit.name, hit.score) for hit in _AS_HITS.decode(value)]
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # the slower way says what is wrong
    return [(row[0], row[1], number(where, row[2])) for row in _hits(where, value)]


def hits_with_relevance(where: str, value: object) -> list[tuple[str, int, float, float | None]]:
    """(passage id, rank, score, relevance) of each logged hit; None where no relevance was logged."""
    return [
        (
            row[1],
            whole(where, row[3].get(RANK, n)),
            number(where, row[2]),
            optional_share(where, row[3].get("relevance")),
        )
        for n, row in enumerate(_hits(where, value), 1)
    ]


def hits_with_parts(where: str, value: object) -> list[tuple[int, str, float, dict[str, float]]]:
    """(pid, passage id, score, its parts) of each logged hit."""
    return [
        (row[0], row[1], number(where, row[2]), row[3] if isinstance(row[-1], dict) else {})
        for row in _hits(where, value)
    ]


def hits_without_known(where: str, value: object) -> list[tuple[int, str, float]]:
    """As `hits`, with the scores from before known answers of the very question were put first."""
    return [
        (row[0], row[1], number(where, row[2]) - _by_known(where, row))
        for row in _hits(where, value)
    ]


def explored(where: str, value: object) -> list[int]:
    """The pids of the logged hits that took a better one's place, to be explored."""
    return [
        row[0] for row in _hits(where, value) if isinstance(row[-1], dict) and EXPLORED in row[-1]
    ]


def _by_known(where: str, hit: list[Any]) -> float:
    parts = hit[3] if len(hit) > 3 else None
    return number(where, parts.get(KNOWN, 0.0)) if isinstance(parts, dict) else 0.0


def _hits(where: str, value: object) -> list[Any]:
    try:
        rows = msgspec.json.decode(text(where, value))  # five times as quick as json
    except (msgspec.DecodeError, ValueError, RecursionError):
        refuse(where, value, "JSON")
    if not isinstance(rows, list):
        refuse(where, value, "a JSON list of hits")
    for row in rows:
        typed = isinstance(row, list) and [type(value) for value in row[:2]] == [int, str]
        if not typed or len(row) < 3 or not abs(row[0]) < _LARGEST:
            refuse(where, row, "a hit as [number, id, score, parts]")
    return rows


def candidates(where: str, value: object) -> list[tuple[int, float]]:
    """(pid, score) of each given candidate."""
    rows = parsed(where, value)
    if not isinstance(rows, list):
        refuse(where, value, "a JSON list of candidates")
    for row in rows:
        if not isinstance(row, list) or len(row) != 2:
            refuse(where, row, "a candidate as [number, score]")
    return [(whole(where, row[0]), number(where, row[1])) for row in rows]


def vector(where: str, value: object, dim: int) -> Vectors:
    """float32 (dim,), of unit length."""
    problem = vector_problem(value, dim)
    if problem is not None:
        raise CorruptFileError(
            f"flywheel.db: {where} {problem}; run `rag-flywheel repair`, which makes it anew"
        )
    return np.frombuffer(value, dtype=np.float32)  # type: ignore[call-overload, no-any-return]


def unit_rows(where: str, rows: Vectors) -> None:
    """Raise CorruptFileError unless each row, float32 (n, dim), is of unit length."""
    with np.errstate(all="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    if not np.all(np.abs(lengths - 1.0) <= _UNIT_TOLERANCE):
        for row in rows:  # by the very measure of one vector, which names what is wrong
            vector(where, row.tobytes(), rows.shape[1])


def vector_problem(value: object, dim: int) -> str | None:
    """What is wrong with a stored vector; None when it is float32 (dim,) of unit length."""
    if type(value) is not bytes:
        return f"is {type(value).__name__}; expected bytes"
    if len(value) != 4 * dim:
        return f"has {len(value)} bytes; expected {4 * dim}"
    values = np.frombuffer(value, dtype=np.float32)
    with np.errstate(all="ignore"):
        length = math.sqrt(float(values @ values))
    if not abs(length - 1.0) <= _UNIT_TOLERANCE:
        return f"is {length:.3g} long or not finite; expected unit length"
    return None
