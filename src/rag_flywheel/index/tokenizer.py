"""Splits texts into the words that are indexed. No other module uses the stemmer.

Scripts without blanks between words become overlapping pairs of characters. A name such as
`get_userById` or `WF-M5799` is indexed joined and by its parts.
"""

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.languages import language_of, stop_words
from rag_flywheel.records import AUTO, ENGLISH, NO_LANGUAGE

VERSION = 2
"""Changes whenever the same text gives other words: versions of an index that were built by another
one are built anew."""
TokenIds: TypeAlias = npt.NDArray[np.int32]
_Words: TypeAlias = tuple[str, ...]
_PAIRED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\u30fc\u3005"
_ALPHABETIC = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_WITHOUT_BLANKS = rf"[{_PAIRED}]+|\p{{Hangul}}+|[{_ALPHABETIC}]+"
_FAR = re.compile(r"[\u0e00-\u1fff\u2e80-\U0010ffff]")  # none of these scripts is before it
_PART = r"\p{Lu}+(?!\p{Ll})|\p{Lu}?[^\p{Lu}\p{Nd}]+|\p{Lu}|\p{Nd}+"  # of getUserById, M5799DWF
_BETWEEN = "-_./"  # parts of a name
_LONGEST_NAME = 64  # characters; longer ones are indexed by their parts alone
_LONGEST_WORD = 128  # the rest of a longer one is cut off
_LONGEST_RUN = 6  # characters of a script without blanks that are a word and no question
_LONG_NUMBER = 4  # digits that are a part of their own behind lower-case letters
_MEMO, _LONGEST_KEY = 100_000, 40  # pieces of text whose words are cached
_FOLDED = str.maketrans(
    {
        "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i",
        "ħ": "h", "ŋ": "n", "ŧ": "t", "ƒ": "f", "ĸ": "k", "ə": "a", "ё": "е",
    }
)  # fmt: skip
"""Letters that Unicode does not decompose, and a Russian one that is mostly written without its mark."""


class _Signs(dict[int, int | str | None]):
    """What becomes of each character, for str.translate: signs between words become blanks, digits of all
    scripts 0 to 9, hyphens "-"; a soft hyphen and a joiner vanish. Other characters stay."""

    def __missing__(self, code: int) -> int | str | None:
        sign = chr(code)
        category = unicodedata.category(sign)
        value: int | str | None = code
        if category == "Nd":
            value = str(unicodedata.digit(sign))
        elif code in (0xAD, 0x2060, 0xFEFF):
            value = None
        elif code in (0x2010, 0x2011, 0x2212):
            value = "-"
        elif sign not in _BETWEEN and category[0] not in "LNM" and category != "Pc":
            value = " "
        self[code] = value
        return value


_SIGNS = _Signs()
for _code in range(128):
    _SIGNS[_code]


@cache
def _patterns() -> tuple[Any, Any, Any, Any]:
    import regex

    return (
        regex.compile(_WITHOUT_BLANKS),
        regex.compile(_PART),
        regex.compile(r"([\p{Latin}\p{Greek}])\p{Mn}+|[\u064b-\u0652\u0670\u0591-\u05c7\u0640]"),
        regex.compile(rf"[{_ALPHABETIC}]"),
    )


def _pieces(text: str) -> list[str]:
    """A text cut at blanks and signs, and where a script without blanks begins or ends."""
    if text.isascii():
        return text.translate(_SIGNS).split()
    plain = unicodedata.normalize("NFKC", text).translate(_SIGNS)
    if _FAR.search(plain):
        plain = _patterns()[0].sub(r" \g<0> ", plain)
    return plain.split()


