"""Rows of known answers, and the bounded reading of lines and tables that they come from.

It must not know which file formats there are.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_flywheel.checks import check_query
from rag_flywheel.errors import InputError

MOST_ROWS = 100_000
MOST_LINE_BYTES = 1_000_000
MOST_BYTES = 256_000_000  # of one file, unpacked
HIGHEST_GRADE = 100


@dataclass(frozen=True)
class Row:
    """A grade of a passage for a query; tenant: as JSON; where: the file and line, for messages."""

    query: str
    tenant: str | None
    passage_id: str
    grade: int
    where: str


def refuse(problems: Sequence[str]) -> None:
    """Raise InputError with the first problem and how many more there are; none: go on."""
    if problems:
        more = f" (further such lines: {len(problems) - 1})" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}. Nothing was added")


def query_is_good(query: object, where: str, most: int, problems: list[str]) -> bool:
    """Whether a query can be used; if not, why goes into `problems`."""
    try:
        check_query(query, most)
    except InputError as error:
        problems.append(f"{where}: {error}")
        return False
    return True


def is_tenant(text: str | None) -> bool:
    """Whether a cell holds a tenant: nothing, or a string or whole number as JSON."""
    if text is None:
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    is_one = isinstance(value, str | int) and not isinstance(value, bool)
    return is_one and json.dumps(value) == text


def parse_grade(text: str) -> int | None:
    """The grade in a cell; None when it holds none."""
    if re.fullmatch(r"[0-9]{1,3}", text) and int(text) <= HIGHEST_GRADE:
        return int(text)
    return None


def bad_grade(where: str, text: str) -> str:
    """What to say of a cell that holds no grade."""
    return (
        f"{where} has the grade {text[:40]!r}; expected a whole number from 0 (no answer) to "
        f"{HIGHEST_GRADE}"
    )


def read_records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each record, header and all."""
    reader = csv.reader((line for _, line in read_lines(path)), delimiter=separator, strict=True)
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


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
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
