"""Pieces of words against counting in plain Python."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.index.char_ngrams import CharNgrams, char_ngrams_of, ngram_key, ngram_keys
from rag_flywheel.index.fresh import FreshSegment
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.rank.features import TextNgrams
from thorough import thorough

words = st.text(alphabet="abé", min_size=1, max_size=7)
texts = st.lists(st.lists(words, max_size=8), min_size=1, max_size=6)


def plain_pieces(word: str) -> list[str]:
    padded = f" {word} "
    return [padded[i : i + 4] for i in range(len(padded) - 3)] or [padded]


def test_pieces_of_words() -> None:
    assert char_ngrams_of("cat") == [" cat", "cat "]
    assert char_ngrams_of("tools") == [" too", "tool", "ools", "ols "]
    assert char_ngrams_of("a") == [" a "]
    assert char_ngrams_of("of") == [" of "]


@thorough(60, few=15)
@given(texts, st.lists(words, max_size=5))
def test_counts_are_those_of_plain_python(given_: list[list[str]], query: list[str]) -> None:
    index = LexicalIndex.build(given_)
    idf = index.ngrams.of_query(query)
    counted = [Counter(p for word in text for p in plain_pieces(word)) for text in given_]
    assert set(idf) == {p for w in query for p in plain_pieces(w) if any(c[p] for c in counted)}
    at = np.arange(len(given_))
    tf, totals = index.ngrams_at(list(idf), index.texts_at(at))
    assert tf.tolist() == [[float(c[p]) for p in idf] for c in counted]
    assert totals.tolist() == [sum(c.values()) for c in counted]
    assert index.average_ngrams == pytest.approx(totals.mean() or 1.0)
    titles = [""] * len(given_)
    fresh = FreshSegment.empty(2).with_texts(
        at, [" ".join(text) for text in given_], titles, np.zeros((len(at), 2), dtype=np.float32)
    )
    stems = [  # what the tokeniser makes of the words
        [fresh.words.name(token) for token in fresh.texts.at(np.array([i]))[0].tolist()]
        for i in at.tolist()
    ]
    again = LexicalIndex.build(stems)
    known = again.ngrams.of_query(query)
    for found, expected in zip(
        fresh.ngrams_at(list(known), fresh.texts_at(at)),
        again.ngrams_at(list(known), again.texts_at(at)),
        strict=True,
    ):
        assert np.array_equal(found, expected)


@thorough(40, few=10)
@given(texts)
def test_idf_is_that_of_words_which_come_independently(given_: list[list[str]]) -> None:
    ngrams, n = LexicalIndex.build(given_).ngrams, len(given_)
    for ngram, number in ngrams.number.items():
        with_piece = {w for text in given_ for w in text if ngram in plain_pieces(w)}
        expected = sum(
            sum(w in text for text in given_) * plain_pieces(w).count(ngram) for w in with_piece
        )
        n_with = n * (1 - math.exp(-expected / n))
        idf = math.log(1 + (n - n_with + 0.5) / (n_with + 0.5))
        assert ngrams.idf[number] == pytest.approx(idf)


@thorough(200, few=50)
@given(st.lists(st.text(st.characters(), max_size=6), unique=True))
def test_words_taken_apart_at_once_are_those_taken_apart_one_by_one(given_: list[str]) -> None:
    ngrams = CharNgrams.build(given_, np.ones(len(given_), dtype=np.int64), 5)
    number: dict[str, int] = {}
    each = [[number.setdefault(n, len(number)) for n in char_ngrams_of(word)] for word in given_]
    assert list(ngrams.number.items()) == list(number.items())
    assert ngrams.offsets.tolist() == [0, *np.cumsum(list(map(len, each))).tolist()]
    assert ngrams.ids.tolist() == [i for ids in each for i in ids]
    assert (ngrams.ids.dtype, ngrams.offsets.dtype) == (np.int32, np.int32)


def test_words_of_more_characters_than_fit_are_taken_apart_too() -> None:
    given_ = [chr(i) for i in range(1_000, 0xD000)] + [chr(i) for i in range(0x10000, 0x15000)]
    ngrams = CharNgrams.build(given_, np.ones(len(given_), dtype=np.int64), 5)
    assert list(ngrams.number) == [f" {word} " for word in given_]


def test_a_repeated_word_of_a_query_counts_again() -> None:
    ngrams = LexicalIndex.build([["cat", "dog"], ["cow"]]).ngrams
    once, twice = ngrams.of_query(["cat"]), ngrams.of_query(["cat", "cat", "unheard"])
    assert twice == pytest.approx({ngram: 2 * idf for ngram, idf in once.items()})


def test_bm25_of_pieces_by_hand() -> None:
    found = TextNgrams(
        np.array([[1.0, 0.0], [2.0, 1.0]]), np.array([0.5, 2.0]), np.array([4, 8]), 6.0
    ).bm25()
    norm = [1.2 * (0.25 + 0.75 * 4 / 6), 1.2 * (0.25 + 0.75 * 8 / 6)]
    expected = [0.5 / (1 + norm[0]), 0.5 * 2 / (2 + norm[1]) + 2.0 / (1 + norm[1])]
    assert found.tolist() == pytest.approx(expected)


def test_misspelt_words_meet_the_right_ones() -> None:
    index = LexicalIndex.build([["configuration", "file"], ["something", "else"]])
    idf = index.ngrams.of_query(["configuraton"])
    tf, _ = index.ngrams_at(list(idf), index.texts_at(np.arange(2)))
    assert tf[0].sum() >= 8
    assert tf[1].sum() == 0


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    LexicalIndex.build([["cat", "dog"], ["cats", "é"]]).ngrams.save(tmp_path)
    return tmp_path


def test_what_is_saved_is_loaded(saved: Path) -> None:
    ngrams = LexicalIndex.build([["cat", "dog"], ["cats", "é"]]).ngrams
    found = CharNgrams.load(saved, n_words=4)
    assert found.number == ngrams.number
    for name in ("offsets", "ids", "idf"):
        assert np.array_equal(getattr(found, name), getattr(ngrams, name))


def rewrite(folder: Path, name: str, changed: np.ndarray) -> None:  # type: ignore[type-arg]
    np.save(folder / name, changed, allow_pickle=False)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("piece-offsets.npy", lambda a: a + 1),
        ("piece-offsets.npy", lambda a: a[:-1]),
        ("piece-offsets.npy", lambda a: a[::-1]),
        # in int32 the difference of the two in the middle wraps to a positive one
        ("piece-offsets.npy", lambda a: np.array([0, 2**31 - 1, -(2**31), -1, a[-1]], np.int32)),
        ("pieces.npy", lambda a: a + 1000),
        ("pieces.npy", lambda a: a - 1),
        ("pieces.npy", lambda a: a[:-1]),
        ("pieces.npy", lambda a: a.astype(np.int64)),
        ("piece-idf.npy", lambda a: a * np.nan),
        ("piece-idf.npy", lambda a: -a - 1),
        ("piece-idf.npy", lambda a: a[1:]),
    ],
)
def test_files_that_do_not_fit_are_refused(saved: Path, name: str, change: object) -> None:
    assert callable(change)
    rewrite(saved, name, np.ascontiguousarray(change(np.load(saved / name))))
    with pytest.raises(ValueError, match=r"piece"):
        CharNgrams.load(saved, n_words=4)


def test_a_piece_named_twice_is_refused(saved: Path) -> None:
    names = json.loads((saved / "pieces.json").read_text(encoding="utf-8"))
    (saved / "pieces.json").write_text(json.dumps([*names[:-1], names[0]]), encoding="utf-8")
    with pytest.raises(ValueError, match="twice"):
        CharNgrams.load(saved, n_words=4)


@pytest.mark.parametrize("names", [{"a": 1}, [1, 2], "cat"])
def test_names_that_are_no_list_of_pieces_are_refused(saved: Path, names: object) -> None:
    (saved / "pieces.json").write_text(json.dumps(names), encoding="utf-8")
    with pytest.raises(ValueError, match=r"pieces.json: Expected `(array|str)`, got"):
        CharNgrams.load(saved, n_words=4)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a", "ab", "abc", "abcd", "né", "abcd", "東京", "x\ud800y"],
        ["cat", "𐩀b", "cat", "𝐀"],  # characters that take more than 16 bits
    ],
)
def test_n_grams_of_many_words_are_those_of_each(words: list[str]) -> None:
    keys, which, n_each = ngram_keys(words)
    each = [char_ngrams_of(word) for word in words]
    assert [keys[i] for i in which.tolist()] == [ngram_key(n) for own in each for n in own]
    assert n_each.tolist() == list(map(len, each))
    distinct = {ngram for own in each for ngram in own}
    assert len(set(keys)) == len(keys) == len({ngram_key(n) for n in distinct}) == len(distinct)
