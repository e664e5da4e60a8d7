"""Converts Jupyter notebooks to Markdown: the sources of their cells, without outputs."""

import json
import re
from collections.abc import Mapping
from typing import Any

from rag_flywheel.errors import InputError

_OPENS = re.compile(r"[ \t>*+\d.)-]*(<!--|<(?:script|pre|style|textarea)\b)", re.IGNORECASE)
"""What makes all lines HTML up to its end, however far that is."""
_ENDS = re.compile(r"-->|</(?:script|pre|style|textarea)", re.IGNORECASE)


def notebook_to_markdown(text: str) -> str:
    """Markdown of a notebook: its text cells as they are, code cells as code blocks.

    Raises InputError for what is no notebook.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is no JSON ({error}); expected a Jupyter notebook") from error
    cells = _cells(found)
    if cells is None:
        raise InputError("it has no list of cells; expected a Jupyter notebook")
    language = _language(found)
    return "\n\n".join(filter(None, (_markdown(cell, language) for cell in cells)))


def _cells(found: Any) -> list[Any] | None:
    if not isinstance(found, dict):
        return None
    if isinstance(cells := found.get("cells"), list):
        return cells
    if isinstance(sheets := found.get("worksheets"), list):  # of format 3
        parts = [sheet.get("cells") for sheet in sheets if isinstance(sheet, dict)]
        return [cell for part in parts if isinstance(part, list) for cell in part]
    return None


def _language(found: Mapping[str, Any]) -> str:
    metadata = found.get("metadata")
    for key, name in (("language_info", "name"), ("kernelspec", "language")):
        about = metadata.get(key) if isinstance(metadata, dict) else None
        language = about.get(name) if isinstance(about, dict) else None
        if isinstance(language, str) and re.fullmatch(r"[\w+#.-]+", language):
            return language
    return ""


def _markdown(cell: Any, language: str) -> str:
    if not isinstance(cell, dict):
        return ""
    source = cell.get("source", cell.get("input", ""))
    lines = source if isinstance(source, list) else [source]
    text = "".join(line for line in lines if isinstance(line, str)).strip("\n")
    if not text.strip():
        return ""
    kind = cell.get("cell_type")
    if kind == "code":
        return code_block(text, language)
    if kind == "heading":  # of format 3
        level = cell.get("level")
        n = level if isinstance(level, int) and 1 <= level <= 6 else 1
        return "#" * n + " " + " ".join(text.split())
    return _contained(text)


def code_block(text: str, language: str = "") -> str:
    """A Markdown code block, fenced by more backticks than stand in a row in its text."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _contained(text: str) -> str:
    """A text cell of which nothing reaches into the next one: a code block that it leaves open is
    closed, and the mark of a comment or an element that it leaves open is text."""
    ends = {found[0].lower(): found.start() for found in _ENDS.finditer(text)}
    fence, lines, at = "", list[str](), 0
    for line in text.split("\n"):
        found = re.match(r" {0,3}(`{3,}|~{3,})(.*)", line)
        opens = None if fence else _OPENS.match(line)
        if found and not fence:
            fence = found[1]
        elif found and found[1].startswith(fence) and not found[2].strip():
            fence = ""
        if opens and ends.get(_end_of(opens[1].lower()), -1) < at:
            lines.append(f"{opens[0][: -len(opens[1])]}&lt;{line[opens.start(1) + 1 :]}")
        else:
            lines.append(line)
        at += len(line) + 1
    return "\n".join([*lines, fence] if fence else lines)


def _end_of(mark: str) -> str:
    return "-->" if mark == "<!--" else f"</{mark[1:]}"
