"""Rules that teach markdown-it the marks of documentation sites: containers, comments, imports, math.

They know lines and tokens, and must not know passages.
"""

import re
from typing import Any

from rag_flywheel.formats.marks import label_key

MOST_NESTING = 20
"""Lists and quotes nested deeper are read as plain text."""
_INTERRUPTS: Any = {"alt": ["paragraph", "reference", "blockquote", "list"]}
_ADMONITION = re.compile(
    r"(?:!!!|\?\?\?\+?)(?:[ \t]+[\w-]+)*(?:[ \t]+\"(?P<title>.*)\")?[ \t]*$"
    r"|===[!+]?[ \t]+\"(?P<tab>.*)\"[ \t]*$"
)
_COLONS = re.compile(r":{3,}[ \t]*(?P<kind>\{[^{}]*\}|[\w-]+(?![^\s\[{]))?(?P<rest>.*)$")
_SLASHES = re.compile(r"/{3,}[ \t]*(?:[\w-]+[ \t]*(?:\|[ \t]*(?P<title>.*))?)?$")
_LONE = re.compile(
    r"\[\[toc\]\][ \t]*$|\[TOC\][ \t]*$|\{:?[ \t]*[.#][^{}]*\}[ \t]*$", re.IGNORECASE
)
_IMPORT = re.compile(r"import\s+(?:[\w*{][^'\"\n;]*\s+from\s+)?['\"][^'\"\n]+['\"][ \t]*;?[ \t]*$")
_IMPORT_OPEN = re.compile(r"import\s+(?:\w+\s*,\s*)?\{[^{}'\"]*$")
_EXPORT = re.compile(
    r"export\s+(?:(?:const|let|var)\s+[\w${\[][^=]*=|(?:default\s+)?(?:async\s+)?function\b[^(]*\(|default\s*[{(\[]"
    r"|default\s+\w+\s*;?[ \t]*$(?<=;)|[{*][^'\"]*(?:from|\}))"
)
_RAW = re.compile(r"<(?:script|pre|style|textarea)(?:[\s>]|$)", re.IGNORECASE)
_RAW_ENDS = re.compile(r"</(?:script|pre|style|textarea)>", re.IGNORECASE)
_DEFINITION = re.compile(
    r"\[(?!\^)((?:[^\[\]\\]|\\.){1,999})\]:[ \t]*(<[^<>]*>|[^\s<]\S*)"
    r"(?:[ \t]+(\"[^\"]*\"|'[^']*'|\([^()]*\)))?[ \t]*$"
)


def parser() -> Any:
    """A MarkdownIt that finds blocks alone, with the rules of this module, in linear time."""
    from markdown_it import MarkdownIt

    md: Any = MarkdownIt("commonmark", {"maxNesting": MOST_NESTING}).enable("table")
    md.core.ruler.disable(["inline", "text_join"])
    md.block.ruler.at("reference", _definition)
    for name, rule in (
        ("comment", _comment),
        ("raw", _raw),
        ("math", _math),
        ("container", _container),
    ):
        md.block.ruler.before("table", name, rule, _INTERRUPTS)
    md.block.ruler.before("table", "admonition", _admonition, _INTERRUPTS)
    md.block.ruler.before("table", "module", _module)
    return md


def _line(state: Any, number: int) -> str:
    return str(state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]])


def _emit(state: Any, kind: str, start: int, end: int, content: str = "") -> bool:
    token = state.push(kind, "", 0)
    token.map = [start, end]
    token.content = content
    state.line = end
    return True


def _comment(state: Any, start: int, end: int, silent: bool) -> bool:
    """<!-- to --> is a comment, over blank lines too; one that is not closed is text."""
    line = _line(state, start)
    if not line.startswith("<!--") or state.is_code_block(start):
        return False
    if silent:
        return True
    if "last_comment_end" not in state.env:
        state.env["last_comment_end"] = state.src.rfind("-->")
    last = state.env["last_comment_end"]
    begin = state.bMarks[start] + state.tShift[start] + 4
    if begin > last:
        return _emit(state, "unclosed", start, start + 1, line[4:])
    close = state.src.find("-->", begin)
    n = start
    while n + 1 < end and state.eMarks[n] < close + 3:
        n += 1
    return _emit(state, "comment", start, n + 1, state.src[close + 3 : state.eMarks[n]])


