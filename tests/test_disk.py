"""Arrays read from damaged files: the array or a ValueError, nothing else."""

from pathlib import Path

import numpy as np
import pytest

from rag_flywheel.disk import read_array


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
