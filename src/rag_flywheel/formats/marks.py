"""Tells words from marks in Markdown: comments, tags, container marks, includes, link targets.

All patterns take linear time on any text.
"""

import re
from collections.abc import Iterator, Mapping

# Elements of HTML whose tags say nothing; any other lower-case name may be a placeholder: <name>.
_ELEMENTS = frozenset(
    """
    a abbr address area article aside audio b base bdi bdo blockquote body br button canvas
    caption center circle cite code col colgroup data datalist dd defs del details dfn dialog
    div dl dt em embed fieldset figcaption figure font footer form g h1 h2 h3 h4 h5 h6 head
    header hgroup hr html i iframe img input ins kbd label legend li line link main map mark
    menu meta meter nav noscript object ol optgroup option output p path picture polygon
    polyline pre progress q rect rp rt ruby s samp script search section select slot small
    source span strike strong style sub summary sup svg symbol table tbody td template text
    textarea tfoot th thead time title tr track tt u ul use var video wbr
    """.split()  # noqa: SIM905
)
_TAG = re.compile(
    r"(?<!\\)</?([A-Za-z][\w.:-]*)"
    r"((?:\s+[\w:@#.*-][\w:@#.*\[\]-]*(?:\s*=\s*(?:\"[^\"]{0,4000}\"|'[^']{0,4000}'|[^\s\"'=<>`]+))?)*)"
    r"\s*/?>"
)
_SPEAKING = re.compile(
    r"(?:^|\s)(?:alt|title|label|text|summary|caption|aria-label)\s*=\s*(\"[^\"]*\"|'[^']*')"
)
_TARGET = re.compile(r"\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*")
_ADDRESS = re.compile(r"<?(?:https?://|mailto:|www\.)[^\s<>]*>?")
_INCLUDES = re.compile(
    r"\{\*[^{}]*\*\}|\{%[^{}]*%\}|\{\{[<%][^{}]*[%>]\}\}|^[ \t]*(?:<<<|--8<--|@include)[^\n]*$"
    r"|^[ \t]*\[\[toc\]\][ \t]*$|^[ \t]*\[TOC\][ \t]*$|\{:?[ \t]*[.#][^{}\n]*\}",
    re.MULTILINE | re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"(!?)\[((?:[^\[\]\\]|\\.){1,999})\](?:\[((?:[^\[\]\\]|\\.){0,999})\])?(?![(:\[])", re.DOTALL
)


def speaks(text: str) -> bool:
    """Whether there are letters outside tags, link targets, bare addresses and includes."""
    plain = _INCLUDES.sub(" ", text)
    plain = _TARGET.sub("]", plain)
    plain = _ADDRESS.sub(" ", plain)
    return any(map(str.isalpha, without_tags(plain)))


def has_letters(text: str) -> bool:
    """Whether there is any letter."""
    return any(map(str.isalpha, text))


def has_words(text: str) -> bool:
    """Whether there is any letter or digit."""
    return any(map(str.isalnum, text))


def without_tags(text: str) -> str:
    """The text without the tags of HTML and of components; what alt and title say stays."""
    return _TAG.sub(_tag_words, text) if "<" in text else text


def untagged(text: str) -> str:
    """The text without the tags of HTML and of components."""
    return _TAG.sub(lambda tag: tag[0] if _is_word(tag[1]) else "", text) if "<" in text else text


def _is_word(name: str) -> bool:
    """Whether the name of a tag is no element's or component's, so that <name> stands for something."""
    return name.lower() not in _ELEMENTS and name.islower() and not set("-.:") & set(name)


def _tag_words(tag: re.Match[str]) -> str:
    if _is_word(tag[1]):
        return tag[0]
    said = [value[1:-1].strip() for value in _SPEAKING.findall(tag[2])]
    return " ".join(filter(None, said))


def html_words(text: str) -> str:
    """The lines of an HTML block that have words, without the tags."""
    lines = (line.strip() for line in without_tags(without_comments(text)).split("\n"))
    return "\n".join(line for line in lines if has_words(line))


def code_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of each code span between backticks, in order."""
    runs = [(m.start(), m.end()) for m in re.finditer(r"`+", text)]
    return list(_spans(runs))


def _spans(runs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    after: dict[int, list[int]] = {}
    for i in range(len(runs) - 1, -1, -1):
        after.setdefault(runs[i][1] - runs[i][0], []).append(i)
    i = 0
    while i < len(runs):
        start, end = runs[i]
        same = after[end - start]
        while same and same[-1] <= i:
            same.pop()
        if same:
            i = same[-1]
            yield start, runs[i][1]
        i += 1


def without_comments(text: str) -> str:
    """The text without HTML comments; those in code spans, and what is not closed, stay."""
    if "<!--" not in text or "-->" not in text:
        return text
    coded = code_spans(text)
    parts, at, span = [], 0, 0
    for mark in re.finditer(r"<!--", text):
        while span < len(coded) and coded[span][1] <= mark.start():
            span += 1
        if mark.start() < at or (span < len(coded) and coded[span][0] <= mark.start()):
            continue
        end = text.find("-->", mark.end())
        if end < 0:
            break
        parts.append(text[at : mark.start()])
        at = end + 3
    return "".join([*parts, text[at:]])


def with_targets(text: str, definitions: Mapping[str, str]) -> str:
    """The text with the targets of its reference links in place: [a][b] becomes [a](address).

    definitions: address and title by label, as `label_key` writes it.
    """
    if not definitions or "[" not in text:
        return text
    coded = code_spans(text)
    parts, at, span = [], 0, 0
    for link in _REFERENCE.finditer(text):
        while span < len(coded) and coded[span][1] <= link.start():
            span += 1
        target = definitions.get(label_key(link[3] or link[2]))
        if target is None or (span < len(coded) and coded[span][0] <= link.start()):
            continue
        parts.append(f"{text[at : link.start()]}{link[1]}[{link[2]}]({target})")
        at = link.end()
    return "".join([*parts, text[at:]])


def label_key(label: str) -> str:
    """A link's label, as CommonMark compares them."""
    return " ".join(label.split()).casefold()


def used_labels(text: str, definitions: Mapping[str, str]) -> set[str]:
    """The labels among the definitions that a link or picture of the text uses."""
    if not definitions:
        return set()
    return {
        label_key(link[3] or link[2]) for link in _REFERENCE.finditer(text)
    } & definitions.keys()
