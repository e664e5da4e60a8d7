"""Where the store of an index folder is: in the SQLite file there, or on the server that a file there names.

The versions of an index lie in one folder, whichever it is: the folder and the store know each other by a
token, so that two folders do not build versions of the same store without knowing of each other. Where they
lie in an object store, hosts have folders of their own, and the store knows its address instead.
"""

import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from rag_flywheel.disk import read_bytes, replace_text
from rag_flywheel.errors import CorruptFileError, InputError, StorageError
from rag_flywheel.store import journal
from rag_flywheel.store.connection import scalar
from rag_flywheel.store.database import FILE_NAME, Database
from rag_flywheel.store.postgres import Address, PostgresDatabase
from rag_flywheel.store.sqlite import SqliteDatabase
from rag_flywheel.store.text_copy import FILE_NAME as TEXTS
from rag_flywheel.store.text_copy import TextCopy

if TYPE_CHECKING:
    from rag_flywheel.store.migrations import Hash

LINK = "STORE"
_MOST_BYTES = 2_000
FOLDER = "folder"
"""The key of the token among what the store notes; it is in no copy."""


def is_linked(root: Path) -> bool:
    """Whether the store of the index folder at `root` is on a server."""
    return (root / LINK).exists()


def open_database(
    root: Path, *, read_only: bool = False, address: Address | None = None
) -> Database:
    """The store of the index folder at `root`, not yet connected to.

    address: where it is, if it is on a server; None: what the folder says. Raises InputError, StorageError.
    """
    if address is None and not is_linked(root):
        return SqliteDatabase(root / FILE_NAME, read_only=read_only)
    known = _read(root)[0] if is_linked(root) else None
    if address is None:
        assert known is not None
        return PostgresDatabase(known, root, read_only=read_only)
    if known is not None and known.url != address.url:
        raise InputError(
            f"{root} holds the versions of the index at {known}, not of that at {address}; give another "
            "folder for this one"
        )
    if (root / FILE_NAME).exists():
        raise InputError(
            f"{root} holds an index in SQLite, {FILE_NAME}; give another folder, or copy that index to the "
            "server by `rag-flywheel copy`"
        )
    return PostgresDatabase(address, root, read_only=read_only)


def text_copy(root: Path, database: Database) -> TextCopy | None:
    """The copy of the texts that the folder at `root` keeps of a store on a server; None: it keeps none."""
    if database.read_only or not isinstance(database, PostgresDatabase):
        return None
    return TextCopy(root / TEXTS)


def settings_there(root: Path, address: Address) -> str | None:
    """The settings that hosts share of the index at an address; None: there is none yet, or one folder has
    them.

    Raises StorageError when the server does not answer.
    """
    database = open_database(root, address=address)
    try:
        with database.reading() as conn:
            if not scalar(conn, "SELECT to_regclass('meta') IS NOT NULL"):
                return None
            return journal.read_meta(conn, journal.SETTINGS)
    finally:
        database.close()


def host_of(root: Path) -> str:
    """A name of the host that has this folder, which no other has."""
    return f"{_read(root)[1]} {socket.gethostname()}"


def open_store(
    root: Path,
    user_hash: "Hash",
    *,
    read_only: bool = False,
    address: Address | None = None,
    own: bool = True,
) -> Database:
    """The store of the index folder at `root`, with the tables of this release.

    user_hash: as `migrate` takes it; own: whether to see that its versions lie in no other folder. Raises
    InputError, StorageError.
    """
    from rag_flywheel.store.migrations import (  # sqlite-utils takes 50 ms to load
        migrate,
        require_migrated,
    )

    database = open_database(root, read_only=read_only, address=address)
    try:
        if isinstance(database, PostgresDatabase) and not read_only:
            prepare(root, database)
        if read_only:
            require_migrated(database)
        else:
            migrate(database, user_hash)
        if isinstance(database, PostgresDatabase):
            database.close_connections()  # the next ones know the tables
            if own:
                require_own(root, database)
        return database
    except BaseException:
        database.close()
        raise


def prepare(root: Path, database: PostgresDatabase) -> None:
    """Let a folder know where its store is, and have the schema there. Raises StorageError."""
    database.make_schema()
    if not is_linked(root):
        replace_text(root / LINK, f"{database.address.url}\n{secrets.token_hex(16)}\n")


def require_own(root: Path, database: PostgresDatabase) -> None:
    """Raises StorageError when the versions of the index lie in another folder; the tables must be there."""
    token = _read(root)[1]
    with database.reading() as conn:
        if journal.is_shared(conn):
            return
        known = journal.read_meta(conn, FOLDER)
    if known is None and not database.read_only:
        with database.transaction() as conn:
            known = journal.read_meta(conn, FOLDER)
            if known is None:
                journal.write_meta(conn, FOLDER, known := token)
    if known != token:
        raise StorageError(
            f"the versions of the index at {database.address} lie in another folder than {root}; open it "
            "with that folder. For hosts with folders of their own, open it once with that folder and "
            "objects=URL, the address of an object store. Where that folder is lost, `rag-flywheel copy` the "
            "index to another schema"
        )


def _read(root: Path) -> tuple[Address, str]:
    path = root / LINK
    lines = read_bytes(path, most=_MOST_BYTES).decode("utf-8", "replace").splitlines()
    if len(lines) != 2:
        raise CorruptFileError(
            f"{path} holds {len(lines)} lines; expected the URL of a PostgreSQL database and a token"
        )
    return Address.of(lines[0]), lines[1]
