"""Says where the texts of a state are read: in the store, or in this host's copy of one on a server."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rag_flywheel.errors import StorageError
from rag_flywheel.serve.state import RestoredError, State
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.text_copy import TextCopy
from rag_flywheel.store.timeline import Moment, read_moment


class Texts:
    """The texts of an index. copy: None where they are read from the store alone, which is at hand."""

    def __init__(self, database: Database, copy: TextCopy | None = None) -> None:
        self._database = database
        self._copy = copy

    def follow(self, conn: Connection) -> None:
        """Bring the copy, if there is one, to the state that this read transaction on the store sees."""
        if self._copy is not None:
            self._copy.follow(conn)

    @contextmanager
    def of(self, state: State) -> Iterator[Connection]:
        """A read transaction in which the texts of a state are read. Raises RestoredError, StorageError."""
        with ExitStack() as stack:
            conn = self._from_copy(state, stack)
            if conn is None:
                conn = stack.enter_context(self._database.snapshot())
                if read_moment(conn).timeline != state.timeline:
                    raise RestoredError
            yield conn

    def _from_copy(self, state: State, stack: ExitStack) -> Connection | None:
        """The same on the copy; None: it has not all of them."""
        if self._copy is None:
            return None
        try:
            return stack.enter_context(self._copy.reading(Moment(state.timeline, state.texts_at)))
        except StorageError:
            return None

    def close(self) -> None:
        """Close the copy."""
        if self._copy is not None:
            self._copy.close()
