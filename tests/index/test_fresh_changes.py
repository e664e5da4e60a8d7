"""A segment that texts are added to and removed from, against the same texts counted one by one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from rag_flywheel.index.char_ngrams import char_ngrams_of
from rag_flywheel.index.exact import distinct_rows, typical_cosine
from rag_flywheel.index.fresh import FreshSegment
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.index.statistics import WordStatistics
from rag_flywheel.index.tokenizer import Tokenizer, tokenizer_of
from rag_flywheel.records import Vectors
from thorough import thorough

DIM = 4
ENGLISH = tokenizer_of("english")
VOCABULARY = {
    "english": [
        "zebra",
        "fish",
        "owls",
        "cat",
        "getUserById",
        "running",
        "the",
        "税缴",
        "缴税须知",
    ],
    "german": [
        "schlüssel",
        "garage",
        "garagenschlüssel",
        "wohnung",
        "wohnungsschlüssel",
        "schloss",
    ],
}


@dataclass
class Plain:
    """The texts that are present, by pid: title, whole text and vector."""

    tokenizer: Tokenizer
    texts: dict[int, tuple[str, str, Vectors]]

    def words(self) -> list[list[str]]:
        return [self.tokenizer.tokenize(text) for _, text, _ in self.texts.values()]

    def n_titles(self) -> list[int]:
        return [len(self.tokenizer.tokenize(title)) for title, _, _ in self.texts.values()]

    def index(self) -> LexicalIndex:
        return LexicalIndex.build(self.words(), self.n_titles(), self.tokenizer)

    def scores(self, query: Sequence[str], statistics: WordStatistics) -> list[float]:
        """BM25 of each text, word by word."""
        found = []
        for words in self.words():
            counts, score = Counter(words), 0.0
            norm = 1.2 * (0.25 + 0.75 * len(words) / statistics.average_length)
            for word in query:
                tf = sum(counts[w] for w in (word, *statistics.compounds_with(word)))
                score += statistics.idf(word) * tf / (tf + norm)
            found.append(score)
        return found


def alike(some: WordStatistics, others: WordStatistics, words: Sequence[str]) -> None:
    """Whether both say the same of these words and of the texts."""
    assert len(some) == len(others)
    assert some.n_distinct == others.n_distinct
    for name in ("average_length", "average_title_length", "average_ngrams"):
        assert getattr(some, name) == getattr(others, name), name
    for word in words:
        assert some.knows(word) == others.knows(word)
        assert some.idf(word) == others.idf(word)
        assert some.distinct_idf(word) == others.distinct_idf(word)
        assert sorted(some.compounds_with(word)) == sorted(others.compounds_with(word))
    found, expected = some.ngram_idf(words), others.ngram_idf(words)
    assert found == pytest.approx(expected, abs=1e-9)
    assert list(found) == list(expected)


def check(segment: FreshSegment, plain: Plain, query: str, version: LexicalIndex) -> None:
    """Whether a segment says of its texts what counting says."""
    at, own = np.flatnonzero(segment.present), plain.index()
    assert segment.pids[at].tolist() == list(plain.texts)
    assert len(segment) == len(plain.texts)
    vectors = np.array([v for *_, v in plain.texts.values()], np.float32).reshape(-1, DIM)
    assert segment.vectors_at(at).tolist() == vectors.tolist()
    assert segment.typical_cosine == pytest.approx(typical_cosine(distinct_rows(vectors)), abs=1e-9)
    words = own.query_words(query)
    assert segment.statistics.query_words(query) == words
    every = [*dict.fromkeys([*words, *version.query_words(query), "nowhere"])]
    alike(segment.statistics, own, every)
    statistics: WordStatistics
    for statistics in (own, version, segment.statistics):
        asked = statistics.query_words(query)
        found = segment.lexical_scores(asked, statistics)[at].tolist()
        assert found == pytest.approx(plain.scores(asked, statistics), abs=1e-6)
        distinct = list(dict.fromkeys(asked))
        read = segment.texts_at(at)
        places, lengths = segment.words_at(distinct, read, statistics), read.lengths
        number = {c: i for i, w in enumerate(distinct) for c in statistics.compounds_with(w)}
        number |= {word: i for i, word in enumerate(distinct)}
        assert places.tolist() == [number.get(w, -1) for text in plain.words() for w in text]
        assert lengths.tolist() == list(map(len, plain.words()))
        ngrams = list(statistics.ngram_idf(asked))
        counts, totals = segment.ngrams_at(ngrams, read)
        each = [Counter(g for w in text for g in char_ngrams_of(w)) for text in plain.words()]
        assert counts.tolist() == [[float(count[g]) for g in ngrams] for count in each]
        assert totals.tolist() == [count.total() for count in each]
    assert segment.title_lengths(at).tolist() == plain.n_titles()
    having = [p for p, text in zip(at, plain.words(), strict=True) if words and {*words} <= {*text}]
    assert segment.having_all(words).tolist() == having


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_flywheel.index.postings._UNSORTED", 20)
    monkeypatch.setattr("rag_flywheel.index.fresh._KEPT", 4)
    monkeypatch.setattr("rag_flywheel.index.growing._BLOCK", 8)


def spoken(language: str, most: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(VOCABULARY[language]), max_size=most).map(" ".join)


@pytest.mark.parametrize("language", ["english", "german"])
@thorough(100, few=15, phases=[Phase.generate])  # shrinking takes minutes
@given(st.data())
def test_a_segment_says_what_counting_its_texts_says(language: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(language)
    indexed = data.draw(st.lists(spoken(language, 6), max_size=5))
    version = LexicalIndex.build(map(tokenizer.tokenize, indexed), tokenizer=tokenizer)
    segment, plain = FreshSegment.empty(DIM, tokenizer), Plain(tokenizer, {})
    before, next_pid = list[tuple[FreshSegment, dict[int, tuple[str, str, Vectors]]]](), 1
    for _ in range(data.draw(st.integers(1, 6))):
        before.append((segment, dict(plain.texts)))
        gone = data.draw(st.lists(st.sampled_from([*plain.texts, 99]), max_size=5))
        if gone:
            segment = segment.without(np.array(gone))
            plain.texts = {pid: text for pid, text in plain.texts.items() if pid not in gone}
        heads = data.draw(st.lists(spoken(language, 2), max_size=6))
        texts = [f"{head} {data.draw(spoken(language, 6))}".strip() for head in heads]
        pids = np.arange(next_pid, next_pid + len(texts))
        of = data.draw(st.lists(st.integers(0, 3), min_size=len(texts), max_size=len(texts)))
        vectors = np.eye(DIM, dtype=np.float32)[np.array(of, dtype=np.int64)]
        segment = segment.with_texts(pids, texts, heads, vectors)
        new = zip(pids.tolist(), zip(heads, texts, vectors, strict=True), strict=True)
        plain.texts |= dict(new)
        next_pid += len(texts)
    query = data.draw(spoken(language, 4))
    check(segment, plain, query, version)
    for earlier, present in before:  # none of them was changed
        check(earlier, Plain(tokenizer, present), query, version)


def test_two_segments_may_go_on_from_one() -> None:
    def with_one(segment: FreshSegment, pid: int, text: str) -> FreshSegment:
        vector = np.eye(DIM, dtype=np.float32)[[pid % DIM]]
        return segment.with_texts(np.array([pid]), [text], [""], vector)

    first = with_one(with_one(FreshSegment.empty(DIM), 1, "zebra"), 2, "owl fish")
    some, others = with_one(first, 3, "cat"), with_one(first.without(np.array([1])), 4, "dog dog")
    version = LexicalIndex.build([["zebra"], ["cat"]])
    for segment, texts in (
        (first, {1: "zebra", 2: "owl fish"}),
        (some, {1: "zebra", 2: "owl fish", 3: "cat"}),
        (others, {2: "owl fish", 4: "dog dog"}),
    ):
        rows = np.eye(DIM, dtype=np.float32)
        plain = Plain(ENGLISH, {p: ("", text, rows[p % DIM]) for p, text in texts.items()})
        check(segment, plain, "dog cat fish", version)


def test_removed_texts_do_not_stay_for_ever() -> None:
    segment = FreshSegment.empty(DIM)
    for pid in range(1, 60):
        vector = np.eye(DIM, dtype=np.float32)[[pid % DIM]]
        segment = segment.with_texts(np.array([pid]), [f"text{pid} word"], [""], vector)
        segment = segment.without(np.array([pid - 2]))
    assert len(segment) == 2
    assert len(segment.pids) < 10 and len(segment.words) < 25


def test_a_vector_counts_as_long_as_any_text_has_it() -> None:
    vectors = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0.6, 0.8, 0, 0]], np.float32)
    segment = FreshSegment.empty(DIM).with_texts(
        np.arange(1, 4), ["a", "b", "c"], [""] * 3, vectors
    )
    assert segment.typical_cosine == pytest.approx(0.6)
    assert segment.without(np.array([1])).typical_cosine == pytest.approx(0.6)
    assert segment.without(np.array([1, 2])).typical_cosine == 0.0  # one text is left
    again = segment.without(np.array([1, 2])).with_texts(np.array([9]), ["d"], [""], vectors[:1])
    assert again.typical_cosine == pytest.approx(0.6)


def test_a_compound_counts_as_often_as_it_has_the_word() -> None:
    text = "hausturmhaus haus wohnung"
    german = tokenizer_of("german")
    version = LexicalIndex.build([german.tokenize("haus turm hausturmhaus")], tokenizer=german)
    twice = version.compounds_with(german.stem("haus"))
    segment = FreshSegment.empty(DIM, german).with_texts(
        np.array([1]), [text], [""], np.eye(1, DIM, dtype=np.float32)
    )
    plain = Plain(german, {1: ("", text, np.eye(1, DIM, dtype=np.float32)[0])})
    assert len(twice) == 2 and len(set(twice)) == 1
    check(segment, plain, "haus", version)


def test_a_compound_counts_for_each_word_that_is_asked_for() -> None:
    """Though the text has none of them by itself."""
    text = "garagenschlüssel"
    german = tokenizer_of("german")
    spoken = ["garage", "schlüssel", "garagenschlüssel"]
    version = LexicalIndex.build([german.tokenize(each) for each in spoken], tokenizer=german)
    segment = FreshSegment.empty(DIM, german).with_texts(
        np.array([1]), [text], [""], np.eye(1, DIM, dtype=np.float32)
    )
    plain = Plain(german, {1: ("", text, np.eye(1, DIM, dtype=np.float32)[0])})
    check(segment, plain, "garage schlüssel", version)
