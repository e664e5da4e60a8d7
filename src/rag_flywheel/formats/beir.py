"""BEIR folders, read and written: corpus.jsonl, queries.jsonl and qrels/*.tsv.

It must not know what is measured on a collection, nor where known answers are stored.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rag_flywheel.errors import InputError
from rag_flywheel.formats.rows import (
    Row,
    bad_grade,
    parse_grade,
    query_is_good,
    read_lines,
    read_records,
)
from rag_flywheel.records import GoldenItem, Passage

QRELS_HEADER = ("query-id", "corpus-id", "score")


def query_id(query: bytes, tenant: str | None) -> str:
    """The id of a query: the hash of its text and, under a tenant key, one of the tenant (JSON)."""
    if tenant is None:
        return query.hex()
    return f"{query.hex()}-{blake2b(tenant.encode(), digest_size=8).hexdigest()}"


def query_line(id_: str, text: str, tenant: str | None) -> Mapping[str, object]:
    """A line of queries.jsonl; tenant: as JSON, it goes into the metadata."""
    more = {} if tenant is None else {"metadata": {"tenant": json.loads(tenant)}}
    return {"_id": id_, "text": text, **more}


def write_lines(path: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def write_qrels(path: Path, rows: Iterable[tuple[str, str, int]]) -> None:
    """Write a header, and (query id, passage id, grade) of each row."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(QRELS_HEADER) + "\n")
        for query, passage, grade in rows:
            file.write(f"{query}\t{cell(passage)}\t{grade}\n")


