"""Finds which passages an answer quotes word for word.

It knows texts, and must not know where passages come from or what is made of a quote.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import regex

LEAST_WORDS = 8
"""How many words in a row make a quote, where words are not set apart twice as many characters; measured on
pairs of real texts by benchmarks/learning/quotes.py"""
USERS_WORDS = 4  # in a row that a question and an answer share: the user's own
MOST_CHARS = 200_000  # of a text that are read
_CHAR_WORDS = 0.5  # how much of a word a character is, where words are not set apart
_SCRIPTS = "".join(
    rf"\p{{{name}}}" for name in ("Han", "Hira", "Kana", "Thai", "Lao", "Mymr", "Khmr")
)
_CHAR = regex.compile(rf"[[{_SCRIPTS}]--[\W]]\p{{M}}*", regex.V1)
_TOKEN = regex.compile(
    rf"{_CHAR.pattern}|[[\p{{L}}\p{{N}}]--[{_SCRIPTS}]][[\p{{L}}\p{{N}}\p{{M}}]--[{_SCRIPTS}]]*",
    regex.V1,
)
_Window = tuple[str, ...]


@dataclass(frozen=True)
class Quote:
    """What an answer quotes of a passage: the text as the answer has it, and how many words that is."""

    passage_id: str
    text: str
    n_words: int


@dataclass(frozen=True)
class _Token:
    """A word, normalised; where it begins and ends in its text; how many words it counts for."""

    word: str
    begin: int
    end: int
    weight: float


def quotes(
    answer: str,
    passages: Mapping[str, str],
    asked: Sequence[str] = (),
    least_words: int = LEAST_WORDS,
) -> list[Quote]:
    """The longest quote of each passage that the answer quotes, by passage id; one for each at most.

    A quote has at least so many words in a row, without regard to case, marks and blanks. Words that
    more than one of the passages has, as a whole quote, are no quote of any of them; nor are words that
    stand in what was asked, since the user brought them.

    passages: the texts by passage id. asked: what the user, or the agent, asked.
    """
    text = _readable(answer)
    tokens = _tokens(text)
    usable = [True] * len(tokens)
    for question in asked:
        found = set(_windows(_tokens(_readable(question)), USERS_WORDS))
        _strike(usable, tokens, found, USERS_WORDS)
    windows = {
        id_: set(_windows(_tokens(_readable(passage)), least_words))
        for id_, passage in passages.items()
    }
    of_many = Counter(window for each in windows.values() for window in each)
    _strike(usable, tokens, {window for window, n in of_many.items() if n > 1}, least_words)
    found_quotes = []
    for id_, each in windows.items():
        begin, end = _longest(tokens, usable, each, least_words)
        if begin < end:
            n = sum(token.weight for token in tokens[begin:end])
            quoted = text[tokens[begin].begin : tokens[end - 1].end]
            found_quotes.append(Quote(id_, quoted, int(n)))
    return found_quotes


def _readable(text: str) -> str:
    """The text in compatibility form, without characters that cannot be seen."""
    whole = unicodedata.normalize("NFKC", text[:MOST_CHARS])
    return "".join(c for c in whole if unicodedata.category(c) != "Cf")


def _tokens(text: str) -> list[_Token]:
    return [
        _Token(
            match[0].casefold(),
            match.start(),
            match.end(),
            _CHAR_WORDS if _CHAR.match(match[0]) else 1.0,
        )
        for match in _TOKEN.finditer(text)
    ]


def _windows(tokens: Sequence[_Token], n_words: int) -> Iterator[_Window]:
    for begin, end in _spans(tokens, n_words):
        yield tuple(token.word for token in tokens[begin:end])


def _spans(tokens: Sequence[_Token], n_words: int) -> Iterator[tuple[int, int]]:
    """From each token on, the fewest that are n words together, if there are so many."""
    end, n = 0, 0.0
    for begin in range(len(tokens)):
        while n < n_words and end < len(tokens):
            n += tokens[end].weight
            end += 1
        if n < n_words:
            return
        yield begin, end
        n -= tokens[begin].weight


def _strike(
    usable: list[bool], tokens: Sequence[_Token], windows: set[_Window], n_words: int
) -> None:
    """Make the tokens that one of the windows covers unusable."""
    for begin, end in _spans(tokens, n_words):
        if tuple(token.word for token in tokens[begin:end]) in windows:
            usable[begin:end] = [False] * (end - begin)


def _longest(
    tokens: Sequence[_Token], usable: Sequence[bool], windows: set[_Window], n_words: int
) -> tuple[int, int]:
    """(begin, end) of the longest run of usable tokens that windows cover; (0, 0) without any."""
    best, run = (0, 0), (0, 0)
    for begin, end in _spans(tokens, n_words):
        words = tuple(token.word for token in tokens[begin:end])
        if words not in windows or not all(usable[begin:end]) or 2 * len(set(words)) < len(words):
            continue
        run = (run[0], end) if begin < run[1] else (begin, end)
        if run[1] - run[0] > best[1] - best[0]:
            best = run
    return best
