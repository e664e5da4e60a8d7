"""Computes the features of a query's candidates that do not depend on votes.

Cheap ones cost an addition (cosine, BM25). Rich ones need the words of a text, which are read for
the best candidates only.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.bm25 import K1, B
from rag_flywheel.records import Features

Ints = npt.NDArray[np.int64]
CHEAP = ("dense", "bm25")
RICH = ("bigram", "title", "rarest", "window", "pairs", "length", "pieces")
FEATURES = (*CHEAP, *RICH)
"""dense: (cos - c) / (1 - c), c the typical cosine of two texts. bm25: BM25 over the
query's best. bigram: BM25 of the query's pairs of neighbouring words, over the query's best. title:
BM25 of the titles, over the query's best. rarest: whether the text has the rarest word. window: idf
of the query's words in the best 15 words of the text, over 10. pairs: BM25 of any two of the
query's words within 8 words, over the query's best. length: log of the text's length over the
average. pieces: BM25 of the four-letter pieces of the query's words, over the query's best, so that
other forms, compounds and misspellings count. bigram, window and pairs follow the sequential
dependence model (Metzler and Croft, SIGIR 2005) in kind: neighbouring words are stronger evidence
than distant ones."""
GIVEN = ("candidate", "score", "bm25", *RICH)
"""The features of an application's own candidates. candidate: the candidate's score less the best one
of the same call, over the span of the scores of that call, so from -1 to 0. score: the same
difference as it was given, in the application's own units. The others are as in FEATURES, among the
candidates of the same call alone; there is no dense, since that would take a vector of every text."""
MEASURES = ("cover", "missing", "length", "known", "said")
"""What is read of a passage for its relevance. cover: the share of the question's words that it has,
each weighted by its idf. missing: the idf of the rarest word that it lacks, over that of a word in no
text. length: log(1 + its words). known: the share of the question's words that any text has, weighted
as in cover. said: log(1 + s), s the sum of the idf of the question's words over that of a word in no
text, about how many rare words it has. None of them depends on copies of a text: idf counts equal texts
once."""
_BIGRAM, _TITLE, _RAREST, _IN_WINDOW, _PAIRS, _LENGTH, _PIECES = range(len(RICH))
_MOST_WORDS = 64  # distinct words of a query that are looked for, the rarest
_WINDOW, _NEAR = 15, 8  # words
_SHORT = 2**15 - 1  # the largest number of two bytes
_WINDOW_SCALE = 10.0


def cheap_features(
    cosines: npt.NDArray[np.float32],
    bm25: npt.NDArray[np.float32],
    best_bm25: float,
    typical_cosine: float,
) -> Features:
    """float32 (n, 2): the features named in CHEAP.

    typical_cosine: of two texts of the index. The share of BM25 is 0 for every candidate
    when no text has a word of the query.
    """
    cheap = np.empty((len(cosines), len(CHEAP)), dtype=np.float32)
    cheap[:, 0] = (cosines - typical_cosine) / (1.0 - typical_cosine)
    cheap[:, 1] = bm25 / best_bm25 if best_bm25 > 0 else 0.0
    return cheap


@dataclass(frozen=True)
class QueryWords:
    """The distinct words of a query, the rarest first: idf float64 (m,), known (m,): in some text.

    order: the number of each word as the query has them, one after the other, -1: left out.
    """

    words: tuple[str, ...]
    idf: npt.NDArray[np.float64]
    known: npt.NDArray[np.bool_]
    order: Ints

    @classmethod
    def of(cls, words: Sequence[str], idf: Sequence[float], known: Sequence[bool]) -> "QueryWords":
        """From a query's words in order, and the idf of each (see `LexicalIndex.idf`)."""
        first = {w: i for i, w in reversed(list(enumerate(words)))}
        distinct = sorted(first, key=lambda w: (-idf[first[w]], w))[:_MOST_WORDS]
        number = {w: i for i, w in enumerate(distinct)}
        return cls(
            tuple(distinct),
            np.array([idf[first[w]] for w in distinct], dtype=np.float64),
            np.array([known[first[w]] for w in distinct], dtype=np.bool_),
            np.array([number.get(w, -1) for w in words], dtype=np.int64),
        )


