"""The score of candidates against the posterior worked in 60-digit decimals."""

import math
import operator
from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from functools import reduce

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.rank.score import (
    POOL,
    Scored,
    Votes,
    chance_of,
    log_normaliser,
    order,
    score,
    score_given,
)
from rag_flywheel.records import Features
from thorough import thorough
from voted import supported

Array = npt.NDArray[np.float64]


def decimal_scores(z: Sequence[float], support: Sequence[float], n0: float) -> list[float]:
    """ln((n0 · prior + S) / (n0 + ΣS)), where prior = e^z / Σ e^z over the 50 largest."""
    with localcontext() as context:
        context.prec = 60
        powers = [Decimal(value).exp() for value in z]
        shared = sum(sorted(powers, reverse=True)[:POOL], Decimal(0))
        total = Decimal(n0) + sum(map(Decimal, support), Decimal(0))
        return [
            float(((Decimal(n0) * power / shared + Decimal(s)) / total).ln())
            for power, s in zip(powers, support, strict=True)
        ]


def only_dense(z: Sequence[float]) -> Features:
    """Features under which the weight of `dense` alone, 1, gives these prior log-odds."""
    features = np.zeros((len(z), len(FEATURES)), dtype=np.float32)
    features[:, 0] = z
    return features


def with_prior(z: Sequence[float], support: Sequence[float], n0: float = 4.0) -> Scored:
    weights = dict.fromkeys(FEATURES, 0.0) | {"dense": 1.0}
    parameters = Parameters(weights=weights, kernel=Kernel(n0=n0))
    return score(parameters, only_dense(z), supported(support))


def chances(found: Scored) -> list[float]:
    return [math.exp(value) for value in found.scores]


def test_hand_worked_case() -> None:
    # priors 1/2, 1/4, 1/4; n0 4: as good as 2, 1 and 1 answers; the third has one more of five
    z = [math.log(2.0), 0.0, 0.0]
    assert chances(with_prior(z, [0.0, 0.0, 0.0])) == pytest.approx([1 / 2, 1 / 4, 1 / 4])
    assert chances(with_prior(z, [0.0, 0.0, 1.0])) == pytest.approx([2 / 5, 1 / 5, 2 / 5])
    assert chances(with_prior(z, [0.5, 0.0, 3.5])) == pytest.approx([2.5 / 8, 1 / 8, 4.5 / 8])
    found = with_prior(z, [0.0, 0.0, 1.0])
    assert found.evidence.tolist() == pytest.approx([0.0, 0.0, math.log(2.0)])  # 1 answer -> 2
    assert found.intercept == pytest.approx(math.log(1 / 4) + math.log(4 / 5))


def test_terms_are_weighted_features() -> None:
    weights = dict.fromkeys(FEATURES, 0.0) | {"dense": 8.0, "bm25": 2.5, FEATURES[-1]: -1.0}
    features = np.full((2, len(FEATURES)), 0.25, dtype=np.float32)
    features[0, :2] = [0.5, 1.0]
    found = score(Parameters(weights=weights), features, supported([0.0, 0.0]))
    zeros = [0.0] * (len(FEATURES) - 3)
    assert list(found.explanation(0, ()).terms) == list(FEATURES)
    assert list(found.explanation(0, ()).terms.values()) == [4.0, 2.5, *zeros, -0.25]
    assert list(found.explanation(1, ()).terms.values()) == [2.0, 0.625, *zeros, -0.25]
    assert found.scores[0] - found.scores[1] == pytest.approx(6.25 - 2.375, abs=1e-12)


logits = st.floats(-30, 30, width=32)
amounts = st.one_of(st.just(0.0), st.floats(1e-9, 32.0))
strengths = st.floats(0.01, 1000.0)
rows = st.lists(st.tuples(logits, amounts), min_size=1, max_size=POOL)


@thorough(40, few=10)
@given(st.lists(st.tuples(logits, amounts), min_size=1, max_size=80), strengths)
def test_scores_equal_the_formula(candidates: list[tuple[float, float]], n0: float) -> None:
    z, support = zip(*candidates, strict=True)
    found = with_prior(z, support, n0)
    assert found.scores.tolist() == pytest.approx(decimal_scores(z, support, n0), abs=1e-9)


