"""The database that holds what cannot be rebuilt of an index, whichever engine it is.

`sqlite.py` is the one in a file of the index folder, `postgres.py` the one on a server. What tables mean is
not known here.
"""

import os
import threading
import weakref
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from rag_flywheel.errors import ClosedError, ReadOnlyError, StorageError
from rag_flywheel.store.connection import Connection

FILE_NAME = "flywheel.db"
BUSY_TIMEOUT_S = 60.0


class ChangedError(StorageError):
    """A file that was read as if nobody writes to it was written to."""


class _Ends(Protocol):
    """A connection that can be closed."""

    @property
    def in_transaction(self) -> bool: ...

    def close(self) -> None: ...


_Conn = TypeVar("_Conn", bound=_Ends)


class Handle(Generic[_Conn]):
    """One thread's connection. The lock is held while it is used, closed, or the process forks.

    file: what it has open, by which another database of the same name is told from it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.conn: _Conn | None = None
        self.file: object = None

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self.lock:
            if self.conn is not None:
                self.conn.close()
                self.conn = None

    def __del__(self) -> None:
        if self.conn is not None:
            self.conn.close()


class Database(ABC):
    """Connections to one database, one per thread, and transactions on them; thread-safe. They are closed
    while the process forks, and opened again, by both sides, when next used.

    path: of the SQLite file in the index folder, or where that would be; read_only: every transaction is a
    ReadOnlyError. Every use raises a StorageError, and ClosedError after `close`.
    """

    HANDLE: ClassVar[type[Handle[Any]]] = Handle
    REMOTE: ClassVar[bool] = False
    """Whether each use asks a server, which takes its time and may be gone."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._local = threading.local()
        self._handles: weakref.WeakSet[Handle[Any]] = weakref.WeakSet()
        self._handles_lock = threading.RLock()
        self._closed = False
        _databases.add(self)

    def _handle(self) -> Any:
        """This thread's handle."""
        handle = getattr(self._local, "handle", None)
        if handle is None:
            handle = self.HANDLE()
            with self._handles_lock:
                self._handles.add(handle)
            self._local.handle = handle
        return handle

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """This thread's connection in autocommit, with errors translated, for single statements."""

    @abstractmethod
    def transaction(
        self, *, durable: bool = True, wait_s: float = BUSY_TIMEOUT_S
    ) -> AbstractContextManager[Connection]:
        """A write transaction: all of it is committed, or nothing. There is one at a time, so that event
        numbers are committed in their order.

        durable: on the disk before the block is left; else it survives the death of the process but perhaps
        not of the machine.
        wait_s: for how long to wait while another program writes. Raises BusyError after it.
        """

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[Connection]:
        """A read transaction: every statement in it sees the same state."""

    @property
    def file(self) -> object:
        """What this thread's connection has open; another database of the same name gives another value."""
        return getattr(getattr(self._local, "handle", None), "file", None)

    def require_open(self) -> None:
        """Raises ClosedError after `close`."""
        if self._closed:
            raise ClosedError(f"{self.path.parent} was closed; open it again to use it")

    def require_writable(self) -> None:
        """Raises ReadOnlyError when it was opened to be read only, and ClosedError after `close`."""
        self.require_open()
        if self.read_only:
            raise ReadOnlyError(
                f"{self.path.parent} was opened with read_only=True, which answers and reports, but "
                "records, changes and builds nothing; open it without read_only, as a user who may write "
                "to the folder"
            )

    @abstractmethod
    def problems(self) -> list[str]:
        """What the engine's own check says is wrong with what it stores; empty when sound."""

    @abstractmethod
    def quick_problems(self) -> tuple[list[str], bool]:
        """(what a quick look says is wrong, whether it saw all)."""

    @abstractmethod
    def compact(self, *, wait_s: float = 0.0) -> bool:
        """Free the space of what was deleted; False when that may still be read, after wait_s."""

    @abstractmethod
    def empty_log(self, *, wait_s: float = 0.0) -> bool:
        """Empty the engine's log of rows as they were; False when others use it for wait_s."""

    def close(self) -> None:
        """Close every connection of this process, each when the call that uses it has ended."""
        self._closed = True
        self.close_connections()

    def close_connections(self) -> None:
        """Close every connection, each when the call that uses it has ended; the next use opens another."""
        with self._handles_lock:
            handles = list(self._handles)
        for handle in handles:
            handle.close()

    def before_fork(self) -> list[threading.RLock]:
        """Close every connection, and hold the locks that keep threads from opening new ones."""
        self._handles_lock.acquire()
        held = [self._handles_lock]
        for handle in list(self._handles):
            handle.lock.acquire()
            held.append(handle.lock)
            if handle.conn is not None and not handle.conn.in_transaction:
                handle.close()
        return held


# A connection must not be open across a fork: SQLite keeps file locks by process, so that it would break
# the parent's locks and lose its log, and two processes would talk to a server at once.
_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_held: list[threading.RLock] = []


def databases() -> list[Database]:
    """Those that this process has, closed ones among them."""
    return list(_databases)


def _before_fork() -> None:
    for database in databases():
        _held.extend(database.before_fork())


def _after_fork() -> None:
    while _held:
        _held.pop().release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
