"""Progress of long work for people: bars on standard error, only on a terminal and after a second."""

import sys
import time
from typing import Any

from rag_flywheel.records import Progress

_AFTER_S = 1.0


class Bars:
    """A Progress that draws one bar for each step, with rate and time left; a context manager."""

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
            self._rich = _new_bars()
            self._rich.start()
        if step not in self._tasks:
            self._tasks[step] = self._rich.add_task(step, total=total)
        self._rich.update(self._tasks[step], completed=done, total=total)


def _new_bars() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def as_progress(asked: "bool | Progress", bars: Bars) -> Progress | None:
    """The callable behind a `progress` argument: none for False, bars for True, else the caller's."""
    if asked is False:
        return None
    return bars if asked is True else asked
