"""Reads runs and feedback of LangSmith: of both versions of the API, of `list_runs`, and of its bulk export.

`session_id` of a run is that of the project there; the user's session is in the metadata. Version 2 of the
API has types in capitals, and the metadata beside `extra`.
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
    question_of,
    recorded_as,
    text_of,
)
from rag_flywheel.formats.tools.shapes import is_of_another, table_rows
from rag_flywheel.records import ImportedRetrieval

_SESSIONS = "session_id", "thread_id", "conversation_id"
_BY_MODELS = {"model", "auto_eval"}
_DEEP = 50  # runs inside one another
_UUID = 36  # characters


def read_langsmith(path: Path, id_key: str | None = None, read: ReadBytes | None = None) -> Reading:
    """What a file says; id_key: the metadata key of the passage id. Raises InputError, OSError."""
    for row in _rows(path, read):
        if isinstance(row, Mapping):
            yield from _row(row, id_key, 0)
        else:
            yield Foreign("values that are no objects")


def _rows(path: Path, read: ReadBytes | None) -> Iterator[Any]:
    if ending_of(path) == ".parquet":
        yield from (row for _, row in parquet_rows(path, read))
    elif ending_of(path) in (".csv", ".tsv"):
        for cells in table_rows("langsmith", path, read):
            yield {name: cell if cell != "" else None for name, cell in cells.items()}
    else:
        yield from (value for _, value in values_of(path, read, lists=("data", "runs", "feedback")))


def _row(row: Mapping[str, Any], id_key: str | None, depth: int) -> Reading:
    if "run_type" in row:
        yield from _run(row, id_key)
        children = row.get("child_runs")
        for child in children if isinstance(children, list) and depth < _DEEP else ():
            if isinstance(child, Mapping):
                yield from _row(child, id_key, depth + 1)
    elif (
        "key" in row and {"run_id", "trace_id"} & row.keys() and not is_of_another("langsmith", row)
    ):
        yield from _feedback(row)
    else:
        yield Foreign("rows that are no run and no feedback")


def _run(row: Mapping[str, Any], id_key: str | None) -> Reading:
    id_ = text_of(row.get("id")) or text_of(row.get("run_id"))
    if id_ is None:
        yield LeftOut("runs without an id")
        return
    outers = [outer for outer in _outers(row) if outer != id_]
    extra = parsed(row.get("extra"))
    metadata = parsed(extra.get("metadata")) if isinstance(extra, Mapping) else None
    beside = parsed(row.get("metadata"))
    metadata = {
        **(metadata if isinstance(metadata, Mapping) else {}),
        **(beside if isinstance(beside, Mapping) else {}),
    }
    user = text_of(metadata.get("user_id"))
    session = next((s for key in _SESSIONS if (s := text_of(metadata.get(key)))), None)
    session = session or text_of(row.get("thread_id"))
    if str(row.get("run_type")).casefold() != "retriever":
        answer = answer_of(row.get("outputs")) if not outers else None
        yield Around(id_, outers[0] if outers else None, user, session, answer)
        return
    question, documents = question_of(row.get("inputs")), documents_of(row.get("outputs"))
    if question is None:
        yield LeftOut("retrievers without a question among their inputs")
        return
    if documents is None:
        yield LeftOut("retrievers without documents among their outputs")
        return
    yield ImportedRetrieval(
        id_,
        question,
        [hit_of(document, id_key) for document in documents],
        at=row.get("start_time"),
        user_id=user,
        session_id=session,
        inside=outers,
        recorded_as=recorded_as(documents),
    )


def _outers(row: Mapping[str, Any]) -> list[str]:
    """The runs that a run is inside of, the nearest first."""
    parents = parsed(row.get("parent_run_ids"))
    found = [text_of(row.get("parent_run_id"))]
    if isinstance(parents, list):
        found += [text_of(each) for each in reversed(parents)]
    order = row.get("dotted_order")
    if isinstance(order, str) and len(order) < 10_000:
        found += [part[-_UUID:] for part in reversed(order.split(".")) if len(part) > _UUID]
    found.append(text_of(row.get("trace_id")))
    return [outer for outer in dict.fromkeys(found) if outer is not None]


def _feedback(row: Mapping[str, Any]) -> Reading:
    id_, key = text_of(row.get("id")), text_of(row.get("key"))
    on = text_of(row.get("run_id")) or text_of(row.get("trace_id"))
    if id_ is None or key is None or on is None:
        yield LeftOut("feedback without an id, a key or a run")
        return
    source = parsed(row.get("feedback_source"))
    source = source if isinstance(source, Mapping) else {}
    about = parsed(source.get("metadata"))
    about = about if isinstance(about, Mapping) else {}
    by_model = str(source.get("type")) in _BY_MODELS
    author = text_of(source.get("user_id")) or text_of(about.get("user_id"))
    at = row.get("modified_at") or row.get("created_at")
    comment = text_of(row.get("comment"))
    value = number_of(row.get("score"))
    if value is None:
        value = number_of(row.get("value"))
    correction = parsed(row.get("correction"))
    if value is not None and not isinstance(value, Mapping | list):
        yield Score(id_, on, key, value, by_model, author=author, at=at, comment=comment)
    elif not correction:
        yield LeftOut("feedback without a score, a word or a correction")
    if correction and not by_model:
        text = _correction(correction)
        if text is None:
            yield LeftOut("corrections that are no text")
        else:
            yield Score(f"{id_}:correction", on, key, None, author=author, at=at, text=text)


def _correction(given: object) -> str | None:
    if isinstance(given, Mapping):
        for key in ("desired", "correction", "expected"):
            if (found := text_of(given.get(key))) is not None:
                return found
    return answer_of(given)
