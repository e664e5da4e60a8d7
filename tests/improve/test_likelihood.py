"""The likelihood of votes, against plain Python, and what is fitted by it, against made votes."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.improve.examples import Examples, Floats
from rag_flywheel.improve.likelihood import (
    LARGEST_NOISE,
    SHARPNESS,
    Fit,
    after_votes,
    fit,
    log_likelihoods,
    of_any_answer,
    prior_chances,
    rates_given,
    with_support,
)
from rag_flywheel.rank.posterior import Rates
from rag_flywheel.records import QueryKey
from thorough import thorough
from voted import calibrated_by, with_noise

Rows = Sequence[Sequence[float]]
TRUE = np.array([2.0, -1.0, 0.0])
ALL_FREE = np.ones(3)


def made(
    lineages: Sequence[Sequence[int]] | Floats, features: object, yes: Rows, no: Rows
) -> Examples:
    helpful, harmful = np.array(yes, dtype=np.float64), np.array(no, dtype=np.float64)
    n = len(helpful)
    return Examples(
        [QueryKey(bytes([i // 256, i % 256]) * 8, None) for i in range(n)],
        np.ones((n, 1), dtype=np.float32),
        np.array(lineages, dtype=np.int64),
        np.array(features, dtype=np.float32),
        helpful,
        harmful,
        np.zeros(n, dtype=np.int64),
    )


def simulated(
    seed: int,
    n: int,
    noise: float,
    *,
    width: int = 6,
    shown_by: Floats | None = None,
    shown: int = 6,
) -> Examples:
    """Answers drawn by TRUE, and a vote on each of the hits shown: the best by `shown_by`, or any."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width, 3))
    z = features @ TRUE
    answers = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    order = rng.random(z.shape) if shown_by is None else -(features @ shown_by)
    seen = order.argsort(axis=1).argsort(axis=1) < shown
    right = rng.random(z.shape) >= noise
    says_yes = right == (np.arange(width)[None, :] == answers[:, None])
    lineages = np.tile(np.arange(width), (n, 1))
    return made(
        lineages.tolist(), features, (seen & says_yes).tolist(), (seen & ~says_yes).tolist()
    )


def fitted(examples: Examples, centre: Floats, strength: float, *, several: bool = False) -> Fit:
    return fit(examples, centre, strength=strength, free=ALL_FREE, several=several)


def sharpness_of(examples: Examples, weights: Floats, noise: float) -> float:
    return calibrated_by(examples, weights, noise)[0]


def plain_prior(examples: Examples, row: int, weights: Sequence[float]) -> list[float]:
    odds = []
    for lineage, features in zip(examples.lineages[row], examples.features[row], strict=True):
        z = sum(w * float(f) for w, f in zip(weights, features, strict=True))
        odds.append(math.exp(z) if lineage >= 0 else 0.0)
    return [odd / sum(odds) for odd in odds]


def plain_log_likelihood(net: Sequence[float], chances: Sequence[float], noise: float) -> float:
    odds = (1 - noise) / noise
    return math.log(sum(p * odds**v for p, v in zip(chances, net, strict=True)))


def plain_spread(examples: Examples) -> list[float]:
    found = []
    for j in range(examples.features.shape[2]):
        squares, count = 0.0, 0
        for lineages, features in zip(examples.lineages, examples.features, strict=True):
            values = [float(f[j]) for p, f in zip(lineages, features, strict=True) if p >= 0]
            squares += sum((v - sum(values) / len(values)) ** 2 for v in values)
            count += len(values)
        found.append(math.sqrt(squares / count))
    return found


def plain_objective(
    examples: Examples,
    weights: Sequence[float],
    rates: tuple[float, float],
    *,
    centre: Sequence[float],
    strength: float,
) -> float:
    """What `fit` is to maximise with one answer; rates: false_helpful, false_harmful."""
    total, (fh, fn) = 0.0, rates
    for i in range(len(examples)):
        chances = plain_prior(examples, i, weights)
        votes = list(zip(examples.helpful[i].tolist(), examples.harmful[i].tolist(), strict=True))
        total += math.log(
            sum(
                p * ((1 - fn) / fh) ** h * (fn / (1 - fh)) ** n
                for p, (h, n) in zip(chances, votes, strict=True)
            )
        )
        total += sum(h * math.log(fh) + n * math.log(1 - fh) for h, n in votes)
    for w, c, s in zip(weights, centre, plain_spread(examples), strict=True):
        total -= 0.5 * strength * (s * (w - c)) ** 2
    return total - math.log(1 + (math.log(fh / fn) / 0.25) ** 2)


