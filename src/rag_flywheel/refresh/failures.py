"""Leaves a trace of every refresh that fails: in the database, else in a file of the folder, and in the log.

What is stored is never the text of an exception, which may quote what users wrote, but words of our own.
"""

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rag_flywheel.deploy.failure_file import NotedFailure, note_failure
from rag_flywheel.errors import (
    BusyError,
    ClosedError,
    ConfigError,
    CorruptFileError,
    DiskFullError,
    EncoderError,
    EncoderMismatchError,
    EncoderNotFoundError,
    EngineError,
    FlywheelError,
    LockedError,
    NewerFormatError,
    ObjectStoreError,
    ReadOnlyError,
    StorageError,
    UnreachableError,
)
from rag_flywheel.store import attempts, wall_clock
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")
_WAIT_S = 5.0  # for the lock of the database, to note a failure
_PACKAGE = Path(__file__).parents[1]
_WORDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str], ...] = (
    (DiskFullError, "there was no space left on the disk",
     "free some, at least what one version takes, and refresh again"),
    (ReadOnlyError, "the folder could not be written to",
     "run the refresh as the user who owns the folder, and see that the disk is not mounted read-only"),
    (UnreachableError, "the server of the database could not be reached",
     "see whether it runs, and refresh again"),
    (BusyError, "another program held the write lock of the database for a minute",
     "see what holds it (`fuser flywheel.db`), and refresh again"),
    (NewerFormatError, "the folder was written by a newer release", "upgrade rag-flywheel"),
    (CorruptFileError, "a file of the index is damaged",
     "`rag-flywheel verify` names it, `rag-flywheel repair` mends what can be rebuilt"),
    (EncoderNotFoundError, "the encoder could not be found",
     "see `encoder` in flywheel.toml, and that its model is on this machine or the hub can be reached"),
    (EncoderMismatchError, "the encoder is not the one that the index was made with",
     "refresh with the encoder of the index; `rag-flywheel status` names it"),
    (EngineError, "the database of vectors that passages are found in did not answer as it should",
     "see `engine` in flywheel.toml, and that it runs; `rag-flywheel verify` says what it lacks"),
    (EncoderError, "the encoder failed, or returned what cannot be used",
     "run the refresh by hand: its message says what the encoder returned"),
    (ConfigError, "a setting cannot be used", "mend flywheel.toml: the message of a refresh names the line"),
    (LockedError, "it lost the refresh lock while it slept, and another process went on",
     "nothing where that one ended well; else refresh again"),
    (ObjectStoreError, "the object store that versions are in could not be used",
     "see whether it answers, and the credentials in the environment, and refresh again"),
    (StorageError, "the folder or the disk could not be used",
     "run the refresh by hand: its message says why"),
    (MemoryError, "there was not enough memory", "give the refresh more memory, and run it again"),
    (KeyboardInterrupt, "it was interrupted", "nothing, or refresh again: the live version went on serving"),
)  # fmt: skip


class Failure(NamedTuple):
    """The name of an exception, what went wrong, and what to do about it."""

    error: str
    reason: str
    to_do: str


def described(error: BaseException) -> Failure:
    """An exception in words that hold nothing of its message."""
    name = type(error).__name__
    for kind, reason, to_do in _WORDS:
        if isinstance(error, kind):
            return Failure(name, reason, to_do)
    return Failure(
        name,
        f"an error that was not foreseen, {name}{_place(error)}",
        "run the refresh by hand, and report the message that it prints",
    )


def _place(error: BaseException) -> str:
    """Where in this package it was raised."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_PACKAGE):
            return f" in {path.relative_to(_PACKAGE).as_posix()}, line {frame.lineno}"
    return ""


class Trace:
    """The record of one refresh; nothing is written until it begins to build, or fails."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begun: int | None = None

    def begin(self) -> None:
        """Note that a version begins to be built."""
        with self._database.transaction() as conn:
            self._begun = attempts.begin(conn)

    def end(self) -> None:
        """Note that the refresh came to a result, unless nothing had begun."""
        if self._begun is not None:
            with self._database.transaction() as conn:
                attempts.end(conn, self._begun)

    def fail(self, root: Path, error: BaseException) -> None:
        """Note that it failed."""
        note(root, self._database, error, self._begun)


@contextmanager
def traced(root: Path, database: Database) -> Iterator[Trace]:
    """Record how the refresh in the block went; its errors go on."""
    trace = Trace(database)
    try:
        yield trace
    except ClosedError:  # by whoever called it
        raise
    except (Exception, KeyboardInterrupt) as error:
        trace.fail(root, error)
        raise
    try:
        trace.end()
    except StorageError as error:
        log.warning("refresh: that it ended could not be recorded: %s", error)


def note(
    root: Path, database: Database | None, error: BaseException, begun: int | None = None
) -> None:
    """Record a failed refresh where that is possible: in the database, the file, and in any case the log.

    database: None: it could not be opened. begun: the number of the attempt in it.
    """
    failure = described(error)
    fields = {"event": "refresh_failed", "index": str(root), "error": failure.error}
    log.error("refresh: failed: %s; %s", failure.reason, failure.to_do, extra=fields)
    try:
        if database is not None:
            with database.transaction(wait_s=_WAIT_S) as conn:
                attempts.fail(conn, begun, *failure)
            return
    except FlywheelError as also:
        log.warning("refresh: the failure is not in the database: %s", also)
    if not note_failure(root, NotedFailure(wall_clock.now(), os.getpid(), *failure)):
        log.warning("refresh: nor in the folder: it cannot be written to")
