"""The statistics of a version in files: those of its texts, and an error for files that are not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.in_memory import InMemory
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.index.stored_statistics import FOLDER, StoredStatistics, save_statistics
from rag_flywheel.index.tokenizer import tokenizer_of

TEXTS = [["cat", "sat"], ["dog"], ["cat", "sat"], [], ["haus", "haustür"]]
PIDS = np.array([2, 3, 5, 8, 13])


def saved(folder: Path, texts: list[list[str]] = TEXTS, language: str = "english") -> InMemory:
    rows = np.eye(len(texts), 8, dtype=np.float32)
    tokenizer = tokenizer_of(language)
    own = InMemory(
        DenseIndex.build(PIDS[: len(texts)], rows),
        LexicalIndex.build(texts, [min(1, len(t)) for t in texts], tokenizer),
    )
    folder.mkdir(exist_ok=True)
    own.dense.save(folder)
    own.lexical.save(folder)
    save_statistics(folder, own)
    return own


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:2], [[], []]])
@pytest.mark.parametrize("language", ["english", "german", "none"])
def test_they_are_those_of_the_texts(tmp_path: Path, texts: list[list[str]], language: str) -> None:
    own = saved(tmp_path / "v", texts, language)
    found = StoredStatistics.load(tmp_path / "v", n_texts=len(texts))
    expected = own.statistics
    assert found.pids.tolist() == own.pids.tolist()
    assert found.titles.tolist() == own.lexical.titles.tolist()
    assert (len(found), found.n_distinct) == (len(expected), expected.n_distinct)
    assert found.numbers.typical_cosine == own.typical_cosine
    for name in ("average_length", "average_title_length", "average_ngrams"):
        assert getattr(found, name) == getattr(expected, name)
    for word in ("cat", "dog", "haus", "tür", "haustür", "nowhere"):
        assert found.knows(word) == expected.knows(word)
        assert found.idf(word) == expected.idf(word)
        assert found.distinct_idf(word) == expected.distinct_idf(word)
        assert found.ngram_idf([word, "cat"]) == expected.ngram_idf([word, "cat"])
        assert found.compounds_with(word) == expected.compounds_with(word)
        assert found.query_words(f"the {word} 東京") == expected.query_words(f"the {word} 東京")


def of_array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / FOLDER / f"{name}.npy"
        np.save(path, change(np.load(path)))

    return damage


def of_text(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / FOLDER / "numbers.json").write_text(text) and None


@pytest.mark.parametrize(
    "damage",
    [
        of_array("pids", lambda a: a[::-1].copy()),
        of_array("pids", lambda a: np.append(a, a[-1])),
        of_array("df", lambda a: a[:-1]),
        of_array("df", lambda a: a - 100),
        of_array("df", lambda a: a.astype(np.float64)),
        of_array("distinct", lambda a: a + 1_000),
        of_array("titles", lambda a: a - 9),
        of_text("{}"),
        of_text("[1]"),
        of_text('{"average_length": "a"}'),
        lambda folder: (folder / FOLDER / "df.npy").unlink(),
        lambda folder: (folder / FOLDER / "numbers.json").write_bytes(b"\xff" * 50) and None,
    ],
)
def test_damaged_files_are_an_error(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    saved(tmp_path / "v")
    damage(tmp_path / "v")
    with pytest.raises(CorruptFileError, match=FOLDER):
        StoredStatistics.load(tmp_path / "v", n_texts=len(TEXTS))


def test_of_another_number_of_texts(tmp_path: Path) -> None:
    saved(tmp_path / "v")
    with pytest.raises(CorruptFileError, match="5 texts; expected 6"):
        StoredStatistics.load(tmp_path / "v", n_texts=6)
