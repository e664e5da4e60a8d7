"""Reads spreadsheets (.csv, .tsv): each row becomes one text, with the names of its columns."""

import csv
import re
from collections.abc import Iterator

from rag_flywheel.errors import InputError

_SEPARATORS = ",;\t|"
_SEP_LINE = re.compile(r"\ufeff?sep=([,;\t|])[ \t]*\n", re.IGNORECASE)  # as Excel writes it


def row_texts(text: str, *, separator: str | None = None) -> Iterator[str]:
    """Yield for each row after the first a line "column: value" of each cell that is not blank.

    The first row names the columns; when it is the only one, it is a row itself.
    separator: None: the one of comma, semicolon, tab and bar that the first row has most of.
    Raises InputError for what cannot be taken apart.
    """
    line = _SEP_LINE.match(text)
    if line:
        separator, text = separator or line[1], text[line.end() :]
    rows = csv.reader(
        re.findall(r"[^\n]*\n|[^\n]+", text), delimiter=separator or _separator(text), strict=False
    )
    try:
        columns = next(rows, [])
        n_rows = 0
        for row in rows:
            if any(cell.strip() for cell in row):
                n_rows += 1
                yield _text(columns, row)
    except csv.Error as error:
        raise InputError(f"line {rows.line_num} cannot be taken apart ({error})") from error
    if not n_rows and any(cell.strip() for cell in columns):
        yield "\n".join(cell.strip() for cell in columns if cell.strip())


def _separator(text: str) -> str:
    first = re.sub(r'"[^"]*"', "", next(iter(text.lstrip("\n").split("\n", 1)), ""))
    return max(_SEPARATORS, key=first.count) if any(s in first for s in _SEPARATORS) else ","


def _text(columns: list[str], row: list[str]) -> str:
    names = [*columns, *[""] * len(row)]
    lines = []
    for name, cell in zip(names, row, strict=False):
        if cell.strip():
            value = cell.strip()
            lines.append(f"{name.strip()}: {value}" if name.strip() else value)
    return "\n".join(lines)
