"""Writes records of answers that could not be written at once, because another program held the write lock.

An answer waits for the lock for a moment only. Its record then waits in memory, in the order of the answers,
and a thread writes it as soon as the lock is free; later ones queue up behind it without waiting at all. The
same holds while the server of the database cannot be reached.
"""

import logging
import os
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from rag_flywheel.errors import (
    BusyError,
    FlywheelError,
    NotRecordedWarning,
    UnreachableError,
    counted,
)
from rag_flywheel.store import forgetting, retrievals, users
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import BUSY_TIMEOUT_S, Database
from rag_flywheel.store.timeline import Moment, is_of

log = logging.getLogger("rag_flywheel")
MOST = 1_000
"""Records that wait in one process at most; further answers are given without one."""
CLOSE_WAIT_S = 5.0
_SPELL_S = 0.2  # between two looks whether the lock is free, so that a fork need not wait for long
_GONE_S = 0.1  # between two looks whether the server is there again
Write = Callable[[Connection], object]


@dataclass(frozen=True)
class Record:
    """A write that waits. ids: of the retrievals that it records; moment, n_forgotten: the database's
    when they were answered; user: the hash of who asked, None: nobody is known."""

    ids: tuple[str, ...]
    moment: Moment
    n_forgotten: int
    user: str | None
    write: Write


class Postponed:
    """The records of one open index that wait; thread-safe."""

    def __init__(self, database: Database, *, wait_s: float = BUSY_TIMEOUT_S) -> None:
        self._database = database
        self._wait_s = wait_s
        self.start_over()
        _every.add(self)

    def start_over(self) -> None:
        """Forget them, as a forked child must: its parent writes them."""
        self._records = deque[Record]()
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None
        self._closed = False
        self._n_lost = 0
        self._gone: UnreachableError | None = None  # why the writer waits for the server

    def __len__(self) -> int:
        return sum(len(record.ids) for record in list(self._records))

    def write(self, record: Record, *, wait_s: float) -> bool:
        """Write a record now, or in a while when another program holds the lock for wait_s or others wait
        already; False when too many wait, and it is lost. Raises StorageError."""
        if not self._records:
            try:
                with self._database.transaction(durable=False, wait_s=wait_s) as conn:
                    record.write(conn)
                return True
            except BusyError:
                pass
        with self._changed:
            if self._closed or len(self) + len(record.ids) > MOST:
                return False
            self._records.append(record)
            if self._writer is None or not self._writer.is_alive():
                self._writer = threading.Thread(target=self._run, name="rag-flywheel-records")
                self._writer.start()
        return True

    def wait_for(self, ids: Collection[object]) -> None:
        """Wait until none of these retrievals waits to be recorded. Raises UnreachableError while the server
        is gone."""
        if not self._records:  # a record is among them before its ids are told
            return
        self._wait(lambda: not any(self._waits(id_) for id_ in ids))

    def wait_for_all(self) -> None:
        """Wait until nothing waits to be recorded. Raises UnreachableError while the server is gone."""
        self._wait(lambda: not self._records)

    def _wait(self, over: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: over() or self._gone is not None)
            if self._gone is not None and not over():
                raise UnreachableError(*self._gone.args)

    def _waits(self, id_: object) -> bool:
        return any(id_ in record.ids for record in self._records)

    def close(self) -> None:
        """Write what waits, for at most CLOSE_WAIT_S; warns of what is lost. Close the database after it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._records, timeout=CLOSE_WAIT_S)
            self._closed = True
            n, self._n_lost = len(self) + self._n_lost, 0
            self._records.clear()
            self._changed.notify_all()
            writer = self._writer
        if writer is not None:
            writer.join()
        if n:
            warnings.warn(
                f"{counted(n, 'answer was', 'answers were')} not recorded, so that no vote can be cast on "
                "them: another program went on writing to the database, or its server was gone",
                NotRecordedWarning,
                stacklevel=3,
            )

    def _run(self) -> None:
        """Write them one after the other; ends when there is none."""
        since = time.monotonic()
        while True:
            with self._changed:
                if not self._records:
                    self._writer = None  # the next one starts another
                    return
                record = self._records[0]
            lost, stale = "", False
            try:
                with self._database.transaction(durable=False, wait_s=_SPELL_S) as conn:
                    lost = self._stale(conn, record)
                    stale = bool(lost)
                    if not stale and not retrievals.rows_by_id(conn, record.ids[:1]):
                        record.write(conn)
                since = time.monotonic()
                self._note_gone(None)
            except UnreachableError as error:
                since = time.monotonic()
                self._note_gone(error)
                if self._closed:
                    return
                time.sleep(_GONE_S)
                continue
            except BusyError as error:
                self._note_gone(None)
                if time.monotonic() - since < self._wait_s:
                    time.sleep(0.01)  # a fork that waits for this connection gets it
                    continue
                lost = str(error)
            except FlywheelError as error:
                lost = str(error)
            except Exception:
                log.exception("a record of an answer cannot be written")
                lost = "an error that was not foreseen"
            self._done(record, lost, n_lost=len(record.ids) if lost and not stale else 0)

    def _note_gone(self, error: UnreachableError | None) -> None:
        if self._gone is not error:
            with self._changed:
                self._gone = error
                self._changed.notify_all()

    @staticmethod
    def _stale(conn: Connection, record: Record) -> str:
        """Why a record must not be written any more; "" when it may."""
        if not is_of(conn, record.moment):
            return "a backup was restored meanwhile"
        if record.user is not None and users.opted_out(conn, [record.user]):
            return "the user has opted out meanwhile"
        if forgetting.count_begun(conn) != record.n_forgotten:
            return "a user was forgotten meanwhile"
        return ""

    def _done(self, record: Record, lost: str, *, n_lost: int) -> None:
        if lost:
            fields = {"event": "records_lost", "n": len(record.ids)}
            what = counted(len(record.ids), "answer was", "answers were")
            log.warning("%s not recorded: %s", what, lost, extra=fields)
        with self._changed:
            if self._records and self._records[0] is record:
                self._records.popleft()
                self._n_lost += n_lost
            self._changed.notify_all()


_every: weakref.WeakSet[Postponed] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_every):
        each.start_over()


os.register_at_fork(after_in_child=_after_fork)