@st.composite
def small(draw: st.DrawFn) -> Examples:
    """Up to 3 queries with up to 4 candidates, some of them missing, and up to 3 features."""
    n, width, d = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    votes = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0])
    lineages, features, yes, no = [], [], [], []
    for _ in range(n):
        row = draw(st.lists(st.sampled_from([-1, 7]), min_size=width, max_size=width))
        row[draw(st.integers(0, width - 1))] = 7
        lineages.append([p if p < 0 else c for c, p in enumerate(row)])
        features.append([[draw(st.floats(-2, 2, width=32)) for _ in range(d)] for _ in row])
        yes.append([draw(votes) if p >= 0 else 0.0 for p in row])
        no.append([draw(votes) if p >= 0 else 0.0 for p in row])
    return made(lineages, features, yes, no)


def test_one_query_by_hand() -> None:
    one = made([[5, 6, 7]], np.zeros((1, 3, 1)), [[1, 0, 0]], [[0, 0, 1]])
    chances = np.array([[0.2, 0.5, 0.3]])
    total = 0.2 * 4 + 0.5 + 0.3 / 4  # odds 4
    assert log_likelihoods(one, chances, with_noise(0.2)) == pytest.approx([math.log(total)])
    assert after_votes(one, chances, with_noise(0.2)) * total == pytest.approx(
        np.array([[0.8, 0.5, 0.075]])
    )


def test_prior_chances_by_hand() -> None:
    features = [[[0.0], [math.log(3)], [50.0]]]
    one = made([[5, 6, -1]], features, [[0, 0, 0]], [[0, 0, 0]])
    assert prior_chances(one, np.array([1.0]))[0] == pytest.approx([0.25, 0.75, 0.0])
    assert prior_chances(one, np.array([0.0]))[0] == pytest.approx([0.5, 0.5, 0.0])
    assert prior_chances(one, np.array([-1.0]))[0] == pytest.approx([0.75, 0.25, 0.0])


def test_support_by_hand() -> None:
    prior, support = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.0, 2.0], [0.0, 0.0]])
    found = with_support(prior, support, np.array([3.0, 0.0]), 3.0)  # 1 of the 3 for others
    assert found == pytest.approx(np.array([[1.5 / 6, 3.5 / 6], [0.9, 0.1]]))


def test_what_is_no_candidate_counts_as_without_votes() -> None:
    one = made([[5, 6, 7]], np.zeros((1, 3, 1)), [[1, 0, 0]], [[0, 0, 1]])
    chances = np.array([[0.1, 0.3, 0.2]])
    total = 0.1 * 4 + 0.3 + 0.2 / 4 + 0.4  # odds 4, and 0.4 for all other passages
    assert log_likelihoods(one, chances, with_noise(0.2)) == pytest.approx([math.log(total)])
    assert after_votes(one, chances, with_noise(0.2)) * total == pytest.approx(
        np.array([[0.4, 0.3, 0.05]])
    )


def test_a_query_without_a_candidate_tells_nothing() -> None:
    two = made([[-1, -1], [1, 2]], np.ones((2, 2, 1)), [[0, 0], [1, 0]], [[0, 0], [0, 0]])
    prior = prior_chances(two, np.array([3.0]))
    assert log_likelihoods(two, prior, with_noise(0.2))[0] == pytest.approx(0.0)
    assert np.isfinite(after_votes(two, prior, with_noise(0.2))).all()


def test_ever_so_many_votes_stay_finite() -> None:
    one = made([[1, 2]], np.zeros((1, 2, 1)), [[1e4, 0]], [[0, 1e4]])
    chances = np.array([[1e-12, 1 - 1e-12]])
    assert np.isfinite(log_likelihoods(one, chances, with_noise(0.001))).all()
    assert after_votes(one, chances, with_noise(0.001))[0] == pytest.approx([1.0, 0.0])


