"""Nearest past queries, what they say, and thetas, against loops in plain Python and numpy."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.improve.examples import (
    NEIGHBOURS,
    Examples,
    Floats,
    Ints,
    Links,
    all_support,
    kernel_weights,
    links,
    nearest,
    sums_of_support,
    support,
)
from rag_flywheel.improve.threshold import thetas
from rag_flywheel.index.nearest import nearest_rows
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.records import QueryKey, Vectors
from thorough import thorough

Matrix = npt.NDArray[np.int64]
KERNEL = Kernel(0.5, 0.9, 2.0)
seeds = st.integers(0, 2**32 - 1)


def units(rng: np.random.Generator, n: int, dim: int) -> Vectors:
    vectors = rng.normal(size=(n, dim))
    found: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


def made(vectors: Vectors, lineages: Matrix, tenants: Ints | None = None) -> Examples:
    n, width = lineages.shape
    helpful = np.arange(n * width, dtype=np.float64).reshape(n, width)
    return Examples(
        [QueryKey(i.to_bytes(16, "big"), None) for i in range(n)],
        vectors,
        lineages,
        np.arange(n * width * 2, dtype=np.float32).reshape(n, width, 2),
        helpful,
        np.flip(helpful, axis=0),
        np.zeros(n, dtype=np.int64) if tenants is None else tenants,
    )


def random_examples(
    rng: np.random.Generator, n: int, *, width: int = 3, dim: int = 4, passages: int = 8
) -> Examples:
    """Each query has up to `width` different ones of the passages, and nothing in other places."""
    each = [rng.permutation(passages)[:width] for _ in range(n)]
    lineages = np.array(each, dtype=np.int64).reshape(n, width)
    lineages[rng.random(lineages.shape) < 0.3] = -1
    return made(units(rng, n, dim), lineages, rng.integers(0, 2, n))


def require_nearest(
    targets: Examples, sources: Examples, target_folds: Ints, source_folds: Ints
) -> None:
    found = nearest(targets, sources, target_folds, source_folds)
    k = min(NEIGHBOURS, len(sources))
    assert found.rows.shape == found.cosines.shape == (len(targets), k)
    for i in range(len(targets)):
        allowed = {
            j: float(targets.vectors[i] @ sources.vectors[j])
            for j in range(len(sources))
            if targets.tenants[i] == sources.tenants[j] and target_folds[i] != source_folds[j]
        }
        best = sorted(allowed.values(), reverse=True)[:k]
        there = found.cosines[i] > -1.5
        rows = found.rows[i][there].tolist()
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(allowed)
        for row, cosine in zip(rows, found.cosines[i][there].tolist(), strict=True):
            assert cosine == pytest.approx(min(allowed[row], 1.0), abs=1e-5)
        found_best = sorted(found.cosines[i][there].tolist(), reverse=True)
        assert found_best == pytest.approx(best, abs=1e-5)
        assert (found.cosines[i][~there] == -2.0).all()


@thorough(30, few=7)
@given(seeds, st.integers(0, 12), st.integers(0, 60))
def test_nearest_are_those_of_a_loop_over_all_sources(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    targets, sources = random_examples(rng, n), random_examples(rng, m)
    require_nearest(targets, sources, rng.integers(0, 3, n), rng.integers(0, 3, m))


def test_nearest_of_more_targets_than_are_looked_at_together() -> None:
    rng = np.random.default_rng(1)
    targets, sources = random_examples(rng, 530), random_examples(rng, 40)
    require_nearest(targets, sources, np.zeros(530, np.int64), rng.integers(0, 2, 40))


@pytest.mark.parametrize("known", [False, True])
def test_nearest_where_most_of_the_nearest_do_not_count(known: bool) -> None:
    rng = np.random.default_rng(3)
    targets, sources = random_examples(rng, 40), random_examples(rng, 400)
    folds = np.zeros(40, np.int64), (rng.random(400) < 0.12).astype(np.int64)
    require_nearest(targets, sources, *folds)
    if known:
        near = nearest_rows(targets.vectors, sources.vectors, 90)
        given = nearest(targets, sources, *folds, near)
        sought = nearest(targets, sources, *folds)
        assert np.sort(given.cosines) == pytest.approx(np.sort(sought.cosines), abs=1e-6)


def test_a_query_is_not_its_own_neighbour_but_its_double_is() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    three = made(vectors, np.zeros((3, 1), dtype=np.int64))
    each = np.arange(3)
    found = nearest(three, three, each, each)
    for i, double in [(0, 1), (1, 0)]:
        order = found.cosines[i].argsort()[::-1]
        assert found.rows[i][order[0]] == double
        assert found.cosines[i][order].tolist() == [1.0, 0.0, -2.0]


def test_a_cosine_above_1_by_rounding_is_1() -> None:
    vector = np.array([[0.6, 0.80001]], dtype=np.float32)
    one = made(vector, np.zeros((1, 1), dtype=np.int64))
    found = nearest(one, one, np.zeros(1, np.int64), np.ones(1, np.int64))
    assert found.cosines.tolist() == [[1.0]]


def triples(found: Links) -> list[tuple[int, int, int]]:
    parts = found.to.tolist(), found.of.tolist(), found.slot.tolist()
    return sorted(zip(*parts, strict=True))


@thorough(60, few=15)
@given(seeds, st.integers(0, 6), st.integers(0, 9), st.integers(1, 4), st.integers(1, 4))
def test_links_are_the_pairs_of_equal_passages(
    seed: int, n: int, m: int, width: int, many: int
) -> None:
    rng = np.random.default_rng(seed)
    targets = random_examples(rng, n, width=width)
    sources = random_examples(rng, m, width=many)
    near = nearest(targets, sources, np.zeros(n, np.int64), np.ones(m, np.int64))
    expected = []
    for i, rows in enumerate(near.rows.tolist()):
        for place, row in enumerate(rows):
            for c, ours in enumerate(targets.lineages[i].tolist()):
                for o, theirs in enumerate(sources.lineages[row].tolist()):
                    if ours == theirs != -1:
                        expected.append((i * width + c, row * many + o, i * len(rows) + place))
    assert triples(links(near, targets, sources, np.ones((m, many)))) == sorted(expected)
    said = rng.random((m, many)) * (rng.random((m, many)) < 0.5)
    heard = [link for link in expected if said.ravel()[link[1]] > 0]
    assert triples(links(near, targets, sources, said)) == sorted(heard)


@thorough(60, few=15)
@given(seeds, st.integers(1, 9), st.integers(1, 4))
def test_links_among_queries_leave_out_neighbours_without_weight(
    seed: int, n: int, width: int
) -> None:
    """Among the same queries passages are numbered once. A query may have a passage twice."""
    rng = np.random.default_rng(seed)
    queries = random_examples(rng, n, width=width)
    queries.lineages[:, -1] = np.where(
        rng.random(n) < 0.3, queries.lineages[:, 0], queries.lineages[:, -1]
    )
    copy = queries.at(np.arange(n))  # for the search among other queries
    each = np.arange(n)
    near = nearest(queries, queries, each, each)
    chances = rng.random((n, width)) * (rng.random((n, width)) < 0.7)
    weights = rng.random(near.rows.shape) * (rng.random(near.rows.shape) < 0.6)
    every = links(near, copy, queries, chances)
    assert triples(links(near, queries, queries, chances)) == triples(every)
    heard = [link for link in triples(every) if weights.ravel()[link[2]] > 0]
    found = links(near, queries, queries, chances, weights)
    assert triples(found) == heard
    part = every.slot, every.of
    values = chances.ravel()
    assert np.array_equal(
        support(found, values[found.of], weights, width),
        support(every, values[part[1]], weights, width),
    )


def plain_neighbours(
    targets: Examples,
    sources: Examples,
    kernel: Kernel,
    target_folds: Ints,
    source_folds: Ints,
) -> Iterator[tuple[int, int, float]]:
    """(target, source, K), for at most NEIGHBOURS sources: all of them are neighbours."""
    for i in range(len(targets)):
        for j in range(len(sources)):
            if targets.tenants[i] != sources.tenants[j] or target_folds[i] == source_folds[j]:
                continue
            cosine = min(float(targets.vectors[i] @ sources.vectors[j]), 1.0)
            yield i, j, max(0.0, (cosine - kernel.theta) / (1 - kernel.theta)) ** kernel.gamma


def plain_support(
    targets: Examples,
    sources: Examples,
    chances: Floats,
    kernel: Kernel,
    target_folds: Ints,
    source_folds: Ints,
) -> tuple[Floats, Floats]:
    """S of every candidate, and its sum over all passages, of whom neighbours speak at all."""
    total, every = np.zeros(targets.lineages.shape), np.zeros(len(targets))
    for i, j, near in plain_neighbours(targets, sources, kernel, target_folds, source_folds):
        every[i] += near * float(chances[j].sum())
        for c, ours in enumerate(targets.lineages[i].tolist()):
            for o, theirs in enumerate(sources.lineages[j].tolist()):
                if ours == theirs != -1:
                    total[i, c] += near * chances[j, o]
    return total, every


@thorough(60, few=15)
@given(seeds, st.integers(0, 6), st.integers(0, 20), st.floats(-0.5, 0.9), st.floats(0.5, 4))
def test_support_is_that_of_a_double_loop(
    seed: int, n: int, m: int, theta: float, gamma: float
) -> None:
    rng = np.random.default_rng(seed)
    targets, sources = random_examples(rng, n), random_examples(rng, m)
    folds = rng.integers(0, 3, n), rng.integers(0, 3, m)
    chances = rng.random((m, 3)) * (rng.random((m, 3)) < 0.7) * (sources.lineages >= 0)
    kernel = Kernel(theta=theta, gamma=gamma)
    near = nearest(targets, sources, *folds)
    heard = links(near, targets, sources, chances)
    expected, of_all = plain_support(targets, sources, chances, kernel, *folds)
    weights = kernel_weights(near, kernel)
    found = support(heard, chances.ravel()[heard.of], weights, 3)
    assert found.shape == (n, 3)
    assert found == pytest.approx(expected, abs=1e-4)
    assert (found[targets.lineages < 0] == 0).all()
    every = all_support(near, chances, weights)
    assert every == pytest.approx(of_all, abs=1e-4)
    assert (every >= found.sum(axis=1) - 1e-9).all()
    values = 3 * rng.random((n, 3))
    ((total, of_values),) = sums_of_support(
        heard, near, chances, (np.ones_like(values), values), [kernel]
    )
    assert total == pytest.approx(every)
    others = every - found.sum(axis=1)
    assert of_values == pytest.approx((found * values).sum(axis=1) + others)


def test_support_of_more_targets_than_are_looked_at_together() -> None:
    rng = np.random.default_rng(2)
    targets, sources = random_examples(rng, 530), random_examples(rng, 10)
    folds = np.zeros(530, np.int64), np.ones(10, np.int64)
    chances = rng.random((10, 3))
    near = nearest(targets, sources, *folds)
    kernel, heard = Kernel(0.1, 0.9, 2.0), links(near, targets, sources, chances)
    found = support(heard, chances.ravel()[heard.of], kernel_weights(near, kernel), 3)
    expected, _ = plain_support(targets, sources, chances, kernel, *folds)
    assert found == pytest.approx(expected, abs=1e-5)


def test_support_by_hand() -> None:
    target = made(np.array([[1, 0]], np.float32), np.array([[4, 5, -1]]))
    sources = made(
        np.array([[1, 0], [0.75, 0.6614378]], np.float32), np.array([[5, -1, 4], [5, 9, 8]])
    )
    near = nearest(target, sources, np.zeros(1, np.int64), np.ones(2, np.int64))
    chances = np.array([[0.7, 0.2, 0.1], [0.4, 0.6, 0.0]])
    heard, weights = links(near, target, sources, chances), kernel_weights(near, KERNEL)
    found = support(heard, chances.ravel()[heard.of], weights, 3)
    # kernel: 1 for the first, ((0.75 - 0.5) / 0.5)² = 0.25 for the second
    assert found[0] == pytest.approx([0.1, 0.7 + 0.25 * 0.4, 0.0])
    # 9, of which the second speaks too, is no candidate
    spoken = np.array([[0.7, 0.0, 0.1], [0.4, 0.6, 0.0]])
    assert all_support(near, spoken, weights) == pytest.approx([0.8 + 0.25])


def test_rows_of_examples() -> None:
    rng = np.random.default_rng(5)
    examples = random_examples(rng, 6)
    rows = np.array([4, 0, 4])
    found = examples.at(rows)
    assert len(found) == 3
    for place, row in enumerate(rows.tolist()):
        assert found.keys[place] == examples.keys[row]
        for name in (
            "vectors",
            "lineages",
            "features",
            "helpful",
            "harmful",
            "n_harmful",
            "tenants",
        ):
            assert np.array_equal(getattr(found, name)[place], getattr(examples, name)[row]), name
    assert np.array_equal(found.present, examples.lineages[rows] != -1)
    assert len(examples.at(np.empty(0, np.int64))) == 0


QUANTILES = [0.5, 0.9, 0.99]


@pytest.mark.parametrize(("n", "dim"), [(2, 3), (64, 8), (300, 8)])
def test_thetas_are_quantiles_of_the_cosines_of_all_pairs(n: int, dim: int) -> None:
    rng = np.random.default_rng(n)
    queries = units(rng, n, dim) + np.eye(dim, dtype=np.float32)[0]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    cosines = (queries @ queries.T)[~np.eye(n, dtype=bool)]
    expected = np.clip(np.quantile(cosines, QUANTILES), 0.0, 0.99)
    assert thetas(queries, QUANTILES) == pytest.approx(expected.tolist(), abs=0.01)


def test_thetas_are_rounded_and_in_order_and_always_the_same() -> None:
    queries = units(np.random.default_rng(7), 100, 5)
    found = thetas(queries, QUANTILES)
    assert found == [round(theta, 3) for theta in found] == sorted(found)
    assert all(type(theta) is float for theta in found)
    assert thetas(queries.copy(), QUANTILES) == found
    assert thetas(queries, QUANTILES[::-1]) == found[::-1]


def test_thetas_stay_from_0_to_99_hundredths() -> None:
    same = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (10, 1))
    assert thetas(same, QUANTILES) == [0.99] * 3
    opposite = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    assert thetas(opposite, QUANTILES) == [0.0] * 3
