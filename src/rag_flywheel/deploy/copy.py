"""Copies an index to a new folder, with its database in SQLite or on a server, whichever it was in.

What is copied is one state of the index, with the live version: the same passages, votes, judgments and
parameters, and so the same order of hits.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rag_flywheel import config as settings
from rag_flywheel.config import read_config
from rag_flywheel.deploy.attach import attach
from rag_flywheel.deploy.backup import back_up
from rag_flywheel.deploy.restore import restore
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import FlywheelError, InputError
from rag_flywheel.records import CopyReport
from rag_flywheel.store.copies import empty_on_server, put_on_server
from rag_flywheel.store.database import FILE_NAME, Database
from rag_flywheel.store.migrations import Hash, migrate
from rag_flywheel.store.place import prepare, require_own
from rag_flywheel.store.postgres import Address, PostgresDatabase


def copy_index(
    root: Path,
    database: Database,
    dest: Path,
    address: Address | None,
    *,
    user_hash: Hash,
    objects: str | None = None,
) -> CopyReport:
    """Copy the index to `dest`, a new or empty folder, and its database to a server, or None: into it.

    The index goes on being used; what is added meanwhile is not in the copy. user_hash: as `migrate` takes
    it; objects: where hosts share the versions of the copy, None: they lie in `dest`. Raises InputError,
    CorruptFileError, StorageError; nothing is left of a copy that failed but empty tables.
    """
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise InputError(f"{dest} is there already; expected a new or empty folder")
    with disk_errors(dest.parent):
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".copy-", dir=dest.parent.resolve()) as aside:
            saved, staged = Path(aside) / "backup", Path(aside) / "index"
            report = back_up(root, database, saved)
            restore(saved, staged, user_hash=user_hash)
            with ExitStack() as undo:
                if address is not None:
                    undo.enter_context(_moved_to_server(staged, address, user_hash, objects))
                if dest.exists():
                    dest.rmdir()
                shutil.move(staged, dest)
    where = str(dest) if address is None else str(address)
    return CopyReport(where, str(dest), report.seq, report.version)


@contextmanager
def _moved_to_server(
    folder: Path, address: Address, user_hash: Hash, objects: str | None
) -> Iterator[None]:
    """Store the database of an index folder that nobody uses on a server instead, for the block; what fails
    then, or in it, deletes it there again."""
    database = PostgresDatabase(address, folder)
    try:
        prepare(folder, database)
        migrate(database, user_hash)
        put_on_server(folder / FILE_NAME, database)
        try:
            require_own(folder, database)
            if objects is not None:
                attach(folder, database, objects, read_config(folder / settings.FILE_NAME))
            (folder / FILE_NAME).unlink()
            yield
        except BaseException:
            with suppress(FlywheelError):  # the server may be what failed
                empty_on_server(database)
            raise
    finally:
        database.close()
