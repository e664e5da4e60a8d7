"""Computes relevance: the chance that a passage answers a question, whatever other candidates there are.

    P0 = 1 / (1 + exp(−coefficients · measures))
    P  = (n0 · P0 + S) / (n0 + Σ_t K),   log-odds of P times agreement^(Σ_t K / (n0 + Σ_t K)), odds times R

Votes enter as in a score with several answers (see `rank/score.py`): S and K are those of similar
past queries, R the odds of the votes on the same question. A score is a chance shared out among the
candidates; a relevance is not, so that copies of a passage have the relevance of the passage alone.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.rank.calibration import MOST_REACH, Calibration
from rag_flywheel.rank.score import Votes
from rag_flywheel.records import Features

Floats = npt.NDArray[np.float64]
_LEAST_REACH = -1.0
_SURE = 1e-12
_KNOWN = 0.99  # the least relevance of a known answer of the very question
_KNOWN_LOG_ODDS = math.log(_KNOWN / (1.0 - _KNOWN))


@dataclass(frozen=True)
class Relevance:
    """The relevance of n hits, float64 (n,), and the chance that one of them at least is right."""

    hits: Floats
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
    at = calibration.of_index
    before = at[0] + at[1] * dense.astype(np.float64) + measured.astype(np.float64) @ at[2:]
    one, far, likely = calibration.of_answer
    of_answer = one + far * reach(calibration, dense) + likely * before
    n0 = n0 if calibration.n0 is None else calibration.n0
    return _relevance(before, of_answer, after_votes(before, votes, n0, calibration.agreement))


def relevance_of_given(
    calibration: Calibration, measured: Features, votes: Votes, n0: float
) -> Relevance:
    """The relevance of an application's own candidates, by the measures of their texts, (n, 3).

    How far they stand out is not known, and counts as if it was enough.
    """
    before = terms_of_given(measured) @ calibration.of_given
    one, far, likely = calibration.of_answer
    after = after_votes(before, votes, n0, 1.0)
    return _relevance(before, one + far * MOST_REACH + likely * before, after)


def after_votes(before: Floats, votes: Votes, n0: float, agreement: float) -> Floats:
    """The log-odds after the votes, (n,), of log-odds before them."""
    moved = (votes.weight > 0.0) | (votes.log_odds != 0.0) | (votes.support > 0.0)
    if not moved.any():
        return _with_known(before, votes)
    said = np.maximum(votes.weight, votes.support)
    chance = np.clip((n0 * _chance(before) + votes.support) / (n0 + said), _SURE, 1.0 - _SURE)
    named = np.clip(votes.least, _SURE, 1.0 - _SURE)
    found: Floats = (np.log(chance) - np.log1p(-chance)) * agreement ** (said / (n0 + said))
    found = np.maximum(found, np.log(named) - np.log1p(-named)) + votes.log_odds
    return _with_known(np.where(moved, found, before), votes)


def _with_known(log_odds: Floats, votes: Votes) -> Floats:
    """The log-odds, of known answers of the very question at least those of _KNOWN."""
    if votes.grades is None:
        return log_odds
    return np.where(votes.grades > 0.0, np.maximum(log_odds, _KNOWN_LOG_ODDS), log_odds)


def _relevance(before: Floats, of_answer: Floats, after: Floats) -> Relevance:
    """before, after: the log-odds of each hit before and after the votes; of_answer: those of the answer
    before them, if the hit was its best."""
    if not len(before):
        return Relevance(before, 0.0)
    best = max(float((of_answer + after - before).max()), float(after.max()))
    return Relevance(_chance(after), 1.0 / (1.0 + math.exp(-min(max(best, -700.0), 700.0))))


def _chance(log_odds: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(np.minimum(-log_odds, 700.0)))
    return found
