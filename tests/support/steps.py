"""Does something between two steps of a call: what another process might do there.

A step is a statement of SQLite, a rename or an opened file. The call waits for nothing and no time is
slept away: when it comes to the step, what is to happen before it happens, in the same thread.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Act = Callable[[], object]


class Steps:
    """The steps of this thread; made before what is to be watched is opened."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._wanted, self._act, self._left, self._thread = ("", ""), None, 0, 0
        connect = sqlite3.connect
        steps = self

        class Watched(sqlite3.Connection):
            """Says each statement before it is executed."""

            _writes = False

            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if not (self.in_transaction and self._writes):  # where all others have to wait
                    steps._come_to("sql", sql)
                if sql.startswith("BEGIN"):
                    self._writes = sql == "BEGIN IMMEDIATE"
                return super().execute(sql, *values)

        def watched_connect(*arguments: Any, **more: Any) -> sqlite3.Connection:
            self._come_to("connect", str(arguments[0]))
            return connect(*arguments, **{"factory": Watched, **more})

        patch.setattr(sqlite3, "connect", watched_connect)
        for name in ("rename", "replace"):
            patch.setattr(os, name, self._renaming(getattr(os, name)))
        opening = os.open

        def watched_open(path: Any, *arguments: Any, **more: Any) -> int:
            self._come_to("open", os.fsdecode(path))
            return opening(path, *arguments, **more)

        patch.setattr(os, "open", watched_open)

    def _renaming(self, call: Callable[..., None]) -> Callable[..., None]:
        def watched_rename(src: Any, dst: Any, **more: Any) -> None:
            folder = more.get("dst_dir_fd")
            above = "" if folder is None else str(Path(f"/proc/self/fd/{folder}").readlink())
            self._come_to("rename", f"{above}/{os.fsdecode(dst)}")
            call(src, dst, **more)

        return watched_rename

    def _come_to(self, kind: str, what: str) -> None:
        wanted, part = self._wanted
        if self._act is None or threading.get_ident() != self._thread:
            return
        if kind != wanted or part not in what:
            return
        self._left -= 1
        if not self._left:
            act, self._act = self._act, None
            act()

    @contextmanager
    def before(self, kind: str, part: str, act: Act, *, nth: int = 1) -> Iterator[None]:
        """In the block, `act` is called before the nth step of a kind ("sql", "connect", "rename" or
        "open") with this part in it; there must be one."""
        with self.sweep(kind, part, act, nth=nth) as reached:
            yield
        assert reached(), f"there were not {nth} {kind} {part!r}"

    @contextmanager
    def sweep(self, kind: str, part: str, act: Act, *, nth: int) -> Iterator[Callable[[], bool]]:
        """The same; there need not be so many: what is yielded says whether there were."""
        self._wanted, self._act, self._left = (kind, part), act, nth
        self._thread = threading.get_ident()
        try:
            yield lambda: self._left <= 0
        finally:
            self._act = None
