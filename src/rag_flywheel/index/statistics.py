"""What texts are scored by: how rare words and their n-grams are, and how long texts are.

A version has the statistics of its texts; before the first one, the texts that were added have their own.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.bm25 import idf_of
from rag_flywheel.index.char_ngrams import CharNgrams
from rag_flywheel.index.compounds import Compounds, parts_of
from rag_flywheel.index.languages import COMPOUNDING
from rag_flywheel.index.tokenizer import Tokenizer, is_character, words_of_query

Counts = npt.NDArray[np.integer[Any]]

MOST_PAIRS = 64  # pairs that stand for one character of a query


class WordStatistics(Protocol):
    """The statistics of some texts, and the words of queries under them."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Which the words are from."""

    @property
    def average_length(self) -> float:
        """Mean number of words in a text; 1.0 when there is no word at all."""

    @property
    def average_title_length(self) -> float:
        """Mean number of words in a title; 0.0 when there is none."""

    @property
    def average_ngrams(self) -> float:
        """Mean number of character n-grams in a text; 1.0 when there is none at all."""

    @property
    def n_distinct(self) -> int:
        """How many different texts there are, by their words."""

    def __len__(self) -> int: ...

    def query_words(self, text: str) -> list[str]:
        """The words of a query in order, with those that stand for the parts of a compound, and the
        pairs of the texts that stand for a single character."""

    def compounds_with(self, word: str) -> list[str]:
        """The words of the texts that are compounds with this one."""

    def knows(self, word: str) -> bool:
        """Whether any text has this word."""

    def idf(self, word: str) -> float:
        """Lucene's inverse document frequency of a word, also of one in no text."""

    def distinct_idf(self, word: str) -> float:
        """As `idf`, with equal texts counted once."""

    def ngram_idf(self, words: Sequence[str]) -> dict[str, float]:
        """idf of the known n-grams of a query's words, times how often the query has each."""


class VersionStatistics(ABC):
    """`WordStatistics` of texts that do not change, from how many of them have each word of a vocabulary."""

    vocabulary: Mapping[str, int]
    ngrams: CharNgrams  # of the words of the vocabulary
    compounds: Compounds  # of the words of the vocabulary
    tokenizer: Tokenizer  # that the words are from

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def df(self) -> Counts:
        """How many texts have each word, (n_words,)."""

    @property
    @abstractmethod
    def distinct_df(self) -> Counts | None:
        """How many different texts have each word, (n_words,); None: no two texts are equal."""

    @property
    @abstractmethod
    def n_distinct(self) -> int:
        """As in `WordStatistics`."""

    def query_words(self, text: str) -> list[str]:
        """As in `WordStatistics`."""
        return words_of_query(text, self.tokenizer, self._pairs, self._parts)

    def _pairs(self, sign: str) -> Sequence[str]:
        return self._pairs_of.get(sign, ())

    def _parts(self, word: str) -> Sequence[str]:
        if self.tokenizer.language not in COMPOUNDING:
            return ()
        return parts_of(word, self.vocabulary, self.tokenizer.stem)

    @cached_property
    def _pairs_of(self) -> Mapping[str, Sequence[str]]:
        """By character of a script without blanks, the pairs with it that most texts have."""
        found: dict[str, list[str]] = {}
        df = self.df
        for word in self.vocabulary:
            if len(word) == 2 and not word.isascii() and is_character(word[0]):
                for sign in set(word):
                    found.setdefault(sign, []).append(word)
        for sign, pairs in found.items():
            pairs.sort(key=lambda pair: (-df[self.vocabulary[pair]], pair))
            found[sign] = pairs[:MOST_PAIRS]
        return found

    def compounds_with(self, word: str) -> list[str]:
        """As in `WordStatistics`."""
        if not len(self.compounds.ids) or (number := self.vocabulary.get(word)) is None:
            return []
        return [self._words[i] for i in self.compounds.having(number).tolist()]

    @cached_property
    def _words(self) -> Sequence[str]:
        return list(self.vocabulary)

    def idf(self, word: str) -> float:
        """As in `WordStatistics`."""
        token = self.vocabulary.get(word)
        return idf_of(0 if token is None else int(self.df[token]), len(self))

    def distinct_idf(self, word: str) -> float:
        """As in `WordStatistics`."""
        df, token = self.distinct_df, self.vocabulary.get(word)
        if df is None:
            return self.idf(word)
        return idf_of(0 if token is None else int(df[token]), self.n_distinct)

    def knows(self, word: str) -> bool:
        """As in `WordStatistics`."""
        return word in self.vocabulary

    def ngram_idf(self, words: Sequence[str]) -> dict[str, float]:
        """As in `WordStatistics`."""
        return self.ngrams.of_query(words)
