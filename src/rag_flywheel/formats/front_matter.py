"""Reads front matter: the YAML (between ---) or TOML (between +++) at the top of a Markdown file."""

import re
import tomllib
from collections.abc import Mapping
from datetime import date, time
from typing import Any

from rag_flywheel.records import MetadataValue

_MOST_CHARS = 65_536
_ENDS = {"---": ("---", "..."), "+++": ("+++",)}
_PAIR = re.compile(r"([\w.-]+)\s*:(?:\s+(.*))?$")


def read_front_matter(lines: list[str]) -> tuple[dict[str, MetadataValue], int]:
    """What front matter says, and how many lines it takes; ({}, 0) where there is none.

    lines: of the whole file, without their ends. Text, numbers, booleans, dates (as text) and lists of
    these are taken, tables are not.
    """
    mark = lines[0].rstrip() if lines else ""
    if mark not in _ENDS:
        return {}, 0
    chars = 0
    for number, line in enumerate(lines[1:], 1):
        chars += len(line)
        if chars > _MOST_CHARS:
            break
        if line.rstrip() in _ENDS[mark]:
            inside = lines[1:number]
            found = (_toml if mark == "+++" else _yaml)("\n".join(inside))
            if found is None or (not found and _is_text(inside)):
                return {}, 0
            return _plain(found), number + 1
    return {}, 0


def _is_text(lines: list[str]) -> bool:
    """Whether lines that set no key are text between two rules, such as a heading: YAML and TOML would
    take it for a comment. A key that is commented out is none."""
    written = [line.strip().lstrip("#").strip() for line in lines if line.strip()]
    return not all(_PAIR.match(line) or re.match(r"[\w.-]+\s*=", line) for line in written)


def _toml(text: str) -> Mapping[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


def _yaml(text: str) -> Mapping[str, Any] | None:
    import yaml

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return _pairs(text)
    if found is None:
        return {}
    return found if isinstance(found, dict) else None


def _pairs(text: str) -> Mapping[str, Any] | None:
    """The lines `key: value` of what is no YAML, such as `title: Step 1: begin`."""
    found: dict[str, Any] = {}
    for line in text.split("\n"):
        if not line.strip() or line[0] in " \t-#":
            continue
        pair = _PAIR.match(line)
        if pair is None:
            return None
        found[pair[1]] = (pair[2] or "").strip().strip("\"'")
    return found or None


def _plain(found: Mapping[Any, Any]) -> dict[str, MetadataValue]:
    plain: dict[str, MetadataValue] = {}
    for key, value in found.items():
        if not isinstance(key, str) or not key or '"' in key or "\x00" in key:
            continue
        if isinstance(value, list):
            plain[key] = [_scalar(item) for item in value if _is_scalar(item)]
        elif _is_scalar(value):
            plain[key] = _scalar(value)
    return plain


def _is_scalar(value: object) -> bool:
    """Whether metadata can hold the value: text, a boolean, a date, a number of 64 bits."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return abs(value) < float("inf")
    return value is None or isinstance(value, str | date | time)


def _scalar(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | time) else value
