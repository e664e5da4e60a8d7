"""Search by a graph against exact search, and graphs from strangers."""

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.index import dense
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.graph import FOLDER, LINKS, Graph, load_graph, recall_of
from rag_flywheel.index.part import Part
from rag_flywheel.records import Pids, Vectors

N, DIM = 1_500, 24


def clustered(n: int, seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((30, DIM))[rng.integers(0, 30, n)] + rng.standard_normal((n, DIM))
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


PIDS: Pids = np.cumsum(np.random.default_rng(1).integers(1, 5, N)).astype(np.int64)
QUERIES = clustered(50, 2)


@pytest.fixture(scope="module")
def index() -> DenseIndex:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "GRAPH_FROM", 1_000)
        found = DenseIndex.build(PIDS, clustered(N, 0))
    assert found.graph is not None
    return found


@pytest.fixture
def saved(index: DenseIndex, tmp_path: Path) -> Path:
    index.save(tmp_path)
    return tmp_path


def part_of(index: DenseIndex, pids: Pids | None) -> Part | None:
    return None if pids is None else Part.of(np.isin(index.pids, pids))


def found_by(index: DenseIndex, allowed: Pids | None = None, n: int = 10) -> list[list[int]]:
    return [row.tolist() for row in index.search(QUERIES, n, part_of(index, allowed))]


def exact(index: DenseIndex, allowed: Pids | None = None, n: int = 10) -> list[list[int]]:
    return [row.tolist() for row in index.search_all(QUERIES, n, part_of(index, allowed))]


def recall(found: list[list[int]], wanted: list[list[int]]) -> float:
    return float(np.mean([len({*a} & {*b}) / len(b) for a, b in zip(found, wanted, strict=True)]))


def test_nearly_all_of_the_nearest_are_found_and_in_order(index: DenseIndex) -> None:
    found = found_by(index)
    assert recall(found, exact(index)) >= 0.98
    assert index.graph is not None and 0.98 <= index.graph.recall <= 1.0
    for query, row in zip(QUERIES, found, strict=True):
        cosines = index.vectors(np.array(row)) @ query
        assert np.all(np.diff(cosines) <= 1e-6)
        assert len(set(row)) == len(row) == 10


@pytest.mark.parametrize("share", [0.999, 0.7, 0.3, 0.01])
def test_only_what_is_allowed_comes_up(index: DenseIndex, share: float) -> None:
    allowed = PIDS[np.random.default_rng(3).random(N) < share]
    found = found_by(index, allowed)
    assert {p for row in found for p in row} <= set(allowed.tolist())
    assert recall(found, exact(index, allowed)) >= (0.97 if share >= 0.1 else 1.0)
    assert all(len(row) == min(10, len(allowed)) for row in found)


@pytest.mark.parametrize("share", [0.95, 0.6, 0.2])
def test_the_nearest_of_a_part_that_lies_elsewhere_are_found(
    index: DenseIndex, share: float
) -> None:
    """A filter may let pass only what is least like the question, such as another team's documents."""
    rows = index.at(np.arange(len(index)))
    for query in QUERIES[:20]:
        mask = np.zeros(len(index), dtype=bool)
        mask[np.argsort(rows @ query)[: int(share * len(index))]] = True
        part = Part.of(mask)
        (found,), (wanted,) = (
            index.search(query[None], 10, part),
            index.search_all(query[None], 10, part),
        )
        assert np.isin(found, wanted).mean() >= 0.9


