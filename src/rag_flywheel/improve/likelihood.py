"""Computes the likelihood of votes, the model that all parameters are fitted by.

A vote on a wrong passage says "helpful" with probability false_helpful, one on a right passage says
"harmful" with probability false_harmful. So votes on a passage multiply its odds by

    R(p) = ((1 − false_harmful) / false_helpful)^helpful(p) · (false_harmful / (1 − false_helpful))^harmful(p)

and, up to what does not depend on the chances P(p) of the candidates of a query,

    one answer:       log P(votes on q) = log Σ_p P(p) · R(p)
    several answers:  log P(votes on q) = Σ_p log(P(p) · R(p) + 1 − P(p))

With one answer p is any passage: the chance that P gives to other passages than the candidates counts
as without votes. With several answers each passage is right or wrong on its own. Their number is
Poisson, with mean `answers`, shared out by the prior π: P(p) = 1 − exp(−answers · π(p)). All votes
together determine which of the two models holds, and both rates. Hits without votes need no model:
which hits users read does not change the sum.

The passages that an answer is written from do change it, for whoever wrote it chose well, or tried
to. A passage with a part in a judged answer has exp(choice · part) times the share that P gives it,
in the likelihood of the votes. Without that, good answers would look like errors of users, who
call helpful what P holds for unlikely. And a user who names a passage picks one of all candidates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rag_flywheel.improve.examples import Examples, Floats, n_with_feature
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.posterior import CORRECTION_WEIGHT, LEAST_CHANCE, Rates

LARGEST_NOISE = 0.4995
SHARPNESS = 0.05, 20.0
MOST_CHOICE = 12.0
_SHARPNESS_SPREAD = 1.0  # of the Gaussian of its logarithm, around that of the weights as given
_CHOICE_SPREAD = 3.0  # of the Gaussian around no choice at all
_ANSWERS_SPREAD = 2.0  # of the Gaussian of the logarithm of their number, around one
_ANSWERS = 0.05, 500.0
_CALIBRATION_SPREADS = 2.0, 2.0  # of the Gaussians of a and b in a + b · logit, around 0 and 1
_RATES = 2.0, 8.0  # Beta(3, 9): as if so many wrong and right votes had been seen before
_BALANCE_SPREAD = 0.25  # of the Cauchy of log(false_helpful / false_harmful), around 0
_START, _NEARLY_TOSSED, _START_CHOICE, _START_ANSWERS = 0.2, 0.45, 3.0, 3.0
_STEPS_HELD = 10  # of the weights alone: enough to come near their peak
_NOISE_BOUNDS, _BALANCE_BOUNDS = (-7.0, 7.0), (-4.0, 4.0)
_NEVER = -1e9
_AT_ONCE = 128  # queries, whose features take half a megabyte
_SURE = 1.0 - 1e-9
_Bounds = Sequence[tuple[float | None, float | None]]


def log_likelihoods(examples: Examples, chances: Floats, parameters: Parameters) -> Floats:
    """log P(votes) of each query, (n,), up to `of_any_answer`. chances: (n, C)."""
    odds = vote_odds(examples, parameters.rates)
    chosen = as_chosen(examples, chances, parameters)
    if parameters.answers is None:
        others = of_others(chances)
        weight = chosen.sum(axis=1) + others
        found = np.log(((chosen * odds).sum(axis=1) + others) / weight)
        n_right = np.ones(len(examples))
    else:
        found = np.log1p(chosen * (odds - 1.0)).sum(axis=1)
        n_right = chosen.sum(axis=1)
    if examples.n_named is not None:
        found = found - examples.n_named * np.log(
            _named_from(examples.present, parameters.rates, n_right)
        )
    return np.asarray(found, dtype=np.float64)


def of_others(chances: Floats) -> Floats:
    """The chance that the answer is none of the candidates, (n,), from theirs, (n, C)."""
    found: Floats = np.maximum(1.0 - chances.sum(axis=1), 0.0)
    return found


def of_any_answer(examples: Examples, rates: Rates) -> Floats:
    """The part of log P(votes) of each query that is the same whichever passages are right, (n,)."""
    wrong, right = np.log(rates.false_helpful), np.log1p(-rates.false_helpful)
    found: Floats = examples.n_helpful * wrong + examples.n_harmful * right
    return found


def _of_any_answer(n_helpful: float, n_harmful: float, rates: Rates) -> float:
    return n_helpful * math.log(rates.false_helpful) + n_harmful * math.log1p(-rates.false_helpful)


def choice_odds(examples: Examples, choice: float) -> Floats:
    """The factor on the share of each candidate for being chosen to write an answer from, (n, C)."""
    if examples.chosen is None:
        return np.ones(examples.lineages.shape)
    found: Floats = np.exp(choice * examples.chosen)
    return found


def as_chosen(examples: Examples, chances: Floats, parameters: Parameters) -> Floats:
    """The chances given that answers were written from some of the candidates, (n, C); with one answer
    they are to be divided by their sum."""
    if examples.chosen is None:
        return chances
    tilt = choice_odds(examples, parameters.choice)
    if parameters.answers is None:
        return chances * tilt
    expected = -np.log1p(-np.minimum(chances, _SURE))
    total, tilted = expected.sum(axis=1, keepdims=True), expected * tilt
    shares = tilted / np.maximum(tilted.sum(axis=1, keepdims=True), 1e-300)
    found: Floats = -np.expm1(-total * shares)
    return found


def vote_odds(examples: Examples, rates: Rates) -> Floats:
    """The factor by which the votes on each candidate multiply its odds, (n, C)."""
    by_helpful, by_harmful = rates.log_odds
    power = examples.helpful * by_helpful + examples.harmful * by_harmful
    found: Floats = np.exp(np.clip(power, -50.0, 50.0))
    return found


def evidence_odds(examples: Examples, parameters: Parameters) -> Floats:
    """The factor by which a query's own evidence multiplies the odds of each candidate, (n, C): the
    votes on it, and that good answers were written from it (see `posterior.log_odds_of`)."""
    odds = vote_odds(examples, parameters.rates)
    if examples.chosen is None:
        return odds
    called_good = np.minimum(examples.chosen, np.maximum(examples.net, 0.0))
    found: Floats = odds * np.exp(parameters.choice * called_good)
    return found


def after_votes(examples: Examples, chances: Floats, parameters: Parameters) -> Floats:
    """The chance of every candidate after the evidence of its query, (n, C) (Bayes' rule)."""
    joint = chances * evidence_odds(examples, parameters)
    if parameters.answers is None:
        total = (joint.sum(axis=1) + of_others(chances))[:, None]
    else:
        total = joint + np.maximum(1.0 - chances, 0.0)
    found: Floats = joint / total
    return found


def neighbour_chances_of(examples: Examples, before: Floats, parameters: Parameters) -> Floats:
    """The chances after the votes that are propagated to neighbours, (n, C), from those before: small
    ones are 0, unless votes call them helpful; with several answers, unless there are votes at all."""
    chances = after_votes(examples, before, parameters)
    kept = examples.net > 0 if parameters.answers is None else examples.voted
    return np.where((chances >= LEAST_CHANCE) | kept, chances, 0.0)


def prior_chances(examples: Examples, weights: Floats, answers: float | None = None) -> Floats:
    """The prior of every candidate, (n, C): a softmax of weights · features, π; with several answers,
    so many on average, 1 − exp(−answers · π). weights: of these features, and maybe of more."""
    weights = weights[: examples.features.shape[2]]
    shares = _softmax(examples.features @ weights, examples.present)
    found: Floats = shares if answers is None else -np.expm1(-answers * shares)
    return found


def prior_under(examples: Examples, parameters: Parameters) -> Floats:
    """The prior of every candidate under these parameters, (n, C)."""
    return prior_chances(examples, parameters.vector, parameters.answers)


def with_support(prior: Floats, support: Floats, every: Floats, n0: float) -> Floats:
    """(n0 · prior + S) / (n0 + E), (n, C).

    every: E, with one answer the sum of S over all passages, (n,); with several, for each candidate the
    sum of K over the neighbours that say anything about it, (n, C).
    """
    total = n0 + (every[:, None] if every.ndim == 1 else every)
    found: Floats = (n0 * prior + support) / total
    return found


@dataclass(frozen=True)
class Fit:
    """The likeliest weights (d,) of the prior, rates of wrong votes, and expected number of answers,
    None: one; log_likelihood: of all votes."""

    weights: Floats
    rates: Rates
    answers: float | None
    log_likelihood: float


def fit(
    examples: Examples, centre: Floats, *, strength: float, free: Floats, several: bool = False
) -> Fit:
    """The likeliest weights and rates, under a Gaussian around `centre` for the weights, with one answer
    or with several.

    strength: of that Gaussian, for a feature whose spread within a query is 1. free: 1 for a
    weight that may be negative, 0 for one that may not. How well answers are chosen is fitted with
    them, but taken from `calibrated`.
    Maximised by L-BFGS-B (Byrd et al., SIAM J. Sci. Comput. 1995).

    There may be two peaks: weights under which the votes are good, and random votes, which any
    weights explain. At weights that order passages badly every slope of the noise leads to the second.
    So the weights are fitted first, with the rates fixed; and the second peak is searched only where
    the first makes the votes less likely than random ones. The Gaussians are left out of that
    comparison: a large distance from the centre is no sign of random votes.
    """
    d, more = len(centre), examples.chosen is not None
    prepared = _Votes.of(examples)
    pull = np.array(
        [
            *strength * _spread(examples) ** 2,
            *[_CHOICE_SPREAD**-2] * more,
            *[_ANSWERS_SPREAD**-2] * several,
        ]
    )
    around = np.array([*centre, *[0.0] * (more + several)])

    def loss(at: Floats) -> tuple[float, Floats]:
        value, slope = _slopes(prepared, at, several=several)
        unlikely, by_rate = _rates_prior(at[-2:], several=several)
        apart = at[:-2] - around
        slope[:-2] -= pull * apart
        slope[-2:] += by_rate
        return -value - unlikely + 0.5 * float(pull @ apart**2), -slope

    signs: list[tuple[float | None, float | None]] = [(None if f else 0.0, None) for f in free]
    low, high = np.log(_ANSWERS)
    limits = [*signs, *[(0.0, MOST_CHOICE)] * more, *[(low, high)] * several]
    bounds = [*limits, _NOISE_BOUNDS, _BALANCE_BOUNDS]
    start = [*centre, *[_START_CHOICE] * more, *[math.log(_START_ANSWERS)] * several]

    def held(noise: float) -> list[float]:
        return [_noise_inverse(noise), 0.0]

    fixed = [(value, value) for value in held(_START)]
    first = _least(loss, np.array([*start, *held(_START)]), [*limits, *fixed], steps=_STEPS_HELD)
    found = _least(loss, first, bounds)
    value = _slopes(prepared, found, several=several)[0]
    if value < log_likelihood_of_tosses(examples):
        nearly = np.array([*around, *held(_NEARLY_TOSSED)])
        other = _least(loss, nearly, bounds)
        found = min(found, other, key=lambda at: loss(at)[0])
        value = _slopes(prepared, found, several=several)[0]
    answers = float(np.exp(found[-3])) if several else None
    return Fit(found[:d], _rates(found[-2:]), answers, value)


def calibrated(examples: Examples, parameters: Parameters) -> tuple[float, float, float | None]:
    """The likeliest (sharpness of the prior, how well answers are chosen, expected number of answers),
    given the weights of these parameters and the rates of wrong votes, under a log-normal around 1 for
    the sharpness.

    With little information in votes any sharpness is as likely as another; without the log-normal it
    may be so high that the least evidence moves passages with next to no chance. The rates are not
    fitted with it: a prior that orders passages badly would be likeliest flat, with random votes,
    though other weights show that the votes are good. It is the better of two searches, since answers
    may look chosen well or at random. Whether there is one answer is not decided again.
    """
    more, several = examples.chosen is not None, parameters.answers is not None
    weights = replace(parameters, sharpness=1.0, given_sharpness=1.0).vector
    logits = (examples.features @ weights[: examples.features.shape[2]])[:, :, None]
    alone = _Votes.of(replace(examples, features=logits))
    rates = _rates_inverse(parameters.rates)
    spreads = np.array([_SHARPNESS_SPREAD, *[_CHOICE_SPREAD] * more, *[_ANSWERS_SPREAD] * several])

    def loss(at: Floats) -> tuple[float, Floats]:
        sharpness = np.exp(at[:1])
        value, slope = _slopes(alone, np.concatenate([sharpness, at[1:], rates]), several=several)
        apart = at / spreads
        steep = np.append(slope[:1] * sharpness, slope[1:-2])
        return -value + 0.5 * float(apart @ apart), apart / spreads - steep

    low, high = np.log(SHARPNESS)
    few, many = np.log(_ANSWERS)
    bounds = [(low, high), *[(0.0, MOST_CHOICE)] * more, *[(few, many)] * several]
    n_answers = [math.log(parameters.answers)] if parameters.answers is not None else []
    choices = [[_START_CHOICE], [0.0]] if more else [[]]
    starts = [np.array([0.0, *choice, *n_answers]) for choice in choices]
    found = min((_least(loss, start, bounds) for start in starts), key=lambda at: loss(at)[0])
    answers = float(np.clip(np.exp(found[-1]), *_ANSWERS)) if several else None
    return float(np.clip(np.exp(found[0]), *SHARPNESS)), float(found[1]) if more else 0.0, answers


def rates_given(examples: Examples, chances: Floats, parameters: Parameters) -> Rates:
    """The likeliest rates of wrong votes where several passages may be right, and their chances before
    the votes are as given, (n, C), up to a logistic calibration.

    The prior alone hardly tells wrong votes on passages that look right from right ones; chances that
    know what was said of similar queries do.
    """
    voted = np.flatnonzero(examples.voted)
    given = np.clip(as_chosen(examples, chances, parameters).ravel()[voted], 1e-9, _SURE)
    logits = np.log(given) - np.log1p(-given)
    helpful, harmful = examples.helpful.ravel()[voted], examples.harmful.ravel()[voted]
    around, spreads = np.array([0.0, 1.0]), np.array(_CALIBRATION_SPREADS)
    n_votes = float(examples.n_helpful.sum()), float(examples.n_harmful.sum())

    def loss(at: Floats) -> tuple[float, Floats]:
        rates = _rates(at[2:])
        p = 1.0 / (1.0 + np.exp(-(at[0] + at[1] * logits)))
        by_helpful, by_harmful = rates.log_odds
        odds = np.exp(np.clip(helpful * by_helpful + harmful * by_harmful, -50.0, 50.0))
        total = p * odds + 1.0 - p
        value = float(np.log(total).sum()) + _of_any_answer(*n_votes, rates)
        unlikely, by_prior = _rates_prior(at[2:], several=True)
        apart = (at[:2] - around) / spreads
        steep = (odds - 1.0) / total * p * (1.0 - p)
        after = p * odds / total
        slope = [float(steep.sum()), float((steep * logits).sum())] - apart / spreads
        by_rates = _by_votes(
            n_votes, at[2:], float((after * helpful).sum()), float((after * harmful).sum())
        )
        value += unlikely - 0.5 * float(apart @ apart)
        return -value, -np.concatenate([slope, by_rates + by_prior])

    start = np.array([0.0, 1.0, *_rates_inverse(parameters.rates)])
    bounds = [(None, None), (0.0, None), _NOISE_BOUNDS, _BALANCE_BOUNDS]
    return _rates(_least(loss, start, bounds)[2:])


@dataclass(frozen=True)
class _Block:
    """Some queries of `_Votes`: their features float64 (m * C, d), which candidates there are, (m, C), and
    the candidates that have votes, int64 (v,), flat in (m, C), with the votes, (v,); n_named (m,): how often
    a user named one, None: never."""

    features: Floats
    present: npt.NDArray[np.bool_]
    voted: npt.NDArray[np.int64]
    helpful: Floats
    harmful: Floats
    n_named: Floats | None

    def shares(self, weights: Floats) -> Floats:
        """The prior with one answer, (m, C)."""
        return _softmax((self.features @ weights).reshape(self.present.shape), self.present)


@dataclass(frozen=True)
class _Votes:
    """The examples as `_slopes` goes through them at every step of a search: in blocks that stay in the
    processor's cache, with the votes apart, since few candidates have any; how many votes there are of
    either kind."""

    blocks: Sequence[_Block]
    n_helpful: float
    n_harmful: float

    @classmethod
    def of(cls, examples: Examples) -> "_Votes":
        """With features in float64, which they are converted to once and not at every step; the last of
        them is by how much a candidate was chosen, where any was."""
        d, named = examples.features.shape[2], examples.n_named
        blocks = []
        for start in range(0, len(examples), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            features = examples.features[part].astype(np.float64)
            if examples.chosen is not None:
                features = np.append(features, examples.chosen[part, :, None], axis=2)
            helpful, harmful = examples.helpful[part].ravel(), examples.harmful[part].ravel()
            voted = np.flatnonzero((helpful != 0.0) | (harmful != 0.0))
            blocks.append(
                _Block(
                    features.reshape(-1, d + (examples.chosen is not None)),
                    examples.lineages[part] >= 0,
                    voted,
                    helpful[voted],
                    harmful[voted],
                    None if named is None else named[part],
                )
            )
        return cls(blocks, float(examples.n_helpful.sum()), float(examples.n_harmful.sum()))


def _slopes(votes: _Votes, at: Floats, *, several: bool) -> tuple[float, Floats]:
    """log P(votes), and its slopes by every number in `at`: the weights, with several answers the
    logarithm of their number, and two that stand for the rates.

    Where answers were chosen, that is the last feature, and does not count for P itself."""
    rates = _rates(at[-2:])
    of_block = _slopes_of_several if several else _slopes_of_one
    total = np.zeros(len(at) + 1)
    for block in votes.blocks:
        total += of_block(block, at, rates)
    *slope, by_helpful, by_harmful = total[1:].tolist()
    n_votes = votes.n_helpful, votes.n_harmful
    value = float(total[0]) + _of_any_answer(*n_votes, rates)
    by_rates = _by_votes(n_votes, at[-2:], by_helpful, by_harmful)
    return value, np.concatenate([slope, by_rates])


def _odds_of(block: _Block, rates: Rates) -> Floats:
    by_helpful, by_harmful = rates.log_odds
    power = block.helpful * by_helpful + block.harmful * by_harmful
    found: Floats = np.exp(np.clip(power, -50.0, 50.0))
    return found


def _slopes_of_one(block: _Block, at: Floats, rates: Rates) -> Floats:
    """(log P(votes), its slopes by the weights, the sums of the chances after the votes over all "helpful"
    and over all "harmful" votes) of these queries, with one answer, but for `of_any_answer`."""
    shares = block.shares(at[:-2])
    joint = shares.copy()
    joint.ravel()[block.voted] *= _odds_of(block, rates)
    total = joint.sum(axis=1, keepdims=True)
    joint /= total
    after = joint.ravel()[block.voted]
    value, of_named = float(np.log(total).sum()), 0.0
    if block.n_named is not None:
        named_from = _named_from(block.present, rates, np.ones(len(shares)))
        value -= float((block.n_named * np.log(named_from)).sum())
        of_named = _of_named(rates, float((block.n_named / named_from).sum()))
    joint -= shares
    slope = joint.ravel() @ block.features
    sums = float(after @ block.helpful) - of_named, float(after @ block.harmful)
    return np.array([value, *slope.tolist(), *sums])


def _slopes_of_several(block: _Block, at: Floats, rates: Rates) -> Floats:
    """The same with several answers; the slope by the logarithm of their number is the last but two."""
    answers, shares = float(np.exp(at[-3])), block.shares(at[:-3])
    odds, own = _odds_of(block, rates), shares.ravel()[block.voted]
    wrong = np.exp(-answers * own)  # the chance that a passage is wrong
    chances = 1.0 - wrong
    total = chances * odds + wrong
    after = chances * odds / total
    value, of_named = float(np.log(total).sum()), 0.0
    by_share = np.zeros(shares.shape)
    by_share.ravel()[block.voted] = (odds - 1.0) / total * answers * wrong
    if block.n_named is not None:
        others = np.exp(-answers * shares)
        n_right = (1.0 - others).sum(axis=1)
        named_from = _named_from(block.present, rates, n_right)
        value -= float((block.n_named * np.log(named_from)).sum())
        by_named = block.n_named / named_from
        of_named = _of_named(rates, float((by_named * n_right).sum()))
        more = math.exp(CORRECTION_WEIGHT * rates.log_odds[0]) - 1.0
        by_share -= more * by_named[:, None] * block.present * answers * others
    by_share *= shares
    mean = by_share.sum(axis=1, keepdims=True)
    by_answers = float(mean.sum())
    by_share -= mean * shares
    slope = by_share.ravel() @ block.features
    sums = float(after @ block.helpful) - of_named, float(after @ block.harmful)
    return np.array([value, *slope.tolist(), by_answers, *sums])


def _of_named(rates: Rates, named: float) -> float:
    return CORRECTION_WEIGHT * math.exp(CORRECTION_WEIGHT * rates.log_odds[0]) * named


def _named_from(present: npt.NDArray[np.bool_], rates: Rates, n_right: Floats) -> Floats:
    """What the chance of naming one candidate is divided by, (n,): the sum over all candidates of the
    odds of naming a right one and of 1 for a wrong one. n_right: how many are right, (n,)."""
    odds = math.exp(CORRECTION_WEIGHT * rates.log_odds[0])
    n_wrong = np.maximum(present.sum(axis=1) - n_right, 1.0)
    found: Floats = odds * n_right + n_wrong
    return found


def log_likelihood_of_tosses(examples: Examples) -> float:
    """log P(votes) where they do not depend on what they are cast on."""
    helpful, harmful = float(examples.n_helpful.sum()), float(examples.n_harmful.sum())
    if examples.n_named is not None:
        named = -float((examples.n_named * np.log(examples.present.sum(axis=1))).sum())
    else:
        named = 0.0
    share = min(max(helpful / max(helpful + harmful, 1e-9), 1e-6), 1.0 - 1e-6)
    return named + helpful * math.log(share) + harmful * math.log1p(-share)


def _least(
    loss: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    bounds: _Bounds,
    *,
    steps: int = 200,
) -> Floats:
    from scipy.optimize import minimize

    found: Floats = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps}
    ).x
    return found


