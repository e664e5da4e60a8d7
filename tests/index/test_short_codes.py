"""Short codes against exact products: nearly all of the nearest are among the likely ones."""

import numpy as np
import pytest

from rag_flywheel.index.short_codes import Codes
from rag_flywheel.records import Vectors


def clustered(n: int, dim: int, seed: int) -> Vectors:
    """float32 (n, dim) unit rows around 40 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(40, dim))
    rows = centres[rng.integers(40, size=n)] + 0.8 * rng.normal(size=(n, dim))
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


@pytest.mark.parametrize(
    "dim",
    [64, pytest.param(30, marks=pytest.mark.slow)],  # 30: not a multiple of what shares a code
)
def test_nearly_all_of_the_nearest_are_likely(dim: int) -> None:
    vectors, queries = clustered(3_000, dim, 2), clustered(20, dim, 3)
    likely = Codes.build(vectors).likely(queries, 256)
    assert likely.shape == (20, 256)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :32]
    shares = [np.isin(a, b).mean() for a, b in zip(exact, likely, strict=True)]
    assert float(np.mean(shares)) > 0.99


def test_extended_codes_find_what_was_added_and_leave_the_old_ones_alone() -> None:
    vectors, more = clustered(500, 64, 2), clustered(40, 64, 4)
    codes = Codes.build(vectors)
    longer = codes.extended(more)
    assert (len(codes), len(longer), longer.n_learned) == (500, 540, 500)
    found = longer.likely(more, 20)
    assert all(500 + i in row for i, row in enumerate(found.tolist()))
    assert codes.likely(more, 20).max() < 500


@pytest.mark.parametrize(("n", "dim"), [(500, 64), (515, 30), (16, 5)])
def test_codes_made_of_their_arrays_are_the_same_and_go_on_alike(n: int, dim: int) -> None:
    vectors, more = clustered(n, dim, 2), clustered(40, dim, 4)
    codes = Codes.build(vectors)
    again = Codes.of(codes.centroids, codes.table, n=n, n_learned=codes.n_learned, dim=dim)
    assert (len(again), again.n_learned) == (n, n)
    assert np.array_equal(again.likely(more, 20), codes.likely(more, 20))
    longer, also = again.extended(more), codes.extended(more)
    assert np.array_equal(longer.likely(more, 20), also.likely(more, 20))
    assert np.array_equal(longer.table, also.table)


def test_the_same_vectors_have_the_same_codes_and_fewer_are_all_likely() -> None:
    vectors = clustered(300, 64, 2)
    first, again = (Codes.build(vectors).likely(vectors[:5], 50) for _ in range(2))
    assert np.array_equal(first, again)
    assert sorted(Codes.build(vectors).likely(vectors[:1], 1_000)[0].tolist()) == list(range(300))
