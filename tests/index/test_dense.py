"""Dense search against exact numpy search."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.part import Part
from rag_flywheel.index.vector_files import FOLDER
from rag_flywheel.records import Pids, Vectors
from thorough import thorough

DIM = 12


def unit_rows(n: int, seed: int) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((n, DIM))
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def random_pids(n: int, seed: int) -> Pids:
    """Ascending, with gaps, not from 0."""
    return np.cumsum(np.random.default_rng(seed).integers(1, 9, n)).astype(np.int64) + 5


def exact(
    pids: Pids, vectors: Vectors, query: Vectors, n: int, allowed: set[int] | None
) -> list[int]:
    cosines = vectors.astype(np.float64) @ query.astype(np.float64)
    inside = [i for i, p in enumerate(pids.tolist()) if allowed is None or p in allowed]
    return [int(pids[i]) for i in sorted(inside, key=lambda i: -cosines[i])[:n]]


def part_of(index: DenseIndex, pids: Pids | None) -> Part | None:
    return None if pids is None else Part.of(np.isin(index.pids, pids))


@thorough(100, few=25)
@given(st.integers(0, 60), st.integers(0, 2**32), st.integers(1, 100), st.data())
def test_search_is_exact(n_rows: int, seed: int, n: int, data: st.DataObject) -> None:
    pids, vectors, queries = random_pids(n_rows, seed), unit_rows(n_rows, seed), unit_rows(3, 1)
    allowed: set[int] | None = None
    if data.draw(st.booleans()):
        chosen = data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows))
        allowed = {int(p) for p, keep in zip(pids, chosen, strict=True) if keep}
    index = DenseIndex.build(pids, vectors)
    given_pids = None if allowed is None else np.array(sorted(allowed), dtype=np.int64)
    found = index.search(queries, n, part_of(index, given_pids))
    assert len(index) == n_rows
    assert [row.tolist() for row in found] == [exact(pids, vectors, q, n, allowed) for q in queries]


def test_more_than_there_are_comes_back_without_padding() -> None:
    index = DenseIndex.build(random_pids(3, 1), unit_rows(3, 1))
    (found,) = index.search(unit_rows(1, 2), 1000)
    assert sorted(found.tolist()) == random_pids(3, 1).tolist()


def test_allowed_pids_that_are_not_in_the_index_do_not_come_up() -> None:
    pids, vectors = np.array([2, 4, 6]), unit_rows(3, 1)
    index = DenseIndex.build(pids, vectors)
    (found,) = index.search(unit_rows(1, 2), 5, part_of(index, np.array([1, 4, 900])))
    assert found.tolist() == [4]
    (nothing,) = index.search(unit_rows(1, 2), 5, part_of(index, np.array([1, 900])))
    assert nothing.tolist() == []


def test_an_empty_index_finds_nothing() -> None:
    index = DenseIndex.build(np.empty(0, np.int64), np.empty((0, DIM), np.float32))
    assert [row.tolist() for row in index.search(unit_rows(2, 1), 8)] == [[], []]
    assert index.search(np.empty((0, DIM), np.float32), 8) == []
    assert index.vectors(np.empty(0, np.int64)).tolist() == []


def test_vectors_come_back_by_pid_as_given() -> None:
    pids, vectors = random_pids(20, 3), unit_rows(20, 3)
    index = DenseIndex.build(pids, vectors)
    chosen = [17, 0, 5, 5]
    assert index.vectors(pids[chosen]).tobytes() == vectors[chosen].tobytes()


@pytest.mark.parametrize("n_rows", [0, 1, 40])
def test_a_saved_index_answers_the_same(tmp_path: Path, n_rows: int) -> None:
    pids, vectors, queries = random_pids(n_rows, 4), unit_rows(n_rows, 4), unit_rows(5, 9)
    DenseIndex.build(pids, vectors).save(tmp_path)
    index = DenseIndex.load(tmp_path, dim=DIM)
    assert (index.dim, index.pids.tolist()) == (DIM, pids.tolist())
    found = index.search(queries, 7)
    assert [row.tolist() for row in found] == [exact(pids, vectors, q, 7, None) for q in queries]


def part_file(folder: Path) -> Path:
    return sorted((folder / FOLDER).glob("0*.npy"))[0]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match=rf"{FOLDER} cannot be read.*refresh"):
        DenseIndex.load(tmp_path, dim=DIM)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    DenseIndex.build(random_pids(9, 1), unit_rows(9, 1)).save(tmp_path)
    path = part_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptFileError, match="cannot be read"):
        DenseIndex.load(tmp_path, dim=DIM)


def test_an_index_of_another_width_is_refused(tmp_path: Path) -> None:
    DenseIndex.build(random_pids(9, 1), unit_rows(9, 1)).save(tmp_path)
    with pytest.raises(CorruptFileError, match=r"\(9, 12\); expected float32 rows of width 64"):
        DenseIndex.load(tmp_path, dim=64)


@pytest.mark.parametrize("kind", [np.float64, np.int32, np.float16])
def test_vectors_of_another_kind_are_refused(tmp_path: Path, kind: type) -> None:
    DenseIndex.build(random_pids(9, 1), unit_rows(9, 1)).save(tmp_path)
    np.save(part_file(tmp_path), unit_rows(9, 1).astype(kind))
    with pytest.raises(CorruptFileError, match="expected float32 rows"):
        DenseIndex.load(tmp_path, dim=DIM)


def test_vectors_by_columns_are_refused(tmp_path: Path) -> None:
    DenseIndex.build(random_pids(9, 1), unit_rows(9, 1)).save(tmp_path)
    np.save(part_file(tmp_path), np.asfortranarray(unit_rows(9, 1)))
    with pytest.raises(CorruptFileError, match="by columns"):
        DenseIndex.load(tmp_path, dim=DIM)


@pytest.mark.parametrize("rows", [[0, 1, 9], [-1, 1, 2], [0, 0, 1], [2, 1, 0], [0, 1, 2**62]])
def test_rows_that_are_not_there_are_refused(tmp_path: Path, rows: list[int]) -> None:
    DenseIndex.build(random_pids(3, 1), unit_rows(3, 1)).save(tmp_path)
    np.save(tmp_path / FOLDER / "rows.npy", np.array(rows))
    with pytest.raises(CorruptFileError, match=r"rows.npy names a vector"):
        DenseIndex.load(tmp_path, dim=DIM)


def test_a_pid_that_is_not_there_has_no_vector() -> None:
    for index in (
        DenseIndex.build(np.array([2, 5]), unit_rows(2, 1)),
        DenseIndex.build(np.empty(0, np.int64), np.empty((0, DIM), np.float32)),
    ):
        for pid in (1, 3, 6):
            with pytest.raises(LookupError):
                index.vectors(np.array([pid]))
