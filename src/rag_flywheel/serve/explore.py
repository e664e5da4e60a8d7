"""Explores within a cap: the last place of some answers goes to a passage from below, for its votes.

What is never shown is never voted on. This module chooses the passage whose verdict would teach most,
says where there is nothing to learn, and keeps to the cap; it must not know texts, nor the store.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from rag_flywheel.rank.evidence import Evidence
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.posterior import NOISE_LIMIT, Rates
from rag_flywheel.rank.score import chance_of
from rag_flywheel.records import Pids, Scores

_DEEPEST = 100  # candidates below the shown ones that are compared, the best
_CLEAR = 0.9  # chance of the best hit, after votes on the question, from which no more are needed
_ENOUGH = 2.0  # net votes on a passage for the question, after which it needs no more
_LEAST = 1e-3  # chance below which a verdict is as good as known
_MOST = 0.9  # largest probability of giving a place away, so that either outcome can be seen


class Allowance:
    """What remains of the share of recorded answers that may give their last place away.

    Each answer adds `share`, and one that has something to learn spends what there is, at most 0.9. So
    the probabilities add up to at most share times the number of answers, at any time; what answers do
    not need that have nothing to learn is spent on the next that do, which are those whose questions
    are asked without a clear answer. Thread-safe; each process has its own.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._left = 0.0
        self._lock = threading.Lock()

    def spend(self, *, useful: bool) -> float:
        """The probability of giving the last place of one answer away; 0 where that is not useful."""
        with self._lock:
            self._left = min(self._left + self.share, 1.0)
            spent = min(self._left, _MOST) if useful else 0.0
            self._left -= spent
            return spent


def drawn(retrieval_id: str, probability: float) -> bool:
    """Whether the answer with this id gives its last place away: the same for the same id."""
    digest = hashlib.blake2b(retrieval_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < probability * 2.0**64


def passage_to_explore(
    scores: Scores,
    lineages: Pids,
    evidence: Evidence,
    parameters: Parameters,
    shown: Sequence[int],
    below: Sequence[int],
    times: Mapping[int, int],
) -> int | None:
    """The candidate below the shown ones whose verdict would teach most; None: nothing is to be learned.

    What a verdict would teach is divided by one more than how often the passage was explored for this
    question already: users do not vote on most of what they are shown, and others get their turn.

    shown, below: positions in scores float64 (n,) and lineages (n,), the best first. With one hit there
    is no last place beside the best one: a user would be shown something else instead of the answer.
    times: how often each lineage was explored for the question.
    """
    if len(shown) < 2 or not below or is_clear(scores, lineages, evidence, parameters, shown[0]):
        return None
    if int(lineages[shown[-1]]) in evidence.known or parameters.rates.noise > NOISE_LIMIT:
        return None
    others = np.array(below[:_DEEPEST], dtype=np.int64)
    chances = np.array([chance_of(score, parameters.answers) for score in scores[others].tolist()])
    by_helpful, by_harmful = parameters.rates.log_odds
    said = evidence.log_odds(lineages[others])
    enough = (said >= _ENOUGH * by_helpful) | (said <= _ENOUGH * by_harmful)
    seen = np.array([times.get(lineage, 0) for lineage in lineages[others].tolist()])
    worth = taught(chances, parameters.rates) / (1.0 + seen)
    worth[enough | (chances < _LEAST)] = 0.0
    best = int(worth.argmax())
    return int(others[best]) if worth[best] > 0.0 else None


def is_clear(
    scores: Scores, lineages: Pids, evidence: Evidence, parameters: Parameters, best: int
) -> bool:
    """Whether relevance is clear: an answer of the very question is known, or votes on the question (or
    on near-duplicates) speak for the best hit, and its chance is at least 0.9."""
    if evidence.own:
        return True
    voted_for = float(evidence.log_odds(lineages[[best]])[0]) > 0.0
    return voted_for and chance_of(float(scores[best]), parameters.answers) >= _CLEAR


def taught(chances: Scores, rates: Rates) -> Scores:
    """What one vote is expected to teach about passages with these chances to be right, in nats, (n,).

    The mutual information of verdict and relevance, H(verdict) − E[H(verdict | relevance)]: Lindley, On
    a Measure of the Information Provided by an Experiment (Annals of Mathematical Statistics, 1956).
    It is 0 at chances 0 and 1, and rises between 0 and about one half.
    """
    helpful = chances * (1.0 - rates.false_harmful) + (1.0 - chances) * rates.false_helpful
    right, wrong = _entropy(np.array([rates.false_harmful, rates.false_helpful])).tolist()
    found: Scores = np.maximum(_entropy(helpful) - chances * right - (1.0 - chances) * wrong, 0.0)
    return found


def _entropy(p: Scores) -> Scores:
    p = np.clip(p, 1e-12, 1.0 - 1e-12)
    found: Scores = -(p * np.log(p) + (1.0 - p) * np.log1p(-p))
    return found