def _softmax(values: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    z = np.where(present, values, _NEVER)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    found: Floats = e / e.sum(axis=1, keepdims=True)
    return found


def _spread(examples: Examples) -> Floats:
    """The standard deviation of each feature within a query, (d,)."""
    present = examples.present[:, :, None]
    values = examples.features.astype(np.float64)
    count = np.maximum(present.sum(axis=1, keepdims=True), 1)
    apart = np.where(present, values - (values * present).sum(axis=1, keepdims=True) / count, 0.0)
    found: Floats = np.sqrt((apart**2).sum(axis=(0, 1)) / n_with_feature(examples)) + 1e-6
    return found


def _rates(at: Floats) -> Rates:
    """The rates that two numbers stand for: the mean of both, and how much of it is false_helpful."""
    total, share = 2.0 * LARGEST_NOISE / (1.0 + np.exp(-at[0])), 1.0 / (1.0 + np.exp(-at[1]))
    return Rates(float(total * share), float(total * (1.0 - share)))


def _rates_inverse(rates: Rates) -> list[float]:
    share = rates.false_helpful / (2.0 * rates.noise)
    return [_noise_inverse(rates.noise), math.log(share / (1.0 - share))]


def _by_votes(
    n_votes: tuple[float, float], at: Floats, by_helpful: float, by_harmful: float
) -> Floats:
    """Slopes of log P(votes) by the two numbers that stand for the rates, (2,), from the numbers of "helpful"
    and "harmful" votes, and the sums of the chances after the votes over all of either kind."""
    rates = _rates(at)
    fh, fn = rates.false_helpful, rates.false_harmful
    by_fh = (n_votes[0] - by_helpful) / fh
    by_fh -= (n_votes[1] - by_harmful) / (1.0 - fh)
    return _by_rates(at, by_fh, by_harmful / fn - by_helpful / (1.0 - fn))


def _by_rates(at: Floats, by_fh: float, by_fn: float) -> Floats:
    """Slopes by the two numbers that stand for the rates, from those by false_helpful, false_harmful."""
    rates = _rates(at)
    total = 2.0 * rates.noise
    share = rates.false_helpful / total
    by_total = share * by_fh + (1.0 - share) * by_fn
    return np.array(
        [
            by_total * total * (1.0 - rates.noise / LARGEST_NOISE),
            (by_fh - by_fn) * total * share * (1.0 - share),
        ]
    )


def _rates_prior(at: Floats, *, several: bool) -> tuple[float, Floats]:
    """The logarithm of the prior of the rates, up to a constant, and its slopes: a Cauchy of the balance
    of the two; with several answers also a Beta of each, since passages of whom one vote each is known
    may as well be right or wrong as the votes."""
    balance = 1.0 + (at[1] / _BALANCE_SPREAD) ** 2
    value, slope = -math.log(balance), np.array([0.0, -2.0 * at[1] / _BALANCE_SPREAD**2 / balance])
    if several:
        rates, (wrong, right) = _rates(at), _RATES
        both = rates.false_helpful, rates.false_harmful
        value += sum(wrong * math.log(f) + right * math.log1p(-f) for f in both)
        slope += _by_rates(at, *(wrong / f - right / (1.0 - f) for f in both))
    return value, slope


def _noise_inverse(noise: float) -> float:
    share = min(max(noise / LARGEST_NOISE, 1e-3), 1 - 1e-3)
    return float(np.log(share / (1 - share)))
