"""Collections: passages, queries and which passages answer them (qrels), in BEIR's folder format.

It must not know what is measured on them.
"""

import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_flywheel.errors import InputError
from rag_flywheel.records import Passage

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


def find_collection(name: str) -> Path:
    """The folder `name`, or the one of that name under RAG_FLYWHEEL_DATA. Raises InputError."""
    data = os.environ.get("RAG_FLYWHEEL_DATA")
    places = [Path(name), *([Path(data) / name] if data else [])]
    for place in places:
        if place.is_dir():
            return place
    raise InputError(
        f"no collection {name!r}: looked for {' and '.join(map(str, places))}; expected a BEIR "
        "folder, or its name with RAG_FLYWHEEL_DATA naming the folder above it"
    )


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
