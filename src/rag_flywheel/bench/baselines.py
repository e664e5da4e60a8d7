"""Rules to compare with: static rankings, and rules that learn one number a passage from votes.

Everything is an array over all passages; no rule may know an index folder, nor how the flywheel ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.formats.beir import Qrels
from rag_flywheel.records import Vectors

ScoreMatrix: TypeAlias = npt.NDArray[np.float32]
"""float32 (n_queries, n_passages), higher is better."""
PassageScores: TypeAlias = npt.NDArray[np.float64]
"""float64 (n_passages,)"""

HYBRID_WEIGHT = 0.3
RRF_K = 60.0
WILSON_Z = 1.96
MAX_PAGERANK = 100
ORACLE_DEPTH = 75


@dataclass(frozen=True, slots=True, eq=False)
class Matrices:
    """The scores of every passage in dense search and BM25, float32 (n_queries, n_passages)."""

    cosines: ScoreMatrix
    bm25: ScoreMatrix


@dataclass(frozen=True, slots=True, eq=False)
class VoteTable:
    """Votes in the order they were cast: int64, int64 and bool (n,); query indexes the train queries."""

    query: npt.NDArray[np.int64]
    passage: npt.NDArray[np.int64]
    helpful: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The data that a rule may learn from.

    query_vectors: of the train queries, float32 (n_train, dim), unit rows; query_ids: their names, which
        only rules that recognise a question asked again need.
    passage_ids, passage_vectors: n_passages of each, in the order of the columns of a ScoreMatrix.
    """

    query_vectors: Vectors
    passage_ids: Sequence[str]
    passage_vectors: Vectors
    votes: VoteTable
    query_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True, eq=False)
class RuleQueries:
    """Queries to score passages for: ids, vectors float32 (n_queries, dim) and matrices, row by row."""

    ids: Sequence[str]
    vectors: Vectors
    matrices: Matrices


@dataclass(frozen=True)
class Rule:
    """A way to rank with one free weight: scores(weight, history, asked) -> ScoreMatrix.

    source: the publication or program that the rule comes from.
    grid: the weights to try, the one with the least effect first.
    published: the weight its source uses; None when it names none or its scale differs.
    """

    name: str
    source: str
    grid: tuple[float, ...]
    published: float | None
    scores: Callable[[float, History, RuleQueries], ScoreMatrix]


def choose(rule: Rule, history: History, dev: RuleQueries, qrels: Qrels) -> float:
    """The weight of the rule's grid with the best mean nDCG@10 on the dev queries; of ties the first.

    The dev queries must be neither test queries nor queries that gave votes.
    """
    if len(rule.grid) == 1:
        return rule.grid[0]
    found = [
        mean(ndcg_at_10(qrels, run_of(rule.scores(weight, history, dev), dev.ids, history)))
        for weight in rule.grid
    ]
    return rule.grid[int(np.argmax(found))]


def run_of(
    scores: ScoreMatrix, query_ids: Sequence[str], history: History, *, depth: int = 10
) -> dict[str, list[str]]:
    """{query id: the ids of its best `depth` passages, the best first}; ties keep the passages' order.

    The passage of a query's own id is left out.
    """
    scores = _without_own(scores, query_ids, history.passage_ids)
    depth = min(depth, scores.shape[1])
    cuts = -np.partition(-scores, depth - 1, axis=1)[:, depth - 1]
    run = {}
    for query, row, cut in zip(query_ids, scores, cuts, strict=True):
        kept = np.flatnonzero(row >= cut)
        best = kept[np.argsort(-row[kept], kind="stable")][:depth]
        found = (history.passage_ids[passage] for passage in best)
        run[query] = [passage for passage in found if passage != query]
    return run


def _without_own(
    scores: ScoreMatrix, query_ids: Sequence[str], passage_ids: Sequence[str]
) -> ScoreMatrix:
    """The scores, those of passages with the id of their query last."""
    place = {id_: column for column, id_ in enumerate(passage_ids)}
    own = [(row, place[query]) for row, query in enumerate(query_ids) if query in place]
    if not own:
        return scores
    scores = scores.copy()
    scores[tuple(np.array(own).T)] = -np.inf
    return scores


