"""The scores of words are added up the same, whichever way and for whichever texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_flywheel.index.lexical import LexicalIndex

words = st.sampled_from(list("abcdefg"))
documents = st.lists(st.lists(words, max_size=12), max_size=15)
queries = st.lists(st.sampled_from(list("abcdefgxyz")), max_size=6)


@settings(max_examples=40)
@given(documents, queries, st.data())
def test_scores_of_some_texts_are_those_of_all_to_the_bit(
    texts: list[list[str]], query: list[str], data: st.DataObject
) -> None:
    index = LexicalIndex.build(texts)
    if not texts:
        return
    some = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=8))
    at = np.array(some, dtype=np.int64)
    assert index.scores_at(query, at).tobytes() == index.scores(query)[at].tobytes()


@settings(max_examples=20)
@given(documents, queries)
def test_scores_are_added_up_the_same_with_and_without_scipy(
    texts: list[list[str]], query: list[str]
) -> None:
    index = LexicalIndex.build(texts)
    with_it = index.scores(query)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rag_flywheel.index.bm25._adder", lambda: None)
        assert index.scores(query).tobytes() == with_it.tobytes()
