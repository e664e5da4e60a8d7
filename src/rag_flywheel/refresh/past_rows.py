"""Holds the candidates of past queries with their features from one refresh to the next.

A row is named by everything that it depends on, so one that is found is the one that would be computed.
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.rank.stored_lookups import Row, StoredLookups, load_stored_lookups
from rag_flywheel.records import EmbeddedText
from rag_flywheel.serve.state import State
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.questions import keyed, question_key

log = logging.getLogger("rag_flywheel")


class PastRows:
    """Rows by their names: those of the version before, and those that were used in this refresh."""

    def __init__(self, before: StoredLookups | None = None) -> None:
        """Start from the rows of the version before, None: there are none."""
        self._before = StoredLookups() if before is None else before
        self._used: dict[bytes, Row] = {}

    @classmethod
    def of_parent(cls, parent: Path | None) -> "PastRows":
        """The rows of a version whose index files are those of the one that is built, None: of none."""
        if parent is None:
            return cls()
        try:
            return cls(load_stored_lookups(parent))
        except CorruptFileError as error:  # they can be computed again
            log.warning("refresh: past queries are looked up anew: %s", error)
            return cls()

    def find(self, name: bytes) -> Row | None:
        """The row of this name, None: it has to be computed."""
        row = self._used.get(name) or self._before.find(name)
        if row is not None:
            self._used[name] = row
        return row

    def put(self, name: bytes, row: Row) -> None:
        """Add a row that was computed."""
        self._used[name] = row

    @property
    def used(self) -> StoredLookups:
        """The rows that were found or put."""
        return StoredLookups.of(self._used)


@dataclass(frozen=True)
class Naming:
    """Names rows of one state of an index, whose index files do not change.

    key: that of the names of questions; of_all: what every row depends on; edited: the last event that
    changed metadata, on which the rows of queries with a filter depend.
    """

    key: bytes
    of_all: bytes
    edited: int

    @classmethod
    def of(cls, state: State, n: int, conn: Connection) -> "Naming":
        """Names for rows of n candidates of each kind; state: of a version without later events."""
        pids, lineages = state.copies
        inherited = np.array(sorted(state.lineage_of.items()), dtype=np.int64)
        corpus = [metadata.version("rag-flywheel"), state.corpus, n, state.version.parameters.trust]
        arrays = (each.astype(np.int64).tobytes() for each in (inherited, pids, lineages))
        of_all = _digest([json.dumps(corpus).encode(), *arrays])
        return cls(question_key(conn), of_all, state.edited)

    def name(self, query: EmbeddedText, where: str | None, judged: Iterable[int]) -> bytes:
        """16 bytes; where: the filter of the query, judged: lineages that are among its candidates.

        Without the key nobody can try guesses at the query.
        """
        scope = None if where is None else [where, self.edited]
        parts = [query.text, scope, sorted(set(judged))]
        text, vector = json.dumps(parts).encode(), query.vector.tobytes()
        return keyed(self.key, _digest([self.of_all, text, vector]))


def _digest(parts: Iterable[bytes]) -> bytes:
    whole = hashlib.blake2b(digest_size=32)
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.digest()
