"""Searching the vectors that pass a filter."""

import numpy as np
import pytest

from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.part import Part, Signs, helps, nearest_at, nearest_by_signs
from rag_flywheel.index.spans import rows_at
from rag_flywheel.records import Vectors

DIM = 320  # not a power of two: its signs fill five numbers of 64 bits


def vectors_around(n: int, dim: int, seed: int, *, centre: float = 0.5) -> Vectors:
    """Unit rows in 40 bunches, all of them on one side of the origin, as those of encoders are."""
    rng = np.random.default_rng(seed)
    bunches = rng.standard_normal((40, dim))
    rows = centre + bunches[rng.integers(0, 40, n)] + rng.standard_normal((n, dim))
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


ROWS, QUERIES = vectors_around(12_000, DIM, 1), vectors_around(20, DIM, 2)
INDEX = DenseIndex.build(np.arange(len(ROWS), dtype=np.int64), ROWS)


def exact(query: Vectors, places: np.ndarray, n: int) -> list[int]:
    cosines = ROWS[places].astype(np.float64) @ query.astype(np.float64)
    found: list[int] = places[np.argsort(-cosines)[:n]].tolist()
    return found


@pytest.mark.parametrize("n", [1, 7, 100])
def test_the_nearest_at_some_places_are_exact(n: int) -> None:
    places = np.flatnonzero(np.random.default_rng(3).random(len(ROWS)) < 0.2)
    for query in QUERIES:
        found = nearest_at(query, ROWS, places, n)
        assert found.tolist() == exact(query, places, n)


def test_equal_vectors_come_in_the_order_of_their_places() -> None:
    rows = np.repeat(ROWS[:3], 50, axis=0)
    found = nearest_at(ROWS[1], rows, np.arange(len(rows))[::-1], 60)
    assert found[:50].tolist() == list(range(50, 100))
    assert np.all(np.diff(found[50:]) > 0)


@pytest.mark.skipif(not hasattr(np, "bitwise_count"), reason="signs are counted by numpy 2")
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_signs_lead_to_nearly_all_of_the_nearest(share: float) -> None:
    part = Part.of(np.random.default_rng(4).random(len(ROWS)) < share)
    assert helps(DIM, part, 10)
    signs, places, shares = Signs(ROWS), np.flatnonzero(part.mask), []
    for query in QUERIES:
        found = nearest_by_signs(query, ROWS, signs, part, 10)
        assert part.mask[found].all() and len(found) == 10
        shares.append(np.isin(exact(query, places, 10), found).mean())
    assert (
        np.mean(shares) >= 0.9
    )  # of vectors that differ by chance alone: the hardest to tell apart


def test_few_vectors_or_coordinates_are_compared_themselves() -> None:
    every = Part.of(np.ones(len(ROWS), dtype=np.bool_))
    few = Part.of(np.arange(len(ROWS)) < 3_000)
    assert not helps(DIM, few, 10)
    assert not helps(64, every, 10)
    assert not helps(DIM, every, len(ROWS) // 2)


def test_rows_are_read_one_after_the_other() -> None:
    rng = np.random.default_rng(5)
    offsets = np.append(0, np.cumsum(rng.integers(0, 6, 200))).astype(np.int32)
    values = rng.integers(0, 1_000, offsets[-1]).astype(np.int32)
    rows = rng.integers(0, 200, 500).astype(np.int32)
    wanted = np.concatenate([values[offsets[row] : offsets[row + 1]] for row in rows])
    assert rows_at(values, offsets, rows, len(wanted)).tolist() == wanted.tolist()
    assert not len(rows_at(values, offsets, rows[:0], 0))
