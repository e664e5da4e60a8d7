"""Rules to compare with where questions come again: Bayes' rule, and a memory without a model.

Like those in `baselines`, they work on arrays; they must not know an index folder, nor the flywheel.
"""

import math

import numpy as np
import numpy.typing as npt

from rag_flywheel.bench.baselines import History, Rule, RuleQueries, ScoreMatrix, hybrid
from rag_flywheel.bench.baselines_by_query import neighbours, vote_counts

OWN_VOTES, MEMORY = "Bayes on own votes", "memory without a model"
SHARPNESS = 6.8  # of the hybrid as the logarithm of a chance
LEAST_EPS = 0.01  # users who are never wrong would make the odds of one vote infinite
MEMORY_NEIGHBOURS = 32
WEIGHTS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
MEMORY_WEIGHT, MEMORY_HARMFUL, MEMORY_THETA, MEMORY_GAMMA = 0.1, 0.3, 0.6, 1.0
Floats = npt.NDArray[np.floating]


def bayes(log_chances: Floats, net_votes: Floats, eps: float) -> npt.NDArray[np.float64]:
    """log_chances + net_votes · log((1 − eps) / eps), float64 in the shape of both.

    That is the chances before any vote times ((1 − eps) / eps)^(helpful − harmful), Bayes' rule for
    independent votes of which a share eps is wrong, whatever they are on; not normalised.
    """
    odds = math.log((1.0 - eps) / eps)
    found: npt.NDArray[np.float64] = np.asarray(log_chances, dtype=np.float64) + odds * net_votes
    return found


def own_votes(eps: float, history: History, asked: RuleQueries) -> ScoreMatrix:
    """Bayes' rule on the votes that a question itself got; the hybrid's order for all other questions.

    The chance before any vote is exp(6.8 · hybrid) up to a constant, which leaves the hybrid's order as
    it is; 6.8 is the weight that the flywheel ships for the cosine. Questions are the same when their
    ids are: it needs `history.query_ids`. eps: the share of wrong votes, which the rule is told.
    """
    net = (vote_counts(history, True) - vote_counts(history, False)).tocsr()
    row_of = {query: row for row, query in enumerate(history.query_ids)}
    scores = SHARPNESS * hybrid(asked.matrices)
    for row, query in enumerate(asked.ids):
        if query in row_of:
            own = net[[row_of[query]]].toarray()[0]
            scores[row] = bayes(scores[row], own, max(eps, LEAST_EPS))
    return scores


def memory_without_a_model(weight: float, history: History, asked: RuleQueries) -> ScoreMatrix:
    """Hybrid + weight · Σ_t K(q, t) · (helpful_t − 0.3 · harmful_t), over the 32 nearest past questions.

    K(q, t) = max(0, (cosine − 0.6) / 0.4): θ 0.6, γ 1. helpful_t and harmful_t are the votes on a passage
    for the past question t, the question itself included. The constants θ, γ, ν 0.3 and the fixed weight
    λ 0.1 were chosen on dev questions of several collections and are the same everywhere; λ by
    `benchmarks/learning/memory_constants.py`.
    """
    near = neighbours(history.votes.query, history, asked, MEMORY_NEIGHBOURS)
    scaled = np.maximum((near.data - MEMORY_THETA) / (1.0 - MEMORY_THETA), 0.0)
    near.data = (scaled**MEMORY_GAMMA).astype(np.float32)
    votes = vote_counts(history, True) - np.float32(MEMORY_HARMFUL) * vote_counts(history, False)
    support: ScoreMatrix = (near @ votes).toarray()
    return hybrid(asked.matrices) + np.float32(weight) * support


def repeated_rules(eps: float) -> tuple[Rule, ...]:
    """These rules, the memory also with a weight chosen on dev; eps: what Bayes' rule is told."""
    return (
        Rule(
            OWN_VOTES,
            "Bayes' rule with the users' true share of wrong votes; weight: that share",
            (eps,),
            None,
            own_votes,
        ),
        Rule(
            MEMORY,
            "hybrid + λ Σ K (helpful − 0.3 harmful) over similar questions; weight: λ",
            (MEMORY_WEIGHT,),
            None,
            memory_without_a_model,
        ),
        Rule(
            f"{MEMORY}, tuned", "the same, λ chosen on dev", WEIGHTS, None, memory_without_a_model
        ),
    )
