"""What the engine in memory finds, scores and reads, against sums over plain lists of words."""

import math
from collections import Counter

import numpy as np
import pytest

from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.engine import Engine, Question
from rag_flywheel.index.in_memory import InMemory, highest
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.index.part import Part

RNG = np.random.default_rng(11)
WORDS = [f"w{i}" for i in range(40)]
TEXTS = [RNG.choice(WORDS, size=int(n)).tolist() for n in RNG.integers(0, 12, size=200)]
PIDS = np.cumsum(RNG.integers(1, 5, size=len(TEXTS))).astype(np.int64)
ROWS = RNG.normal(size=(len(TEXTS), 8)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
ENGINE: Engine = InMemory(DenseIndex.build(PIDS, ROWS), LexicalIndex.build(TEXTS))
QUESTION = Question(ROWS[3] * np.float32(1.0), ["w1", "w7", "w1", "nowhere"])


def bm25(words: list[str], text: list[str]) -> float:
    """Lucene's BM25, a word of the query at a time."""
    average, total = sum(map(len, TEXTS)) / len(TEXTS), 0.0
    for word in words:
        df, tf = sum(word in other for other in TEXTS), Counter(text)[word]
        idf = math.log(1 + (len(TEXTS) - df + 0.5) / (df + 0.5))
        total += idf * tf / (tf + 1.2 * (0.25 + 0.75 * len(text) / average))
    return total


@pytest.mark.parametrize("share", [None, 0.5, 0.02, 0.0])
def test_both_kinds_of_candidates_come_with_both_scores(share: float | None) -> None:
    mask = np.ones(len(TEXTS), dtype=bool) if share is None else RNG.random(len(TEXTS)) < share
    words = [bm25(list(QUESTION.words), text) if mask[i] else 0.0 for i, text in enumerate(TEXTS)]
    cosines = np.where(mask, ROWS @ QUESTION.vector, -2.0)
    near = [i for i in np.argsort(-cosines)[:10].tolist() if mask[i]]
    best = [i for i in np.argsort(-np.array(words), kind="stable")[:10].tolist() if words[i] > 0]
    (found,) = ENGINE.find([QUESTION], 10, None if share is None else Part.of(mask))
    assert set(near) <= set(found.positions.tolist())
    assert len(found.positions) <= len(near) + len(best)
    assert found.positions.tolist() == sorted(set(found.positions.tolist()))
    assert mask[found.positions].all()
    least = min((words[i] for i in best), default=0.0)
    assert sum(words[i] >= least - 1e-6 for i in found.positions) >= len(best)
    expected = [words[i] for i in found.positions]
    assert found.scores.bm25.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.scores.cosines == pytest.approx(cosines[found.positions], abs=1e-6)


def test_texts_that_are_named_have_the_scores_they_are_found_with() -> None:
    (found,) = ENGINE.find([QUESTION], 30, None)
    scores = ENGINE.score(QUESTION, found.positions)
    assert np.array_equal(scores.bm25, found.scores.bm25)
    assert scores.cosines == pytest.approx(found.scores.cosines, abs=1e-6)


def test_texts_are_read_as_the_words_of_a_query() -> None:
    at = np.array([0, 3, 199])
    read = ENGINE.read(at, ["w7", "w1"], [" w1 "])
    expected = [{"w7": 0, "w1": 1}.get(word, -1) for i in at for word in TEXTS[i]]
    assert read.places.tolist() == expected
    assert read.lengths.tolist() == [len(TEXTS[i]) for i in at]
    assert read.ngrams.tolist() == [[TEXTS[i].count("w1")] for i in at]


def test_the_highest_scores_are_those_of_a_sort() -> None:
    scores = np.maximum(RNG.normal(size=5_000), 0).astype(np.float32)
    assert sorted(highest(scores, 17).tolist()) == sorted(np.argsort(-scores)[:17].tolist())
    assert len(highest(np.zeros(50, dtype=np.float32), 5)) == 0
