"""Takes deleted rows out of the bytes of the database and its log, also after an interruption.

SQLite overwrites a row that is deleted, but not the copies that it left when it moved rows between pages,
so the file is written anew. Whoever deletes notes it under a key of their own, in the same transaction.
"""

from rag_flywheel.store import journal
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database

_FILE, _LOG, _NOTHING = "yes", "log", "no"  # what may still hold the rows; the file: the log too


def note_deleted(conn: Connection, key: str) -> None:
    """Note that rows are deleted in this transaction which `wipe` has to take out of the bytes."""
    journal.write_meta(conn, key, _FILE)


def is_owed(conn: Connection, key: str) -> bool:
    """Whether the bytes may still hold rows whose deletion was noted."""
    return journal.read_meta(conn, key) not in (None, _NOTHING)


def wipe(database: Database, key: str, *, wait_s: float) -> bool:
    """Do what is owed: write the file anew, once, and empty the log beside it.

    False when other connections go on reading an older state for wait_s: the log, which may hold the rows,
    could not be emptied, and the next call tries again. Raises StorageError when the disk has no room for
    a second file, with the same remedy.
    """
    with database.reading() as conn:
        if not is_owed(conn, key):
            return True
        log_alone = journal.read_meta(conn, key) == _LOG
    emptied = database.empty_log(wait_s=wait_s) if log_alone else database.compact(wait_s=wait_s)
    with database.transaction() as conn:
        journal.write_meta(conn, key, _NOTHING if emptied else _LOG)
    if emptied:
        database.empty_log()  # of this note, so that anybody can see that nothing is in it
    return emptied
