"""The two-sample test on vectors of questions."""

import numpy as np
import numpy.typing as npt
import pytest

from rag_flywheel.report.drift import LEAST, drift_of

Vectors = npt.NDArray[np.float32]


def drawn(rng: np.random.Generator, n: int, topics: int, first: int = 0, dim: int = 64) -> Vectors:
    """Questions about some topics: unit vectors about a direction for each."""
    centres = np.random.default_rng(99).standard_normal((40, dim))[first : first + topics]
    rows = 2.0 * centres[rng.integers(0, topics, n)] + rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("new", [0, 60, 150, 300])
def test_the_size_is_about_the_share_of_questions_on_new_topics(new: int) -> None:
    rng = np.random.default_rng(1)
    now = np.concatenate([drawn(rng, 300 - new, 10), drawn(rng, new, 5, first=20)])
    found = drift_of(now, drawn(rng, 300, 10))
    assert found is not None
    assert found.size == pytest.approx(new / 300, abs=0.08)
    assert (found.p <= 0.01) == (new > 0)


def test_p_is_uniform_where_nothing_changed() -> None:
    rng = np.random.default_rng(2)
    found = [drift_of(drawn(rng, 40, 8), drawn(rng, 25, 8)) for _ in range(100)]
    p = [each.p for each in found if each is not None]
    assert len(p) == 100
    assert np.mean(np.array(p) <= 0.05) <= 0.12
    assert 0.4 < np.mean(p) < 0.6


def test_the_same_questions_asked_again_and_again_are_no_drift() -> None:
    rng = np.random.default_rng(3)
    few = drawn(rng, 4, 4)
    found = drift_of(few[rng.integers(0, 4, 200)], few[rng.integers(0, 4, 200)])
    assert found is not None
    assert found.size < 0.1 and found.p > 0.01
    one = np.repeat(few[:1], 30, axis=0)
    same = drift_of(one, one)
    assert same is not None and same.size == 0.0 and same.p > 0.5


def test_it_is_the_same_at_each_call_and_needs_some_questions() -> None:
    rng = np.random.default_rng(4)
    now, before = drawn(rng, 30, 3), drawn(rng, 50, 3, first=1)
    assert drift_of(now, before) == drift_of(now, before)
    assert drift_of(now[: LEAST - 1], before) is None
    assert drift_of(now, before[: LEAST - 1]) is None
    assert drift_of(np.empty((0, 0), np.float32), before) is None
