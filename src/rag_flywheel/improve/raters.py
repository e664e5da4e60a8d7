"""Estimates how far each voter can be trusted, from how votes agree with each other and with chances.

Each voter u calls a right passage helpful with probability sensitivity_u, and a wrong one harmful with
probability specificity_u; which passages are right is estimated along with them by expectation
maximisation (Dawid and Skene, Applied Statistics 1979). Both rates have a Beta prior around those of
all voters, so that few votes say little. The weight of a voter is the log-odds of their balanced
accuracy, the mean of the two rates, as a share of that of all voters: 1 for an ordinary one, 0 for one
whose votes tell nothing or the opposite. Nobody's votes are turned round.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rag_flywheel.improve.examples import Floats, Ints

USUAL = 0.8  # the accuracy of all voters, before any vote
IMAGINED = 4.0  # votes on right passages, and as many on wrong ones, that a voter's prior is worth
MOST_WEIGHT = 2.0
TOLERATED = 0.2
CLEARLY = 2.0  # standard errors by which a voter must differ from all voters
LEAST_ACCURACY = 0.54  # of those who are believed, on other passages; tossed coins have up to 0.52
KNOWN_FLOOR = 0.3  # the least weight of those who are right about known answers
LEAST_VOTERS = 5  # with fewer there is nobody to compare with
_HALF = 0.5
_MANY_KNOWN = 20  # passages that are known to be right or wrong, which decide against any majority
_KNOWN_ENOUGH, _KNOWN_RIGHT = 4.0, 0.7
_ROUNDS, _NEWTON = 50, 20
_FIRST, _SLOPE = 5, 0.5
_RIDGE = 1.0
_LEAST_RIGHT = 0.03
_TOLERANCE = 1e-4
_EXTREME = 1e-3
_SURE = 12.0  # the log-odds of passages that are known to be right


@dataclass(frozen=True)
class Ballots:
    """n votes by m voters on k passages, each passage as the answer of one question.

    voter, passage int64 (n,): who voted on what; helpful bool (n,); counts (n,): how much of a vote it
    is as a sign of its voter's accuracy, 0 to 1; chances (k,): of the passages to be right, before
    these votes; known (k,): 1 or 0 for those that are known to be right or wrong, else nan.
    """

    voter: Ints
    passage: Ints
    helpful: npt.NDArray[np.bool_]
    counts: Floats
    chances: Floats
    known: Floats


@dataclass(frozen=True)
class Accuracy:
    """The estimates for m voters, (m,) each: the two rates, the standard error of their mean, and the
    weights of their votes.

    before, right (k,): the chance of each passage to be right, before the votes on its question and
    after them.
    """

    sensitivity: Floats
    specificity: Floats
    error: Floats
    weight: Floats
    before: Floats
    right: Floats

    @property
    def balanced(self) -> Floats:
        """The mean of both rates, 0.5 for votes that tell nothing."""
        return 0.5 * (self.sensitivity + self.specificity)


def accuracy_of(ballots: Ballots) -> Accuracy:
    """The accuracy and the weight of every voter.

    All weigh 1 where votes do not tell who is accurate, and where most voters would be disbelieved: then
    it is the chances that are wrong, or there is nobody to compare with.
    """
    found = _fitted(ballots)
    counts = _counts(ballots, found.right[ballots.passage], found.n)
    weight, errors = np.ones(found.n), _errors(found, counts)
    if found.n >= LEAST_VOTERS and accuracy_on_others(ballots) >= LEAST_ACCURACY:
        usual = 0.5 * sum(_usual(counts, found.believed))
        own = _weights(found, counts, errors, usual)
        if np.mean(own >= _HALF) > _HALF or np.sum(~np.isnan(ballots.known)) >= _MANY_KNOWN:
            weight = own
        weight = np.where(_knows(ballots, found.n), np.maximum(weight, KNOWN_FLOOR), weight)
    before = _expit(found.prior)
    return Accuracy(found.sensitivity, found.specificity, errors, weight, before, found.right)


@dataclass(frozen=True)
class _Fitted:
    """The rates of m voters, (m,), and the chances of passages and their log-odds before votes, (k,)."""

    sensitivity: Floats
    specificity: Floats
    right: Floats
    prior: Floats

    @property
    def n(self) -> int:
        return len(self.sensitivity)

    @property
    def believed(self) -> Floats:
        """How far each voter is believed, from 0 to 1."""
        found: Floats = np.clip(
            (self.sensitivity + self.specificity - 1.0) / (2.0 * USUAL - 1.0), 0.0, 1.0
        )
        return found


def _fitted(ballots: Ballots) -> _Fitted:
    """The likeliest rates of all voters, by expectation maximisation."""
    n = int(ballots.voter.max(initial=-1)) + 1
    chances = _logit(np.clip(ballots.chances, _EXTREME, 1.0 - _EXTREME))
    first = _at_first(ballots, chances)
    at = _Fitted(np.full(n, USUAL), np.full(n, USUAL), np.empty(0), first)
    for round_ in range(_ROUNDS):
        said = _said(ballots, at.sensitivity, at.specificity)
        right = _expit(_log_odds(ballots, at.prior, said))
        counts = _counts(ballots, right[ballots.passage], n)
        said_right, of_right, said_wrong, of_wrong = counts
        usual = _usual(counts, at.believed)
        still = len(at.right) and np.abs(right - at.right).max(initial=0.0) < _TOLERANCE
        at = _Fitted(
            _shrunk(said_right, of_right, usual[0]),
            _shrunk(said_wrong, of_wrong, usual[1]),
            right,
            # until it shows who is to be believed, the chances are
            at.prior if round_ < _FIRST else _calibrated(ballots, chances, at.believed),
        )
        if still and round_ > _FIRST:
            break
    return at


def _at_first(ballots: Ballots, chances: Floats) -> Floats:
    """The log-odds of passages to be right as the chances order them, about half of them; (k,)."""
    centre = float(np.median(chances)) if len(chances) else 0.0
    found: Floats = np.clip(_SLOPE * (chances - centre), -2.0, 2.0)
    return found


def accuracy_on_others(ballots: Ballots) -> float:
    """The balanced accuracy of those who are believed for their votes on one half of the passages, on the
    other half, by the votes of others there: 0.5 where chance alone tells whom to believe."""
    half = np.random.default_rng(0).permutation(len(ballots.chances)) % 2
    found = []
    for own in (0, 1):
        fitted = _fitted(_part(ballots, half == own))
        other = _part(ballots, half != own)
        said = _said(other, fitted.sensitivity, fitted.specificity)
        right = _expit(_log_odds(other, fitted.prior, said)[other.passage] - said)
        found.append(0.5 * sum(_usual(_counts(other, right, fitted.n), fitted.believed)))
    return 0.5 * sum(found)


def _part(ballots: Ballots, passages: npt.NDArray[np.bool_]) -> Ballots:
    """The ballots in which votes on other passages count for nothing."""
    return replace(ballots, counts=ballots.counts * passages[ballots.passage])


def _usual(counts: tuple[Floats, Floats, Floats, Floats], believed: Floats) -> tuple[float, float]:
    """The two rates of all voters together, as far as each of them is believed, from 0 to 1: those of the
    others when many are not."""
    said_right, of_right, said_wrong, of_wrong = (float((each * believed).sum()) for each in counts)
    return (
        (said_right + IMAGINED * USUAL) / (of_right + IMAGINED),
        (said_wrong + IMAGINED * USUAL) / (of_wrong + IMAGINED),
    )


def _said(ballots: Ballots, sensitivity: Floats, specificity: Floats) -> Floats:
    """What each vote adds to the log-odds of its passage, (n,)."""
    sens = np.clip(sensitivity, _EXTREME, 1.0 - _EXTREME)[ballots.voter]
    spec = np.clip(specificity, _EXTREME, 1.0 - _EXTREME)[ballots.voter]
    said = np.where(ballots.helpful, np.log(sens / (1.0 - spec)), np.log((1.0 - sens) / spec))
    found: Floats = said * ballots.counts
    return found


def _log_odds(ballots: Ballots, prior: Floats, said: Floats) -> Floats:
    """The log-odds of each passage to be right, (k,)."""
    total = prior + np.bincount(ballots.passage, said, minlength=len(prior))
    known = np.where(ballots.known > 0.5, _SURE, -_SURE)
    found: Floats = np.where(np.isnan(ballots.known), total, known)
    return found


def _counts(ballots: Ballots, on_right: Floats, n: int) -> tuple[Floats, Floats, Floats, Floats]:
    """For each voter: right passages called helpful, right ones, wrong ones called harmful, wrong ones;
    on_right (n,): the chance of each vote's passage to be right."""
    on_right = ballots.counts * on_right
    on_wrong = ballots.counts - on_right

    def of(values: Floats) -> Floats:
        return np.bincount(ballots.voter, values, minlength=n).astype(np.float64)

    return (
        of(on_right * ballots.helpful),
        of(on_right),
        of(on_wrong * ~ballots.helpful),
        of(on_wrong),
    )


