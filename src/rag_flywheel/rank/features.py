"""Computes the features of a query's candidates that do not depend on votes.

Cheap ones cost an addition (cosine, BM25). Rich ones need the words of a text, which are read for
the best candidates only.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
_MOST_WORDS = 64  # distinct words of a query that are looked for, the rarest
_WINDOW, _NEAR = 15, 8  # words
_AT_ONCE = 8_192  # tokens
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
    share = bm25 / best_bm25 if best_bm25 > 0 else np.zeros_like(bm25)
    dense = (cosines - typical_cosine) / (1.0 - typical_cosine)
    return np.stack([dense, share], axis=1).astype(np.float32)


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
    """The tokens of texts that are words of the query, in order: text, position, word (k,) each."""

    text: Ints
    position: Ints
    word: Ints


@dataclass(frozen=True)
class TextWords:
    """Where the words of a query occur in n texts.

    places: the texts one after the other, each token as the number of its word in the query or -1;
    lengths (n,): tokens of each text; titles (n,): how many of them, the first, are the title.
    """

    places: Ints
    lengths: Ints
    titles: Ints
    average_length: float
    average_title: float

    @cached_property
    def found(self) -> _Found:
        """The tokens that are words of the query."""
        hits = np.flatnonzero(self.places >= 0)
        text = np.searchsorted(np.cumsum(self.lengths), hits, side="right")
        return _Found(text, hits, self.places[hits])


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
    numbers, first < second, (p,) each; for one first those of second ascend."""

    first: Ints
    second: Ints

    @classmethod
    def of(cls, found: _Found) -> "_Close":
        """All pairs, found in large batches: a numpy call costs more than its work on few tokens."""
        k = len(found.text)
        if not k:
            return cls(found.text, found.text)
        starts = range(0, k, _AT_ONCE)
        parts = [_close_from(found, start, min(start + _AT_ONCE, k)) for start in starts]
        first, second = (np.concatenate(each) for each in zip(*parts, strict=True))
        return cls(first, second)


def _close_from(found: _Found, start: int, end: int) -> tuple[Ints, Ints]:
    """The pairs whose first token is one of start to end - 1."""
    later = np.arange(1, _WINDOW)[:, None] + np.arange(start, end)
    at = np.minimum(later, len(found.text) - 1)
    near = (later < len(found.text)) & (found.text[at] == found.text[start:end])
    near &= found.position[at] - found.position[start:end] < _WINDOW
    apart, first = np.nonzero(near)
    return first + start, first + start + apart + 1


def rich_features(
    query: QueryWords, texts: TextWords, text_ngrams: TextNgrams, best: Best | None = None
) -> tuple[Features, Best]:
    """float32 (n, 7): the features named in RICH, and the largest BM25 of these texts.

    best: the largest of the texts to compare with, which is also the most that counts; None: these
    texts' own.
    """
    n, m = len(texts.lengths), len(query.words)
    length = np.log((texts.lengths + 1.0) / (texts.average_length + 1.0))
    if not n or not m:
        nothing = np.zeros((n, len(RICH)), dtype=np.float32)
        nothing[:, RICH.index("length")] = length
        return nothing, best or Best(0.0, 0.0, 0.0, 0.0)
    found, starts = texts.found, np.cumsum(texts.lengths) - texts.lengths
    cells = found.text * m + found.word
    in_title = found.position - starts[found.text] < texts.titles[found.text]
    in_titles = np.bincount(cells[in_title], minlength=n * m).reshape(n, m).astype(np.float64)
    weights = query.idf * np.bincount(query.order[query.order >= 0], minlength=m)
    title = _saturated(in_titles, texts.titles, texts.average_title) @ weights
    known = np.flatnonzero(query.known)  # in order of falling idf
    rarest = np.zeros(n)
    if len(known):
        rarest[found.text[found.word == known[0]]] = 1.0
    close = _Close.of(found)
    bigram, pairs = _bigrams(query, texts, found), _pairs(query, texts, found, close)
    ngrams = text_ngrams.bm25()
    if best is None:
        best = Best(*(float(scores.max(initial=0.0)) for scores in (title, bigram, pairs, ngrams)))
    columns = [
        _share(bigram, best.bigram),
        _share(title, best.title),
        rarest,
        _window(query, found, close, n) / _WINDOW_SCALE,
        _share(pairs, best.pairs),
        length,
        _share(ngrams, best.pieces),
    ]
    return np.stack(columns, axis=1).astype(np.float32), best


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
    there[texts.found.text, texts.found.word] = True
    found = np.empty((n, len(MEASURES)), dtype=np.float32)
    total = float(idf.sum())
    found[:, 0] = there @ idf / total if total > 0 else 0.0
    found[:, 1] = np.where(there, 0.0, idf).max(axis=1, initial=0.0) / unknown if m else 1.0
    found[:, 2] = np.log1p(texts.lengths)
    found[:, 3] = idf[known | there.any(axis=0)].sum() / total if total > 0 else 0.0
    found[:, 4] = np.log1p(total / unknown) if m else 0.0
    return found


