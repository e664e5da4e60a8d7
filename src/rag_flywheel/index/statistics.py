"""What texts are scored by: how rare words and their n-grams are, and how long texts are.

A version has the statistics of its texts; before the first one, the texts that were added have their own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rag_flywheel.index.tokenizer import Tokenizer

MOST_PAIRS = 64  # pairs that stand for one character of a query


class WordStatistics(Protocol):
    """The statistics of some texts, and the words of queries under them."""

    @property
    def tokenizer(self) -> "Tokenizer":
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
