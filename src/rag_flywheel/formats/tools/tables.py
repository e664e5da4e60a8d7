"""Reads retrievals and votes from tables of one's own, and from those that `export` writes: .csv, .tsv,
.jsonl, .parquet.

A row with a verdict is a vote, and tells of one passage that its retrieval showed; a row with hits and no
verdict is a retrieval.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rag_flywheel.errors import InputError
from rag_flywheel.formats.imported import LeftOut, Reading
from rag_flywheel.formats.json_values import ReadBytes, parsed, rows_of, values_of
from rag_flywheel.formats.parquet import parquet_rows
from rag_flywheel.formats.printable import cell_as_written
from rag_flywheel.formats.tools.fields import number_of, text_of, whole_of
from rag_flywheel.formats.ubi import VERDICTS
from rag_flywheel.records import ImportedHit, ImportedRetrieval, ImportedVote

COLUMNS = (
    "id", "retrieval_id", "query", "passage_id", "rank", "title", "url", "text", "verdict", "kind", "value",
    "user", "session", "time", "tenant", "reason", "trust", "shares", "note", "hits", "answer",
)  # fmt: skip
"""The columns that are read; docs/reference/import-tables.md says what each is."""
_OTHER_NAMES = {
    "at": "time",
    "timestamp": "time",
    "user_id": "user",
    "session_id": "session",
    "number": "id",
}
_WORDS = {
    **VERDICTS,
    "1": "helpful", "true": "helpful", "yes": "helpful", "good": "helpful", "up": "helpful", "+1": "helpful",
    "0": "harmful", "-1": "harmful", "false": "harmful", "no": "harmful", "bad": "harmful", "down": "harmful",
}  # fmt: skip
_WITHOUT_VERDICT = {"correction", "text", "missing"}


def read_table(path: Path, read: ReadBytes | None = None) -> Reading:
    """The retrievals and votes of a table. Raises InputError, OSError."""
    first = True
    for where, row in _rows(path, read):
        if first:
            _require_columns(path, row)
            first = False
        yield from _row(where, row)


def _rows(path: Path, read: ReadBytes | None) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix == ".parquet":
        yield from parquet_rows(path, read)
    elif {".csv", ".tsv"} & set(path.suffixes):
        for where, cells in rows_of(path, read):
            yield where, {name: cell_as_written(cell) for name, cell in cells.items()}
    else:
        for where, value in values_of(path, read):
            if not isinstance(value, dict):
                raise InputError(f"{where} is {type(value).__name__}; expected an object a line")
            yield where, value


def _require_columns(path: Path, row: Mapping[str, Any]) -> None:
    names = {_OTHER_NAMES.get(name, name) for name in row}
    if not names & {"query", "retrieval_id"} or not names & {"verdict", "kind", "hits"}:
        raise InputError(
            f"{path} has the columns {', '.join(map(repr, row))[:200]}; expected query or retrieval_id, and "
            f"verdict, kind or hits; those that are read are {', '.join(COLUMNS)}"
        )


def _row(where: str, given: Mapping[str, Any]) -> Reading:
    row = {
        _OTHER_NAMES.get(name, name): value
        for name, value in given.items()
        if value is not None and value != ""
    }
    verdict, kind = row.get("verdict"), text_of(row.get("kind"))
    if "hits" in row and verdict is None:
        yield from _retrieval(row)
        return
    user, session = text_of(row.get("user")), text_of(row.get("session"))
    query, time = text_of(row.get("query")), row.get("time")
    retrieval = text_of(row.get("retrieval_id"))
    if retrieval is None and query is None:
        yield LeftOut("rows without a query and without a retrieval_id")
        return
    name = retrieval or _name(query, user, session, time)
    passage, rank = text_of(row.get("passage_id")), whole_of(row.get("rank"))
    beside = {key: text_of(row.get(key)) for key in ("title", "url", "text")}
    hit = ImportedHit(passage, rank or 0, beside["text"], beside["title"], beside["url"])
    if query is not None:
        shown = passage is not None or any(beside.values())
        shown = shown and kind != "correction"
        yield ImportedRetrieval(
            name,
            query,
            (hit,) if shown else (),
            at=time,  # the retrieval was no later than the first vote on it
            user_id=user if retrieval is None else None,
            session_id=session,
            tenant=_tenant(row.get("tenant")),
        )
    said = None if verdict is None else _WORDS.get(str(verdict).strip().casefold())
    if said is None and kind not in _WITHOUT_VERDICT and "value" not in row:
        yield LeftOut("rows without a verdict that is helpful, harmful or retract")
        return
    own = text_of(row.get("id")) or _name(name, passage, beside, rank, user, time, said, kind)
    yield ImportedVote(
        own,
        name,
        said,
        passage_id=hit if any(beside.values()) else passage,
        rank=None if passage is not None or any(beside.values()) else rank,
        kind=kind,  # type: ignore[arg-type]
        value=number_of(row.get("value")),
        text=text_of(row.get("note")),
        shares=parsed(row.get("shares")),  # type: ignore[arg-type]
        user_id=user,
        at=time,
        reason=text_of(row.get("reason")),
        trust=number_of(row.get("trust"), 1.0),
    )


def _retrieval(row: Mapping[str, Any]) -> Reading:
    query, hits = text_of(row.get("query")), parsed(row["hits"])
    name = text_of(row.get("id")) or text_of(row.get("retrieval_id"))
    if query is None or name is None:
        yield LeftOut("retrievals without a query or an id")
        return
    if not isinstance(hits, list):
        yield LeftOut("retrievals whose hits are no list")
        return
    yield ImportedRetrieval(
        name,
        query,
        [_hit(each) for each in hits],
        at=row.get("time"),
        user_id=text_of(row.get("user")),
        session_id=text_of(row.get("session")),
        answer=text_of(row.get("answer")),
        tenant=_tenant(row.get("tenant")),
    )


def _hit(given: object) -> ImportedHit:
    if isinstance(given, str):
        return ImportedHit(given)
    if not isinstance(given, Mapping):
        return ImportedHit()
    return ImportedHit(
        text_of(given.get("passage_id")) or text_of(given.get("id")),
        whole_of(given.get("rank")),
        text_of(given.get("text")),
        text_of(given.get("title")),
        text_of(given.get("url")),
    )


def _tenant(given: object) -> str | int | None:
    """The tenant of a cell: JSON, such as "acme" in quotes or 7, as exports have it; else the text itself."""
    if isinstance(given, str):
        try:
            value = json.loads(given)
        except (ValueError, RecursionError):
            return given
        return value if isinstance(value, str | int) and not isinstance(value, bool) else given
    return given  # type: ignore[return-value]


def _name(*parts: object) -> str:
    """The same id for the same row."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
