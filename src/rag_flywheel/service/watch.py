"""What runs beside the calls of a process: models and versions are loaded at the start, and the numbers of
the indexes are read now and then, by one of the processes for all of them.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from rag_flywheel.errors import ClosedError, FlywheelError
from rag_flywheel.report.coverage import Coverage
from rag_flywheel.report.numbers import IndexNumbers
from rag_flywheel.service import metrics
from rag_flywheel.service.indexes import Indexes
from rag_flywheel.service.scratch import scratch_folder
from rag_flywheel.service.settings import Settings
from rag_flywheel.store.database import Database
from rag_flywheel.store.service.state import require_readable

log = logging.getLogger("rag_flywheel")
_FILE, _LOCK = "indexes.json", "reader.lock"
_EVERY_S = 5.0  # at most as often is it looked whether something is due
_AGAIN_S = 30.0  # after which a model that could not be loaded is tried again
_CACHED_S = 1.0  # for which an answer of `problems` holds, however often it is asked for
_ENDS_S = 10.0


@dataclass
class _Known:
    """What is known of the indexes, by name."""

    indexes: dict[str, IndexNumbers] = field(default_factory=dict)
    coverage: dict[str, Coverage] = field(default_factory=dict)


class Watch:
    """Loads, reads and tells; thread-safe. `close` before the indexes are closed."""

    def __init__(self, indexes: Indexes, settings: Settings, state: Database) -> None:
        """state: the service's own records."""
        self._state = state
        self._indexes = indexes
        self._settings = settings
        self._own = ExitStack()
        given = os.environ.get(metrics.FOLDER)
        self._folder = Path(given) if given else self._own.enter_context(scratch_folder())
        self._lock_file: int | None = None
        self._loading: dict[str, str | None] = {}  # by index: why it is not loaded, None: not yet
        if settings.warm:
            self._loading = dict.fromkeys([name for name, _ in indexes])
        self._known = _Known()
        self._read_at: tuple[int, float] | None = None
        self._due_numbers = self._due_coverage = 0.0
        self._told: tuple[float, tuple[str, ...], float] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rag-flywheel watch", daemon=True)

    def start(self) -> None:
        """Begin to load and to read."""
        self._thread.start()

    def close(self) -> None:
        """End, when what is being done is done."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(_ENDS_S)
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None
        self._own.close()

    def problems(self) -> tuple[tuple[str, ...], float]:
        """(why this process cannot answer, a sentence each; how long a refresh has been running, in s)."""
        told = self._told
        if told is not None and time.monotonic() - told[0] < _CACHED_S:
            return told[1:]
        found, running = [*self._not_loaded(), *self._not_recorded()], 0.0
        for _, fw in self._indexes:
            ready = fw.readiness()
            found += ready.problems
            running = max(running, ready.refresh_running_s)
        self._told = time.monotonic(), tuple(dict.fromkeys(found)), running
        return self._told[1:]

    def _not_recorded(self) -> list[str]:
        try:
            require_readable(self._state)
        except FlywheelError as error:
            return [
                "the service's own records, its keys among them, cannot be read "
                f"({type(error).__name__}); see whether their server runs, and ask again"
            ]
        return []

    def _not_loaded(self) -> list[str]:
        return [
            "the model and the live version are being loaded; ask again in a second"
            if why is None
            else f"the model or the live version cannot be loaded ({why}); the log of the service says "
            "why, and `rag-flywheel health` what to do"
            for why in list(self._loading.values())
        ]

    def of_indexes(self) -> Mapping[str, IndexNumbers]:
        """The numbers of each index, as they were read last."""
        return self._newest().indexes

    def of_coverage(self) -> Mapping[str, Coverage]:
        """The coverage of each index, as it was computed last."""
        return self._newest().coverage

    def _newest(self) -> _Known:
        """What the process that reads wrote last."""
        with suppress(OSError, msgspec.DecodeError):
            found = (self._folder / _FILE).stat()
            if (mark := (found.st_ino, found.st_mtime)) != self._read_at:
                content = (self._folder / _FILE).read_bytes()
                self._known = msgspec.json.decode(content, type=_Known)
                self._read_at = mark
        return self._known

    def _run(self) -> None:
        known, tried = _Known(), float("-inf")
        while not self._ended.is_set():
            try:
                if self._loading and time.monotonic() - tried >= _AGAIN_S:
                    self._load()
                    tried = time.monotonic()
                if self._is_reader():
                    self._read(known)
                    metrics.forget_dead_processes()
            except ClosedError:
                return
            except Exception:
                log.exception("what the service watches could not be read")
            self._ended.wait(min(_EVERY_S, self._settings.numbers_s))

    def _load(self) -> None:
        for name, fw in self._indexes:
            if name not in self._loading or self._ended.is_set():
                continue
            try:
                fw.warm()
            except ClosedError:
                raise
            except FlywheelError as error:
                self._loading[name] = type(error).__name__
                log.error("index %s cannot be loaded: %s", name, error)
            else:
                del self._loading[name]
            self._told = None

    def _is_reader(self) -> bool:
        """Whether this process is the one that reads the numbers; when it dies, another one is."""
        if self._lock_file is not None:
            return True
        descriptor = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._lock_file = descriptor
        return True

    def _read(self, known: _Known) -> None:
        now, s = time.monotonic(), self._settings
        numbers_due, coverage_due = now >= self._due_numbers, now >= self._due_coverage
        if not numbers_due:
            return
        self._due_numbers = now + s.numbers_s
        for name, fw in self._indexes:
            try:
                known.indexes[name] = fw.numbers()
                if s.coverage_s and coverage_due and name not in self._loading:
                    known.coverage[name] = fw.coverage(all_tenants=True)
                    self._due_coverage = now + s.coverage_s
            except ClosedError:
                raise
            except FlywheelError as error:
                log.warning("the numbers of index %s cannot be read: %s", name, error)
        part = self._folder / f"{_FILE}.part"
        part.write_bytes(msgspec.json.encode(known))
        part.replace(self._folder / _FILE)