def _shrunk(agreed: Floats, of: Floats, usual: float) -> Floats:
    found: Floats = (agreed + IMAGINED * usual) / (of + IMAGINED)
    return found


def _calibrated(ballots: Ballots, chances: Floats, believed: Floats) -> Floats:
    """The log-odds of passages to be right, (k,), by how often those of such chances are called helpful.

    A share of helpful votes of f stands for (f - (1 - USUAL)) / (2 USUAL - 1): with one vote on most
    passages, votes alone leave it open whether voters err often or right passages are rare. f is a
    logistic regression on the log-odds of the chances, by Newton's method.
    """
    x = np.stack([np.ones(len(ballots.voter)), chances[ballots.passage]])
    weight = ballots.counts * believed[ballots.voter]
    at = np.zeros(2)
    for _ in range(_NEWTON):
        expected = _expit(at @ x)
        gradient = x @ (weight * (ballots.helpful - expected)) - _RIDGE * at
        curve = (x * (weight * expected * (1.0 - expected))) @ x.T + _RIDGE * np.eye(2)
        step = np.linalg.solve(curve, gradient)
        at = at + step
        if np.abs(step).max() < _TOLERANCE:
            break
    share = _expit(at[0] + max(at[1], 0.0) * chances)
    right = (share - (1.0 - USUAL)) / (2.0 * USUAL - 1.0)
    found: Floats = _logit(np.clip(right, _LEAST_RIGHT, 1.0 - _LEAST_RIGHT))
    return found


