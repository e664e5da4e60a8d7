"""Caches the candidates of the queries asked last, with their features, until the corpus changes."""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rag_flywheel.rank.features import Best
from rag_flywheel.records import Features, Pids, Vectors
from rag_flywheel.serve.query_vectors import QueryVectors

_LARGEST = 1_000  # candidates of a lookup that is remembered


@dataclass(frozen=True)
class Question:
    """A query and its vector, float32 (dim,)."""

    text: str
    vector: Vectors


@dataclass(frozen=True)
class Lookup:
    """What the words and the vector of a query say of its candidates: pids ascending, features
    float32 (n, 9), read bool (n,): whose words were looked at, and what the best of those have;
    best_bm25: what the best of all texts has.

    more: features of further passages, by pid, as they are asked for.
    """

    pids: Pids
    features: Features
    read: npt.NDArray[np.bool_]
    best: Best
    best_bm25: float
    more: dict[int, Features] = field(default_factory=dict)


class Lookups:
    """The lookups of the queries asked last, while the corpus stays what it is, and their vectors,
    which no corpus changes; thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._corpus: int | None = None
        self._kept: OrderedDict[bytes, Lookup] = OrderedDict()
        self.vectors = QueryVectors(most)
        self._lock = threading.Lock()

    def find(self, corpus: int | None, query: Question, n: int) -> Lookup | None:
        """The lookup of n candidates of each kind in this corpus; None is a corpus of its own."""
        if corpus is None or not self._most:
            return None
        name = _name(query, n)
        with self._lock:
            found = self._kept.get(name) if corpus == self._corpus else None
            if found is not None:
                self._kept.move_to_end(name)
        return found

    def clear(self) -> None:
        """Forget them all, vectors too."""
        with self._lock:
            self._kept.clear()
        self.vectors.clear()

    def keep(self, corpus: int | None, query: Question, n: int, lookup: Lookup) -> None:
        """Remember a lookup, unless it is very large; those in another corpus are forgotten."""
        if corpus is None or not self._most or len(lookup.pids) > _LARGEST:
            return
        with self._lock:
            if corpus != self._corpus:
                self._kept.clear()
                self._corpus = corpus
            self._kept[_name(query, n)] = lookup
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)


def _name(query: Question, n: int) -> bytes:
    whole = hashlib.blake2b(query.vector.tobytes(), digest_size=16)
    whole.update(f"{n} {query.text}".encode("utf-8", "surrogatepass"))
    return whole.digest()
