"""Groups blocks into chunks of at most so many tokens, at boundaries that their content decides.

A run of blocks that is too long is cut in two, and each half again, until all parts fit: at the best
kind of boundary, and among those at the one whose next words have the highest hash. Where a part
begins and ends does not depend on what stands far before or behind it, so after an insertion the
chunks around it are what they were.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt

from rag_flywheel.encoder import Encoder
from rag_flywheel.errors import InputError
from rag_flywheel.formats.blocks import Block
from rag_flywheel.formats.marks import has_letters
from rag_flywheel.formats.pieces import ROW, WORD, pieces, row_pieces
from rag_flywheel.formats.token_estimate import estimate_tokens

LEAST_TOKENS = 32
_DEFAULT_MOST = 512
_CHARS_A_TOKEN = 16
"""A chunk has at most so many characters a token: to some tokenizers a very long word is one token."""
_INDENT = " \t"
_FENCE = re.compile(r"\A[ \t>]*(?:`{3,}|~{3,})")
"""What would open a code block, where a line was cut before it."""
_KEY_CHARS = 80
"""A chunk is named by its first characters, so many, and so is the boundary before them."""


@dataclass(frozen=True)
class Chunking:
    """How long chunks are.

    tokens: the most a chunk may have as the encoder reads it, its title included. overlap: how many
    of them may repeat the end of the chunk before. count: the encoder's own count of the tokens of
    texts; None: an estimate that is rarely too low.
    Raises InputError.
    """

    tokens: int = 256
    overlap: int = 0
    count: Callable[[Sequence[str]], Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if type(self.tokens) is not int or self.tokens < LEAST_TOKENS:
            raise InputError(
                f"chunk_tokens is {self.tokens!r}; expected a whole number, {LEAST_TOKENS} or more"
            )
        if type(self.overlap) is not int or not 0 <= self.overlap <= self.tokens // 2:
            raise InputError(
                f"chunk_overlap is {self.overlap!r}; expected a whole number from 0 to "
                f"{self.tokens // 2}, half of chunk_tokens"
            )

    @classmethod
    def for_encoder(
        cls, encoder: Encoder, *, tokens: int | None = None, overlap: int = 0
    ) -> "Chunking":
        """Chunks that the encoder reads whole, counted by it if it has `max_tokens` and `count_tokens`.

        tokens: None takes what the encoder reads, at most 512, or 256 where it does not say.
        Raises InputError when `tokens` are more than the encoder reads.
        """
        most = getattr(encoder, "max_tokens", None)
        count = getattr(encoder, "count_tokens", None) if most is not None else None
        if tokens is None:
            return cls(cls.tokens if most is None else min(most, _DEFAULT_MOST), overlap, count)
        if most is not None and type(tokens) is int and tokens > most:
            raise InputError(
                f"chunk_tokens is {tokens}; expected at most {most}: the encoder {encoder.name!r} "
                "does not read more of a text"
            )
        return cls(tokens, overlap, count)


class Counter:
    """Counts the tokens of texts, without those that an encoder adds to every text."""

    def __init__(self, chunking: Chunking) -> None:
        self._count = chunking.count or estimate_tokens
        self._longest = chunking.tokens * _CHARS_A_TOKEN
        self.base = int(self._count([""])[0])

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; one that is too long for a chunk in any case counts as its length."""
        short = [i for i, text in enumerate(texts) if len(text) <= self._longest]
        found = [len(text) for text in texts]
        if short:
            for i, n in zip(short, self._count([texts[i] for i in short]), strict=True):
                found[i] = max(0, int(n) - self.base)
        return found


@dataclass(frozen=True)
class Chunk:
    """The text of a chunk; key: its own first words, without what it repeats; its lines, from 1."""

    text: str
    key: str
    first: int
    last: int


@dataclass(frozen=True)
class _Unit:
    """A block, or a part of one; opens: the first part."""

    block: Block
    text: str
    tokens: int
    strength: int
    first: int
    whole: bool
    opens: bool = False


@dataclass(frozen=True)
class Section:
    """What lies between two headings.

    title: goes before each chunk's text when it is encoded. lead: put before a chunk that says
    nothing without it. title_tokens, lead_tokens, tokens: of these and of each block.
    """

    blocks: Sequence[Block]
    tokens: Sequence[int]
    title: str
    title_tokens: int
    lead: str
    lead_tokens: int


def chunk_section(section: Section, chunking: Chunking, counter: Counter) -> list[Chunk]:
    """The chunks of a section, in order."""
    room = chunking.tokens - counter.base - section.title_tokens
    cutter = _Cutter(section, room, counter)
    groups = cutter.groups(room - chunking.overlap)
    found = []
    for before, group in pairwise([[], *groups]):
        repeated = cutter.tail(before, chunking.overlap) if chunking.overlap else []
        text = cutter.fitting(repeated, group)
        last = group[-1]
        lines = last.block.last if last.whole else last.first + last.text.rstrip().count("\n")
        key = "".join(unit.text for unit in group)
        found.append(Chunk(text, key, group[0].first, lines))
    return found