@dataclass(frozen=True)
class _Found:
    """The tokens of texts that are words of the query, in order: text, position, word (k,) each.

    position: by which two tokens of one text are as far apart as in it, and those of different texts
    _WINDOW and more.
    """

    text: Ints
    position: Ints
    word: Ints


@dataclass(frozen=True)
class TextWords:
    """Where the words of a query occur in n texts.

    places: the texts one after the other, each token as the number of its word in the query or -1;
    lengths (n,): tokens of each text; titles (n,): how many of them, the first, are the title.
    """

    places: npt.NDArray[np.integer[Any]]
    lengths: Ints
    titles: Ints
    average_length: float
    average_title: float

    @cached_property
    def found(self) -> _Found:
        """The tokens that are words of the query."""
        hits = (self.places >= 0).nonzero()[0]
        text = self.ends.searchsorted(hits, side="right")
        return _Found(text, hits + text * _WINDOW, self.places.take(hits).astype(np.int64))

    @cached_property
    def ends(self) -> Ints:
        """Where each text ends among all tokens, (n,)."""
        ends: Ints = self.lengths.cumsum()
        return ends

    @cached_property
    def title_ends(self) -> Ints:
        """Where the title of each text ends among the positions of found tokens, (n,)."""
        starts = self.ends - self.lengths
        ends: Ints = starts + np.arange(len(starts)) * _WINDOW + self.titles
        return ends

    @cached_property
    def norm(self) -> npt.NDArray[np.float64]:
        """What BM25 adds to the frequency of a word in each text, (n,)."""
        return _norm(self.lengths, self.average_length)


@dataclass(frozen=True)
class TextNgrams:
    """The m character n-grams of a query's words in n texts: counts float64 (n, m); idf (m,), times
    how often the query has each; totals int64 (n,): the number of n-grams in each text."""

    counts: npt.NDArray[np.float64]
    idf: npt.NDArray[np.float64]
    totals: Ints
    average_total: float

    def bm25(self) -> npt.NDArray[np.float64]:
        """BM25 of each text, (n,)."""
        saturated = _saturated(self.counts, self.totals, self.average_total)
        total: npt.NDArray[np.float64] = saturated @ self.idf
        return total


@dataclass(frozen=True)
class Best:
    """The largest BM25 among a query's texts: of titles, neighbouring words, pairs and n-grams."""

    title: float
    bigram: float
    pairs: float
    pieces: float


@dataclass(frozen=True)
class _Close:
    """Pairs of found tokens of one text with fewer than _WINDOW tokens from one to the other: their
    numbers, first < second, (p,) each, by first and then by second."""

    first: Ints
    second: Ints

    @classmethod
    def of(cls, found: _Found) -> "_Close":
        """All pairs."""
        every = np.arange(1, len(found.text) + 1)
        counts = found.position.searchsorted(found.position + _WINDOW) - every
        first = (every - 1).repeat(counts)
        return cls(first, np.arange(len(first)) + (every - counts.cumsum() + counts).take(first))


