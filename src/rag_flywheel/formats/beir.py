"""Reads and writes BEIR folders: corpus.jsonl, queries.jsonl and qrels/*.tsv.

Published collections have lines that cannot be used; each one is counted (`tally`).
"""

import json
import math
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rag_flywheel.checks import check_query, check_text
from rag_flywheel.errors import InputError
from rag_flywheel.formats.lines import Limits, located, parse_json, read_lines, read_text
from rag_flywheel.formats.qrels import (
    AGAIN,
    NO_PASSAGE,
    NO_QUERY,
    OTHER_GRADE,
    Judgments,
    read_qrels,
)
from rag_flywheel.formats.rows import LIMITS, MOST_ROWS, Row, RowsRead, parse_grade
from rag_flywheel.formats.tally import EMPTY, LinesRead, Tally
from rag_flywheel.records import GoldenItem, Passage


def query_id(digest: bytes, tenant: str | None) -> str:
    """The id of a query: a digest of its text and, under a tenant key, one of the tenant (JSON)."""
    if tenant is None:
        return digest.hex()
    return f"{digest.hex()}-{blake2b(tenant.encode(), digest_size=8).hexdigest()}"


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
_BAD_LINE, _TWICE, _NO_ID = "no usable object", "its id came before", "no id"
_BLANK_PASSAGE, _BLANK_QUERY = "neither text nor title", "no text"
Qrels = dict[str, dict[str, int]]
"""{query id: {passage id: grade}}; a grade above 0 means relevant."""


@dataclass(frozen=True)
class Split:
    """Queries by id, and the passages that answer each.

    own: the queries whose id is a passage's too, as in ArguAna, where queries are passages: that
        passage is never ranked for the query.
    """

    queries: Mapping[str, str]
    qrels: Qrels
    own: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Collection:
    """Passages, and splits of the queries by name ("train", "dev", "test").

    queries: all that have a text, by id, judged or not.
    lines: what became of the lines of each file.
    """

    name: str
    passages: list[Passage]
    splits: Mapping[str, Split]
    queries: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[LinesRead, ...] = ()


def read_beir(folder: Path, *, lenient: bool = False) -> Collection:
    """The collection in a BEIR folder: corpus.jsonl, queries.jsonl and qrels/*.tsv, each perhaps .gz.

    Passages and queries without a text, judgments of either that are not there, and judgments that come
    again are left out, and counted in `lines`. lenient: so is whatever else cannot be used as it is: a
    line that is no object or no judgment, an id that came before, another grade for the same pair.

    Raises InputError, naming file and line, for these, and for files that are missing or cannot be read.
    """
    tallies: dict[str, Tally] = {}
    passages = list(_read_corpus(folder, _tally(tallies, "corpus", lenient)))
    queries = dict(_read_texts(folder, _tally(tallies, "queries", lenient)))
    known = {p.id for p in passages}
    splits = {}
    for name, path in _qrels_files(folder).items():
        tally = _tally(tallies, f"qrels/{name}", lenient)
        qrels = _qrels(read_qrels(path, _limits(path), tally), queries, known, tally)
        texts = {query: queries[query] for query in qrels}
        splits[name] = Split(texts, qrels, frozenset(known & set(qrels)))
    lines = tuple(tally.report() for tally in tallies.values())
    return Collection(folder.resolve().name, passages, splits, queries, lines)


def _tally(tallies: dict[str, Tally], name: str, lenient: bool) -> Tally:
    tallies[name] = Tally(name, lenient=lenient)
    return tallies[name]


def _read_corpus(folder: Path, tally: Tally) -> Iterator[Passage]:
    for id_, row, where, line in _objects(folder, "corpus", tally):
        found: Passage | None = None
        with tally.refusing(_BAD_LINE, line):
            text, title = _text(row, "text", where), _text(row, "title", where)
            found = Passage(id_, text, title) if text.strip() else Passage(id_, title)
        if found is None:
            continue
        if found.text.strip():
            tally.use()
            yield found
        else:
            tally.leave_out(_BLANK_PASSAGE, line)


