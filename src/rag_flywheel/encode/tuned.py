"""Encodes queries by the tuned weights of a version, loaded on first use."""

import threading
from collections.abc import Sequence
from pathlib import Path

from rag_flywheel.encode.tower import require_tunable
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
                encoder = require_tunable(self._encoder)
                tower = encoder.tower()
                tower.load(self._path)
                if tower.revision != self.revision:
                    raise CorruptFileError(
                        f"{self._path} holds revision {tower.revision}; its version says "
                        f"{self.revision}. Run `rag-flywheel rollback` to another version"
                    )
                self._made = encoder.with_tower(tower)
            return self._made
