"""Splits compounds, such as German "Wohnungsschlüssel", into words that a collection has.

It is given a vocabulary of stems, and must not know texts or scores.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import all_below, divides

Ints = npt.NDArray[np.int32]
_LEAST_PART, _LEAST_WORD, _LONGEST_WORD = 4, 8, 48  # letters
_LINKS = ("", "s", "es", "en", "n", "e", "er")  # between parts
_MOST_PARTS = 4


@dataclass(frozen=True, eq=False)
class Compounds:
    """The parts of the words of a vocabulary: word i has ids[offsets[i]:offsets[i + 1]]; int32."""

    offsets: Ints
    ids: Ints

    @classmethod
    def of(cls, vocabulary: Mapping[str, int], stem: Callable[[str], str]) -> "Compounds":
        """Split each word of a vocabulary, in the order of its numbers, into others of it."""
        each = [[vocabulary[part] for part in parts_of(w, vocabulary, stem)] for w in vocabulary]
        offsets = np.append(0, np.cumsum(np.fromiter(map(len, each), np.int64, count=len(each))))
        ids = np.array([i for parts in each for i in parts], dtype=np.int32)
        return cls(offsets.astype(np.int32), ids)

    @classmethod
    def none(cls, n_words: int) -> "Compounds":
        """No word has parts."""
        return cls(np.zeros(n_words + 1, dtype=np.int32), np.empty(0, dtype=np.int32))

    def check(self, n_words: int) -> None:
        """Raise ValueError when these cannot be the parts of so many words."""
        if not divides(self.offsets, n_words, len(self.ids)) or not all_below(self.ids, n_words):
            raise ValueError(f"the parts of compounds are not those of {n_words} words")

    @cached_property
    def _with_part(self) -> tuple[Ints, Ints]:
        """(parts, ascending; the word of each)."""
        word = np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int32), np.diff(self.offsets))
        order = np.argsort(self.ids, kind="stable")
        return self.ids[order], word[order]

    def having(self, part: int) -> Ints:
        """The words that have this one as a part."""
        parts, words = self._with_part
        start, end = np.searchsorted(parts, [part, part + 1])
        return words[start:end]


def parts_of(word: str, known: Container[str], stem: Callable[[str], str]) -> list[str]:
    """The known stems that a stem is put together of, in order; none when it is no compound.

    The last part is the longest known one, and what stands before it is a known word or such a
    compound, with or without letters that link the two.
    """
    if not _LEAST_WORD <= len(word) <= _LONGEST_WORD or not word.isalpha():
        return []
    return _split(word, known, stem, _MOST_PARTS) or []


def _split(
    word: str, known: Container[str], stem: Callable[[str], str], most: int
) -> list[str] | None:
    for i in range(_LEAST_PART, len(word) - _LEAST_PART + 1):
        head, tail = word[:i], word[i:]
        if tail not in known:
            continue
        for link in _LINKS:
            if not head.endswith(link) or len(head) - len(link) < _LEAST_PART:
                continue
            first = head[: len(head) - len(link)]
            if (stemmed := stem(first)) in known:
                return [stemmed, tail]
            if most > 2 and (parts := _split(stemmed, known, stem, most - 1)):
                return [*parts, tail]
    return None