@thorough(60, few=15)
@given(small(), st.floats(0.01, 0.49), st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_chances_and_likelihoods_are_those_of_plain_python(
    examples: Examples, noise: float, weights: list[float]
) -> None:
    weights = weights[: examples.features.shape[2]]
    prior = prior_chances(examples, np.array(weights))
    likely = log_likelihoods(examples, prior, with_noise(noise))
    after = after_votes(examples, prior, with_noise(noise))
    for i in range(len(examples)):
        plain = plain_prior(examples, i, weights)
        net = examples.net[i].tolist()
        assert prior[i] == pytest.approx(plain)
        assert likely[i] == pytest.approx(plain_log_likelihood(net, plain, noise), abs=1e-9)
        odds = [p * ((1 - noise) / noise) ** v for p, v in zip(plain, net, strict=True)]
        assert after[i] == pytest.approx([odd / sum(odds) for odd in odds])
        assert after[i][examples.lineages[i] < 0].sum() == 0.0


@thorough(30, few=7)
@given(small(), st.floats(0.01, 100), st.integers(0, 2**32 - 1))
def test_support_is_added_and_chances_still_sum_to_one(
    examples: Examples, n0: float, seed: int
) -> None:
    prior = prior_chances(examples, np.zeros(examples.features.shape[2]))
    support = np.where(examples.present, np.random.default_rng(seed).random(prior.shape), 0.0)
    found = with_support(prior, support, support.sum(axis=1), n0)
    assert found.sum(axis=1) == pytest.approx(np.ones(len(examples)))
    for i, added in enumerate(support.tolist()):
        plain = [(n0 * p + s) / (n0 + sum(added)) for p, s in zip(prior[i], added, strict=True)]
        assert found[i] == pytest.approx(plain)


@thorough(40, few=10)
@given(small(), st.floats(0.01, 0.49))
def test_a_hit_without_a_vote_counts_as_one_that_was_not_shown(
    examples: Examples, noise: float
) -> None:
    """The chance of the votes given each answer, vote by vote: only votes have a factor."""
    prior = prior_chances(examples, np.zeros(examples.features.shape[2]))
    found = log_likelihoods(examples, prior, with_noise(noise))
    found += examples.n_helpful * np.log(noise) + examples.n_harmful * np.log(1 - noise)
    for i in range(len(examples)):
        votes = examples.net[i]
        if float(np.abs(votes).sum()) != float(examples.n_helpful[i] + examples.n_harmful[i]):
            continue  # a hit with both kinds of votes: net does not tell them apart
        total = 0.0
        for answer, chance in enumerate(prior[i].tolist()):
            for hit, vote in enumerate(votes.tolist()):
                right = (vote > 0) == (hit == answer)
                chance *= ((1 - noise) if right else noise) ** abs(vote)
            total += chance
        assert found[i] == pytest.approx(math.log(total), abs=1e-9)


def test_nothing_near_what_is_fitted_is_likelier() -> None:
    rng = np.random.default_rng(3)
    examples = simulated(3, 60, 0.2, shown=4)
    examples.lineages[::3, 5] = -1
    examples.helpful[::3, 5] = examples.harmful[::3, 5] = 0.0
    centre, strength = np.array([1.0, 0.5, 0.2]), 5.0

    def objective(weights: Floats, rates: Floats) -> float:
        return plain_objective(
            examples,
            weights.tolist(),
            (float(rates[0]), float(rates[1])),
            centre=centre.tolist(),
            strength=strength,
        )

    found = fitted(examples, centre, strength)
    weights = found.weights
    rates = np.array([found.rates.false_helpful, found.rates.false_harmful])
    best = objective(weights, rates)
    for scale in (0.003, 0.03, 0.3):
        for _ in range(8):
            moved = weights + scale * rng.normal(size=3)
            other = np.clip(rates * np.exp(scale * rng.normal(size=2)), 1e-3, 0.499)
            assert objective(moved, other) < best + 1e-5
    step = 1e-4
    for j in range(3):
        along = step * np.eye(3)[j]
        slope = (objective(weights + along, rates) - objective(weights - along, rates)) / (2 * step)
        assert abs(slope) < 0.05
    for j in range(2):
        along = step * np.eye(2)[j]
        slope = (objective(weights, rates + along) - objective(weights, rates - along)) / (2 * step)
        assert abs(slope) < 0.5
        for way in (0.02, -0.02):
            assert best > objective(weights, rates + way * np.eye(2)[j])


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.35])
def test_the_noise_of_votes_is_found(noise: float) -> None:
    examples = simulated(11, 800, noise)
    found = fitted(examples, np.zeros(3), 1.0)
    assert found.answers is None
    assert found.rates.noise == pytest.approx(noise, abs=0.03)


