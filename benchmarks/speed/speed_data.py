"""Passages, queries and vectors for `speed.py`: a collection in an order of chance.

Vectors are means of the shipped model's word vectors, rare words counting more: what the whole model
makes of 159 thousand passages takes an hour, and what lies near what is of the same kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rag_flywheel import Passage
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.encode.sentence_encoder import BUNDLED_NAME, find_model
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.records import Vectors
from rag_flywheel.store.passages import encoded_text

SEED = 0
N_CUT = 300  # queries cut from passages, beside the collection's own
_LONGEST_UNKNOWN = 200  # characters
_MOST_PIECES = 128  # of a text that its vector is made of
_CUT_FROM, _AT_ONCE = 2_000, 10_000  # passages


class Stored:
    """An Encoder that returns stored vectors at once; other short texts, such as the questions that a
    refresh asks of itself, get directions of chance."""

    name, revision, dim = "stored", "1", 384

    def __init__(self, vectors: dict[str, Vectors]) -> None:
        self._vectors = vectors
        self.n_passages = 0  # encoded so far

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return np.stack([self._of(text) for text in texts])

    def _of(self, text: str) -> Vectors:
        found = self._vectors.get(text)
        if found is None:
            if len(text) > _LONGEST_UNKNOWN:
                raise ValueError(f"{text[:40]!r}... has no stored vector")
            rng = np.random.default_rng(list(text.encode()))
            found = self._vectors[text] = _unit(
                rng.standard_normal((1, self.dim), dtype=np.float32)
            )[0]
        return found

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        self.n_passages += len(texts)
        return self.encode_queries(texts)

    def also(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Know these too."""
        self._vectors.update(zip(texts, vectors, strict=True))


@dataclass(frozen=True)
class Data:
    """Passages in an order of chance, queries, and an encoder that knows the vectors of both."""

    passages: list[Passage]
    queries: list[str]
    encoder: Stored


def read_data(name: str, n: int | None) -> Data:
    """The first n passages of a collection in an order of chance, its queries, and some cut."""
    collection = read_beir(find_collection(name))
    rng = np.random.default_rng(SEED)
    every = [collection.passages[i] for i in rng.permutation(len(collection.passages))]
    asked = sorted({q for split in collection.splits.values() for q in split.queries.values()})
    queries = list(dict.fromkeys([*asked, *_cut(every[:_CUT_FROM], rng)]))
    passages = every[:n]
    texts = [*map(encoded_text, passages), *queries]
    vectors = mean_vectors(texts, len(passages))
    return Data(passages, queries, Stored(dict(zip(texts, vectors, strict=True))))


def near(vectors: Vectors, n: int, rng: np.random.Generator) -> Vectors:
    """n unit vectors at a cosine of about 0.8 to these, taken in turn: questions on one subject."""
    rows = np.resize(np.arange(len(vectors)), n)
    noise = rng.standard_normal((n, vectors.shape[1]), dtype=np.float32)
    return _unit(vectors[rows] + 0.75 * _unit(noise))


def mean_vectors(texts: Sequence[str], n_passages: int) -> Vectors:
    """float32 (n, 384) unit rows: means of the vectors of a text's word pieces, by their idf.

    n_passages: so many texts, the first, say how rare a piece is.
    """
    counts, words = _counts(texts)
    df = np.bincount(counts[:n_passages].indices, minlength=len(words))
    weighted = counts.multiply(np.log(1.0 + n_passages / (df + 1.0))[None, :]).tocsr()
    centred = (words - words[df > 0].mean(axis=0)).astype(np.float32)
    parts = [weighted[i : i + _AT_ONCE] @ centred for i in range(0, len(texts), _AT_ONCE)]
    return _unit(np.concatenate(parts) + np.float32(1e-6))


def _counts(texts: Sequence[str]) -> tuple[sparse.csr_matrix, Vectors]:
    """How often each word piece is in each text; and the vectors of the pieces."""
    from safetensors import safe_open
    from tokenizers import Tokenizer

    folder = find_model(BUNDLED_NAME)
    if folder is None:
        raise SystemExit(f"{BUNDLED_NAME} is needed; pip install 'rag-flywheel[bundled-model]'")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MOST_PIECES)
    with safe_open(str(folder / "model.safetensors"), framework="np") as file:
        (name,) = (key for key in file.keys() if key.endswith("word_embeddings.weight"))  # noqa: SIM118
        words = file.get_tensor(name)
    ids: list[np.ndarray] = []
    lengths: list[int] = []
    for start in range(0, len(texts), _AT_ONCE):
        part = tokenizer.encode_batch(texts[start : start + _AT_ONCE], add_special_tokens=False)
        ids.append(np.array([i for one in part for i in one.ids], dtype=np.int32))
        lengths.extend(len(one.ids) for one in part)
    flat, ends = np.concatenate(ids), np.cumsum([0, *lengths])
    shape = len(texts), len(words)
    counts = sparse.csr_matrix((np.ones(len(flat), np.float32), flat, ends), shape)
    counts.sum_duplicates()
    return counts, words


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _cut(passages: Sequence[Passage], rng: np.random.Generator) -> list[str]:
    """Queries of 5 to 15 words that stand one after the other in a passage."""
    found: list[str] = []
    while len(found) < N_CUT:
        words = passages[int(rng.integers(len(passages)))].text.split()
        many = int(rng.integers(5, 16))
        start = int(rng.integers(max(1, len(words) - many)))
        text = " ".join(words[start : start + many])
        if any(c.isalpha() for c in text):
            found.append(text)
    return found
