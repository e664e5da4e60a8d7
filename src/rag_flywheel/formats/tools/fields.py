"""Reads the fields of records of other tools, whatever types they have there."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rag_flywheel.formats.json_values import parsed
from rag_flywheel.records import ImportedHit

_IDS = "passage_id", "id", "_id"
_OWN_IDS = "passage_id", "id", "id_", "_id"
_ADDRESSES = "url", "source", "link"
_TEXTS = "page_content", "content", "text", "document"
_MOST_DIGITS = 100
_QUERIES = "query", "question", "input", "search_query", "user_query"


def text_of(value: object) -> str | None:
    """A text that is not blank, or a whole number as one, also one with a point; None for anything else."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # as tables have whole numbers where some are missing
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_MOST_DIGITS:
        return str(value)
    return None


def number_of(value: object, default: float | None = None) -> Any:
    """A number, or the number that a text is; a text that is none as it is; `default` for None."""
    if value is None:
        return default
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return {"true": True, "false": False}.get(value.strip().casefold(), value)
    return value


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    return isinstance(number_of(text), float)


def whole_of(value: object) -> int | None:
    """A whole number, also one that is written as text or with a point; None for anything else."""
    number = number_of(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if not math.isfinite(number) or number != int(number) or abs(number) >= 2**53:
        return None
    return int(number)


def plain_keys(record: Mapping[Any, Any]) -> dict[str, Any]:
    """A record by its keys without case and underscores, so that traceId is trace_id."""
    return {str(key).replace("_", "").casefold(): value for key, value in record.items()}


def question_of(given: object) -> str | None:
    """The question of an input: a text, or an object with it under a name that says so."""
    value = parsed(given)
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, Mapping):
        for key in _QUERIES:
            if (found := text_of(value.get(key))) is not None:
                return found
        args = value.get("args") or value.get("kwargs")
        if isinstance(args, Mapping):
            return question_of(args)
        if isinstance(args, list) and args and isinstance(args[0], str):
            return text_of(args[0])
    return None


def answer_of(given: object) -> str | None:
    """The answer of an output: a text, or an object with it under a name that says so."""
    value = parsed(given)
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, Mapping):
        for key in ("answer", "output", "result", "response", "content", "text"):
            if (found := text_of(value.get(key))) is not None:
                return found
    return None


def documents_of(given: object) -> list[Mapping[str, Any]] | None:
    """The documents of an output: a list of them, or an object with one under "documents" or the like."""
    value = parsed(given)
    if isinstance(value, Mapping):
        for key in (
            "documents",
            "output",
            "docs",
            "results",
            "source_documents",
            "context",
            "hits",
        ):
            if isinstance(found := parsed(value.get(key)), list):
                value = found
                break
    if not isinstance(value, list):
        return None
    return [_unwrapped(parsed(each)) for each in value]


def _unwrapped(document: object) -> Mapping[str, Any]:
    """A document without what wraps it: LangChain's constructor, a node with a score, a Haystack document."""
    for _ in range(3):
        if not isinstance(document, Mapping):
            return {"page_content": document} if isinstance(document, str) else {}
        inner = document.get("kwargs") if document.get("type") == "constructor" else None
        inner = inner or document.get("node") or document.get("document")
        if not isinstance(inner, Mapping):
            return document
        document = inner
    return document if isinstance(document, Mapping) else {}


def hit_of(document: Mapping[str, Any], id_key: str | None = None) -> ImportedHit:
    """A document as a hit. id_key: the metadata key that holds the passage id, None: those that usually
    do."""
    metadata = _metadata(document)
    if id_key is not None:
        ids = [_any_text(metadata, (id_key,)) or _any_text(document, (id_key,))]
    else:
        ids = [text_of(document[key]) for key in _OWN_IDS if key in document]
        ids += [text_of(metadata[key]) for key in _IDS if key in metadata]
    text = next((t for key in _TEXTS if isinstance(t := document.get(key), str) and t), None)
    title = _any_text(document, ("title",)) or _any_text(metadata, ("title",))
    found = tuple(dict.fromkeys(id_ for id_ in ids if id_ is not None))
    return ImportedHit(found or None, None, text, title, _any_text(metadata, _ADDRESSES))


def _metadata(document: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("metadata", "meta"):
        if key in document and isinstance(found := parsed(document[key]), Mapping):
            return found
    return {}


def _any_text(given: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next(
        (t for key in keys if key in given and (t := text_of(given[key])) is not None), None
    )


def recorded_as(documents: list[Mapping[str, Any]]) -> str | None:
    """The id of our own retrieval that documents came from, where all say the same."""
    found = {text_of(_metadata(document).get("retrieval_id")) for document in documents}
    return found.pop() if len(found) == 1 else None
