"""Reads the conditions of `--where` into a filter expression.

It knows how people write conditions in a shell, and not what passes them.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rag_flywheel.cli import show
from rag_flywheel.errors import InputError
from rag_flywheel.records import Scalar

Kinds = Mapping[str, Sequence[str]]
"""The metadata keys of an index, with the kinds of their values."""
_CONDITION = re.compile(r"([^=<>!]+)(!=|>=|<=|=|>|<)(.*)", re.DOTALL)
_RANGES = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_MOST_KEYS = 20  # in a note


def filter_of(
    conditions: Sequence[str], kinds: Kinds, tenant_key: str | None = None
) -> dict[str, Any] | None:
    """The filter expression of conditions such as lang=en, year>=2020 or {"or": [...]}; None: no filter.

    All must hold, but of several values that a key may equal, one is enough. A value is read as the
    kinds that are stored at its key; a tenant is one value, a number where it may be one. What no passage
    has is noted on standard error. Raises InputError.
    """
    equal, unequal = dict[str, list[str]](), dict[str, list[str]]()
    parts = list[dict[str, Any]]()
    for condition in conditions:
        if condition.lstrip().startswith("{"):
            parts.append(_expression(condition))
            continue
        key, operator, text = _parsed(condition)
        if key not in kinds:
            _note_unknown(key, kinds)
        if operator == "=":
            equal.setdefault(key, []).append(text)
        elif operator == "!=":
            unequal.setdefault(key, []).append(text)
        else:
            values = _read_some(key, [text], kinds)
            tests = [{key: {_RANGES[operator]: value}} for value in values]
            parts.append(tests[0] if len(tests) == 1 else {"or": tests})
    for key, texts in equal.items():
        if key == tenant_key and len(texts) == 1:
            parts.append({key: read_one(key, texts[0], kinds)})
            continue
        tests = list(_equal(key, texts, kinds))
        parts.append(tests[0] if len(tests) == 1 else {"or": tests})
    for key, texts in unequal.items():
        parts += ({"not": test} for test in _equal(key, texts, kinds))
    return _joined(parts)


def read(key: str, text: str, kinds: Kinds) -> list[Scalar]:
    """The values that a text may stand for at a key, by the kinds stored there.

    At an unknown key it is the one value that the text is in JSON, else the text.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    if isinstance(found, dict | list) or (isinstance(found, float) and not math.isfinite(found)):
        found = text
    if found is None:
        return [None, text] if "string" in kinds.get(key, ()) else [None]
    if isinstance(found, str) and found != text:  # in quotes: a string for certain
        return [found]
    stored = kinds.get(key)
    if stored is None:
        return [found]
    values: list[Scalar] = [text] if "string" in stored or "list" in stored else []
    kind = "boolean" if isinstance(found, bool) else "number"
    if not isinstance(found, str) and (kind in stored or "list" in stored):
        values.append(found)
    return values


def read_one(key: str, text: str, kinds: Kinds) -> Scalar:
    """The value of a text at a key: a number where numbers are stored and it may be one."""
    return [text, *read(key, text, kinds)][-1]


def _expression(text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"--where {text[:80]!r} begins like a filter expression but is no JSON ({error}); expected "
            'such as {"or": [{"lang": "de"}, {"lang": "fr"}]}'
        ) from error
    return found


def _parsed(condition: str) -> tuple[str, str, str]:
    match = _CONDITION.fullmatch(condition)
    key = match[1].strip() if match else ""
    if match is None or not key:
        raise InputError(
            f"--where {condition[:80]!r}; expected key=value, or with != > >= < <=, or a filter expression "
            "in JSON"
        )
    return key, match[2], match[3].strip()


def _equal(key: str, texts: Sequence[str], kinds: Kinds) -> Iterator[dict[str, Any]]:
    """Conditions that a key has one of the values, one for single values and one for lists."""
    stored, options = kinds.get(key, ("string",)), _read_some(key, texts, kinds)
    if set(stored) != {"list"} or None in options:
        yield {key: options[0] if len(options) == 1 else {"in": options}}
    if "list" in stored:
        yield {key: {"contains": options[0]} if len(options) == 1 else {"any": options}}


def _read_some(key: str, texts: Sequence[str], kinds: Kinds) -> list[Scalar]:
    """Every value that the texts may stand for; with a note, the texts themselves when there is none."""
    values = dict.fromkeys((type(v), v) for text in texts for v in read(key, text, kinds))
    if not values:
        show.note(
            f"the values at {key!r} are of the kind {' or '.join(kinds[key])}; {texts[0]!r} is not, "
            "and no value matches it"
        )
        return list(texts)
    return [value for _, value in values]


def _note_unknown(key: str, kinds: Kinds) -> None:
    known = list(kinds)
    names = ", ".join(known[:_MOST_KEYS]) + (", ..." if len(known) > _MOST_KEYS else "")
    show.note(f"no passage has the metadata key {key!r}; known keys: {names or 'none'}")


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """One filter expression that asks for all of these, as flat as it can be."""
    joined, more = dict[str, Any](), list[dict[str, Any]]()
    for part in parts:
        key, wanted = next(iter(part.items())) if len(part) == 1 else ("", None)
        old = joined.get(key)
        if not key:
            more.append(part)
        elif key not in joined:
            joined[key] = wanted
        elif (
            key != "not"
            and isinstance(old, dict)
            and isinstance(wanted, dict)
            and not old.keys() & wanted
        ):
            joined[key] = {**old, **wanted}  # a lower and an upper limit
        else:
            more.append(part)
    if not more:
        return joined or None
    if not joined and len(more) == 1:
        return more[0]
    return {"and": [joined, *more] if joined else more}
