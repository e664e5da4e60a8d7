"""Reads observations, scores and traces of Langfuse, as its API, its interface and its blob export write
them.

Names are camelCase or snake_case; inputs and outputs are values, or JSON as a string. A score on a
retriever is on what it showed, one on a trace or another observation on each retriever inside of it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rag_flywheel.formats.imported import Around, Foreign, LeftOut, Reading, Score
from rag_flywheel.formats.json_values import ReadBytes, ending_of, parsed, values_of
from rag_flywheel.formats.parquet import parquet_rows
from rag_flywheel.formats.tools.fields import (
    answer_of,
    documents_of,
    hit_of,
    number_of,
    plain_keys,
    question_of,
    recorded_as,
    text_of,
    whole_of,
)
from rag_flywheel.formats.tools.shapes import is_of_another, table_rows
from rag_flywheel.records import ImportedRetrieval

_VALUES = {"value", "stringvalue", "longstringvalue"}
_OF_TRACES = {"userid", "sessionid", "observations", "input", "output", "tags"}
_TYPES = {"NUMERIC", "BOOLEAN", "CATEGORICAL"}


def read_langfuse(path: Path, id_key: str | None = None, read: ReadBytes | None = None) -> Reading:
    """What a file says; id_key: the metadata key of the passage id. Raises InputError, OSError."""
    for row in _rows(path, read):
        if isinstance(row, Mapping):
            yield from _row(plain_keys(row), id_key)
        else:
            yield Foreign("values that are no objects")


def _rows(path: Path, read: ReadBytes | None) -> Iterator[Any]:
    if ending_of(path) == ".parquet":
        yield from (row for _, row in parquet_rows(path, read))
    elif ending_of(path) in (".csv", ".tsv"):
        for cells in table_rows("langfuse", path, read):
            yield {name: cell if cell != "" else None for name, cell in cells.items()}
    else:
        yield from (value for _, value in values_of(path, read))


def _row(row: Mapping[str, Any], id_key: str | None) -> Reading:
    if is_of_another("langfuse", row):
        yield Foreign("rows that are no observation, score or trace")
    elif {"datatype", "source"} & row.keys() and _VALUES & row.keys():
        yield from _score(row)
    elif "type" in row and {"traceid", "starttime"} & row.keys():
        yield from _observation(row, id_key)
    elif {"id", "timestamp"} <= row.keys() and _OF_TRACES & row.keys():
        yield from _trace(row, id_key)
    else:
        yield Foreign("rows that are no observation, score or trace")


def _trace(row: Mapping[str, Any], id_key: str | None) -> Reading:
    id_ = text_of(row.get("id"))
    if id_ is None:
        yield LeftOut("traces without an id")
        return
    yield Around(
        id_,
        None,
        text_of(row.get("userid")),
        text_of(row.get("sessionid")),
        answer_of(row.get("output")),
    )
    for name, of in (("observations", "traceid"), ("scores", "traceid")):
        for each in row.get(name) or () if isinstance(row.get(name), list) else ():
            if isinstance(each, Mapping):  # else the ids alone
                yield from _row({of: id_, **plain_keys(each)}, id_key)


def _observation(row: Mapping[str, Any], id_key: str | None) -> Reading:
    id_, trace = text_of(row.get("id")), text_of(row.get("traceid"))
    parent = text_of(row.get("parentobservationid")) or trace
    user, session = text_of(row.get("userid")), text_of(row.get("sessionid"))
    if id_ is None:
        yield LeftOut("observations without an id")
        return
    if str(row.get("type")).upper() != "RETRIEVER":
        yield Around(id_, parent, user, session)
        if trace is not None and text_of(row.get("parentobservationid")) is None:
            yield Around(trace, None, user, session, answer_of(row.get("output")))
        return
    question, documents = question_of(row.get("input")), documents_of(row.get("output"))
    if question is None:
        yield LeftOut("retrievers without a question as their input")
        return
    if documents is None:
        yield LeftOut("retrievers without documents as their output")
        return
    yield ImportedRetrieval(
        id_,
        question,
        [hit_of(document, id_key) for document in documents],
        at=row.get("starttime"),
        user_id=user,
        session_id=session,
        inside=[outer for outer in (parent, trace) if outer is not None],
        recorded_as=recorded_as(documents),
    )


def _score(row: Mapping[str, Any]) -> Reading:
    id_, name = text_of(row.get("id")), text_of(row.get("name"))
    on = text_of(row.get("observationid")) or text_of(row.get("traceid")) or _subject(row)
    kind = str(row.get("datatype") or "").upper()
    if id_ is None or name is None:
        yield LeftOut("scores without an id or a name")
        return
    if on is None:
        yield LeftOut("scores on a session or a run of a dataset, which name no retrieval")
        return
    word, text = text_of(row.get("stringvalue")), None
    if kind == "CORRECTION":  # its value is always 0, and its name always "output"
        text = word or text_of(row.get("longstringvalue"))
        if text is None and isinstance(row.get("subject"), Mapping):  # or, in version 3, the text
            text = text_of(row.get("value"))
        if text is None:
            yield LeftOut("corrections without a text")
            return
    elif kind and kind not in _TYPES:
        yield LeftOut(f"scores of the type {kind[:40]}, which say no verdict")
        return
    metadata = parsed(row.get("metadata"))
    about = plain_keys(metadata) if isinstance(metadata, Mapping) else {}
    position = whole_of(about.get("documentposition"))
    yield Score(
        id_,
        on,
        name,
        _value(kind, row.get("value"), word),
        by_model=str(row.get("source") or "").upper() == "EVAL",
        rank=whole_of(about.get("rank")) if position is None else position + 1,
        passage_id=text_of(about.get("passageid")),
        author=text_of(row.get("authoruserid")),
        at=row.get("updatedat") or row.get("timestamp"),
        comment=text_of(row.get("comment")),
        text=text,
    )


def _subject(row: Mapping[str, Any]) -> str | None:
    """The trace or observation that a score of version 3 of the API is on."""
    subject = parsed(row.get("subject"))
    if isinstance(subject, Mapping) and subject.get("kind") in ("trace", "observation"):
        return text_of(subject.get("id"))
    return None


def _value(kind: str, value: object, word: str | None) -> float | str | bool | None:
    number = number_of(value)
    if kind == "BOOLEAN":
        return bool(number) if isinstance(number, int | float) and number in (0, 1) else word
    if kind == "CATEGORICAL":
        return word or text_of(value)
    if isinstance(number, int | float):
        return number
    return word or text_of(value)
