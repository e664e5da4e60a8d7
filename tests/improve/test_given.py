"""What is fitted to votes on an application's own candidates."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from rag_flywheel.improve.examples import Examples, Floats
from rag_flywheel.improve.fit import STRENGTH, calibrated_parameters, enough, propose
from rag_flywheel.improve.given import given_scale, of_index, own_given
from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import QueryKey

N_FEATURES = len(FEATURES) + len(GIVEN)
SCORE, TITLE = GIVEN.index("score"), GIVEN.index("title")
WIDTH = 5
SHIPPED = Parameters()


def made(
    seed: int,
    n: int = 200,
    *,
    unit: float = 1.0,
    by_score: float = 0.0,
    by_title: float = 0.0,
    noise: float = 0.1,
) -> Examples:
    """n queries with five given candidates each, whose answers are drawn by the shipped weight of the
    place between best and worst, by_score times the score and by_title times the title."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.0, rng.choice([0.02, 0.2], (n, 1)), (n, WIDTH))
    below = scores - scores.max(axis=1, keepdims=True)
    own = np.zeros((n, WIDTH, len(GIVEN)))
    own[:, :, 0] = below / -below.min(axis=1, keepdims=True)
    own[:, :, SCORE] = below
    own[:, :, TITLE] = rng.random((n, WIDTH))
    z = 3.0 * own[:, :, 0] + by_score * below + by_title * own[:, :, TITLE]
    answers = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    own[:, :, SCORE] *= unit
    said = (np.arange(WIDTH) == answers[:, None]) != (rng.random((n, WIDTH)) < noise)
    features = np.zeros((n, WIDTH, N_FEATURES), dtype=np.float32)
    features[:, :, len(FEATURES) :] = own
    vectors = rng.normal(size=(n, 32)).astype(np.float32)
    return Examples(
        [QueryKey(f"{seed:08d}{i:08d}".encode(), None) for i in range(n)],
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        np.arange(n * WIDTH).reshape(n, WIDTH),
        features,
        said.astype(float),
        (~said).astype(float),
        np.zeros(n, dtype=np.int64),
        given=np.ones(n, dtype=np.bool_),
    )


def indexed(seed: int, n: int = 200) -> Examples:
    """The same votes on passages of the index: the place and the title are `dense` and `title`."""
    examples = made(seed, n, by_title=3.0)
    features = np.zeros_like(examples.features)
    first = len(FEATURES)
    features[:, :, FEATURES.index("dense")] = examples.features[:, :, first] * (3.0 / 6.8)
    features[:, :, FEATURES.index("title")] = examples.features[:, :, first + TITLE]
    return replace(examples, features=features, given=np.zeros(n, dtype=np.bool_))


def both(one: Examples, other: Examples) -> Examples:
    names = ("vectors", "lineages", "features", "helpful", "harmful", "tenants", "given")
    parts = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in names}
    return Examples(keys=[*one.keys, *other.keys], **parts)


def fitted(examples: Examples) -> Parameters:
    found = propose(examples, SHIPPED)
    assert found.parameters is not None, found.why
    return found.parameters


def plain_fit(examples: Examples, unit: float) -> Floats:
    """The documented objective by another search: weights of candidate, score and title, and rates."""
    columns = [0, SCORE, TITLE]
    x = examples.features[:, :, [len(FEATURES) + c for c in columns]].astype(np.float64)
    x[:, :, 1] /= unit
    spread = np.sqrt(((x - x.mean(axis=1, keepdims=True)) ** 2).mean(axis=(0, 1)))

    def loss(at: Floats) -> float:
        weights, (false_helpful, false_harmful) = at[:3], at[3:]
        prior = np.exp(x @ weights)
        prior /= prior.sum(axis=1, keepdims=True)
        right = examples.net > 0
        by_answer = np.empty(prior.shape)
        for c in range(WIDTH):  # each in turn is the answer
            on_right = np.where(right, 1 - false_harmful, false_harmful)
            on_wrong = np.where(right, false_helpful, 1 - false_helpful)
            by_answer[:, c] = np.where(np.arange(WIDTH) == c, on_right, on_wrong).prod(axis=1)
        pull = STRENGTH * (spread**2 @ (weights - [3.0, 0.0, 0.0]) ** 2) / 2
        pull += np.log1p((np.log(false_helpful / false_harmful) / 0.25) ** 2)
        return float(-np.log((prior * by_answer).sum(axis=1)).sum() + pull)

    bounds = [(0.0, None)] * 3 + [(1e-3, 0.49)] * 2
    start = [3.0, 0.1, 0.1, 0.19, 0.21]
    options = {"maxiter": 4000, "maxfev": 4000}
    found = minimize(loss, start, method="Nelder-Mead", bounds=bounds, tol=1e-8, options=options)
    return found.x / [1.0, unit, 1.0, 1.0, 1.0]


