"""Whether a host that shares an index with others has what is live, and whether versions can be fetched."""

import time
from pathlib import Path

from rag_flywheel.deploy.current import read_current
from rag_flywheel.deploy.shared import claim, in_words, store_of
from rag_flywheel.errors import CorruptFileError, FlywheelError
from rag_flywheel.records import HealthCheck
from rag_flywheel.store import journal, wall_clock
from rag_flywheel.store.database import Database
from rag_flywheel.store.postgres import PostgresDatabase

_BEHIND_S = 600.0  # a host that answers no questions fetches nothing


def shared(root: Path, database: Database) -> list[HealthCheck]:
    """Of an index whose versions hosts share; none of any other."""
    if store_of(database) is None:
        return []
    return [_version_here(root, database), _object_store(database)]


def _version_here(root: Path, database: Database) -> HealthCheck:
    """Whether this host has the live version."""
    name, expected = "version here", "that which is live for all hosts"
    with database.reading() as conn:
        change = journal.last_change(conn)
    try:
        here = read_current(root)
    except CorruptFileError:
        here = None
    if change is None or change.current == here:
        return HealthCheck(name, "ok", "this host has what is live", expected)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(change.at))
    live = "none" if change.current is None else in_words(change.current)
    serves = "no version" if here is None else in_words(here)
    said = f"this host has {serves}; {live} is live since {since}"
    if wall_clock.now() - change.at < _BEHIND_S:
        return HealthCheck(name, "ok", said, expected)
    to_do = "nothing where nobody asks, for the next question fetches it; else see the object store"
    return HealthCheck(name, "degraded", said, expected, to_do)


def _object_store(database: Database) -> HealthCheck:
    """Whether the object store answers, as that of this index."""
    name, expected = "object store", "that it answers, and is of this index alone"
    store = store_of(database, patience="look")
    assert store is not None and isinstance(database, PostgresDatabase)
    try:
        claim(database, store, write=False)
    except FlywheelError as error:
        to_do = "see the store and the credentials in the environment; questions and votes go on without it"
        return HealthCheck(name, "degraded", str(error), expected, to_do)
    return HealthCheck(name, "ok", f"{store} answers", expected)
