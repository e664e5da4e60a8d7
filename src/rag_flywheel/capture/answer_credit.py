"""How much of an answer each passage supports, sentence by sentence.

A sentence is supported by a passage that has its content words, and that is nearer to it than the
passages are to one another.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from rag_flywheel.index.tokenizer import Tokenizer, tokenizer_of
from rag_flywheel.records import ENGLISH, EmbeddedText, Scores, Vectors

_SENTENCE = re.compile(r"(?<=[.!?…。！？])\s+|\n+")
MOST_SENTENCES = 64  # an answer is read up to here
# The likeliest on sentences of known sources: benchmarks/learning/answer_credit.py
STEEPNESS = 20.0
EVEN = 0.34  # the support at which a sentence is as likely from none of the texts


def sentences(answer: str, tokenizer: Tokenizer | None = None) -> list[str]:
    """The sentences of an answer that have content words, the first 64; tokenizer: None: of English."""
    tokenize = (tokenizer or tokenizer_of(ENGLISH)).tokenize
    found = (part.strip() for part in _SENTENCE.split(answer))
    return [part for part in found if part and tokenize(part)][:MOST_SENTENCES]


def credits_by_support(
    given: Sequence[str],
    texts: Sequence[EmbeddedText],
    encode: Callable[[Sequence[str]], Vectors],
    tokenizer: Tokenizer | None = None,
) -> Scores:
    """The part of each text in an answer of these sentences, float64 (n texts,), at most 1 in all.

    A sentence counts by its number of content words, and is divided among the texts by the chance that
    it was written from each, so that a sentence without support gives neither credit nor blame.
    tokenizer: None: that of English.
    """
    tokenizer = tokenizer or tokenizer_of(ENGLISH)
    if not given or not texts:
        return np.zeros(len(texts))
    weight = np.array([len(tokenizer.tokenize(s)) for s in given], dtype=np.float64)
    credits: Scores = (
        weight / weight.sum() @ chances_of_source(supports(given, texts, encode, tokenizer))
    )
    return credits


def supports(
    given: Sequence[str],
    texts: Sequence[EmbeddedText],
    encode: Callable[[Sequence[str]], Vectors],
    tokenizer: Tokenizer | None = None,
) -> Scores:
    """The support of each text for each sentence, 0 to 1, float64 (sentences, texts)."""
    tokenize = (tokenizer or tokenizer_of(ENGLISH)).tokenize
    vectors = np.stack([t.vector for t in texts])
    lift = _lift(encode(given) @ vectors.T, vectors @ vectors.T)
    covered = _covered([tokenize(s) for s in given], [frozenset(tokenize(t.text)) for t in texts])
    support: Scores = 0.5 * (covered + lift)
    return support


def chances_of_source(support: Scores, steepness: float = STEEPNESS, even: float = EVEN) -> Scores:
    """The chance that each sentence was written from each text, float64 (sentences, texts).

    A softmax of steepness · support over the texts and "from none of them", which has the support
    `even`: a multinomial logit with an outside option.
    """
    odds = np.exp(steepness * (support - even))
    chances: Scores = odds / (1.0 + odds.sum(axis=1, keepdims=True))
    return chances


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
