"""Texts that are brought in beside those that a query's features were worked out for."""

import numpy as np
import pytest

from rag_flywheel.index.lexical import LexicalIndex, tokenize
from rag_flywheel.rank.features import RICH, Best, QueryWords, TextNgrams, TextWords, rich_features
from rag_flywheel.records import Features

TEXTS = (
    "red apple pie with cream",
    "apple and red wine, apple juice and a red pie",
    "cream of the crop; nothing else",
    "pie red apple red apple red apple pie red apple",
    "a long text on something else, with an apple near its very end and much red in it",
)
QUERY = "red apple pie"
INDEX = LexicalIndex.build([tokenize(text) for text in TEXTS], [1, 0, 0, 2, 3])
NAMES = ("bigram", "title", "pairs", "pieces")
SHARES = [RICH.index(name) for name in NAMES]


def features(at: list[int], best: Best | None = None) -> tuple[Features, Best]:
    words = tokenize(QUERY)
    query = QueryWords.of(words, [INDEX.idf(w) for w in words], [True] * len(words))
    positions = np.array(at, dtype=np.int64)
    texts = INDEX.texts_at(positions)
    places = INDEX.words_at(query.words, texts)
    titles = INDEX.titles[positions].astype(np.int64)
    averages = INDEX.average_length, INDEX.average_title_length
    idf = INDEX.ngrams.of_query(words)
    counts, totals = INDEX.ngrams_at(list(idf), texts)
    ngrams = TextNgrams(counts, np.array(list(idf.values())), totals, INDEX.average_ngrams)
    return rich_features(query, TextWords(places, texts.lengths, titles, *averages), ngrams, best)


@pytest.mark.parametrize("brought", [[3], [0, 4], [2], [1, 2, 3]])
def test_they_are_compared_with_the_best_of_the_others_and_are_level_at_most(
    brought: list[int],
) -> None:
    others = [i for i in range(len(TEXTS)) if i not in brought]
    _, best = features(others)
    found, same = features(brought, best)
    assert same is best
    whole, top = features(list(range(len(TEXTS))))
    scale = np.ones(len(RICH))
    for column, name in zip(SHARES, NAMES, strict=True):
        scale[column] = getattr(top, name) / getattr(best, name) if getattr(best, name) else 1e9
    expected = whole[brought] * scale
    expected[:, SHARES] = np.minimum(expected[:, SHARES], 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_one_text_is_level_with_itself_and_any_word_beats_none() -> None:
    alone, best = features([0])
    assert alone[0, SHARES].tolist() == [1.0, 1.0, 1.0, 1.0]
    nothing = Best(0.0, 0.0, 0.0, 0.0)
    assert features([2])[1] == nothing
    assert features([0], nothing)[0][0, SHARES].tolist() == [1.0, 1.0, 1.0, 1.0]
    assert features([2], best)[0][0, SHARES].tolist() == [0.0, 0.0, 0.0, 0.0]
