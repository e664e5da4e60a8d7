"""Vectors in parts that versions share: what is written, what is linked, and what is read back."""

from pathlib import Path

import numpy as np
import pytest

from rag_flywheel.index import parts
from rag_flywheel.index.vector_files import (
    FOLDER,
    StoredParts,
    load_vectors,
    read_into,
    save_vectors,
)
from rag_flywheel.records import Pids, Vectors

DIM = 4


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_ROWS", 100)


def vector_of(pids: Pids) -> Vectors:
    """Another one for each pid."""
    return np.sin(pids[:, None] * np.arange(1, DIM + 1)).astype(np.float32)


def read(folder: Path) -> tuple[Pids, Vectors, StoredParts]:
    pids, stored = load_vectors(folder, dim=DIM)
    vectors = np.full((len(pids), DIM), np.nan, dtype=np.float32)
    read_into(vectors, stored)
    return pids, vectors, stored


def write(folder: Path, pids: Pids, before: StoredParts | None = None) -> StoredParts:
    """Write the vectors of pids, check that they are read back, and return the parts."""
    folder.mkdir()
    save_vectors(folder, pids, vector_of(pids), before)
    found, vectors, stored = read(folder)
    assert found.tolist() == pids.tolist()
    assert vectors.tobytes() == vector_of(pids).tobytes()
    assert max(stored.sizes.values(), default=0) <= 100
    return stored


def following(folder: Path, before: Path, pids: Pids) -> StoredParts:
    """Write a version after another."""
    old, _, stored = read(before)
    stays = np.isin(old, pids)
    return write(folder, pids, stored.of(stays))


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in (folder / FOLDER).glob("0*.npy")}


def test_no_vectors(tmp_path: Path) -> None:
    assert write(tmp_path / "a", np.empty(0, np.int64)).sizes == {}
    assert list(following(tmp_path / "b", tmp_path / "a", np.array([3, 2**62])).sizes.values()) == [
        2
    ]
    assert following(tmp_path / "c", tmp_path / "b", np.empty(0, np.int64)).sizes == {}


def test_what_did_not_change_is_linked(tmp_path: Path) -> None:
    write(tmp_path / "a", np.arange(1_000))
    following(tmp_path / "b", tmp_path / "a", np.append(np.arange(5, 1_000), [1_000, 1_002]))
    assert len(inodes(tmp_path / "a")) == 10
    assert inodes(tmp_path / "a") < inodes(tmp_path / "b")
    assert len(inodes(tmp_path / "b")) == 11


def test_a_part_much_of_which_is_gone_is_written_anew(tmp_path: Path) -> None:
    write(tmp_path / "a", np.arange(1_000))
    stay = np.setdiff1d(np.arange(1_000), [*range(100, 121), *range(300, 320), *range(400, 500)])
    stored = following(tmp_path / "b", tmp_path / "a", stay)
    assert list(stored.sizes.values()) == [100, 79, *[100] * 7]  # one lost 21, one 20, one all
    assert len(inodes(tmp_path / "a") & inodes(tmp_path / "b")) == 8


def test_ten_versions_of_one_percent_take_little_more_than_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pids, last = np.arange(10_000), tmp_path / "0"
    write(last, pids)
    for number in range(1, 10):
        stay = np.sort(rng.permutation(pids)[: len(pids) - 100])
        pids = np.concatenate([stay, pids.max() + 1 + np.arange(100)])
        following(tmp_path / str(number), last, pids)
        last = tmp_path / str(number)
    files = {p.stat().st_ino: p.stat().st_size for p in tmp_path.glob(f"*/{FOLDER}/0*.npy")}
    assert sum(files.values()) < 1.3 * 10_000 * DIM * 4


@pytest.mark.parametrize("seed", range(5))
def test_many_changes_of_chance(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pids, last = np.arange(1_000), tmp_path / "0"
    write(last, pids)
    for number in range(1, 60):
        n_gone, n_new = rng.integers(0, [rng.choice([2, 30, 400]), rng.choice([2, 30, 250])])
        stay = np.sort(rng.permutation(pids)[: max(len(pids) - n_gone, 0)])
        top = int(pids.max(initial=0))
        pids = np.concatenate([stay, top + 1 + np.arange(n_new)])
        stored = following(tmp_path / str(number), last, pids)
        last = tmp_path / str(number)
        assert len(stored.sizes) <= 2 * (len(pids) // 100) + 64
        assert sum(stored.sizes.values()) <= len(pids) / (1 - parts.MOST_UNUSED) + 1
        names = list(stored.sizes)
        assert names == sorted(names)


def test_one_at_a_time_makes_few_parts(tmp_path: Path) -> None:
    write(tmp_path / "0", np.arange(100))
    for number in range(1, 100):
        stored = following(
            tmp_path / str(number), tmp_path / str(number - 1), np.arange(100 + number)
        )
        assert len(stored.sizes) <= 8


def test_very_many_small_parts_become_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_ROWS", 2)
    write(tmp_path / "a", np.arange(200))
    monkeypatch.setattr(parts, "MOST_ROWS", 100)
    assert len(following(tmp_path / "b", tmp_path / "a", np.arange(201)).sizes) == 3


def test_where_there_are_no_links_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no links here")

    write(tmp_path / "a", np.arange(500))
    monkeypatch.setattr("os.link", refused)
    following(tmp_path / "b", tmp_path / "a", np.arange(3, 502))
    assert inodes(tmp_path / "a") & inodes(tmp_path / "b") == set()
