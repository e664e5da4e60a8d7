"""The state with texts that were added or removed since its version was built."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rag_flywheel.curate.source import Source
from rag_flywheel.index.fresh import FreshSegment
from rag_flywheel.index.known_items import dense_trust, sampled
from rag_flywheel.index.positions import find_pids
from rag_flywheel.index.tokenizer import tokenizer_for
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import Pids
from rag_flywheel.store import passages
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.embedding import vectors_in_order

if TYPE_CHECKING:
    from rag_flywheel.deploy.loaded import LoadedVersion
    from rag_flywheel.serve.state import State

log = logging.getLogger("rag_flywheel")
_AT_ONCE = 2_048  # texts that are read at a time
_MANY = 5_000  # texts, which take about a second to read


def no_texts(version: "LoadedVersion", source: Source) -> FreshSegment:
    """A fresh segment where there is no text at all yet."""
    return FreshSegment.empty(version.engine.dim, tokenizer_for(source.config.language, ()))


def without_texts(state: "State", pids: Sequence[int]) -> "State":
    """The state without these texts."""
    if not pids:
        return state
    gone = np.array(pids, dtype=np.int64)
    at, there = find_pids(gone, state.version.pids)
    alive = state.alive
    if there.any():
        alive = alive.copy()
        alive[at[there]] = False
    return replace(state, alive=alive, fresh=state.fresh.without(gone))


def with_texts(state: "State", pids: Pids, conn: Connection, source: Source) -> "State":
    """The state with these texts of the index among its fresh ones, those that it lacks.

    While there is no version, the language of the texts is found, and how far their cosines are trusted
    is measured, whenever they have become more than twice as many.
    """
    fresh, version = state.fresh, state.version
    new = pids[~find_pids(pids, fresh.pids)[1]]
    doubled = not len(version.pids) and len(new) > len(fresh)
    if doubled:
        every = (passages.encoded_text(s.passage) for s in passages.present(conn))
        tokenizer = tokenizer_for(source.config.language, every)
        if tokenizer is not fresh.tokenizer:
            fresh = FreshSegment.empty(fresh.dim, tokenizer)
            new = passages.present_pids(conn)
    for start in range(0, len(new), _AT_ONCE):
        fresh = _with(fresh, new[start : start + _AT_ONCE], conn, source)
    if doubled:
        parameters = Parameters.starting(_trust(fresh, conn, source))
        state = replace(state, version=replace(version, parameters=parameters))
        if len(fresh) >= _MANY:
            log.info(
                "no refresh yet: %d passages are compared with each question one by one, and read by each "
                "process anew; run refresh",
                len(fresh),
            )
    statistics = version.engine.statistics if len(version.pids) else fresh.statistics
    return replace(state, fresh=fresh, statistics=statistics)


def _with(fresh: FreshSegment, pids: Pids, conn: Connection, source: Source) -> FreshSegment:
    found = passages.fetch(conn, pids.tolist())
    stored = [found[pid] for pid in pids.tolist() if pid in found]
    texts = [passages.encoded_text(s.passage) for s in stored]
    titles, hashes = [s.passage.title for s in stored], [s.text_hash for s in stored]
    rows = vectors_in_order(conn, hashes, texts, source.passages)
    own = np.array([s.pid for s in stored], dtype=np.int64)
    return fresh.with_texts(own, texts, titles, rows)


def _trust(fresh: FreshSegment, conn: Connection, source: Source) -> float:
    """How far the cosines of these texts are trusted, by some of them."""
    present = np.flatnonzero(fresh.present)
    some = present[sampled(len(present))] if len(present) else present
    pids = fresh.pids[some].tolist()
    found = passages.fetch(conn, pids)
    own = [passages.encoded_text(found[pid].passage) for pid in pids]
    return dense_trust(own, fresh.vectors_at(some), fresh.tokenizer, source.queries.encode)
