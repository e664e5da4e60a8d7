"""Builds the files of one index version in a staging folder, and reads them back to check them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag_flywheel.deploy.index_files import INDEX_PARTS
from rag_flywheel.deploy.loaded import LoadedVersion, load_parameters
from rag_flywheel.deploy.manifest import Manifest, Parent
from rag_flywheel.disk import link
from rag_flywheel.encoder import Encoder
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.in_memory import InMemory
from rag_flywheel.index.lexical import DERIVED_FOLDER, LexicalIndex, language_at
from rag_flywheel.index.parts import STATISTICS_FOLDER
from rag_flywheel.index.stored_statistics import save_statistics
from rag_flywheel.index.tokenizer import Tokenizer, tokenizer_for
from rag_flywheel.rank import parameters as params
from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import Pids, Progress
from rag_flywheel.store import passages, timeline
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.passages import StoredPassage

_AT_ONCE = 10_000  # texts or vectors read for a part
_SAMPLE = 500  # texts by which the language is found


@dataclass(frozen=True)
class Built:
    """The indexes that were built: the event number of the store they show, and their texts.

    texts: the digest of the passages' numbers and texts; new: those of the texts that the parent lacks.
    linked: whether the parent's index files were linked, for no passage changed.
    """

    watermark: int
    pids: Pids
    texts: str
    new: Pids
    linked: bool = False


def build_indexes(
    staged: Path,
    database: Database,
    encoder: Encoder,
    *,
    language: str,
    parent: Parent | None,
    progress: Progress | None,
    loaded: InMemory | None = None,
) -> Built:
    """Write the index files of a version.

    language: the setting of the index.

    parent: a version of the same encoder and the same vectors, whose index files are linked instead of
    built when no passage changed since. When some did, what it has of the others is used again.

    loaded: the indexes of the parent, when they are in memory already.
    """
    with database.snapshot() as conn:
        watermark, pids = passages.read_clock(conn), passages.present_pids(conn)
        if parent is not None and _unchanged(conn, parent.manifest, language):
            whole = all((parent.folder / name).exists() for name in parent.manifest.derived)
            for part in INDEX_PARTS:
                if (parent.folder / part).exists() and (whole or part != DERIVED_FOLDER):
                    link(parent.folder / part, staged / part)
            return Built(watermark, pids, parent.manifest.texts, pids[:0], linked=True)
        texts = timeline.digest_now(conn)
        tokenizer = tokenizer_for(language, _sampled(conn, pids))
        before = None if parent is None else parent.folder
        held = None if loaded is None else loaded.dense
        old_pids = _build_dense(staged, conn, encoder, pids, before, held, progress)
        same = before is not None and language_at(before) == tokenizer.language
        old = None
        if before is not None and same:
            known = None if loaded is None else loaded.lexical
            old = LexicalIndex.load(before, n_texts=len(old_pids)) if known is None else known
        _build_lexical(staged, conn, pids, old, old_pids, tokenizer, before, progress)
        new = np.setdiff1d(pids, old_pids, assume_unique=True)
    return Built(watermark, pids, texts, new)


def _unchanged(conn: Connection, parent: Manifest, language: str) -> bool:
    """Whether no passage changed since a version was built, under the same setting of the language."""
    return parent.language == language and not passages.count_changes(conn, parent.watermark)


def built_indexes(
    staged: Path,
    encoder: Encoder,
    built: Built,
    parameters: Parameters,
    loaded: InMemory | None = None,
) -> LoadedVersion:
    """The staged indexes, read back, as a version with these parameters and an empty memory.

    loaded: those of the same files, when they are in memory already.
    """
    if loaded is None:
        loaded = InMemory.load(staged, dim=encoder.dim, n_texts=len(built.pids))
    if built.linked and not (staged / DERIVED_FOLDER).exists():  # the parent was rolled back to
        loaded.lexical.save_derived(staged)
    return LoadedVersion(None, built.watermark, parameters, loaded, Memory(), encoder=encoder)


def built_texts(version: LoadedVersion) -> InMemory:
    """The texts of a version that was just built, which are in memory."""
    assert isinstance(version.engine, InMemory)
    return version.engine


def write_statistics(staged: Path, version: LoadedVersion) -> None:
    """Write what processes load that find the texts in a database of vectors, unless it was linked."""
    if not (staged / STATISTICS_FOLDER).exists():
        save_statistics(staged, built_texts(version))


def write_parameters(staged: Path, parameters: Parameters) -> None:
    """Write parameters into a staged version, in place of any earlier ones."""
    text = params.parameters_text(parameters)
    (staged / params.FILE_NAME).write_text(text, encoding="utf-8")


def read_back_parameters(staged: Path, parameters: Parameters) -> Parameters:
    """Write parameters, and return them as they are read from that file."""
    write_parameters(staged, parameters)
    return load_parameters(staged)


def _build_dense(
    staged: Path,
    conn: Connection,
    encoder: Encoder,
    pids: Pids,
    parent: Path | None,
    loaded: DenseIndex | None,
    progress: Progress | None,
) -> Pids:
    """Write the dense index; returns the pids in the parent's index. loaded: that, when it is in memory."""
    n, old_pids, index = len(pids), np.empty(0, dtype=np.int64), None
    if progress is not None:
        progress("dense index", 0, n)
    if parent is not None:
        old = DenseIndex.load(parent, dim=encoder.dim) if loaded is None else loaded.copied(parent)
        old_pids = old.pids
        parts = (
            vector_store.some_vectors(conn, part.tolist(), encoder.revision, encoder.dim)
            for part in _parts(np.setdiff1d(pids, old_pids, assume_unique=True))
        )
        index = old.changed(pids, parts)
        del old  # before another takes its memory
    if index is None:
        every = vector_store.present_vectors(conn, encoder.revision, encoder.dim)
        index = DenseIndex.of_parts(every, n=n, dim=encoder.dim)
    index.save(staged)
    if progress is not None:
        progress("dense index", n, n)
    return old_pids