class _Cutter:
    """Cuts the blocks of one section."""

    def __init__(self, section: Section, room: int, counter: Counter) -> None:
        self._section = section
        self._room = room
        self._counter = counter

    def groups(self, room: int) -> list[list[_Unit]]:
        """The units of each chunk."""
        units: list[_Unit] = []
        most = 0
        for block, tokens in zip(self._section.blocks, self._section.tokens, strict=True):
            if tokens <= room and len(block.text) <= self._longest(room):
                units.append(_Unit(block, block.text, tokens, block.strength, block.first, True))
            else:
                parts, repeated = self._parts(block, room)
                most = max(most, repeated)
                units.extend(parts)
        return self._lettered(self._fit(units, room - most)) if units else []

    def _lettered(self, groups: list[list[_Unit]]) -> list[list[_Unit]]:
        """The groups, those without letters joined to the next one, or the one before, where it fits."""
        found: list[list[_Unit]] = []
        for group in groups:
            if found and not (self._says(found[-1]) and self._says(group)):
                joined = [*found[-1], *group]
                if self._tokens([joined])[0] <= self._room:
                    found[-1] = joined
                    continue
            found.append(group)
        return found

    def _says(self, group: Sequence[_Unit]) -> bool:
        return has_letters(self._text(group))

    def tail(self, units: Sequence[_Unit], most: int) -> list[_Unit]:
        """The last units, in smaller parts if need be, that have at most so many tokens."""
        found: list[_Unit] = []
        for unit in reversed(units):
            parts = [unit] if unit.tokens <= most else self._parts(_as_block(unit), most)[0]
            for part in reversed(parts):
                most -= part.tokens
                if most < 0:
                    return found
                found.insert(0, replace(part, block=unit.block))
        return found

    def fitting(self, repeated: list[_Unit], own: list[_Unit]) -> str:
        """The text of a chunk, with as much of what it repeats as there is room for."""
        while repeated and self._tokens([[*repeated, *own]])[0] > self._room:
            repeated = repeated[1:]
        return self._text([*repeated, *own])

    def _fit(self, units: list[_Unit], room: int) -> list[list[_Unit]]:
        """Groups of units, none of which has more tokens than there is room for, counted as a whole."""
        found: list[list[_Unit]] = []
        groups = [units[lo:hi] for lo, hi in _intervals(units, max(room, 1), self._longest(room))]
        near = [g for g in groups if self._doubtful(g, room)]
        over = dict(zip(map(id, near), self._tokens(near), strict=True))
        for group in groups:
            excess = over.get(id(group), 0) - self._room
            less = min(room - 1, room - excess)
            if excess <= 0 or less < 1:
                found.append(group)
            elif len(group) > 1:
                found.extend(self._fit(group, less))
            else:
                parts, repeated = self._parts(_as_block(group[0]), less)
                found.extend(self._fit(parts, less - repeated) if len(parts) > 1 else [group])
        return found

    def _doubtful(self, group: Sequence[_Unit], room: int) -> bool:
        """Whether the tokens of the whole may be more than there is room for."""
        blocks = len({id(unit.block) for unit in group})
        tokens = sum(unit.tokens for unit in group) + 2 * blocks + self._room // 50
        return tokens > min(room, self._room) or self._lead(group) != ""

    def _tokens(self, groups: Sequence[Sequence[_Unit]]) -> list[int]:
        title = self._section.title
        texts = [f"{title} {self._text(group)}".strip() for group in groups]
        return [n - self._section.title_tokens for n in self._counter.count(texts)]

    def _longest(self, tokens: int) -> int:
        return max(tokens, 1) * _CHARS_A_TOKEN

    def _parts(self, block: Block, room: int) -> tuple[list[_Unit], int]:
        """A block cut into units of at most `room` tokens, and the tokens that each part repeats."""
        count = self._counter.count
        repeated = count([f"{block.head}\n{block.tail}"])[0] if block.kind != "text" else 0
        if repeated > room // 2:
            block, repeated = _unframed(block), 0
        strength, line = block.strength, block.first
        if block.kind == "text":
            texts = pieces(block.text, room, count)
        else:
            line += block.head.count("\n") + 1
            room -= repeated
            lines = block.body.rstrip("\n").split("\n")
            if block.kind == "table":
                texts = row_pieces(lines, room, count)
            else:
                texts = list(_code_pieces(lines, room, count))
        units = []
        opening = count([f"{block.opening}\n{block.tail}"])[0] if repeated else 0
        for n, (text, tokens, found) in enumerate(texts):
            opens = n == 0 and block.kind != "text"
            own = tokens + (opening if opens else 0)
            units.append(_Unit(block, text, own, found if n else strength, line, False, opens))
            line += text.count("\n")
        return units, repeated

    def _lead(self, units: Sequence[_Unit]) -> str:
        """The section's heading, for a chunk that says nothing by itself."""
        says = any(u.block.speaks and (u.whole or has_letters(u.text)) for u in units)
        return "" if says and any(map(_lettered, units)) else self._section.lead

    def _text(self, units: Sequence[_Unit]) -> str:
        lead = self._lead(units)
        text = ""
        for _, group in groupby(units, key=lambda unit: id(unit.block)):
            same = list(group)
            block = same[0].block
            part = "".join(unit.text for unit in same).strip("\n")
            if not same[0].whole and block.kind != "text":
                head = block.opening if same[0].opens else block.head
                part = "\n".join(filter(None, (head, part, block.tail)))
            elif not same[0].whole:
                part = _FENCE.sub("", part)
            text += ("\n" if block.joined else "\n\n") * bool(text) + part.rstrip()
        return (f"{lead}\n\n" if lead else "") + _dedented(text)


