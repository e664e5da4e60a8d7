"""Reads untrusted files within limits: lines, plain or packed, JSON, and delimited records."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_flywheel.errors import InputError


@dataclass(frozen=True)
class Limits:
    """How large a line and a file may be, and how the messages on larger ones end.

    n_line_bytes: of one line.
    long_line: follows the file and line in the message.
    n_bytes: of the whole file, unpacked; None: any size.
    large_file: follows the file and line in the message.
    """

    n_line_bytes: int
    long_line: str
    n_bytes: int | None = None
    large_file: str = ""


def read_lines(path: Path, limits: Limits) -> Iterator[tuple[str, bytes]]:
    """Yield (file and line number for messages, line with its end) of a file, plain or .gz.

    Raises InputError for what is larger than its limit and for a damaged .gz file; OSError.
    """
    number = n_bytes = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while True:
            number += 1
            where = f"{path}, line {number}"
            try:
                line = file.readline(limits.n_line_bytes + 1)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise InputError(
                    f"{where} cannot be read: it is no whole gzip file ({error}); fetch the file "
                    "anew, or pack it again"
                ) from error
            if not line:
                return
            n_bytes += len(line)
            if len(line) > limits.n_line_bytes:
                raise InputError(where + limits.long_line)
            if limits.n_bytes is not None and n_bytes > limits.n_bytes:
                raise InputError(where + limits.large_file)
            yield where, line


def read_text(path: Path, limits: Limits, *, nul: bool = False) -> Iterator[tuple[str, str]]:
    """Yield as `read_lines` does, the lines decoded from UTF-8; nul: whether they may hold NUL."""
    encoding = "utf-8-sig"
    for where, line in read_lines(path, limits):
        if not nul and b"\0" in line:
            raise InputError(f"{where} has a NUL byte; expected text in UTF-8")
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            raise InputError(f"{where} is not UTF-8 ({error}); convert the file first") from error
        yield where, text
        encoding = "utf-8"


def parse_json(
    line: str | bytes, where: str, hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Return the value of a line of JSON. hook: builds an object from its pairs. Raises InputError."""
    try:
        return json.loads(line, object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON ({error}); expected one object a line") from error


@contextmanager
def located(where: str) -> Iterator[None]:
    """Prefix the message of an InputError in the block with the file and line."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def read_records(
    path: Path, separator: str, limits: Limits, *, strict: bool
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of each record of a table, the header included.

    strict: refuse NUL bytes, and quotes in the middle of a cell. Raises InputError, OSError.
    """
    lines = (line for _, line in read_text(path, limits, nul=not strict))
    reader = csv.reader(lines, delimiter=separator, strict=strict)
    try:
        for record in reader:
            yield reader.line_num, record
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num} cannot be taken apart ({error}); expected cells that "
            "hold separators, quotes or line ends in double quotes"
        ) from error