def test_votes_by_coin_toss_are_seen_to_be_that() -> None:
    examples = simulated(12, 800, 0.5)
    assert 0.46 < fitted(examples, np.zeros(3), 1.0).rates.noise <= LARGEST_NOISE


@thorough(10, few=3)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.4), st.floats(0.3, 3.0))
def test_calibrated_is_the_likeliest_of_a_grid(seed: int, noise: float, scale: float) -> None:
    examples, weights = simulated(seed, 64, noise), scale * TRUE

    def objective(sharpness: float) -> float:
        own = (sharpness * weights).tolist()
        likely = plain_objective(examples, own, (noise, noise), centre=own, strength=0.0)
        return likely - 0.5 * math.log(sharpness) ** 2

    sharpness = sharpness_of(examples, weights, noise)
    best = objective(sharpness)
    for other in np.geomspace(*SHARPNESS, 30).tolist():
        assert objective(other) < best + 0.01
    for step in (0.98, 1.02):
        assert objective(min(step * sharpness, SHARPNESS[1])) < best + 1e-3


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.35])
@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_how_sure_a_prior_is_is_found(noise: float, scale: float) -> None:
    sharpness = sharpness_of(simulated(17, 800, noise), scale * TRUE, noise)
    assert sharpness * scale == pytest.approx(1.0, abs=0.25)


def test_a_prior_that_says_nothing_or_the_contrary_is_as_unsure_as_may_be() -> None:
    examples = simulated(18, 2_000, 0.2)
    assert sharpness_of(examples, -TRUE, 0.2) == pytest.approx(SHARPNESS[0])
    assert sharpness_of(examples, 1e-2 * TRUE, 0.2) == pytest.approx(SHARPNESS[1])
    assert sharpness_of(examples, np.zeros(3), 0.2) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_few_wrong_votes_do_not_make_a_prior_certain(seed: int) -> None:
    """They did: with 323 questions and two votes in five wrong, the sharpness was at its limit, 20, and
    weak evidence put passages first that had next to no chance; nDCG@10 fell by 0.02 on scifact."""
    examples = simulated(seed, 12, 0.45)
    assert 0.2 < sharpness_of(examples, TRUE, 0.45) < 5.0


@pytest.mark.parametrize(
    "shown_by", [None, np.array([0.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0])], ids=str
)
def test_weights_are_found_whichever_hits_were_shown(shown_by: Floats | None) -> None:
    examples = simulated(13, 1200, 0.2, shown_by=shown_by, shown=3)
    found = fitted(examples, np.zeros(3), 1.0)
    weights, noise = found.weights, found.rates.noise
    cosine = weights @ TRUE / np.linalg.norm(weights) / np.linalg.norm(TRUE)
    assert cosine > 0.98
    assert weights == pytest.approx(TRUE, abs=0.4)
    assert noise == pytest.approx(0.2, abs=0.03)


def test_a_few_votes_leave_weights_near_the_centre_and_many_do_not() -> None:
    centre = np.array([-1.0, 2.0, 1.0])
    few = fitted(simulated(14, 5, 0.2), centre, 50.0).weights
    many = fitted(simulated(14, 1500, 0.2), centre, 50.0).weights
    assert np.abs(few - centre).max() < 0.3
    assert np.linalg.norm(many - TRUE) < 0.5 * np.linalg.norm(centre - TRUE)


def test_no_votes_leave_weights_at_the_centre() -> None:
    centre = np.array([6.8, 0.0, 2.4])
    weights = fitted(simulated(15, 10, 0.2, shown=0), centre, 20.0).weights
    assert weights == pytest.approx(centre, abs=1e-6)


def test_a_weight_falls_below_0_only_where_it_may() -> None:
    examples = simulated(16, 500, 0.2)  # its second weight is truly -1
    centre = np.array([0.5, 0.5, 0.5])
    bound, free = (
        fit(examples, centre, strength=1.0, free=np.array(may)).weights
        for may in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    )
    assert bound[1] == 0.0
    assert bound[2] >= 0.0
    assert free[1] < -0.5