@thorough(40, few=10)
@given(rows, strengths)
def test_the_parts_of_an_explanation_add_up_to_the_score(
    candidates: list[tuple[float, float]], n0: float
) -> None:
    z, support = zip(*candidates, strict=True)
    found = with_prior(z, support, n0)
    for i, value in enumerate(found.scores.tolist()):
        why = found.explanation(i, (7, 9))
        assert why.intercept + sum(why.terms.values()) + why.evidence == pytest.approx(
            value, abs=1e-6
        )
        assert why.votes == (7, 9)
        assert why.intercept == found.intercept
        assert why.evidence >= 0.0
        assert (why.evidence > 0.0) <= (support[i] > 0.0)


@thorough(40, few=10)
@given(rows, strengths)
def test_chances_of_up_to_50_candidates_add_up_to_one(
    candidates: list[tuple[float, float]], n0: float
) -> None:
    z, support = zip(*candidates, strict=True)
    assert math.fsum(chances(with_prior(z, support, n0))) == pytest.approx(1.0, abs=1e-9)


def test_the_prior_is_spread_over_the_best_50() -> None:
    found = with_prior([0.0] * 60, [0.0] * 60)
    assert found.scores.tolist() == pytest.approx([-math.log(50)] * 60)
    values = np.array([*range(60)], dtype=np.float64)
    expected = math.log(math.fsum(math.exp(v) for v in range(10, 60)))
    assert log_normaliser(values) == pytest.approx(expected)
    assert log_normaliser(np.empty(0)) == 0.0


prior_rows = st.lists(
    st.lists(st.floats(-1, 1, width=32), min_size=len(FEATURES), max_size=len(FEATURES)),
    max_size=70,
)


def plain_sum(values: Iterable[float]) -> float:
    """One after the other; from Python 3.12 on `sum` is more exact."""
    return reduce(operator.add, values, 0.0)


def plain_order(values: Sequence[float], pids: Sequence[int]) -> list[int]:
    return sorted(range(len(values)), key=lambda i: (-values[i], pids[i]))


@thorough(40, few=10)
@given(prior_rows, st.lists(st.floats(-9, 9), min_size=9, max_size=9), st.integers(0, 2**32))
def test_without_support_scores_are_the_prior_and_one_constant_to_the_last_bit(
    features: list[list[float]], weights: list[float], seed: int
) -> None:
    parameters = Parameters(weights=dict(zip(FEATURES, weights, strict=True)))
    table = np.array(features, dtype=np.float32).reshape(-1, len(FEATURES))
    found = score(parameters, table, supported([0.0] * len(features)))
    prior = [plain_sum(f * w for f, w in zip(row, weights, strict=True)) for row in features]
    assert found.scores.tolist() == [z + found.intercept for z in prior]
    assert found.evidence.tolist() == [0.0] * len(features)
    pids = (np.random.default_rng(seed).permutation(len(features)) + 1).tolist()
    by_score = order(found.scores, np.array(pids, dtype=np.int64)).tolist()
    # rounding can only make neighbours of the prior's order equal, and never swaps them
    assert [prior[i] for i in by_score] == pytest.approx(sorted(prior, reverse=True), abs=1e-12)
    assert by_score == plain_order([z + found.intercept for z in prior], pids)


@thorough(40, few=10)
@given(st.lists(st.integers(-4000, 4000), min_size=1, max_size=70), st.integers(0, 2**32))
def test_without_support_the_order_is_the_priors(thousandths: list[int], seed: int) -> None:
    z = [float(np.float32(n / 1000)) for n in thousandths]
    pids = (np.random.default_rng(seed).permutation(len(z)) + 1).tolist()
    found = with_prior(z, [0.0] * len(z))
    assert order(found.scores, np.array(pids)).tolist() == plain_order(z, pids)


@thorough(40, few=10)
@given(rows, st.data(), st.floats(1e-6, 10.0), strengths)
def test_more_support_never_lowers_a_passage_against_any_other(
    candidates: list[tuple[float, float]], data: st.DataObject, more: float, n0: float
) -> None:
    z, support = (list(column) for column in zip(*candidates, strict=True))
    at = data.draw(st.integers(0, len(z) - 1))
    before = with_prior(z, support, n0)
    after = with_prior(z, [s + more * (i == at) for i, s in enumerate(support)], n0)
    others = [i for i in range(len(z)) if i != at]
    assert after.scores[at] >= before.scores[at] - 1e-12
    for i in others:
        lead_before = before.scores[at] - before.scores[i]
        assert after.scores[at] - after.scores[i] >= lead_before - 1e-9
        assert after.scores[i] <= before.scores[i] + 1e-12
    pids = np.arange(len(z))
    rank_before = order(before.scores, pids).tolist().index(at)
    assert order(after.scores, pids).tolist().index(at) <= rank_before
    # the others keep their order among themselves: all fall by the same amount
    fall = [float(before.scores[i] - after.scores[i]) for i in others]
    assert fall == pytest.approx([fall[0]] * len(fall) if fall else [], abs=1e-9)


