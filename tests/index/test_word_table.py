"""The numbers of words in a table beside those in a dict."""

import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.index.word_table import WordTable

WORDS = st.lists(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n")), unique=True
)


@given(WORDS, st.text())
def test_it_is_the_mapping_that_a_dict_is(words: list[str], other: str) -> None:
    table, numbers = WordTable(words), dict(zip(words, range(len(words)), strict=True))
    assert isinstance(table, Mapping)
    assert list(table) == words and len(table) == len(words)
    assert dict(table) == numbers
    for word in (*words, other, *words, other + "x", "\ud800"):
        assert table.get(word) == numbers.get(word)
        assert (word in table) == (word in numbers)
        if word in numbers:
            assert table[word] == numbers[word]
        else:
            with pytest.raises(KeyError):
                table[word]
    assert 7 not in table and None not in table


def test_words_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    import rag_flywheel.index.word_table as module

    monkeypatch.setattr(module, "hash", lambda word: len(word) % 3, raising=False)
    words = [f"w{'x' * (i % 7)}{i}" for i in range(200)]
    table = WordTable(words)
    assert dict(table) == dict(zip(words, range(200), strict=True))
    assert "w9" not in table and "wx1" not in WordTable(words[2:])
    with pytest.raises(ValueError, match="twice"):
        WordTable([*words, "other", words[5]])


@pytest.mark.parametrize(
    ("words", "why"), [(["a", "b", "a"], "twice"), (["", ""], "twice"), (["a\nb"], "end of a line")]
)
def test_what_is_no_list_of_words_is_refused(words: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        WordTable(words)


def test_it_takes_less_room_than_a_dict() -> None:
    words = [f"word{i}" for i in range(50_000)]
    table = WordTable(words)
    parts = (table._bytes, table._starts, table._order, table._hashes)
    of_table = sum(sys.getsizeof(part) for part in parts)
    of_dict = sys.getsizeof(dict.fromkeys(words)) + sum(map(sys.getsizeof, words))
    assert of_table < of_dict / 2


def test_many_words_that_are_not_there_are_not_kept() -> None:
    table = WordTable(["a"])
    for i in range(20_000):
        assert table.get(f"b{i}") is None
    assert len(table._found) <= 4_096 and table["a"] == 0
