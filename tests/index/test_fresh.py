"""Fresh texts: their scores against the formula with the version's statistics."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.index.fresh import FreshSegment
from rag_flywheel.index.lexical import LexicalIndex
from thorough import thorough

DIM = 4


def segment(texts: list[str], first_pid: int = 1) -> FreshSegment:
    pids = np.arange(first_pid, first_pid + len(texts), dtype=np.int64)
    vectors = np.eye(DIM, dtype=np.float32)[pids % DIM]
    return FreshSegment.empty(DIM).with_texts(pids, texts, [""] * len(texts), vectors)


def present(segment: FreshSegment) -> list[int]:
    """The pids of the texts that were not removed."""
    pids: list[int] = segment.pids[segment.present].tolist()
    return pids


def words_of(segment: FreshSegment, pid: int) -> list[str]:
    """The words of a text."""
    tokens, _ = segment.texts.at(np.flatnonzero(segment.pids == pid))
    return [segment.words.name(token) for token in tokens.tolist()]


words = st.sampled_from(["zebra", "fish", "owl", "cat", "dog"])
texts = st.lists(st.lists(words, max_size=8).map(" ".join), min_size=1, max_size=10)


@thorough(40, few=10)
@given(texts, texts, st.lists(st.sampled_from(["zebra", "fish", "owl", "ant"]), max_size=4))
def test_scores_use_the_idf_and_average_length_of_the_version(
    indexed: list[str], fresh: list[str], query: list[str]
) -> None:
    version = LexicalIndex.build(text.split() for text in indexed)
    found = segment(fresh).lexical_scores(query, version)
    documents = [text.split() for text in indexed]
    n, average = len(documents), sum(map(len, documents)) / len(documents)
    for i, text in enumerate(fresh):
        expected = 0.0
        for word in query:
            df, tf = sum(word in d for d in documents), text.split().count(word)
            idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
            length = len(text.split()) / average if average else len(text.split())
            expected += idf * tf / (tf + 1.2 * (0.25 + 0.75 * length))
        assert found[i] == pytest.approx(expected, abs=1e-5)


@thorough(40, few=10)
@given(texts, st.lists(words, max_size=4))
def test_its_own_statistics_score_it_as_an_index_of_the_same_texts_would(
    fresh: list[str], query: list[str]
) -> None:
    made = segment(fresh)
    index = LexicalIndex.build(text.split() for text in fresh)
    found = made.lexical_scores(query, made.statistics)
    assert found.tolist() == pytest.approx(index.scores(query).tolist(), abs=1e-5)


def test_texts_are_added_and_taken_out_without_changing_older_segments() -> None:
    first = segment(["zebra fish", "owl owl"])
    more = np.full((1, DIM), 0.5, dtype=np.float32)
    second = first.with_texts(np.array([9]), ["The running cat"], ["The running"], more)
    third = second.without(np.array([1, 77]))
    assert (present(first), present(second), present(third)) == ([1, 2], [1, 2, 9], [2, 9])
    assert words_of(third, 2) == ["owl", "owl"]
    assert words_of(third, 9) == ["run", "cat"]  # "the" is a stop word
    at = np.flatnonzero(third.present)
    assert third.title_lengths(at).tolist() == [0, 1]
    assert third.vectors_at(at).tolist() == [[0.0, 0.0, 1.0, 0.0], [0.5] * 4]
    assert (len(first), len(second), len(third)) == (2, 3, 2)
    assert present(second.without(np.array([1, 2, 9]))) == []


def test_an_empty_segment_has_no_scores() -> None:
    empty = FreshSegment.empty(DIM)
    assert empty.lexical_scores(["zebra"], empty.statistics).tolist() == []
    assert empty.statistics.idf("zebra") == pytest.approx(math.log(2))  # ln(1 + 0.5 / 0.5)


def test_a_text_of_only_stop_words_scores_zero() -> None:
    version = LexicalIndex.build([["zebra"], ["owl"]])
    found = segment(["it is the", "zebra"]).lexical_scores(["zebra"], version)
    # one word in a text of average length: idf · 1 / (1 + 1.2)
    assert found.tolist() == pytest.approx([0.0, math.log(2) / 2.2])


@thorough(40, few=10)
@given(texts, st.lists(st.sampled_from(["zebra", "fish", "ant"]), unique=True), st.data())
def test_words_are_found_where_they_stand(
    fresh: list[str], query: list[str], data: st.DataObject
) -> None:
    at = data.draw(st.lists(st.integers(0, len(fresh) - 1), max_size=6))
    read = segment(fresh).texts_at(np.array(at, dtype=np.int64))
    places, lengths = segment(fresh).words_at(query, read, segment(fresh).statistics), read.lengths
    picked = [fresh[i].split() for i in at]
    expected = [query.index(w) if w in query else -1 for words in picked for w in words]
    assert (places.tolist(), lengths.tolist()) == (expected, [len(words) for words in picked])
    assert (places.dtype, lengths.dtype) == (np.dtype(np.int16), np.dtype(np.int64))


@thorough(40, few=10)
@given(texts, st.data())
def test_titles_are_the_first_words_and_go_into_the_statistics(
    bodies: list[str], data: st.DataObject
) -> None:
    heads = data.draw(
        st.lists(
            st.lists(words, max_size=3).map(" ".join),
            min_size=len(bodies),
            max_size=len(bodies),
        )
    )
    full = [f"{head}\n{body}" if head else body for head, body in zip(heads, bodies, strict=True)]
    pids = np.arange(len(full), dtype=np.int64)
    made = FreshSegment.empty(DIM).with_texts(
        pids, full, heads, np.zeros((len(full), DIM), dtype=np.float32)
    )
    lengths = [len(head.split()) for head in heads]
    assert made.title_lengths(pids).tolist() == lengths
    assert made.title_lengths(pids[::-1]).tolist() == lengths[::-1]
    assert made.title_lengths(pids[:0]).tolist() == []
    for pid, (head, body) in enumerate(zip(heads, bodies, strict=True)):
        assert words_of(made, pid) == [*head.split(), *body.split()]
    statistics = made.statistics
    assert statistics.average_title_length == pytest.approx(sum(lengths) / len(lengths))


def test_a_title_counts_by_the_words_that_are_kept() -> None:
    made = FreshSegment.empty(DIM).with_texts(
        np.array([1]),
        ["The Owls of Delphi\nand a cat"],
        ["The Owls of Delphi"],
        np.eye(1, DIM, dtype=np.float32),
    )
    assert words_of(made, 1) == ["owl", "delphi", "cat"]
    assert made.title_lengths(np.array([0])).tolist() == [2]


def test_each_text_needs_a_title() -> None:
    with pytest.raises(ValueError, match="zip"):
        FreshSegment.empty(DIM).with_texts(
            np.array([1]), ["zebra"], [], np.eye(1, DIM, dtype=np.float32)
        )
