"""Tells the files of one tool from those of another, and from what is no export at all."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from rag_flywheel.errors import InputError, quoted
from rag_flywheel.formats.json_values import (
    ReadBytes,
    ending_of,
    opened,
    rows_of,
    texts,
    values_of,
)
from rag_flywheel.formats.parquet import parquet_rows
from rag_flywheel.formats.tools.fields import is_number, plain_keys
from rag_flywheel.records import Tool

LOOKS: Mapping[Tool, str] = {
    "langfuse": "observations with type, traceId and startTime; scores with dataType and value; or traces "
    "with id, timestamp and userId",
    "phoenix": "spans with attributes and span_id, annotations with span_id and annotator_kind, or OTLP JSON "
    "with resourceSpans",
    "langsmith": "runs with run_type, or feedback with key and run_id",
    "ubi": "queries with query_id and user_query, or events with action_name and query_id",
    "trec": "the six columns of a run, the four of qrels, or an id and a question with a tab between",
    "csv": "a table with query or retrieval_id, and verdict, kind or hits",
}
"""What the rows of each tool's files have."""
_NAMES: Mapping[Tool, str] = {
    "langfuse": "Langfuse",
    "phoenix": "Phoenix",
    "langsmith": "LangSmith",
    "ubi": "User Behavior Insights",
    "trec": "TREC",
    "csv": "table of votes or retrievals",
}
_MAGIC = (
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3", "a database of SQLite"),
    (b"PK\x03\x04", "a ZIP archive, or a document of an office program; unpack it first"),
    (b"\xfd7zXZ", "packed by xz; unpack it first"),
    (b"BZh", "packed by bzip2; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd; unpack it first"),
    (b"\x1f\x8b", "packed by gzip twice; unpack it first"),
)
_PARQUET = b"PAR1"
_FIRST = 20  # rows that are looked at
_LISTS = "data", "runs", "feedback", "spans", "annotations"
_OTLP = "resourcespans", "scopespans"


def tools_of(row: Mapping[Any, Any]) -> set[Tool]:
    """The tools that an object with these keys is clearly of; none where it may be anybody's."""
    plain = plain_keys(row)
    keys, found = plain.keys(), set[Tool]()
    if (
        {"traceid", "starttime", "type"} <= keys
        or ("datatype" in keys and {"value", "stringvalue"} & keys)
        or ({"id", "timestamp"} <= keys and {"userid", "sessionid"} & keys)
    ):
        found.add("langfuse")
    if "runtype" in keys or ({"runid", "traceid"} & keys and {"key", "feedbacksource"} <= keys):
        found.add("langsmith")
    if (
        "annotatorkind" in keys
        or ("attributes" in keys and {"context", "spanid"} & keys)
        or any(str(key).startswith(("attributes.", "context.span")) for key in row)
        or set(_OTLP) & keys
    ):
        found.add("phoenix")
    if {"actionname", "queryid"} <= keys or {"userquery", "queryresponsehitids"} & keys:
        found.add("ubi")
    if {"query", "retrievalid"} & keys and {"verdict", "hits"} & keys:
        found.add("csv")
    source, hits = plain.get("source"), plain.get("hits")
    for inner in (source, hits.get("hits") if isinstance(hits, Mapping) else None):
        first = inner[0] if isinstance(inner, list) and inner else inner
        if isinstance(first, Mapping) and len(row) < _FIRST:
            found |= tools_of(first) & {"ubi"}
    return found


def is_of_another(tool: Tool, row: Mapping[Any, Any]) -> bool:
    """Whether an object is clearly of other tools, and not of this one."""
    found = tools_of(row)
    return bool(found) and tool not in found


def table_rows(tool: Tool, path: Path, read: ReadBytes | None) -> Iterator[dict[str, str]]:
    """The rows of a table by its columns. Raises InputError, also for one without a row whose columns are not
    the tool's."""
    names, n = list[str](), 0
    for _, cells in rows_of(path, read, names.extend):
        n += 1
        yield cells
    if names and not n and tool not in tools_of(dict.fromkeys(names)):
        raise not_of(tool, path)


def not_of(tool: Tool, path: Path) -> InputError:
    """The error for a file without a single record of a tool, which says what it is instead."""
    found, other = _what(path)
    is_what = _NAMES[tool] if tool == "csv" else f"export of {_NAMES[tool]}"
    hint = ""
    if other is not None and other != tool:
        of = f"a {_NAMES[other]}" if other == "csv" else _NAMES[other]
        hint = f". It looks like {of}: rag-flywheel import {other} {path}"
    return InputError(f"{path} is no {is_what}: found {found}; expected {LOOKS[tool]}{hint}")


def other_kind(tool: Tool, path: Path) -> InputError | None:
    """The error for a file that could not be read since it is another tool's; None: it is not, so that why
    it could not be read is what to say."""
    _, other = _what(path)
    return None if other is None or other == tool else not_of(tool, path)


def first_bytes(path: Path) -> bytes:
    """Some bytes of the beginning of a file, unpacked; none where there is nothing but blanks in it."""
    with opened(path) as pieces:
        return next((piece for piece in pieces if piece.strip()), b"")


def require_text(tool: Tool, path: Path, first: bytes) -> None:
    """Raises InputError for a file that its first bytes say is no text."""
    found = next((what for magic, what in _MAGIC if first.startswith(magic)), None)
    if first.startswith(_PARQUET) and ending_of(path) != ".parquet":
        found = "Parquet under a name that does not end in .parquet"
    if found is not None:
        raise InputError(f"{path} is {found}; expected {LOOKS[tool]}")


def _what(path: Path) -> tuple[str, Tool | None]:
    """(what a file holds, the tool that it is of, if any)."""
    keys, others = list[str](), ""
    try:
        with closing(_rows(path)) as rows:
            for row in islice(rows, _FIRST):
                if not isinstance(row, Mapping):
                    others = others or type(row).__name__
                    continue
                keys = keys or [quoted(str(key)) for key in islice(row, 8)]
                found = tools_of(row)
                if found:
                    return f"rows with {', '.join(keys)}", min(found, key=get_args(Tool).index)
    except InputError:
        return ("columns of TREC", "trec") if _is_trec(path) else ("another text", None)
    if keys:
        return f"rows with {', '.join(keys)}", None
    if _is_trec(path):
        return "columns of TREC", "trec"
    return f"values of {others}, which are no objects" if others else "objects without a key", None


def _rows(path: Path) -> Generator[object, None, None]:
    ending = ending_of(path)
    if ending == ".parquet":
        for _, row in parquet_rows(path):
            yield row
    elif ending in (".csv", ".tsv"):
        header: list[str] = []
        for _, cells in rows_of(path, check=header.extend):
            yield cells
        if header:
            yield dict.fromkeys(header)
    else:
        for _, value in values_of(path, lists=_LISTS):
            yield value


def _is_trec(path: Path) -> bool:
    """Whether the first line is that of a run or of qrels."""
    with opened(path) as pieces:
        try:
            first = next(texts(path, pieces), "").lstrip().partition("\n")[0].split()
        except InputError:
            return False
    numbers = first[3:5] if len(first) == 6 else first[-1:]
    return len(first) in (4, 6) and all(is_number(each) for each in numbers)
