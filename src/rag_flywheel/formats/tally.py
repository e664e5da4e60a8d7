"""Counts what becomes of each line of a file, so that nothing is left out silently."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rag_flywheel.errors import InputError, counted

WAY_ON = "mend the line, or leave such lines out: lenient=True, --lenient in a shell"


@dataclass(frozen=True)
class LinesRead:
    """What became of the lines of one file: n_lines = n_used + n_header + those left out.

    left_out: the number of lines by reason. first: the number of the first such line.
    """

    file: str
    n_lines: int
    n_used: int
    n_header: int
    left_out: Mapping[str, int]
    first: Mapping[str, int]

    @property
    def sentences(self) -> list[str]:
        """A sentence for each reason why lines were left out; empty lines are not worth one."""
        return [
            f"{self.file}: left out {counted(n, 'line')}: {reason} "
            f"(the first is line {self.first[reason]})"
            for reason, n in self.left_out.items()
            if reason != EMPTY
        ]


EMPTY = "empty line"


class Tally:
    """Counts the lines of one file while it is read.

    lenient: lines that cannot be used are left out, and counted; else each is a problem.
    problems: where the messages on them go; None: the first is raised as InputError.
    """

    def __init__(
        self, file: str, *, lenient: bool = False, problems: list[str] | None = None
    ) -> None:
        self._file = file
        self._lenient = lenient
        self._problems = problems
        self._n_used = self._n_header = 0
        self._left_out = Counter[str]()
        self._first: dict[str, int] = {}

    def use(self, n: int = 1) -> None:
        """Count lines that are used."""
        self._n_used += n

    def skip_header(self, n: int = 1) -> None:
        """Count lines of the header."""
        self._n_header += n

    def leave_out(self, reason: str, line: int, n: int = 1) -> None:
        """Count lines that are left out, n of them up to the number `line`."""
        self._left_out[reason] += n
        self._first.setdefault(reason, line - n + 1)

    def refuse(self, reason: str, message: str, line: int, n: int = 1) -> None:
        """Note a line that cannot be used. Raises InputError unless problems are collected."""
        if not self._lenient and self._problems is None:
            raise InputError(f"{message}; {WAY_ON}")
        if not self._lenient and self._problems is not None:
            self._problems.append(message)
        self.leave_out(reason, line, n)

    @contextmanager
    def refusing(self, reason: str, line: int, n: int = 1) -> Iterator[None]:
        """Refuse the line with the message of an InputError in the block."""
        try:
            yield
        except InputError as error:
            self.refuse(reason, str(error), line, n)

    def report(self) -> LinesRead:
        """What became of the lines so far."""
        n_left_out = self._left_out.total()
        return LinesRead(
            self._file,
            self._n_used + self._n_header + n_left_out,
            self._n_used,
            self._n_header,
            dict(self._left_out),
            dict(self._first),
        )
