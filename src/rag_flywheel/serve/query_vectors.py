"""The vectors of the queries asked last, so that a query asked again is not encoded again.

Queries are kept as hashes, not as texts. It must not know what their vectors are compared with.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from rag_flywheel.records import Vectors


class QueryVectors:
    """The vectors of so many queries, by the revision of their encoder; thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def of(
        self, revision: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Vectors]
    ) -> Vectors:
        """The vectors of these queries, one or more, float32 (n, dim); those that are not remembered
        are encoded, all at once."""
        names = [_hash(revision, text) for text in texts]
        with self._lock:
            known = {name: self._kept[name] for name in names if name in self._kept}
            for name in known:
                self._kept.move_to_end(name)
        missing = {name: text for name, text in zip(names, texts, strict=True) if name not in known}
        if missing:
            known.update(zip(missing, encode(list(missing.values())), strict=True))
            with self._lock:
                self._kept.update((name, known[name].copy()) for name in missing)
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        return np.stack([known[name] for name in names])

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._kept.clear()


def _hash(revision: str, text: str) -> bytes:
    whole = f"{revision}\n{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(whole, digest_size=16).digest()