def test_as_many_as_asked_for_come_back_though_the_graph_leads_to_fewer(
    index: DenseIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = index._by_graph
    monkeypatch.setattr(index, "_by_graph", lambda *given: [row[:3] for row in quick(*given)])
    assert found_by(index) == exact(index)
    (all_of_them,) = index.search(QUERIES[:1], 2 * N)
    assert sorted(all_of_them.tolist()) == PIDS.tolist()


def test_few_vectors_are_searched_without_one(tmp_path: Path) -> None:
    few = DenseIndex.build(PIDS[:100], clustered(100, 0))
    few.save(tmp_path)
    assert few.graph is None and not (tmp_path / FOLDER).exists()
    assert DenseIndex.load(tmp_path, dim=DIM).graph is None


def test_what_is_saved_is_what_is_loaded(index: DenseIndex, saved: Path) -> None:
    again = DenseIndex.load(saved, dim=DIM)
    assert found_by(again) == found_by(index)
    assert again.graph is not None and index.graph is not None
    assert again.graph.ef_search == index.graph.ef_search
    assert again.graph.recall == index.graph.recall
    assert again.graph.levels.tolist() == index.graph.levels.tolist()
    assert again.graph.neighbours.tobytes() == index.graph.neighbours.tobytes()


def test_links_to_vectors_of_any_number_are_kept(tmp_path: Path) -> None:
    """Lists of all lengths, with the first numbers and the last."""
    n = 65_600
    rng = np.random.default_rng(3)
    levels = np.ones(n, dtype=np.uint8)
    levels[-3:] = [2, 3, 1]
    neighbours = np.full(LINKS * int((levels.astype(np.int64) + 1).sum()), -1, dtype=np.int32)
    named = np.concatenate([np.arange(70), n - 1 - np.arange(70)])
    for vector in range(2 * LINKS + 1):
        start = 2 * LINKS * vector
        neighbours[start : start + vector] = rng.choice(named, vector, replace=False)
    neighbours[-6 * LINKS] = n - 2  # on the level above, of the last but one
    Graph(levels, neighbours, n - 2, 128, 0.98).save(tmp_path)
    for kind in (np.uint8, np.uint16):  # which is that of more than 2**24 vectors
        high = np.load(tmp_path / FOLDER / "high.npy")
        np.save(tmp_path / FOLDER / "high.npy", high.astype(kind))
        found = load_graph(tmp_path, n)
        assert found is not None
        assert found.levels.tobytes() == levels.tobytes()
        assert found.neighbours.tobytes() == neighbours.tobytes()


@pytest.mark.slow
def test_vectors_that_no_graph_leads_to_are_searched_all_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dense, "GRAPH_FROM", 1_000)
    monkeypatch.setattr("rag_flywheel.index.graph.LEAST_RECALL", 1.01)
    plain = DenseIndex.build(PIDS, clustered(N, 0))
    assert plain.graph is None
    assert found_by(plain) == exact(plain)
    (said,) = caplog.messages
    assert "dense search looks at every vector" in said and f"{N:,} vectors" in said


def said(**values: Any) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        found = json.loads((place / "graph.json").read_text())
        (place / "graph.json").write_text(json.dumps({**found, **values}))

    return change


def levels(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda place: np.save(place / "levels.npy", change(np.load(place / "levels.npy")))


def rewritten(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda place: np.save(place / name, change(np.load(place / name)))


def first_high(value: int) -> Callable[[Path], None]:
    """Other upper bits of the first link, in a type that has them."""
    return rewritten("high.npy", lambda a: with_value(0, value)(a.astype(np.uint16)))


def with_value(at: int, value: int) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.copy()
        array[at] = value
        return array

    return change


def wrong_level(place: Path) -> None:
    """A slot above the ground that names a vector which is on the ground alone."""
    on, counts = (np.load(place / f"{name}.npy") for name in ("levels", "counts"))
    named = np.load(place / "low.npy")
    high, low = int(np.flatnonzero(on > 1)[0]), int(np.flatnonzero(on == 1)[0])
    list_above = int(on[:high].sum(dtype=int)) + 1
    assert counts[list_above] > 0
    named[counts[:list_above].sum(dtype=int)] = low
    np.save(place / "low.npy", named)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rewritten("low.npy", with_value(5, N)), "a neighbour is no vector"),
        (first_high(1), "a neighbour is no vector"),
        (first_high(2**15), "a neighbour is no vector"),
        (first_high(2**16 - 1), "a neighbour is no vector"),
        (rewritten("low.npy", lambda a: a[:-1]), r"high.npy holds uint8 .* expected"),
        (rewritten("low.npy", lambda a: a.astype(np.int64)), "low.npy holds int64"),
        (rewritten("high.npy", lambda a: a.astype(np.int8)), "high.npy holds int8"),
        (rewritten("counts.npy", lambda a: a[:-1]), "does not divide the links"),
        (rewritten("counts.npy", with_value(0, 255)), "does not divide the links"),
        (rewritten("counts.npy", lambda a: np.roll(a, 1)), "does not divide the links"),
        (rewritten("counts.npy", lambda a: a * 0), "does not divide the links"),
        (levels(with_value(3, 0)), "on 0 levels"),
        (levels(with_value(3, 200)), "more than 32"),
        (levels(lambda a: a[:-1]), "levels.npy holds uint8"),
        (levels(lambda a: a.astype(np.int32)), "levels.npy holds int32"),
        (wrong_level, "a neighbour on level 1 is not on it"),
        (said(entry=N), "entry is"),
        (said(entry=True), r"Expected `int`, got `bool` - at `\$\.entry`"),
        (said(ef_search=-1), r"Expected `int` >= 0 - at `\$\.ef_search`"),
        (said(ef_search=10**9), r"Expected `int` <= 1048576 - at `\$\.ef_search`"),
        (said(links=16), r"Invalid enum value 16 - at `\$\.links`"),
        (said(format_version=1), "format_version"),
        (said(removed=-1), r"Expected `int` >= 0 - at `\$\.removed`"),
        (said(removed=1.5), r"Expected `int`, got `float` - at `\$\.removed`"),
        (said(unmeasured=-1), r"Expected `int` >= 0 - at `\$\.unmeasured`"),
        (lambda place: (place / "graph.json").write_text("[1]"), "Expected `object`, got `array`"),
        (lambda place: (place / "levels.npy").unlink(), "No such file"),
        (lambda place: (place / "low.npy").write_bytes(b"nothing"), "is no .npy file"),
        (lambda place: (place / "high.npy").unlink(), "No such file"),
    ],
)
def test_a_graph_of_a_stranger_is_refused(
    saved: Path, change: Callable[[Path], None], words: str
) -> None:
    change(saved / FOLDER)
    with pytest.raises(CorruptFileError, match=words):
        DenseIndex.load(saved, dim=DIM)


