"""Reads the passages of a file: a document is converted to text, and cut into passages."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rag_flywheel.checks import check_passages
from rag_flywheel.disk import read_bytes
from rag_flywheel.errors import InputError
from rag_flywheel.formats.anchors import Site
from rag_flywheel.formats.chunks import Chunking
from rag_flywheel.formats.convert import TABLES, Converted, convert
from rag_flywheel.formats.decode import decode
from rag_flywheel.formats.files import JSONL, Selection, find_files
from rag_flywheel.formats.jsonl import read_jsonl
from rag_flywheel.formats.markdown import cut
from rag_flywheel.formats.spreadsheet import row_texts
from rag_flywheel.records import Passage, SkippedFile, Splitter

MOST_BYTES = 64 * 2**20
"""The largest size of a document."""
_ADDED = 32  # tokens that a model adds, its prompt included
ADDED_FROM = "added_from"
"""The metadata key with the name of the file of a passage whose id does not begin with that name."""


@dataclass(frozen=True)
class Cutting:
    """How documents are cut into passages.

    chunking: how long passages are. splitter: cuts instead.
    base_url, anchors: the address that sources are below, and whose anchors it has.
    """

    chunking: Chunking = field(default_factory=Chunking)
    base_url: str | None = None
    anchors: Site = "github"
    splitter: Splitter | None = None


@dataclass(frozen=True)
class Batch:
    """Passages read from files; sources: the names of the files that were cut into passages."""

    passages: list[Passage]
    sources: set[str]
    skipped: list[SkippedFile]


def read_paths(paths: Sequence[Path]) -> Batch:
    """The passages in these files and folders, all at once; a source is named after the last folder.

    Raises InputError, naming file and line, for what cannot be read.
    """
    found = find_files(paths, Selection())
    batch = Batch([], set(), found.skipped)
    for file in found.files:
        inside = [f"{f.name}/{file.relative_to(f)}" for f in found.folders if f in file.parents]
        source = inside[0] if inside else file.name
        batch.passages.extend(read_passages(file, source, Cutting()))
        if file.suffix.lower() != JSONL:
            batch.sources.add(source)
    failed = next((s for s in found.skipped if s.failed), None)
    if failed is not None or not found.files:
        raise InputError(
            f"{failed.path} cannot be read: {failed.reason}"
            if failed
            else f"{paths[0]} holds no file that is read; expected some, at any depth"
        )
    return batch


def read_passages(file: Path, source: str, cutting: Cutting) -> Iterator[Passage]:
    """Yield the passages of a file; those of a document are all checked before the first one.

    source: the name of the file, which ids begin with, but for those in .jsonl files.
    Raises InputError, naming the file.
    """
    if file.suffix.lower() == JSONL:
        try:
            yield from read_jsonl(file)
        except OSError as error:
            raise InputError(f"{file} cannot be read ({error.strerror})") from error
        return
    try:
        passages = _document(file, source, cutting)
        check_passages(passages)
    except InputError as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    yield from passages


def _document(file: Path, source: str, cutting: Cutting) -> list[Passage]:
    suffix = file.suffix.lower()
    try:
        data = read_bytes(file, most=MOST_BYTES, follow=True)
    except (OSError, ValueError) as error:
        raise InputError(getattr(error, "strerror", None) or str(error)) from error
    if suffix not in TABLES:
        return _cut(convert(data, suffix), source, cutting)
    rows = row_texts(decode(data), separator=TABLES[suffix])
    if cutting.splitter is not None:
        return _cut(Converted("\n\n".join(rows), markdown=False), source, cutting)
    return [p for n, row in enumerate(rows, 1) for p in _row(row, n, source, cutting)]


def _row(text: str, number: int, source: str, cutting: Cutting) -> list[Passage]:
    """The passages of a row: one, unless it is long."""
    id_ = f"{source}#row-{number}"
    if len(text.encode()) <= cutting.chunking.tokens - _ADDED:  # a token is a byte at least
        return [Passage(id_, text, "", {"source": source})]
    parts = _cut(Converted(text, markdown=False), source, cutting)
    if len(parts) == 1:
        return [replace(parts[0], id=id_)]
    return [replace(part, id=f"{id_}.{n}") for n, part in enumerate(parts, 1)]


def _cut(document: Converted, source: str, cutting: Cutting) -> list[Passage]:
    if cutting.splitter is not None:
        return _split(cutting.splitter(document.text, source), source)
    return cut(
        document.text,
        source,
        markdown=document.markdown,
        chunking=cutting.chunking,
        base_url=cutting.base_url,
        anchors=cutting.anchors,
        name=document.title or None,
    )


def _split(parts: object, source: str) -> list[Passage]:
    """What a caller's splitter returned, as passages of this source. Raises InputError."""
    if isinstance(parts, str | bytes) or not isinstance(parts, Iterable):
        raise InputError(
            f"the splitter returned {type(parts).__name__}; expected texts or passages"
        )
    passages = []
    for number, part in enumerate(parts, 1):
        if isinstance(part, str):
            if part.strip():
                passages.append(Passage(f"{source}#{number}", part, "", {"source": source}))
        elif isinstance(part, Passage):
            mine = {"source": source} if part.id.startswith(f"{source}#") else {ADDED_FROM: source}
            passages.append(replace(part, metadata={**part.metadata, **mine}))
        else:
            raise InputError(
                f"the splitter returned a {type(part).__name__}; expected texts or passages"
            )
    return passages
