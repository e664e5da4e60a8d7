"""Arrays read from damaged files: the array or a ValueError, nothing else; and folders that are links."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from folders import state
from rag_flywheel.disk import (
    delete,
    make_folder,
    move,
    names_in,
    read_array,
    regular_file,
    write_file,
)
from rag_flywheel.errors import StorageError


def test_an_array_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array in (np.arange(6, dtype=np.int32), np.zeros((0, 16), np.uint8), np.float32([[0.5]])):
        np.save(path, array)
        found = read_array(path)
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tolist() == array.tolist()


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("byte", [0, 9, 10, 32, 39, 40, 44, 57, 92, 123, 127, 255])
def test_any_changed_byte_of_a_header_gives_an_array_or_a_value_error(
    tmp_path: Path, byte: int
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6, dtype=np.int32))
    good, refused = path.read_bytes(), 0
    for at in range(len(good) - 24):
        path.write_bytes(good[:at] + bytes([byte]) + good[at + 1 :])
        try:
            assert isinstance(read_array(path), np.ndarray)
        except ValueError:
            refused += 1
    assert refused >= 8  # the magic and the version at least


@pytest.mark.parametrize("n", [0, 1, 8, 20, 127, 130])
def test_a_file_cut_short_is_a_value_error(tmp_path: Path, n: int) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6, dtype=np.int32))
    path.write_bytes(path.read_bytes()[:n])
    with pytest.raises(ValueError):
        read_array(path)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_array(tmp_path / "a.npy")


def test_a_longer_file_than_its_header_says_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6, dtype=np.int32))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="not what its header says"):
        read_array(path)


def test_a_file_of_the_most_bytes_is_read_and_one_more_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    with regular_file(tmp_path / "a", most=5) as (file, size):
        assert (file.read(), size) == (b"12345", 5)
    with pytest.raises(ValueError, match="has 5 bytes; expected 4 at most"):
        regular_file(tmp_path / "a", most=4).__enter__()


STEPS: dict[str, Callable[[Path], object]] = {
    "list": lambda root: names_in(root, "versions/one"),
    "make": lambda root: make_folder(root, "versions/one/new"),
    "move out": lambda root: move(root, "versions/one/file", "moved"),
    "move in": lambda root: move(root, "own", "versions/one/own"),
    "delete": lambda root: delete(root, "versions/one/file"),
    "write": lambda root: write_file(root, "versions/one/file", b"ours"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("linked", ["versions", "versions/one"])
def test_no_step_below_the_index_folder_follows_a_link(
    tmp_path: Path, step: str, linked: str
) -> None:
    root, theirs = tmp_path / "kb", tmp_path / "theirs"
    for folder in (root, theirs / "one", theirs):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file").write_text("theirs")
    (root / "own").write_text("ours")
    (root / linked).parent.mkdir(exist_ok=True)
    (root / linked).symlink_to(theirs if linked == "versions" else theirs / "one")
    before = state(theirs)
    with pytest.raises(StorageError, match="is a link to"):
        STEPS[step](root)
    assert state(theirs) == before
