"""What is in a cell of the database, checked: a file from a stranger may hold anything anywhere.

Each function returns the value or raises CorruptFileError; it must not know what values are for.
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.records import Vectors

HASH_BYTES = 16
_LARGEST = 2**62
_UNIT_TOLERANCE = 0.02
_NEVER = 1e11  # seconds since 1970
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def refuse(where: str, found: object, expected: str) -> NoReturn:
    """Raise CorruptFileError for a cell."""
    what = f"{type(found).__name__} {repr(found)[:60]}"
    raise CorruptFileError(
        f"flywheel.db: {where} holds {what}; expected {expected}. Run `rag-flywheel verify`, and "
        "restore the database from a backup: it cannot be rebuilt"
    )


def complete(where: str, found: dict[_Key, _Value], wanted: Iterable[_Key]) -> dict[_Key, _Value]:
    """What was looked up by keys of other rows, every one of them found."""
    for key in wanted:
        if key not in found:
            name = repr(tuple(key) if isinstance(key, tuple) else key)[:60]
            refuse(where, "nothing", f"a row for {name}, which other rows name")
    return found


def text(where: str, found: object) -> str:
    """A string."""
    if type(found) is not str:
        refuse(where, found, "text")
    return found


def optional_text(where: str, found: object) -> str | None:
    """A string or NULL."""
    return None if found is None else text(where, found)


def whole(where: str, found: object) -> int:
    """A whole number from 0 to 2**62."""
    if type(found) is not int or not 0 <= found <= _LARGEST:
        refuse(where, found, "a whole number, 0 or more")
    return found


def optional_whole(where: str, found: object) -> int | None:
    """A whole number from 0 to 2**62, or NULL."""
    return None if found is None else whole(where, found)


def number(where: str, found: object) -> float:
    """A finite number."""
    if type(found) not in {int, float} or not abs(found) < 1e300:  # type: ignore[arg-type]
        refuse(where, found, "a finite number")
    return float(found)  # type: ignore[arg-type]


def share(where: str, found: object) -> float:
    """A number from 0 to 1."""
    value = number(where, found)
    if not 0.0 <= value <= 1.0:
        refuse(where, found, "a number from 0 to 1")
    return value


def trust(where: str, found: object) -> float:
    """A factor from 0 to 100."""
    value = number(where, found)
    if not 0.0 <= value <= 100.0:
        refuse(where, found, "a number from 0 to 100")
    return value


def seconds(where: str, found: object) -> float:
    """Seconds since 1970."""
    value = number(where, found)
    if not 0 <= value < _NEVER:
        refuse(where, found, "seconds since 1970")
    return value


def hashed(where: str, found: object) -> bytes:
    """The 16 bytes that name a text."""
    if type(found) is not bytes or len(found) != HASH_BYTES:
        refuse(where, found, f"a hash of {HASH_BYTES} bytes")
    return found


def parsed(where: str, found: object) -> Any:
    """The value of JSON text."""
    try:
        return json.loads(text(where, found))
    except (ValueError, RecursionError):
        refuse(where, found, "JSON")


def metadata(where: str, found: object) -> dict[str, Any]:
    """A JSON object of plain values."""
    values = parsed(where, found)
    if not isinstance(values, dict) or any(isinstance(v, list | dict) for v in values.values()):
        refuse(where, found, "a JSON object of plain values")
    return values


def hits(where: str, found: object) -> list[tuple[int, str, float]]:
    """(pid, passage id, score) of each logged hit."""
    rows = parsed(where, found)
    if not isinstance(rows, list):
        refuse(where, found, "a JSON list of hits")
    for row in rows:
        if not isinstance(row, list) or len(row) < 3:
            refuse(where, row, "a hit as [number, id, score, parts]")
        if type(row[0]) is not int or type(row[1]) is not str or not abs(row[0]) < _LARGEST:
            refuse(where, row, "a hit as [number, id, score, parts]")
        number(where, row[2])
    return [(row[0], row[1], float(row[2])) for row in rows]


def vector(where: str, found: object, dim: int) -> Vectors:
    """float32 (dim,), of unit length."""
    problem = vector_problem(found, dim)
    if problem is not None:
        raise CorruptFileError(
            f"flywheel.db: {where} {problem}; run `rag-flywheel repair`, which makes it anew"
        )
    return np.frombuffer(found, dtype=np.float32)  # type: ignore[call-overload, no-any-return]


def vectors(where: str, found: Sequence[object], dim: int) -> Vectors:
    """float32 (n, dim), each of unit length."""
    whole = all(type(each) is bytes and len(each) == 4 * dim for each in found)
    if whole:
        rows = np.frombuffer(b"".join(found), np.float32).reshape(-1, dim)  # type: ignore[arg-type]
        with np.errstate(all="ignore"):
            lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        if np.all(np.abs(lengths - 1.0) <= _UNIT_TOLERANCE):
            return rows
    return np.stack([vector(where, each, dim) for each in found])  # which names what is wrong


def vector_problem(found: object, dim: int) -> str | None:
    """What is wrong with a stored vector; None when it is float32 (dim,) of unit length."""
    if type(found) is not bytes:
        return f"is {type(found).__name__}; expected bytes"
    if len(found) != 4 * dim:
        return f"has {len(found)} bytes; expected {4 * dim}"
    values = np.frombuffer(found, dtype=np.float32)
    with np.errstate(all="ignore"):
        length = math.sqrt(float(values @ values))
    if not abs(length - 1.0) <= _UNIT_TOLERANCE:
        return f"is {length:.3g} long or not finite; expected unit length"
    return None
