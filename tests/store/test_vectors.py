"""Vectors of very many texts, read at once, against reading each of them."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fakes import WordEncoder
from rag_flywheel import Flywheel
from rag_flywheel.encoder import TextEncoder
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.embedding import vectors_in_order

DIM, N = 8, 2_500  # more than are read at a time


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    Flywheel.open(tmp_path / "kb", encoder=WordEncoder(DIM)).close()
    with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn:
        rows = np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        vector_store.put_vectors(conn, [name(i) for i in range(N)], rows, "a")
        vector_store.put_vectors(conn, [name(i) for i in range(N)], -rows, "b")
        yield conn


def name(i: int) -> bytes:
    return (i * 7_919 % 10_007).to_bytes(16, "big")


def test_many_are_read_as_one_by_one_each_in_its_row(conn: sqlite3.Connection) -> None:
    hashes = [name(int(i)) for i in np.random.default_rng(1).integers(N + 50, size=N)]
    rows = np.full((N + 9, DIM), 7.0, np.float32)
    missing = vector_store.fill_vectors(conn, hashes, "b", rows)
    known = vector_store.read_vectors(conn, sorted(set(hashes)), "b", DIM)
    assert len(set(hashes)) < len(hashes)  # some are asked for twice
    assert set(missing) == set(hashes) - set(known) != set()
    for row, h in zip(rows, hashes, strict=False):
        expected = known.get(h)
        assert row.tolist() == ([7.0] * DIM if expected is None else expected.tolist())
    assert np.all(rows[N:] == 7.0)


@pytest.mark.parametrize("n", [300, 1_200, 2_400])  # few; many lying apart; many lying together
@pytest.mark.parametrize("most", [0, 10**9])  # those that lie apart are read by place, by hash
@pytest.mark.parametrize("order", [1, -1])
def test_many_are_read_wherever_they_lie(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, n: int, most: int, order: int
) -> None:
    monkeypatch.setattr(vector_store, "_MANY", most)
    ways = list[str]()
    for way in ("_fill_by_hash", "_fill_in_span", "_fill_by_place"):
        made = getattr(vector_store, way)
        monkeypatch.setattr(
            vector_store, way, lambda *of, made=made, way=way: ways.append(way) or made(*of)
        )
    apart, together = [name(2 * i) for i in range(n)], [name(i) for i in range(n)]
    hashes = (apart if n == 1_200 else together)[::order]
    rows = np.empty((n, DIM), np.float32)
    known = vector_store.read_vectors(conn, hashes, "a", DIM)
    assert set(vector_store.fill_vectors(conn, hashes, "a", rows)) == set(hashes) - set(known)
    for row, each in zip(rows, hashes, strict=True):
        assert each not in known or row.tolist() == known[each].tolist()
    expected = ["_fill_by_hash" if most else "_fill_by_place"]
    assert ways == {300: ["_fill_by_hash"], 1_200: expected}.get(
        n, ["_fill_in_span", "_fill_by_hash"]
    )


def test_those_outside_the_span_of_the_others_are_found(conn: sqlite3.Connection) -> None:
    """Two that were stored long after the others."""
    late = [b"late".rjust(16), b"later".rjust(16)]
    for i, each in enumerate(late):
        row = np.eye(1, DIM, i, dtype=np.float32)
        conn.execute(
            "INSERT INTO vectors (rowid, text_hash, revision, vector) VALUES (?, ?, 'a', ?)",
            (10**6 + i, each, row.tobytes()),
        )
    hashes = [late[0], *(name(i) for i in range(N)), late[1]]
    rows = np.empty((N + 2, DIM), np.float32)
    assert vector_store.fill_vectors(conn, hashes, "a", rows) == []
    assert [int(rows[0].argmax()), int(rows[-1].argmax())] == [0, 1]


def test_none_are_read_of_none(conn: sqlite3.Connection) -> None:
    assert vector_store.fill_vectors(conn, [], "a", np.empty((64, DIM), np.float32)) == []


@pytest.mark.parametrize("vector", ["'text'", "x'00'", "zeroblob(32)", "zeroblob(31)", "x''"])
def test_one_that_cannot_be_used_is_refused(conn: sqlite3.Connection, vector: str) -> None:
    sql = f"UPDATE vectors SET vector = {vector} WHERE text_hash = ? AND revision = 'a'"
    conn.execute(sql, (name(1_234),))
    with pytest.raises(CorruptFileError, match="a vector"):
        vector_store.fill_vectors(
            conn, [name(i) for i in range(N)], "a", np.empty((N, DIM), np.float32)
        )


def test_a_stored_vector_stays(conn: sqlite3.Connection) -> None:
    before = vector_store.read_vectors(conn, [name(0)], "a", DIM)[name(0)]
    other = np.eye(1, DIM, dtype=np.float32)
    vector_store.put_vectors(conn, [name(0)], other, "a")
    after = vector_store.read_vectors(conn, [name(0)], "a", DIM)[name(0)]
    assert after.tolist() == before.tolist() != other[0].tolist()


def test_vectors_come_in_the_order_of_texts_and_those_that_are_missing_are_encoded(
    conn: sqlite3.Connection,
) -> None:
    asked: list[Sequence[str]] = []

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        asked.append(texts)
        rows = np.zeros((len(texts), DIM), np.float32)
        rows[np.arange(len(texts)), [len(text) % DIM for text in texts]] = 1.0
        return rows

    encoder = TextEncoder("a", DIM, encode)
    places = [3, N + 1, 0, 3, N + 2, N + 1]
    hashes, texts = [name(i) for i in places], [f"{'x' * i}" for i in (3, 5, 0, 3, 6, 5)]
    found = vectors_in_order(conn, hashes, texts, encoder)
    known = vector_store.read_vectors(conn, hashes, "a", DIM)
    assert asked == [["xxxxx", "xxxxxx"]]
    assert found.dtype == np.float32 and found.shape == (6, DIM)
    for i in (0, 2, 3):
        np.testing.assert_array_equal(found[i], known[hashes[i]])
    assert [int(found[i].argmax()) for i in (1, 4, 5)] == [5, 6, 5]
    assert vectors_in_order(conn, [], [], encoder).shape == (0, DIM)
    assert len(asked) == 1
