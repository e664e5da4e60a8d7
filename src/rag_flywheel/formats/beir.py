"""Reads and writes BEIR folders: corpus.jsonl, queries.jsonl and qrels/*.tsv."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rag_flywheel.checks import check_query
from rag_flywheel.errors import InputError
from rag_flywheel.formats.lines import (
    Limits,
    located,
    parse_json,
    read_lines,
    read_records,
    read_text,
)
from rag_flywheel.formats.rows import LIMITS, Row, collected, is_grade, parse_grade, read_rows
from rag_flywheel.records import GoldenItem, Passage


def query_id(query: bytes, tenant: str | None) -> str:
    """The id of a query: the hash of its text and, under a tenant key, one of the tenant (JSON)."""
    if tenant is None:
        return query.hex()
    return f"{query.hex()}-{blake2b(tenant.encode(), digest_size=8).hexdigest()}"


def write_lines(path: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def write_queries(
    folder: Path,
    queries: Iterable[tuple[str, str, str | None]],
    splits: Mapping[str, Iterable[tuple[str, str, int]]],
) -> None:
    """Write queries.jsonl and qrels/SPLIT.tsv into a BEIR folder that has no qrels yet.

    queries: (id, text, tenant as JSON or None); the tenant goes into the metadata.
    splits: by name, (query id, passage id, grade) of each row.
    """
    lines: list[dict[str, object]] = []
    for id_, text, tenant in queries:
        more = {} if tenant is None else {"metadata": {"tenant": json.loads(tenant)}}
        lines.append({"_id": id_, "text": text, **more})
    write_lines(folder / "queries.jsonl", lines)
    (folder / "qrels").mkdir()
    for split, rows in splits.items():
        path = folder / "qrels" / f"{split}.tsv"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write("query-id\tcorpus-id\tscore\n")
            file.writelines(f"{query}\t{cell(passage)}\t{n}\n" for query, passage, n in rows)


def cell(text: str, separator: str = "\t") -> str:
    """A cell, quoted if csv readers need it; the csv module would not quote a lone carriage return."""
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
    passages = [_passage(row, where) for row, where in read_objects(folder, "corpus")]
    texts = {str(row["_id"]): str(row["text"]) for row, _ in read_objects(folder, "queries")}
    known = {p.id for p in passages}
    splits = {
        path.stem: _split(path, texts, known) for path in sorted((folder / "qrels").glob("*.tsv"))
    }
    if not splits:
        raise InputError(f"{folder / 'qrels'} holds no .tsv file; expected test.tsv at least")
    return Collection(folder.resolve().name, passages, splits)


def _passage(row: Mapping[str, Any], where: str) -> Passage:
    id_, text, title = str(row["_id"]), str(row["text"]), str(row.get("title") or "")
    if text.strip():
        return Passage(id_, text, title)
    if title.strip():
        return Passage(id_, title)
    raise InputError(f"{where} has neither text nor title; expected something to retrieve")


def read_objects(folder: Path, name: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (object, its file and line) of NAME.jsonl, or .gz, with `_id` and `text` at least.

    Raises InputError.
    """
    path = _find(folder, name)
    if path is None:
        raise InputError(f"{folder} has no {name}.jsonl or {name}.jsonl.gz; expected a BEIR folder")
    for where, line in read_lines(path, _limits(path)):
        row = parse_json(line, where)
        if not isinstance(row, dict) or not {"_id", "text"} <= set(row):
            raise InputError(f"{where} has no _id and text; expected a BEIR {name} line")
        yield row, where


