"""The rows of known answers, and the checks that each must pass."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rag_flywheel.checks import MOST_ID_CHARS, as_whole, check_query, check_text, items
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.formats.lines import Limits, read_records
from rag_flywheel.formats.tally import WAY_ON, LinesRead, Tally

MOST_ROWS = 100_000
LIMITS = Limits(
    1_000_000,
    " is longer than 1 MB; expected a query or grade a line",
    256_000_000,
    " is beyond 256 MB, unpacked; expected less: add a part of it",
)
HIGHEST_GRADE = 100
_GRADE = re.compile(r"[0-9]{1,3}(\.0*)?")  # pandas writes 1.0


@dataclass(frozen=True)
class Row:
    """A grade of a passage for a query; tenant: as JSON; where: the file and line, for messages."""

    query: str
    tenant: str | None
    passage_id: str
    grade: int
    where: str


@dataclass
class RowsRead:
    """What became of the lines of files of known answers.

    lenient: rows that cannot be used are counted, not refused.
    problems: one message for each row that is refused. lines: of each file.
    """

    lenient: bool = False
    problems: list[str] = field(default_factory=list)
    lines: list[LinesRead] = field(default_factory=list)

    def tally(self, file: str) -> Tally:
        """Counts the lines of a file."""
        return Tally(file, lenient=self.lenient, problems=self.problems)


def refuse(problems: Sequence[str]) -> None:
    """Raise InputError with the first problem and the number of others, if there is one."""
    if problems:
        more = f" (further such lines: {len(problems) - 1})" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}. Nothing was added; {WAY_ON}")


def rows_of(
    answers: Iterable[tuple[str, str, int]], tenant: str | None, max_query_chars: int
) -> list[Row]:
    """The rows of known answers that a program gives: (query, passage id, grade) each. Raises InputError."""
    found = []
    for n, each in enumerate(items("answers", answers, tuple), 1):
        if len(each) != 3:
            raise InputError(
                f"answer {n} has {len(each)} parts; expected query, passage id and grade"
            )
        query, passage_id, grade = each
        check_query(query, max_query_chars)
        check_text("passage_id", passage_id, MOST_ID_CHARS)
        grade = check_grade(grade)
        found.append(Row(query, tenant, passage_id, grade, f"answer {n}"))
    if len(found) > MOST_ROWS:
        raise InputError(
            f"found {len(found)} answers; expected at most {MOST_ROWS}: add a part of them"
        )
    return found


def check_grade(grade: object) -> int:
    """A whole number from 0, no answer, to the highest grade. Raises InputError."""
    number = as_whole(grade)
    if number is None or not 0 <= number <= HIGHEST_GRADE:
        raise InputError(
            f"grade is {quoted(grade)}; expected a whole number from 0 (no answer) to {HIGHEST_GRADE}"
        )
    return number


def is_tenant(text: str | None) -> bool:
    """Whether a cell is a valid tenant: None, or a string or whole number as JSON."""
    if text is None:
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    is_one = isinstance(value, str | int) and not isinstance(value, bool)
    return is_one and json.dumps(value) == text and bool(str(value).strip())


def is_grade(text: str) -> bool:
    """Whether a cell is a valid grade."""
    return bool(_GRADE.fullmatch(text)) and int(float(text)) <= HIGHEST_GRADE


def parse_grade(text: str, where: str) -> int:
    """The grade in a cell. Raises InputError when the cell is not a valid grade."""
    if not is_grade(text):
        raise InputError(
            f"{where} has the grade {text[:40]!r}; expected a whole number from 0 (no answer) to "
            f"{HIGHEST_GRADE}"
        )
    return int(float(text))


def read_rows(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of each record that is not blank, the header included."""
    records = (found for found in read_records(path, separator, LIMITS, strict=True) if found[1])
    for n, (number, record) in enumerate(records):
        if n > MOST_ROWS:
            raise InputError(
                f"{path}, line {number} is row {n}; expected at most {MOST_ROWS}: add a part of them"
            )
        yield number, record
