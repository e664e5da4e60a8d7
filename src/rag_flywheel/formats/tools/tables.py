"""Reads retrievals and votes from tables of one's own, and from those that `export` writes: .csv, .tsv,
.jsonl, .parquet.

A row with a verdict is a vote, and tells of one passage that its retrieval showed; a row with hits and no
verdict is a retrieval.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rag_flywheel.errors import InputError, quoted
from rag_flywheel.formats.imported import LeftOut, Reading
from rag_flywheel.formats.json_values import ReadBytes, ending_of, parsed, rows_of, values_of
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
    "1.0": "helpful", "0.0": "harmful", "-1.0": "harmful",
    "0": "harmful", "-1": "harmful", "false": "harmful", "no": "harmful", "bad": "harmful", "down": "harmful",
}  # fmt: skip
_OF_OBJECTS = ".jsonl", ".ndjson", ".json"
_WITHOUT_VERDICT = {"correction", "text", "missing"}


def read_table(path: Path, read: ReadBytes | None = None) -> Reading:
    """The retrievals and votes of a table. Raises InputError, OSError."""
    first = True
    for where, row in _rows(path, read):
        if first:
            _require_columns(path, list(row))
            first = False
        yield from _row(where, row)


def _rows(path: Path, read: ReadBytes | None) -> Iterator[tuple[str, dict[str, Any]]]:
    ending = ending_of(path)
    if ending == ".parquet":
        yield from parquet_rows(path, read)
    elif ending in (".csv", ".tsv"):
        for where, cells in rows_of(path, read, partial(_require_columns, path)):
            yield where, {name: cell_as_written(cell) for name, cell in cells.items()}
    elif ending not in _OF_OBJECTS:
        raise InputError(
            f"{path} ends in {ending!r}; expected a table whose name ends in .csv, .tsv, .jsonl or "
            ".parquet, or in one of these and .gz: rename it, or save it as one"
        )
    else:
        for where, value in values_of(path, read):
            if not isinstance(value, dict):
                raise InputError(f"{where} is {type(value).__name__}; expected an object a line")
            yield where, value


def _require_columns(path: Path, found: Sequence[str]) -> None:
    names = {_column(name) for name in found}
    if not names & {"query", "retrieval_id"} or not names & {"verdict", "kind", "hits"}:
        raise InputError(
            f"{path} has the columns {', '.join(map(repr, found))[:200]}; expected query or "
            f"retrieval_id, and verdict, kind or hits; those that are read are {', '.join(COLUMNS)}"
        )


def _column(name: str) -> str:
    """The column that a name stands for, whatever its case and the blanks around it; "Passage ID" and
    "passage-id" are passage_id."""
    plain = re.sub(r"[\s-]+", "_", name.strip().casefold())
    return _OTHER_NAMES.get(plain, plain)


def _by_column(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a row that hold something. Raises InputError where two names stand for one column."""
    row: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or value == "":
            continue
        column = _column(name)
        if column in row and column in COLUMNS:
            raise InputError(
                f"{where} has the column {column!r} twice, once as {quoted(name)}; expected one of "
                "them: leave the other out"
            )
        row[column] = value
    return row


def _row(where: str, given: Mapping[str, Any]) -> Reading:
    row = _by_column(where, given)
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
    tenant = _tenant(row.get("tenant"))
    whose = () if tenant is None else (tenant,)
    name = retrieval or _name(query, user, session, time, *whose)
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
            tenant=tenant,
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
        tenant=tenant,
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