def _read_texts(folder: Path, tally: Tally) -> Iterator[tuple[str, str]]:
    for id_, row, where, line in _objects(folder, "queries", tally):
        text: str | None = None
        with tally.refusing(_BAD_LINE, line):
            text = _text(row, "text", where)
        if text is None:
            continue
        if text.strip():
            tally.use()
            yield id_, text
        else:
            tally.leave_out(_BLANK_QUERY, line)


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text under a key; empty for null and NaN, which pandas writes for it. Raises InputError."""
    value = row.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{where}: {key} is {type(value).__name__}; expected a string")
    return check_text(f"{where}: {key}", str(value))


def _objects(
    folder: Path, name: str, tally: Tally
) -> Iterator[tuple[str, dict[str, Any], str, int]]:
    """Yield (id, object, file and line, number of the line) of NAME.jsonl, or .gz, each id once."""
    path = _find(folder, name)
    seen: dict[str, int] = {}
    for line, (where, data) in enumerate(read_lines(path, _limits(path)), 1):
        if not data.strip():
            tally.leave_out(EMPTY, line)
            continue
        row: dict[str, Any] | None = None
        with tally.refusing(_BAD_LINE, line):
            row, id_ = _object(data.removeprefix(BOM_UTF8) if line == 1 else data, where, name)
        if row is None:
            continue
        if not id_:
            tally.leave_out(_NO_ID, line)
        elif id_ in seen:
            what = f"{where} has the _id {id_[:200]!r} of line {seen[id_]} again"
            tally.refuse(_TWICE, f"{what}; expected each once", line)
        else:
            seen[id_] = line
            yield id_, row, where, line


def _object(data: bytes, where: str, name: str) -> tuple[dict[str, Any], str]:
    """The object in a line, and its id, empty for null. Raises InputError."""
    row = parse_json(data, where)
    if not isinstance(row, dict) or not {"_id", "text"} <= set(row):
        raise InputError(f"{where} has no _id and text; expected a BEIR {name} line")
    return row, "" if row["_id"] is None else _id(row["_id"], where)


def _id(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where}: _id is {value!r}; expected a string or whole number")
    return check_text(f"{where}: _id", str(value))


def _find(folder: Path, name: str) -> Path:
    """The file NAME.jsonl, or .gz. Raises InputError, which says what there is in its place."""
    for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if path.is_file():
            return path
    message = f"{folder} has no {name}.jsonl or {name}.jsonl.gz; expected a BEIR folder"
    if packed := sorted(folder.glob(f"{name}.jsonl.*")):
        message += f": unpack {packed[0].name}, or pack it as .gz"
    elif inside := sorted(p.parent.name for p in folder.glob(f"*/{name}.jsonl*")):
        message += f": give one of the {len(inside)} in it, {', '.join(inside[:20])}"
    raise InputError(message)


def _qrels_files(folder: Path) -> dict[str, Path]:
    """The files of qrels by split. Raises InputError when there are none."""
    places = sorted((folder / "qrels").glob("*"))
    ends = (".tsv.gz", ".tsv")
    files = {
        path.name.removesuffix(end): path
        for end in ends
        for path in places
        if path.name.endswith(end) and not path.name.startswith(".") and path.is_file()
    }
    if not files:
        there = ", ".join(path.name for path in places[:20]) or "nothing"
        raise InputError(
            f"{folder / 'qrels'} holds no .tsv file, but {there}; expected test.tsv at least"
        )
    return {name: files[name] for name in sorted(files)}


def _limits(path: Path) -> Limits:
    """Return the limits of a collection's file; a packed one may not unpack to a bomb."""
    packed = path.suffix == ".gz"
    return Limits(
        _MOST_LINE,
        f" has more than {_MOST_LINE} bytes; expected one object",
        max(_ALWAYS_UNPACKED, _MOST_PACKED * path.stat().st_size) if packed else None,
        f": the file unpacks to more than {_MOST_PACKED} times its size; expected text, packed",
    )


def _qrels(found: Judgments, queries: Mapping[str, str], passages: set[str], tally: Tally) -> Qrels:
    qrels: Qrels = {}
    for row in found.below_header(queries, tally):
        before = qrels.get(row.query, {}).get(row.passage)
        if row.query not in queries:
            tally.leave_out(NO_QUERY, row.line, row.n_lines)
        elif row.passage not in passages:
            tally.leave_out(NO_PASSAGE, row.line, row.n_lines)
        elif before == row.grade:
            tally.leave_out(AGAIN, row.line, row.n_lines)
        elif before is not None:
            what = f"{row.where} gives the grade {row.grade} where a line before gave {before}"
            message = f"{what}; expected one grade for a query and passage"
            tally.refuse(OTHER_GRADE, message, row.line, row.n_lines)
        else:
            tally.use(row.n_lines)
            qrels.setdefault(row.query, {})[row.passage] = row.grade
    return qrels


