import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rag_flywheel.bench.intervals import bootstrap_interval, helped_hurt_untouched
from rag_flywheel.evaluate.paired import better_test, randomisation_test
from thorough import thorough

Floats = npt.NDArray[np.float64]


def all_sums(differences: Floats) -> Floats:
    """The sums of all 2^n sign patterns."""
    patterns = itertools.product((1, -1), repeat=len(differences))
    return np.array([sum(s * d for s, d in zip(p, differences, strict=True)) for p in patterns])


def exact_p(differences: Floats) -> float:
    """The share of all sign patterns with a sum at least as far from zero."""
    seen = abs(float(sum(differences))) - 1e-12
    return float(np.mean(np.abs(all_sums(differences)) >= seen))


def exact_better(differences: Floats) -> float:
    """The share of all sign patterns with a sum at least as large."""
    return float(np.mean(all_sums(differences) >= float(sum(differences)) - 1e-12))


@pytest.mark.parametrize("n", [1, 2, 5, 8, 10])
@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_p_is_that_of_all_sign_patterns(n: int, shift: float) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.random(n) + shift, rng.random(n)
    p = randomisation_test(a, b, n_rounds=40_000, seed=1)
    assert p == pytest.approx(exact_p(a - b), abs=0.012)  # more than four standard errors


def test_p_of_a_table_worked_by_hand() -> None:
    # All five better: only the all-plus and the all-minus pattern are as far out, 2 of 32.
    a = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    assert exact_p(a) == 2 / 32
    assert randomisation_test(a, np.zeros(5), n_rounds=40_000, seed=0) == pytest.approx(
        2 / 32, abs=0.006
    )


def test_ties_at_the_seen_sum_count_as_extreme() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floats; every pattern is at least as far from zero as that sum.
    assert randomisation_test(np.array([0.1, 0.2, -0.3]), np.zeros(3), n_rounds=500, seed=0) == 1.0


def test_p_is_never_zero_and_counts_as_one_plus_c_over_one_plus_n() -> None:
    a = np.full(60, 0.5)
    assert randomisation_test(a, np.zeros(60), n_rounds=999, seed=0) == 1 / 1000


def test_the_same_values_give_p_one() -> None:
    a = np.array([0.3, 0.7])
    assert randomisation_test(a, a, n_rounds=100, seed=0) == 1.0


def test_p_agrees_with_scipy_and_is_the_same_from_either_side() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(300), rng.random(300)
    p = randomisation_test(a, b, seed=0)
    theirs = stats.permutation_test(
        (a - b,),
        lambda x, axis: np.abs(x.mean(axis=axis)),
        permutation_type="samples",
        vectorized=True,
        alternative="greater",
        n_resamples=2_000,
        random_state=np.random.default_rng(1),
    ).pvalue
    assert 0.02 < p < 0.6
    assert p == pytest.approx(theirs, abs=0.05)
    assert randomisation_test(b, a, seed=0) == p


def test_p_is_uniform_when_nothing_differs() -> None:
    rng = np.random.default_rng(4)
    p = [
        randomisation_test(rng.normal(size=40), rng.normal(size=40), n_rounds=400, seed=i)
        for i in range(400)
    ]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 10])
@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.2])
def test_p_of_being_better_is_that_of_all_sign_patterns(n: int, shift: float) -> None:
    differences = np.random.default_rng(n).normal(shift, 0.3, n)
    p = better_test(differences, n_rounds=40_000, seed=1)
    assert p == pytest.approx(exact_better(differences), abs=0.012)  # four standard errors


def test_p_of_being_better_of_a_table_worked_by_hand() -> None:
    # All five better: one pattern of 32 is as good; all five worse: every pattern is.
    five = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    assert better_test(five, n_rounds=40_000, seed=0) == pytest.approx(1 / 32, abs=0.004)
    assert better_test(-five, n_rounds=400, seed=0) == 1.0
    assert better_test(np.full(60, 0.5), n_rounds=999, seed=0) == 1 / 1000


def test_ties_at_the_seen_sum_count_against_being_better() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floats, and of the sums of all patterns, 0.6, 0.4, 0.2, 0, 0
    # are as large, five of eight. So it is from the other side.
    tie = np.array([0.1, 0.2, -0.3])
    for differences in (tie, -tie, tie[::-1]):
        p = better_test(differences, n_rounds=40_000, seed=0)
        assert p == pytest.approx(5 / 8, abs=0.01)
    assert better_test(np.zeros(4), n_rounds=50, seed=0) == 1.0


halves = st.lists(st.integers(-20, 20).map(lambda i: i / 8), min_size=1, max_size=12)


