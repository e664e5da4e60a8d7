"""Splits texts into the words that are indexed. No other module uses the stemmer.

Scripts without blanks between words become overlapping pairs of characters. A name such as
`get_userById` or `WF-M5799` is indexed joined and by its parts.
"""

import re
import unicodedata
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
_ASCII_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z0-9]+|[A-Z]|[0-9]+")
_BETWEEN = "-_./"  # parts of a name
_JOINING = re.compile(r"[-_/]|(?<![0-9])\.|\.(?![0-9])")
_ENCODING = "utf-8", "surrogatepass"
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
_ASCII_SIGNS = bytes(ord(chr(code).translate(_SIGNS)) for code in range(128)) + bytes(128)
"""The same for bytes.translate."""


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
    return _plain(text).split()


def _plain(text: str) -> str:
    """A text with blanks between its pieces."""
    plain = unicodedata.normalize("NFKC", text).translate(_SIGNS)
    if _FAR.search(plain):
        plain = _patterns()[0].sub(r" \g<0> ", plain)
    return plain


def pieces_of(text: str) -> list[bytes]:
    """A text cut into the pieces that words are made of, as bytes: it takes half as long as to strings."""
    if text.isascii():
        return text.encode().translate(_ASCII_SIGNS).split()
    return _plain(text).encode(*_ENCODING).split()


class Tokenizer:
    """Splits texts of one language into word stems without stop words; thread-safe.

    language: one of `records.STEMMED`, or `none` for words as they are.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._memo = _Memo(self)

    def tokenize(self, text: str) -> list[str]:
        """The words of a text in order, lower-cased, stemmed and without most accents."""
        return list(chain.from_iterable(map(self._memo.__getitem__, _pieces(text))))

    def stem(self, word: str) -> str:
        """The stem of one lower-case word."""
        return _Stems(self.language, folds=True)[word] or ""

    def words_of(self, piece: str) -> _Words:
        """The words of a piece of text without blanks, all of them in one script or one name."""
        return self._words_of(piece, *self._stems)

    def words_of_each(self, pieces: Iterable[bytes]) -> list[_Words]:
        """`words_of` each of these pieces; a part that several have is stemmed once."""
        stems = self._stems
        return [self._words_of(piece.decode(*_ENCODING), *stems) for piece in pieces]

    @property
    def _stems(self) -> "tuple[_Stems, _Parts]":
        return _Stems(self.language, folds=False), _Parts(_Stems(self.language, folds=True))

    def _words_of(self, piece: str, plain: "_Stems", parts: "_Parts") -> _Words:
        if piece.isascii():
            piece = piece.strip(_BETWEEN)
            if piece.isdigit() or (piece.isalpha() and _is_plain(piece)):
                stem = plain[piece[:_LONGEST_WORD].lower()]
                return () if stem is None else (stem,)
            return _words_of_name(piece, parts)
        continua, _, _, alphabetic = _patterns()
        if continua.match(piece):
            if len(piece) == 1:
                return (piece,)
            if alphabetic.match(piece):
                return tuple(_overlapping(piece))
            return tuple(map("".join, pairwise(piece)))
        return _words_of_name(piece, parts)


def _words_of_name(piece: str, parts: "_Parts") -> _Words:
    """The words of a name such as get_userById, WF-M5799 or /etc/site.key: all of it without what
    stands between its parts, and the parts."""
    names, found = [piece.strip(_BETWEEN)], list[str]()
    if "/" in names[0]:
        names = [name for part in piece.split("/") if (name := part.strip(_BETWEEN))]
        found.extend(parts.stem(_joined(piece)))
    for name in names:
        own = [part for part in name.replace("_", "-").replace(".", "-").split("-") if part]
        if len(own) > 1:
            found.extend(parts.stem(_joined(name)))
        for part in own:
            found.extend(parts[part])
    return tuple(found)


class _Parts(dict[str, _Words]):
    """The words of the parts of names: each part itself, and what it is put together of."""

    def __init__(self, stems: "_Stems") -> None:
        super().__init__()
        self._stems = stems

    def __missing__(self, part: str) -> _Words:
        self[part] = words = self.stem([part, *_smaller(part)])
        return words

    def stem(self, words: Iterable[str]) -> _Words:
        """The stems of these words, but of stop words."""
        stems = [self._stems[word.lower()[:_LONGEST_WORD]] for word in words]
        return tuple([stem for stem in stems if stem is not None])


class _Stems(dict[str, str | None]):
    """The stems of lower-case words, None of stop words; folds: without most accents. Not thread-safe."""

    def __init__(self, language: str, *, folds: bool) -> None:
        super().__init__()
        self._language, self._folds = language, folds
        self._stop_words = stop_words(language)
        self._stem = str if language == NO_LANGUAGE else _stemmer(language).stemWord

    def __missing__(self, word: str) -> str | None:
        self[word] = stem = None if word in self._stop_words else self._stemmed(word)
        return stem

    def _stemmed(self, word: str) -> str:
        if self._language in (ENGLISH, NO_LANGUAGE):
            return str(self._stem(word if word.isascii() else _folded(word)))
        stem = str(self._stem(word))
        return _folded(stem) if self._folds and not stem.isascii() else stem


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


def _joined(name: str) -> list[str]:
    """A name without what stands between its parts; a point between digits stays. None of a long one."""
    if len(name) > _LONGEST_NAME:
        return []
    if name.isascii():
        return [_JOINING.sub("", name)]
    kept = [
        sign
        for i, sign in enumerate(name)
        if sign not in _BETWEEN
        or (sign == "." and name[:i][-1:].isdigit() and name[i + 1 : i + 2].isdigit())
    ]
    return ["".join(kept)]


def _smaller(part: str) -> Iterator[str]:
    """The parts of getUserById or M5799DWF, of two characters at least, and each two neighbours joined.

    A lower-case word with a short number behind it, such as python3 or p53, is one word.
    """
    if len(part) > _LONGEST_NAME or part.isdigit() or (part.isalpha() and _is_plain(part)):
        return
    parts = (_ASCII_PART if part.isascii() else _patterns()[1]).findall(part)
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
