"""The highest scores of many, against sorting all of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.serve.candidates import highest
from thorough import thorough


@thorough(60, few=15)
@given(
    st.integers(0, 30_000), st.integers(1, 120), st.floats(0, 1), st.booleans(), st.integers(0, 99)
)
def test_the_highest_above_zero_are_found(
    n_texts: int, n: int, share: float, few_values: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(n_texts) < share, rng.gamma(2.0, 3.0, n_texts), 0.0)
    scores = (np.round(scores) if few_values else scores).astype(np.float32)
    found = highest(scores, n)
    assert len(np.unique(found)) == len(found)
    wanted = -np.sort(-scores)[:n]
    assert np.sort(scores[found]).tolist() == np.sort(wanted[wanted > 0]).tolist()