def test_searches_begin_on_the_highest_level(saved: Path) -> None:
    on = np.load(saved / FOLDER / "levels.npy")
    said(entry=int(np.flatnonzero(on < on.max())[0]))(saved / FOLDER)
    with pytest.raises(CorruptFileError, match="below the highest level"):
        DenseIndex.load(saved, dim=DIM)


@pytest.mark.parametrize("seed", range(20))
def test_numbers_that_pass_the_checks_crash_nothing(saved: Path, seed: int) -> None:
    """Any vectors of the level in any slots: worse answers, and no more."""
    rng = np.random.default_rng(seed)
    place = saved / FOLDER
    on, counts = (np.load(place / f"{name}.npy") for name in ("levels", "counts"))
    top = np.flatnonzero(on == on.max())
    counts = (counts * (rng.random(len(counts)) < 0.7)).astype(np.uint8)
    named = rng.choice(top, counts.sum(dtype=int))
    for name, array in (("counts", counts), ("low", named), ("high", named >> 16)):
        np.save(place / f"{name}.npy", array.astype(np.uint8 if name != "low" else np.uint16))
    found = DenseIndex.load(saved, dim=DIM)
    assert all(len(row) == 10 for row in found.search(QUERIES, 10))


def test_the_graph_is_copied_with_its_folder(saved: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(saved, twin, ignore=shutil.ignore_patterns("twin"))
    assert isinstance(DenseIndex.load(twin, dim=DIM).graph, Graph)


def test_recall_is_told_from_the_folder(saved: Path, index: DenseIndex, tmp_path: Path) -> None:
    assert index.graph is not None
    assert recall_of(saved, len(index)) == index.graph.recall >= 0.97
    assert recall_of(tmp_path / "other", 5) is None  # without a graph all are looked at
    (saved / "graph" / "graph.json").write_text("[]")
    with pytest.raises(CorruptFileError, match="graph cannot be used"):
        recall_of(saved, len(index))


def test_the_links_are_in_memory_once_and_outlive_the_index() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "GRAPH_FROM", 1_000)
        index = DenseIndex.build(PIDS, clustered(N, 0))
    index.search(clustered(1, 0), 1)  # from then on the links are in the memory of what searches
    graph = index.graph
    assert graph is not None
    again = index.graph
    assert again is not None and np.shares_memory(graph.neighbours, again.neighbours)
    with pytest.raises(ValueError, match="read-only"):
        graph.neighbours[0] = 0
    kept = graph.neighbours.copy()
    del index, again
    gc.collect()
    _ = [clustered(N, seed) for seed in range(5)]  # what was freed is used anew
    np.testing.assert_array_equal(graph.neighbours, kept)
    assert graph.neighbours.dtype == np.int32 and len(kept) == int(graph.offsets[-1])
