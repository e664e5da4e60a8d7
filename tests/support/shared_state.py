"""The records of a service on a PostgreSQL server, where the switch of the tests says so."""

import hashlib
import os
from functools import cache
from pathlib import Path

from on_postgres import url_of
from rag_flywheel.store.database import Database
from rag_flywheel.store.service.names import file_beside
from rag_flywheel.store.service.state import open_state

SWITCH = "RAG_FLYWHEEL_TEST_STATE"
"""Set to "postgresql", the records of every service that a test starts are on the server."""


def state_of(folder: Path) -> str | None:
    """The URL of the records of the service of an index folder, its own; None: a file beside it."""
    if os.environ.get(SWITCH) != "postgresql":
        return None
    return _url(str(file_beside(folder)))


@cache  # what a test made is there when it asks again
def _url(path: str) -> str:
    return url_of("s" + hashlib.blake2b(path.encode(), digest_size=12).hexdigest())


def state_options(folder: Path) -> list[str]:
    """The same as options of a command."""
    state = state_of(folder)
    return [] if state is None else ["--state", state]


def open_records(folder: Path) -> Database:
    """The records of the service of an index folder, opened once more."""
    return open_state(state_of(folder) or file_beside(folder))
