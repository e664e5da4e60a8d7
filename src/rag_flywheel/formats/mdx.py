"""Converts MDX to Markdown: imports, exports and components' tags go, what they hold stays."""

import re
from collections.abc import Iterator, Sequence

_FRONT_MATTER = re.compile(r"---[ \t]*\n.*?\n---[ \t]*(?:\n|$)", re.DOTALL)
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})(.*)")
_MODULE = re.compile(r"(?:import|export)\s")
_COMMENT = re.compile(r"\{\s*/\*.*?\*/\s*\}", re.DOTALL)
_ATTRIBUTES = r"""(?:[^<>"'{}]|"[^"]*"|'[^']*'|\{(?:[^{}]|\{[^{}]*\})*\})*"""
_TAG = re.compile(rf"<(/?)([A-Z][\w.]*)(?=[\s/>])({_ATTRIBUTES})>|</?>")
_SHOWN = re.compile(
    r"""(?<![\w-])(?:title|label|name|summary|description|question|alt|caption)\s*="""
    r"""\s*(?:\{\s*)?(?:"([^"]*)"|'([^']*)'|\{?`([^`]*)`)"""
)
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)


def mdx_to_markdown(text: str) -> str:
    """Markdown of an MDX page.

    Of a component's tag, the attributes that readers see stay: title, label, name, summary,
    description, question, alt and caption. Indentation inside components goes, since it makes no
    code block in MDX; code blocks stay as they are.
    """
    matter = _FRONT_MATTER.match(text)
    start = matter.end() if matter else 0
    parts = (part if is_code else _plain(part) for is_code, part in _parts(text[start:]))
    return text[:start] + "".join(parts)


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """(whether it is a fenced code block, text) of each part; a block is moved to the left margin."""
    part: list[str] = []
    fence = indent = ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        found = _FENCE.match(line)
        if not fence and found and "`" not in found[2]:
            yield False, "".join(part)
            part, fence = [], found[1]
            indent = line[: len(line) - len(line.lstrip(" \t"))]
        part.append(line.removeprefix(indent) if fence else line)
        if (
            len(part) > 1
            and fence
            and found
            and found[1].startswith(fence)
            and not found[2].strip()
        ):
            yield True, "".join(part)
            part, fence, indent = [], "", ""
    yield bool(fence), "".join(part)


def _plain(part: str) -> str:
    blocks = re.split(r"(\n[ \t]*\n\s*)", part)
    kept: list[str] = []
    at, closes = 0, True
    while at < len(blocks):
        if not _MODULE.match(blocks[at].lstrip("\n")):
            kept.append(blocks[at])
        elif closes and (end := _end_of_module(blocks, at)) is not None:
            at = end
        else:
            closes = False  # what is never closed ends with its paragraph
        at += 1
    return _without_tags("".join(kept))


def _end_of_module(blocks: Sequence[str], start: int) -> int | None:
    """The block that closes the braces of the import or export in block `start`; None: none does."""
    depth = 0
    for number in range(start, len(blocks)):
        depth += blocks[number].count("{") - blocks[number].count("}")
        if depth <= 0:
            return number
    return None


def _without_tags(part: str) -> str:
    spans: list[str] = []

    def hide(found: "re.Match[str]") -> str:
        spans.append(found[0])
        return f"\0{len(spans) - 1}\0"

    hidden = _CODE_SPAN.sub(hide, part)
    plain = _TAG.sub(_shown, _COMMENT.sub("", hidden))
    if plain != hidden:
        plain = re.sub(r"^[ \t]+(?![ \t]*(?:[-*+]|\d+[.)])\s)", "", plain, flags=re.MULTILINE)
    return re.sub(r"\0(\d+)\0", lambda found: spans[int(found[1])], plain)


def _shown(tag: "re.Match[str]") -> str:
    if tag[2] is None or tag[1]:
        return ""
    values = [next(filter(None, found.groups()), "") for found in _SHOWN.finditer(tag[3])]
    said = ": ".join(" ".join(value.split()) for value in values if value.strip())
    return f"\n\n**{said}**\n\n" if said else ""
