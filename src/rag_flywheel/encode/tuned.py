"""Encodes queries by the tuned weights of a version, loaded on first use."""

import threading
from collections.abc import Sequence
from pathlib import Path

from rag_flywheel.encode.tower import TaughtEncoder, read_taught, require_tunable
from rag_flywheel.encoder import Encoder, QueryEncoder
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.records import Vectors


class TunedQueries:
    """An encoder of queries by tuned weights, which load by `load` or the first query; thread-safe.

    path: the file of those weights; revision: their hash. Raises, when they load, CorruptFileError,
    EncoderError, EncoderNotFoundError.
    """

    def __init__(self, encoder: Encoder, path: Path, revision: str) -> None:
        self.revision = revision
        self._encoder = encoder
        self._path = path
        self._made: QueryEncoder | None = None
        self._lock = threading.Lock()

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._made is not None

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return self.load().encode_queries(texts)

    def load(self) -> QueryEncoder:
        """The encoder itself, with its weights in memory."""
        with self._lock:
            if self._made is None:
                self._made = self._by_weights() or self._by_tower()
            return self._made

    def _by_weights(self) -> QueryEncoder | None:
        """None when the encoder cannot do without a tower."""
        encoder = self._encoder
        if not isinstance(encoder, TaughtEncoder):
            return None
        taught = read_taught(self._path, encoder.revision)
        made = encoder.with_taught(taught, f"{self._path}: taught weights")
        if made is not None:
            self._require_same(made.revision)
        return made

    def _by_tower(self) -> QueryEncoder:
        encoder = require_tunable(self._encoder)
        tower = encoder.tower()
        tower.load(self._path)
        self._require_same(tower.revision)
        return encoder.with_tower(tower)

    def _require_same(self, found: str) -> None:
        if found != self.revision:
            raise CorruptFileError(
                f"{self._path} holds revision {found}; its version says {self.revision}. Run "
                "`rag-flywheel rollback` to another version"
            )
