"""How well an encoder finds passages that are known to be there, compared with words.

An encoder that does not know a script gives its texts vectors that mean little. It must not know the
store; it is given texts with their vectors.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.index.tokenizer import Tokenizer
from rag_flywheel.records import ENGLISH, Vectors

_TEXTS = 128
_QUERIES = 64
_WORDS = 8  # of a text that are asked for
_LEAST = 8  # texts that words must find, for there to be something to compare
_ENOUGH = 0.5  # of them that an encoder finds which is trusted in full
_FOREIGN = 0.1  # share of words in other scripts from which on an index is not taken for English


def dense_trust(
    texts: Sequence[str],
    vectors: Vectors,
    tokenizer: Tokenizer,
    encode: Callable[[Sequence[str]], Vectors],
) -> float:
    """How far the cosines of an encoder are trusted beside words, 0 to 1.

    Pieces of up to 64 of the texts, of about 8 words each, are searched for among all texts. Of those
    that BM25 finds first, the share that cosines find first too decides: 1 from a half on, below it the
    square of the share over a half. English is not measured: the shipped weights are made for it.

    texts: those at `sampled` places of an index; vectors: theirs, float32 (n, dim), unit rows.
    """
    words = [tokenizer.tokenize(text) for text in texts]
    if tokenizer.language == ENGLISH and _foreign(words) < _FOREIGN:
        return 1.0
    once = [i for i, text in enumerate(words) if text and words.index(text) == i]
    if len(once) < _LEAST:
        return 1.0
    lexical = LexicalIndex.build([words[i] for i in once], tokenizer=tokenizer)
    asked = np.unique(np.linspace(0, len(once) - 1, min(_QUERIES, len(once))).astype(int)).tolist()
    rng = np.random.default_rng(0)
    queries = [_piece(texts[once[i]], len(words[once[i]]), float(rng.random())) for i in asked]
    by_words = [
        i
        for i, query in enumerate(queries)
        if _first(lexical.scores(lexical.query_words(query)), asked[i])
    ]
    if len(by_words) < _LEAST:
        return 1.0
    cosines = encode([queries[i] for i in by_words]) @ vectors[once].T
    by_vectors = [_first(row, asked[i]) for i, row in zip(by_words, cosines, strict=True)]
    share = float(np.mean(by_vectors)) / _ENOUGH
    return round(min(share, 1.0) ** 2, 4)


def sampled(n: int) -> npt.NDArray[np.int64]:
    """Places of up to 128 of n texts, at even distances."""
    return np.unique(np.linspace(0, max(n - 1, 0), min(_TEXTS, n)).astype(np.int64))


def _foreign(words: Sequence[Sequence[str]]) -> float:
    """The share of words that are not written in ASCII, accents aside."""
    n = sum(map(len, words))
    return sum(not word.isascii() for text in words for word in text) / max(n, 1)


def _piece(text: str, n_words: int, where: float) -> str:
    """A piece of a text as long as 8 of its n words, at most three fifths of it."""
    length = max(int(min(0.6, _WORDS / n_words) * len(text)), 1)
    start = int(where * (len(text) - length + 1))
    return text[start : start + length]


def _first(scores: Vectors, place: int) -> bool:
    """Whether the score at a place is above all others."""
    return int((scores >= scores[place]).sum()) == 1