def rich_features(
    query: QueryWords, texts: TextWords, text_ngrams: TextNgrams, best: Best | None = None
) -> tuple[Features, Best]:
    """float32 (n, 7): the features named in RICH, and the largest BM25 of these texts.

    best: the largest of the texts to compare with, which is also the most that counts; None: these
    texts' own.
    """
    n, m = len(texts.lengths), len(query.words)
    rich = np.zeros((n, len(RICH)), dtype=np.float32)
    rich[:, _LENGTH] = np.log((texts.lengths + 1.0) / (texts.average_length + 1.0))
    if not n or not m:
        return rich, best or Best(0.0, 0.0, 0.0, 0.0)
    found = texts.found
    known = query.known.nonzero()[0]  # in order of falling idf
    if len(known):
        rich[found.text[found.word == known[0]], _RAREST] = 1.0
    close = _Close.of(found)
    title, bigram = _titles(query, texts, found), _bigrams(query, texts, found)
    pairs, ngrams = _pairs(query, texts, found, close), text_ngrams.bm25()
    if best is None:
        best = Best(*(float(scores.max(initial=0.0)) for scores in (title, bigram, pairs, ngrams)))
    rich[:, _BIGRAM] = _share(bigram, best.bigram)
    rich[:, _TITLE] = _share(title, best.title)
    rich[:, _IN_WINDOW] = _window(query, found, close, n) / _WINDOW_SCALE
    rich[:, _PAIRS] = _share(pairs, best.pairs)
    rich[:, _PIECES] = _share(ngrams, best.pieces)
    return rich, best


def measures(
    texts: TextWords,
    idf: npt.NDArray[np.float64],
    known: npt.NDArray[np.bool_],
    unknown: float,
) -> Features:
    """float32 (n, 5): the measures of n texts, in the order of MEASURES.

    idf (m,): of the question's distinct words; known (m,): which of them are in some text, besides those
    in these; unknown: the idf of a word that is in no text.
    """
    n, m = len(texts.lengths), len(idf)
    there = np.zeros((n, m), dtype=bool)
    there.reshape(-1)[texts.found.text * m + texts.found.word] = True
    found = np.empty((n, len(MEASURES)), dtype=np.float32)
    total = float(idf.sum())
    found[:, 0] = there @ idf / total if total > 0 else 0.0
    found[:, 1] = np.where(there, 0.0, idf).max(axis=1, initial=0.0) / unknown if m else 1.0
    found[:, 2] = np.log1p(texts.lengths)
    found[:, 3] = idf[known | there.any(axis=0)].sum() / total if total > 0 else 0.0
    found[:, 4] = np.log1p(total / unknown) if m else 0.0
    return found


def with_rich(
    cheap: Features, pool: Ints, rich: Features, into: Features | None = None
) -> Features:
    """float32 (n, 9): all features; `rich` are those of the candidates at `pool`.

    A candidate whose words were not read gets the least value among those whose words were.
    into: float32 (n, 9 or more), whose first columns they are put into; None: a new array.
    """
    full = np.empty((len(cheap), len(FEATURES)), dtype=np.float32) if into is None else into
    full[:, : len(CHEAP)] = cheap
    full[:, len(CHEAP) : len(FEATURES)] = rich.min(axis=0) if len(rich) else 0.0
    full[pool, len(CHEAP) : len(FEATURES)] = rich
    return full


def _titles(query: QueryWords, texts: TextWords, found: _Found) -> npt.NDArray[np.float64]:
    """BM25 of the titles."""
    m, n = len(query.words), len(texts.lengths)
    here = (found.position < texts.title_ends.take(found.text)).nonzero()[0]
    if not len(here):
        return np.zeros(n)
    cells = found.text.take(here) * m + found.word.take(here)
    tf = np.bincount(cells, minlength=n * m).reshape(n, m)
    weights = query.idf * np.bincount(query.order[query.order >= 0], minlength=m)
    total: npt.NDArray[np.float64] = _saturated(tf, texts.titles, texts.average_title) @ weights
    return total


