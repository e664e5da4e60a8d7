"""The embeddings of a framework as an Encoder. This module must not know which framework."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rag_flywheel.checks import check_name
from rag_flywheel.errors import EncoderError
from rag_flywheel.records import Vectors

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]] | npt.NDArray[np.floating]]
_PROBE = "a"


class EmbeddingEncoder:
    """Unit vectors of what two functions of a framework return, one for queries and one for passages."""

    def __init__(self, queries: Embed, passages: Embed, *, name: str, revision: str) -> None:
        """name, revision: the model, and its weights: change the revision whenever the vectors change.

        One short text is embedded, to learn the width. Raises EncoderError, InputError.
        """
        self.name = check_name("name", name)
        self.revision = check_name("revision", revision)
        self._queries, self._passages = queries, passages
        self.dim = 0
        self.dim = int(self.encode_queries([_PROBE]).shape[1])

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows. Raises EncoderError."""
        return self._unit(self._queries(list(texts)) if texts else [], len(texts))

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows. Raises EncoderError."""
        return self._unit(self._passages(list(texts)) if texts else [], len(texts))

    def _unit(self, given: object, n: int) -> Vectors:
        if n == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        try:
            rows = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise EncoderError(f"{self.name} returned no rows of numbers: {error}") from error
        if rows.ndim != 2 or len(rows) != n or (self.dim and rows.shape[1] != self.dim):
            raise EncoderError(
                f"{self.name} returned an array of shape {rows.shape}; expected ({n}, {self.dim or 'any'})"
            )
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise EncoderError(f"{self.name} returned a vector that is zero or not finite")
        unit: Vectors = (rows / lengths).astype(np.float32)
        return unit
