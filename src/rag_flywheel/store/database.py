"""The database that holds what cannot be rebuilt of an index, whichever engine it is.

`sqlite.py` is the one in a file of the index folder, `postgres.py` the one on a server. What tables mean is
not known here.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

from rag_flywheel.errors import StorageError
from rag_flywheel.store.connection import Connection

FILE_NAME = "flywheel.db"
BUSY_TIMEOUT_S = 60.0


class ChangedError(StorageError):
    """A file that was read as if nobody writes to it was written to."""


class Database(ABC):
    """Connections to one database, one per thread, and transactions on them; thread-safe.

    path: of the SQLite file in the index folder, or where that would be; read_only: every transaction is a
    ReadOnlyError. Every use raises a StorageError, and ClosedError after `close`.
    """

    path: Path
    read_only: bool

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
    @abstractmethod
    def file(self) -> object:
        """What this thread's connection has open; another database of the same name gives another value."""

    @abstractmethod
    def require_open(self) -> None:
        """Raises ClosedError after `close`."""

    @abstractmethod
    def require_writable(self) -> None:
        """Raises ReadOnlyError when it was opened to be read only, and ClosedError after `close`."""

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

    @abstractmethod
    def close(self) -> None:
        """Close every connection of this process, each when the call that uses it has ended."""

    @abstractmethod
    def close_connections(self) -> None:
        """Close every connection, each when the call that uses it has ended; the next use opens another."""