def bm25_share(bm25: ScoreMatrix) -> ScoreMatrix:
    """BM25 over the best BM25 of the same query, in [0, 1]; 0 where the query matches no passage."""
    best = bm25.max(axis=1, keepdims=True)
    share: ScoreMatrix = np.divide(bm25, best, out=np.zeros_like(bm25), where=best > 0)
    return share


def hybrid(matrices: Matrices, weight: float = HYBRID_WEIGHT) -> ScoreMatrix:
    """Cosine + weight · BM25 share: the ranking that every learning rule here starts from."""
    return matrices.cosines + np.float32(weight) * bm25_share(matrices.bm25)


def reciprocal_rank_fusion(matrices: Matrices, k: float = RRF_K) -> ScoreMatrix:
    """Σ 1 / (k + rank) over the two rankings, ranks from 1; BM25 ranks only passages that match.

    Cormack, Clarke and Büttcher (SIGIR 2009), "Reciprocal rank fusion outperforms Condorcet".
    """
    dense = 1.0 / (k + _ranks(matrices.cosines))
    lexical = 1.0 / (k + _ranks(matrices.bm25))
    return (dense + np.where(matrices.bm25 > 0, lexical, 0.0)).astype(np.float32)


def _ranks(scores: ScoreMatrix) -> npt.NDArray[np.int32]:
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty(scores.shape, dtype=np.int32)
    np.put_along_axis(ranks, order, np.arange(1, scores.shape[1] + 1, dtype=np.int32)[None], axis=1)
    return ranks


def net_votes(votes: VoteTable, n_passages: int) -> PassageScores:
    """Helpful minus harmful votes of each passage, whatever the query."""
    signs = np.where(votes.helpful, 1.0, -1.0)
    return np.bincount(votes.passage, weights=signs, minlength=n_passages).astype(np.float64)


def clamped_votes(votes: VoteTable, n_passages: int) -> PassageScores:
    """+1 and −1 a vote, cut to 0..100 after every vote: harmful votes on a passage at 0 leave no trace.

    RAGFlow, api/db/services/chunk_feedback_service.py, `update_chunk_weight`.
    """
    weights = [0] * n_passages
    for passage, helpful in zip(votes.passage.tolist(), votes.helpful.tolist(), strict=True):
        weight = weights[passage] + (1 if helpful else -1)
        weights[passage] = max(0, min(MAX_PAGERANK, weight))
    return np.array(weights, dtype=np.float64)


def onyx_multiplier(net: PassageScores) -> PassageScores:
    """0.5 + σ(net / 3) below zero, 2 σ(net / 3) from there on: from 0.5 over 1 to 2.

    Onyx (formerly Danswer), `translate_boost_count_to_multiplier`, which its index repeats.
    """
    sigmoid: PassageScores = expit(net / 3.0)
    return np.where(net < 0, 0.5 + sigmoid, 2.0 * sigmoid)


def wilson_lower_bounds(votes: VoteTable, n_passages: int) -> PassageScores:
    """Lower end of the 95 % interval of each passage's helpful share p over its n votes; 0 without votes.

    (p + z²/2n − z √((p (1 − p) + z²/4n) / n)) / (1 + z²/n), z = 1.96: Wilson (JASA 1927), as a rule of
    ranking by Evan Miller (2009), "How Not To Sort By Average Rating".
    """
    n = np.bincount(votes.passage, minlength=n_passages).astype(np.float64)
    helpful = np.bincount(votes.passage[votes.helpful], minlength=n_passages)
    with np.errstate(divide="ignore", invalid="ignore"):
        p, z2 = helpful / n, WILSON_Z**2
        spread = WILSON_Z * np.sqrt((p * (1 - p) + z2 / (4 * n)) / n)
        low = (p + z2 / (2 * n) - spread) / (1 + z2 / n)
    # At p = 0 the exact bound is 0; rounding leaves ±1e-17.
    return np.where(n > 0, np.maximum(low, 0.0), 0.0)


