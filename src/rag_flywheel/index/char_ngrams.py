"""Character n-grams: the four letters in a row by which a word matches compounds and misspellings.

It is given the words of a vocabulary and how many texts have each; it must not know texts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import all_below, all_within, divides, read_arrays, read_words, write_arrays
from rag_flywheel.index.spans import by_first_use, places_of
from rag_flywheel.index.spare import SpareArrays

_LETTERS = 4
_AT_ONCE = 2_000  # texts
_NAMES = "pieces.json"
_ARRAYS = {
    "piece-offsets": "int32 words+1",
    "pieces": "int32 m",
    "piece-idf": "float64 pieces",
}
Ints = npt.NDArray[np.int32]


def char_ngrams_of(word: str) -> list[str]:
    """The n-grams of a word with a blank before and after it: " cat", "cat "; a short one whole."""
    padded = f" {word} "
    return [padded[i : i + _LETTERS] for i in range(max(1, len(padded) - _LETTERS + 1))]


@dataclass(frozen=True, eq=False)
class CharNgrams:
    """The n-grams of the words of a vocabulary: word i has ids[offsets[i]:offsets[i + 1]].

    number: the number of each n-gram; idf float64: one for each n-gram.
    """

    number: Mapping[str, int]
    offsets: Ints
    ids: Ints
    idf: npt.NDArray[np.float64]

    @classmethod
    def build(
        cls,
        words: Iterable[str],
        n_with_word: npt.NDArray[np.int64],
        n_texts: int,
        before: "tuple[CharNgrams, Ints] | None" = None,
    ) -> "CharNgrams":
        """From the words in the order of their numbers, and how many of n_texts have each.

        before: the n-grams of another vocabulary, and the number in it of each of these words, -1: it is
        not there; only words that are not are taken apart. The result is the same without.

        An n-gram is estimated to be in n (1 - exp(-sum over its words of n_with_word / n)) of n texts,
        as if words came independently (a word that has it twice counts twice); idf is Lucene's.
        """
        if before is None:
            number, lengths, ids = _all_taken_apart(list(words))
        else:
            number, lengths, ids = _known_before(words, *before)
        share = np.repeat(n_with_word / max(n_texts, 1), lengths)
        expected = np.bincount(ids, share, minlength=len(number))
        n_with = n_texts * -np.expm1(-expected)
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
        return cls(number, offsets, ids, np.log(1.0 + (n_texts - n_with + 0.5) / (n_with + 0.5)))

    @classmethod
    def load(cls, folder: Path, *, n_words: int) -> "CharNgrams":
        """Read from a folder. Raises OSError or ValueError for damaged files."""
        names = read_words(folder / _NAMES, list[str])
        if len(set(names)) != len(names):
            raise ValueError(f"{_NAMES} names a piece twice")
        offsets, ids, idf = read_arrays(folder, _ARRAYS, words=n_words, pieces=len(names))
        if not divides(offsets, n_words, len(ids)):
            raise ValueError(f"piece-offsets.npy does not divide the pieces among {n_words} words")
        if not all_below(ids, len(names)):
            raise ValueError("pieces.npy names a piece that is not there")
        if not all_within(idf, 0.0, 100.0):
            raise ValueError("piece-idf.npy holds a number that is no idf")
        return cls({name: i for i, name in enumerate(names)}, offsets, ids, idf)

    def save(self, folder: Path) -> None:
        """Write into a folder, without pickle."""
        (folder / _NAMES).write_bytes(msgspec.json.encode(list(self.number)))
        write_arrays(folder, _ARRAYS, self.offsets, self.ids, self.idf)

    def of_query(self, words: Sequence[str]) -> dict[str, float]:
        """idf of the known n-grams of a query's words, times how often the query has each."""
        number, found = self.number, dict[str, float]()
        every = [ngram for word in words for ngram in char_ngrams_of(word) if ngram in number]
        idf = self.idf[[number[ngram] for ngram in every]].tolist() if every else []
        for ngram, own in zip(every, idf, strict=True):
            found[ngram] = found.get(ngram, 0.0) + own
        return found

    def counts(
        self, ngrams: Sequence[str], tokens: Ints, lengths: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """How often each n-gram is in each text, (n, m).

        tokens: numbers of the texts' words, one text after the other; lengths int64 (n,).
        """
        n, number = len(lengths), self.number
        numbers = np.array([number[ngram] for ngram in ngrams], dtype=np.int64)
        sharing = self._sharing(numbers.tolist(), tokens)
        words, which = self._distinct(tokens[sharing])
        text = lengths.cumsum().searchsorted(sharing, side="right")
        cells = np.bincount(text * len(words) + which, minlength=n * len(words))
        in_texts = cells.reshape(n, len(words)).astype(np.float32)  # exact up to 2**24
        return (in_texts @ self._in_words(words, numbers)).astype(np.float64)

    def _sharing(self, numbers: Sequence[int], tokens: Ints) -> npt.NDArray[np.int64]:
        """The places of tokens that have any of these n-grams."""
        words, starts = self._words_by_ngram
        parts = [words[starts[number] : starts[number + 1]] for number in numbers]
        if not parts:
            return np.empty(0, dtype=np.int64)
        having = np.concatenate(parts)
        with self._marks.borrowed() as mark:
            mark[having] = 0
            found: npt.NDArray[np.int64] = (mark[tokens] + 1).nonzero()[0]
            mark[having] = -1
        return found

    def _distinct(self, words: Ints) -> tuple[Ints, npt.NDArray[np.int64]]:
        """The distinct of these words, and which of them each is."""
        every = np.arange(len(words), dtype=np.int32)
        with self._places.borrowed() as place:
            place[words] = every
            last = place[words]
            place[words] = -1
        distinct = (last == every).nonzero()[0]
        number = np.empty(len(words), dtype=np.int64)
        number[distinct] = np.arange(len(distinct))
        return words[distinct], number[last]

    def _in_words(self, words: Ints, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """How often each of these n-grams is in each of these words, (n, m)."""
        m, many = len(numbers), self._sizes[words]
        ids = self.ids[places_of(self.offsets[words], many)]
        with self._columns.borrowed() as column:
            column[numbers] = np.arange(m)
            place = column[ids]
            column[numbers] = -1
        asked = (place >= 0).nonzero()[0]
        cells = np.arange(len(words)).repeat(many)[asked] * m + place[asked]
        found = np.bincount(cells, minlength=len(words) * m)
        return found.reshape(len(words), m).astype(np.float32)

    @cached_property
    def _marks(self) -> SpareArrays:
        return SpareArrays(len(self.offsets) - 1, np.int8)

    @cached_property
    def _places(self) -> SpareArrays:
        return SpareArrays(len(self.offsets) - 1, np.int32)

    @cached_property
    def _columns(self) -> SpareArrays:
        return SpareArrays(len(self.number), np.int32)

    def in_texts(self, tokens: Ints, offsets: Ints) -> Ints:
        """The number of n-grams in each text, (n,); text i has tokens[offsets[i]:offsets[i + 1]]."""
        parts = []
        for start in range(0, len(offsets) - 1, _AT_ONCE):
            ends = offsets[start : start + _AT_ONCE + 1]
            so_far = np.append(0, np.cumsum(self._sizes[tokens[ends[0] : ends[-1]]]))
            parts.append(np.diff(so_far[ends - ends[0]]).astype(np.int32))
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)

    @cached_property
    def _sizes(self) -> npt.NDArray[np.int64]:
        """The number of n-grams in each word."""
        return np.diff(self.offsets).astype(np.int64)

    @cached_property
    def _words_by_ngram(self) -> tuple[Ints, Ints]:
        """Words by n-gram: those with n-gram i are words[starts[i]:starts[i + 1]]."""
        from scipy import sparse

        shape = len(self.offsets) - 1, len(self.number)
        ones = np.ones(len(self.ids), dtype=np.int8)
        by_ngram = sparse.csr_array((ones, self.ids, self.offsets), shape=shape).tocsc()
        return by_ngram.indices.astype(np.int32), by_ngram.indptr.astype(np.int32)


def _all_taken_apart(
    words: Sequence[str],
) -> tuple[dict[str, int], npt.NDArray[np.int64], Ints]:
    """`_taken_apart` of all words at once, in a fraction of the time: an n-gram is a number of four digits,
    which are its characters."""
    text = "".join([f" {word} " for word in words])
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    characters = np.flatnonzero(np.bincount(codes))
    if len(characters) >= 2**16 - 1:
        return _taken_apart(words, {})
    digit = np.zeros(int(codes.max(initial=0)) + 1, dtype=np.uint64)
    digit[characters] = np.arange(1, len(characters) + 1)
    digits = np.append(digit[codes], np.zeros(2, np.uint64))
    sizes = np.fromiter(map(len, words), dtype=np.int64, count=len(words)) + 2
    lengths = np.maximum(sizes - (_LETTERS - 1), 1)
    at = places_of(np.cumsum(sizes) - sizes, lengths)
    third, last, size = digits[at + 2], digits[at + 3], np.repeat(sizes, lengths)
    third[size < 3], last[size < _LETTERS] = 0, 0  # short words have no more
    keys = digits[at] << 48 | digits[at + 1] << 32 | third << 16 | last
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    ends = at + np.minimum(size, _LETTERS)
    spans = zip(at[first[order]].tolist(), ends[first[order]].tolist(), strict=True)
    names = [text[start:end] for start, end in spans]
    return dict(zip(names, range(len(names)), strict=True)), lengths, place[which]


def _taken_apart(
    words: Iterable[str], number: dict[str, int]
) -> tuple[dict[str, int], npt.NDArray[np.int64], Ints]:
    """(the number of each n-gram, how many n-grams each word has, those of all words); a new n-gram is
    entered into `number`."""
    each = [[number.setdefault(g, len(number)) for g in char_ngrams_of(w)] for w in words]
    lengths = np.fromiter(map(len, each), dtype=np.int64, count=len(each))
    return number, lengths, np.fromiter(chain.from_iterable(each), dtype=np.int32)


def _known_before(
    words: Iterable[str], old: CharNgrams, old_number: Ints
) -> tuple[dict[str, int], npt.NDArray[np.int64], Ints]:
    """`_taken_apart` of words most of which another vocabulary has under these numbers, -1: it lacks it."""
    known = old_number >= 0
    new = [word for word, there in zip(words, known.tolist(), strict=True) if not there]
    number, new_lengths, new_ids = _taken_apart(new, dict(old.number))
    old_lengths = old._sizes[old_number[known]]
    lengths = np.empty(len(known), dtype=np.int64)
    lengths[known], lengths[~known] = old_lengths, new_lengths
    starts = np.cumsum(lengths) - lengths
    ids = np.empty(int(lengths.sum()), dtype=np.int32)
    old_ids = old.ids[places_of(old.offsets[old_number[known]], old_lengths)]
    ids[places_of(starts[known], old_lengths)] = old_ids
    ids[places_of(starts[~known], new_lengths)] = new_ids
    order, ids = by_first_use(ids, len(number))
    names = list(number)
    return {names[i]: place for place, i in enumerate(order.tolist())}, lengths, ids
