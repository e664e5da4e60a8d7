"""Keeps the state of one process up to date, call by call, with what any process did to the folder.

It must not know what a state is used for.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import FlywheelError
from rag_flywheel.serve.loaded import LoadedVersion
from rag_flywheel.serve.state import Source, State, caught_up, initial_state
from rag_flywheel.store import passages
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")
LoadLive = Callable[[], tuple[LoadedVersion, int | None]]
_Signature = tuple[int, ...] | None
_TRIES = 5


class LiveState:
    """The newest State, loaded whole and swapped in one step; thread-safe.

    load_live reads the live version and the event number that evidence is frozen at; a change of
    current_file means that another one is live.
    """

    def __init__(
        self, database: Database, source: Source, load_live: LoadLive, current_file: Path
    ) -> None:
        self._database = database
        self._source = source
        self._load_live = load_live
        self._current_file = current_file
        self._lock = threading.Lock()
        self._live: tuple[_Signature, State] | None = None

    def state(self) -> State:
        """The state after every event committed before this call, of any process.

        When a new live version cannot be loaded, the last one goes on serving and the error is
        logged; it is raised only when there is no last one.
        """
        live = self._live
        if live is not None and live[0] == self._signature():
            with self._database.reading() as conn:
                if live[1].seq == passages.read_clock(conn):
                    return live[1]
        with self._lock:
            signature, state = self._loaded()
            with self._database.snapshot() as conn:
                if passages.read_clock(conn) != state.seq:
                    state = caught_up(state, conn, self._source)
            self._live = (signature, state)
            return state

    def last(self) -> State | None:
        """The state that was given last, which may be an old one; None: there was none yet."""
        live = self._live
        return None if live is None else live[1]

    def _loaded(self) -> tuple[_Signature, State]:
        for _ in range(_TRIES):
            signature = self._signature()
            if self._live is not None and self._live[0] == signature:
                return self._live
            try:
                version, frozen_at = self._load_live()
                with self._database.snapshot() as conn:
                    return signature, initial_state(version, frozen_at, conn, self._source)
            except FlywheelError as error:
                if signature != self._signature():
                    continue  # another version went live, and this one may have been pruned
                if self._live is None:
                    raise
                log.error("the new live version cannot be served; keeping the last: %s", error)
                return signature, self._live[1]
        raise AssertionError("the live version changed at every try to load it")

    def _signature(self) -> _Signature:
        with disk_errors(self._current_file):
            try:
                stat = os.stat(self._current_file)  # noqa: PTH116 - half the time of Path.stat
            except FileNotFoundError:
                return None
        return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
