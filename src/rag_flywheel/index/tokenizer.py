"""Splits texts into the words that are indexed. No other module uses the stemmer."""

import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

TokenIds: TypeAlias = npt.NDArray[np.int32]
_NO_WORD = {i: " " for i in range(128) if re.match(r"\W", chr(i))}
_LUCENE_STOPWORDS = (  # for English
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
_STOPWORDS = frozenset(_LUCENE_STOPWORDS.split())


@cache
def _word() -> Any:
    import regex

    return regex.compile(r"[\w\p{M}]+")  # marks too: vowels of Arabic, Hindi and others


def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("english", 0)


def _split(text: str) -> list[str]:
    """Lower-cased words of a text in order, all of them."""
    plain = unicodedata.normalize("NFKC", text).lower()
    if plain.isascii():
        return plain.translate(_NO_WORD).split()
    found: list[str] = _word().findall(plain)
    return found


def tokenize(text: str) -> list[str]:
    """Lower-cased word stems of a text in order, without English stop words."""
    words = [w for w in _split(text) if w not in _STOPWORDS]
    stems: list[str] = _stemmer().stemWords(words)
    return stems


def stems_in(texts: Iterable[str], stems: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(how many of these distinct stems each text has, how many words it has, as `tokenize` does it).

    Only words that begin as one of the stems does are stemmed: a stem keeps the first two letters.
    """
    stemmer, wanted, begins = _stemmer(), set(stems), {stem[:2] for stem in stems}
    for text in texts:
        words = _split(text)
        likely = [w for w in set(words) if w[:2] in begins and w not in _STOPWORDS]
        n_words = len(words) - sum(map(_STOPWORDS.__contains__, words))
        yield len(wanted.intersection(stemmer.stemWords(likely))), n_words


class Numbers(dict[str, int]):
    """The number of the stem of every word seen so far, -1 for a stop word: each is stemmed once.

    stems: the number of each stem; a new one gets the next number. Not thread-safe.
    """

    def __init__(self, stems: Mapping[str, int]) -> None:
        super().__init__()
        self.stems = dict(stems)
        self._stemmer = _stemmer()

    def __missing__(self, word: str) -> int:
        number = -1
        if word not in _STOPWORDS:
            number = self.stems.setdefault(self._stemmer.stemWord(word), len(self.stems))
        self[word] = number
        return number

    def of(self, texts: Iterable[tuple[str, str]]) -> tuple[TokenIds, TokenIds, TokenIds]:
        """The numbers of the words of texts, each given as (title, whole text), one text after the
        other; how many each text has; and how many its title has."""
        parts = array("i"), array("i")
        ends: tuple[list[int], list[int]] = [], []
        for pair in texts:
            for part, end, text in zip(parts, ends, pair, strict=True):
                part.extend(map(self.__getitem__, _split(text)))
                end.append(len(part))
        (_, titles), (tokens, lengths) = (
            _without_stopwords(np.frombuffer(part, dtype=np.int32), end)
            for part, end in zip(parts, ends, strict=True)
        )
        return tokens, lengths, titles


def _without_stopwords(numbers: TokenIds, ends: list[int]) -> tuple[TokenIds, TokenIds]:
    """The numbers of words that are no stop words, and how many there are up to each end from the
    one before."""
    counts = numbers >= 0
    before = np.append(0, np.cumsum(counts))
    return numbers[counts], np.diff(before[ends], prepend=0).astype(np.int32)
