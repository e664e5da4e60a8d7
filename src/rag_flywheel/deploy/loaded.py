"""Loads an index version into memory. A loaded version never changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rag_flywheel.config import Config
from rag_flywheel.deploy.index_files import Files, index_files
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.versions import version_folder
from rag_flywheel.disk import read_bytes, version_file_errors
from rag_flywheel.encoder import Encoder, QueryEncoder
from rag_flywheel.index.engine import Engine
from rag_flywheel.index.in_memory import InMemory
from rag_flywheel.rank import parameters as params
from rag_flywheel.rank.memory import Memory, load_memory
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.raters import RaterWeight, load_raters, weights_of
from rag_flywheel.rank.stored_evidence import StoredEvidence, load_stored_evidence
from rag_flywheel.records import Pids
from rag_flywheel.store.database import Database

if TYPE_CHECKING:
    from rag_flywheel.deploy.published import Published

_MOST_PARAMETERS = 1_000_000  # bytes


@dataclass(frozen=True)
class LoadedVersion:
    """A version's id (None: there is none yet), watermark, parameters, texts and memory.

    engine: what finds, scores and reads its texts; encoder: what it was built with, None: the encoder of
    the index; queries: its tuned encoder of queries, None: that encoder; evidence: from the votes up to its
    build, None: those votes have to be judged again; raters: who votes, by their hashes.
    """

    id: str | None
    watermark: int
    parameters: Parameters
    engine: Engine
    memory: Memory
    queries: QueryEncoder | None = None
    evidence: StoredEvidence | None = None
    raters: Mapping[str, RaterWeight] = field(default_factory=dict)
    encoder: Encoder | None = None

    @cached_property
    def weights(self) -> Mapping[str, float]:
        """Those of users who are no ordinary voters, by their hashes."""
        return weights_of(self.raters)

    @property
    def pids(self) -> Pids:
        """Ascending pids, of the text at each position."""
        return self.engine.pids


class SharedIndexes:
    """The texts of the version that was loaded last, for others with the same files.

    published: the database of vectors that texts are in, None: they are loaded into memory.
    """

    def __init__(self, published: "Published | None" = None) -> None:
        self.published = published
        self._last: tuple[Files, Engine] | None = None

    def of(self, manifest: Manifest) -> Engine | None:
        """Those of a version, when its index files have the hashes of the last version's."""
        last = self._last
        return last[1] if last is not None and last[0] == index_files(manifest) else None

    def open(self, root: Path, manifest: Manifest) -> Engine:
        """The texts of a version: those loaded last, those in the database of vectors that the settings
        name, or those of its files. Raises CorruptFileError, EngineError."""
        if (found := self.of(manifest)) is not None:
            return found
        folder, published = version_folder(root, manifest.id), self.published
        if published is not None and published.holds(root, manifest):
            return published.open(folder, manifest)
        return InMemory.load(folder, dim=manifest.dim, n_texts=manifest.n_passages)

    def keep(self, manifest: Manifest, loaded: LoadedVersion) -> None:
        """Remember the texts of a version that was just loaded, but not in memory what is published."""
        if self.published is None or not isinstance(loaded.engine, InMemory):
            self._last = index_files(manifest), loaded.engine


def published_of(config: Config, database: Database) -> "Published | None":
    """The database of vectors that the settings name, None: texts are found in memory. Connects to nothing.

    Raises ConfigError.
    """
    if config.engine is None:
        return None
    from rag_flywheel.deploy.published import Published  # which a plain index does without

    return Published.of(config.engine, database)


def empty_version(encoder: Encoder) -> LoadedVersion:
    """The version served before the first refresh: no indexed texts, the shipped parameters."""
    engine = InMemory.empty(encoder.dim)
    return LoadedVersion(None, 0, Parameters(), engine, Memory(), encoder=encoder)


def load_version(
    folder: Path,
    *,
    version: str,
    watermark: int,
    dim: int,
    n_passages: int,
    encoder: Encoder | None = None,
    queries: QueryEncoder | None = None,
    engine: Engine | None = None,
) -> LoadedVersion:
    """Read a version folder. Raises CorruptFileError when a part cannot be read or does not fit.

    engine: its texts, where they need not be read from the folder.
    """
    if engine is None:
        engine = InMemory.load(folder, dim=dim, n_texts=n_passages)
    parameters, memory = load_parameters(folder), load_memory(folder)
    evidence = load_stored_evidence(folder, dim=dim)
    raters = load_raters(folder)
    return LoadedVersion(
        version, watermark, parameters, engine, memory, queries, evidence, raters, encoder
    )


def load_parameters(folder: Path) -> Parameters:
    """The parameters of a version folder. Raises CorruptFileError."""
    path = folder / params.FILE_NAME
    with version_file_errors(path):
        text = read_bytes(path, most=_MOST_PARAMETERS).decode("utf-8")
    return params.parse_parameters(text, name=str(path))
