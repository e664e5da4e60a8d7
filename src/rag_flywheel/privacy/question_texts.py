"""Takes the words of questions from what is stored, where the settings keep hashes alone."""

import logging

from rag_flywheel.errors import counted
from rag_flywheel.privacy import wipe
from rag_flywheel.store import retrievals
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")
_AT_ONCE = 10_000  # retrievals in one transaction, which other writers wait for
_WAIT_S = 10.0  # for readers of an older state of the database
_DELETED = "question words deleted"  # the key under which it is noted


def drop_question_texts(database: Database) -> int:
    """Delete the words of all recorded questions, and write the database anew without them.

    Votes, hashes and vectors stay. Returns of how many retrievals. A call that is interrupted is finished
    by the next.
    """
    n = 0
    with database.reading() as conn:
        left = retrievals.has_query_texts(conn)
        unfinished = wipe.is_owed(conn, _DELETED)
    while left:
        with database.transaction() as conn:
            wipe.note_deleted(conn, _DELETED)
            deleted = retrievals.drop_query_texts(conn, _AT_ONCE)
        n, left = n + deleted, deleted == _AT_ONCE
    if not n and not unfinished:
        return 0
    log.info("refresh: the words of %s were deleted", counted(n, "question"))
    if not wipe.wipe(database, _DELETED, wait_s=_WAIT_S):
        log.warning(
            "refresh: the words of questions are deleted, but %s-wal may still hold them: another program "
            "has been reading an older state of the database; end it, then run `rag-flywheel refresh`",
            database.path,
        )
    return n
