"""Computes, stores and adds up the BM25 score of each word in each text.

Words and texts are numbers here. Scores follow Lucene's BM25 (Kamphuis et al., ECIR 2020, "Which
BM25 do you mean?"): idf(t) · tf / (tf + k1 (1 − b + b · len / avglen)).
"""

import json
import math
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import all_below, all_within, divides, read_arrays, read_json, write_arrays

if TYPE_CHECKING:
    from rag_flywheel.index.compounds import Compounds
    from rag_flywheel.index.tokenizer import TokenIds

K1, B = 1.2, 0.75
LexicalScores: TypeAlias = npt.NDArray[np.float32]
_PARAMETERS: dict[str, Any] = {"k1": K1, "b": B, "method": "lucene"}
_MOST_PARAMETERS = 100_000  # bytes
_LARGEST_SCORE = 1_000.0
_AT_ONCE = 65_536  # scores
_FILES = {
    "data.csc.index": "float32 scores",
    "indices.csc.index": "int32|int64 scores",
    "indptr.csc.index": "int32|int64 words+1",
}
_PARAMETERS_FILE = "params.index.json"
_ONE = np.ones(1, dtype=np.float32)


@dataclass(frozen=True)
class WordScores:
    """Word i scores data[starts[i]:starts[i + 1]] in texts[starts[i]:starts[i + 1]], ascending.

    data float32 (m,); texts, starts int32 or int64 (m,) and (n_words + 1,); n_texts: in the index.
    The files have the format of the library bm25s 0.3.
    """

    data: LexicalScores
    texts: npt.NDArray[Any]
    starts: npt.NDArray[Any]
    n_texts: int

    @classmethod
    def build(
        cls,
        tokens: "TokenIds",
        offsets: "TokenIds",
        n_words: int,
        compounds: "Compounds | None" = None,
    ) -> "WordScores":
        """Score the texts by their tokens; text i has tokens[offsets[i]:offsets[i + 1]].

        compounds: the parts of words, each of which counts as a word of the texts that have them.
        """
        from scipy import sparse

        n_texts, lengths = len(offsets) - 1, np.diff(offsets)
        if not n_words:
            return cls.of_no_word(n_texts)
        ones = np.ones(len(tokens), dtype=np.float32)
        counts = sparse.csr_matrix((ones, tokens, offsets), shape=(n_texts, n_words)).tocsc()
        counts.sum_duplicates()
        if compounds is not None and len(compounds.ids):
            ones = np.ones(len(compounds.ids), dtype=np.float32)
            of_words = ones, compounds.ids, compounds.offsets
            counts = counts + counts @ sparse.csr_matrix(of_words, shape=(n_words, n_words))
            counts.sort_indices()
        df, which = np.unique(np.diff(counts.indptr), return_inverse=True)
        idf = [math.log(1 + (n_texts - n + 0.5) / (n + 0.5)) for n in df.tolist()]
        norms = K1 * ((1 - B) + B * lengths / lengths.mean())
        of_word = np.repeat(np.array(idf, dtype=np.float32)[which], np.diff(counts.indptr))
        data = np.empty(len(counts.data), dtype=np.float32)
        for start in range(0, len(data), _AT_ONCE):  # few enough that they stay near the processor
            part = slice(start, start + _AT_ONCE)
            tf = counts.data[part]
            data[part] = of_word[part] * (tf / (norms[counts.indices[part]] + tf))
        return cls(data, counts.indices, counts.indptr, n_texts)

    @classmethod
    def of_no_word(cls, n_texts: int) -> "WordScores":
        """Scores of texts that have no word at all; they have no files."""
        texts = np.empty(0, np.int32)
        return cls(np.empty(0, np.float32), texts, np.zeros(1, np.int32), n_texts)

    @classmethod
    def load(cls, folder: Path, n_words: int, n_texts: int) -> "WordScores":
        """Read from a folder. Raises OSError or ValueError for damaged files."""
        if not n_words:
            return cls.of_no_word(n_texts)
        found = read_json(folder / _PARAMETERS_FILE, dict[str, Any], most=_MOST_PARAMETERS)
        expected = {**_PARAMETERS, "num_docs": n_texts}
        if any(found.get(key) != value for key, value in expected.items()):
            raise ValueError(f"{_PARAMETERS_FILE} does not hold {expected}")
        data, texts, starts = read_arrays(folder, _FILES, words=n_words)
        if not divides(starts, n_words, len(data)):
            raise ValueError(f"its scores are not divided among {n_words} words")
        if not all_below(texts, n_texts):
            raise ValueError("its scores name a text that is not there")
        if not all_within(data, 0.0, _LARGEST_SCORE):
            raise ValueError("a score is no number that BM25 gives")
        return cls(data, texts, starts, n_texts)

    def save(self, folder: Path) -> None:
        """Write into a folder, without pickle."""
        if len(self.starts) == 1:
            return
        write_arrays(folder, _FILES, self.data, self.texts, self.starts)
        parameters = {
            "k1": K1,
            "b": B,
            "delta": 0.5,
            "method": "lucene",
            "idf_method": "lucene",
            "dtype": "float32",
            "int_dtype": "int32",
            "num_docs": self.n_texts,
            "version": "0.3.16",
            "backend": "numpy",
        }
        (folder / _PARAMETERS_FILE).write_text(json.dumps(parameters, indent=4), encoding="utf-8")

    def of(self, word: int) -> tuple[LexicalScores, npt.NDArray[Any]]:
        """The scores of a word by its number, and the texts that they are of, ascending."""
        start, end = self.starts[word], self.starts[word + 1]
        return self.data[start:end], self.texts[start:end]


@lru_cache(maxsize=65_536)
def idf_of(df: int, n: int) -> float:
    """Lucene's inverse document frequency of a word that df of n texts have."""
    return float(np.log(1.0 + (n - df + 0.5) / (df + 0.5)))


@cache
def _adder() -> Any:
    """scipy's product of a sparse matrix, which adds to its output; None where scipy lacks it."""
    try:
        from scipy.sparse._sparsetools import csc_matvec
    except ImportError:
        return None
    return csc_matvec


def add_column(
    scores: LexicalScores, data: npt.NDArray[np.float32], texts: npt.NDArray[np.int32]
) -> None:
    """scores[texts] += data, no text twice; by scipy in a fifth of the time that numpy takes."""
    add = _adder()
    if add is None:
        scores[texts] += data
    else:
        bounds = np.array([0, len(texts)], dtype=texts.dtype)
        add(len(scores), 1, bounds, texts, data, _ONE, scores)
