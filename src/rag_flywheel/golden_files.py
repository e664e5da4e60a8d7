"""Known answers in files: BEIR folders and CSV, read within bounds and written whole.

It must not know which passages an index has, nor where answers are stored.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_flywheel.beir import cell, query_id, query_line, write_lines, write_qrels
from rag_flywheel.checks import check_query
from rag_flywheel.deploy.files import new_folder, replace_text
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import InputError
from rag_flywheel.records import GoldenItem

SEPARATORS = {".csv": ",", ".tsv": "\t"}
MOST_ROWS = 100_000
MOST_LINE_BYTES = 1_000_000
MOST_BYTES = 256_000_000  # of one file, unpacked
HIGHEST_GRADE = 100
_COLUMNS = ("query", "passage_id", "grade", "tenant")
_NEEDED = {"query", "passage_id"}


@dataclass(frozen=True)
class Row:
    """A grade of a passage for a query; tenant: as JSON; where: the file and line, for messages."""

    query: str
    tenant: str | None
    passage_id: str
    grade: int
    where: str


@dataclass(frozen=True)
class _Query:
    text: str
    tenant: str | None


def read_answers(path: Path, *, split: str, max_query_chars: int) -> list[Row]:
    """The rows of a BEIR folder's qrels/SPLIT.tsv with its queries, or of a .csv or .tsv file.

    Raises InputError, naming file and line, for what cannot be used; StorageError.
    """
    if not isinstance(split, str) or not re.fullmatch(r"[\w.-]+", split):
        raise InputError(f"split is {split!r}; expected a name such as test, of qrels/test.tsv")
    problems: list[str] = []
    with disk_errors(path):
        if path.is_dir():
            rows = _read_beir(path, split, max_query_chars, problems)
        elif path.is_file() and path.suffix in SEPARATORS:
            rows = _read_table(path, max_query_chars, problems)
        elif path.exists():
            raise InputError(f"{path} is no folder, .csv or .tsv; expected known answers in one")
        else:
            raise InputError(f"no file or folder {path}; expected a BEIR folder, a .csv or a .tsv")
    refuse(problems)
    return rows


def refuse(problems: Sequence[str]) -> None:
    """Raise InputError with the first problem and how many more there are; none: go on."""
    if problems:
        more = f" (further such lines: {len(problems) - 1})" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}. Nothing was added")


def _read_beir(folder: Path, split: str, most: int, problems: list[str]) -> list[Row]:
    qrels = folder / "qrels" / f"{split}.tsv"
    paths = [folder / "queries.jsonl", folder / "queries.jsonl.gz"]
    queries = next((p for p in paths if p.is_file()), None)
    if queries is None or not qrels.is_file():
        lacking = f"qrels/{split}.tsv" if queries else "queries.jsonl or queries.jsonl.gz"
        raise InputError(f"{folder} has no {lacking}; expected a BEIR folder")
    graded = _read_qrels(qrels, problems)
    wanted = {query for query, _, _, _ in graded}
    texts = _read_queries(queries, wanted, most, problems)
    rows = []
    for id_, passage, grade, where in graded:
        query = texts.get(id_)
        if query is None and id_ not in texts:
            problems.append(f"{where} names the query {id_!r}; expected one that {queries} has")
        elif query is not None:
            rows.append(Row(query.text, query.tenant, passage, grade, where))
    return rows


def _read_qrels(path: Path, problems: list[str]) -> list[tuple[str, str, int, str]]:
    """(query id, passage id, grade, where) of each line after the header."""
    found: list[tuple[str, str, int, str]] = []
    for number, record in _records(path, "\t"):
        where = f"{path}, line {number}"
        if len(record) != 3:
            problems.append(
                f"{where} has {len(record)} columns; expected query id, passage id and grade, "
                "with tabs between them"
            )
        elif number == 1:
            if _grade(record[2]) is not None:
                raise InputError(
                    f"{where} is {record}; expected the header query-id, corpus-id, score"
                )
        elif (grade := _grade(record[2])) is None:
            problems.append(_bad_grade(where, record[2]))
        else:
            found.append((record[0], record[1], grade, where))
    return found


def _read_queries(
    path: Path, wanted: set[str], most: int, problems: list[str]
) -> dict[str, _Query | None]:
    """Those of the wanted ids that are there; None: with a problem, which is noted."""
    found: dict[str, _Query | None] = {}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"{where} is no JSON ({error}); expected one object a line")
            continue
        id_ = row.get("_id") if isinstance(row, dict) else None
        if not isinstance(id_, str | int) or isinstance(id_, bool) or "text" not in row:
            problems.append(f"{where} has no _id and text; expected a BEIR query")
        elif str(id_) in found:
            problems.append(f"{where} has the _id {id_!r} again; expected each query once")
        elif str(id_) in wanted:
            found[str(id_)] = _query(row, where, most, problems)
    return found


def _query(row: dict[str, Any], where: str, most: int, problems: list[str]) -> _Query | None:
    metadata = row.get("metadata")
    tenant = metadata.get("tenant") if isinstance(metadata, dict) else None
    if isinstance(tenant, bool) or not isinstance(tenant, str | int | None):
        problems.append(f"{where}: tenant is {tenant!r}; expected a string or whole number")
        return None
    if not _query_is_good(row["text"], where, most, problems):
        return None
    return _Query(row["text"], None if tenant is None else json.dumps(tenant))


def _query_is_good(query: object, where: str, most: int, problems: list[str]) -> bool:
    try:
        check_query(query, most)
    except InputError as error:
        problems.append(f"{where}: {error}")
        return False
    return True


def _read_table(path: Path, most: int, problems: list[str]) -> list[Row]:
    records = _records(path, SEPARATORS[path.suffix])
    _, header = next(records, (1, []))
    if not set(header) >= _NEEDED or not set(header) <= {*_COLUMNS} or len({*header}) < len(header):
        shown = SEPARATORS[path.suffix].join(header)
        raise InputError(
            f"{path}, line 1 is {shown[:200]!r}; expected the header query, passage_id and "
            "perhaps grade and tenant"
        )
    rows = []
    for number, record in records:
        where = f"{path}, line {number}"
        if len(record) != len(header):
            problems.append(f"{where} has {len(record)} columns; expected {len(header)}")
            continue
        row = dict(zip(header, record, strict=True))
        grade = _grade(row.get("grade", "1"))
        tenant = row.get("tenant") or None
        if grade is None:
            problems.append(_bad_grade(where, row["grade"]))
        elif not _is_tenant(tenant):
            problems.append(f'{where}: tenant is {tenant!r}; expected JSON such as "acme" or 7')
        elif _query_is_good(row["query"], where, most, problems):
            rows.append(Row(row["query"], tenant, row["passage_id"], grade, where))
    return rows


def _is_tenant(text: str | None) -> bool:
    if text is None:
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    is_one = isinstance(value, str | int) and not isinstance(value, bool)
    return is_one and json.dumps(value) == text


def _grade(text: str) -> int | None:
    if re.fullmatch(r"[0-9]{1,3}", text) and int(text) <= HIGHEST_GRADE:
        return int(text)
    return None


def _bad_grade(where: str, text: str) -> str:
    return (
        f"{where} has the grade {text[:40]!r}; expected a whole number from 0 (no answer) to "
        f"{HIGHEST_GRADE}"
    )


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each record, header and all."""
    reader = csv.reader((line for _, line in _lines(path)), delimiter=separator, strict=True)
    n = 0
    try:
        for record in reader:
            if record:
                n += 1
                yield reader.line_num, record
            if n > MOST_ROWS + 1:
                raise InputError(
                    f"{path}, line {reader.line_num} is row {n - 1}; expected at most {MOST_ROWS}: "
                    "add a part of them"
                )
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num} cannot be taken apart ({error}); expected cells that "
            "hold separators, quotes or line ends in double quotes"
        ) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text with its line end) of each line; stops at what no such file has."""
    n_bytes = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            number = 0
            while line := file.readline(MOST_LINE_BYTES + 1):
                number += 1
                n_bytes += len(line)
                yield number, _decoded(line, n_bytes, f"{path}, line {number}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is no whole gzip file ({error}); pack it again") from error


def _decoded(line: bytes, n_bytes: int, where: str) -> str:
    if len(line) > MOST_LINE_BYTES:
        raise InputError(f"{where} is longer than 1 MB; expected a query or grade a line")
    if n_bytes > MOST_BYTES:
        raise InputError(f"{where} is beyond 256 MB, unpacked; expected less: add a part of it")
    if b"\0" in line:
        raise InputError(f"{where} has a NUL byte; expected text in UTF-8")
    try:
        return line.decode("utf-8-sig" if n_bytes == len(line) else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 ({error}); convert the file first") from error


def write_answers(items: Sequence[GoldenItem], out: Path, *, outside: Path) -> None:
    """Write the BEIR folder `out`, or the file when it ends in .csv or .tsv, whole or not at all.

    It must be new, and not in the folder `outside`. Raises InputError, StorageError.
    """
    for item in items:
        for text in item.answers:
            if "\0" in text:
                raise InputError(f"passage id {text!r} has a NUL byte, which no file can hold")
    with disk_errors(out):
        if out.suffix not in SEPARATORS:
            with new_folder(out, outside=outside) as staged:
                _write_beir(items, staged)
            return
        if out.exists():
            raise InputError(f"{out} is there already; expected a new file: give another name")
        if outside in out.parents:
            raise InputError(f"{out} is in the index folder; expected a file outside it")
        table = _table(items, SEPARATORS[out.suffix])
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, table)


def _write_beir(items: Sequence[GoldenItem], folder: Path) -> None:
    named = [(query_id(item.query_hash, item.tenant), item) for item in items]
    write_lines(folder / "queries.jsonl", (query_line(id_, i.query, i.tenant) for id_, i in named))
    (folder / "qrels").mkdir()
    write_qrels(
        folder / "qrels" / "test.tsv",
        ((id_, passage, grade) for id_, i in named for passage, grade in i.answers.items()),
    )


def _table(items: Sequence[GoldenItem], separator: str) -> str:
    tenants = any(item.tenant is not None for item in items)
    lines = [separator.join(_COLUMNS if tenants else _COLUMNS[:3])]
    for item in items:
        if "\0" in item.query:
            raise InputError(f"query {item.query!r} has a NUL byte; export a BEIR folder instead")
        for passage, grade in item.answers.items():
            cells = [item.query, passage, str(grade), *([item.tenant or ""] if tenants else [])]
            lines.append(separator.join(cell(text, separator) for text in cells))
    return "\n".join(lines) + "\n"
