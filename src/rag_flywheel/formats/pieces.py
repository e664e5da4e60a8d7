"""Cuts a text or a row of a table that is too long: after sentences, then clauses, words, characters."""

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import regex

Count: TypeAlias = Callable[[Sequence[str]], Sequence[int]]
Piece: TypeAlias = tuple[str, int, int]
"""(text, its tokens, how well one can cut before it)."""

ROW, SENTENCE, CLAUSE, WORD = 2, 2, 1, 0
"""How well one can cut before a row or sentence, a clause, a word."""
_SENTENCES = regex.compile(
    r"[.!?…][\"'”’»)\]*_`]{0,4}\s+(?=[^\p{Ll}\s])|[。！？｡]+[」』”’）)\"*_`]{0,4}\s*"
    r"|\n\s*\n|\n(?=[ \t]*(?:[-*+>|#]|\d{1,9}[.)])[ \t])"
)
_CLAUSES = regex.compile(r"[,;:–—][\"'”’»)\]]{0,3}\s+|[，、；：﹔][\"'”’»」』）)]{0,3}\s*|\n")
_WORD = re.compile(r"\s*(\S+)\s*")  # twice as fast as the other module
_WORDS = regex.compile(r"\s*\S+\s*")
_CHARS = 32
_GROUP_CHARS = 160


def pieces(text: str, room: int, count: Count) -> list[Piece]:
    """The text in pieces of at most `room` tokens, none lost: the largest that its marks allow."""
    found: list[Piece] = [(text, room + 1, SENTENCE)]
    levels: tuple[tuple[Callable[[str], Iterable[str]], int], ...] = (
        (lambda t: _after(_SENTENCES, t), SENTENCE),
        (lambda t: _after(_CLAUSES, t), CLAUSE),
        (_word_groups, WORD),
        (_WORDS.findall, WORD),
        (lambda t: _slices(t, _CHARS), WORD),
        (lambda t: _slices(t, 4), WORD),
        (lambda t: _slices(t, 1), WORD),
    )
    for cut, strength in levels:
        if all(tokens <= room for _, tokens, _ in found):
            break
        found = _level(found, cut, strength, room, count)
    return found


def _level(
    found: list[Piece], cut: Callable[[str], Iterable[str]], strength: int, room: int, count: Count
) -> list[Piece]:
    parts = [[piece[0]] if piece[1] <= room else list(cut(piece[0])) for piece in found]
    fresh = iter(count([text for part in parts if len(part) > 1 for text in part]))
    result: list[Piece] = []
    for (_, tokens, above), part in zip(found, parts, strict=True):
        for n, text in enumerate(part):
            own = next(fresh) if len(part) > 1 else tokens
            result.append((text, own, strength if n else above))
    return result


def _after(pattern: "regex.Pattern[str]", text: str) -> Iterator[str]:
    """The text, cut behind each match."""
    at = 0
    for match in pattern.finditer(text):
        if match.end() < len(text):
            yield text[at : match.end()]
            at = match.end()
    yield text[at:]


def _word_groups(text: str) -> Iterator[str]:
    """Some words each; where a group ends, its last word decides."""
    at = end = 0
    for match in _WORD.finditer(text):
        start, end = end, match.end()
        if end - at > _GROUP_CHARS and start > at:
            yield text[at:start]
            at = start
        if zlib.crc32(match[1].encode("utf-8", "surrogatepass")) & 7 == 0:
            yield text[at:end]
            at = end
    if at < len(text):
        yield text[at:]


def _slices(text: str, chars: int) -> Iterator[str]:
    """So many characters each; marks stay with the letter before them."""
    at = 0
    while at < len(text):
        end = at + chars
        while end < min(len(text), at + chars + 8) and _continues(text, end):
            end += 1
        yield text[at:end]
        at = end


def _continues(text: str, at: int) -> bool:
    return (
        text[at - 1] == "\u200d" or text[at] == "\u200d" or unicodedata.category(text[at])[0] == "M"
    )


def row_pieces(rows: Sequence[str], room: int, count: Count) -> list[Piece]:
    """The rows of a table, and a row that is too long as several, each with a part of one cell."""
    found: list[Piece] = []
    for row, tokens in zip(rows, count([row + "\n" for row in rows]), strict=True):
        if tokens <= room:
            found.append((row + "\n", tokens, ROW))
        else:
            found.extend(_row(row, room, count))
    return found


def _row(row: str, room: int, count: Count) -> Iterator[Piece]:
    cells = [cell.strip() for cell in regex.split(r"(?<!\\)\|", row.strip().strip("|"))]
    key = cells[0] if len(cells) > 1 and count([cells[0]])[0] <= room // 8 else ""
    for column, cell in enumerate(cells):
        if not cell or (key and column == 0):
            continue
        before = [key, *[""] * (column - 1)] if column else []
        empty = _joined([*before, "", *[""] * (len(cells) - column - 1)])
        frame = count([empty])[0]
        for n, (text, tokens, strength) in enumerate(pieces(cell, max(1, room - frame), count)):
            line = _joined([*before, text.strip(), *[""] * (len(cells) - column - 1)])
            yield line + "\n", tokens + frame, strength if n else ROW


def _joined(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