def _build_lexical(
    staged: Path,
    conn: Connection,
    pids: Pids,
    old: LexicalIndex | None,
    old_pids: Pids,
    tokenizer: Tokenizer,
    parent: Path | None,
    progress: Progress | None,
) -> None:
    """Write the lexical index; old: of a version whose words are used again, old_pids: its pids."""
    if old is None:
        old_pids = old_pids[:0]
    new = np.setdiff1d(pids, old_pids, assume_unique=True)
    stored = passages.present(conn) if old is None else _stored(conn, new)
    if old is None:
        old = LexicalIndex.build([], tokenizer=tokenizer)

    def texts() -> Iterator[tuple[str, str]]:
        for i, one in enumerate(stored):
            if progress is not None and i % 1000 == 0:
                progress("lexical index", i, len(new))
            yield one.passage.title, passages.encoded_text(one.passage)

    old.changed(np.isin(old_pids, pids, assume_unique=True), texts()).save(staged, parent)
    if progress is not None:
        progress("lexical index", len(new), len(new))


def _sampled(conn: Connection, pids: Pids) -> Iterator[str]:
    """Texts at even distances, by which the language is found."""
    some = pids[:: max(1, len(pids) // _SAMPLE)]
    yield from (passages.encoded_text(one.passage) for one in _stored(conn, some))


def _stored(conn: Connection, pids: Pids) -> Iterator[StoredPassage]:
    """The texts of these pids, in their order."""
    for part in _parts(pids):
        found = passages.fetch(conn, part.tolist())
        yield from (found[pid] for pid in part.tolist())


def _parts(pids: Pids) -> Iterator[Pids]:
    return (pids[i : i + _AT_ONCE] for i in range(0, len(pids), _AT_ONCE))
