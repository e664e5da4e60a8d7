"""Takes the documents of other frameworks, LangChain, LlamaIndex and Haystack, as passages.

They are known by what they have, so that no framework has to be installed.
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Literal

from rag_flywheel.checks import plain_metadata
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import MetadataValue, Passage

Ids = Literal["given", "content"]
RETRIEVAL_ID, PASSAGE_ID, RANK, RELEVANCE = "retrieval_id", "passage_id", "rank", "relevance_score"
OF_AN_ANSWER = frozenset({RETRIEVAL_ID, PASSAGE_ID, RANK, RELEVANCE})
"""Metadata that documents get with an answer, which are no part of the passage."""


def passages_of(documents: Iterable[object], *, ids: Ids = "given") -> list[Passage]:
    """A passage for each document that has text in it.

    LangChain's have page_content, metadata and perhaps id; LlamaIndex's have get_content() or text,
    metadata and id_; Haystack's have content, meta and id. A metadata value that is no string, number,
    boolean or None becomes JSON text. Metadata that came with an answer are left out.
    ids: "given": theirs, where they have some; "content": made from source and text, so that a
    document has the same id whenever it is loaded. Raises InputError.
    """
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise InputError(f"documents is {type(documents).__name__}; expected a list of documents")
    if ids not in ("given", "content"):
        raise InputError(f"ids is {quoted(ids)}; expected 'given' or 'content'")
    found: dict[str, Passage] = {}
    for number, document in enumerate(documents, 1):
        passage = passage_of(document, number, ids=ids)
        if passage is None:
            continue
        if passage.id in found and passage.id == _id(document) and ids == "given":
            raise InputError(f"document {number} has the id {quoted(passage.id)} of an earlier one")
        found[passage.id] = passage  # copies without ids of their own are one passage
    return list(found.values())


def passage_of(document: object, number: int, *, ids: Ids = "given") -> Passage | None:
    """The passage of a document; None without text. number: its place, for messages. Raises InputError."""
    text, metadata = _text(document, number), _metadata(document, number)
    if not text.strip():
        return None
    given = _id(document) if ids == "given" else None
    return Passage(given or content_id(text, metadata), text, _title(metadata), metadata)


def content_id(text: str, metadata: Mapping[str, MetadataValue]) -> str:
    """An id made of the source and the text, the same whenever the document is loaded."""
    source = metadata.get("source") or metadata.get("file_path") or "document"
    return f"{source}#{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"


def _text(document: object, number: int) -> str:
    text = getattr(document, "page_content", None)
    if text is None and callable(content := getattr(document, "get_content", None)):
        text = content()
    if text is None:
        text = getattr(document, "text", None)
    if text is None and hasattr(document, "content") and hasattr(document, "meta"):
        text = document.content or ""  # Haystack's may hold an image instead
    if not isinstance(text, str):
        raise InputError(
            f"document {number} is a {type(document).__name__} without text; expected page_content, "
            "get_content(), text, or content"
        )
    return text


def _metadata(document: object, number: int) -> dict[str, MetadataValue]:
    metadata = getattr(document, "metadata", None) or getattr(document, "meta", None) or {}
    if not isinstance(metadata, Mapping):
        raise InputError(f"document {number}: metadata is {type(metadata).__name__}")
    ours = RETRIEVAL_ID in metadata
    return {
        str(key): _plain(value)
        for key, value in metadata.items()
        if not (ours and key in OF_AN_ANSWER)
    }


def _plain(value: Any) -> MetadataValue:
    try:
        return plain_metadata("", {"value": value})["value"]
    except InputError:
        return json.dumps(value, ensure_ascii=False, default=str)


def _id(document: object) -> str | None:
    for name in ("id_", "id"):
        value = getattr(document, name, None)
        if isinstance(value, str) and value.strip():
            return value
    return None


def _title(metadata: Mapping[str, MetadataValue]) -> str:
    title = metadata.get("title")
    return title if isinstance(title, str) else ""
