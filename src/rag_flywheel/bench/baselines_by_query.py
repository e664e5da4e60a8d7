"""Rules to compare with that depend on the query: Rocchio, LADER, and a query adapter.

Like those in `baselines`, they work on arrays; they must not know an index folder, nor the flywheel.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from rag_flywheel.bench.baselines import History, Matrices, Rule, RuleQueries, ScoreMatrix, hybrid
from rag_flywheel.records import Vectors

ROCCHIO_NEIGHBOURS, ROCCHIO_BETA, ROCCHIO_GAMMA = 5, 0.75, 0.15
LADER_NEIGHBOURS = 10
ADAPTER_EPOCHS, ADAPTER_BATCH, ADAPTER_RATE, ADAPTER_SEED = 4, 64, 3e-4, 0
_ROWS = 1024  # queries compared with all past queries at once: bounds memory

Counts: TypeAlias = Any
"""scipy.sparse.csr_array, float32 (n_train, n_passages): votes of one kind by train query and passage."""


def rocchio(weight: float, history: History, asked: RuleQueries) -> ScoreMatrix:
    """Hybrid scores of q + weight · (0.75 · mean helpful − 0.15 · mean harmful passage vector), made unit.

    The means run over the votes of the 5 nearest past queries with votes; BM25 keeps the words asked.
    Rocchio (1971, "Relevance feedback in information retrieval", in The SMART Retrieval System); 0.75
    and 0.15 after Manning, Raghavan and Schütze (2008), Introduction to Information Retrieval, 9.1.1.
    """
    near = neighbours(history.votes.query, history, asked, ROCCHIO_NEIGHBOURS)
    near.data[:] = 1.0
    helpful = _mean_vectors(near @ vote_counts(history, True), history.passage_vectors)
    harmful = _mean_vectors(near @ vote_counts(history, False), history.passage_vectors)
    shift = ROCCHIO_BETA * helpful - ROCCHIO_GAMMA * harmful
    shifted = asked.vectors + weight * shift
    return _hybrid_of(shifted.astype(np.float32), history, asked)


def lader(weight: float, history: History, asked: RuleQueries) -> ScoreMatrix:
    """(1 − weight) · hybrid + weight · memory, each scaled to 0..1 within its query.

    Memory of a passage: Σ cosine to the past query, at least 0, over its helpful votes from the 10
    nearest past queries with a helpful vote. Jin, Shin and Lu (SIGIR 2023, arXiv 2304.04590), "LADER:
    Log-Augmented DEnse Retrieval": the average (weight 0.5) of the document's own score and the scores
    of similar queries' clicks weighted by similarity. The number of neighbours and the scaling by
    query are choices made here, as is the hybrid in place of the dense score.
    """
    votes = history.votes
    near = neighbours(votes.query[votes.helpful], history, asked, LADER_NEIGHBOURS)
    memory = (near @ vote_counts(history, True)).toarray()
    mixed = (1.0 - weight) * _min_max(hybrid(asked.matrices)) + weight * _min_max(memory)
    return mixed.astype(np.float32)


def query_adapter(weight: float, history: History, asked: RuleQueries) -> ScoreMatrix:
    """Hybrid scores of q W, made unit, with W from `fit_adapter(history, weight)`; weight 0: of q."""
    if weight == 0.0:
        return hybrid(asked.matrices)
    return _hybrid_of(asked.vectors @ fit_adapter(history, weight), history, asked)


def fit_adapter(history: History, scale: float) -> npt.NDArray[np.float32]:
    """float32 (dim, dim): W that moves q W near the passages voted helpful for q; starts at identity.

    Mean of −log softmax(scale · q W · p) at the helpful passage, over all passages voted helpful in the
    batch and those voted harmful by its queries; Adam, 4 epochs. LlamaIndex, `LinearLayer` (identity,
    no bias) of its embedding adapter, trained there with sentence-transformers' multiple negatives
    ranking loss at scale 20; harmful passages as negatives after Sanjeev and Troynikov (Chroma, 2024),
    "Embedding Adapters". Deterministic for one number of BLAS threads.
    """
    helpful = np.flatnonzero(history.votes.helpful)
    harmful = vote_counts(history, False)
    adapter = np.eye(history.query_vectors.shape[1], dtype=np.float32)
    mean, square = np.zeros_like(adapter), np.zeros_like(adapter)
    rng = np.random.default_rng(ADAPTER_SEED)
    n_batches = -(-len(helpful) // ADAPTER_BATCH)
    step = 0
    for _ in range(ADAPTER_EPOCHS if n_batches else 0):
        for batch in np.array_split(rng.permutation(helpful), n_batches):
            gradient = adapter_gradient(adapter, history, harmful, batch, scale)
            step += 1
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            spread = np.sqrt(square / (1 - 0.999**step)) + 1e-8
            adapter -= ADAPTER_RATE * (mean / (1 - 0.9**step)) / spread
    return adapter


def adapter_gradient(
    adapter: npt.NDArray[np.float32],
    history: History,
    harmful: Counts,
    batch: npt.NDArray[np.int64],
    scale: float,
) -> npt.NDArray[np.float32]:
    """float32 (dim, dim): gradient of the mean loss of a batch of helpful votes; see `fit_adapter`."""
    queries, passages = history.votes.query[batch], history.votes.passage[batch]
    rejected = harmful[queries].indices
    pool, place = np.unique(np.concatenate([passages, rejected]), return_inverse=True)
    q, p = history.query_vectors[queries], history.passage_vectors[pool]
    logits = scale * (q @ adapter @ p.T)
    wrong = np.exp(logits - logits.max(axis=1, keepdims=True))
    wrong /= wrong.sum(axis=1, keepdims=True)
    wrong[np.arange(len(batch)), place[: len(batch)]] -= 1.0
    gradient: npt.NDArray[np.float32] = (scale / len(batch)) * (q.T @ (wrong @ p))
    return gradient


def neighbours(train: npt.NDArray[np.int64], history: History, asked: RuleQueries, k: int) -> Any:
    """csr (n_queries, n_train): cosines, at least 0, to the k nearest of these train queries."""
    voted = np.unique(train)
    k = min(k, len(voted))
    rows, columns, cosines = [], [], []
    for start in range(0, len(asked.vectors) if k else 0, _ROWS):
        close = asked.vectors[start : start + _ROWS] @ history.query_vectors[voted].T
        best = np.argpartition(-close, k - 1, axis=1)[:, :k]
        rows.append(np.repeat(np.arange(start, start + len(close)), k))
        columns.append(voted[best].ravel())
        cosines.append(np.take_along_axis(close, best, axis=1).ravel())
    shape = (len(asked.vectors), len(history.query_vectors))
    if not rows:
        return sparse.csr_array(shape, dtype=np.float32)
    data = np.maximum(np.concatenate(cosines), 0.0)
    return sparse.csr_array((data, (np.concatenate(rows), np.concatenate(columns))), shape=shape)


def vote_counts(history: History, helpful: bool) -> Counts:
    """csr (n_train, n_passages): how many helpful, or harmful, votes each cell has."""
    chosen = history.votes.helpful == helpful
    cells = history.votes.query[chosen], history.votes.passage[chosen]
    shape = (len(history.query_vectors), len(history.passage_ids))
    return sparse.csr_array((np.ones(len(cells[0]), np.float32), cells), shape=shape)


def _mean_vectors(counts: Counts, vectors: Vectors) -> Vectors:
    """Mean of the rows of `vectors`, weighted by each row of counts; 0 where the counts are."""
    total = np.asarray(counts.sum(axis=1)).reshape(-1, 1)
    summed: Vectors = counts @ vectors
    means: Vectors = np.divide(summed, total, out=np.zeros_like(summed), where=total > 0)
    return means


def _hybrid_of(vectors: Vectors, history: History, asked: RuleQueries) -> ScoreMatrix:
    """Hybrid scores of queries with these vectors (made unit) and the words of those asked."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(lengths, 1e-12)
    cosines: ScoreMatrix = unit @ history.passage_vectors.T
    return hybrid(Matrices(cosines, asked.matrices.bm25))


def _min_max(scores: ScoreMatrix) -> ScoreMatrix:
    """Each row scaled to 0..1; a row of equal scores becomes 0."""
    low = scores.min(axis=1, keepdims=True)
    span = scores.max(axis=1, keepdims=True) - low
    scaled: ScoreMatrix = np.divide(scores - low, span, out=np.zeros_like(scores), where=span > 0)
    return scaled


BY_QUERY_RULES = (
    Rule(
        "Rocchio, 5 past queries",
        "Rocchio 1971; β 0.75, γ 0.15: Manning, Raghavan and Schütze 2008, 9.1.1",
        (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0),
        1.0,
        rocchio,
    ),
    Rule(
        "LADER on hybrid",
        "Jin, Shin and Lu, SIGIR 2023, arXiv 2304.04590: average with the clicks of similar queries",
        (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7),
        0.5,
        lader,
    ),
    Rule(
        "query adapter + BM25",
        "LlamaIndex, embeddings/adapter/utils.py LinearLayer; Chroma 2024, Embedding Adapters",
        (0.0, 20.0, 40.0, 10.0, 5.0),
        20.0,
        query_adapter,
    ),
)
"""Rules that learn from past queries; weight 0 is the plain hybrid."""
