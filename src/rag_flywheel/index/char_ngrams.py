"""Character n-grams: the four letters in a row by which a word matches compounds and misspellings.

It is given the words of a vocabulary and how many texts have each; it must not know texts.
"""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import all_below, all_within, divides, read_arrays, read_words, write_arrays
from rag_flywheel.index.spans import by_first_use, places_of, rows_at
from rag_flywheel.index.spare import SpareArrays

_LETTERS = 4
_LARGEST_SHORT = "\uffff"  # of the characters that take 16 bits
_as_16_bits = codecs.getencoder(
    "utf-16-le"
)  # found now: a process that gave up rights may not later
_AT_ONCE = 2_000  # texts
_NAMES = "pieces.json"
_ARRAYS = {
    "piece-offsets": "int32 words+1",
    "pieces": "int32 m",
    "piece-idf": "float64 pieces",
}
Ints = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]


def char_ngrams_of(word: str) -> list[str]:
    """The n-grams of a word with a blank before and after it: " cat", "cat "; a short one whole."""
    padded = f" {word} "
    return [padded[i : i + _LETTERS] for i in range(max(1, len(padded) - _LETTERS + 1))]


def ngram_key(ngram: str) -> int | str:
    """What stands for an n-gram: its characters as one number, if each takes 16 bits."""
    if max(ngram) > _LARGEST_SHORT:
        return ngram
    return int.from_bytes(_as_16_bits(ngram, "surrogatepass")[0], "little")


def ngram_keys(words: Sequence[str]) -> tuple[list[int | str], Places, Places]:
    """The distinct `ngram_key` of the n-grams of words; for each n-gram, one word after the other, the
    place of its key among them; and how many each word has."""
    every = "".join(f" {word} " for word in words)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    n_each = np.maximum(lengths + 3 - _LETTERS, 1)
    if max(every, default="") > _LARGEST_SHORT:
        place = dict[int | str, int]()
        spoken = (ngram_key(ngram) for word in words for ngram in char_ngrams_of(word))
        at = [place.setdefault(key, len(place)) for key in spoken]
        return list(place), np.array(at, dtype=np.int64), n_each
    signs = np.frombuffer(_as_16_bits(every, "surrogatepass")[0], np.uint16).astype(np.uint64)
    signs = np.append(signs, np.zeros(_LETTERS - 1, np.uint64))
    first = places_of(np.cumsum(lengths + 2) - lengths - 2, n_each)
    n_signs = np.repeat(np.minimum(lengths + 2, _LETTERS), n_each)
    keys = np.zeros(len(first), np.uint64)
    for i in range(_LETTERS):
        keys |= np.where(i < n_signs, signs[first + i] << np.uint64(16 * i), np.uint64(0))
    distinct, which = np.unique(keys, return_inverse=True)
    return distinct.tolist(), which, n_each


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
        every = [
            ngram for ngram in chain.from_iterable(map(char_ngrams_of, words)) if ngram in number
        ]
        idf = self.idf[[number[ngram] for ngram in every]].tolist() if every else []
        for ngram, own in zip(every, idf, strict=True):
            found[ngram] = found.get(ngram, 0.0) + own
        return found

    def counts(
        self, ngrams: Sequence[str], tokens: Ints, totals: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """How often each n-gram is in each text, (n, m).

        tokens: numbers of the texts' words, one text after the other; totals int64 (n,): how many n-grams
        each text has.
        """
        n, m, ends = len(totals), len(ngrams), totals.cumsum()
        every = rows_at(self.ids, self.offsets, tokens, int(ends[-1]) if n else 0)
        numbers = [self.number[ngram] for ngram in ngrams]
        with self._columns.borrowed() as column:
            column[numbers] = np.arange(m)
            place = column.take(every)
            column[numbers] = -1
        asked = (place >= 0).nonzero()[0]
        cells = ends.searchsorted(asked, side="right") * m + place.take(asked)
        return np.bincount(cells, minlength=n * m).reshape(n, m).astype(np.float64)

    @cached_property
    def _columns(self) -> SpareArrays:
        return SpareArrays(len(self.number), np.int32)

    def in_texts(self, tokens: Ints, offsets: Ints) -> Ints:
        """The number of n-grams in each text, (n,); text i has tokens[offsets[i]:offsets[i + 1]]."""
        parts, sizes = [], self._sizes
        for start in range(0, len(offsets) - 1, _AT_ONCE):
            ends = offsets[start : start + _AT_ONCE + 1]
            so_far = np.append(0, np.cumsum(sizes[tokens[ends[0] : ends[-1]]], dtype=np.int64))
            parts.append(np.diff(so_far[ends - ends[0]]).astype(np.int32))
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)

    @property
    def _sizes(self) -> Ints:
        """The number of n-grams in each word."""
        return np.diff(self.offsets)


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
    old_lengths = old._sizes[old_number[known]].astype(np.int64)
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
