"""A list of words that grows: each has a number, and its character n-grams have numbers too."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from rag_flywheel.index.char_ngrams import char_ngrams_of
from rag_flywheel.index.postings import Ints, Postings
from rag_flywheel.index.tokenizer import Numbers, TokenIds, Tokenizer, is_character

_MOST_PIECES = 200_000  # pieces of text whose words are kept


class _Room:
    """What successive lists share; each reads below its own length.

    number: of each word; names: the words by number; ngrams: the number of each n-gram; pairs: by
    character of a script without blanks, the words that are pairs with it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.number: dict[str, int] = {}
        self.names: list[str] = []
        self.ngrams: dict[str, int] = {}
        self.pairs: dict[str, list[int]] = {}
        self.pieces = Numbers(self.number, tokenizer)

    def enter(self) -> tuple[TokenIds, Ints]:
        """Enter the words that were numbered since the last time; returns their n-grams, one word after
        the other, and how many each has."""
        first, ngrams = len(self.names), self.ngrams
        new = list(islice(reversed(self.number), len(self.number) - first))[::-1]
        each = [[ngrams.setdefault(g, len(ngrams)) for g in char_ngrams_of(w)] for w in new]
        for number, word in enumerate(new, first):
            if len(word) == 2 and not word.isascii() and is_character(word[0]):
                for sign in set(word):
                    self.pairs.setdefault(sign, []).append(number)
        self.names.extend(new)
        ids = np.array([number for own in each for number in own], dtype=np.int32)
        return ids, np.array([len(own) for own in each], dtype=np.int64)


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
        found = [(i, number[ngram]) for i, ngram in enumerate(ngrams) if ngram in number]
        both = np.array(found, dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]
