"""Static features against a slow reference: one text, one word at a time, in plain Python."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import no_pieces
from rag_flywheel.index.fresh import FreshSegment
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.rank.features import (
    CHEAP,
    FEATURES,
    RICH,
    QueryWords,
    TextWords,
    cheap_features,
    rich_features,
    with_rich,
)
from rag_flywheel.records import Features
from thorough import thorough


@dataclass(frozen=True)
class Text:
    words: tuple[str, ...]
    n_title: int = 0


@dataclass(frozen=True)
class Statistics:
    """What a query is looked at with: the idf of any word, the words of the index, and averages."""

    idf: dict[str, float]
    known: frozenset[str]
    average_length: float
    average_title: float


def found_features(query: Sequence[str], texts: Sequence[Text], given: Statistics) -> Features:
    words = QueryWords.of(query, [given.idf[w] for w in query], [w in given.known for w in query])
    number = {w: i for i, w in enumerate(words.words)}
    return rich_features(
        words,
        TextWords(
            np.array([number.get(w, -1) for t in texts for w in t.words], dtype=np.int64),
            np.array([len(t.words) for t in texts], dtype=np.int64),
            np.array([t.n_title for t in texts], dtype=np.int64),
            given.average_length,
            given.average_title,
        ),
        no_pieces(len(texts)),
    )[0]


def saturated(tf: int, length: int, average: float) -> float:
    return tf / (tf + 1.2 * (1 - 0.75 + 0.75 * length / (average or 1.0)))


def shares(values: Sequence[float]) -> list[float]:
    best = max(values, default=0.0)
    return [v / best if best > 0 else 0.0 for v in values]


def slow_features(
    query: Sequence[str], texts: Sequence[Text], given: Statistics
) -> list[list[float]]:
    """The features named in RICH, of each text."""
    kept = sorted(set(query), key=lambda w: (-given.idf[w], w))[:64]
    rarest = next((w for w in kept if w in given.known), None)
    columns = [
        shares([bigram(query, kept, t, given) for t in texts]),
        shares([title(query, kept, t, given) for t in texts]),
        [float(rarest in t.words) for t in texts],
        [window(kept, t, given) / 10 for t in texts],
        shares([near_pairs(kept, t, given) for t in texts]),
        [math.log((len(t.words) + 1) / (given.average_length + 1)) for t in texts],
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def bigram(query: Sequence[str], kept: Sequence[str], text: Text, given: Statistics) -> float:
    neighbours = list(pairwise(text.words))
    return sum(
        (given.idf[a] + given.idf[b])
        / 2
        * saturated(neighbours.count((a, b)), len(text.words), given.average_length)
        for a, b in pairwise(query)
        if a in kept and b in kept
    )


def title(query: Sequence[str], kept: Sequence[str], text: Text, given: Statistics) -> float:
    words = text.words[: text.n_title]
    return sum(
        given.idf[w] * saturated(words.count(w), len(words), given.average_title)
        for w in query
        if w in kept
    )


def window(kept: Sequence[str], text: Text, given: Statistics) -> float:
    parts = (set(text.words[i : i + 15]) for i in range(len(text.words)))
    return max((sum(given.idf[w] for w in kept if w in part) for part in parts), default=0.0)


def near_pairs(kept: Sequence[str], text: Text, given: Statistics) -> float:
    """Every two different words of the query, of which at most six words lie between."""
    found = Counter(
        frozenset((a, b))
        for i, a in enumerate(text.words)
        for b in text.words[i + 1 : i + 8]
        if a != b and a in kept and b in kept
    )
    return sum(
        min(given.idf[w] for w in two) * saturated(tf, len(text.words), given.average_length)
        for two, tf in found.items()
    )


def same(found: Features, expected: Sequence[Sequence[float]]) -> bool:
    assert found.dtype == np.float32
    assert found.shape == (len(expected), len(RICH))
    assert found.tolist() == [pytest.approx([*row, 0.0], rel=1e-5, abs=1e-6) for row in expected]
    return True


def texts_of(alphabet: Sequence[str]) -> st.SearchStrategy[list[Text]]:
    text = st.lists(st.sampled_from(alphabet), max_size=24).flatmap(
        lambda words: st.builds(Text, st.just(tuple(words)), st.integers(0, len(words)))
    )
    return st.lists(text, max_size=6)


def statistics_of(alphabet: Sequence[str]) -> st.SearchStrategy[Statistics]:
    return st.builds(
        Statistics,
        st.fixed_dictionaries(dict.fromkeys(alphabet, st.integers(1, 8).map(float))),
        st.frozensets(st.sampled_from(alphabet)),
        st.sampled_from([0.5, 1.0, 3.7, 12.0]),
        st.sampled_from([0.0, 0.5, 1.0, 4.2]),
    )


FEW = list("abcde")
MANY = [f"word{i:03}" for i in range(90)]


@thorough(60, few=15)
@given(st.lists(st.sampled_from(FEW), max_size=8), texts_of(FEW), statistics_of(FEW))
def test_rich_features_equal_the_reference(
    query: list[str], texts: list[Text], given_: Statistics
) -> None:
    assert same(found_features(query, texts, given_), slow_features(query, texts, given_))


@thorough(25, few=6)
@given(
    st.permutations(MANY),
    st.integers(60, 90),
    st.lists(st.sampled_from(MANY), max_size=20),
    texts_of(MANY),
    st.integers(0, 2**32),
)
def test_long_queries_are_looked_at_by_their_64_rarest_words(
    words: list[str], n: int, again: list[str], texts: list[Text], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    idf = dict(zip(MANY, rng.uniform(0.1, 9.0, len(MANY)).tolist(), strict=True))
    given_ = Statistics(idf, frozenset(rng.choice(MANY, 60).tolist()), 7.0, 2.0)
    query = words[:n] + again
    texts = [*texts, Text(tuple(query[5:40]), 10), Text(tuple(query), 0)]
    assert same(found_features(query, texts, given_), slow_features(query, texts, given_))


def test_a_query_of_100_words_keeps_the_64_rarest() -> None:
    words = [f"w{i:02}" for i in range(100)]
    found = QueryWords.of(words, [float(i + 1) for i in range(100)], [True] * 100)
    assert (*reversed(found.words),) == (*words[36:],)
    assert found.order.tolist() == [-1] * 36 + list(range(63, -1, -1))
    assert found.idf.tolist() == [float(i) for i in range(100, 36, -1)]


def test_a_querys_words_are_numbered_from_the_rarest() -> None:
    found = QueryWords.of(["b", "a", "b", "c"], [2.0, 2.0, 2.0, 5.0], [True, False, True, True])
    assert (found.words, found.idf.tolist()) == (("c", "a", "b"), [5.0, 2.0, 2.0])
    assert (found.known.tolist(), found.order.tolist()) == ([True, False, True], [2, 1, 2, 0])


EVEN = Statistics(dict.fromkeys("abc-", 1.0) | {"z": 3.0}, frozenset("abc-"), 4.0, 2.0)


def column(name: str, query: Sequence[str], *texts: Text, given: Statistics = EVEN) -> list[float]:
    found: list[float] = found_features(query, texts, given)[:, RICH.index(name)].tolist()
    return found


def test_hand_worked_example() -> None:
    texts = [Text(("a", "b", "c", "c"), 2), Text(("b", "a", "z"), 0), Text((), 0)]
    found = found_features(["a", "b", "z"], texts, EVEN)
    # bigram: (a, b) once in the first, (b, z) in none. title: a, b in the first. rarest: z is in no
    # text of the index, so it is a. window: 1 + 1, and 1 + 1 + 3. pairs: {a, b} once, over 1 + 1.2;
    # {a, b}, {a, z}, {b, z} once, each over 1 + 1.2 · (0.25 + 0.75 · 3 / 4)
    assert same(
        found,
        [
            (1.0, 1.0, 1.0, 0.2, (1 / 2.2) / (3 / 1.975), 0.0),
            (0.0, 0.0, 1.0, 0.5, 1.0, math.log(4 / 5)),
            (0.0, 0.0, 0.0, 0.0, 0.0, math.log(1 / 5)),
        ],
    )


def test_nothing_reaches_over_the_end_of_a_text() -> None:
    texts = Text(("c", "a")), Text(("b", "a"))
    assert column("bigram", ["a", "b"], *texts) == [0.0, 0.0]
    assert column("window", ["a", "b"], *texts) == pytest.approx([0.1, 0.2])
    assert column("pairs", ["a", "b"], *texts) == [0.0, 1.0]


@pytest.mark.parametrize(("between", "share"), [(0, 1), (6, 1), (7, 0)])
def test_two_words_within_eight_are_a_pair(between: int, share: float) -> None:
    far = Text(("a", *["-"] * between, "b", *["-"] * (8 - between)))
    assert column("pairs", ["b", "a"], far) == [share]


@pytest.mark.parametrize(("between", "words"), [(0, 2), (13, 2), (14, 1)])
def test_a_window_is_fifteen_words_wide(between: int, words: int) -> None:
    far = Text(("a", "a", *["-"] * between, "b", "b"))
    assert column("window", ["a", "b"], far) == pytest.approx([words / 10])


def test_repeated_words_and_pairs_of_a_query_count_again() -> None:
    texts = Text(("a", "b"), 2), Text(("b", "c"), 2)
    once, twice = ["a", "b", "c"], ["a", "b", "a", "b", "c"]
    assert column("bigram", once, *texts) == [1.0, 1.0]
    assert column("bigram", twice, *texts) == [1.0, 0.5]  # (a, b) twice, (b, c) once
    assert column("title", once, *texts) == [1.0, 1.0]
    assert column("title", twice, *texts) == [1.0, 0.75]  # a, b, a, b against b, b, c
    assert column("window", twice, *texts) == column("window", once, *texts)
    assert column("pairs", twice, *texts) == column("pairs", once, *texts) == [1.0, 1.0]


@pytest.mark.parametrize("query", [[], ["z"], ["z", "z", "z"]], ids=["none", "unknown", "thrice"])
def test_queries_without_a_word_in_the_texts_leave_their_lengths(query: list[str]) -> None:
    found = found_features(query, [Text(("a", "b", "c", "c"), 1), Text((), 0)], EVEN)
    assert same(found, [[0.0] * 6, [*[0.0] * 5, math.log(1 / 5)]])


def test_a_word_that_is_new_in_a_fresh_text_counts_but_is_not_the_rarest() -> None:
    new, old = Text(("z", "z", "z", "z"), 1), Text(("a",) * 4, 0)
    assert same(found_features(["z", "z"], [new, old], EVEN), [[1, 1, 0, 0.3, 0, 0], [0] * 6])


def test_words_that_weigh_nothing_add_nothing() -> None:
    weightless = Statistics({"a": 0.0, "b": 0.0}, frozenset("ab"), 2.0, 1.0)
    found = found_features(["a", "b"], [Text(("a", "b"), 1)], weightless)
    assert found.tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]


spelled = st.sampled_from(["alpha", "bravo", "cargo", "drift"])  # words that are their own stems


@thorough(30, few=7)
@given(
    st.lists(st.lists(spelled, max_size=6).map(" ".join), min_size=1, max_size=6),
    st.lists(st.lists(spelled, max_size=3).map(" ".join), min_size=6, max_size=6),
    st.lists(st.one_of(spelled, st.just("nowher")), max_size=6),
)
def test_indexed_and_fresh_texts_get_the_features_of_their_words(
    bodies: list[str], titles: list[str], query: list[str]
) -> None:
    head = titles[: len(bodies)]
    full = [f"{t}\n{b}" if t else b for t, b in zip(head, bodies, strict=True)]
    texts = [Text(tuple(f.split()), len(t.split())) for f, t in zip(full, head, strict=True)]
    index = LexicalIndex.build((t.words for t in texts), [t.n_title for t in texts])
    n = len(texts)
    fresh = FreshSegment.empty(2).with_texts(
        np.arange(n), full, head, np.zeros((n, 2), dtype=np.float32)
    )
    words = QueryWords.of(
        query, [index.idf(w) for w in query], [w in index.vocabulary for w in query]
    )
    df = {w: sum(w in t.words for t in texts) for w in {*query, *index.vocabulary}}
    given_ = Statistics(
        {w: math.log(1 + (n - d + 0.5) / (d + 0.5)) for w, d in df.items()},
        frozenset(w for w, d in df.items() if d),
        sum(len(t.words) for t in texts) / n or 1.0,
        sum(t.n_title for t in texts) / n,
    )
    expected = slow_features(query, texts, given_)
    averages, at = (index.average_length, index.average_title_length), np.arange(n)
    built, added = index.texts_at(at), fresh.texts_at(at)
    for places, lengths, title_lengths in (
        (index.words_at(words.words, built), built.lengths, index.titles.astype(np.int64)),
        (fresh.words_at(words.words, added, index), added.lengths, fresh.title_lengths(at)),
    ):
        found = TextWords(places, lengths, title_lengths, *averages)
        rich = rich_features(words, found, no_pieces(n))
        assert same(rich[0], expected)


@pytest.mark.parametrize("seed", range(3))
def test_long_texts_equal_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = [*FEW, *"fghijklmno"]
    idf = dict(zip(words, rng.uniform(0.1, 9.0, len(words)).tolist(), strict=True))
    given_ = Statistics(idf, frozenset("abcd"), 300.0, 4.0)
    texts = [
        Text(tuple(rng.choice(words, n).tolist()), int(rng.integers(0, n + 1)))
        for n in rng.integers(0, 900, 8)
    ]
    assert same(
        found_features(list("abcade"), texts, given_), slow_features(list("abcade"), texts, given_)
    )


cosine = st.floats(-1, 1, width=32)
bm25 = st.one_of(st.just(0.0), st.floats(2**-10, 64, width=32))


@thorough(50, few=12)
@given(st.lists(st.tuples(cosine, bm25), max_size=20), bm25, st.floats(0, 0.9))
def test_cheap_features_equal_the_reference(
    rows: list[tuple[float, float]], more: float, c: float
) -> None:
    best = max([b for _, b in rows] + [more])
    columns = np.array(rows, dtype=np.float32).reshape(-1, 2)
    found = cheap_features(columns[:, 0], columns[:, 1], best, c)
    expected = [[(cos - c) / (1 - c), words / best if best else 0.0] for cos, words in rows]
    assert found.dtype == np.float32
    assert found.tolist() == [pytest.approx(row, rel=1e-6, abs=1e-5) for row in expected]


def test_names_of_features_are_cheap_then_rich() -> None:
    rich = ("bigram", "title", "rarest", "window", "pairs", "length", "pieces")
    assert ("dense", "bm25", *rich) == FEATURES == CHEAP + RICH


def test_candidates_that_were_not_looked_at_get_the_least_of_those_that_were() -> None:
    cheap = np.arange(8, dtype=np.float32).reshape(4, 2)
    rich = np.array([[0.5, 0, 1, 0, 3, 0, 1], [0.25, 0.5, 0.5, 1, 2, -1, 0]], dtype=np.float32)
    found = with_rich(cheap, np.array([1, 3]), rich)
    assert found[:, :2].tolist() == cheap.tolist()
    assert found[[1, 3], 2:].tolist() == rich.tolist()
    assert found[[0, 2], 2:].tolist() == [[0.25, 0.0, 0.5, 0.0, 2.0, -1.0, 0.0]] * 2


@thorough(50, few=12)
@given(st.integers(0, 12), st.data())
def test_imputation_fills_every_row(n: int, data: st.DataObject) -> None:
    pool = data.draw(st.lists(st.integers(0, n - 1), unique=True)) if n else []
    rng = np.random.default_rng(n)
    cheap = rng.standard_normal((n, len(CHEAP))).astype(np.float32)
    rich = rng.standard_normal((len(pool), len(RICH))).astype(np.float32)
    found = with_rich(cheap, np.array(pool, dtype=np.int64), rich)
    least = [min(column, default=0.0) for column in rich.T.tolist()]
    looked_at = dict(zip(pool, rich.tolist(), strict=True))
    assert found.tolist() == [[*cheap[i].tolist(), *looked_at.get(i, least)] for i in range(n)]
    assert found.dtype == np.dtype(np.float32)
