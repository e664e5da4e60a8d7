"""Cuts Markdown and plain text into passages, a section a passage, long sections in several."""

import re

from rag_flywheel.records import Passage

CHUNK_CHARS = (400, 1200)
"""A chunk is filled up to between these many characters, at the best place to cut."""


def cut(text: str, source: str, *, markdown: bool) -> list[Passage]:
    """A document as passages: a section a passage, long sections in several.

    Each section is cut on its own, so that an edit in one leaves the passages of the others as
    they are. Ids are source#section.number; titles the headings above.
    """
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    splitter = (MarkdownSplitter if markdown else TextSplitter)(CHUNK_CHARS)
    sections = _sections(text) if markdown else [((), text)]
    found, used = [], dict[str, int]()
    for headings, body in sections:
        slug = _slug(headings[-1]) if headings else "top"
        used[slug] = used.get(slug, 0) + 1
        name = slug if used[slug] == 1 else f"{slug}-{used[slug]}"
        for number, chunk in enumerate(filter(str.strip, splitter.chunks(body)), 1):
            found.append(
                Passage(
                    f"{source}#{name}.{number}", chunk, " > ".join(headings), {"source": source}
                )
            )
    return found


def _sections(text: str) -> list[tuple[tuple[str, ...], str]]:
    """(headings from the top down, text) of each Markdown section."""
    from markdown_it import MarkdownIt

    lines = text.splitlines(keepends=True)
    tokens = MarkdownIt().parse(text)
    path: list[tuple[int, str]] = []
    found: list[tuple[tuple[str, ...], str]] = []
    start = 0
    above: tuple[str, ...] = ()
    for i, token in enumerate(tokens):
        if token.type != "heading_open" or token.level or token.map is None:
            continue
        found.append((above, "".join(lines[start : token.map[0]])))
        level = int(token.tag[1])
        path = [p for p in path if p[0] < level] + [(level, tokens[i + 1].content)]
        start, above = token.map[1], tuple(name for _, name in path)
    found.append((above, "".join(lines[start:])))
    return [(headings, body) for headings, body in found if body.strip()]


def _slug(heading: str) -> str:
    return re.sub(r"[^\w]+", "-", heading.lower()).strip("-") or "section"
