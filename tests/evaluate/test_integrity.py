"""A version may go live only if sampled passages find themselves in it."""

import numpy as np

from rag_flywheel.evaluate.integrity import integrity_problems
from rag_flywheel.records import Pids, Vectors

PIDS = np.array([3, 5, 8, 9], dtype=np.int64)
VECTORS = np.eye(4, 6, dtype=np.float32)


def problems(found: list[list[int]], held: Vectors = VECTORS) -> list[str]:
    """Of an index that finds these pids, and holds these vectors."""

    def search(vectors: Vectors, n: int) -> list[Pids]:
        assert (vectors.tolist(), n) == (VECTORS.tolist(), 1)
        return [np.array(each, dtype=np.int64) for each in found]

    def vectors_of(pids: Pids) -> Vectors:
        return held[np.searchsorted(PIDS, pids)]

    return integrity_problems(PIDS, VECTORS, search, vectors_of)


def test_all_find_themselves() -> None:
    assert problems([[3], [5], [8], [9]]) == []


def test_one_finds_another() -> None:
    assert problems([[3], [8], [8], [9]]) == [
        "1 passage does not find itself, the first is number 5"
    ]
    assert problems([[5], [3], [8], [9]]) == [
        "2 passages do not find themselves, the first is number 3"
    ]


def test_one_finds_a_text_with_the_same_vector() -> None:
    held = VECTORS.copy()
    held[2] = held[1]
    assert problems([[3], [8], [8], [9]], held)[0].endswith("the first is number 8")
    held[2] = VECTORS[2]
    held[3] = VECTORS[0]
    assert problems([[9], [5], [8], [9]], held)[0].startswith("1 passage does not find itself")


def test_the_vector_in_the_index_is_a_little_another() -> None:
    held = VECTORS.copy()
    held[1] = (VECTORS[1] + 0.01 * VECTORS[0]) / np.linalg.norm(VECTORS[1] + 0.01 * VECTORS[0])
    assert problems([[3], [5], [8], [9]], held) == [
        "1 passage does not find itself, the first is number 5"
    ]


def test_one_finds_nothing() -> None:
    assert problems([[3], [], [8], []]) == ["2 passages find nothing, the first is number 5"]


def test_an_empty_index_is_sound() -> None:
    none = np.empty(0, dtype=np.int64)
    assert (
        integrity_problems(none, np.empty((0, 6), np.float32), lambda *_: [], lambda _: VECTORS)
        == []
    )
