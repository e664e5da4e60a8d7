"""Computes the features of candidates that do not depend on votes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.bm25 import LexicalScores
from rag_flywheel.index.positions import find_pids
from rag_flywheel.rank.features import (
    Best,
    QueryWords,
    TextNgrams,
    TextWords,
    cheap_features,
    measures,
    rich_features,
)
from rag_flywheel.records import EmbeddedText, Features, Pids
from rag_flywheel.serve.lookups import Lookup

if TYPE_CHECKING:
    from rag_flywheel.serve.state import Scope, State

Positions = npt.NDArray[np.int64]


def read_features(
    state: "State", query: EmbeddedText, lookup: Lookup, pids: Pids
) -> dict[int, Features]:
    """Features and measures float32 (13,), by pid, of these passages, which are present and in scope."""
    words = state.statistics.query_words(query.text)
    at, there = find_pids(pids, state.version.pids)
    indexed = at[there]
    fresh, _ = find_pids(pids[~there], state.fresh.pids)
    fresh_bm25 = state.fresh.lexical_scores(words, state.statistics)[fresh]
    bm25 = np.concatenate([state.version.lexical.scores_at(words, indexed), fresh_bm25])
    cheap = cheap_of(state, query, bm25, lookup.best_bm25, indexed, fresh)
    rich, _ = rich_of(state, words, indexed, fresh, lookup.best)
    rows = np.concatenate([cheap, rich], axis=1)
    return dict(zip([*pids[there].tolist(), *pids[~there].tolist()], rows, strict=True))


def bm25_scores(
    state: "State", inside: "Scope", words: Sequence[str]
) -> tuple[LexicalScores, LexicalScores]:
    """BM25 of every text of the version and of every fresh text; 0 for those out of scope."""
    indexed = state.version.lexical.scores(words)
    if inside.searchable is not None:
        indexed *= inside.indexed
    if not len(inside.fresh):
        return indexed, np.zeros(0, dtype=np.float32)
    return indexed, state.fresh.lexical_scores(words, state.statistics) * inside.fresh


def cheap_of(
    state: "State",
    query: EmbeddedText,
    bm25: LexicalScores,
    best_bm25: float,
    indexed: Positions,
    fresh: Positions,
) -> Features:
    """Cheap features of texts of the version and of fresh ones, at these positions; bm25: theirs."""
    cosines = state.version.dense.at(indexed) @ query.vector
    if len(fresh):
        cosines = np.append(cosines, state.fresh.vectors_at(fresh) @ query.vector)
    return cheap_features(cosines, bm25, best_bm25, state.typical_cosine)


def rich_of(
    state: "State",
    words: Sequence[str],
    indexed: Positions,
    fresh: Positions,
    best: Best | None = None,
) -> tuple[Features, Best]:
    """Rich features of texts of the version and of fresh ones, at these positions, followed by the
    measures of relevance."""
    lexical, statistics = state.version.lexical, state.statistics
    known = [statistics.knows(w) for w in words]
    query = QueryWords.of(words, [statistics.idf(w) for w in words], known)
    idf = statistics.ngram_idf(words)
    read, titles = lexical.texts_at(indexed), lexical.titles[indexed].astype(np.int64)
    places, lengths = lexical.words_at(query.words, read), read.lengths
    if lexical is statistics:
        counts, totals = lexical.ngrams_at(list(idf), read)
    else:
        counts, totals = np.zeros((0, len(idf))), np.zeros(0, dtype=np.int64)
    if len(fresh):
        read = state.fresh.texts_at(fresh)
        places = np.concatenate([places, state.fresh.words_at(query.words, read, statistics)])
        lengths = np.concatenate([lengths, read.lengths])
        titles = np.concatenate([titles, state.fresh.title_lengths(fresh)])
        more_counts, more_totals = state.fresh.ngrams_at(list(idf), read)
        counts = np.concatenate([counts, more_counts])
        totals = np.concatenate([totals, more_totals])
    average, title = statistics.average_length, statistics.average_title_length
    texts = TextWords(places, lengths, titles, average, title)
    ngrams = TextNgrams(counts, np.array(list(idf.values())), totals, statistics.average_ngrams)
    rich, best = rich_features(query, texts, ngrams, best)
    distinct, n_distinct = query.idf, statistics.n_distinct
    if n_distinct < len(statistics):
        distinct = np.array([statistics.distinct_idf(w) for w in query.words])
    unknown = float(np.log(2.0 * n_distinct + 2.0))
    measured = measures(texts, distinct, query.known, unknown)
    return np.concatenate([rich, measured], axis=1), best
