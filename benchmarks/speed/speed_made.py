"""Made passages, queries and vectors for `speed_million.py`, in files: as many as are asked for.

Vectors lie in clusters, and their directions have the uneven spread that sentence embeddings have.
Texts are made-up words by Zipf's law, some of them those of their cluster. Nothing is held in memory
that grows with the texts but 16 bytes for each.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_flywheel import Passage
from rag_flywheel.records import Vectors
from speed_data import Stored

DIM, N_WORDS, N_QUERIES = 384, 300_000, 400
PER_CLUSTER, WORDS_OF_CLUSTER = 100, 40
AWAY, OF_QUERY = 0.88, 0.75  # from the centre (a cosine of about 0.75); from a passage (0.8)
SHARE_OF_CLUSTER = 0.25  # of a text's words
_FALL = 0.4  # of the spread, by the number of the direction
_AT_ONCE = 20_000
_SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in "aeiou"]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Made:
    """A folder that `make` has filled."""

    folder: Path

    @property
    def vectors(self) -> Vectors:
        """float32 (n, 384) unit rows, mapped."""
        found: Vectors = np.load(self.folder / "vectors.npy", mmap_mode="r")
        return found

    def __len__(self) -> int:
        return len(self.vectors)

    def texts(self, start: int, end: int) -> list[str]:
        """The texts from one number up to another."""
        ends = np.load(self.folder / "ends.npy", mmap_mode="r")[start : end + 1].tolist()
        with (self.folder / "texts.txt").open("rb") as file:
            file.seek(ends[0])
            data = file.read(ends[-1] - ends[0]).decode("ascii")
        return [data[a - ends[0] : b - ends[0]] for a, b in itertools.pairwise(ends)]

    def passages(self) -> Iterator[list[Passage]]:
        """All passages, some at a time."""
        for start in range(0, len(self), _AT_ONCE):
            texts = self.texts(start, min(start + _AT_ONCE, len(self)))
            yield [Passage(str(start + i), text) for i, text in enumerate(texts)]

    @property
    def queries(self) -> list[str]:
        """Queries: words of a cluster and others."""
        found: list[str] = json.loads((self.folder / "queries.json").read_text(encoding="utf-8"))
        return found

    @property
    def query_vectors(self) -> Vectors:
        """float32 (n, 384) unit rows: each at a cosine of about 0.8 to a passage of that cluster."""
        found: Vectors = np.load(self.folder / "query-vectors.npy")
        return found

    def encoder(self) -> Stored:
        """Knows the queries only."""
        return Stored(dict(zip(self.queries, self.query_vectors, strict=True)))

    def encoder_of_passages(self) -> "ByHash":
        """Knows the passages too."""
        return ByHash(self)


class ByHash(Stored):
    """An Encoder whose vectors of passages stay in their file, found by a hash of the text."""

    def __init__(self, made: Made) -> None:
        super().__init__(dict(zip(made.queries, made.query_vectors, strict=True)))
        self._mapped = made.vectors
        keys = np.load(made.folder / "keys.npy")
        self._row = np.argsort(keys)
        self._key = keys[self._row]

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        self.n_passages += len(texts)
        wanted = np.array([_key(text) for text in texts], dtype=np.uint64)
        at = np.minimum(np.searchsorted(self._key, wanted), len(self._key) - 1)
        if not np.array_equal(self._key[at], wanted):
            raise ValueError("a text has no stored vector")
        found: Vectors = self._mapped[self._row[at]]
        return found


def make(folder: Path, n: int, *, seed: int) -> Made:
    """Fill a folder with n passages and 400 queries."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, n])
    n_clusters = max(1, n // PER_CLUSTER)
    spread = (np.arange(DIM) + 1.0).astype(np.float32) ** np.float32(-_FALL)
    centres = _directions(n_clusters, spread, rng)
    of_cluster = rng.integers(0, N_WORDS, (n_clusters, WORDS_OF_CLUSTER))
    cluster = rng.integers(0, n_clusters, n)
    words = Words(of_cluster, rng)
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(n, DIM)
    )
    keys: list[int] = []
    lengths: list[int] = [0]
    with (folder / "texts.txt").open("wb") as file:
        for start in range(0, n, _AT_ONCE):
            part = cluster[start : start + _AT_ONCE]
            noise = _directions(len(part), spread, rng)
            vectors[start : start + len(part)] = _unit(centres[part] + AWAY * noise)
            for text in words.texts(part, 20, 61):
                file.write(text.encode("ascii"))
                lengths.append(len(text))
                keys.append(_key(text))
    np.save(folder / "keys.npy", np.array(keys, dtype=np.uint64))
    np.save(folder / "ends.npy", np.cumsum(lengths, dtype=np.int64))
    asked = rng.integers(0, n, N_QUERIES)
    noise = _directions(N_QUERIES, spread, rng)
    np.save(folder / "query-vectors.npy", _unit(vectors[asked] + OF_QUERY * noise))
    queries = [f"{text} {i}" for i, text in enumerate(words.texts(cluster[asked], 5, 16))]
    (folder / "queries.json").write_text(json.dumps(queries), encoding="utf-8")
    vectors.flush()
    return Made(folder)


class Words:
    """Texts of made-up words, by Zipf's law, among them those of a cluster."""

    def __init__(self, of_cluster: Ints, rng: np.random.Generator) -> None:
        self._of_cluster = of_cluster
        self._rng = rng
        chances = 1.0 / (np.arange(N_WORDS) + 10.0)
        self._until = np.cumsum(chances / chances.sum())
        self._words = np.array([word(i) for i in range(N_WORDS)], dtype=object)

    def texts(self, clusters: Ints, least: int, below: int) -> list[str]:
        """A text of at least so many words for each of these clusters."""
        rng = self._rng
        lengths = rng.integers(least, below, len(clusters))
        total = int(lengths.sum())
        ids = np.minimum(np.searchsorted(self._until, rng.random(total)), N_WORDS - 1)
        own = np.repeat(clusters, lengths), rng.integers(0, WORDS_OF_CLUSTER, total)
        ids = np.where(rng.random(total) < SHARE_OF_CLUSTER, self._of_cluster[own], ids)
        found, ends = self._words[ids].tolist(), np.cumsum(lengths).tolist()
        return [" ".join(found[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def word(number: int) -> str:
    """A made-up word for each number, of two syllables or more."""
    found, n = "", number + len(_SYLLABLES)
    while n:
        n, syllable = divmod(n, len(_SYLLABLES))
        found += _SYLLABLES[syllable]
    return f"{found}{'klmnrtx'[number % 7]}"


def _directions(n: int, spread: Vectors, rng: np.random.Generator) -> Vectors:
    return _unit(rng.standard_normal((n, DIM), dtype=np.float32) * spread)


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
