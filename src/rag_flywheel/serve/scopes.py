"""Remembers which texts pass the filters that were asked for last."""

import json
import threading

from rag_flywheel.index.lru import LRU
from rag_flywheel.serve.state import Scope, State, scope
from rag_flywheel.serve.texts import Texts
from rag_flywheel.store.filters import PlainFilter
from rag_flywheel.store.metadata_columns import MetadataColumns

_MOST = 64  # filters


class Scopes:
    """The scopes of recent filters, until a text comes, goes or has other metadata; thread-safe.

    Votes leave them as they are.
    """

    def __init__(self, texts: Texts, *, copies: bool) -> None:
        self._texts = texts
        self._copies = copies
        self._columns = MetadataColumns()
        self._lock = threading.Lock()
        self._of: State | None = None
        self._scopes = LRU[str, Scope](_MOST)

    def of(self, state: State, where: PlainFilter | None) -> Scope:
        """The texts of a state that pass a checked filter, None: all."""
        scopes = self._of_texts(state)
        key = "" if where is None else json.dumps(where, sort_keys=True)
        found = scopes.get(key)
        if found is None:
            allowed = None
            if where is not None:
                with self._texts.of(state) as conn:
                    allowed = self._columns.matching(conn, where)
            found = scope(state, allowed, copies=self._copies)
            scopes.put(key, found)
        return found

    def _of_texts(self, state: State) -> LRU[str, Scope]:
        """Those of the texts of a state, which others may have too."""
        with self._lock:
            if self._of is None or not _same_texts(self._of, state):
                self._scopes = LRU[str, Scope](_MOST)
            self._of = state
            return self._scopes


def _same_texts(some: State, other: State) -> bool:
    return (
        some.version is other.version  # which each load makes anew
        and some.alive is other.alive
        and some.fresh is other.fresh
        and some.copies is other.copies
        and some.edited == other.edited
    )
