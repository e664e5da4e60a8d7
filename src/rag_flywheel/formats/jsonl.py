"""Reads passages from JSONL, one a line; also the corpus.jsonl of a BEIR folder, such as `export` writes."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag_flywheel.checks import check_passages
from rag_flywheel.errors import InputError
from rag_flywheel.formats.lines import Limits, located, parse_json, read_lines
from rag_flywheel.records import Passage

MOST_BYTES = 64 * 2**20
"""The largest size of a line."""
_LIMITS = Limits(MOST_BYTES, f" has more than {MOST_BYTES} bytes; expected a passage")


def read_jsonl(path: Path) -> Iterator[Passage]:
    """Yield a passage for each line {"id": ..., "text": ..., "title": ..., "metadata": {...}}.

    The id may stand under "_id", as in BEIR folders, where a passage may be nothing but a title.
    Raises InputError, naming file and line.
    """
    for where, line in read_lines(path, _LIMITS):
        if line.strip():
            yield _passage(line.removeprefix(b"\xef\xbb\xbf"), where)


def _passage(line: bytes, where: str) -> Passage:
    found = parse_json(line, where, _unique_keys)
    if not isinstance(found, dict):
        raise InputError(f"{where} is {type(found).__name__}; expected an object with id and text")
    key = "_id" if "_id" in found and "id" not in found else "id"
    unknown = sorted(set(found) - {key, "text", "title", "metadata"})
    missing = sorted({key, "text"} - set(found))
    if unknown or missing:
        what = f"has the unknown key {unknown[0]!r}" if unknown else f"has no {missing[0]!r}"
        raise InputError(f"{where} {what}; expected id, text, and perhaps title and metadata")
    metadata = found.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputError(f"{where}: metadata is {type(metadata).__name__}; expected an object")
    text, title = found["text"], found.get("title") or ""
    if key == "_id" and text == "" and title:
        text, title = title, ""
    passage = Passage(found[key], text, title, metadata)
    with located(where):
        check_passages([passage])
    return passage


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The JSON object of these pairs. Raises ValueError for a repeated key."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:80]!r} comes twice")
    return found
