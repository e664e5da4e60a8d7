"""Which passages are ranked for a query: the best of dense search, of BM25, of evidence, and fresh
ones; and what is known of them without any vote.

It must not know how they are scored together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.lexical import LexicalScores
from rag_flywheel.rank.features import (
    CHEAP,
    QueryWords,
    TextWords,
    cheap_features,
    rich_features,
    with_rich,
)
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.score import POOL
from rag_flywheel.records import Features, Pids, Vectors
from rag_flywheel.serve.state import State

_HYBRID = np.array([Parameters().weights[name] for name in CHEAP], dtype=np.float32)


@dataclass(frozen=True)
class CandidateSet:
    """Candidates by pid, those of the version first, with their cosine and BM25, each (n,).

    best_bm25: the query's best anywhere. indexed, fresh: positions in the version's lexical index,
    and in the fresh segment, of the candidates in their order.
    """

    pids: Pids
    cosines: npt.NDArray[np.float32]
    bm25: LexicalScores
    best_bm25: float
    indexed: npt.NDArray[np.int64]
    fresh: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scope:
    """Which texts may come up: a mask over the version's positions and one over the fresh texts.

    searchable: the version's pids that may come up, None when all may.
    """

    indexed: npt.NDArray[np.bool_]
    fresh: npt.NDArray[np.bool_]
    searchable: Pids | None


def scope(state: State, allowed: Pids | None) -> Scope:
    """The texts that stand and pass a filter. allowed: pids that pass it; None: no filter."""
    indexed, fresh = state.alive, np.ones(len(state.fresh.pids), dtype=bool)
    if allowed is not None:
        indexed = indexed & np.isin(state.version.pids, allowed, assume_unique=True)
        fresh = np.isin(state.fresh.pids, allowed, assume_unique=True)
    everything = bool(indexed.all())
    return Scope(indexed, fresh, None if everything else state.version.pids[indexed])


def candidates(
    state: State,
    scope: Scope,
    query: Vectors,
    words: Sequence[str],
    *,
    dense: Pids,
    evidence: Iterable[int],
    n: int,
) -> CandidateSet:
    """The union of the dense top, the BM25 top n, passages with evidence, and fresh texts.

    query: float32 (dim,); words: its tokens; dense: what dense search found in scope; evidence:
    lineages of passages that were helpful for similar queries.
    """
    indexed_bm25 = np.where(scope.indexed, state.version.lexical.scores(words), np.float32(0))
    fresh_bm25 = state.fresh.lexical_scores(words, state.statistics) * scope.fresh
    fresh_cosines = state.fresh.vectors @ query
    version_pids = state.version.pids
    evident = np.unique(np.array([state.heirs.get(p, p) for p in evidence], dtype=np.int64))
    indexed = np.union1d(dense, version_pids[_top(indexed_bm25, n)])
    indexed = np.union1d(indexed, version_pids[_positions(evident, version_pids, scope.indexed)])
    fresh = np.union1d(
        _best_fresh(fresh_cosines, fresh_bm25, scope, n),
        _positions(evident, state.fresh.pids, scope.fresh),
    )
    at = np.searchsorted(version_pids, indexed)
    vectors = state.version.dense.vectors(indexed)
    return CandidateSet(
        np.concatenate([indexed, state.fresh.pids[fresh]]),
        np.concatenate([vectors @ query, fresh_cosines[fresh]]),
        np.concatenate([indexed_bm25[at], fresh_bm25[fresh]]),
        float(max(indexed_bm25.max(initial=0.0), fresh_bm25.max(initial=0.0))),
        at,
        fresh,
    )


def static_features(
    state: State, found: CandidateSet, words: Sequence[str], wanted: npt.NDArray[np.bool_]
) -> Features:
    """float32 (n, 8): features of the candidates.

    The words of texts are looked at for the best 50 of the plain hybrid, and for at most 50 of the
    wanted, (n,), which have evidence.
    """
    cheap = cheap_features(found.cosines, found.bm25, found.best_bm25, state.typical_cosine)
    worth = cheap @ _HYBRID
    pool = _best(worth, np.arange(len(worth)))
    if wanted.any():
        pool = np.union1d(pool, _best(worth, np.flatnonzero(wanted)))
    statistics = state.statistics
    query = QueryWords.of(
        words, [statistics.idf(w) for w in words], [w in statistics.vocabulary for w in words]
    )
    return with_rich(cheap, pool, rich_features(query, _text_words(state, found, query, pool)))


def _best(worth: npt.NDArray[np.float32], among: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions of the POOL best of these, ascending."""
    if len(among) <= POOL:
        return among
    return np.sort(among[np.argpartition(-worth[among], POOL - 1)[:POOL]])


def _text_words(
    state: State, found: CandidateSet, query: QueryWords, pool: npt.NDArray[np.int64]
) -> TextWords:
    lexical, n = state.version.lexical, len(found.indexed)
    indexed, fresh = found.indexed[pool[pool < n]], found.fresh[pool[pool >= n] - n]
    places, lengths = lexical.words_at(query.words, indexed)
    titles = lexical.titles[indexed].astype(np.int64)
    if len(fresh):
        more_places, more_lengths = state.fresh.words_at(query.words, fresh)
        places = np.concatenate([places, more_places])
        lengths = np.concatenate([lengths, more_lengths])
        titles = np.concatenate([titles, state.fresh.title_lengths(fresh)])
    statistics = state.statistics
    return TextWords(
        places, lengths, titles, statistics.average_length, statistics.average_title_length
    )


def _positions(wanted: Pids, pids: Pids, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Where the wanted pids are among ascending `pids`, of those that are there and inside."""
    at = np.searchsorted(pids, wanted)
    at = (
        at[(at < len(pids)) & (pids[np.minimum(at, len(pids) - 1)] == wanted)]
        if len(pids)
        else at[:0]
    )
    return at[inside[at]]


def _best_fresh(
    cosines: npt.NDArray[np.float32], bm25: LexicalScores, scope: Scope, n: int
) -> npt.NDArray[np.int64]:
    """Positions of fresh texts: all while they are few, else the best n of either score."""
    inside = np.flatnonzero(scope.fresh)
    if len(inside) <= 2 * n:
        return inside
    return inside[np.union1d(_top(cosines[inside] + 2.0, n), _top(bm25[inside], n))]


def _top(scores: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.int64]:
    """Positions of the n highest scores above 0, in no order."""
    positive = np.flatnonzero(scores > 0)
    if len(positive) <= n:
        return positive
    return positive[np.argpartition(-scores[positive], n - 1)[:n]]
