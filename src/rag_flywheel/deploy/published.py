"""Versions whose texts are also in a database of vectors, which `engine` in the settings names: what writes
them there, opens them, and deletes those of no version.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from rag_flywheel.deploy.index_files import index_files
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.shared import manifests
from rag_flywheel.deploy.versions import read_manifest, version_folder
from rag_flywheel.errors import ConfigError, EngineError, FlywheelError, counted
from rag_flywheel.index.engine import Engine
from rag_flywheel.index.in_memory import InMemory
from rag_flywheel.index.milvus import Milvus
from rag_flywheel.index.parts import STATISTICS_FOLDER
from rag_flywheel.index.remote import InDatabase, ReadTitled, rows_of
from rag_flywheel.index.stored_statistics import StoredStatistics
from rag_flywheel.records import Pids
from rag_flywheel.store import passages, users
from rag_flywheel.store.database import Database
from rag_flywheel.store.vector_tables import VectorTables
from rag_flywheel.vector_database import VectorDatabase

log = logging.getLogger("rag_flywheel")
_DATABASES: Mapping[str, Callable[[str], VectorDatabase]] = {
    "milvus": Milvus.at,
    "pgvector": VectorTables.at,
}
"""By what `engine` in the settings begins with."""


class Published:
    """The collections of the versions of one index in a database of vectors."""

    def __init__(self, server: VectorDatabase, index: str, read_texts: ReadTitled) -> None:
        self.server = server
        self._index = index  # of which the collections are, whoever else has the same prefix
        self._read_texts = read_texts

    @classmethod
    def of(cls, engine: str, database: Database) -> "Published":
        """Those in what the setting `engine` names. Connects to nothing. Raises ConfigError."""
        kind, _, address = engine.partition(":")
        if kind not in _DATABASES:
            raise ConfigError(
                f"config engine is {engine!r}; expected milvus:http://HOST:PORT/PREFIX or "
                "pgvector:postgresql://USER@HOST/DATABASE#PREFIX"
            )
        server = _DATABASES[kind](address)
        with database.reading() as conn:
            key = users.user_key(conn)
        index = hashlib.blake2b(key, digest_size=4, person=b"engine").hexdigest()
        return cls(server, index, lambda pids: _titled(database, pids))

    def close(self) -> None:
        """Close connections; a later call opens them anew."""
        self.server.close()

    def collection(self, manifest: Manifest) -> str:
        """The name of the collection of a version: of its index files, so that versions with the same
        passages share one."""
        files = json.dumps(sorted(index_files(manifest).items())).encode()
        return f"{self._index}_{hashlib.blake2b(files, digest_size=10).hexdigest()}"

    def write(self, manifest: Manifest, texts: InMemory) -> None:
        """Write the texts of a version that is being built, unless they are there. Raises EngineError."""
        collection, n = self.collection(manifest), len(texts.pids)
        if not self.server.has(collection, n):
            self.server.write(collection, texts.dim, n, rows_of(texts))
            name = self.server.name(collection)
            log.info(
                "refresh: wrote %s into %s of %s", counted(n, "passage"), name, self.server.address
            )

    def holds(self, root: Path, manifest: Manifest) -> bool:
        """Whether a version was built for it; the texts of others are found in memory."""
        return (version_folder(root, manifest.id) / STATISTICS_FOLDER).is_dir()

    def open(self, folder: Path, manifest: Manifest) -> Engine:
        """The texts of a version in this folder that was built for it. Raises EngineError,
        CorruptFileError."""
        n, collection = manifest.n_passages, self.collection(manifest)
        statistics = StoredStatistics.load(folder, n_texts=n)
        if not self.server.has(collection, n):
            raise EngineError(
                f"{self.server.address} has no collection {self.server.name(collection)} of "
                f"{counted(n, 'passage')}, which version {manifest.id} is in; run `rag-flywheel refresh`, "
                "which writes that of the live version again"
            )
        there = self.server.open(collection, manifest.dim, n)
        return InDatabase(there, statistics, manifest.dim, self._read_texts)

    def lacks(self, root: Path, manifest: Manifest) -> str | None:
        """What is missing there of a version that was built for it, as a sentence; None: nothing.

        Raises EngineError.
        """
        collection = self.collection(manifest)
        if not self.holds(root, manifest) or self.server.has(collection, manifest.n_passages):
            return None
        return (
            f"{self.server.address} does not hold the {counted(manifest.n_passages, 'passage')} of "
            f"version {manifest.id} in collection {self.server.name(collection)}; `rag-flywheel refresh` "
            "writes those of the live version again"
        )

    def point(self, root: Path, version: str) -> None:
        """Let the alias stand for the collection of a version that was built for it. What cannot be done is
        logged, since readers here go by the collection of the version that they have."""
        try:
            manifest = read_manifest(root, version)
            if self.holds(root, manifest):
                self.server.point(self.collection(manifest))
        except FlywheelError as error:
            log.warning(
                "the alias at %s does not stand for %s: %s", self.server.address, version, error
            )

    def clean(self, root: Path, database: Database) -> None:
        """Delete the collections of this index that no version has; those of all when one cannot be read.

        Call only while holding the refresh lock. What cannot be deleted is logged, and left to the next
        refresh.
        """
        try:
            used = {self.collection(each) for each in manifests(root, database)}
            self._drop(but=used)
        except FlywheelError as error:
            log.warning("collections of older versions are kept: %s", error)

    def drop_all(self) -> None:
        """Delete every collection of this index, which is to be no more. Raises EngineError."""
        self._drop(but=())

    def _drop(self, *, but: Collection[str]) -> None:
        for name in self.server.collections():
            if name.startswith(f"{self._index}_") and name not in but:
                self.server.drop(name)


def _titled(database: Database, pids: Pids) -> Sequence[tuple[str, str]]:
    """The titles and texts of passages; those that were erased meanwhile have none, and are no hits."""
    with database.reading() as conn:
        rows = passages.rows_of(conn, pids.tolist())
    found = {pid: row.passage for pid, row in rows.items()}
    return [
        (found[pid].title, passages.encoded_text(found[pid])) if pid in found else ("", "")
        for pid in pids.tolist()
    ]
