"""The process that asks an object store for another one, which was forked: one request after the other.

It ends when nobody is left that could send one.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from rag_flywheel.deploy.object_aside import PARTS
from rag_flywheel.deploy.object_store import ObjectStore


def main(pipe: Connection) -> None:
    """Answer requests until nobody can send another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which is for the other process
    with suppress(EOFError, ConnectionError):
        store = ObjectStore(*pipe.recv())
        while True:
            pipe.send(_answered(store, pipe, *pipe.recv()))


def _answered(
    store: ObjectStore, pipe: Connection, what: str, *given: Any
) -> tuple[object, object]:
    """The name of an error, None: there was none, and what it says, or the answer."""
    parts = _parts(pipe) if what == "put" and given[1] is PARTS else iter(())
    try:
        requests = store.requests()
        if what == "put" and given[1] is PARTS:
            return None, requests.put(given[0], parts, given[2])
        return None, getattr(requests, what)(*given)
    except (EOFError, ConnectionError):
        raise
    except FileNotFoundError as error:
        return "FileNotFoundError", str(error)
    except Exception as error:
        return type(error).__name__, str(error)
    finally:
        for _ in parts:  # what was not taken
            pass


def _parts(pipe: Connection) -> Iterator[bytes]:
    while (part := pipe.recv()) is not PARTS:
        yield part


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
