"""Finds the blocks of a Markdown document: headings, and between them paragraphs, code, rows of tables.

Every line with words belongs to one block or is a mark, so nothing is lost. Lines end at a line feed
alone, here as in the parser: form feeds and U+2028 are characters of a line.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from rag_flywheel.formats import rules
from rag_flywheel.formats.marks import (
    has_words,
    html_words,
    speaks,
    untagged,
    used_labels,
    with_targets,
    without_comments,
)

TOPIC, BLOCK, ITEM, INNER, INTRODUCED, GLUED = 7, 6, 5, 4, 3, -1
"""How well a document can be cut before a block: a bold line; any block; an item of a list; inside of
an item; what a colon introduces; what says nothing without the block before."""
_LONGEST_INLINE = 1_000  # characters of a heading whose emphasis and links are parsed
_INTRODUCES = (":", "：", ":**", "：**")
_ATTRIBUTES = re.compile(r"\s*\{\s*:?\s*(?P<inside>[.#][^{}]*)\}\s*$")
_BOLD = re.compile(r"(?:\*\*|__)[^\n]*(?:\*\*|__)[.:]?\s*$")
_END_ANCHOR = re.compile(r"[ \t]*\{:?[ \t]*#[\w:.-]+[ \t]*\}[ \t]*$", re.MULTILINE)
_LONE_FENCE = re.compile(r"^[ \t>]*(?:`{3,}|~{3,})[ \t]*([\w-]*)[ \t]*$", re.MULTILINE)
_SCRIPT = re.compile(r"\s*<(script|style)\b.*</\1\s*>\s*$", re.DOTALL | re.IGNORECASE)
_CONTAINERS = frozenset(
    {
        "bullet_list_open",
        "ordered_list_open",
        "list_item_open",
        "blockquote_open",
        "admonition_open",
    }
)
_EXPLICIT = re.compile(r"(?:^|\s)#([^\s.#{}]+)")


@dataclass(frozen=True)
class Block:
    """A part of a document that is cut only when it is too long by itself.

    text: as it stands in a passage. kind: how its parts are made. head, body, tail: of code, the
    opening fence, the lines and the closing fence; of a table, its two header lines, its rows and "".
    opening: what its first part has for a head, with all that stands behind the fence.
    first, last: its lines, from 1. strength: how well a document can be cut before it. joined: whether
    it follows the block before without a blank line. speaks: whether it says more than addresses do.
    """

    text: str
    first: int
    last: int
    kind: Literal["text", "code", "table"] = "text"
    head: str = ""
    opening: str = ""
    body: str = ""
    tail: str = ""
    strength: int = BLOCK
    joined: bool = False
    speaks: bool = True


@dataclass(frozen=True)
class Heading:
    """A heading's level from 1 to 6, its text without marks, and the anchor its source asks for."""

    level: int
    text: str
    explicit: str | None
    first: int
    last: int


def read_blocks(lines: Sequence[str], skip: int) -> list[Heading | Block]:
    """Headings and blocks in the order of the document.

    lines: without their ends; skip: how many of them are front matter.
    """
    env: dict[str, Any] = {}
    source = "\n".join(lines[skip:])
    tokens = _parser().parse(source, env)
    targets: Mapping[str, str] = env.get("definitions", {})
    return list(_Reader(lines, skip, targets, used_labels(source, targets)).read(tokens))


def read_paragraphs(lines: Sequence[str]) -> list[Block]:
    """The paragraphs of a plain text, between its blank lines, as blocks."""
    found: list[Block] = []
    first = 0
    for number in range(len(lines) + 1):
        if number < len(lines) and lines[number].strip():
            continue
        text = "\n".join(lines[first:number])
        if text.strip():
            strength = BLOCK if has_words(text) else GLUED
            found.append(Block(text, first + 1, number, strength=strength, speaks=speaks(text)))
        first = number + 1
    return found


@cache
def _parser() -> Any:
    return rules.parser()