def _find(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz")
    return next((path for path in paths if path.is_file()), None)


def _limits(path: Path) -> Limits:
    """Return the limits of a collection's file; a packed one may not unpack to a bomb."""
    packed = path.suffix == ".gz"
    return Limits(
        _MOST_LINE,
        f" has more than {_MOST_LINE} bytes; expected one object",
        max(_ALWAYS_UNPACKED, _MOST_PACKED * path.stat().st_size) if packed else None,
        f": the file unpacks to more than {_MOST_PACKED} times its size; expected text, packed",
    )


def _split(path: Path, texts: Mapping[str, str], passages: set[str]) -> Split:
    qrels: Qrels = {}
    records = read_records(path, "\t", _limits(path), strict=False)
    next(records, None)  # the header
    for number, row in records:
        where = f"{path}, line {number}"
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


def read_golden(folder: Path, split: str, most: int, problems: list[str]) -> list[Row]:
    """The rows of qrels/SPLIT.tsv with the texts of their queries; problems go into `problems`."""
    qrels = folder / "qrels" / f"{split}.tsv"
    queries = _find(folder, "queries")
    if queries is None or not qrels.is_file():
        lacking = f"qrels/{split}.tsv" if queries else "queries.jsonl or queries.jsonl.gz"
        raise InputError(f"{folder} has no {lacking}; expected a BEIR folder")
    graded = _read_qrels(qrels, problems)
    wanted = {query for query, _, _, _ in graded}
    texts = _read_queries(queries, wanted, most, problems)
    rows = []
    for id_, passage, grade, where in graded:
        if id_ not in texts:
            problems.append(f"{where} names the query {id_!r}; expected one that {queries} has")
        elif query := texts[id_]:
            rows.append(Row(*query, passage, grade, where))
    return rows


def _read_qrels(path: Path, problems: list[str]) -> list[tuple[str, str, int, str]]:
    """(query id, passage id, grade, where) of each line after the header."""
    found: list[tuple[str, str, int, str]] = []
    for number, record in read_rows(path, "\t"):
        where = f"{path}, line {number}"
        if number == 1 and len(record) == 3:
            if is_grade(record[2]):
                raise InputError(
                    f"{where} is {record}; expected the header query-id, corpus-id, score"
                )
            continue
        with collected(problems):
            if len(record) != 3:
                raise InputError(
                    f"{where} has {len(record)} columns; expected query id, passage id and grade, "
                    "with tabs between them"
                )
            found.append((record[0], record[1], parse_grade(record[2], where), where))
    return found


def _read_queries(
    path: Path, wanted: set[str], most: int, problems: list[str]
) -> dict[str, tuple[str, str | None] | None]:
    """(text, tenant as JSON) of the wanted ids in the file; None for one with a problem."""
    found: dict[str, tuple[str, str | None] | None] = {}
    for where, line in read_text(path, LIMITS):
        if not line.strip():
            continue
        with collected(problems):
            row = parse_json(line, where)
            id_ = row.get("_id") if isinstance(row, dict) else None
            if not isinstance(id_, str | int) or isinstance(id_, bool) or "text" not in row:
                raise InputError(f"{where} has no _id and text; expected a BEIR query")
            if str(id_) in found:
                raise InputError(f"{where} has the _id {id_!r} again; expected each query once")
            if str(id_) in wanted:
                found[str(id_)] = None
                found[str(id_)] = _query(row, where, most)
    return found


def _query(row: dict[str, Any], where: str, most: int) -> tuple[str, str | None]:
    metadata = row.get("metadata")
    tenant = metadata.get("tenant") if isinstance(metadata, dict) else None
    if isinstance(tenant, bool) or not isinstance(tenant, str | int | None):
        raise InputError(f"{where}: tenant is {tenant!r}; expected a string or whole number")
    with located(where):
        check_query(row["text"], most)
    return row["text"], None if tenant is None else json.dumps(tenant)


def write_golden(items: Sequence[GoldenItem], folder: Path) -> None:
    """Write known answers as queries.jsonl and qrels/test.tsv."""
    named = [(query_id(item.query_hash, item.tenant), item) for item in items]
    grades = ((id_, *grade) for id_, item in named for grade in item.answers.items())
    write_queries(folder, ((id_, i.query, i.tenant) for id_, i in named), {"test": grades})
