"""The scores of words are added up the same, whichever way and for whichever texts."""

import json
from pathlib import Path

import bm25s
import numpy as np
import pytest
from bm25s.stopwords import STOPWORDS_EN
from hypothesis import given, settings
from hypothesis import strategies as st

from like_bm25s import assert_like_bm25s
from rag_flywheel.index.lexical import LexicalIndex, tokenize
from thorough import thorough

words = st.sampled_from(list("abcdefg"))
documents = st.lists(st.lists(words, max_size=12), max_size=15)
queries = st.lists(st.sampled_from(list("abcdefgxyz")), max_size=6)


@thorough(40, few=10)
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


def test_files_of_scores_are_those_of_bm25s(tmp_path: Path) -> None:
    texts = [["cat", "dog"], ["cat", "cat", "owl"], []]
    index = LexicalIndex.build(texts)
    index.save(tmp_path)
    theirs = bm25s.BM25(k1=1.2, b=0.75, method="lucene", csc_backend="scipy")
    ids = [[index.vocabulary[word] for word in text] for text in texts]
    theirs.index((ids, dict(index.vocabulary)), create_empty_token=False, show_progress=False)
    theirs.save(tmp_path / "theirs", show_progress=False)
    for path in (tmp_path / "theirs").glob("*.npy"):
        same = tmp_path / "derived" / path.name
        assert same.read_bytes()[:128] == path.read_bytes()[:128]  # the header of the array
        assert_like_bm25s(np.load(same), np.load(path))
    ours = json.loads((tmp_path / "derived" / "params.index.json").read_text())
    written = json.loads((tmp_path / "theirs" / "params.index.json").read_text())
    assert ours == written | {"version": "0.3.16"}


def test_stop_words_are_those_of_bm25s() -> None:
    assert set(STOPWORDS_EN) == {word for word in STOPWORDS_EN if not tokenize(word)}
    others = ["what", "who", "which", "he", "she", "were", "have", "from", "can", "so", "we", "you"]
    assert all(tokenize(word) for word in others)
