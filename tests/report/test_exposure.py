import numpy as np
import pytest

from rag_flywheel.report.exposure import gini


def by_definition(counts: list[float]) -> float:
    """Mean absolute difference of all ordered pairs, over twice the mean."""
    n = len(counts)
    mean = sum(counts) / n
    return sum(abs(x - y) for x in counts for y in counts) / (2 * n * n * mean)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 5, 5, 5], 0.0),
        ([0, 0, 0, 7], 0.75),
        ([1, 3], 0.25),
        ([1, 2, 3, 4], 0.25),
        ([3, 0, 1], 0.5),
        ([8], 0.0),
    ],
)
def test_gini_of_tables_worked_by_hand(counts: list[int], expected: float) -> None:
    assert gini(counts) == pytest.approx(expected, abs=1e-12)


def test_gini_is_half_the_relative_mean_difference() -> None:
    rng = np.random.default_rng(0)
    for size in (2, 3, 17, 60):
        counts = rng.poisson(2.0, size).astype(float).tolist()
        counts[0] += 1
        assert gini(counts) == pytest.approx(by_definition(counts), abs=1e-12)


def test_gini_does_not_depend_on_order_or_unit_but_on_passages_never_shown() -> None:
    counts = np.array([4, 1, 0, 9])
    assert gini(counts[::-1]) == pytest.approx(gini(counts))
    assert gini(10 * counts) == pytest.approx(gini(counts))
    assert gini([4, 1, 9]) < gini(counts)


def test_nothing_shown_is_even_and_nonsense_is_refused() -> None:
    assert gini([0, 0, 0]) == 0.0
    with pytest.raises(ValueError, match="empty or negative"):
        gini([])
    with pytest.raises(ValueError, match="empty or negative"):
        gini([1, -1])
