"""Reads passages from files: a passage a line of JSONL; Markdown and text are cut into passages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_flywheel.checks import check_passages
from rag_flywheel.disk import read_bytes
from rag_flywheel.errors import InputError
from rag_flywheel.formats.lines import Limits, located, parse_json, read_lines
from rag_flywheel.formats.markdown import cut
from rag_flywheel.records import Passage

SUFFIXES = (".md", ".txt")
MOST_BYTES = 64 * 2**20
"""The largest size of a text file, and of a line of JSONL."""
_LIMITS = Limits(MOST_BYTES, f" has more than {MOST_BYTES} bytes; expected a passage")


@dataclass(frozen=True)
class Batch:
    """Passages read from files; sources: the names of the files that were cut into passages."""

    passages: list[Passage]
    sources: set[str]


def read_paths(paths: Sequence[Path]) -> Batch:
    """The passages in .jsonl files, in .md and .txt files, and in folders of the latter.

    Raises InputError, naming file and line, for what cannot be read.
    """
    batch = Batch([], set())
    for path in paths:
        if not path.exists():
            raise InputError(f"no file or folder {path}; expected .jsonl, .md, .txt or a folder")
        if path.is_dir():
            for file in _text_files(path):
                source = f"{path.resolve().name}/{file.relative_to(path).as_posix()}"
                _add_file(batch, file, source)
        elif path.suffix == ".jsonl":
            batch.passages.extend(read_jsonl(path))
        elif path.suffix in SUFFIXES:
            _add_file(batch, path, path.name)
        else:
            raise InputError(
                f"{path} is {path.suffix or 'without an ending'}; expected .jsonl, .md, .txt, or "
                "a folder of .md and .txt files"
            )
    return batch


def read_jsonl(path: Path) -> Iterator[Passage]:
    """Yield a passage for each line {"id": ..., "text": ..., "title": ..., "metadata": {...}}."""
    for where, line in read_lines(path, _LIMITS):
        if line.strip():
            yield _passage(line, where)


def _passage(line: bytes, where: str) -> Passage:
    found = parse_json(line, where, _unique_keys)
    if not isinstance(found, dict):
        raise InputError(f"{where} is {type(found).__name__}; expected an object with id and text")
    unknown = sorted(set(found) - {"id", "text", "title", "metadata"})
    missing = sorted({"id", "text"} - set(found))
    if unknown or missing:
        what = f"has the unknown key {unknown[0]!r}" if unknown else f"has no {missing[0]!r}"
        raise InputError(f"{where} {what}; expected id, text, and perhaps title and metadata")
    metadata = found.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputError(f"{where}: metadata is {type(metadata).__name__}; expected an object")
    passage = Passage(found["id"], found["text"], found.get("title") or "", metadata)
    with located(where):
        check_passages([passage])
    return passage


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The JSON object of these pairs. Raises ValueError for a repeated key."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} comes twice")
    return found


def _text_files(folder: Path) -> list[Path]:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise InputError(f"{folder} holds no .md or .txt file; expected some, at any depth")
    return files


def _add_file(batch: Batch, file: Path, source: str) -> None:
    try:
        text = read_bytes(file, most=MOST_BYTES, follow=True).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 ({error}); convert it first") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); expected a text file") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    batch.sources.add(source)
    batch.passages.extend(cut(text, source, markdown=file.suffix == ".md"))
