"""The word statistics of texts that are added and removed all the time: counted when they are asked for,
from arrays that are not built anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.bm25 import idf_of
from rag_flywheel.index.char_ngrams import char_ngrams_of
from rag_flywheel.index.compounds import parts_of
from rag_flywheel.index.languages import COMPOUNDING
from rag_flywheel.index.postings import Ints, Postings, n_rows_with
from rag_flywheel.index.statistics import MOST_PAIRS
from rag_flywheel.index.tokenizer import Tokenizer, words_of_query
from rag_flywheel.index.word_list import WordList

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FreshStatistics:
    """`WordStatistics` of the texts that are present, bool (n,).

    firsts: which of them are the first with their words, (n,), None: no two are equal; texts: of words, a
    text a row; title_lengths, n_ngrams (n,): words of each title, character n-grams of each text.
    """

    tokenizer: Tokenizer
    present: Mask
    firsts: Mask | None
    texts: Postings
    words: WordList
    title_lengths: npt.NDArray[np.int32]
    n_ngrams: Ints

    def __len__(self) -> int:
        return self._n

    @cached_property
    def _n(self) -> int:
        return int(np.count_nonzero(self.present))

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self.knows(word)

    @cached_property
    def average_length(self) -> float:
        """As in `WordStatistics`."""
        n_words = int(self.texts.lengths()[self.present].sum())
        return n_words / self._n if n_words else 1.0

    @cached_property
    def average_title_length(self) -> float:
        """As in `WordStatistics`."""
        return float(self.title_lengths[self.present].mean()) if self._n else 0.0

    @cached_property
    def average_ngrams(self) -> float:
        """As in `WordStatistics`."""
        n_ngrams = int(self.n_ngrams[self.present].sum())
        return n_ngrams / self._n if n_ngrams else 1.0

    @property
    def n_distinct(self) -> int:
        """As in `WordStatistics`."""
        return self._n if self.firsts is None else int(np.count_nonzero(self.firsts))

    def query_words(self, text: str) -> list[str]:
        """As in `WordStatistics`."""
        return words_of_query(text, self.tokenizer, self._pairs_of, self._parts_of)

    def _parts_of(self, word: str) -> Sequence[str]:
        if self.tokenizer.language not in COMPOUNDING:
            return ()
        return parts_of(word, self, self.tokenizer.stem)

    def _pairs_of(self, sign: str) -> list[str]:
        pairs = ((self._plain_df[i], self.words.name(i)) for i in self.words.pairs_with(sign))
        return [pair for df, pair in sorted(pairs, key=lambda each: (-each[0], each[1])) if df][
            :MOST_PAIRS
        ]

    def compounds_with(self, word: str) -> list[str]:
        """As in `WordStatistics`."""
        return list(self._compounds.get(word, ()))

    @cached_property
    def _compounds(self) -> Mapping[str, Sequence[str]]:
        """By word, the compounds with it; one that has it twice comes twice."""
        found: dict[str, list[str]] = {}
        if self.tokenizer.language in COMPOUNDING:
            known = {name for name in self.words.names() if self.knows(name)}
            for name in self.words.names():
                if name in known:
                    for part in parts_of(name, known, self.tokenizer.stem):
                        found.setdefault(part, []).append(name)
        return found

    def knows(self, word: str) -> bool:
        """As in `WordStatistics`."""
        number = self.words.number_of(word)
        return number is not None and bool(self._plain_df[number])

    def idf(self, word: str) -> float:
        """As in `WordStatistics`."""
        number = self.words.number_of(word)
        return idf_of(0 if number is None else int(self._df[number]), self._n)

    def distinct_idf(self, word: str) -> float:
        """As in `WordStatistics`."""
        if self.firsts is None:
            return self.idf(word)
        return idf_of(int(np.count_nonzero(self.firsts[self._having(word)])), self.n_distinct)

    def _having(self, word: str) -> Ints:
        """Positions of the texts that have a word or a compound with it, removed ones among them."""
        every = dict.fromkeys((word, *self.compounds_with(word)))
        numbers = [number for each in every if (number := self.words.number_of(each)) is not None]
        found = self.texts.having(numbers).row
        return np.unique(found) if len(numbers) > 1 else found

    @cached_property
    def _plain_df(self) -> Ints:
        """How many of the texts have each word, (n_words,)."""
        df, gone = self.texts.n_rows_with(len(self.words)), np.flatnonzero(~self.present)
        return df - n_rows_with(*self.texts.at(gone), len(self.words)) if len(gone) else df

    @cached_property
    def _df(self) -> Ints:
        """As `_plain_df`, where a text with a compound has its parts as well."""
        if not self._compounds:
            return self._plain_df
        df = self._plain_df.copy()
        for word in self._compounds:
            number = self.words.number_of(word)
            assert number is not None
            df[number] = np.count_nonzero(self.present[self._having(word)])
        return df

    def ngram_idf(self, words: Sequence[str]) -> dict[str, float]:
        """As in `WordStatistics`; how many texts have an n-gram is estimated as in `CharNgrams`."""
        spoken = [ngram for word in words for ngram in char_ngrams_of(word)]
        distinct = list(dict.fromkeys(spoken))
        asked, numbers = self.words.ngrams_numbered(distinct)
        found, n = self.words.ngrams.having(numbers.tolist()), self._n
        share = found.count * self._df[found.row] / max(n, 1)
        expected = np.zeros(len(distinct))
        expected[asked] = np.bincount(found.which, share, minlength=len(asked))
        n_with = n * -np.expm1(-expected)
        idf = np.log(1.0 + (n - n_with + 0.5) / (n_with + 0.5)).tolist()
        of = {ngram: idf[i] for i, ngram in enumerate(distinct) if expected[i] > 0.0}
        total: dict[str, float] = {}
        for ngram in spoken:
            if ngram in of:
                total[ngram] = total.get(ngram, 0.0) + of[ngram]
        return total