@thorough(40, few=10)
@given(rows, strengths)
def test_votes_move_chances_by_no_more_than_their_share_against_n0(
    candidates: list[tuple[float, float]], n0: float
) -> None:
    z, support = zip(*candidates, strict=True)
    prior, found = (chances(with_prior(z, s, n0)) for s in ([0.0] * len(z), support))
    total = math.fsum(support)
    share = total / (n0 + total)
    for i, (before, after) in enumerate(zip(prior, found, strict=True)):
        assert abs(after - before) <= share + 1e-9
        assert after >= (1.0 - share) * before - 1e-9
        if total:
            assert after == pytest.approx(
                (1.0 - share) * before + share * support[i] / total, abs=1e-9
            )


@thorough(40, few=10)
@given(rows)
def test_the_effect_of_votes_vanishes_as_n0_grows(candidates: list[tuple[float, float]]) -> None:
    z, support = zip(*candidates, strict=True)
    prior = chances(with_prior(z, [0.0] * len(z)))
    for n0 in (1e3, 1e6, 1e9):
        found = chances(with_prior(z, support, n0))
        assert found == pytest.approx(prior, abs=math.fsum(support) / n0 + 1e-9)


def test_one_answer_outweighs_a_small_prior_and_a_large_one_stays_ahead() -> None:
    z = [3.0, 0.0, -3.0]
    assert np.argmax(with_prior(z, [0.0, 0.0, 1.0]).scores) == 0
    assert np.argmax(with_prior(z, [0.0, 0.0, 9.0]).scores) == 2


@pytest.mark.parametrize("z", [-1e6, -750.0, -40.0, 0.0, 40.0, 750.0, 1e6])
@pytest.mark.parametrize("support", [0.0, 1e-300, 1e-9, 1.0, 1e9, 1e300])
def test_extreme_inputs_give_finite_chances(z: float, support: float) -> None:
    found = with_prior([z, 0.0, -z], [support, 0.0, 0.0], 3.0)
    assert np.isfinite(found.scores).all()
    assert (found.scores <= 1e-9).all()  # chances, within rounding
    expected = decimal_scores([z, 0.0, -z], [support, 0.0, 0.0], 3.0)
    assert found.scores.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_no_candidates_no_scores() -> None:
    assert with_prior([], []).scores.tolist() == []
    assert score_given(Parameters(), np.empty(0), supported([])).scores.tolist() == []


def test_one_candidate_is_the_answer() -> None:
    assert with_prior([-7.25], [0.0]).scores.tolist() == [0.0]
    assert with_prior([-7.25], [5.0]).scores.tolist() == pytest.approx([0.0], abs=1e-12)


@thorough(40, few=10)
@given(st.lists(st.integers(-5, 5).map(float), max_size=30), st.lists(st.integers(), unique=True))
def test_order_is_by_score_then_pid(scores: list[float], pids: list[int]) -> None:
    n = min(len(scores), len(pids))
    numbers = [p % 2**62 for p in pids[:n]]
    found = order(np.array(scores[:n]), np.array(numbers, dtype=np.int64))
    assert found.tolist() == plain_order(scores[:n], numbers)


def test_candidates_with_one_score_come_in_the_order_of_their_pids() -> None:
    found = with_prior([1.0, 1.0, 2.0, 1.0], [0.0] * 4)
    assert order(found.scores, np.array([30, 10, 40, 20])).tolist() == [2, 1, 3, 0]


def given_scores(scores: Sequence[float], support: Sequence[float] | None = None) -> Scored:
    votes = supported([0.0] * len(scores) if support is None else support)
    parameters = Parameters(candidate_spread=3.0, kernel=Kernel(n0=3.0))
    return score_given(parameters, np.array(scores, dtype=np.float64), votes)


def below_the_best(found: Scored) -> list[float]:
    return [float(value - found.scores.max()) for value in found.scores]


