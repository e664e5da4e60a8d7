"""A graph that is changed instead of made anew: what it finds, against exact search; what it may hold."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rag_flywheel.index import dense
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.graph import LEAST_RECALL, LINKS, MOST_REMOVED, Graph
from rag_flywheel.index.graph_changes import without
from rag_flywheel.records import Pids, Vectors

N, DIM = 2_000, 24
Part = tuple[Pids, Vectors]


def clustered(n: int, seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((30, DIM))[rng.integers(0, 30, n)] + rng.standard_normal((n, DIM))
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


ALL = clustered(2 * N, 0)  # the vector of pid p is ALL[p]
QUERIES = clustered(100, 0)[::-1] + 0.5 * clustered(100, 5)


@pytest.fixture(autouse=True)
def _with_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "GRAPH_FROM", 1_000)


def built(pids: Pids) -> DenseIndex:
    return DenseIndex.build(pids, ALL[pids])


def changed(index: DenseIndex, present: Pids) -> DenseIndex | None:
    new = np.setdiff1d(present, index.pids)

    def parts() -> Iterator[Part]:
        for part in np.array_split(new, 3):
            yield part, ALL[part]

    return index.changed(present, parts())


def recall(index: DenseIndex) -> float:
    """Of the 10 nearest, by products of numpy over the vectors that should be there."""
    products = QUERIES @ ALL[index.pids].T
    wanted = index.pids[np.argsort(-products, axis=1)[:, :10]]
    found = index.search(np.ascontiguousarray(QUERIES, dtype=np.float32), 10)
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True)]))


def lists(graph: Graph) -> list[list[list[int]]]:
    """By vector, by level: its slots."""
    found, start = [], 0
    for levels in graph.levels.tolist():
        widths = [2 * LINKS] + [LINKS] * (levels - 1)
        ends = (start + np.cumsum(widths)).tolist()
        found.append(
            [graph.neighbours[e - w : e].tolist() for e, w in zip(ends, widths, strict=True)]
        )
        start = ends[-1]
    assert start == len(graph.neighbours)
    return found


def assert_sound(graph: Graph) -> None:
    """Every list names other vectors of its level, each once, with the empty slots at its end."""
    n = len(graph.levels)
    assert graph.levels[graph.entry] == graph.levels.max()
    for vector, levels in enumerate(lists(graph)):
        for level, slots in enumerate(levels):
            full = [s for s in slots if s >= 0]
            assert slots == full + [-1] * (len(slots) - len(full))
            assert len({*full}) == len(full) and vector not in full
            assert all(s < n and graph.levels[s] > level for s in full)


def without_these(index: DenseIndex, gone: np.ndarray) -> Graph:
    assert index.graph is not None
    return without(index.graph, gone, ALL[index.pids])


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.2, 0.9, 0.9995])
def test_what_is_left_leads_to_nothing_that_went(share: float) -> None:
    index = built(np.arange(N))
    gone = np.zeros(N, dtype=bool)
    gone[np.random.default_rng(1).permutation(N)[: int(share * N)]] = True
    left = without_these(index, gone)
    assert_sound(left)
    assert left.levels.tolist() == index.graph.levels[~gone].tolist()
    assert left.n_removed == int(share * N)


def test_a_lost_link_leads_to_the_nearest_that_the_lost_one_led_to() -> None:
    index = built(np.arange(N))
    before = lists(index.graph)
    lost = int(np.flatnonzero(index.graph.levels > 1)[0])
    gone = np.arange(N) == lost
    after = lists(without_these(index, gone))
    number = np.cumsum(~gone) - 1
    for vector in np.flatnonzero(~gone).tolist():
        for level, slots in enumerate(before[vector]):
            wanted = {s for s in slots if s >= 0 and s != lost}
            if lost in slots:
                others = {s for s in before[lost][level] if s >= 0} - wanted - {vector}
                if others:
                    wanted.add(max(others, key=lambda o: float(ALL[o] @ ALL[vector])))
            found = {s for s in after[number[vector]][level] if s >= 0}
            assert found == {int(number[w]) for w in wanted}


def test_the_entry_may_go() -> None:
    index = built(np.arange(N))
    highest = index.graph.levels == index.graph.levels.max()
    left = without_these(index, highest)
    assert_sound(left)
    assert left.levels.max() < index.graph.levels.max()


@pytest.mark.slow
def test_after_many_changes_as_much_is_found_as_by_a_graph_made_anew() -> None:
    rng = np.random.default_rng(2)
    index = built(np.arange(N))
    for step in range(19):  # 1 % goes and comes, then 19 % were taken out
        stay = np.sort(rng.permutation(index.pids)[: N - N // 100])
        new = np.arange(N + step * N // 100, N + (step + 1) * N // 100)
        present = np.concatenate([stay, new])
        following = changed(index, present)
        assert following is not None and following.graph is not None
        index = following
        assert index.pids.tolist() == present.tolist()
        assert index.vectors(index.pids).tobytes() == ALL[present].tobytes()
        assert index.graph.n_removed == (step + 1) * N // 100
        assert_sound(index.graph)
        assert recall(index) >= LEAST_RECALL
    assert recall(index) >= recall(built(index.pids)) - 0.01


@pytest.mark.slow
def test_all_is_linked_anew_once_a_fifth_was_taken_out() -> None:
    index = built(np.arange(N))
    most = int(MOST_REMOVED * N / (1 + MOST_REMOVED))
    assert changed(built(np.arange(N)), np.arange(most + 1, N)) is None
    left = changed(index, np.arange(most, N))
    assert left is not None
    assert changed(left, np.arange(most + 1, N)) is None


def test_a_graph_grows_from_additions_alone() -> None:
    index = changed(built(np.arange(1_000)), np.arange(2 * N))
    assert index is not None and index.graph is not None
    assert index.graph.n_removed == 0 and len(index) == 2 * N
    assert_sound(index.graph)
    assert recall(index) >= LEAST_RECALL


@pytest.mark.parametrize(
    ("before", "present"),
    [
        (np.arange(999), np.arange(1_000)),  # a graph is needed now
        (np.arange(1_000), np.arange(999)),  # and here not any more
        (np.arange(10), np.arange(10, 20)),  # nothing stays
        (np.arange(1, 1_100), np.arange(1_100)),  # a number that comes before others
    ],
)
def test_some_changes_have_to_be_built(before: Pids, present: Pids) -> None:
    assert changed(built(before), present) is None


@pytest.mark.slow
def test_a_graph_that_finds_too_little_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (built(np.arange(N)) for _ in range(3))
    monkeypatch.setattr("rag_flywheel.index.graph.LEAST_RECALL", 1.01)
    assert changed(first, np.arange(300, N + 5)) is None
    assert changed(second, np.arange(5, N + 5)) is not None  # was measured lately
    monkeypatch.setattr("rag_flywheel.index.graph._SUSPECT", 1.01)
    assert changed(third, np.arange(5, N + 5)) is None  # a glance says that it fell


def test_the_recall_is_measured_again_once_a_tenth_came_or_went() -> None:
    index = built(np.arange(N))
    for step, n_unmeasured in enumerate([80, 160, 0, 80], 1):
        following = changed(index, np.arange(40 * step, N + 40 * step))
        assert following is not None and following.graph is not None
        assert following.graph.n_unmeasured == n_unmeasured
        if n_unmeasured:
            assert index.graph is not None
            assert following.graph.recall == index.graph.recall
            assert following.graph.ef_search == index.graph.ef_search
        index = following
        assert recall(index) >= LEAST_RECALL - 0.01


def test_a_copy_is_changed_and_the_index_is_not(tmp_path: Path) -> None:
    index = built(np.arange(N))
    index.save(tmp_path)
    index = DenseIndex.load(tmp_path, dim=DIM)
    before = [row.tolist() for row in index.search(QUERIES.astype(np.float32), 10)]
    links = index.graph.neighbours.copy()
    copy = changed(index.copied(tmp_path), np.arange(5, N + 5))
    assert copy is not None and copy.pids.tolist() == list(range(5, N + 5))
    assert [row.tolist() for row in index.search(QUERIES.astype(np.float32), 10)] == before
    assert index.graph.neighbours.tolist() == links.tolist()
    again = changed(DenseIndex.load(tmp_path, dim=DIM), np.arange(5, N + 5))
    assert again.graph.neighbours.tolist() == copy.graph.neighbours.tolist()
    for number, one in enumerate([copy, again]):
        (tmp_path / str(number)).mkdir()
        one.save(tmp_path / str(number))
        links_of = [p.stat().st_nlink for p in (tmp_path / str(number) / "vectors").glob("0*.npy")]
        assert max(links_of) > 1  # its parts are linked
    for path in (tmp_path / "0").rglob("*.npy"):
        assert path.read_bytes() == (tmp_path / "1" / path.relative_to(tmp_path / "0")).read_bytes()


def test_few_vectors_change_without_a_graph() -> None:
    index = changed(built(np.arange(100)), np.arange(5, 120))
    assert index is not None and index.graph is None
    assert index.pids.tolist() == list(range(5, 120))
    assert index.vectors(index.pids).tobytes() == ALL[5:120].tobytes()
    assert [row[0] for row in index.search(ALL[5:120], 1)] == list(range(5, 120))


@pytest.mark.slow
def test_levels_of_what_is_added_differ_from_refresh_to_refresh() -> None:
    levels = []
    for n in (1_500, 1_700):
        grown = changed(built(np.arange(n)), np.arange(n + 100))
        assert grown is not None and grown.graph is not None
        levels.append(grown.graph.levels[n:].tolist())
    assert levels[0] != levels[1]