def _bigrams(query: QueryWords, texts: TextWords, found: _Found) -> npt.NDArray[np.float64]:
    """BM25 of pairs of neighbouring words; a pair's idf is the mean of its words'."""
    m, n = len(query.words), len(texts.lengths)
    order, idf = query.order.tolist(), query.idf.tolist()
    of_pairs = Counter([a * m + b for a, b in pairwise(order) if a >= 0 and b >= 0])
    at = (found.position[1:] - found.position[:-1] == 1).nonzero()[0]
    if not of_pairs or not len(at):
        return np.zeros(n)
    codes = sorted(of_pairs)
    number = np.full(m * m, -1, dtype=np.int64)
    number[codes] = np.arange(len(codes))
    pair = number.take(found.word.take(at) * m + found.word.take(at + 1))
    of_query = (pair >= 0).nonzero()[0]
    cells = found.text.take(at.take(of_query)) * len(codes) + pair.take(of_query)
    tf = np.bincount(cells, minlength=n * len(codes)).reshape(n, len(codes))
    weights = [of_pairs[code] * ((idf[code // m] + idf[code % m]) / 2.0) for code in codes]
    total: npt.NDArray[np.float64] = (tf / (tf + texts.norm[:, None])) @ np.array(weights)
    return total


def _window(query: QueryWords, found: _Found, close: _Close, n: int) -> npt.NDArray[np.float64]:
    """The largest sum of idf of distinct words within _WINDOW tokens of a text."""
    best = np.zeros(n)
    not_counted = (_previous(query, found, n).take(close.second) < close.first).nonzero()[0]
    idf = query.idf.take(found.word)
    second = idf.take(close.second.take(not_counted))
    more = np.bincount(close.first.take(not_counted), second, minlength=len(idf))
    np.maximum.at(best, found.text, idf + more)
    return best


def _pairs(
    query: QueryWords, texts: TextWords, found: _Found, close: _Close
) -> npt.NDArray[np.float64]:
    """BM25 of any two different words within _NEAR tokens; a pair's idf is the smaller one."""
    m, n = len(query.words), len(texts.lengths)
    apart = found.position.take(close.second) - found.position.take(close.first)
    near = (apart < _NEAR).nonzero()[0]
    first, second = close.first.take(near), close.second.take(near)
    pair = _unordered(m).take(found.word.take(first) * m + found.word.take(second))
    different = (pair >= 0).nonzero()[0]
    cells = found.text.take(first.take(different)) * (m * m) + pair.take(different)
    counts = np.bincount(cells)
    cells = counts.nonzero()[0]
    tf, text = counts.take(cells), cells // (m * m)
    smaller = np.minimum(query.idf[:, None], query.idf).take(cells - text * (m * m))
    worth = tf / (tf + texts.norm.take(text)) * smaller
    return np.bincount(text, worth, minlength=n).astype(np.float64, copy=False)


@lru_cache(maxsize=_MOST_WORDS)
def _unordered(m: int) -> Ints:
    """A number for each two of m words, a · m + b, that is the same in either order; -1: of one word."""
    word = np.arange(m)
    numbers = np.minimum(word[:, None], word) * m + np.maximum(word[:, None], word)
    np.fill_diagonal(numbers, -1)
    return numbers.ravel()


def _previous(query: QueryWords, found: _Found, n: int) -> Ints:
    """The number of the found token before each that is the same word in the same text, or -1."""
    key = found.text * len(query.words) + found.word
    if n * len(query.words) <= _SHORT:
        key = key.astype(np.int16)  # which numpy sorts in two passes
    order = key.argsort(kind="stable")
    of_key = key[order]
    same = (of_key[1:] == of_key[:-1]).nonzero()[0]
    before = np.full(len(order), -1, dtype=np.int64)
    before[order[same + 1]] = order[same]
    return before


def _saturated(tf: npt.NDArray[Any], lengths: Ints, average: float) -> npt.NDArray[np.float64]:
    """BM25's tf / (tf + k1 (1 - b + b · length / average length)); tf (n, m)."""
    found: npt.NDArray[np.float64] = tf / (tf + _norm(lengths, average)[:, None])
    return found


def _norm(lengths: Ints, average: float) -> npt.NDArray[np.float64]:
    relative = lengths.astype(np.float64) / (average if average > 0 else 1.0)
    norm: npt.NDArray[np.float64] = K1 * (1.0 - B + B * relative)
    return norm


def _share(scores: npt.NDArray[np.float64], best: float) -> npt.NDArray[np.float64]:
    if best <= 0:
        return (scores > 0).astype(np.float64)
    return np.minimum(scores / best, 1.0)
