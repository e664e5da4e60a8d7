"""Caches the vectors of recent queries and, until the corpus changes, their candidates with features.

Queries are stored as hashes, not as texts.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.lru import LRU
from rag_flywheel.rank.features import Best
from rag_flywheel.records import EmbeddedText, Features, Pids, Vectors

if TYPE_CHECKING:
    from rag_flywheel.rank.parameters import Parameters
    from rag_flywheel.rank.relevance import Before

_LARGEST = 1_000  # candidates of a lookup that is cached


@dataclass(frozen=True)
class Lookup:
    """The candidates of a query with the features that do not depend on votes.

    pids ascending; features float32 (n, 14): FEATURES and MEASURES; read bool (n,): whose words were
    read, the measures of the others being nan; best: the largest
    BM25 among those; best_bm25: the largest of all texts; more: features of further passages, by
    pid, added on demand. before: what the relevance of the hits last shown is computed from but for the
    votes, under which parameters, by all that it depends on besides: their places, pids, and the prior of
    all candidates.
    """

    pids: Pids
    features: Features
    read: npt.NDArray[np.bool_]
    best: Best
    best_bm25: float
    more: dict[int, Features] = field(default_factory=dict)
    before: dict[tuple[bytes, ...], tuple["Parameters", "Before"]] = field(default_factory=dict)


class QueryVectors:
    """The vectors of so many queries, by the revision of their encoder; thread-safe."""

    def __init__(self, most: int) -> None:
        self._vectors = LRU[bytes, Vectors](most)

    def of(
        self, revision: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Vectors]
    ) -> Vectors:
        """The vectors of one or more queries, float32 (n, dim); those not in the cache are encoded."""
        names = [_digest(f"{revision}\n{text}") for text in texts]
        cached = {name: self._vectors.get(name) for name in names}
        known = {name: vector for name, vector in cached.items() if vector is not None}
        missing = {name: text for name, text in zip(names, texts, strict=True) if name not in known}
        if missing:
            known.update(zip(missing, encode(list(missing.values())), strict=True))
            for name in missing:
                self._vectors.put(name, known[name].copy())
        return np.stack([known[name] for name in names])

    def clear(self) -> None:
        """Forget them all."""
        self._vectors.clear()


class Lookups:
    """The lookups of recent queries until the corpus changes, and their vectors; thread-safe."""

    def __init__(self, most: int) -> None:
        self._corpus: str | None = None
        self._lookups = LRU[bytes, Lookup](most)
        self.vectors = QueryVectors(most)

    def find(self, corpus: str | None, query: EmbeddedText, n: int) -> Lookup | None:
        """The lookup of n candidates of each kind in this corpus; None is a corpus of its own."""
        return None if corpus is None else self._lookups.get(_name(corpus, query, n))

    def clear(self) -> None:
        """Forget them all, vectors too."""
        self._lookups.clear()
        self.vectors.clear()

    def keep(self, corpus: str | None, query: EmbeddedText, n: int, lookup: Lookup) -> None:
        """Cache a lookup, unless it is very large; those of another corpus are dropped."""
        if corpus is None or len(lookup.pids) > _LARGEST:
            return
        if corpus != self._corpus:
            self._lookups.clear()
            self._corpus = corpus
        self._lookups.put(_name(corpus, query, n), lookup)


def _name(corpus: str, query: EmbeddedText, n: int) -> bytes:
    return _digest(f"{corpus} {n} {query.text}", query.vector.tobytes())


def _digest(text: str, vector: bytes = b"") -> bytes:
    return hashlib.blake2b(vector + text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