def with_rich(cheap: Features, pool: Ints, rich: Features) -> Features:
    """float32 (n, 9): all features; `rich` are those of the candidates at `pool`.

    A candidate whose words were not read gets the least value among those whose words were.
    """
    least = rich.min(axis=0) if len(rich) else np.zeros(len(RICH), dtype=np.float32)
    full = np.empty((len(cheap), len(FEATURES)), dtype=np.float32)
    full[:, : len(CHEAP)], full[:, len(CHEAP) :] = cheap, least
    full[pool, len(CHEAP) :] = rich
    return full


def _bigrams(query: QueryWords, texts: TextWords, found: _Found) -> npt.NDArray[np.float64]:
    """BM25 of pairs of neighbouring words; a pair's idf is the mean of its words'."""
    m, n = len(query.words), len(texts.lengths)
    left, right = query.order[:-1], query.order[1:]
    kept = (left >= 0) & (right >= 0)
    of_pairs = Counter((left[kept] * m + right[kept]).tolist())
    if not of_pairs:
        return np.zeros(n)
    codes = np.array(sorted(of_pairs), dtype=np.int64)
    counts = np.array([of_pairs[code] for code in codes.tolist()])
    beside = np.diff(found.position) == 1
    at = np.flatnonzero(beside & (np.diff(found.text) == 0))
    spoken = found.word[at] * m + found.word[at + 1]
    pair = np.minimum(np.searchsorted(codes, spoken), len(codes) - 1)
    of_query = codes[pair] == spoken
    cells = found.text[at[of_query]] * len(codes) + pair[of_query]
    tf = np.bincount(cells, minlength=n * len(codes)).reshape(n, len(codes)).astype(np.float64)
    idf = (query.idf[codes // m] + query.idf[codes % m]) / 2.0
    saturated = _saturated(tf, texts.lengths, texts.average_length)
    total: npt.NDArray[np.float64] = saturated @ (counts * idf)
    return total


def _window(query: QueryWords, found: _Found, close: _Close, n: int) -> npt.NDArray[np.float64]:
    """The largest sum of idf of distinct words within _WINDOW tokens of a text."""
    best = np.zeros(n)
    new = _previous(query, found)[close.second] < close.first  # not yet counted from this start
    idf = query.idf[found.word]
    more = np.bincount(close.first[new], idf[close.second[new]], minlength=len(idf))
    np.maximum.at(best, found.text, idf + more)
    return best


def _pairs(
    query: QueryWords, texts: TextWords, found: _Found, close: _Close
) -> npt.NDArray[np.float64]:
    """BM25 of any two different words within _NEAR tokens; a pair's idf is the smaller one."""
    m, n = len(query.words), len(texts.lengths)
    apart = found.position[close.second] - found.position[close.first]
    a, b = found.word[close.first], found.word[close.second]
    kept = np.flatnonzero((apart < _NEAR) & (a != b))
    a, b = a[kept], b[kept]
    keys = (found.text[close.first[kept]] * m + np.minimum(a, b)) * m + np.maximum(a, b)
    counts = np.bincount(keys)
    cells = np.flatnonzero(counts)
    tf = counts[cells]
    text, low, high = cells // (m * m), cells // m % m, cells % m
    norm = _norm(texts.lengths, texts.average_length)[text]
    worth = tf / (tf + norm) * np.minimum(query.idf[low], query.idf[high])
    return np.bincount(text, worth, minlength=n).astype(np.float64)


def _previous(query: QueryWords, found: _Found) -> Ints:
    """The number of the found token before each that is the same word in the same text, or -1."""
    key = found.text * len(query.words) + found.word
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(np.diff(key[order]) == 0)
    before = np.full(len(order), -1, dtype=np.int64)
    before[order[same + 1]] = order[same]
    return before


def _saturated(
    tf: npt.NDArray[np.float64], lengths: Ints, average: float
) -> npt.NDArray[np.float64]:
    """BM25's tf / (tf + k1 (1 - b + b · length / average length)); tf (n, m)."""
    return tf / (tf + _norm(lengths, average)[:, None])


def _norm(lengths: Ints, average: float) -> npt.NDArray[np.float64]:
    relative = lengths.astype(np.float64) / (average if average > 0 else 1.0)
    norm: npt.NDArray[np.float64] = K1 * (1.0 - B + B * relative)
    return norm


def _share(scores: npt.NDArray[np.float64], best: float) -> npt.NDArray[np.float64]:
    if best <= 0:
        return (scores > 0).astype(np.float64)
    return np.minimum(scores / best, 1.0)
