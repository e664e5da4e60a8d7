"""Keeps failures of refreshes that could not be written into the database, in a file of the index folder.

One line of JSON each, with the words that the database would have got; the newest 100 are kept.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from rag_flywheel import disk

NAME = "failures.jsonl"
_KEPT = 100
_MOST_BYTES = 1_000_000
_MOST_CHARS = 1_000


@dataclass(frozen=True)
class NotedFailure:
    """A refresh that failed; at: seconds since 1970; error: the name of the exception; reason, to_do:
    sentences."""

    at: Annotated[float, Meta(ge=0, lt=1e11)]
    pid: Annotated[int, Meta(ge=0, lt=2**32)]
    error: Annotated[str, Meta(max_length=_MOST_CHARS)]
    reason: Annotated[str, Meta(max_length=_MOST_CHARS)]
    to_do: Annotated[str, Meta(max_length=_MOST_CHARS)]


def note_failure(root: Path, failure: NotedFailure) -> bool:
    """Append a failure to the file; False where the folder cannot be written either."""
    lines = [json.dumps(asdict(each)) for each in (*noted_failures(root)[-_KEPT + 1 :], failure)]
    with suppress(OSError):
        disk.write_file(root, NAME, "".join(f"{line}\n" for line in lines).encode("utf-8"))
        return True
    return False


def noted_failures(root: Path) -> list[NotedFailure]:
    """The failures in the file, the oldest first; lines that cannot be read are left out."""
    try:
        data = disk.read_bytes(root / NAME, most=_MOST_BYTES)
    except (OSError, ValueError):
        return []
    found = []
    for line in data.splitlines():
        with suppress(ValueError, msgspec.ValidationError, RecursionError):
            found.append(msgspec.convert(json.loads(line), NotedFailure))
    return found
