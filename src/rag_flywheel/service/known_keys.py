"""Finds the key of a caller, also while the server of the records is gone.

Then a key that was good a few minutes ago still reads, so that questions are answered; nothing else is done
by it. It cannot be revoked there meanwhile either.
"""

import hashlib
import threading
import time
from collections import OrderedDict

from rag_flywheel.errors import UnreachableError
from rag_flywheel.store.database import Database
from rag_flywheel.store.service.keys import Key, find_key

GOOD_S = 300.0
"""For how long after it was found last a key is good enough to read with."""
_MOST = 1_000


class KnownKeys:
    """The keys in the records of the service; thread-safe. Those in a file are not remembered."""

    def __init__(self, state: Database) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._found: OrderedDict[bytes, tuple[float, Key]] = OrderedDict()

    def find(self, text: str) -> tuple[Key | None, UnreachableError | None]:
        """The key with this text that is not revoked, None: there is none; and why it may only read, None: it
        was found now. Raises StorageError."""
        if not self._state.REMOTE:
            return find_key(self._state, text), None
        name = hashlib.sha256(text.encode(errors="replace")).digest()
        try:
            key = find_key(self._state, text)
        except UnreachableError as error:
            if (key := self._remembered(name)) is None:
                raise
            return key, error
        with self._lock:
            self._found.pop(name, None)
            if key is not None:
                self._found[name] = (time.monotonic(), key)
            if len(self._found) > _MOST:
                self._found.popitem(last=False)
        return key, None

    def _remembered(self, name: bytes) -> Key | None:
        with self._lock:
            found_at, key = self._found.get(name, (0.0, None))
        return None if time.monotonic() - found_at > GOOD_S else key