def _lettered(unit: _Unit) -> bool:
    return has_letters(unit.text if unit.whole else f"{unit.text} {unit.block.head}")


def _as_block(unit: _Unit) -> Block:
    """What is to be cut further: the whole block, or the part of it that the unit is."""
    if unit.whole:
        return unit.block
    if unit.block.kind == "text":
        return replace(unit.block, text=unit.text, first=unit.first, strength=unit.strength)
    opening = unit.block.opening if unit.opens else unit.block.head
    return replace(
        unit.block, body=unit.text, opening=opening, first=unit.first, strength=unit.strength
    )


def _unframed(block: Block) -> Block:
    """Code without its fences, or a table without its header in each part, for which there is no room."""
    first = block.opening.removeprefix(block.tail) if block.kind == "code" else block.opening
    text = "\n".join(filter(None, (first.strip(), block.body)))
    return replace(block, kind="text", text=text, first=block.first + (not first.strip()))


def _dedented(text: str) -> str:
    """The text without the indentation of its first line, in all lines that have as much."""
    indent = len(text) - len(text.lstrip(_INDENT))
    if not indent:
        return text
    lines = text.split("\n")
    return "\n".join(line[min(indent, len(line) - len(line.lstrip(_INDENT))) :] for line in lines)


def _code_pieces(
    lines: Sequence[str], room: int, count: Callable[[Sequence[str]], Sequence[int]]
) -> Iterator[tuple[str, int, int]]:
    """(text, tokens, strength) of the lines of code; the best place to cut is behind a blank line."""
    counts = count([line + "\n" for line in lines])
    after_blank = False
    for line, tokens in zip(lines, counts, strict=True):
        strength = ROW if after_blank and not line[:1].isspace() else WORD + 1
        if tokens <= room:
            yield line + "\n", tokens, strength
        else:
            for n, (text, own, found) in enumerate(pieces(line + "\n", room, count)):
                yield text, own, found if n else strength
        after_blank = not line.strip()


def _intervals(units: Sequence[_Unit], room: int, chars: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each chunk's units, in order."""
    tokens = np.concatenate([[0], np.cumsum([unit.tokens for unit in units])])
    lengths = np.concatenate([[0], np.cumsum([len(unit.text) for unit in units])])
    keys = np.array([_priority(unit) for unit in units])
    stack = [(0, len(units))]
    while stack:
        lo, hi = stack.pop()
        fits = tokens[hi] - tokens[lo] <= room and lengths[hi] - lengths[lo] <= chars
        if fits or hi - lo < 2:
            yield lo, hi
        else:
            sizes, most = (tokens, room) if tokens[hi] - tokens[lo] > room else (lengths, chars)
            cut = _cut(sizes, keys, lo, hi, most)
            stack += [(cut, hi), (lo, cut)]


def _priority(unit: _Unit) -> int:
    start = " ".join(unit.text[: 2 * _KEY_CHARS].split())[:_KEY_CHARS]
    return (unit.strength + 2 << 32) + zlib.crc32(start.encode("utf-8", "surrogatepass"))


def _cut(
    sizes: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], lo: int, hi: int, room: int
) -> int:
    """Where to cut lo..hi in two: two parts that fit if a sentence ends there, or none too small."""
    total = int(sizes[hi] - sizes[lo])
    for least, weakest in ((total - room, ROW), (room // 2, 0), (room // 4, 0), (0, 0)):
        if weakest and total > 2 * room:
            continue
        first = max(lo + 1, int(np.searchsorted(sizes, sizes[lo] + least, "left")))
        last = min(hi - 1, int(np.searchsorted(sizes, sizes[hi] - least, "right")) - 1)
        if first > last:
            continue
        found = keys[first : last + 1]
        best = found.max()
        if best >> 32 >= weakest + 2 or not weakest:
            ties = first + np.flatnonzero(found == best)
            middle = sizes[lo] + total / 2
            return int(ties[np.abs(sizes[ties] - middle).argmin()])
    return lo + 1
