"""Relevance is calibrated on votes: on made votes of known chances, and its slopes are exact."""

from dataclasses import replace

import numpy as np
import pytest

from rag_flywheel.improve.examples import Examples
from rag_flywheel.improve.relevance import (
    _Shown,
    calibrated_relevance,
    with_unrelated,
)
from rag_flywheel.rank.calibration import Calibration
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.rank.posterior import Rates
from rag_flywheel.records import QueryKey

TRUE = {"one": -4.0, "dense": 8.0, "cover": 2.0}
WIDTH = 12


def made(n: int, *, noise: float = 0.2, voted: float = 1.0, seed: int = 0) -> Examples:
    """n questions without neighbours, 12 candidates each, that are right by the coefficients TRUE; hits
    are read at rank r with probability 1/r, and a share `noise` of votes is wrong."""
    rng = np.random.default_rng(seed)
    features = np.zeros((n, WIDTH, len(FEATURES)), dtype=np.float32)
    features[:, :, 0] = -np.sort(-rng.uniform(0.0, 0.9, (n, WIDTH)), axis=1)
    measures = rng.uniform(0.0, 1.0, (n, WIDTH, 5)).astype(np.float32)
    right = rng.random((n, WIDTH)) < truth(features, measures)
    read = rng.random((n, WIDTH)) < voted / np.arange(1, WIDTH + 1)
    read[:, 8:] = False
    good = right != (rng.random((n, WIDTH)) < noise)
    return Examples(
        [QueryKey(i.to_bytes(16, "big"), None) for i in range(n)],
        np.linalg.qr(rng.standard_normal((n, n)))[0].astype(np.float32),
        np.arange(n * WIDTH, dtype=np.int64).reshape(n, WIDTH),
        features,
        (read & good).astype(np.float64),
        (read & ~good).astype(np.float64),
        np.zeros(n, dtype=np.int64),
        measures=measures,
    )


def truth(features: np.ndarray, measures: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    log_odds = TRUE["one"] + TRUE["dense"] * features[..., 0] + TRUE["cover"] * measures[..., 0]
    return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))


def unrelated(n: int = 32) -> Examples:
    found = made(n, voted=0.0, seed=1)
    features = found.features.copy()
    features[:, :, 0] = np.linspace(0.0, 0.1, n)[:, None]
    return replace(found, features=features, measures=np.zeros_like(found.measures))


def estimated(calibration: Calibration, examples: Examples) -> np.ndarray:  # type: ignore[type-arg]
    """Of the first 8 candidates, whose prior falls as they come."""
    parameters = replace(PARAMETERS, relevance=calibration)
    log_odds = _Shown.of(examples, parameters).terms @ calibration.of_index
    return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))


PARAMETERS = Parameters(kernel=Kernel(theta=0.9))


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.3])
def test_the_chances_behind_noisy_votes_are_found(noise: float) -> None:
    examples = made(1200, noise=noise)
    parameters = replace(PARAMETERS, rates=Rates(max(noise, 1e-3), max(noise, 1e-3)))
    found = calibrated_relevance(examples, parameters, unrelated())
    fresh = made(400, seed=2)
    assert fresh.measures is not None
    shown = np.s_[:, :8]
    true = truth(fresh.features, fresh.measures)[shown]
    error = np.abs(estimated(found, fresh) - true).mean()
    assert error < (0.05 if noise < 0.3 else 0.07)
    assert error < 0.5 * np.abs(estimated(Calibration(), fresh) - true).mean()


def test_wrong_rates_of_ranking_do_not_shift_the_chances() -> None:
    examples, fresh = made(1200), made(400, seed=2)
    parameters = replace(PARAMETERS, rates=Rates(0.2, 0.45))
    found = calibrated_relevance(examples, parameters, unrelated())
    assert fresh.measures is not None
    true = truth(fresh.features, fresh.measures)[:, :8]
    assert estimated(found, fresh).mean() == pytest.approx(true.mean(), abs=0.04)


