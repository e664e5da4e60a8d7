"""The nearest to many queries, against a sort of all products."""

import numpy as np
import pytest

from rag_flywheel.index import exact
from rag_flywheel.index.exact import nearest_to_many


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 10), (64, 64), (300, 7), (257, 1)])
def test_they_are_the_first_of_all_products_sorted(
    n: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_AT_ONCE", 64)
    rng = np.random.default_rng(n)
    queries = rng.standard_normal((9, 8)).astype(np.float32)
    rows = rng.standard_normal((n, 8)).astype(np.float32)
    wanted = np.argsort(-(queries.astype(float) @ rows.astype(float).T), axis=1)[:, :k]
    assert nearest_to_many(queries, rows, k).tolist() == wanted.tolist()
