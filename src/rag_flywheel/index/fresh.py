"""The fresh segment: texts that were added after the live version was built.

They are scored one by one with the word statistics of the version. It must not know the store.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.bm25 import LexicalScores
from rag_flywheel.index.char_ngrams import char_ngrams_of
from rag_flywheel.index.exact import distinct_rows, typical_cosine
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.index.tokenizer import Tokenizer, tokenizer_of
from rag_flywheel.records import ENGLISH, Pids, Vectors


@dataclass(frozen=True)
class FreshText:
    """A text as its words in order, the first n_title of them its title, and their counts."""

    words: tuple[str, ...]
    n_title: int
    counts: Counter[str]

    @cached_property
    def ngrams(self) -> Counter[str]:
        """How often each character n-gram is in the words."""
        found: Counter[str] = Counter()
        for word, n in self.counts.items():
            for ngram in char_ngrams_of(word):
                found[ngram] += n
        return found


@dataclass(frozen=True)
class FreshSegment:
    """Texts by ascending pid: their vectors float32 (n, dim), and their words by a tokenizer."""

    pids: Pids
    vectors: Vectors
    texts: tuple[FreshText, ...]
    tokenizer: Tokenizer

    @classmethod
    def empty(cls, dim: int, tokenizer: Tokenizer | None = None) -> "FreshSegment":
        """No texts; tokenizer: of those to come, None: that of English."""
        tokenizer = tokenizer or tokenizer_of(ENGLISH)
        return cls(np.empty(0, np.int64), np.empty((0, dim), np.float32), (), tokenizer)

    def with_texts(
        self, pids: Pids, texts: Sequence[str], titles: Sequence[str], vectors: Vectors
    ) -> "FreshSegment":
        """A segment with these texts added, which begin with their titles; their pids are above
        all others."""
        tokenize = self.tokenizer.tokenize
        split = [tuple(tokenize(text)) for text in texts]
        added = (
            FreshText(words, len(tokenize(title)), Counter(words))
            for words, title in zip(split, titles, strict=True)
        )
        return FreshSegment(
            np.concatenate([self.pids, pids]),
            np.concatenate([self.vectors, vectors]),
            (*self.texts, *added),
            self.tokenizer,
        )

    def without(self, pids: Pids) -> "FreshSegment":
        """A segment without these texts."""
        stays = ~np.isin(self.pids, pids)
        texts = tuple(self.texts[i] for i in np.flatnonzero(stays))
        return FreshSegment(self.pids[stays], self.vectors[stays], texts, self.tokenizer)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self.vectors.shape[1])

    @cached_property
    def typical_cosine(self) -> float:
        """The mean cosine of two of these texts."""
        return typical_cosine(distinct_rows(self.vectors))

    def statistics(self) -> LexicalIndex:
        """The word statistics of these texts themselves, for an index without a version."""
        titles = [t.n_title for t in self.texts]
        return LexicalIndex.build((t.words for t in self.texts), titles, self.tokenizer)

    def lexical_scores(self, words: Sequence[str], statistics: LexicalIndex) -> LexicalScores:
        """float32 (n,): BM25 of every text under the given statistics."""
        if not self.texts:
            return np.zeros(0, dtype=np.float32)
        counts, lengths = [t.counts for t in self.texts], [len(t.words) for t in self.texts]
        return statistics.score_unindexed(words, counts, lengths)

    def having_all(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """Positions of the texts that have each of these words, ascending; none of no words."""
        wanted = set(words)
        found = [i for i, text in enumerate(self.texts) if wanted and wanted <= text.counts.keys()]
        return np.array(found, dtype=np.int64)

    def words_at(
        self, words: Sequence[str], positions: npt.NDArray[np.int64], statistics: LexicalIndex
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where distinct words occur in the texts at these positions, as in `LexicalIndex`."""
        number = {c: i for i, word in enumerate(words) for c in statistics.compounds_with(word)}
        number |= {word: i for i, word in enumerate(words)}
        found = [self.texts[i].words for i in positions.tolist()]
        places = [number.get(word, -1) for text in found for word in text]
        return np.array(places, dtype=np.int64), np.array([len(t) for t in found], dtype=np.int64)

    def ngrams_at(
        self, ngrams: Sequence[str], positions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """How often each n-gram is in each of these texts, as in `LexicalIndex`."""
        found = [self.texts[i].ngrams for i in positions.tolist()]
        tf = np.array([[counts[ngram] for ngram in ngrams] for counts in found], dtype=np.float64)
        totals = np.array([sum(counts.values()) for counts in found], dtype=np.int64)
        return tf.reshape(len(found), len(ngrams)), totals

    def title_lengths(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many words of each of these texts are its title."""
        return np.array([self.texts[i].n_title for i in positions.tolist()], dtype=np.int64)
