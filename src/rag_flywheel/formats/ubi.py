"""User Behavior Insights: documents of its versions 1.2 and 1.3, and what an event says as a vote.

https://github.com/o19s/ubi. A query_id is the id of a retrieval of ours. What the library has no word for is
not guessed at.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import Signal, Verdict

Target: TypeAlias = Literal["ubi_events", "ubi_queries"]
Document: TypeAlias = Mapping[str, Any]
_BULK = {"index", "create"}
VERDICTS: Mapping[str, Verdict] = {
    "thumbs_up": "helpful",
    "thumbsup": "helpful",
    "like": "helpful",
    "upvote": "helpful",
    "helpful": "helpful",
    "thumbs_down": "harmful",
    "thumbsdown": "harmful",
    "dislike": "harmful",
    "downvote": "harmful",
    "harmful": "harmful",
    "retract": "retract",
}
SIGNALS: Mapping[str, Signal] = {
    "copy": "copied",
    "copied": "copied",
    "accepted": "accepted",
    "regenerated": "regenerated",
    "abandoned": "abandoned",
    "rephrased": "rephrased",
    "escalated": "escalated",
    "task_done": "task_done",
}
"""Clicks, views and impressions are not among them: what was shown is recorded already, and the library
learns nothing from clicks."""


@dataclass(frozen=True)
class Said:
    """What an event says of a retrieval. passage_id: None: of the answer as a whole; user_id: None: of
    nobody known. Either verdict or signal is there, or neither: `action` has no meaning here."""

    retrieval_id: str
    action: str
    verdict: Verdict | None
    signal: Signal | None
    passage_id: str | None
    user_id: str | None


def documents(body: bytes, target: Target, most: int) -> list[tuple[Target, object]]:
    """The documents of a body: one, a list of them, or one a line, with or without the lines of a bulk
    request that say where each one goes. Raises InputError for what is no JSON, and for too many."""
    found: list[tuple[Target, object]] = []
    for each in _with_targets(_values(body), target):
        if len(found) == most:
            raise InputError(f"found more than {most} documents; send some at a time")
        found.append(each)
    return found


def said(document: Document) -> Said | None:
    """What an event says; None: it has no action_name or query_id, or they are not texts."""
    action, query = document.get("action_name"), document.get("query_id")
    if not isinstance(action, str) or not isinstance(query, str) or not query:
        return None
    name = re.sub(r"[\s-]+", "_", action.strip()).casefold()
    user = document.get("user_id")
    return Said(
        query,
        name[:100],
        VERDICTS.get(name),
        SIGNALS.get(name),
        _object_id(document),
        user if isinstance(user, str) and user.strip() else None,
    )


def _object_id(document: Document) -> str | None:
    """The id of the passage that an event is about."""
    attributes = document.get("event_attributes")
    about = attributes.get("object") if isinstance(attributes, Mapping) else None
    found = about.get("object_id") if isinstance(about, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        return None
    return str(found)


def _values(body: bytes) -> Iterator[object]:
    try:
        whole = _parsed(body)
    except ValueError as error:
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) < 2:
            raise InputError(f"the body is no JSON: {error}") from None
        yield from (_line(number, line) for number, line in enumerate(lines, 1))
        return
    if isinstance(whole, list):
        yield from whole
    elif isinstance(whole, dict):
        yield whole
    else:
        raise InputError(f"the body is {quoted(whole)}; expected a document or an array of them")


def _line(number: int, line: bytes) -> object:
    try:
        return _parsed(line)
    except ValueError as error:
        raise InputError(f"line {number} of the body is no JSON: {error}") from None


def _parsed(text: bytes) -> object:
    """Raises ValueError, also for what is too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too many values in one another") from None


def _with_targets(values: Iterator[object], target: Target) -> Iterator[tuple[Target, object]]:
    """Each document with where it goes; a line of a bulk request says it of the next one."""
    following = target
    for value in values:
        if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _BULK:
            following = _named(next(iter(value.values())), target)
            continue
        if isinstance(value, dict) and isinstance(value.get("_source"), dict):  # a hit of a search
            yield _named(value, target), value["_source"]
            continue
        yield following, value
        following = target


def _named(value: object, target: Target) -> Target:
    name = value.get("_index") if isinstance(value, dict) else None
    if name == "ubi_events":
        return "ubi_events"
    return "ubi_queries" if name == "ubi_queries" else target