class Tokenizer:
    """Splits texts of one language into word stems without stop words; thread-safe.

    language: one of `records.STEMMED`, or `none` for words as they are.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._stop_words = stop_words(language)
        self._memo = _Memo(self)

    def tokenize(self, text: str) -> list[str]:
        """The words of a text in order, lower-cased, stemmed and without most accents."""
        return list(chain.from_iterable(map(self._memo.__getitem__, _pieces(text))))

    def stem(self, word: str) -> str:
        """The stem of one lower-case word."""
        return next(iter(self._stems([word])), "")

    def words_of(self, piece: str) -> _Words:
        """The words of a piece of text without blanks, all of them in one script or one name."""
        if piece.isascii():
            piece = piece.strip(_BETWEEN)
            if piece.isdigit() or (piece.isalpha() and _is_plain(piece)):
                return self._stem_of(piece[:_LONGEST_WORD].lower())
            return self._of_name(piece)
        continua, _, _, alphabetic = _patterns()
        if continua.match(piece):
            if len(piece) == 1:
                return (piece,)
            if alphabetic.match(piece):
                return tuple(_overlapping(piece))
            return tuple(map("".join, pairwise(piece)))
        return self._of_name(piece)

    def _of_name(self, piece: str) -> _Words:
        """The words of a name such as get_userById, WF-M5799 or /etc/site.key: all of it without what
        stands between its parts, and the parts."""
        found: list[str] = []
        names = [name for part in piece.split("/") if (name := part.strip(_BETWEEN))]
        if len(names) > 1:
            found.extend(_joined(piece))
        for name in names:
            parts = [part for part in name.replace("_", "-").replace(".", "-").split("-") if part]
            if len(parts) > 1:
                found.extend(_joined(name))
            for part in parts:
                found.append(part)
                found.extend(_smaller(part))
        return self._stems([word.lower()[:_LONGEST_WORD] for word in found])

    def _stem_of(self, word: str) -> _Words:
        """The stem of one word in ASCII."""
        if word in self._stop_words:
            return ()
        return (word if self.language == NO_LANGUAGE else _stemmer(self.language).stemWord(word),)

    def _stems(self, words: list[str]) -> _Words:
        kept = [word for word in words if word not in self._stop_words]
        folded = [word if word.isascii() else _folded(word) for word in kept]
        if self.language == NO_LANGUAGE:
            return tuple(folded)
        stemmer = _stemmer(self.language)
        if self.language == ENGLISH:
            return tuple(stemmer.stemWords(folded))
        return tuple(word if word.isascii() else _folded(word) for word in stemmer.stemWords(kept))


class _Memo(dict[str, _Words]):
    """The words of pieces of text that were seen lately."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, piece: str) -> _Words:
        words = self._tokenizer.words_of(piece)
        if len(piece) <= _LONGEST_KEY:
            if len(self) >= _MEMO:
                self.clear()
            self[piece] = words
        return words


def _stemmer(language: str) -> Any:
    import Stemmer

    return Stemmer.Stemmer(language, 0)  # cheap to make; one must not be shared by threads


def _is_plain(word: str) -> bool:
    """Whether its letters do not say that it has parts: word, Word, WORD, or WORDs."""
    if word.islower() or word.isupper() or word.istitle():
        return True
    return word[:-1].isupper() and word[-1] == "s"


def _joined(name: str) -> Iterator[str]:
    """A name without what stands between its parts; a point between digits stays."""
    if len(name) > _LONGEST_NAME:
        return
    kept = [
        sign
        for i, sign in enumerate(name)
        if sign not in _BETWEEN
        or (sign == "." and name[:i][-1:].isdigit() and name[i + 1 : i + 2].isdigit())
    ]
    yield "".join(kept)


def _smaller(part: str) -> Iterator[str]:
    """The parts of getUserById or M5799DWF, of two characters at least, and each two neighbours joined.

    A lower-case word with a short number behind it, such as python3 or p53, is one word.
    """
    if len(part) > _LONGEST_NAME or part.isdigit() or (part.isalpha() and _is_plain(part)):
        return
    parts = _patterns()[1].findall(part)
    if len(parts) < 2 or (len(parts) == 2 and part.islower() and len(parts[1]) < _LONG_NUMBER):
        return
    if len(parts) > 2 and not part.isalpha():
        yield from map("".join, pairwise(parts))
    yield from (each for each in parts if len(each) > 1)


