"""Reads qrels: BEIR's three columns with or without a header, and the four of TREC."""

import csv
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from rag_flywheel.errors import InputError, counted
from rag_flywheel.formats.lines import Limits, read_text
from rag_flywheel.formats.tally import EMPTY, Tally

NO_QUERY = "the query is not there, or blank"
NO_PASSAGE = "the passage is not there, or blank"
AGAIN = "the same judgment again"
OTHER_GRADE = "another grade for the same query and passage"
NO_JUDGMENT = "no query, passage and grade"
_GRADE = re.compile(r"[+-]?[0-9]{1,9}(\.0*)?")
ParseGrade = Callable[[str, str], int]
"""The grade in a cell, given the file and line for messages. Raises InputError."""


@dataclass(frozen=True)
class Judgment:
    """A grade of a passage for a query; where: file and line; line: its number, the last of n_lines."""

    query: str
    passage: str
    grade: int
    where: str
    line: int
    n_lines: int = 1


@dataclass(frozen=True)
class Judgments:
    """The judgments of one file, which `below_header` gives.

    head: its first line, when its last cell is no number: a header, unless it names a query.
    """

    head: Judgment | None
    rows: list[Judgment]

    def below_header(self, queries: Collection[str], tally: Tally) -> list[Judgment]:
        """The judgments; a first line that names one of the queries is no header, and is refused."""
        head = self.head
        if head is not None and head.query in queries:
            message = f"{head.where} names a query, but has no grade; expected a whole number"
            tally.refuse(NO_JUDGMENT, message, head.line, head.n_lines)
        elif head is not None:
            tally.skip_header(head.n_lines)
        return self.rows


def whole_number(text: str, where: str) -> int:
    """The grade in a cell: a whole number, which may be written as 1.0. Raises InputError."""
    if not _GRADE.fullmatch(text):
        raise InputError(f"{where} has the grade {text[:40]!r}; expected a whole number")
    return int(float(text))


def read_qrels(
    path: Path, limits: Limits, tally: Tally, parse_grade: ParseGrade = whole_number
) -> Judgments:
    """The judgments of a file: query id, passage id, grade, with or without a header.

    Between query and passage there may be TREC's column of the iteration. Columns stand between tabs,
    or, where the first two lines have none, between blanks. Raises InputError for a file that cannot be
    read, and what `tally` raises.
    """
    head: Judgment | None = None
    rows: list[Judgment] = []
    seen = False
    for line, n_lines, cells in _records(path, limits):
        where = f"{path}, line {line}"
        if not any(cell.strip() for cell in cells):
            tally.leave_out(EMPTY, line, n_lines)
            continue
        first, seen = not seen, True
        if first and not _GRADE.fullmatch(cells[-1].strip()):
            head = Judgment(cells[0], "", 0, where, line, n_lines)
            continue
        with tally.refusing(NO_JUDGMENT, line, n_lines):
            if len(cells) not in (3, 4):
                raise InputError(
                    f"{where} has {counted(len(cells), 'column')}; expected query id, passage "
                    "id and grade, with tabs between them"
                )
            grade = parse_grade(cells[-1].strip(), where)
            rows.append(Judgment(cells[0], cells[-2], grade, where, line, n_lines))
    return Judgments(head, rows)


def _records(path: Path, limits: Limits) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (number of its last line, number of lines, cells) of each record, blank ones included."""
    lines = (line for _, line in read_text(path, limits, nul=True))
    start: list[str] = []
    while sum(bool(line.strip()) for line in start) < 2 and (more := list(islice(lines, 1))):
        start += more
    whole = chain(start, lines)
    if not any("\t" in line for line in start):
        for number, line in enumerate(whole, 1):
            yield number, 1, line.split()
        return
    reader, before = csv.reader(whole, delimiter="\t"), 0
    try:
        for cells in reader:
            yield reader.line_num, reader.line_num - before, cells
            before = reader.line_num
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num} cannot be taken apart ({error}); expected cells that "
            "hold tabs, quotes or line ends in double quotes"
        ) from error
