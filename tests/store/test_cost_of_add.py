"""What adding many passages costs beside the passages: memory while they are added, and the log on disk."""

import sqlite3
import tracemalloc
from collections.abc import Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from rag_flywheel import Flywheel, Passage
from rag_flywheel.records import Vectors
from rag_flywheel.store import sqlite

N, WORDS = 300, 150


class PlainEncoder:
    """Holds nothing of what it encodes."""

    name, revision = "plain", "1"

    def __init__(self, dim: int = 4) -> None:
        self.dim = dim

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        unit: Vectors = np.ones((len(texts), self.dim), np.float32)
        for row, text in zip(unit, texts, strict=True):
            row[:4] += np.frombuffer(blake2b(text.encode()).digest()[:4], np.uint8)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        return unit

    encode_passages = encode_queries


def passages(n: int, *, copies: bool) -> list[Passage]:
    """Texts of words of chance; copies: each comes again, with one word spelled differently."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        words = [f"word{number}x" for number in rng.integers(0, 50_000, WORDS)]
        found.append(Passage(f"p{i}", " ".join(words), title=f"title {i}"))
        if copies:
            found.append(Passage(f"q{i}", " ".join([*words[:-1], words[-1] + "s"])))
    return found


@pytest.mark.parametrize("copies", [False, True])
def test_the_words_of_new_texts_are_not_all_in_memory(tmp_path: Path, copies: bool) -> None:
    given = passages(N, copies=copies)
    with Flywheel.open(tmp_path / "kb", encoder=PlainEncoder()) as fw:
        fw.add(passages(10, copies=copies)[:5])  # whatever is loaded once
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            fw.add(given)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    each = (peak - before) / len(given)
    assert each < 8_000  # bytes; the words of one text take 9,000, twice that with a title


def test_the_log_gives_back_what_many_passages_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_MOST_LOG", 100_000)
    log = tmp_path / "kb" / "flywheel.db-wal"
    with Flywheel.open(tmp_path / "kb", encoder=PlainEncoder()) as fw:
        fw.add(passages(3_000, copies=False))
        assert log.stat().st_size > 1_000_000
        for i in range(3):  # the log begins anew once all of it is in the database
            fw.add([Passage(f"one more {i}", "few words")])
        assert log.stat().st_size <= 500_000


def test_vectors_fill_their_pages(tmp_path: Path) -> None:
    n, path = 1_000, tmp_path / "kb" / "flywheel.db"
    with Flywheel.open(tmp_path / "kb", encoder=PlainEncoder(384)) as fw:
        fw.add([Passage(f"p{i}", f"text number {i}") for i in range(n)])
    with closing(sqlite3.connect(path)) as conn:
        (used,) = conn.execute("SELECT sum(pgsize) FROM dbstat WHERE name = 'vectors'").fetchone()
    assert 384 * 4 < used / n < 1.1 * 384 * 4


def test_a_database_of_other_pages_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "kb" / "flywheel.db"
    with Flywheel.open(tmp_path / "kb", encoder=PlainEncoder()) as fw:
        fw.add(passages(20, copies=False))
    with closing(sqlite3.connect(path)) as conn:
        for statement in ("journal_mode=DELETE", "page_size=4096"):
            conn.execute(f"PRAGMA {statement}")
        conn.execute("VACUUM")
    with Flywheel.open(tmp_path / "kb", encoder=PlainEncoder()) as fw:
        fw.add([Passage("new", "one more")])
        assert len(fw.passages()) == 21
        assert fw.verify() == []
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA page_size").fetchone() == (4096,)