@thorough(60, few=15)
@given(halves, st.integers(0, 1000))
def test_being_better_is_one_sided(differences: list[float], seed: int) -> None:
    d, n_rounds = np.array(differences), 300

    def p(of: Floats) -> float:
        return better_test(of, n_rounds=n_rounds, seed=seed)

    # Every round is as large as the sum seen or as small as it, and both where it ties.
    assert p(d) + p(-d) >= (2 + n_rounds) / (1 + n_rounds) - 1e-12
    assert p(np.append(d, [0.0, 0.0])) == p(d)
    assert p(4 * d) == p(d)
    assert p(np.abs(d)) <= p(d)
    two_sided = randomisation_test(d, np.zeros(len(d)), n_rounds=n_rounds, seed=seed)
    assert min(p(d), p(-d)) <= two_sided + 1e-12  # the same rounds, and those of the other side


def test_a_seed_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random(50), rng.random(50)
    p = randomisation_test(a, b, n_rounds=2_000, seed=7)
    interval = bootstrap_interval(a - b, n_rounds=2_000, seed=7)
    assert randomisation_test(a, b, n_rounds=2_000, seed=7) == p
    assert bootstrap_interval(a - b, n_rounds=2_000, seed=7) == interval
    assert randomisation_test(a, b, n_rounds=2_000, seed=8) != p
    assert bootstrap_interval(a - b, n_rounds=2_000, seed=8) != interval


def test_many_queries_are_drawn_in_parts_and_give_the_p_of_a_t_test() -> None:
    differences = np.random.default_rng(9).normal(0.002, 0.1, 4_000)
    p = randomisation_test(differences, np.zeros(4_000), n_rounds=3_001, seed=0)
    assert 0.05 < p < 0.6
    assert p == pytest.approx(stats.ttest_1samp(differences, 0.0).pvalue, abs=0.04)
    assert p * 3_002 == pytest.approx(round(p * 3_002), abs=1e-9)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    covered, above = 0, 0
    for i in range(300):
        low, high = bootstrap_interval(rng.exponential(1.0, 80), level=0.9, n_rounds=400, seed=i)
        covered += low <= 1.0 <= high
        above += high < 1.0
    assert 0.83 <= covered / 300 <= 0.95
    assert 0 < above / 300 < 0.15


def test_the_interval_is_that_of_the_normal_law_for_many_queries() -> None:
    differences = np.random.default_rng(8).normal(0.02, 0.2, 2_000)
    low, high = bootstrap_interval(differences, seed=0)
    half = 1.96 * differences.std() / np.sqrt(2_000)
    assert low == pytest.approx(differences.mean() - half, abs=0.0008)
    assert high == pytest.approx(differences.mean() + half, abs=0.0008)
    narrow = bootstrap_interval(differences, level=0.5, seed=0)
    assert low < narrow[0] < narrow[1] < high


def test_the_interval_of_two_queries_worked_by_hand() -> None:
    # The mean of two draws from {0, 1} is 0, 0.5 or 1 with chances 1/4, 1/2, 1/4.
    assert bootstrap_interval(np.array([0.0, 1.0]), level=0.95, seed=0) == (0.0, 1.0)
    assert bootstrap_interval(np.array([0.0, 1.0]), level=0.4, seed=0) == (0.5, 0.5)


def test_helped_hurt_and_untouched_are_shares_of_queries() -> None:
    differences = np.array([0.2, -0.1, 0.0, 1e-12, -1e-12, 0.3, 0.0, 0.05])
    assert helped_hurt_untouched(differences) == (3 / 8, 1 / 8, 4 / 8)
    assert helped_hurt_untouched(differences, tolerance=0.1) == (2 / 8, 0.0, 6 / 8)


def test_nonsense_is_refused() -> None:
    one, none = np.array([0.1]), np.array([])
    with pytest.raises(ValueError, match="shapes"):
        randomisation_test(np.zeros(2), np.zeros(3), seed=0)
    with pytest.raises(ValueError, match="n > 0"):
        randomisation_test(none, none, seed=0)
    for wrong in (none, np.zeros((2, 2)), np.zeros((1, 3)), np.array(1.0)):
        with pytest.raises(ValueError, match=r"expected \(n,\) with n > 0"):
            better_test(wrong, seed=0)
    with pytest.raises(ValueError, match="n > 1"):
        bootstrap_interval(one, seed=0)
    with pytest.raises(ValueError, match="level is 95"):
        bootstrap_interval(np.zeros(2), level=95, seed=0)
    with pytest.raises(ValueError, match="no differences"):
        helped_hurt_untouched(none)