def test_own_candidates_are_laid_between_the_best_and_the_spread() -> None:
    assert below_the_best(given_scores([10.0, 4.0, 7.0])) == pytest.approx([0.0, -3.0, -1.5])
    assert below_the_best(given_scores([-1.0, -1.5, -3.0])) == pytest.approx([0.0, -0.75, -3.0])
    found = given_scores([10.0, 4.0, 7.0])
    assert [found.explanation(i, ()).terms for i in range(3)] == [
        {"candidate": 0.0},
        {"candidate": -3.0},
        {"candidate": -1.5},
    ]


@pytest.mark.parametrize("scores", [[5.0], [2.0, 2.0, 2.0], [0.0, 0.0], [-1e308, -1e308]])
def test_own_candidates_with_one_score_have_even_chances(scores: list[float]) -> None:
    assert chances(given_scores(scores)) == pytest.approx([1 / len(scores)] * len(scores))


@thorough(40, few=10)
@given(st.lists(st.integers(-(10**6), 10**6).map(float), min_size=2, unique=True), st.data())
def test_own_candidates_keep_their_order_and_the_spread(
    scores: list[float], data: st.DataObject
) -> None:
    found = given_scores(scores)
    assert np.argsort(found.scores).tolist() == np.argsort(scores).tolist()
    assert min(below_the_best(found)) == pytest.approx(-3.0, abs=1e-9)
    support = data.draw(st.lists(amounts, min_size=len(scores), max_size=len(scores)))
    low, high = min(scores), max(scores)
    z = [3.0 * (value - high) / (high - low) for value in scores]
    voted = given_scores(scores, support).scores.tolist()
    assert voted == pytest.approx(decimal_scores(z, support, 3.0), abs=1e-9)


def test_own_candidates_with_huge_finite_scores_get_finite_ones() -> None:
    found = given_scores([1.7e308, -1.7e308, 0.0])
    assert below_the_best(found) == pytest.approx([0.0, -3.0, -1.5])


chances_before = st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=8)


@thorough(60, few=15)
@given(chances_before, st.data())
def test_votes_on_the_same_question_multiply_the_odds(
    logits: list[float], data: st.DataObject
) -> None:
    n = len(logits)
    support = data.draw(st.lists(st.just(0.0) | st.floats(1e-6, 2.0), min_size=n, max_size=n))
    odds = data.draw(st.lists(st.floats(-20.0, 20.0), min_size=n, max_size=n))
    table = np.zeros((n, len(FEATURES)), dtype=np.float32)
    table[:, 0] = logits
    parameters = Parameters(weights={**dict.fromkeys(FEATURES, 0.0), "dense": 1.0})
    nothing = np.zeros(n)
    before = np.exp(score(parameters, table, supported(support)).scores)
    found = score(parameters, table, Votes(np.array(support), nothing, np.array(odds), nothing))
    joint = before * np.exp(odds)
    expected = joint / (joint.sum() + max(0.0, 1.0 - before.sum()))
    assert np.exp(found.scores) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    parts = found.intercept + found.terms.sum(axis=1) + found.evidence
    assert parts == pytest.approx(found.scores, abs=1e-6)


def test_a_named_passage_starts_from_its_least_chance() -> None:
    table = np.zeros((2, len(FEATURES)), dtype=np.float32)
    table[:, 0] = [10.0, -10.0]
    parameters = Parameters(weights={**dict.fromkeys(FEATURES, 0.0), "dense": 1.0})
    odds = np.array([0.0, 4.0 * math.log(4.0)])  # two corrections
    votes = Votes(np.zeros(2), np.zeros(2), odds, np.array([0.0, 0.05]))
    first, named = np.exp(score(parameters, table, votes).scores)
    assert named / first == pytest.approx(0.05 * 256.0, rel=1e-4)


def plain_several(
    z: Sequence[float],
    answers: float,
    n0: float,
    votes: Sequence[tuple[float, float, float, float]],
) -> list[float]:
    """log(-log(1 - P)) of each passage, in 60-digit decimals; votes: (S, E, log odds, least chance)."""
    with localcontext() as context:
        context.prec = 60
        powers = [Decimal(value).exp() for value in z]
        shared = sum(sorted(powers, reverse=True)[:POOL], Decimal(0))
        found = []
        for power, (support, every, log_odds, least) in zip(powers, votes, strict=True):
            prior = 1 - (-Decimal(answers) * power / shared).exp()
            chance = (Decimal(n0) * prior + Decimal(support)) / (Decimal(n0) + Decimal(every))
            odds = max(chance / (1 - chance), Decimal(least) / (1 - Decimal(least)))
            found.append(float((1 + odds * Decimal(log_odds).exp()).ln().ln()))
        return found