ALL_SPLITS = "all"


def read_golden(folder: Path, split: str, most: int, into: RowsRead) -> list[Row]:
    """The rows of qrels/SPLIT.tsv, or of all splits, with the texts of their queries.

    Raises InputError for missing files; problems and counts go into `into`.
    """
    queries, files = _find(folder, "queries"), _qrels_files(folder)
    if split not in files and split != ALL_SPLITS:
        raise InputError(
            f"{folder} has no qrels/{split}.tsv; expected it: name another split, of "
            f"{', '.join(files)}, or {ALL_SPLITS}"
        )
    wanted = [split] if split in files else list(files)
    tallies = {name: into.tally(f"qrels/{name}") for name in wanted}
    graded = {name: read_qrels(files[name], LIMITS, tallies[name], parse_grade) for name in wanted}
    n_rows = sum(len(found.rows) for found in graded.values())
    if n_rows > MOST_ROWS:
        raise InputError(
            f"{folder / 'qrels'} has {n_rows} grades; expected at most {MOST_ROWS}: add a part of them"
        )
    named = {row.query for found in graded.values() for row in found.rows}
    named |= {found.head.query for found in graded.values() if found.head is not None}
    tally = into.tally("queries")
    texts = _read_queries(queries, named, most, tally)
    rows = []
    for name, found in graded.items():
        for row in found.below_header(texts, tallies[name]):
            query = texts.get(row.query)
            if row.query not in texts:
                message = f"{row.where} names the query {row.query[:200]!r}; expected one that {queries} has"
                tallies[name].refuse(NO_QUERY, message, row.line, row.n_lines)
            elif query is None:
                tallies[name].leave_out(NO_QUERY, row.line, row.n_lines)
            else:
                tallies[name].use(row.n_lines)
                rows.append(Row(*query, row.passage, row.grade, row.where))
    into.lines += [tally.report(), *(each.report() for each in tallies.values())]
    return rows


def _read_queries(
    path: Path, wanted: set[str], most: int, tally: Tally
) -> dict[str, tuple[str, str | None] | None]:
    """(text, tenant as JSON) of the wanted ids in the file; None for one with a problem."""
    found: dict[str, tuple[str, str | None] | None] = {}
    for line, (where, text) in enumerate(read_text(path, LIMITS), 1):
        if not text.strip():
            tally.leave_out(EMPTY, line)
            continue
        with tally.refusing(_BAD_LINE, line):
            row = parse_json(text, where)
            id_ = row.get("_id") if isinstance(row, dict) else None
            if not isinstance(id_, str | int) or isinstance(id_, bool) or "text" not in row:
                raise InputError(f"{where} has no _id and text; expected a BEIR query")
            if str(id_) in found:
                raise InputError(f"{where} has the _id {id_!r} again; expected each query once")
            if str(id_) in wanted:
                found[str(id_)] = None
                found[str(id_)] = _query(row, where, most)
            tally.use()
    return found


def _query(row: dict[str, Any], where: str, most: int) -> tuple[str, str | None]:
    metadata = row.get("metadata")
    tenant = metadata.get("tenant") if isinstance(metadata, dict) else None
    blank = isinstance(tenant, str) and not tenant.strip()
    if blank or isinstance(tenant, bool) or not isinstance(tenant, str | int | None):
        raise InputError(f"{where}: tenant is {tenant!r}; expected a string or whole number")
    with located(where):
        check_query(row["text"], most)
    return row["text"], None if tenant is None else json.dumps(tenant)


def write_golden(items: Sequence[GoldenItem], folder: Path) -> None:
    """Write known answers as queries.jsonl and qrels/test.tsv."""
    named = [(query_id(item.digest, item.tenant), item) for item in items]
    grades = ((id_, *grade) for id_, item in named for grade in item.answers.items())
    write_queries(folder, ((id_, i.query, i.tenant) for id_, i in named), {"test": grades})