def test_weights_and_scale_are_the_likeliest_ones() -> None:
    examples = made(1, by_score=15.0, by_title=4.0)
    found, expected = fitted(examples), plain_fit(examples, 0.1)
    assert found.candidate_spread == pytest.approx(expected[0], abs=0.02)
    assert found.given["score"] == pytest.approx(expected[1], rel=0.02)
    assert found.given["title"] == pytest.approx(expected[2], abs=0.02)
    assert found.given["score"] > 1.5 and found.given["title"] > 0.5
    assert {found.given[name] for name in GIVEN[2:] if name != "title"} == {0.0}
    assert found.weights == SHIPPED.weights


@pytest.mark.parametrize("unit", [1e-6, 0.01, 40.0, 1e9])
def test_the_unit_of_scores_does_not_matter(unit: float) -> None:
    """Cosines, distances, reciprocal ranks, BM25: weights are the same but for the unit's own."""
    plain = fitted(made(2, by_score=15.0, by_title=2.0))
    found = fitted(made(2, by_score=15.0, by_title=2.0, unit=unit))
    assert found.given["score"] * unit == pytest.approx(plain.given["score"], rel=1e-3)
    assert found.candidate_spread == pytest.approx(plain.candidate_spread, abs=1e-3)
    assert found.given["title"] == pytest.approx(plain.given["title"], abs=1e-3)
    assert given_scale(made(2, unit=unit))[len(FEATURES) + SCORE] == pytest.approx(
        unit * given_scale(made(2))[len(FEATURES) + SCORE], rel=1e-5
    )


def test_where_scores_have_no_scale_their_place_in_the_call_counts() -> None:
    found = fitted(made(3, n=400))
    assert found.candidate_spread == pytest.approx(3.0, abs=0.5)
    assert found.given["score"] < 2.0


def test_each_sort_of_candidates_is_fitted_as_if_it_were_alone() -> None:
    """With the noise that both have; a sort with fewer than 64 queries keeps what it had."""
    given, index = made(4, by_title=3.0), indexed(5)
    together = both(given, index)
    found, alone, other = fitted(together), fitted(given), fitted(index)
    assert found.given["title"] == pytest.approx(alone.given["title"], rel=0.05)
    assert found.weights["title"] == pytest.approx(other.weights["title"], rel=0.05)
    kept = replace(
        SHIPPED, given={**SHIPPED.given, "title": 0.75}, given_sharpness=0.5, candidate_spread=2.0
    )
    few = both(given.at(np.arange(63)), index)
    assert len(enough(few)) == len(index)
    proposed = propose(few, kept).parameters
    assert proposed is not None and proposed.weights == other.weights
    assert (proposed.given, proposed.given_sharpness) == (kept.given, 0.5)
    settled = calibrated_parameters(few, kept)
    assert (settled.given_sharpness, settled.candidate_spread) == (0.5, 2.0)
    assert settled.sharpness == pytest.approx(
        calibrated_parameters(index, kept).sharpness, rel=0.05
    )


def test_how_sure_the_prior_of_given_candidates_is_comes_from_votes_on_them() -> None:
    flat, sharp = replace(SHIPPED, candidate_spread=1.0), replace(SHIPPED, candidate_spread=9.0)
    examples = made(6, n=600)
    found = calibrated_parameters(examples, flat)
    assert found.given_sharpness == pytest.approx(3.0, rel=0.25)
    assert calibrated_parameters(examples, sharp).given_sharpness == pytest.approx(1 / 3, rel=0.25)
    assert found.sharpness == flat.sharpness
    again = calibrated_parameters(examples, found)
    assert again == found  # it does not hang on what it was before


def test_examples_are_told_apart_by_whose_candidates_they_have() -> None:
    together = both(made(7, n=3), indexed(8, n=2))
    assert len(own_given(together)) == 3 and len(of_index(together)) == 2
    plain = replace(indexed(8, n=2), given=None)
    assert of_index(plain) is plain and len(own_given(plain)) == 0
    assert together.at(np.array([3, 0])).given.tolist() == [False, True]  # type: ignore[union-attr]
