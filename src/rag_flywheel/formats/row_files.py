"""Writes rows of named columns as JSONL, CSV or Parquet, a few in memory at a time.

It must not know what the rows are about.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rag_flywheel.errors import ConfigError, InputError
from rag_flywheel.formats.beir import cell, write_lines
from rag_flywheel.formats.printable import harmless_cell

Kind: TypeAlias = Literal["text", "time", "whole", "number", "flag", "texts", "wholes", "json"]
"""Of the values of a column: time: ISO 8601 text; texts, wholes: lists; json: anything that JSON has."""
Row: TypeAlias = Mapping[str, Any]
ENDINGS = (".jsonl", ".csv", ".parquet")
_AT_ONCE = 4_096  # rows of a group in a Parquet file


@dataclass(frozen=True)
class Column:
    """A column; None may stand in each row."""

    name: str
    kind: Kind


def ending_of(path: Path) -> str:
    """The ending of a file of rows. Raises InputError for another, and ConfigError without pyarrow."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path} ends in {path.suffix!r}; expected one of {', '.join(ENDINGS)}")
    if ending == ".parquet" and find_spec("pyarrow") is None:
        raise ConfigError(
            "pyarrow is not installed; expected the package of the extra parquet: "
            "pip install 'rag-flywheel[parquet]'"
        )
    return ending


def write_rows(
    path: Path, columns: Sequence[Column], rows: Iterable[Row], ending: str | None = None
) -> int:
    """Write a file of rows; returns how many. ending: one of ENDINGS, None: that of the path.

    JSONL and Parquet keep values as they are. In CSV, lists and JSON are JSON text, what is None is
    empty, and a text that a spreadsheet would take for a formula has ' in front, which
    `printable.cell_as_written` takes away.
    """
    write = _WRITERS[ending or ending_of(path)]
    n = 0

    def counted() -> Iterator[Row]:
        nonlocal n
        for row in rows:
            n += 1
            yield row

    write(path, columns, counted())
    return n


def _write_jsonl(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    write_lines(path, ({column.name: row[column.name] for column in columns} for row in rows))


def _write_csv(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(cell(column.name, ",") for column in columns) + "\n")
        for row in rows:
            cells = (cell(_csv_text(row[c.name], c.kind), ",") for c in columns)
            file.write(",".join(cells) + "\n")


def _csv_text(value: Any, kind: Kind) -> str:
    if value is None:
        return ""
    if kind in {"texts", "wholes", "json"}:
        value = json.dumps(value, ensure_ascii=False)
    if kind in {"whole", "number", "flag"}:
        return json.dumps(value)  # a number is no formula, whatever its sign
    return harmless_cell(str(value))


def _write_parquet(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds: dict[Kind, Any] = {
        "text": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
        "whole": pa.int64(),
        "number": pa.float64(),
        "flag": pa.bool_(),
        "texts": pa.list_(pa.string()),
        "wholes": pa.list_(pa.int64()),
        "json": pa.string(),
    }
    schema = pa.schema([(column.name, kinds[column.kind]) for column in columns])
    left = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while some := list(islice(left, _AT_ONCE)):
            arrays = [
                pa.array([_parquet_value(row[c.name], c.kind) for row in some], kinds[c.kind])
                for c in columns
            ]
            writer.write_table(pa.table(arrays, schema=schema))


def _parquet_value(value: Any, kind: Kind) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json.dumps(value, ensure_ascii=False)
    return datetime.fromisoformat(value) if kind == "time" else value


_WRITERS: Mapping[str, Callable[[Path, Sequence[Column], Iterable[Row]], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
