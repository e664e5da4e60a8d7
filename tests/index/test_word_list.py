"""Words numbered in bulk, against the words of each text by the tokenizer."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.index import word_list
from rag_flywheel.index.tokenizer import Tokenizer, tokenizer_of
from rag_flywheel.index.word_list import Numbers
from thorough import thorough

SIGNS = "aAbzZ019.-_/ \t'\x1c\x85\u2028\u00ad\u0301éßİıªﬁ２Ελكת東京アไทย한국𝐀𐩀\ud800"
TEXTS = st.text(alphabet=SIGNS, max_size=30) | st.sampled_from(
    ["get_userById", "ilac", "WF-M5799 v1.2.3", "/etc/site.key", "x" * 50, "the cats", "Größe"]
)
SPOKEN = st.lists(st.tuples(TEXTS, TEXTS), max_size=9)


def told(texts: list[tuple[str, str]], own: Numbers) -> list[tuple[list[str], int]]:
    """The words of each text and how many its title has, as `own` says."""
    tokens, lengths, titles = own.of(texts)
    assert {each.dtype for each in (tokens, lengths, titles)} == {np.dtype(np.int32)}
    names = list(own.stems)
    words = [names[number] for number in tokens.tolist()]
    ends = np.append(0, np.cumsum(lengths))
    each = [words[a:b] for a, b in pairwise(ends.tolist())]
    return list(zip(each, titles.tolist(), strict=True))


def by_tokenizer(texts: list[tuple[str, str]], of: Tokenizer) -> list[tuple[list[str], int]]:
    return [(of.tokenize(text), len(of.tokenize(title))) for title, text in texts]


@thorough(150, few=40)
@given(SPOKEN, SPOKEN, st.sampled_from(["english", "turkish", "german", "none"]))
def test_texts_in_bulk_have_the_words_of_each(
    some: list[tuple[str, str]], others: list[tuple[str, str]], language: str
) -> None:
    own, tokenizer = Numbers({}, tokenizer_of(language)), tokenizer_of(language)
    for texts in (some, others, some):  # pieces that are known, and new ones
        assert told(texts, own) == by_tokenizer(texts, tokenizer)
    own.clear()
    before = list(own.stems)
    assert told(some, own) == by_tokenizer(some, tokenizer)
    assert list(own.stems) == before


def test_words_are_numbered_in_the_order_in_which_they_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [("Cats", "Cats and owls"), ("", "mice-owl " + "x" * 90), ("", "x" * 90 + " bat")]
    found = []
    for at_once in (1, 2, 10):
        monkeypatch.setattr(word_list, "_AT_ONCE", at_once)
        own = Numbers({"dog": 0}, tokenizer_of("english"))
        found.append((told(texts, own), list(own.stems)))
    assert found[0] == found[1] == found[2]
    assert found[0][1] == ["dog", "cat", "owl", "miceowl", "mice", "x" * 90, "bat"]
