"""What adding many passages costs beside the passages: memory while they are added, and the log on disk."""

import tracemalloc
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from rag_flywheel import Flywheel, Passage
from rag_flywheel.records import Vectors
from rag_flywheel.store import database

N, WORDS = 300, 150


class PlainEncoder:
    """Holds nothing of what it encodes."""

    name, revision, dim = "plain", "1", 4

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        rows = np.array([np.frombuffer(blake2b(t.encode()).digest()[:4], np.uint8) for t in texts])
        unit: Vectors = rows.astype(np.float32) + 1.0
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
    monkeypatch.setattr(database, "_MOST_LOG", 100_000)
    log = tmp_path / "kb" / "flywheel.db-wal"
    with Flywheel.open(tmp_path / "kb", encoder=PlainEncoder()) as fw:
        fw.add(passages(2_500, copies=False))
        assert log.stat().st_size > 1_000_000
        for i in range(3):  # the log begins anew once all of it is in the database
            fw.add([Passage(f"one more {i}", "few words")])
        assert log.stat().st_size <= 500_000
