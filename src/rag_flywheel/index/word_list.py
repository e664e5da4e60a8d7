"""Numbers the words of texts: pieces of text that were seen before are not taken apart again.

A list of words grows: each has a number, and its character n-grams have numbers too.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from rag_flywheel.index.char_ngrams import ngram_key, ngram_keys
from rag_flywheel.index.growing import GrowingArray
from rag_flywheel.index.postings import Ints, Postings
from rag_flywheel.index.spans import places_of
from rag_flywheel.index.tokenizer import TokenIds, Tokenizer, is_character, pieces_of

_MOST_PIECES = 200_000  # pieces of text whose words are kept
_AT_ONCE = 2_048  # texts
_LONGEST_KEY = 40  # bytes of a piece that is known again
_Counts = tuple[TokenIds, TokenIds, TokenIds]


class Numbers:
    """The numbers of the words of every short piece of text seen so far: each is stemmed once.

    stems: the number of each word; a new one gets the next number and is entered. Not thread-safe.
    """

    def __init__(self, stems: dict[str, int], tokenizer: Tokenizer) -> None:
        self.stems = stems
        self._tokenizer = tokenizer
        self.clear()

    def __len__(self) -> int:
        """How many pieces of text were taken apart."""
        return self._words.n - 1

    def clear(self) -> None:
        """Forget all pieces of text; words keep their numbers."""
        self._pieces = _Pieces()
        self._ids, self._words = GrowingArray(np.int32), GrowingArray(np.int64)
        self._words.append([0])

    def of(self, texts: Iterable[tuple[str, str]]) -> _Counts:
        """The numbers of the words of texts, each given as (title, whole text), one text after the
        other; how many each text has; and how many its title has."""
        every = iter(texts)
        parts = [self._of_some(iter(()))]
        while some := list(islice(every, _AT_ONCE)):
            parts.append(self._of_some(iter(some)))
        tokens, lengths, titles = (np.concatenate(each) for each in zip(*parts, strict=True))
        return tokens, lengths, titles

    def _of_some(self, texts: Iterator[tuple[str, str]]) -> _Counts:
        spoken, headed = array("i"), array("i")  # the pieces of all texts, and of all titles
        ends, title_ends = array("q", [0]), array("q", [0])
        number = self._pieces.__getitem__
        for title, text in texts:
            headed.extend(map(number, pieces_of(title)))
            title_ends.append(len(headed))
            spoken.extend(map(number, pieces_of(text)))
            ends.append(len(spoken))
        self._take_apart()
        starts = self._words.first(self._words.n)
        n_words = np.diff(starts)
        pieces = np.frombuffer(spoken, np.int32)
        each = n_words[pieces]
        ids: TokenIds = self._ids.first(self._ids.n)[places_of(starts[pieces], each)]
        titles = _sums(n_words[np.frombuffer(headed, np.int32)], title_ends)
        return ids, _sums(each, ends), titles

    def _take_apart(self) -> None:
        """Number the words of the pieces that were met since the last time, in the order of the pieces."""
        new, stems = self._pieces.taken(), self.stems
        words = self._tokenizer.words_of_each(new)
        ids = array("i", (stems.setdefault(w, len(stems)) for w in chain.from_iterable(words)))
        self._words.append(self._ids.n + np.cumsum(list(map(len, words)), dtype=np.int64))
        self._ids.append(np.frombuffer(ids, np.int32))


class _Pieces(dict[bytes, int]):
    """Numbers pieces of text in the order in which they are met; a long one gets a new number each time."""

    def __init__(self) -> None:
        super().__init__()
        self._n = 0
        self._new: list[bytes] = []

    def __missing__(self, piece: bytes) -> int:
        number = self._n + len(self._new)
        self._new.append(piece)
        if len(piece) <= _LONGEST_KEY:
            self[piece] = number
        return number

    def taken(self) -> list[bytes]:
        """Those that were met since the last time."""
        new, self._new = self._new, []
        self._n += len(new)
        return new


def _sums(lengths: Ints, ends: "array[int]") -> TokenIds:
    """int32: the sums of these lengths from each end to the next."""
    so_far = np.append(0, np.cumsum(lengths))
    found: TokenIds = np.diff(so_far[np.frombuffer(ends, np.int64)]).astype(np.int32)
    return found


class _Room:
    """What successive lists share; each reads below its own length.

    number: of each word; names: the words by number; ngrams: the number of each n-gram by its key; pairs:
    by character of a script without blanks, the words that are pairs with it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.number: dict[str, int] = {}
        self.names: list[str] = []
        self.ngrams: dict[int | str, int] = {}
        self.pairs: dict[str, list[int]] = {}
        self.pieces = Numbers(self.number, tokenizer)

    def enter(self) -> tuple[TokenIds, Ints]:
        """Enter the words that were numbered since the last time; returns their n-grams, one word after
        the other, and how many each has."""
        first, ngrams = len(self.names), self.ngrams
        new = list(islice(reversed(self.number), len(self.number) - first))[::-1]
        for number, word in enumerate(new, first):
            if len(word) == 2 and not word.isascii() and is_character(word[0]):
                for sign in set(word):
                    self.pairs.setdefault(sign, []).append(number)
        self.names.extend(new)
        keys, which, n_each = ngram_keys(new)
        ids = [ngrams.setdefault(key, len(ngrams)) for key in keys]
        return np.array(ids, dtype=np.int32)[which], n_each


