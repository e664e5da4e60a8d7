"""The numbers of very many words in a fifth of the memory of a dict, which holds an object for each."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

_MOST_FOUND = 4_096  # words whose numbers are known again
_END = b"\n"


class WordTable(Mapping[str, int]):
    """Words and their numbers, in the order of the numbers; it never changes.

    The words lie one after the other in UTF-8, and are found by their hashes, which Python makes anew in
    each process. Raises ValueError when a word is there twice or has the end of a line.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._n = len(words)
        self._bytes = b"".join(word.encode() + _END for word in words)
        ends = np.flatnonzero(np.frombuffer(self._bytes, np.uint8) == _END[0])
        if len(ends) != len(words):
            raise ValueError("it has a word with the end of a line")
        self._starts = array("i", np.append(0, ends + 1).astype(np.int32).tobytes())
        hashes = np.fromiter(map(hash, words), np.int64, len(words))
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._order = array("i", order.tobytes())
        self._hashes = array("q", hashes[order].tobytes())
        self._found: dict[str, int] = {}
        for place in np.flatnonzero(np.diff(hashes[order]) == 0).tolist():
            mine = words[order[place]]
            if any(words[i] == mine for i in self._order[place + 1 : self._after(place)]):
                raise ValueError("it names a word twice")

    def _after(self, place: int) -> int:
        """Where the words end that have the hash of the one at a place."""
        end = place + 1
        while end < self._n and self._hashes[end] == self._hashes[place]:
            end += 1
        return end

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[str]:
        return iter(self._bytes.decode().split("\n")[:-1])

    def __getitem__(self, word: str) -> int:
        number = self._found.get(word)
        if number is None:
            number = self._find(word)
            if len(self._found) >= _MOST_FOUND:
                self._found = {}
            self._found[word] = number
        if number < 0:
            raise KeyError(word)
        return number

    def get(self, word: str, default: int | None = None) -> int | None:  # type: ignore[override]
        """The number of a word; without one the default."""
        number = self._found.get(word)
        if number is None:
            try:
                return self[word]
            except KeyError:
                return default
        return default if number < 0 else number

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self.get(word) is not None

    def _find(self, word: str) -> int:
        """The number of a word, -1: it is not there."""
        hashed = hash(word)
        place = bisect_left(self._hashes, hashed)
        if place == self._n or self._hashes[place] != hashed:
            return -1
        wanted = word.encode(errors="surrogatepass")
        for number in self._order[place : self._after(place)]:
            if self._bytes[self._starts[number] : self._starts[number + 1] - 1] == wanted:
                return number
        return -1