def _errors(found: _Fitted, counts: tuple[Floats, Floats, Floats, Floats]) -> Floats:
    """The standard errors of the balanced accuracies, (m,)."""
    _, of_right, _, of_wrong = counts
    errors: Floats = 0.5 * np.sqrt(
        found.sensitivity * (1.0 - found.sensitivity) / (of_right + IMAGINED)
        + found.specificity * (1.0 - found.specificity) / (of_wrong + IMAGINED)
    )
    return errors


def _weights(
    found: _Fitted, counts: tuple[Floats, Floats, Floats, Floats], errors: Floats, usual: float
) -> Floats:
    """The weights by balanced accuracy, 1 for those who differ from all voters by less than two standard
    errors: weights by chance alone would cost more than they give. A worse one weighs 1 too while they
    keep TOLERATED of what others know beyond tossing coins, since a minority that wants other answers
    looks so; below, it falls to 0 for votes that tell nothing."""
    said_right, of_right, said_wrong, of_wrong = counts
    shrunk = 0.5 * (found.sensitivity + found.specificity)
    # what is clear is taken as it is, without the votes that were imagined
    plain = 0.5 * (_share(said_right, of_right, usual) + _share(said_wrong, of_wrong, usual))
    accuracy = np.where(np.abs(shrunk - usual) > CLEARLY * errors, plain, usual)
    own = _logit(np.clip(accuracy, _EXTREME, 1.0 - _EXTREME))
    top = float(_logit(np.clip(usual, _EXTREME, 1.0 - _EXTREME)))
    tolerated = float(_logit(0.5 + TOLERATED * (np.clip(usual, 0.5 + _EXTREME, 1.0) - 0.5)))
    weights: Floats = np.where(own > top, own / top, np.clip(own / tolerated, 0.0, 1.0))
    return np.minimum(weights, MOST_WEIGHT)


def _share(agreed: Floats, of: Floats, without: float) -> Floats:
    """The share of votes that agree; `without` any, this."""
    found: Floats = np.where(of > _TOLERANCE, agreed / np.maximum(of, _TOLERANCE), without)
    return found


def _knows(ballots: Ballots, n: int) -> npt.NDArray[np.bool_]:
    """Which voters are right about known answers."""
    there = ~np.isnan(ballots.known[ballots.passage])
    agree = ballots.helpful == (ballots.known[ballots.passage] > 0.5)
    votes = np.bincount(ballots.voter, ballots.counts * there, minlength=n)
    agreed = np.bincount(ballots.voter, ballots.counts * (there & agree), minlength=n)
    found: npt.NDArray[np.bool_] = (votes >= _KNOWN_ENOUGH) & (agreed >= _KNOWN_RIGHT * votes)
    return found


def _expit(x: Floats) -> Floats:
    from scipy.special import expit  # a quarter of a second, which commands that learn nothing save

    found: Floats = expit(x)
    return found


def _logit(share: Floats | float) -> Floats:
    from scipy.special import logit

    found: Floats = logit(share)
    return found