class _Reader:
    """Walks over the tokens of one document, and over the lines that no token has."""

    def __init__(
        self, lines: Sequence[str], skip: int, targets: Mapping[str, str], used: set[str]
    ) -> None:
        self._lines = lines
        self._skip = skip
        self._targets = targets
        self._used = used
        self._at = skip  # the first line that is not read yet
        self._path: list[Any] = []  # the containers of the block before
        self._containers: list[Any] = []
        self._next = BLOCK  # the most strength that the next block may have
        self._joined = False

    def read(self, tokens: Sequence[Any]) -> Iterator[Heading | Block]:
        n = 0
        while n < len(tokens):
            token = tokens[n]
            if token.type in _CONTAINERS:
                self._containers.append(token)
            elif token.nesting == -1 and token.type.replace("_close", "_open") in _CONTAINERS:
                self._containers.pop()
            elif token.map is not None and token.nesting >= 0 and token.type != "inline":
                first, last = token.map[0] + self._skip, token.map[1] + self._skip
                yield from self._skipped(first)
                if token.type == "heading_open" and not token.level:
                    yield self._heading(token, tokens[n + 1].content, first, last)
                else:
                    yield from self._blocks(token, first, last)
                self._at = max(self._at, last)
                while token.type == "table_open" and tokens[n].type != "table_close":
                    n += 1
            n += 1
        yield from self._skipped(len(self._lines))

    def _skipped(self, end: int) -> Iterator[Block]:
        """The lines before `end` that no token has: blank ones, or nested too deeply."""
        lines = self._lines[self._at : end]
        if any(map(has_words, lines)):
            yield from self._text(self._raw(self._at, end), self._at, end)
        elif lines:
            self._joined = False
        self._at = max(self._at, end)

    def _heading(self, token: Any, content: str, first: int, last: int) -> Heading:
        self._path, self._joined, self._next = [], False, BLOCK
        found = _ATTRIBUTES.search(content)
        explicit = _EXPLICIT.search(found["inside"]) if found else None
        text = content[: found.start()] if found else content
        plain = " ".join(plain_inline(_LONE_FENCE.sub(r"\1", text), self._targets).split())
        return Heading(int(token.tag[1]), plain, explicit and explicit[1], first + 1, last)

    def _blocks(self, token: Any, first: int, last: int) -> Iterator[Block]:
        kind = token.type
        if kind in {"fence", "code_block"} and not has_words(token.content + token.info):
            self._joined = False
        elif kind == "fence":
            yield self._fence(token, first, last)
        elif kind == "code_block":
            yield self._indented(token, first)
        elif kind == "table_open":
            yield self._table(first, last)
        elif kind == "html_block" and not _SCRIPT.match(token.content):
            yield from self._text(html_words(self._raw(first, last)), first, last)
        elif kind in {"comment", "unclosed"}:
            yield from self._text(token.content.strip(), first, last)
        elif kind == "mark" and has_words(token.content):
            yield self._block(Block(token.content, first + 1, last, strength=TOPIC))
            self._next, self._joined = GLUED, False
        elif kind == "definition" and token.content not in self._used:
            yield from self._text(self._raw(first, last), first, last, targets={})
        elif kind in {"paragraph_open", "heading_open", "math"}:
            yield from self._text(self._raw(first, last), first, last)
        else:
            self._joined = False

    def _text(
        self, raw: str, first: int, last: int, targets: Mapping[str, str] | None = None
    ) -> Iterator[Block]:
        text = _END_ANCHOR.sub("", without_comments(raw)).strip("\n")
        text = with_targets(text, self._targets if targets is None else targets)
        text = _LONE_FENCE.sub(r"\1", text).strip("\n")
        says = speaks(text)
        if not says and "<" in text:
            text = html_words(text)
        if not has_words(text):
            self._joined = False
            return
        strength = TOPIC if _BOLD.match(text) else BLOCK
        yield self._block(Block(text, first + 1, last, strength=strength, speaks=says))

    def _fence(self, token: Any, first: int, last: int) -> Block:
        raw = self._raw(first, last)
        before, mark, _ = raw.partition(token.markup)
        lines = raw.split("\n")
        indent = re.sub(r"[^>]", " ", before)
        if len(lines) < 2 or lines[-1].strip(" \t>") != token.markup[0] * max(
            len(token.markup), len(lines[-1].strip(" \t>"))
        ):
            raw = raw.rstrip("\n") + f"\n{indent}{mark}"
        language = token.info.split()[:1]
        head = token.markup + (language[0] if language else "")
        opening = f"{token.markup}{token.info}".rstrip()
        return self._block(
            Block(raw, first + 1, last, "code", head, opening, token.content, token.markup)
        )

    def _indented(self, token: Any, first: int) -> Block:
        """Indented code gets a fence, so that its parts are code as well."""
        code = token.content.rstrip("\n")
        longest = max(map(len, re.findall(r"`{3,}", code)), default=2)
        fence = "`" * (longest + 1)
        last = first + code.count("\n") + 1
        return self._block(
            Block(f"{fence}\n{code}\n{fence}", first + 1, last, "code", fence, fence, code, fence)
        )

    def _table(self, first: int, last: int) -> Block:
        raw = self._raw(first, last)
        rows = [line.lstrip(" \t>") for line in with_targets(raw, self._targets).split("\n")]
        head, body = "\n".join(rows[:2]), "\n".join(rows[2:])
        return self._block(Block("\n".join(rows), first + 1, last, "table", head, head, body))

    def _block(self, block: Block) -> Block:
        """The block with what its place in the document says about cutting before it."""
        shared = sum(a is b for a, b in zip(self._containers, self._path, strict=False))
        strength = block.strength if not shared else ITEM if shared == 1 else INNER
        joined, self._joined = self._joined, True
        self._path = list(self._containers)
        most, self._next = self._next, TOPIC
        if block.text.rstrip().endswith(_INTRODUCES):
            self._next = INTRODUCED
        if not block.speaks:
            most = GLUED
        return replace(block, strength=min(strength, most), joined=joined)

    def _raw(self, first: int, last: int) -> str:
        """These lines, without the blank ones around them and the indentation of admonitions."""
        lines = self._lines[max(first, self._at) : last]
        if depth := sum(c.type == "admonition_open" for c in self._containers):
            lines = [re.sub(rf"^ {{0,{4 * depth}}}", "", line) for line in lines]
        return "\n".join(lines).strip("\n")


def plain_inline(text: str, targets: Mapping[str, str]) -> str:
    """The words of a line of Markdown: without emphasis, link targets, tags and backticks."""
    if len(text) > _LONGEST_INLINE:
        return untagged(text)
    references = {
        key.upper(): {"href": target, "title": ""}
        for key, target in targets.items()
        if len(key) < 200
    }
    children = _inline().parseInline(text, {"references": references})[0].children or []
    return "".join(map(_inline_words, children))


@cache
def _inline() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")


def _inline_words(token: Any) -> str:
    if token.type in {"softbreak", "hardbreak"}:
        return " "
    return untagged(token.content) if token.type == "html_inline" else str(token.content)