def oracle_scores(asked: RuleQueries, history: History, qrels: Qrels) -> ScoreMatrix:
    """The ceiling of reranking: relevant candidates first (the higher the grade), then all as the hybrid.

    Candidates: the best 75 by cosine and the best 75 that match by BM25. It knows the qrels.
    """
    column = {passage: i for i, passage in enumerate(history.passage_ids)}
    cosines, bm25 = asked.matrices.cosines, asked.matrices.bm25
    lexical = (_ranks(bm25) <= ORACLE_DEPTH) & (bm25 > 0)
    candidate = (_ranks(cosines) <= ORACLE_DEPTH) | lexical
    scores = hybrid(asked.matrices)
    for row, query in enumerate(asked.ids):
        for passage, grade in qrels.get(query, {}).items():
            if grade > 0 and candidate[row, column[passage]]:
                scores[row, column[passage]] += 10.0 * grade
    return scores


def _dense(_: float, __: History, asked: RuleQueries) -> ScoreMatrix:
    return asked.matrices.cosines


def _bm25(_: float, __: History, asked: RuleQueries) -> ScoreMatrix:
    return asked.matrices.bm25


def _hybrid(weight: float, _: History, asked: RuleQueries) -> ScoreMatrix:
    return hybrid(asked.matrices, weight)


def _rrf(weight: float, _: History, asked: RuleQueries) -> ScoreMatrix:
    return reciprocal_rank_fusion(asked.matrices, weight)


def _boosted(
    boosts: Callable[[VoteTable, int], PassageScores],
    weight: float,
    history: History,
    asked: RuleQueries,
) -> ScoreMatrix:
    learned = weight * boosts(history.votes, len(history.passage_ids))
    return hybrid(asked.matrices) + learned.astype(np.float32)


def _onyx(weight: float, history: History, asked: RuleQueries) -> ScoreMatrix:
    net = net_votes(history.votes, len(history.passage_ids))
    return hybrid(asked.matrices) * onyx_multiplier(weight * net).astype(np.float32)


_PER_VOTE = (0.0, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0)

STATIC_RULES = (
    Rule("dense", "cosine of the encoder's vectors", (1.0,), 1.0, _dense),
    Rule("BM25", "Lucene's BM25: Kamphuis et al., ECIR 2020", (1.0,), 1.0, _bm25),
    Rule("RRF", "Cormack, Clarke and Büttcher, SIGIR 2009, k = 60", (RRF_K,), RRF_K, _rrf),
    Rule("hybrid", "cosine + 0.3 · BM25 share, fixed", (HYBRID_WEIGHT,), None, _hybrid),
    Rule(
        "hybrid, tuned",
        "cosine + w · BM25 share, w chosen on dev: Bruch, Gai and Ingber, TOIS 2023",
        (0.3, 0.0, 0.1, 0.2, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0),
        None,
        _hybrid,
    ),
)
"""Rules that learn nothing from votes."""

GLOBAL_RULES = (
    Rule(
        "±1 clamped 0..100",
        "RAGFlow, chunk_feedback_service.py: pagerank_fea ± 1 in 0..100, added to the score",
        _PER_VOTE,
        1.0,
        partial(_boosted, clamped_votes),
    ),
    Rule(
        "±1 unbounded",
        "helpful minus harmful votes, added to the score",
        _PER_VOTE,
        None,
        partial(_boosted, net_votes),
    ),
    Rule(
        "±1 multiplier",
        "Onyx, translate_boost_count_to_multiplier and db/feedback.py: score · multiplier(net votes)",
        (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        1.0,
        _onyx,
    ),
    Rule(
        "Wilson boost",
        "Wilson, JASA 1927; Evan Miller 2009, How Not To Sort By Average Rating",
        (0.0, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
        None,
        partial(_boosted, wilson_lower_bounds),
    ),
)
"""Rules that learn one number a passage, the same for every query; weight 0 is the plain hybrid."""