def test_with_several_answers_by_hand() -> None:
    one = made([[5, 6, 7]], [[[0.0], [math.log(2)], [0.0]]], [[1, 0, 0]], [[0, 0, 1]])
    prior = prior_chances(one, np.array([1.0]), 2.0)[0]
    assert prior == pytest.approx([1 - math.exp(-0.5), 1 - math.exp(-1), 1 - math.exp(-0.5)])
    chances, parameters = np.array([[0.2, 0.5, 0.9]]), with_noise(0.2, answers=2.0)
    expected = math.log(0.2 * 4 + 0.8) + math.log(0.9 / 4 + 0.1)
    assert log_likelihoods(one, chances, parameters) == pytest.approx([expected])
    after = after_votes(one, chances, parameters)[0]
    assert after == pytest.approx([0.8 / 1.6, 0.5, 0.225 / 0.325])
    every = np.array([[3.0, 0.0, 1.0]])  # of the neighbours that speak of each
    found = with_support(chances, np.array([[1.5, 0.0, 0.0]]), every, 2.0)
    assert found == pytest.approx(np.array([[1.9 / 5, 0.5, 1.8 / 3]]))


@thorough(60, few=15)
@given(
    small(),
    st.tuples(st.floats(0.02, 0.45), st.floats(0.02, 0.45)),
    st.floats(0.1, 8.0),
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_with_several_answers_every_passage_is_judged_on_its_own(
    examples: Examples, rates: tuple[float, float], answers: float, weights: list[float]
) -> None:
    (fh, fn), weights = rates, weights[: examples.features.shape[2]]
    parameters = replace(with_noise(0.2, answers=answers), rates=Rates(fh, fn))
    prior = prior_chances(examples, np.array(weights), answers)
    found = log_likelihoods(examples, prior, parameters) + of_any_answer(examples, Rates(fh, fn))
    after = after_votes(examples, prior, parameters)
    for i in range(len(examples)):
        total = 0.0
        for c, share in enumerate(plain_prior(examples, i, weights)):
            right = 1 - math.exp(-answers * share)
            h, n = float(examples.helpful[i, c]), float(examples.harmful[i, c])
            as_right = right * (1 - fn) ** h * fn**n
            as_wrong = (1 - right) * fh**h * (1 - fh) ** n
            total += math.log(as_right + as_wrong)
            assert prior[i, c] == pytest.approx(right)
            assert after[i, c] == pytest.approx(as_right / (as_right + as_wrong), abs=1e-9)
        assert found[i] == pytest.approx(total, abs=1e-9)


def several_right(seed: int, n: int, rates: tuple[float, float], *, width: int = 12) -> Examples:
    """Of each query's passages any number is right, by TRUE, about a third of them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width, 3))
    right = rng.random((n, width)) < 1 / (1 + np.exp(1.2 - 1.5 * features @ TRUE))
    seen = rng.random((n, width)) < 0.5
    yes = np.where(right, rng.random(right.shape) >= rates[1], rng.random(right.shape) < rates[0])
    lineages = np.tile(np.arange(width), (n, 1))
    return made(lineages.tolist(), features, (seen & yes).tolist(), (seen & ~yes).tolist())


@pytest.mark.parametrize("rates", [(0.02, 0.02), (0.2, 0.2), (0.1, 0.3)])
def test_several_answers_are_told_from_one_with_wrong_votes(rates: tuple[float, float]) -> None:
    """They were not: with five right passages a query half of the votes seemed to be wrong."""
    examples = several_right(21, 500, rates)
    found, one = (fitted(examples, np.zeros(3), 1.0, several=s) for s in (True, False))
    assert found.log_likelihood > one.log_likelihood + 20.0
    assert one.rates.false_helpful > rates[0] + 0.1  # what else is right seems to be wrong
    assert found.answers is not None
    assert found.answers > 2.0
    both = found.rates.false_helpful, found.rates.false_harmful
    assert both == pytest.approx(rates, abs=0.08)
    assert found.weights @ TRUE / np.linalg.norm(found.weights) / np.linalg.norm(TRUE) > 0.97
    single = simulated(22, 500, rates[0])
    several, one = (fitted(single, np.zeros(3), 1.0, several=s) for s in (True, False))
    assert several.log_likelihood < one.log_likelihood


def test_rates_are_found_from_chances_that_are_too_sure_or_not_sure_enough() -> None:
    examples = several_right(24, 600, (0.25, 0.1))
    logits = 1.5 * examples.features @ TRUE - 1.2
    for scale in (0.5, 1.0, 2.0):
        chances = 1 / (1 + np.exp(-scale * logits - 0.3))
        found = rates_given(examples, chances, with_noise(0.2, answers=3.0))
        both = found.false_helpful, found.false_harmful
        assert both == pytest.approx((0.25, 0.1), abs=0.05)
