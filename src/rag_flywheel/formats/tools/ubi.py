"""Reads queries and events of User Behavior Insights: one a line, in arrays, as hits of a search, or in
the lines of a bulk request."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from rag_flywheel.formats.imported import Foreign, LeftOut, Reading, Seen
from rag_flywheel.formats.json_values import ReadBytes, values_of
from rag_flywheel.formats.tools.fields import number_of, text_of, whole_of
from rag_flywheel.formats.ubi import said
from rag_flywheel.records import (
    ImportedHit,
    ImportedKind,
    ImportedRetrieval,
    ImportedVote,
    Signal,
    Verdict,
)

_KINDS = {*get_args(get_args(ImportedKind)[0]), *get_args(Signal)}
_SHOWN = {"impression", "view"}  # of a passage: that it was shown
_BULK = {"index", "create"}


def read_ubi(path: Path, read: ReadBytes | None = None) -> Reading:
    """The queries, as retrievals, and the events, as votes. Raises InputError, OSError."""
    for _, value in values_of(path, read):
        hits = value.get("hits") if isinstance(value, Mapping) else None
        many = hits.get("hits") if isinstance(hits, Mapping) else None  # a whole answer to a search
        for each in many if isinstance(many, list) else [value]:
            yield from _document(each)


def _document(value: object) -> Reading:
    if not isinstance(value, Mapping):
        yield Foreign("documents that are no objects")
        return
    if len(value) == 1 and next(iter(value)) in _BULK:
        return  # the line of a bulk request that says where the next one goes
    source = value.get("_source")
    document = source if isinstance(source, Mapping) else value
    own_id = text_of(value.get("_id")) if isinstance(source, Mapping) else None
    if text_of(document.get("action_name")) is not None:
        yield from _event(document, own_id)
    elif "user_query" in document or "query_response_hit_ids" in document:
        yield from _query(document)
    else:
        yield Foreign("documents that are neither a query nor an event")


def _query(document: Mapping[str, Any]) -> Reading:
    query_id, words = text_of(document.get("query_id")), text_of(document.get("user_query"))
    hits = document.get("query_response_hit_ids")
    if query_id is None or words is None:
        yield LeftOut("queries without a query_id or a user_query")
        return
    if hits is not None and not isinstance(hits, list):
        yield LeftOut("queries whose query_response_hit_ids are no list")
        return
    attributes = document.get("query_attributes")
    attributes = attributes if isinstance(attributes, Mapping) else {}
    yield ImportedRetrieval(
        query_id,
        words,
        None if hits is None else [ImportedHit(text_of(each)) for each in hits],
        at=document.get("timestamp"),
        user_id=_user(document),
        session_id=text_of(document.get("session_id")),
        tenant=attributes.get("tenant"),
    )


def _event(document: Mapping[str, Any], own_id: str | None) -> Reading:
    found = said(document)
    if found is None:
        yield LeftOut("events without a query_id")
        return
    if found.action in _SHOWN and found.passage_id is not None:
        yield Seen(found.retrieval_id, ImportedHit(found.passage_id, _ordinal(document) or 0))
        return
    kind = text_of(document.get("kind"))
    kind = kind if kind in _KINDS else found.signal
    verdict = _verdict(document) if kind is not None else found.verdict
    if kind is None and verdict is None:
        yield LeftOut(f"events of the action {found.action!r}, which says no verdict")
        return
    yield ImportedVote(
        own_id or _name(document),
        found.retrieval_id,
        verdict,
        found.passage_id,
        rank=None if found.passage_id is not None else _ordinal(document),
        kind=kind,  # type: ignore[arg-type]
        text=text_of(document.get("message")) if kind in ("text", "missing") else None,
        shares=document.get("shares"),
        user_id=_user(document),
        at=document.get("timestamp"),
        reason=text_of(document.get("message")),
        trust=number_of(document.get("trust"), 1.0),
        tenant=_tenant(document),
    )


def _verdict(document: Mapping[str, Any]) -> Verdict | None:
    found = document.get("verdict")
    return found if found in get_args(Verdict) else None


def _user(document: Mapping[str, Any]) -> str | None:
    """The user, else the client: the one who has the browser."""
    return text_of(document.get("user_id")) or text_of(document.get("client_id"))


def _tenant(document: Mapping[str, Any]) -> Any:
    """The tenant that the attributes of an event name."""
    attributes = document.get("event_attributes")
    return attributes.get("tenant") if isinstance(attributes, Mapping) else None


def _ordinal(document: Mapping[str, Any]) -> int | None:
    """The rank of what an event is about: position.ordinal."""
    attributes = document.get("event_attributes")
    position = attributes.get("position") if isinstance(attributes, Mapping) else None
    return whole_of(position.get("ordinal")) if isinstance(position, Mapping) else None


def _name(document: Mapping[str, Any]) -> str:
    """The same id for the same event, which has none."""
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