def _overlapping(run: str) -> Iterator[str]:
    """Pairs and triples of neighbouring characters."""
    yield from map("".join, pairwise(run))
    yield from map("".join, zip(run, run[1:], run[2:], strict=False))


def _folded(word: str) -> str:
    """A word without the marks of Latin and Greek letters and the vowel signs of Arabic and Hebrew."""
    apart = unicodedata.normalize("NFD", word.translate(_FOLDED))
    return unicodedata.normalize("NFC", _patterns()[2].sub(r"\1", apart))


def is_character(word: str) -> bool:
    """Whether a word is a single character of a script without blanks."""
    return len(word) == 1 and not word.isascii() and bool(_patterns()[0].match(word))


def is_one_name(query: str) -> bool:
    """Whether a query is one word, name or number, and no question: of a script without blanks, up to six
    characters."""
    word = query.strip()
    if len(word.split()) != 1 or len(word) > _LONGEST_NAME:
        return False
    return len(word) <= _LONGEST_RUN or not _patterns()[0].search(word)


@cache
def tokenizer_of(language: str) -> Tokenizer:
    """The tokenizer of a language."""
    return Tokenizer(language)


def tokenize(text: str) -> list[str]:
    """The words of a text by the tokenizer of English."""
    return tokenizer_of(ENGLISH).tokenize(text)


def tokenizer_for(setting: str, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer for an index by its setting `language`; with `auto` by some of its texts."""
    if setting != AUTO:
        return tokenizer_of(setting)
    spaced = (
        word.lower()
        for text in texts
        for piece in _pieces(text)
        if (word := piece.strip(_BETWEEN)) and not _patterns()[0].match(word)
    )
    return tokenizer_of(language_of(spaced))


def words_of_query(
    text: str,
    tokenizer: Tokenizer,
    pairs_of: Callable[[str], Sequence[str]],
    parts_of: Callable[[str], Sequence[str]],
) -> list[str]:
    """The words of a query in order, each followed by the pairs that stand for it where it is a single
    character, else by the parts that it is put together of."""
    found: list[str] = []
    for word in tokenizer.tokenize(text):
        found.append(word)
        found.extend(pairs_of(word) if is_character(word) else parts_of(word))
    return found


def stems_in(
    texts: Iterable[str], stems: Sequence[str], tokenizer: Tokenizer
) -> Iterator[tuple[int, int]]:
    """(how many of these distinct stems each text has, how many words it has, as `tokenize` does it)."""
    wanted = set(stems)
    for text in texts:
        words = tokenizer.tokenize(text)
        yield len(wanted.intersection(words)), len(words)


class Numbers(dict[str, tuple[int, ...]]):
    """The numbers of the words of every short piece of text seen so far: each is stemmed once.

    stems: the number of each word; a new one gets the next number and is entered. Not thread-safe.
    """

    def __init__(self, stems: dict[str, int], tokenizer: Tokenizer) -> None:
        super().__init__()
        self.stems = stems
        self._words_of = tokenizer.words_of

    def __missing__(self, piece: str) -> tuple[int, ...]:
        stems = self.stems
        numbers = tuple([stems.setdefault(w, len(stems)) for w in self._words_of(piece)])
        if len(piece) <= _LONGEST_KEY:
            self[piece] = numbers
        return numbers

    def of(self, texts: Iterable[tuple[str, str]]) -> tuple[TokenIds, TokenIds, TokenIds]:
        """The numbers of the words of texts, each given as (title, whole text), one text after the
        other; how many each text has; and how many its title has."""
        tokens, lengths, titles = array("i"), array("i"), array("i")
        number, before = self.__getitem__, 0
        for title, text in texts:
            titles.append(sum(map(len, map(number, _pieces(title)))))
            tokens.extend(chain.from_iterable(map(number, _pieces(text))))
            lengths.append(len(tokens) - before)
            before = len(tokens)
        as_array = (np.frombuffer(part, dtype=np.int32) for part in (tokens, lengths, titles))
        one, two, three = as_array
        return one, two, three
