"""Shows the progress of long work on standard error: as bars on a terminal, as lines elsewhere."""

import sys
import time
from typing import Any

from rag_flywheel.formats.printable import printable_line
from rag_flywheel.records import Progress

_AFTER_S = 1.0  # until there are bars
_FIRST_LINE_S, _NEXT_LINE_S = 5.0, 15.0


class Bars:
    """A Progress that draws one bar for each step, with rate and time left; a context manager.

    Steps whose names are the same up to a colon share a bar, beside which the last name is shown. Where
    standard error is no terminal, such as a log, a line is printed now and then; none for short work.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next_line = self._began + _FIRST_LINE_S
        self._rich: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done of a step."""
        step = printable_line(step)
        if not sys.stderr.isatty():
            self._line(step, done, total)
        elif time.monotonic() - self._began >= _AFTER_S:
            self._bar(step, done, total)

    def _line(self, step: str, done: int, total: int) -> None:
        if time.monotonic() >= self._next_line and done < total:
            print(f"{step}: {done} of {total}", file=sys.stderr, flush=True)
            self._next_line = time.monotonic() + _NEXT_LINE_S

    def _bar(self, step: str, done: int, total: int) -> None:
        if self._rich is None:
            from rich import progress
            from rich.console import Console

            columns = (
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
            )
            self._rich = progress.Progress(*columns, console=Console(stderr=True))
            self._rich.start()
        bar = step.partition(":")[0]
        if bar not in self._tasks:
            self._tasks[bar] = self._rich.add_task(step, total=total)
        self._rich.update(self._tasks[bar], description=step, completed=done, total=total)


def as_progress(progress: "bool | Progress", bars: Bars) -> Progress | None:
    """The callable for a `progress` argument: None for False, the bars for True, else the caller's."""
    if progress is False:
        return None
    return bars if progress is True else progress