def test_few_votes_or_votes_that_say_nothing_leave_the_coefficients() -> None:
    examples = made(63)
    assert calibrated_relevance(examples, PARAMETERS, unrelated()) == PARAMETERS.relevance
    tossed = replace(PARAMETERS, rates=Rates(0.49, 0.49))
    assert calibrated_relevance(made(200), tossed, unrelated()) == PARAMETERS.relevance


def voted_on_as_shipped(seed: int) -> Examples:
    """70 questions with votes on hits that are right as often as the shipped coefficients say."""
    rng, examples = np.random.default_rng(seed), made(70, seed=10 + seed)
    right = rng.random((70, 8)) < estimated(Calibration(), examples)
    read = rng.random((70, 8)) < 1.0 / np.arange(1, 9)
    good = right != (rng.random((70, 8)) < 0.2)
    none = np.zeros((70, WIDTH - 8))
    votes = [np.concatenate([read & said, none], axis=1) for said in (good, ~good)]
    return replace(examples, helpful=votes[0], harmful=votes[1])


def test_few_votes_stay_near_the_shipped_coefficients() -> None:
    fresh = made(400, seed=2)

    def moved(found: Calibration) -> float:
        return float(np.abs(estimated(found, fresh) - estimated(Calibration(), fresh)).mean())

    few = [
        calibrated_relevance(voted_on_as_shipped(seed), PARAMETERS, unrelated())
        for seed in range(4)
    ]
    many = calibrated_relevance(made(1200), PARAMETERS, unrelated())
    assert all(found.index != Calibration().index for found in few)
    assert np.mean([moved(found) for found in few]) < 0.13
    assert moved(many) > 0.25


def test_unrelated_questions_keep_having_no_answer() -> None:
    some = unrelated()
    parameters = replace(PARAMETERS, relevance=with_unrelated(Calibration(), some))
    found = calibrated_relevance(made(1200), parameters, some)
    shown = _Shown.of(some, parameters)
    log_odds = shown.of_answer(found.of_index, found) @ found.of_answer
    assert (log_odds < np.log(0.2 / 0.8)).mean() >= 0.9


def test_what_unrelated_questions_find_is_measured_by_medians() -> None:
    some = unrelated(33)
    features = some.features.copy()
    features[:4, :, 0] = 0.9  # a few are about the passages after all
    found = with_unrelated(Calibration(), replace(some, features=features))
    best = np.append(np.full(4, 0.9), np.linspace(0.0, 0.1, 33)[4:])
    assert found.unrelated == pytest.approx(np.median(best), abs=1e-4)
    assert found.spread == 0.05  # the least
    nothing = replace(some, lineages=np.full_like(some.lineages, -1))
    assert with_unrelated(Calibration(), nothing) == Calibration()


