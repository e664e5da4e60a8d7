"""Names passages so that an insertion elsewhere renames none, and no name comes twice."""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from rag_flywheel.formats.anchors import slug
from rag_flywheel.formats.blocks import Block, Heading

_TOP = "top"
_START = 80
"""A part is named by its first characters, so many, if no other part of the section has the same."""

Path = Sequence[Heading]


class PassageIds:
    """The ids of one document's passages.

    A section is named by its heading's slug; one whose slug comes again in the document by its
    parent's and its own, then by all above it, then by its text as well. Parts of a section are named
    by a hash of their first words, parts that begin alike by one of all their words.
    """

    def __init__(self, source: str, sections: Sequence[tuple[Path, Sequence[Block]]]) -> None:
        self._source = source
        self._used: dict[str, int] = {}
        self._levels = [Counter(_slugs(path, n) for path, _ in sections) for n in _DEPTHS]

    def of(self, path: Path, blocks: Sequence[Block], keys: Sequence[str]) -> list[str]:
        """The ids of a section's parts. keys: the own words of each."""
        name = self._section(path, blocks)
        if len(keys) < 2:
            return [self._free(name) for _ in keys]
        starts = [" ".join(key[: 2 * _START].split())[:_START] for key in keys]
        times = Counter(starts)
        return [
            self._free(f"{name}.{_hash(start if times[start] == 1 else ' '.join(key.split()))}")
            for start, key in zip(starts, keys, strict=True)
        ]

    def _section(self, path: Path, blocks: Sequence[Block]) -> str:
        for n, times in zip(_DEPTHS, self._levels, strict=True):
            if times[name := _slugs(path, n)] == 1:
                return name
        return f"{name}.{_hash(' '.join(' '.join(block.text for block in blocks).split()))}"

    def _free(self, name: str) -> str:
        """The id of this name, or of this name and a number if another passage has it."""
        found, n = name, self._used.get(name, 0)
        while found in self._used:
            n += 1
            found = f"{name}-{n + 1}"
        self._used[name] = n
        self._used.setdefault(found, 0)
        return f"{self._source}#{found}"


_DEPTHS = (1, 2, 6)


def _slugs(path: Path, most: int) -> str:
    """The slugs of the last headings, at most so many."""
    if not path:
        return _TOP
    return "/".join(heading.explicit or slug(heading.text) or "section" for heading in path[-most:])


def _hash(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
