"""Computes the features of candidates that do not depend on votes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rag_flywheel.index.bm25 import LexicalScores
from rag_flywheel.index.engine import Positions, Question, ReadTexts, Scores
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
    from rag_flywheel.serve.state import State


def read_features(
    state: "State", query: EmbeddedText, lookup: Lookup, pids: Pids
) -> dict[int, Features]:
    """Features and measures float32 (13,), by pid, of these passages, which are present and in scope."""
    question = Question(query.vector, state.statistics.query_words(query.text))
    at, there = find_pids(pids, state.version.pids)
    indexed = at[there]
    fresh, _ = find_pids(pids[~there], state.fresh.pids)
    scores = state.version.engine.score(question, indexed)
    fresh_bm25 = state.fresh.lexical_scores(question.words, state.statistics)
    cheap = cheap_of(state, question, scores, fresh, fresh_bm25, lookup.best_bm25)
    rich, _ = rich_of(state, question.words, indexed, fresh, lookup.best)
    rows = np.concatenate([cheap, rich], axis=1)
    return dict(zip([*pids[there].tolist(), *pids[~there].tolist()], rows, strict=True))


def cheap_of(
    state: "State",
    question: Question,
    scores: Scores,
    fresh: Positions,
    fresh_bm25: LexicalScores,
    best_bm25: float,
) -> Features:
    """Cheap features of texts of the version, which have these scores, and of fresh ones, at these
    positions; fresh_bm25: of all fresh texts."""
    cosines, bm25 = scores.cosines, scores.bm25
    if len(fresh):
        cosines = np.append(cosines, state.fresh.vectors_at(fresh) @ question.vector)
        bm25 = np.append(bm25, fresh_bm25[fresh])
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
    statistics = state.statistics
    known = [statistics.knows(w) for w in words]
    query = QueryWords.of(words, [statistics.idf(w) for w in words], known)
    idf = statistics.ngram_idf(words)
    read = _read(state, indexed, fresh, query.words, list(idf))
    average, title = statistics.average_length, statistics.average_title_length
    texts = TextWords(read.places, read.lengths, read.titles, average, title)
    weights = np.array(list(idf.values()))
    ngrams = TextNgrams(read.ngrams, weights, read.n_ngrams, statistics.average_ngrams)
    rich, best = rich_features(query, texts, ngrams, best)
    distinct, n_distinct = query.idf, statistics.n_distinct
    if n_distinct < len(statistics):
        distinct = np.array([statistics.distinct_idf(w) for w in query.words])
    unknown = float(np.log(2.0 * n_distinct + 2.0))
    measured = measures(texts, distinct, query.known, unknown)
    return np.concatenate([rich, measured], axis=1), best


def _read(
    state: "State",
    indexed: Positions,
    fresh: Positions,
    words: Sequence[str],
    ngrams: Sequence[str],
) -> ReadTexts:
    """Texts of the version, and then fresh ones, at these positions."""
    if not len(indexed):
        return state.fresh.read(fresh, words, ngrams, state.statistics)
    read = state.version.engine.read(indexed, words, ngrams)
    if not len(fresh):
        return read
    return read.followed_by(state.fresh.read(fresh, words, ngrams, state.statistics))
