"""The fresh segment: texts that were added after the live version was built.

They are scored with the word statistics of the version, or, before the first one, with their own. Texts
are added to arrays that grow; those that are removed stay in them, marked, until they are many. It must
not know the store.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.bm25 import K1, B, LexicalScores
from rag_flywheel.index.engine import ReadTexts
from rag_flywheel.index.exact import typical_of_sum
from rag_flywheel.index.fresh_statistics import FreshStatistics
from rag_flywheel.index.growing import GrowingArray, GrowingRows
from rag_flywheel.index.positions import find_pids
from rag_flywheel.index.postings import Found, Ints, Postings
from rag_flywheel.index.statistics import WordStatistics
from rag_flywheel.index.texts import Texts
from rag_flywheel.index.tokenizer import TokenIds, Tokenizer, tokenizer_of
from rag_flywheel.index.word_list import WordList
from rag_flywheel.records import ENGLISH, Pids, Vectors

_AT_ONCE = 8_192  # texts that are moved
_FEW = 16  # numbers that are looked for one by one
_KEPT = 256  # removed texts that stay in the arrays, and a third of all beyond


class _Room:
    """What successive segments share, a text an entry; each reads below its own length.

    titles: how many words of each text are its title; ngrams: how many character n-grams it has; words,
    vectors_hash: hashes of its words and its vector; repeats: whether an earlier text has the same words.
    """

    def __init__(self, dim: int) -> None:
        self.pids = GrowingArray(np.int64)
        self.titles = GrowingArray(np.int32)
        self.ngrams = GrowingArray(np.int64)
        self.words = GrowingArray(np.int64)
        self.repeats = GrowingArray(np.bool_)
        self.hashes = GrowingArray(np.int64)
        self.vectors = GrowingRows(dim)
        self.seen = set[int]()


@dataclass(frozen=True)
class _Sum:
    """The sum of distinct vectors, float64 (dim,), and how many they are."""

    total: npt.NDArray[np.float64]
    n: int


@dataclass(frozen=True, eq=False)
class FreshSegment:
    """Texts by ascending pid, each with its vector and its words by a tokenizer.

    present: which texts were not removed, bool (n,); texts: of words, a text a row. A segment never
    changes; one writer at a time makes the next.
    """

    tokenizer: Tokenizer
    present: npt.NDArray[np.bool_]
    texts: Postings
    words: WordList
    _distinct: _Sum
    _room: _Room

    @classmethod
    def empty(cls, dim: int, tokenizer: Tokenizer | None = None) -> "FreshSegment":
        """No texts; tokenizer: of those to come, None: that of English."""
        tokenizer = tokenizer or tokenizer_of(ENGLISH)
        return cls._of(WordList.empty(tokenizer), tokenizer, dim)

    @classmethod
    def _of(cls, words: WordList, tokenizer: Tokenizer, dim: int) -> "FreshSegment":
        none, nothing = np.empty(0, dtype=np.bool_), _Sum(np.zeros(dim), 0)
        return cls(tokenizer, none, Postings.empty(), words, nothing, _Room(dim))

    def with_texts(
        self, pids: Pids, texts: Sequence[str], titles: Sequence[str], vectors: Vectors
    ) -> "FreshSegment":
        """A segment with these texts added, which begin with their titles; their pids are above
        all others."""
        if not self._is_newest:  # another segment went on from this one
            return self._moved(self.present).with_texts(pids, texts, titles, vectors)
        spoken = list(zip(titles, texts, strict=True))
        words, (tokens, lengths, n_titles) = self.words.numbered(spoken)
        return replace(self, words=words)._with(pids, tokens, lengths, n_titles, vectors)

    @property
    def _is_newest(self) -> bool:
        room, n = self._room, len(self.present)
        return room.pids.n == room.vectors.n == n and self.words.is_newest

    def _with(
        self, pids: Pids, tokens: TokenIds, lengths: TokenIds, titles: TokenIds, vectors: Vectors
    ) -> "FreshSegment":
        """A segment with texts added that are given as their words, numbered in the list of this one."""
        room, ends = self._room, np.cumsum(lengths)
        sizes = np.append(0, np.cumsum(self.words.ngrams.lengths()[tokens]))
        texts = self.texts.with_rows(tokens, lengths.astype(np.int64))
        data, at = tokens.tobytes(), (ends * tokens.itemsize).tolist()
        said = [hash(data[a:b]) for a, b in zip([0, *at], at, strict=False)]
        hashes = np.array([hash(row.tobytes()) for row in vectors], dtype=np.int64)
        distinct = self._sum_with(hashes, vectors)
        repeats = list[bool]()
        for text in said:
            repeats.append(text in room.seen)
            room.seen.add(text)
        room.repeats.append(repeats)
        room.words.append(np.array(said, dtype=np.int64))
        room.hashes.append(hashes)
        room.titles.append(titles)
        room.ngrams.append(sizes[ends] - sizes[ends - lengths])
        room.vectors.append(vectors)
        room.pids.append(pids)
        present = np.append(self.present, np.ones(len(pids), dtype=np.bool_))
        return replace(self, present=present, texts=texts, _distinct=distinct)

    def _sum_with(self, hashes: Ints, vectors: Vectors) -> _Sum:
        known = self._room.hashes.first(len(self.present))[self.present]
        _, first = np.unique(hashes, return_index=True)
        new = first[~_among(hashes[first], known)]
        total = self._distinct.total + vectors[new].sum(axis=0, dtype=np.float64)
        return _Sum(total, self._distinct.n + len(new))

    def without(self, pids: Pids) -> "FreshSegment":
        """A segment without these texts."""
        at, there = find_pids(np.unique(pids), self.pids)
        gone = at[there][self.present[at[there]]]
        if not len(gone):
            return self
        present = self.present.copy()
        present[gone] = False
        found = replace(self, present=present, _distinct=self._sum_without(gone, present))
        n_gone = len(present) - int(np.count_nonzero(present))
        return found._moved(present) if n_gone > max(_KEPT, len(present) // 3) else found

    def _sum_without(self, gone: Ints, present: npt.NDArray[np.bool_]) -> _Sum:
        hashes = self._room.hashes.first(len(present))
        left, first = np.unique(hashes[gone], return_index=True)
        last = gone[first[~_among(left, hashes[present])]]  # no other text has their vectors
        total = self._distinct.total - self._room.vectors.at(last).sum(axis=0, dtype=np.float64)
        return _Sum(total, self._distinct.n - len(last))

    def _moved(self, stays: npt.NDArray[np.bool_]) -> "FreshSegment":
        """The texts that stay in a room of their own."""
        rows, room = np.flatnonzero(stays), self._room
        tokens, _ = self.texts.at(rows)
        used = np.flatnonzero(np.bincount(tokens, minlength=len(self.words)))
        number = np.zeros(len(self.words), dtype=np.int32)
        number[used] = np.arange(len(used))
        names = self.words.names()
        words = WordList.of((names[i] for i in used.tolist()), self.tokenizer)
        found = self._of(words, self.tokenizer, self.dim)
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            tokens, lengths = self.texts.at(part)
            titles = room.titles.first(len(stays))[part]
            own = number[tokens], lengths.astype(np.int32), titles, room.vectors.at(part)
            found = found._with(self.pids[part], *own)
        return found

    def __len__(self) -> int:
        return int(np.count_nonzero(self.present))

    @property
    def pids(self) -> Pids:
        """Ascending pids int64 (n,), with those of texts that were removed."""
        pids: Pids = self._room.pids.first(len(self.present))
        return pids

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self._room.vectors.dim

    def cosines(self, query: Vectors) -> Vectors:
        """float32 (n,): of every text with a query vector float32 (dim,)."""
        return self._room.vectors.products(query, len(self.present))

    def vectors_at(self, positions: Ints) -> Vectors:
        """float32 (m, dim): the vectors of the texts at these positions."""
        return self._room.vectors.at(positions)

    @property
    def typical_cosine(self) -> float:
        """The mean cosine of two of these texts."""
        return typical_of_sum(self._distinct.total, self._distinct.n)

    @cached_property
    def statistics(self) -> FreshStatistics:
        """The word statistics of these texts themselves, for an index without a version."""
        n, room = len(self.present), self._room
        firsts = None
        if room.repeats.first(n).any():
            _, first = np.unique(room.words.first(n)[self.present], return_index=True)
            firsts = np.zeros(n, dtype=np.bool_)
            firsts[np.flatnonzero(self.present)[first]] = True
        title_lengths, n_ngrams = room.titles.first(n), room.ngrams.first(n)
        return FreshStatistics(
            self.tokenizer, self.present, firsts, self.texts, self.words, title_lengths, n_ngrams
        )

    def lexical_scores(self, words: Sequence[str], statistics: WordStatistics) -> LexicalScores:
        """float32 (n,): BM25 of every text under the given statistics."""
        n, asked = len(self.present), Counter(words)
        if not n or not asked:
            return np.zeros(n, dtype=np.float32)
        found = self._frequencies(list(asked), statistics)
        idf = np.array([statistics.idf(word) * times for word, times in asked.items()])
        lengths = self.texts.lengths()[found.row]
        norms = K1 * (1.0 - B + B * lengths / statistics.average_length)
        worth = idf[found.which] * found.count / (found.count + norms)
        return np.bincount(found.row, worth, minlength=n).astype(np.float32)

    def _frequencies(self, words: Sequence[str], statistics: WordStatistics) -> Found:
        """How often each of these distinct words, or a compound with it, is in the texts."""
        own = [self._numbers_of(word, statistics) for word in words]
        each = [number for numbers in own for number in numbers.elements()]
        if len(set(each)) == len(each) == sum(map(bool, own)):  # no word is counted for another one
            found = self.texts.having(each)
            which = np.array([i for i, numbers in enumerate(own) if numbers], dtype=np.int64)
            return Found(which[found.which], found.row, found.count)
        parts: list[tuple[Ints, Ints, Ints]] = []
        for i, numbers in enumerate(own):
            found = self.texts.having(list(numbers))
            times = np.array(list(numbers.values()), dtype=np.int64)
            row, place = np.unique(found.row, return_inverse=True)
            count = np.bincount(place, found.count * times[found.which], minlength=len(row))
            parts.append((np.full(len(row), i, dtype=np.int64), row, count.astype(np.int64)))
        return Found(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _numbers_of(self, word: str, statistics: WordStatistics) -> Counter[int]:
        """The numbers of a word and of the compounds with it, and how often each has it."""
        known = map(self.words.number_of, (word, *statistics.compounds_with(word)))
        return Counter(number for number in known if number is not None)

    def having_all(self, words: Sequence[str]) -> Ints:
        """Positions of the texts that have each of these words, ascending; none of no words."""
        numbers = [self.words.number_of(word) for word in dict.fromkeys(words)]
        known = [number for number in numbers if number is not None]
        if not known or len(known) < len(numbers):
            return np.empty(0, dtype=np.int64)
        found = self.texts.having(known)
        n_words = np.bincount(found.row, minlength=len(self.present))
        return np.flatnonzero((n_words == len(known)) & self.present)

    def texts_at(self, positions: Ints) -> Texts:
        """The texts at these positions, as their words."""
        return Texts(positions, *self.texts.at(positions))

    def words_at(
        self, words: Sequence[str], texts: Texts, statistics: WordStatistics
    ) -> npt.NDArray[np.int16]:
        """Where distinct words occur in texts, as in `LexicalIndex`."""
        place = np.full(len(self.words), -1, dtype=np.int16)
        for i, word in enumerate(words):
            for compound in statistics.compounds_with(word):
                if (number := self.words.number_of(compound)) is not None:
                    place[number] = i
        for i, word in enumerate(words):
            if (number := self.words.number_of(word)) is not None:
                place[number] = i
        found: npt.NDArray[np.int16] = place[texts.tokens]
        return found

    def ngrams_at(
        self, ngrams: Sequence[str], texts: Texts
    ) -> tuple[npt.NDArray[np.float64], Ints]:
        """How often each n-gram is in each of these texts, as in `LexicalIndex`."""
        tokens, lengths, positions = texts.tokens, texts.lengths, texts.positions
        asked, numbers = self.words.ngrams_numbered(ngrams)
        found = self.words.ngrams.having(numbers.tolist())
        sharing = np.zeros(len(self.words), dtype=np.bool_)
        sharing[found.row] = True
        hits = np.flatnonzero(sharing[tokens])
        words, which = np.unique(tokens[hits], return_inverse=True)
        text = np.searchsorted(np.cumsum(lengths), hits, side="right")
        n, m = len(positions), len(words)
        in_texts = np.bincount(text * m + which, minlength=n * m).reshape(n, m)
        row = np.full(len(self.words), -1, dtype=np.int64)
        row[words] = np.arange(m)
        here = row[found.row] >= 0
        in_words = np.zeros((m, len(ngrams)))
        in_words[row[found.row[here]], asked[found.which[here]]] = found.count[here]
        totals = self._room.ngrams.first(len(self.present))[positions]
        return in_texts.astype(np.float64) @ in_words, totals

    def read(
        self,
        positions: Ints,
        words: Sequence[str],
        ngrams: Sequence[str],
        statistics: WordStatistics,
    ) -> ReadTexts:
        """The texts at these positions as the distinct words of a query, and these n-grams, need them."""
        texts = self.texts_at(positions)
        places, titles = self.words_at(words, texts, statistics), self.title_lengths(positions)
        return ReadTexts(places, texts.lengths, titles, *self.ngrams_at(ngrams, texts))

    def title_lengths(self, positions: Ints) -> Ints:
        """How many words of each of these texts are its title."""
        return self._room.titles.first(len(self.present))[positions].astype(np.int64)


def _among(some: Ints, others: Ints) -> npt.NDArray[np.bool_]:
    """Which of these numbers are among others, in no order."""
    if len(some) > _FEW:
        return np.isin(some, others)
    return np.array([(others == number).any() for number in some], dtype=np.bool_)
