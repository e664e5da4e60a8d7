"""Reads known answers from BEIR folders and tables within limits, and writes them atomically."""

import re
from collections.abc import Sequence
from pathlib import Path

from rag_flywheel.disk import disk_errors, new_folder, replace_text
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.formats.beir import read_golden, write_golden
from rag_flywheel.formats.rows import Row, RowsRead, refuse
from rag_flywheel.formats.table import SEPARATORS, read_table, table_text
from rag_flywheel.records import GoldenItem


def read_answers(path: Path, *, split: str, max_query_chars: int, into: RowsRead) -> list[Row]:
    """The rows of a BEIR folder's qrels/SPLIT.tsv with its queries, or of a .csv or .tsv file.

    into: gets the counts of what was left out.
    Raises InputError, naming file and line, for what cannot be used; StorageError.
    """
    if not isinstance(split, str) or not re.fullmatch(r"[\w.-]+", split):
        raise InputError(
            f"split is {quoted(split)}; expected a name such as test, of qrels/test.tsv"
        )
    with disk_errors(path):
        if path.is_dir():
            rows = read_golden(path, split, max_query_chars, into)
        elif path.is_file() and path.suffix in SEPARATORS:
            rows = read_table(path, max_query_chars, into)
        elif path.exists():
            raise InputError(f"{path} is no folder, .csv or .tsv; expected known answers in one")
        else:
            raise InputError(f"no file or folder {path}; expected a BEIR folder, a .csv or a .tsv")
    refuse(into.problems)
    return rows


def write_answers(items: Sequence[GoldenItem], out: Path, *, outside: Path) -> None:
    """Write the BEIR folder `out`, or the file if it ends in .csv or .tsv, atomically.

    It must be new, and not in the folder `outside`. Raises InputError, StorageError.
    """
    for item in items:
        for text in item.answers:
            if "\0" in text:
                raise InputError(
                    f"passage id {quoted(text)} has a NUL byte, which no file can hold"
                )
    with disk_errors(out):
        if out.suffix not in SEPARATORS:
            with new_folder(out, outside=outside) as staged:
                write_golden(items, staged)
            return
        if out.exists():
            raise InputError(f"{out} is there already; expected a new file: give another name")
        if outside in out.parents:
            raise InputError(f"{out} is in the index folder; expected a file outside it")
        table = table_text(items, SEPARATORS[out.suffix])
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, table)