def cell(text: str, separator: str = "\t") -> str:
    """As csv readers expect it; the csv module's own writer leaves a lone carriage return bare."""
    if not any(character in text for character in f'"{separator}\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


_MOST_LINE = 64 * 2**20  # bytes


_MOST_PACKED, _ALWAYS_UNPACKED = 200, 64 * 2**20


Qrels = dict[str, dict[str, int]]
"""{query id: {passage id: grade}}; a grade above 0 means relevant."""


@dataclass(frozen=True)
class Split:
    """Queries by id, and the passages that answer each."""

    queries: Mapping[str, str]
    qrels: Qrels


@dataclass(frozen=True)
class Collection:
    """Passages, and splits of the queries by name ("train", "dev", "test")."""

    name: str
    passages: list[Passage]
    splits: Mapping[str, Split]


def read_beir(folder: Path) -> Collection:
    """The collection in a BEIR folder: corpus.jsonl, queries.jsonl (or .gz) and qrels/*.tsv.

    Raises InputError, naming file and line, for what is missing, malformed or dangling.
    """
    passages = [_passage(row, where) for row, where in _rows(folder, "corpus")]
    texts = {str(row["_id"]): str(row["text"]) for row, _ in _rows(folder, "queries")}
    known = {p.id for p in passages}
    splits = {
        path.stem: _split(path, texts, known) for path in sorted((folder / "qrels").glob("*.tsv"))
    }
    if not splits:
        raise InputError(f"{folder / 'qrels'} holds no .tsv file; expected test.tsv at least")
    return Collection(folder.resolve().name, passages, splits)


def _passage(row: Mapping[str, Any], where: str) -> Passage:
    passage = Passage(str(row["_id"]), str(row["text"]), str(row.get("title") or ""))
    if not passage.text.strip() and not passage.title.strip():
        raise InputError(f"{where} has neither text nor title; expected something to retrieve")
    if not passage.text.strip():
        return Passage(passage.id, passage.title)
    return passage


def _rows(folder: Path, name: str) -> Iterator[tuple[dict[str, Any], str]]:
    paths = [folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        raise InputError(f"{folder} has no {name}.jsonl or {name}.jsonl.gz; expected a BEIR folder")
    for line, where in _lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is no JSON ({error}); expected one object") from error
        if not isinstance(row, dict) or not {"_id", "text"} <= set(row):
            raise InputError(f"{where} has no _id and text; expected a BEIR {name} line")
        yield row, where


def _lines(path: Path) -> Iterator[tuple[bytes, str]]:
    """(line, where it is) of a file, unpacked when it is packed, which makes it no bomb.

    Raises InputError.
    """
    packed = path.suffix == ".gz"
    left = max(_ALWAYS_UNPACKED, _MOST_PACKED * path.stat().st_size) if packed else None
    number = 0
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        while True:
            number += 1
            where = f"{path}, line {number}"
            try:
                line = file.readline(_MOST_LINE + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(
                    f"{where} cannot be read ({error}); fetch the file anew"
                ) from error
            if not line:
                return
            if left is not None and (left := left - len(line)) < 0:
                raise InputError(
                    f"{where}: the file unpacks to more than {_MOST_PACKED} times its size; "
                    "expected text, packed"
                )
            if len(line) > _MOST_LINE:
                raise InputError(f"{where} has more than {_MOST_LINE} bytes; expected one object")
            yield line, where


def _cells(rows: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    """The rows of a table. Raises InputError for what is no text, or no table."""
    number = 0
    while True:
        number += 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}, line {number} cannot be read ({error})") from error
        yield row


def _split(path: Path, texts: Mapping[str, str], passages: set[str]) -> Split:
    qrels: Qrels = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        for number, row in enumerate(_cells(rows, path), 1):
            where = f"{path}, line {number}"
            if number == 1:
                continue  # the names of the columns
            try:
                query, passage, grade = row[0], row[1], int(row[2])
            except (IndexError, ValueError) as error:
                raise InputError(f"{where} is {row}; expected query, passage, grade") from error
            if query not in texts or passage not in passages:
                what = "query" if query not in texts else "passage"
                raise InputError(f"{where} names a {what} that the collection does not have")
            qrels.setdefault(query, {})[passage] = grade
    for query in qrels:
        if not texts[query].strip():
            raise InputError(f"query {query!r} of {path} is blank; expected some words")
    return Split({query: texts[query] for query in qrels}, qrels)


@dataclass(frozen=True)
class _Query:
    text: str
    tenant: str | None


def read_golden(folder: Path, split: str, most: int, problems: list[str]) -> list[Row]:
    """The graded rows of qrels/SPLIT.tsv with the texts of their queries; problems are appended."""
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
    for number, record in read_records(path, "\t"):
        where = f"{path}, line {number}"
        if len(record) != 3:
            problems.append(
                f"{where} has {len(record)} columns; expected query id, passage id and grade, "
                "with tabs between them"
            )
        elif number == 1:
            if parse_grade(record[2]) is not None:
                raise InputError(
                    f"{where} is {record}; expected the header query-id, corpus-id, score"
                )
        elif (grade := parse_grade(record[2])) is None:
            problems.append(bad_grade(where, record[2]))
        else:
            found.append((record[0], record[1], grade, where))
    return found


def _read_queries(
    path: Path, wanted: set[str], most: int, problems: list[str]
) -> dict[str, _Query | None]:
    """Those of the wanted ids that are there; None: with a problem, which is noted."""
    found: dict[str, _Query | None] = {}
    for number, line in read_lines(path):
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
    if not query_is_good(row["text"], where, most, problems):
        return None
    return _Query(row["text"], None if tenant is None else json.dumps(tenant))


def write_golden(items: Sequence[GoldenItem], folder: Path) -> None:
    """Write known answers as queries.jsonl and qrels/test.tsv."""
    named = [(query_id(item.query_hash, item.tenant), item) for item in items]
    write_lines(folder / "queries.jsonl", (query_line(id_, i.query, i.tenant) for id_, i in named))
    (folder / "qrels").mkdir()
    write_qrels(
        folder / "qrels" / "test.tsv",
        ((id_, passage, grade) for id_, i in named for passage, grade in i.answers.items()),
    )