@dataclass(frozen=True, eq=False)
class WordList:
    """The first n words of a room, ngrams: a word a row. A list never changes; `numbered` makes the next."""

    ngrams: Postings
    _room: _Room

    @classmethod
    def empty(cls, tokenizer: Tokenizer) -> "WordList":
        """No words; tokenizer: which those to come are from."""
        return cls(Postings.empty(), _Room(tokenizer))

    @classmethod
    def of(cls, words: Iterable[str], tokenizer: Tokenizer) -> "WordList":
        """These distinct words, in the order of their numbers."""
        room = _Room(tokenizer)
        room.number.update((word, i) for i, word in enumerate(words))
        return cls(Postings.empty().with_rows(*room.enter()), room)

    def __len__(self) -> int:
        return self.ngrams.n

    @property
    def is_newest(self) -> bool:
        """Whether no further word was numbered in the same room."""
        return len(self._room.number) == len(self)

    def numbered(
        self, texts: Iterable[tuple[str, str]]
    ) -> tuple["WordList", tuple[TokenIds, TokenIds, TokenIds]]:
        """The list with the words of these texts as well, and what `Numbers.of` says of the texts. It must
        be the newest of its room."""
        room = self._room
        found = room.pieces.of(texts)
        if len(room.pieces) > _MOST_PIECES:
            room.pieces.clear()
        return WordList(self.ngrams.with_rows(*room.enter()), room), found

    def number_of(self, word: str) -> int | None:
        """The number of a word, None: it is not in the list."""
        number = self._room.number.get(word)
        return None if number is None or number >= len(self) else number

    def names(self) -> list[str]:
        """The words in the order of their numbers."""
        return self._room.names[: len(self)]

    def name(self, number: int) -> str:
        """The word with a number."""
        return self._room.names[number]

    def pairs_with(self, sign: str) -> list[int]:
        """The words that are a pair of characters with this one."""
        return [number for number in self._room.pairs.get(sign, ()) if number < len(self)]

    def ngrams_numbered(self, ngrams: Sequence[str]) -> tuple[Ints, Ints]:
        """(places among these n-grams of those that have a number, their numbers)."""
        number = self._room.ngrams
        keys = map(ngram_key, ngrams)
        found = [(i, number[key]) for i, key in enumerate(keys) if key in number]
        both = np.array(found, dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]
