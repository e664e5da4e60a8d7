"""Small real encoders for tests: no model, the same vectors in every process."""

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from rag_flywheel.rank.features import TextNgrams

Vectors = npt.NDArray[np.float32]


@cache
def _direction(word: str, dim: int) -> Vectors:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(seed).standard_normal(dim).astype(np.float32)


class WordEncoder:
    """A text is the normalised sum of a random direction for each of its words."""

    def __init__(self, dim: int = 64, name: str = "words", revision: str = "1") -> None:
        self.name = name
        self.revision = revision
        self.dim = dim
        self.n_encoded = 0

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._encode(texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> Vectors:
        self.n_encoded += len(texts)
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                if word.strip("-"):
                    row += _direction(word, self.dim)
            row += 1e-3 * _direction("", self.dim)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def word_encoder() -> WordEncoder:
    """For `encoder="fakes:word_encoder"`, in this process or another."""
    return WordEncoder()


def no_pieces(n: int) -> TextNgrams:
    """n texts of a query without pieces."""
    return TextNgrams(np.zeros((n, 0)), np.zeros(0), np.zeros(n, dtype=np.int64), 1.0)
