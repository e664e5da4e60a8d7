"""How much of an answer each passage supports, sentence by sentence.

A sentence is supported by a passage that has its content words, and that is nearer to it than the
passages are to one another.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from rag_flywheel.index.lexical import tokenize
from rag_flywheel.records import EmbeddedText, Scores, Vectors

_SENTENCE = re.compile(r"(?<=[.!?…。！？])\s+|\n+")
MOST_SENTENCES = 64  # an answer is read up to here
# Of the chance that a sentence was written from a text: fitted, see docs/notes/feedback-notes.md.
_STEEPNESS = 20.0
_EVEN = 0.34  # the support at which a sentence is as likely nobody's


def sentences(answer: str) -> list[str]:
    """The sentences of an answer that have content words, the first 64."""
    found = (part.strip() for part in _SENTENCE.split(answer))
    return [part for part in found if part and tokenize(part)][:MOST_SENTENCES]


def credits_by_support(
    given: Sequence[str], texts: Sequence[EmbeddedText], encode: Callable[[Sequence[str]], Vectors]
) -> Scores:
    """The part of each text in an answer of these sentences, float64 (n texts,), at most 1 in all.

    A sentence counts by its number of content words, and is divided among the texts by the chance that
    it was written from each: a softmax of the texts' support (0 to 1) over them and "from none of
    them", so that a sentence without support gives neither credit nor blame.
    """
    if not given or not texts:
        return np.zeros(len(texts))
    words = [tokenize(s) for s in given]
    vectors = np.stack([t.vector for t in texts])
    lift = _lift(encode(given) @ vectors.T, vectors @ vectors.T)
    support = 0.5 * (_covered(words, [frozenset(tokenize(t.text)) for t in texts]) + lift)
    odds = np.exp(_STEEPNESS * (support - _EVEN))  # against "from none of them"
    chances = odds / (1.0 + odds.sum(axis=1, keepdims=True))
    weight = np.array([len(w) for w in words], dtype=np.float64)
    credits: Scores = weight / weight.sum() @ chances
    return credits


def _covered(given: Sequence[Sequence[str]], texts: Sequence[frozenset[str]]) -> Scores:
    """The share of each sentence's words that each text has, float64 (sentences, texts).

    Words count by idf among these texts: a word that all of them have distinguishes none.
    """
    n_with = Counter(word for text in texts for word in text)
    idf = {w: math.log1p(len(texts) / (n_with[w] + 0.5)) for words in given for w in words}
    found = np.zeros((len(given), len(texts)))
    for i, words in enumerate(given):
        whole = sum(idf[w] for w in words)
        for j, text in enumerate(texts):
            found[i, j] = sum(idf[w] for w in words if w in text) / whole
    return found


def _lift(cosines: Vectors, among: Vectors) -> Scores:
    """Cosines rescaled from 0, the typical cosine of two of the texts, to 1."""
    n = len(among)
    typical = (float(among.sum()) - n) / (n * (n - 1)) if n > 1 else 0.0
    typical = min(max(typical, 0.0), 0.99)
    lift: Scores = np.clip((cosines.astype(np.float64) - typical) / (1.0 - typical), 0.0, 1.0)
    return lift