one_vote = st.tuples(
    st.floats(0.0, 1.0), st.floats(0.0, 3.0), st.sampled_from([0.0, -9.0, 3.0]), st.just(0.0)
).map(lambda v: (v[0] * v[1], *v[1:]))


@thorough(60, few=15)
@given(
    st.lists(st.floats(-8.0, 8.0), min_size=1, max_size=60),
    st.floats(0.05, 20.0),
    st.floats(0.01, 10.0),
    st.data(),
)
def test_with_several_answers_scores_equal_the_formula(
    z: list[float], answers: float, n0: float, data: st.DataObject
) -> None:
    given = data.draw(st.lists(one_vote, min_size=len(z), max_size=len(z)))
    weights = dict.fromkeys(FEATURES, 0.0) | {"dense": 1.0}
    parameters = Parameters(weights=weights, kernel=Kernel(n0=n0), answers=answers)
    features = only_dense(z)
    support, every, log_odds, least = np.array(given).T
    found = score(parameters, features, Votes(support, every, log_odds, least))
    expected = plain_several(features[:, 0].tolist(), answers, n0, given)
    assert found.scores == pytest.approx(expected, abs=1e-5)
    parts = found.intercept + found.terms.sum(axis=1) + found.evidence
    assert parts == pytest.approx(found.scores, abs=1e-6)
    silent = (every == 0.0) & (log_odds == 0.0)
    assert not found.evidence[silent].any()  # nobody spoke of them: their score is the prior's
    for value in found.scores.tolist():
        assert 0.0 < chance_of(value, answers) <= 1.0


def test_with_several_answers_neighbours_move_no_passage_that_they_do_not_speak_of() -> None:
    weights = dict.fromkeys(FEATURES, 0.0) | {"dense": 1.0}
    parameters = Parameters(weights=weights, kernel=Kernel(n0=0.5), answers=3.0)
    nothing = np.zeros(3)
    alone = score(parameters, only_dense([2.0, 1.0, 0.0]), supported([0.0, 0.0, 0.0]))
    support, every = np.array([0.0, 0.0, 1.9]), np.array([0.0, 0.0, 2.0])
    found = score(parameters, only_dense([2.0, 1.0, 0.0]), Votes(support, every, nothing, nothing))
    assert found.scores[:2].tolist() == alone.scores[:2].tolist()
    assert found.scores[2] > found.scores[1]
    # a neighbour that holds a passage for wrong lowers it
    lowered = score(
        parameters, only_dense([2.0, 1.0, 0.0]), Votes(nothing, every[::-1], nothing, nothing)
    )
    assert lowered.scores[0] < alone.scores[0]


def test_with_several_answers_a_named_passage_starts_from_its_least_chance() -> None:
    weights = dict.fromkeys(FEATURES, 0.0) | {"dense": 1.0}
    parameters = Parameters(weights=weights, answers=2.0)
    votes = Votes(np.zeros(2), np.zeros(2), np.array([0.0, math.log(256.0)]), np.array([0.0, 0.05]))
    scores = score(parameters, only_dense([10.0, -30.0]), votes).scores
    assert chance_of(float(scores[1]), 2.0) == pytest.approx(256 / (256 + 19), rel=1e-4)


@pytest.mark.parametrize("z", [-1e6, -750.0, 0.0, 750.0, 1e6])
@pytest.mark.parametrize("log_odds", [-50.0, 0.0, 50.0])
def test_with_several_answers_extreme_inputs_give_finite_scores(z: float, log_odds: float) -> None:
    weights = dict.fromkeys(FEATURES, 0.0) | {"dense": 1.0}
    for answers, n0, most in ((1e-3, 1e9, 1e-9), (1e3, 1e-9, 1e9)):
        parameters = Parameters(weights=weights, kernel=Kernel(n0=n0), answers=answers)
        both = np.array([most, 0.0])
        votes = Votes(both, both, np.full(2, log_odds), np.zeros(2))
        found = score(parameters, only_dense([z, 0.0]), votes)
        assert np.isfinite(found.scores).all()
        votes = Votes(np.zeros(2), both, np.full(2, log_odds), np.zeros(2))
        assert np.isfinite(score(parameters, only_dense([z, 0.0]), votes).scores).all()
