"""Words in parts that versions share: what is written, what is linked, and what is read back."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.index import parts, word_files
from rag_flywheel.index.lexical import DERIVED_FOLDER, TOKENS_FOLDER, LexicalIndex, tokenize
from rag_flywheel.index.tokenizer import tokenizer_of


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_ROWS", 100)
    monkeypatch.setattr(word_files, "_LARGE", 40)  # as if so few words had a number of two bytes


def text_of(number: int) -> tuple[str, str]:
    """A title and a text for each number, some of no word, some equal, some of rare words."""
    if not number % 17:
        return "", ""
    words = [f"w{number * k % 90}" for k in range(1, 1 + number % 7)]
    rare = [f"rare{number}"] if not number % 9 else []
    title = f"head {number % 5}" if number % 2 else ""
    return title, " ".join([title, *words, *rare])


def built(numbers: list[int], language: str = "english") -> LexicalIndex:
    tokenizer = tokenizer_of(language)
    texts = [text_of(n) for n in numbers]
    words = [tokenizer.tokenize(whole) for _, whole in texts]
    return LexicalIndex.build(words, [len(tokenizer.tokenize(t)) for t, _ in texts], tokenizer)


def assert_same(found: LexicalIndex, wanted: LexicalIndex) -> None:
    assert list(found.vocabulary.items()) == list(wanted.vocabulary.items())
    assert list(found.ngrams.number) == list(wanted.ngrams.number)
    for of, names in (
        (lambda index: index, ("tokens", "offsets", "titles")),
        (lambda index: index.ngrams, ("offsets", "ids", "idf")),
        (lambda index: index.bm25, ("data", "texts", "starts")),
        (lambda index: index.compounds, ("offsets", "ids")),
    ):
        for name in names:
            a, b = getattr(of(found), name), getattr(of(wanted), name)
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes()), name


def load(folder: Path, n: int) -> LexicalIndex:
    return LexicalIndex.load(folder, n_texts=n)


def following(folder: Path, before: Path, old: list[int], numbers: list[int]) -> LexicalIndex:
    """Write a version after another, and check that it is read as if all were built anew."""
    stays = np.isin(old, numbers)
    new = [text_of(n) for n in numbers if n not in set(old)]
    folder.mkdir()
    load(before, len(old)).changed(stays, new).save(folder, before)
    found, wanted = load(folder, len(numbers)), built(numbers)
    assert_same(found, wanted)
    shutil.rmtree(folder / DERIVED_FOLDER)
    assert_same(load(folder, len(numbers)), wanted)
    return found


def first(folder: Path, numbers: list[int]) -> Path:
    folder.mkdir()
    built(numbers).save(folder)
    assert_same(load(folder, len(numbers)), built(numbers))
    return folder


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in (folder / TOKENS_FOLDER).glob("ids-*.npy")}


def test_what_did_not_change_is_linked(tmp_path: Path) -> None:
    old = list(range(1_000))
    first(tmp_path / "a", old)
    following(tmp_path / "b", tmp_path / "a", old, [*range(5, 1_000), 1_000, 1_002])
    assert len(inodes(tmp_path / "a")) == 10
    assert inodes(tmp_path / "a") < inodes(tmp_path / "b")
    assert len(inodes(tmp_path / "b")) == 11


def test_no_texts(tmp_path: Path) -> None:
    first(tmp_path / "a", [])
    following(tmp_path / "b", tmp_path / "a", [], [3, 4])
    following(tmp_path / "c", tmp_path / "b", [3, 4], [])
    following(tmp_path / "d", tmp_path / "c", [], [0])  # a text of no word
    following(tmp_path / "e", tmp_path / "d", [0], [0, 1])


def test_ten_versions_of_one_percent_take_little_more_than_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    numbers = list(range(3_000))
    first(tmp_path / "0", numbers)
    for version in range(1, 10):
        stay = sorted(rng.permutation(numbers)[:-30].tolist())
        old, numbers = numbers, [*stay, *range(numbers[-1] + 1, numbers[-1] + 31)]
        following(tmp_path / str(version), tmp_path / str(version - 1), old, numbers)
    kinds = ("ids", "more", "lengths")
    files = {
        path.stat().st_ino: path.stat().st_size - 128
        for kind in kinds
        for path in tmp_path.glob(f"*/{TOKENS_FOLDER}/{kind}-*.npy")
    }
    one = sum(
        path.stat().st_size - 128
        for kind in kinds
        for path in (tmp_path / "0" / TOKENS_FOLDER).glob(f"{kind}-*.npy")
    )
    assert sum(files.values()) < 1.4 * one


@pytest.mark.parametrize("seed", range(4))
def test_many_changes_of_chance(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers, last = list(range(500)), first(tmp_path / "0", list(range(500)))
    for version in range(1, 25):
        n_gone, n_new = rng.integers(0, [rng.choice([2, 30, 400]), rng.choice([2, 30, 250])])
        stay = sorted(rng.permutation(numbers)[: max(len(numbers) - n_gone, 0)].tolist())
        top = max(numbers, default=-1)
        old, numbers = numbers, [*stay, *range(top + 1, top + 1 + int(n_new))]
        found = following(tmp_path / str(version), last, old, numbers)
        last = tmp_path / str(version)
        assert found.stored is not None
        assert len(found.stored.sizes) <= 2 * (len(numbers) // 100) + 64
        assert sum(found.stored.sizes.values()) <= len(numbers) / (1 - parts.MOST_UNUSED) + 1
        n_words = len(found.vocabulary)
        assert n_words <= found.stored.n_words
        assert n_words >= (1 - word_files.MOST_UNUSED_WORDS) * found.stored.n_words - 100


def test_words_that_nobody_has_any_more_are_not_numbered_for_ever(tmp_path: Path) -> None:
    """When a fifth of the numbers is unused, all is written anew, though each part is much used."""
    numbers = list(range(9, 2_000))
    last = first(tmp_path / "0", numbers)
    n_at_first = len(built(numbers).vocabulary)
    stay = [n for n in numbers if n % 9 or n % 90]  # a tenth of the rare words go
    found = following(tmp_path / "1", last, numbers, stay)
    assert found.stored is not None and found.stored.n_words == n_at_first
    fewer = [n for n in stay if n % 9 or n > 1_200]
    found = following(tmp_path / "2", tmp_path / "1", stay, fewer)
    assert found.stored is not None and found.stored.n_words == len(found.vocabulary) < n_at_first
    assert not inodes(tmp_path / "1") & inodes(tmp_path / "2")


def test_compounds_are_kept(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("german")
    words = [tokenizer.tokenize(text) for text in ("Wohnung und Schlüssel", "Wohnungsschlüssel")]
    index = LexicalIndex.build(words, tokenizer=tokenizer)
    assert len(index.compounds.ids)
    index.save(tmp_path)
    assert_same(load(tmp_path, 2), index)
    shutil.rmtree(tmp_path / DERIVED_FOLDER)
    assert_same(load(tmp_path, 2), index)


def test_what_is_derived_may_be_gone_in_part(tmp_path: Path) -> None:
    first(tmp_path / "a", list(range(50)))
    for path in sorted((tmp_path / "a" / DERIVED_FOLDER).iterdir()):
        path.unlink()  # as while another process deletes it
        assert_same(load(tmp_path / "a", 50), built(list(range(50))))


def array(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda place: np.save(place / name, change(np.load(place / name)))


def header(**values: Any) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        found = json.loads((place / "parts.json").read_text())
        (place / "parts.json").write_text(json.dumps({**found, **values}))

    return change


def at(place: int, value: int) -> Callable[[Any], Any]:
    def change(found: Any) -> Any:
        found = found.copy()
        found[place] = value
        return found

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (array("rows.npy", lambda a: a[::-1]), "rows.npy is not ascending"),
        (array("rows.npy", lambda a: a - 1), "rows.npy is not ascending"),
        (array("rows.npy", at(-1, 2**40)), "names a text that is not there"),
        (array("rows.npy", lambda a: a[:-1]), "expected"),
        (array("rows.npy", lambda a: a.astype(np.int32)), "rows.npy holds int32"),
        (array("order.npy", at(3, 5)), "names a word twice"),
        (array("order.npy", at(3, -1)), "a word that was not numbered"),
        (array("order.npy", at(3, 2**30)), "a word that was not numbered"),
        (array("order.npy", lambda a: a[1:]), "order.npy holds"),
        (array("ids-1.npy", lambda a: a[1:]), "more-1.npy|lengths-1.npy"),
        (array("ids-1.npy", at(0, 40)), "more-1.npy does not hold"),
        (array("ids-1.npy", lambda a: a.astype(np.int32)), "ids-1.npy holds int32"),
        (array("ids-1.npy", lambda a: a[:, None]), "ids-1.npy holds"),
        (array("more-1.npy", lambda a: a[:-1]), "more-1.npy does not hold"),
        (array("more-1.npy", at(0, 39)), "more-1.npy does not hold"),
        (array("more-1.npy", at(0, -5)), "more-1.npy does not hold"),
        (array("more-1.npy", at(0, 2**30)), "a word that was not numbered"),
        (array("lengths-1.npy", at(1, -1)), "lengths-1.npy does not divide"),
        (array("lengths-1.npy", at(1, 2**31 - 1)), "lengths-1.npy does not divide"),
        (array("lengths-2.npy", lambda a: a[:-1]), "lengths-2.npy does not divide"),
        (header(parts=[1]), "not there"),
        (header(parts=[1, 1]), "not there|twice"),
        (header(parts=[2, 1]), "not there|expected|title|not ascending|not made"),
        (header(parts=[1, 2, 7]), "No such file"),
        (header(parts=[1, 2, -7]), "Expected `int` >= 0"),
        (header(parts=["../ids-1", 2]), "Expected `int`, got `str`"),
        (header(parts=list(range(2_000))), "length <= 1000"),
        (header(words=3), "was not numbered"),
        (header(words=-3), "Expected `int` >= 0"),
        (header(words=2**31), "Expected `int` <= 2147483647"),
        (header(more=1), "unknown field `more`"),
        (lambda place: (place / "parts.json").unlink(), "No such file"),
        (lambda place: (place / "parts.json").write_text("[" * 50_000), "nested too deeply"),
    ],
)
def test_files_of_a_stranger_are_refused(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    first(tmp_path / "a", list(range(1, 151)))
    change(tmp_path / "a" / TOKENS_FOLDER)
    with pytest.raises(CorruptFileError, match=words) as caught:
        load(tmp_path / "a", 150)
    assert "rag-flywheel refresh" in str(caught.value)


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    first(tmp_path / "a", list(range(150)))
    path = tmp_path / "a" / TOKENS_FOLDER / "ids-1.npy"
    path.rename(tmp_path / "elsewhere.npy")
    path.symlink_to(tmp_path / "elsewhere.npy")
    with pytest.raises(CorruptFileError, match="is a symbolic link"):
        load(tmp_path / "a", 150)


def test_a_word_named_twice_is_refused(tmp_path: Path) -> None:
    first(tmp_path / "a", list(range(150)))
    path = tmp_path / "a" / "lexical" / "words.json"
    words = json.loads(path.read_text())
    path.write_text(json.dumps([*words[:-1], words[0]]))
    with pytest.raises(CorruptFileError, match="names a word twice"):
        load(tmp_path / "a", 150)


def test_words_of_a_text_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    numbers = list(range(1, 300))
    index = load(first(tmp_path / "a", numbers), len(numbers))
    names = list(index.vocabulary)
    ends = index.offsets.tolist()
    for i, number in enumerate(numbers):
        said = [names[t] for t in index.tokens[ends[i] : ends[i + 1]].tolist()]
        assert said == tokenize(text_of(number)[1])
