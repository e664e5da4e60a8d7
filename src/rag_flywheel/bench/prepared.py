"""An Encoder that looks up the vectors of a collection in a file, where they were computed before."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from rag_flywheel.config import DEFAULT_ENCODER
from rag_flywheel.encode.make import make_encoder
from rag_flywheel.encode.tower import Tower, require_tunable
from rag_flywheel.encoder import Encoder, QueryEncoder
from rag_flywheel.errors import InputError, counted
from rag_flywheel.formats.beir import Collection
from rag_flywheel.records import Vectors
from rag_flywheel.store.passages import encoded_text

FILE_NAME = "minilm.npz"


class PreparedEncoder:
    """An Encoder over the texts of one collection, from a file of their vectors.

    The file holds `passages` and `queries`, float16 or float32 (n, dim), unit rows, in the order
    of the lines of corpus.jsonl and queries.jsonl that are used; vectors are converted to float32 and
    unit length. Other texts are encoded by the model that computed the file, which is loaded only then.
    """

    def __init__(
        self, passages: dict[str, Vectors], queries: dict[str, Vectors], revision: str
    ) -> None:
        self._passages = passages
        self._queries = queries
        self.name = "prepared"
        self.revision = revision
        self.dim = len(next(iter(passages.values())))

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return _vectors(texts, self._queries, lambda new: _model().encode_queries(new))

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return _vectors(texts, self._passages, lambda new: _model().encode_passages(new))

    def tower(self) -> Tower:
        """The tower of the model that computed the file."""
        return require_tunable(_model()).tower()

    def with_tower(self, tower: Tower) -> "PreparedQueries":
        """An encoder of queries with this tower."""
        return PreparedQueries(require_tunable(_model()).with_tower(tower))


class PreparedQueries:
    """A QueryEncoder that encodes each text once."""

    def __init__(self, encoder: QueryEncoder) -> None:
        self._encoder = encoder
        self._cache: dict[str, Vectors] = {}
        self.revision = encoder.revision

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        new = sorted({text for text in texts if text not in self._cache}, key=len)
        if new:
            self._cache.update(zip(new, self._encoder.encode_queries(new), strict=True))
        return np.stack([self._cache[text] for text in texts])


def _vectors(
    texts: Sequence[str], cache: dict[str, Vectors], encode: Callable[[Sequence[str]], Vectors]
) -> Vectors:
    new = [text for text in texts if text not in cache]
    if new:
        cache.update(zip(new, encode(new), strict=True))
    return np.stack([cache[text] for text in texts])


@cache
def _model() -> Encoder:
    return make_encoder(DEFAULT_ENCODER)


def read_prepared(folder: Path, collection: Collection) -> PreparedEncoder | None:
    """The prepared vectors beside a collection, None when there are none.

    Raises InputError when they do not fit the collection.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    stored = np.load(path, allow_pickle=False)
    texts = list(collection.queries.values())
    counts = (len(stored["passages"]), len(stored["queries"]))
    if counts != (len(collection.passages), len(texts)):
        raise InputError(
            f"{path} holds {counted(counts[0], 'passage')} and "
            f"{counted(counts[1], 'query', 'queries')}; the collection has "
            f"{len(collection.passages)} and {len(texts)}. Make it anew, or delete it"
        )
    return PreparedEncoder(
        _by_text((encoded_text(p) for p in collection.passages), stored["passages"]),
        _by_text(texts, stored["queries"]),
        hashlib.sha256(path.read_bytes()).hexdigest()[:16],
    )


def _by_text(texts: Iterable[str], rows: Vectors) -> dict[str, Vectors]:
    vectors = rows.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(texts, vectors, strict=True))
