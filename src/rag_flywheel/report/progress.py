"""Shows the progress of long work as bars on standard error, only on a terminal and after a second."""

import sys
import time
from typing import Any

from rag_flywheel.records import Progress

_AFTER_S = 1.0


class Bars:
    """A Progress that draws one bar for each step, with rate and time left; a context manager.

    Steps whose names are the same up to a colon share a bar, beside which the last name is shown.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._rich: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done of a step."""
        if not sys.stderr.isatty() or time.monotonic() - self._began < _AFTER_S:
            return
        if self._rich is None:
            from rich import progress
            from rich.console import Console

            columns = (
                progress.TextColumn("{task.description}"),
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
