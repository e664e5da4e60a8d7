"""What is computed from the scores that an application's candidates come with."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.given import LARGEST, best_given, score_features
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.score import score_given
from thorough import thorough
from voted import supported

SCALES = {
    "cosines": [0.71, 0.69, 0.64, 0.31],
    "negated distances": [-0.76, -0.79, -0.85, -1.17],
    "reciprocal ranks": [1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 90, 1 / 70],
    "bm25": [38.2, 21.5, 7.25, 0.0],
    "one value": [2.0, 2.0],
    "one candidate": [-3.5],
}


def plain_features(scores: Sequence[float]) -> list[tuple[float, float]]:
    """Exactly, as the documentation says it."""
    exact = [Fraction(score) for score in scores]
    best, span = max(exact), max(exact) - min(exact)
    return [(float((s - best) / span) if span else 0.0, float(s - best)) for s in exact]


@pytest.mark.parametrize("scores", SCALES.values(), ids=SCALES.keys())
def test_the_two_features_of_scores(scores: list[float]) -> None:
    found = score_features(np.array(scores))
    assert found.tolist() == [pytest.approx(row, abs=1e-12) for row in plain_features(scores)]


@thorough(60, few=15)
@given(
    st.lists(st.integers(-(10**6), 10**6).map(float), min_size=1, max_size=60),
    st.floats(1e-6, 1e6),
    st.integers(-1000, 1000),
)
def test_the_place_between_best_and_worst_hangs_on_no_unit_and_the_score_on_no_shift(
    scores: list[float], unit: float, shift: int
) -> None:
    plain = score_features(np.array(scores))
    assert score_features(np.array(scores) * unit)[:, 0] == pytest.approx(plain[:, 0], abs=1e-9)
    assert score_features(np.array(scores) + shift)[:, 1].tolist() == plain[:, 1].tolist()


def test_scores_of_any_size_have_finite_features() -> None:
    found = score_features(np.array([1.7e308, 0.0, -1.7e308]))
    assert found[:, 0].tolist() == pytest.approx([0.0, -0.5, -1.0])
    assert found[:, 1].tolist() == [0.0, -LARGEST, -LARGEST]


def test_the_best_are_the_highest_and_of_equal_ones_the_first() -> None:
    scores = np.array([1.0, 3.0, 2.0, 3.0, 2.0])
    assert best_given(scores, 3).tolist() == [1, 2, 3]
    assert best_given(scores, 9).tolist() == [0, 1, 2, 3, 4]
    assert best_given(np.empty(0), 3).tolist() == []


@pytest.mark.parametrize("scores", SCALES.values(), ids=SCALES.keys())
def test_shipped_weights_lay_any_scores_over_three_log_odds_in_their_order(
    scores: list[float],
) -> None:
    n = len(scores)
    found = score_given(Parameters(), np.array(scores), supported([0.0] * n))
    expected = [3.0 * place for place, _ in plain_features(scores)]
    log_total = math.log(sum(map(math.exp, expected)))
    assert found.scores.tolist() == pytest.approx([z - log_total for z in expected])
    assert found.names == ("candidate",)


def test_fitted_weights_add_up_to_the_score() -> None:
    weights = {**dict.fromkeys(GIVEN[1:], 0.0), "score": 8.0, "title": 0.5, "length": -0.25}
    parameters = Parameters(candidate_spread=1.0, given=weights, given_sharpness=2.0)
    scores = np.array(SCALES["cosines"])
    text = np.random.default_rng(0).random((4, 8)).astype(np.float32)
    found = score_given(parameters, scores, supported([0.0] * 4), text)
    title, length = GIVEN.index("title") - 2, GIVEN.index("length") - 2
    prior = [
        2.0 * (place + 8.0 * below + 0.5 * float(row[title]) - 0.25 * float(row[length]))
        for (place, below), row in zip(plain_features(scores.tolist()), text, strict=True)
    ]
    log_total = math.log(sum(map(math.exp, prior)))
    assert found.scores.tolist() == pytest.approx([z - log_total for z in prior])
    for i in range(4):
        why = found.explanation(i, ())
        assert tuple(why.terms) == GIVEN
        total = why.intercept + sum(why.terms.values()) + why.evidence
        assert total == pytest.approx(float(found.scores[i]), abs=1e-9)


def test_another_retriever_than_weights_were_fitted_to_leaves_room_for_votes() -> None:
    """Weights for cosines meet BM25: no candidate is put further below the best than 12 log-odds."""
    weights = {**dict.fromkeys(GIVEN[1:], 0.0), "score": 20.0}
    parameters = Parameters(candidate_spread=0.0, given=weights)
    found = score_given(parameters, np.array(SCALES["bm25"]), supported([0.0] * 4))
    assert found.terms[:, 1].tolist() == [0.0, -12.0, -12.0, -12.0]
    assert len(FEATURES) + len(GIVEN) == len(parameters.vector)