def test_the_slopes_of_the_likelihood_are_exact() -> None:
    rng = np.random.default_rng(0)
    n = 30
    terms = np.concatenate([np.ones((n, 8, 1)), rng.normal(size=(n, 8, 5))], axis=-1)
    every = rng.random((n, 8)) * 3
    every[:8] = 0.0
    added = every * rng.random((n, 8))
    helpful, harmful = (rng.integers(0, 3, (n, 8)).astype(np.float64) for _ in range(2))
    weights = rng.random((n, 8))
    chances = rng.random((n, 8))
    shown = _Shown(
        terms,
        rng.random(n),
        rng.random(n),
        added,
        every,
        chances,
        False,
        helpful,
        harmful,
        weights,
        np.ones((n, 8)),
    )
    at, step = np.array([-1.0, 0.5, 0.3, -0.2, 0.1, 0.2, -0.5, 0.4]), 1e-6
    _, slopes = shown.of_hits(at, 0.2)
    for place, unit in enumerate(np.eye(len(at)) * step):
        numeric = (shown.of_hits(at + unit, 0.2)[0] - shown.of_hits(at - unit, 0.2)[0]) / (2 * step)
        assert slopes[place] == pytest.approx(numeric, abs=1e-5)
    terms = shown.of_answer(at[:-2], Calibration())
    value = shown.of_answers(at, rng.random(n), terms)
    at = np.array([-0.5, 0.4, 0.1, 0.3, 0.2, -0.4, 0.6])
    _, slopes = value(at)
    for place, unit in enumerate(np.eye(7) * step):
        numeric = (value(at + unit)[0] - value(at - unit)[0]) / (2 * step)
        assert slopes[place] == pytest.approx(numeric, abs=1e-5)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_how_many_questions_have_an_answer_is_found_in_noisy_votes(
    share: float, several: bool
) -> None:
    rng = np.random.default_rng(0)
    n, width, rate = 8000, 8, 0.2
    chances = rng.dirichlet(np.linspace(2.0, 0.1, width + 1), n)[:, :width]  # the rest: not shown
    if several:
        right = rng.random((n, width)) < chances
    else:
        place = (rng.random((n, 1)) > chances.cumsum(axis=1)).sum(axis=1)
        right = place[:, None] == np.arange(width)
    right &= (rng.random(n) < share)[:, None]
    read = rng.random((n, width)) < 1.0 / np.arange(1, width + 1)
    good = right != (rng.random((n, width)) < rate)
    helpful, harmful = (read & good).astype(np.float64), (read & ~good).astype(np.float64)
    none = np.zeros((n, width))
    terms = np.zeros((n, width, 6))
    shown = _Shown(
        terms,
        none[:, 0],
        none[:, 0],
        none,
        none,
        chances,
        several,
        helpful,
        harmful,
        read * 1.0,
        np.ones((n, width)),
    )
    found, true = shown.answered(rate, np.ones((n, 7))), right.any(axis=1)
    assert found.mean() == pytest.approx(true.mean(), abs=0.03)
    for part in np.array_split(np.argsort(found), 8):
        assert found[part].mean() == pytest.approx(true[part].mean(), abs=0.09)


@pytest.mark.parametrize("tells", [0.0, 2.0])
def test_what_tells_questions_without_an_answer_from_others_is_found_in_votes(tells: float) -> None:
    """Half have none; where a measure tells them, one vote or two on each show by how much."""
    rng = np.random.default_rng(1)
    n, width, rate = 4000, 8, 0.2
    terms = np.ones((n, 7))
    terms[:, 1:] = rng.standard_normal((n, 6))
    true = 1.0 / (1.0 + np.exp(-tells * terms[:, 2]))
    chances = rng.dirichlet(np.linspace(2.0, 0.1, width), n)
    place = (rng.random((n, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    right = (place[:, None] == np.arange(width)) & (rng.random(n) < true)[:, None]
    read = rng.random((n, width)) < 1.0 / np.arange(1, width + 1)
    good = right != (rng.random((n, width)) < rate)
    none, same = np.zeros((n, width)), np.zeros(n)
    votes = (read & good) * 1.0, (read & ~good) * 1.0, read * 1.0
    shown = _Shown(
        np.zeros((n, width, 6)),
        same,
        same,
        none,
        none,
        chances,
        False,
        *votes,
        np.ones((n, width)),
    )
    found = shown.answered(rate, terms)
    for part in np.array_split(np.argsort(true), 8):  # one share for all would be wrong by 0.45
        assert found[part].mean() == pytest.approx(true[part].mean(), abs=0.17)


def test_votes_on_all_hits_tell_whether_one_is_right() -> None:
    ones, none = np.ones((3, 2)), np.zeros((3, 2))
    helpful = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    harmful = np.array([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    terms = np.zeros((3, 2, 6))
    same, of_answers = none[:, 0], np.ones((3, 7))
    shown = _Shown(terms, same, same, none, none, ones * 0.4, False, helpful, harmful, ones, ones)
    praised, silent, blamed = shown.answered(0.2, of_answers).tolist()
    assert praised > silent > blamed
    # by hand: odds of "helpful" 4, of "harmful" 1/4; g: the share with an answer, in [0.5, 0.9]
    g = silent / 0.8
    assert 0.5 < g < 0.95
    ratio = (4.0 + 0.25) / 2
    assert praised == pytest.approx(g * 0.8 * ratio / (1 + g * 0.8 * (ratio - 1)), abs=1e-6)
    assert blamed == pytest.approx(g * 0.8 * 0.25 / (1 + g * 0.8 * (0.25 - 1)), abs=1e-6)
