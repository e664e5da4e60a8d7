"""Computes relevance: the chance that a passage answers a question.

    P0 = 1 / (1 + exp(−coefficients · measures))
    P  = (n0 · P0 + S) / (n0 + Σ_t K),   log-odds of P times agreement^(Σ_t K / (n0 + Σ_t K)), odds times R

Votes enter as in a score with several answers (see `rank/score.py`): S and K are those of similar
past queries, R the odds of the votes on the same question. Among the measures is the share that the
passage has of the prior of all candidates. Equal candidates count once in it, so that copies of a
passage have the relevance of the passage alone; and candidates that are few are taken for 50, of which
the others are as near as what unrelated questions find, so that a passage without rivals is not right
for that reason.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.rank.calibration import (
    HALF_ASKED,
    MOST_FARTHER,
    MOST_REACH,
    SHOWN,
    USUALLY_SAID,
    Calibration,
)
from rag_flywheel.rank.score import POOL, Votes
from rag_flywheel.records import Features

Floats = npt.NDArray[np.float64]
_LEAST_REACH = -1.0
_SURE = math.log(1e12)  # the farthest log-odds
_FAR = 30.0  # from where on exp(x) − 1 is exp(x)
_EQUAL = 1e-4  # between copies, whose cosines differ by rounding: of priors, and of log-odds
_KNOWN = 0.99  # the least relevance of a known answer of the very question
_KNOWN_LOG_ODDS = math.log(_KNOWN / (1.0 - _KNOWN))


@dataclass(frozen=True)
class Relevance:
    """The relevance of n hits, and the chance that one of them at least is right."""

    hits: Sequence[float]
    answerable: float


@dataclass(frozen=True)
class Before:
    """What the relevance of n hits is computed from, but for the votes.

    log_odds: of each hit. distinct: the positions of the first 8 that are no copies. answered: the
    log-odds that one hit is right, of a question like none that was asked before.
    """

    log_odds: Sequence[float]
    distinct: Sequence[int]
    answered: float

    @cached_property
    def unvoted(self) -> Relevance:
        """The relevance where there are no votes."""
        after = [min(b, self.answered) for b in self.log_odds]
        if not after:
            return Relevance((), 0.0)
        return Relevance([_chance(a) for a in after], _chance(max(self.answered, *after)))


def log_shares(prior: Floats, rest: float) -> Floats:
    """The logarithm of the share of each of n candidates in the prior of all, float64 (n,).

    prior (n,): up to a constant, as logarithms. The best 50 that are distinct count; where there are
    fewer, `rest` is that of each of the others.
    """
    if not len(prior):
        return prior
    falling = np.sort(prior)[::-1]
    others = falling[1:][falling[:-1] - falling[1:] > _EQUAL][: POOL - 1]
    best = float(falling[0])
    top = max(best, rest)
    total = math.exp(best - top) + float(np.exp(others - top).sum())
    total += (POOL - 1 - len(others)) * math.exp(rest - top)
    found: Floats = prior - (top + math.log(total))
    return found


def distinct_hits(before: Sequence[float]) -> list[int]:
    """The positions of the first 8 hits of which no two are copies, by the log-odds before votes."""
    found: list[int] = []
    for i, log_odds in enumerate(before):
        for j in found:  # for 8 hits all() takes three times as long
            if not abs(log_odds - before[j]) > _EQUAL:
                break
        else:
            found.append(i)
            if len(found) == SHOWN:
                break
    return found


def log_odds_of_any(log_odds: Iterable[float]) -> float:
    """The log-odds that any hit is right, each being right or wrong on its own."""
    # log(exp(x) − 1), x = −log P(no hit is right) = Σ log(1 + odds)
    x = sum([max(z, 0.0) + math.log1p(math.exp(-abs(z))) for z in log_odds])
    if x > _FAR:
        return x
    return math.log(math.expm1(x)) if x > 0.0 else -_SURE


def terms_of_index(dense: Features, shares: Floats, measured: Features) -> Floats:
    """float64 (..., 6): what the coefficients OF_INDEX multiply; dense, shares (...), measured (..., 5).

    shares: the logarithms of shares.
    """
    parts = [np.ones_like(dense), dense, *np.moveaxis(measured[..., :3], -1, 0), shares]
    found: Floats = np.stack(parts, axis=-1).astype(np.float64)
    return found


def terms_of_given(measured: Features) -> Floats:
    """float64 (..., 3): what the coefficients OF_GIVEN multiply; measured (..., 3)."""
    found: Floats = np.stack(
        [np.ones_like(measured[..., 0]), measured[..., 0], measured[..., 2]], axis=-1
    ).astype(np.float64)
    return found


def reach(calibration: Calibration, dense: npt.NDArray[np.floating[Any]]) -> tuple[Floats, Floats]:
    """How far each passage stands out from those that unrelated questions find: `reach`, −1 to 2, and
    `farther`, 0 to 4."""
    far = (dense.astype(np.float64) - calibration.unrelated) / calibration.spread
    near: Floats = np.clip(far, _LEAST_REACH, MOST_REACH)
    beyond: Floats = np.clip(far - MOST_REACH, 0.0, MOST_FARTHER)
    return near, beyond


def before_votes(
    calibration: Calibration, dense: Features, shares: Floats, measured: Features
) -> Before:
    """What the relevance of n passages of the index is computed from.

    dense (n,): that feature; shares (n,): the logarithms of their shares, see `log_shares`; measured
    (n, 5): their MEASURES.
    """
    one, of_dense, cover, missing, length, of_share = calibration.of_index.tolist()
    near = dense.tolist()
    rows = measured.tolist()
    log_odds = [
        one + of_dense * d + of_share * s + cover * c + missing * m + length * n
        for d, s, (c, m, n, _, _) in zip(near, shares.tolist(), rows, strict=True)
    ]
    far = (max(near, default=0.0) - calibration.unrelated) / calibration.spread
    known = max((row[3] for row in rows), default=0.0)
    said = max((row[4] for row in rows), default=0.0)
    return _before(calibration, log_odds, far, known, said)


def before_votes_of_given(calibration: Calibration, measured: Features) -> Before:
    """The same of an application's own candidates, by the measures of their texts, (n, 3).

    How far they stand out, and how many of the question's words any passage has, is not known: that one
    is right is as likely as the hits say.
    """
    one, cover, length = calibration.of_given.tolist()
    log_odds = [one + cover * c + length * n for c, _, n in measured.tolist()]
    distinct = distinct_hits(log_odds)
    return Before(log_odds, distinct, log_odds_of_any(log_odds[i] for i in distinct))


def _before(
    calibration: Calibration, log_odds: list[float], far: float, known: float, said: float
) -> Before:
    """far: how far the nearest hit stands out; known: the share of the question's words that any passage
    has; said: how much the question says."""
    one, of_reach, of_farther, of_any, of_known, of_said, _ = calibration.of_answer.tolist()
    distinct = distinct_hits(log_odds)
    likely = log_odds_of_any(log_odds[i] for i in distinct)
    answered = one + of_reach * min(max(far, _LEAST_REACH), MOST_REACH)
    answered += of_farther * min(max(far - MOST_REACH, 0.0), MOST_FARTHER)
    answered += of_any * likely + of_known * known + of_said * (said - USUALLY_SAID)
    return Before(log_odds, distinct, answered)


def relevance(calibration: Calibration, before: Before, votes: Votes, n0: float) -> Relevance:
    """The relevance of n passages of the index after votes on them; n0: that of the kernel."""
    n0 = n0 if calibration.n0 is None else calibration.n0
    return _relevance(calibration, before, votes, n0, calibration.agreement)


def relevance_of_given(
    calibration: Calibration, before: Before, votes: Votes, n0: float
) -> Relevance:
    """The same of an application's own candidates, to whose votes nothing is fitted."""
    return _relevance(calibration, before, votes, n0, 1.0)


def _relevance(
    calibration: Calibration, before: Before, votes: Votes, n0: float, agreement: float
) -> Relevance:
    """No hit is likelier to be right than that one of them is: what tells a hit from others says little
    of a question that has nothing to do with any."""
    if not before.log_odds or (not votes.any_vote and votes.grades is None):
        return before.unvoted
    weight = float(votes.weight.max())
    of_asked = calibration.answer["asked"]
    answered = before.answered + of_asked * weight / (HALF_ASKED + weight)
    given = [min(b, answered) for b in before.log_odds]
    after = _after_votes(given, votes, n0, agreement)
    answered += log_odds_of_any(after[i] for i in before.distinct)
    answered -= log_odds_of_any(given[i] for i in before.distinct)
    return Relevance([_chance(a) for a in after], _chance(max(answered, *after)))


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