def _raw(state: Any, start: int, end: int, silent: bool) -> bool:
    """<script>, <pre>, <style> and <textarea> that are not closed do not hide the rest of the file."""
    line = _line(state, start)
    if not _RAW.match(line) or state.is_code_block(start):
        return False
    if "last_raw_end" not in state.env:
        ends = [found.start() for found in _RAW_ENDS.finditer(state.src)]
        state.env["last_raw_end"] = max(ends, default=-1)
    if state.bMarks[start] <= state.env["last_raw_end"]:
        return False
    return silent or _emit(state, "unclosed", start, start + 1, line)


def _math(state: Any, start: int, end: int, silent: bool) -> bool:
    """$$ to $$ is one block, in which = and - underline nothing."""
    line = _line(state, start).rstrip()
    if not line.startswith("$$") or state.is_code_block(start):
        return False
    n = start
    if len(line) < 4 or not line.endswith("$$"):
        if start >= state.env.get("math_unclosed", end):
            return False
        n += 1
        while n < end and not _line(state, n).rstrip().endswith("$$"):
            n += 1
        if n == end:
            state.env["math_unclosed"] = min(start, state.env.get("math_unclosed", start))
            return False
    return silent or _emit(state, "math", start, n + 1)


def _container(state: Any, start: int, end: int, silent: bool) -> bool:
    """::: kind title, /// kind | title, [[toc]] and {.class} are marks; a title is text."""
    line = _line(state, start)
    if line[:1] not in {":", "/", "[", "{"} or state.is_code_block(start):
        return False
    if _LONE.match(line):
        return silent or _emit(state, "mark", start, start + 1)
    if found := _COLONS.match(line):
        title = re.sub(r"\{[^{}]*\}\s*$", "", found["rest"]).strip()
        title = title[1:-1] if title[:1] == "[" and title[-1:] == "]" else title
    elif found := _SLASHES.match(line):
        title = found["title"] or ""
    else:
        return False
    return silent or _emit(state, "mark", start, start + 1, title)


def _admonition(state: Any, start: int, end: int, silent: bool) -> bool:
    """!!! kind "title", ??? and === "tab", and the lines below them that are indented by four."""
    line = _line(state, start)
    if line[:1] not in {"!", "?", "="} or state.is_code_block(start):
        return False
    found = _ADMONITION.match(line)
    if found is None:
        return False
    last = n = start + 1
    while n < end and (state.isEmpty(n) or state.sCount[n] - state.blkIndent >= 4):
        n += 1
        last = last if state.isEmpty(n - 1) else n
    title = found["title"] or found["tab"] or ""
    if not title and last == start + 1:
        return False
    if silent:
        return True
    old = state.parentType, state.lineMax, state.blkIndent
    opened = state.push("admonition_open", "div", 1)
    opened.map = [start, last]
    _emit(state, "mark", start, start + 1, title)
    if last > start + 1:
        state.parentType, state.lineMax = "admonition", last
        state.blkIndent += 4
        state.md.block.tokenize(state, start + 1, last)
        state.parentType, state.lineMax, state.blkIndent = old
    state.push("admonition_close", "div", -1)
    state.line = last
    return True


def _module(state: Any, start: int, end: int, silent: bool) -> bool:
    """The imports and exports of MDX, up to a blank line."""
    line = _line(state, start)
    if silent or state.level or not line.startswith(("import", "export")):
        return False
    if state.is_code_block(start):
        return False
    if _IMPORT.match(line):
        return _emit(state, "module", start, start + 1)
    if not (_IMPORT_OPEN.match(line) or _EXPORT.match(line)):
        return False
    n = start + 1
    while n < end and not state.isEmpty(n):
        n += 1
    return _emit(state, "module", start, n)


def _definition(state: Any, start: int, end: int, silent: bool) -> bool:
    """[label]: address "title", on one line."""
    if silent or state.is_code_block(start):
        return False
    found = _DEFINITION.match(_line(state, start))
    if found is None:
        return False
    label, address, title = found.groups()
    target = address.strip("<>") + (f" {title}" if title else "")
    state.env.setdefault("definitions", {}).setdefault(label_key(label), target)
    return _emit(state, "definition", start, start + 1, label_key(label))
