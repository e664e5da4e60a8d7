"""Cuts Markdown and plain text into passages: a section a passage, a long section in several.

It knows texts and their names, and must not know where they were read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rag_flywheel.formats.anchors import Anchors, Site, page_url
from rag_flywheel.formats.blocks import Block, Heading, read_blocks, read_paragraphs
from rag_flywheel.formats.chunks import Chunk, Chunking, Counter, Section, chunk_section
from rag_flywheel.formats.front_matter import read_front_matter
from rag_flywheel.formats.marks import has_letters, has_words
from rag_flywheel.formats.passage_ids import PassageIds
from rag_flywheel.formats.pieces import pieces
from rag_flywheel.records import MetadataValue, Passage

_DEFAULT = Chunking()
_TITLE_SHARE = 3
"""A title takes a third of a chunk at most."""


def cut(
    text: str,
    source: str,
    *,
    markdown: bool,
    chunking: Chunking = _DEFAULT,
    base_url: str | None = None,
    anchors: Site = "github",
    name: str | None = None,
) -> list[Passage]:
    """The passages of a document, in its order.

    Each section is cut on its own, so that an edit in one leaves the passages of the others as they
    are. Ids are `source#slug` for a section that is one passage, and `source#slug.hash` for the parts
    of one. Titles are the page's and the headings above, joined by " > ". Metadata: `source`, `line`
    and `last_line` (from 1), `anchor` and `headings` below a heading, `url` if there is a `base_url`,
    and what front matter says.

    source: the document's name, the start of each id. chunking: how long passages are. base_url: the
    address that `source` is below. anchors: whose anchors and page addresses links have. name: the
    title of a page that gives itself none.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    matter, skip = read_front_matter(lines) if markdown else ({}, 0)
    items = read_blocks(lines, skip) if markdown else read_paragraphs(lines)
    parts = _parts(items, Anchors(anchors))
    page = _page_title(matter, name, parts)
    counter = Counter(chunking)
    _name(parts, page, chunking.tokens // _TITLE_SHARE, counter)
    url = None if base_url is None else page_url(base_url, source, anchors)
    ids = PassageIds(source, [(part.path, part.blocks) for part in parts])
    found = []
    for part, section in zip(parts, _sections(parts, page, counter), strict=True):
        if section is None:
            continue
        chunks = [c for c in chunk_section(section, chunking, counter) if has_words(c.text)]
        names = ids.of(part.path, part.blocks, [chunk.key for chunk in chunks])
        for id_, chunk in zip(names, chunks, strict=True):
            metadata = {**matter, **_metadata(source, part, chunk, url)}
            found.append(Passage(id_, chunk.text, part.title, metadata))
    return found


@dataclass
class _Part:
    """The blocks below a heading, and the headings above them, the last one its own."""

    path: tuple[Heading, ...]
    anchor: str
    blocks: list[Block] = field(default_factory=list)
    title: str = ""


def _parts(items: Sequence[Heading | Block], anchors: Anchors) -> list[_Part]:
    parts = [_Part((), "")]
    path: list[Heading] = []
    for item in items:
        if isinstance(item, Block):
            parts[-1].blocks.append(item)
            continue
        anchor = anchors.add(item.text, item.explicit)
        if has_words(item.text):
            path = [above for above in path if above.level < item.level] + [item]
            parts.append(_Part(tuple(path), anchor))
    return parts


def _page_title(
    matter: Mapping[str, MetadataValue], name: str | None, parts: Sequence[_Part]
) -> str | None:
    """What front matter says; else the name, if no heading of the first level gives one."""
    title = matter.get("title")
    if isinstance(title, str) and has_words(title):
        return " ".join(title.split())
    return name if all(part.path[0].level > 1 for part in parts if part.path) else None


def _name(parts: list[_Part], page: str | None, most: int, counter: Counter) -> None:
    """Give each part its title; headings that no title shows become blocks of their own.

    most: tokens of a title.
    """
    shown: set[int] = set()
    full = [_joined(page, part.path) for part in parts]
    for part, title, tokens in zip(parts, full, counter.count(full), strict=True):
        part.title, seen = title, part.path
        if tokens > most:
            part.title, seen = _shortened(page, part.path, most, counter)
        if part.path and part.path[-1] not in seen:
            part.blocks.insert(0, _as_block(part.path[-1]))
        if part.blocks:
            shown.update(map(id, seen))
    for part in reversed(parts):
        if part.path and not part.blocks and id(part.path[-1]) not in shown:
            part.blocks.append(_as_block(part.path[-1]))
            part.title, seen = _joined(page, part.path[:-1]), part.path[:-1]
            if counter.count([part.title])[0] > most:
                part.title, seen = _shortened(page, part.path[:-1], most, counter)
            shown.update(map(id, seen))


def _joined(page: str | None, path: Sequence[Heading]) -> str:
    names = [heading.text for heading in path]
    if page is not None and [name.casefold() for name in names[:1]] != [page.casefold()]:
        names.insert(0, page)
    return " > ".join(names)


def _shortened(
    page: str | None, path: Sequence[Heading], most: int, counter: Counter
) -> tuple[str, tuple[Heading, ...]]:
    """A title of at most so many tokens, and the headings that it shows whole."""
    last = tuple(path[-1:])
    shorter = [(_joined(page, last), last), (_joined(None, last), last)]
    for title, seen in shorter if path else []:
        if counter.count([title])[0] <= most:
            return title, seen
    start = pieces(_joined(None if path else page, last), most, counter.count)[0][0]
    return start.strip(), ()


def _as_block(heading: Heading) -> Block:
    return Block(heading.text, heading.first, heading.last)


def _sections(
    parts: Sequence[_Part], page: str | None, counter: Counter
) -> Iterator[Section | None]:
    """What is to be cut of each part, its tokens counted; None for a part that has nothing."""
    blocks = iter(counter.count([block.text for part in parts for block in part.blocks]))
    titles = counter.count([part.title for part in parts])
    leads = [_lead(part, page) for part in parts]
    for part, title, lead, tokens in zip(parts, titles, leads, counter.count(leads), strict=True):
        counts = [next(blocks) for _ in part.blocks]
        if part.blocks:
            yield Section(part.blocks, counts, part.title, title, lead, tokens)
        else:
            yield None


def _lead(part: _Part, page: str | None) -> str:
    """The section's heading, with those above it that it takes to have letters."""
    names = [*([page] if page else []), *(heading.text for heading in part.path)]
    if part.blocks and names and part.blocks[0].text == names[-1]:
        names.pop()
    for first in range(len(names) - 1, -1, -1):
        if has_letters(names[first]):
            return " > ".join(names[first:])
    return ""


def _metadata(source: str, part: _Part, chunk: Chunk, url: str | None) -> dict[str, MetadataValue]:
    found: dict[str, MetadataValue] = {
        "source": source,
        "line": chunk.first,
        "last_line": chunk.last,
    }
    if part.path:
        found["anchor"] = part.anchor
        found["headings"] = " > ".join(heading.text for heading in part.path)
    if url is not None:
        found["url"] = f"{url}#{part.anchor}" if part.anchor else url
    return found
