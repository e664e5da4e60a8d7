"""Computes relevance: the chance that a passage answers a question, whatever other candidates there are.

    P0 = 1 / (1 + exp(−coefficients · measures))
    P  = (n0 · P0 + S) / (n0 + Σ_t K),   log-odds of P times agreement^(Σ_t K / (n0 + Σ_t K)), odds times R

Votes enter as in a score with several answers (see `rank/score.py`): S and K are those of similar
past queries, R the odds of the votes on the same question. A score is a chance shared out among the
candidates; a relevance is not, so that copies of a passage have the relevance of the passage alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.rank.calibration import MOST_REACH, Calibration
from rag_flywheel.rank.score import Votes
from rag_flywheel.records import Features

Floats = npt.NDArray[np.float64]
_LEAST_REACH = -1.0
_SURE = math.log(1e12)  # the farthest log-odds
_KNOWN = 0.99  # the least relevance of a known answer of the very question
_KNOWN_LOG_ODDS = math.log(_KNOWN / (1.0 - _KNOWN))


@dataclass(frozen=True)
class Relevance:
    """The relevance of n hits, and the chance that one of them at least is right."""

    hits: Sequence[float]
    answerable: float


def terms_of_index(dense: Features, measured: Features) -> Floats:
    """float64 (..., 5): what the coefficients OF_INDEX multiply; dense (...), measured (..., 3)."""
    parts = [np.ones_like(dense)[..., None], dense[..., None], measured]
    found: Floats = np.concatenate(parts, axis=-1).astype(np.float64)
    return found


def terms_of_given(measured: Features) -> Floats:
    """float64 (..., 3): what the coefficients OF_GIVEN multiply; measured (..., 3)."""
    found: Floats = np.stack(
        [np.ones_like(measured[..., 0]), measured[..., 0], measured[..., 2]], axis=-1
    ).astype(np.float64)
    return found


def reach(calibration: Calibration, dense: npt.NDArray[np.floating[Any]]) -> Floats:
    """How far each passage stands out from those that unrelated questions find, −1 to 2."""
    far = (dense.astype(np.float64) - calibration.unrelated) / calibration.spread
    found: Floats = np.minimum(np.maximum(far, _LEAST_REACH), MOST_REACH)
    return found


def relevance(
    calibration: Calibration, dense: Features, measured: Features, votes: Votes, n0: float
) -> Relevance:
    """The relevance of passages of the index, by their feature `dense` (n,), and measures (n, 3)."""
    one, of_dense, cover, missing, length = calibration.of_index.tolist()
    near = dense.tolist()
    before = [
        one + of_dense * d + cover * c + missing * m + length * n
        for d, (c, m, n) in zip(near, measured.tolist(), strict=True)
    ]
    far = [(d - calibration.unrelated) / calibration.spread for d in near]
    n0 = n0 if calibration.n0 is None else calibration.n0
    after = _after_votes(before, votes, n0, calibration.agreement)
    return _relevance(calibration, before, after, far)


def relevance_of_given(
    calibration: Calibration, measured: Features, votes: Votes, n0: float
) -> Relevance:
    """The relevance of an application's own candidates, by the measures of their texts, (n, 3).

    How far they stand out is not known, and counts as if it was enough.
    """
    one, cover, length = calibration.of_given.tolist()
    before = [one + cover * c + length * n for c, _, n in measured.tolist()]
    after = _after_votes(before, votes, n0, 1.0)
    return _relevance(calibration, before, after, [MOST_REACH] * len(before))


def _relevance(
    calibration: Calibration, before: list[float], after: list[float], far: list[float]
) -> Relevance:
    """before, after: the log-odds of each hit before and after the votes; far: how far it stands out."""
    if not before:
        return Relevance((), 0.0)
    one, of_reach, likely = calibration.of_answer.tolist()
    best = max(
        one + of_reach * min(max(r, _LEAST_REACH), MOST_REACH) + likely * b + a - b
        for b, a, r in zip(before, after, far, strict=True)
    )
    return Relevance([_chance(a) for a in after], _chance(max(best, *after)))


def _after_votes(before: list[float], votes: Votes, n0: float, agreement: float) -> list[float]:
    """The log-odds after the votes of log-odds before them. Few numbers: numpy would take longer."""
    found = before
    if votes.any_vote:
        of_each = (votes.support, votes.weight, votes.log_odds, votes.least)
        each = zip(before, *(values.tolist() for values in of_each), strict=True)
        found = [
            _moved(b, (s, w, odds, least), n0, agreement) if s > 0.0 or w > 0.0 or odds else b
            for b, s, w, odds, least in each
        ]
    if votes.grades is None:
        return found
    known = zip(found, votes.grades.tolist(), strict=True)
    return [max(after, _KNOWN_LOG_ODDS) if grade > 0.0 else after for after, grade in known]


def _moved(
    before: float, votes: tuple[float, float, float, float], n0: float, agreement: float
) -> float:
    """The log-odds of one passage after the votes on similar queries and on the same question.

    votes: as in Votes: support, weight, log_odds and least.
    """
    support, weight, log_odds, least = votes
    said = max(weight, support)
    chance = (n0 * _chance(before) + support) / (n0 + said)
    similar = _log_odds(chance) * math.pow(agreement, said / (n0 + said))
    return max(similar, _log_odds(least)) + log_odds


def _chance(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(min(-log_odds, 700.0)))


def _log_odds(chance: float) -> float:
    if not 0.0 < chance < 1.0:
        return _SURE if chance > 0.0 else -_SURE
    return min(max(math.log(chance) - math.log1p(-chance), -_SURE), _SURE)
