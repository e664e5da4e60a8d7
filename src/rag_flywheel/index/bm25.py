"""The only door to bm25s: what each word says of each text, made, kept in files, and added up.

It knows words and texts by number. Scores follow Lucene's BM25 (Kamphuis et al., ECIR 2020, "Which
BM25 do you mean?"): idf(t) · tf / (tf + k1 (1 − b + b · len / avglen)).
"""

import math
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import all_below, divides, read_array, read_json
from rag_flywheel.index.tokenizer import TokenIds

K1, B = 1.2, 0.75
LexicalScores: TypeAlias = npt.NDArray[np.float32]
_PARAMETERS: dict[str, Any] = {"k1": K1, "b": B, "method": "lucene"}
_MOST_PARAMETERS = 100_000  # bytes
_LARGEST_SCORE = 1_000.0
_ONE = np.ones(1, dtype=np.float32)


def build_scores(tokens: TokenIds, offsets: TokenIds, n_words: int) -> Any:
    """What bm25s makes of these texts, to the bit: it goes from text to text, this from step to step."""
    from scipy import sparse

    n_texts, lengths = len(offsets) - 1, np.diff(offsets)
    ones = np.ones(len(tokens), dtype=np.float32)
    counts = sparse.csr_matrix((ones, tokens, offsets), shape=(n_texts, n_words)).tocsc()
    counts.sum_duplicates()
    df, which = np.unique(np.diff(counts.indptr), return_inverse=True)
    idf = [math.log(1 + (n_texts - n + 0.5) / (n + 0.5)) for n in df.tolist()]
    norms = K1 * ((1 - B) + B * lengths / lengths.mean())
    tf = counts.data
    of_word = np.repeat(np.array(idf, dtype=np.float32)[which], np.diff(counts.indptr))
    data = (of_word * (tf / (norms[counts.indices] + tf))).astype(np.float32)
    return _held(data, counts.indices, counts.indptr, n_texts)


def _held(
    data: npt.NDArray[Any], texts: npt.NDArray[Any], starts: npt.NDArray[Any], n_texts: int
) -> Any:
    """bm25s with these scores."""
    import bm25s

    bm25 = bm25s.BM25(**_PARAMETERS, csc_backend="scipy")
    bm25.nonoccurrence_array = None
    bm25.vocab_dict = {}  # ours: one vocabulary, not two
    bm25.scores = {"data": data, "indices": texts, "indptr": starts, "num_docs": n_texts}
    return bm25


def read_scores(folder: Path, n_words: int, n_texts: int) -> Any:
    """bm25s with the scores in a folder; not by bm25s's own reader, which trusts the file of parameters.

    Raises OSError or ValueError for what is not whole.
    """
    said = read_json(folder / "params.index.json", most=_MOST_PARAMETERS)
    expected = {**_PARAMETERS, "num_docs": n_texts}
    if not isinstance(said, dict) or any(said.get(k) != v for k, v in expected.items()):
        raise ValueError(f"params.index.json does not say {expected}")
    names = ("data", "indices", "indptr")
    data, texts, starts = (read_array(folder / f"{name}.csc.index.npy") for name in names)
    _require_scores(data, texts, starts, n_words, n_texts)
    return _held(data, texts, starts, n_texts)


def _require_scores(
    data: npt.NDArray[Any],
    texts: npt.NDArray[Any],
    starts: npt.NDArray[Any],
    n_words: int,
    n_texts: int,
) -> None:
    """ValueError unless this is a score for some texts of every word."""
    whole = np.dtype(np.int32), np.dtype(np.int64)
    if data.dtype != np.float32 or texts.dtype not in whole or starts.dtype not in whole:
        raise ValueError("its scores are not float32 under whole numbers")
    if not divides(starts, n_words):
        raise ValueError(f"its scores are not divided among {n_words} words")
    if data.shape != texts.shape or texts.shape != (int(starts[-1]),):
        raise ValueError("its scores and texts do not fit together")
    if not all_below(texts, n_texts):
        raise ValueError("its scores name a text that is not there")
    if not np.all((data >= 0) & (data < _LARGEST_SCORE)):
        raise ValueError("a score is no number that BM25 gives")


def column(bm25: Any, word: int) -> tuple[LexicalScores, npt.NDArray[Any]]:
    """The scores of a word by its number, and the texts that they are of, ascending."""
    held = bm25.scores
    start, end = held["indptr"][word], held["indptr"][word + 1]
    return held["data"][start:end], held["indices"][start:end]


@cache
def _adder() -> Any:
    """What scipy multiplies a sparse matrix with, which adds to what is there; None: it has none."""
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
