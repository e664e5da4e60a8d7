"""What queries are answered from at one moment: a version, and every event since it was built.

A State never changes; `caught_up` makes the next one from the events after it. It must not know
how candidates are chosen or scored.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from rag_flywheel.curate.chances import past_queries, rests_on
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.index.fresh import FreshSegment
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.rank.evidence import NO_VOTES, EvidenceView
from rag_flywheel.rank.stored_evidence import Heard
from rag_flywheel.records import Judgment, Pids
from rag_flywheel.store import forgetting, journal, passages
from rag_flywheel.store import votes as vote_store
from rag_flywheel.store.embedding import past_query_vectors, vectors_of


@dataclass(frozen=True)
class State:
    """A version and what happened since, up to event number `seq`.

    alive[i]: whether the text version.pids[i] still stands; fresh: texts begun since; statistics:
    the word statistics that texts are scored under; lineage_of: pid -> the row whose votes it
    inherits, and heirs: that row -> pid, where they differ; evidence holds no vote after
    `frozen_at`, None: all votes; texts: those read so far, which a new event makes stale; corpus:
    the number of the event that last changed the texts, None: the version's are not all there is;
    n_forgotten: how many users were deleted, whose votes are not in it.
    """

    version: LoadedVersion
    frozen_at: int | None
    seq: int
    alive: npt.NDArray[np.bool_]
    fresh: FreshSegment
    statistics: LexicalIndex
    lineage_of: Mapping[int, int]
    heirs: Mapping[int, int]
    evidence: EvidenceView
    corpus: int | None
    n_forgotten: int = 0
    texts: dict[int, passages.StoredPassage] = field(default_factory=dict)

    @property
    def last_vote(self) -> int:
        """The number of the last event whose vote counts."""
        return self.seq if self.frozen_at is None else min(self.seq, self.frozen_at)

    @property
    def typical_cosine(self) -> float:
        """The mean cosine of two texts of the version, or of the fresh ones when it has none."""
        dense = self.version.dense
        return dense.typical_cosine if len(dense) else self.fresh.typical_cosine

    def lineages(self, pids: Pids) -> Pids:
        """The rows whose votes these texts inherit."""
        if not self.lineage_of:
            return pids
        return np.array([self.lineage_of.get(p, p) for p in pids.tolist()], dtype=np.int64)


@dataclass(frozen=True)
class Scope:
    """Which texts may come up for a query: a mask over the version's positions and one over the
    fresh texts.

    searchable: the version's pids that may come up, None when all may.
    """

    indexed: npt.NDArray[np.bool_]
    fresh: npt.NDArray[np.bool_]
    searchable: Pids | None


def scope(state: State, allowed: Pids | None) -> Scope:
    """The texts that stand and pass a filter. allowed: pids that pass it; None: no filter."""
    indexed, fresh = state.alive, np.ones(len(state.fresh.pids), dtype=bool)
    if allowed is not None:
        indexed = indexed & np.isin(state.version.pids, allowed, assume_unique=True)
        fresh = np.isin(state.fresh.pids, allowed, assume_unique=True)
    everything = bool(indexed.all())
    return Scope(indexed, fresh, None if everything else state.version.pids[indexed])


def bare_state(version: LoadedVersion, conn: sqlite3.Connection) -> State:
    """A version alone: without fresh texts, removals or votes."""
    inheritors = passages.inheritors(conn)
    return State(
        version,
        None,
        version.watermark,
        np.ones(len(version.pids), dtype=bool),
        FreshSegment.empty(version.dense.dim),
        version.lexical,
        dict(inheritors),
        {lineage: pid for pid, lineage in inheritors},
        EvidenceView(version.dense.dim),
        passages.last_change(conn, version.watermark),
        forgetting.count_begun(conn),
    )


def initial_state(
    version: LoadedVersion, frozen_at: int | None, conn: sqlite3.Connection, source: Source
) -> State:
    """The state of a just loaded version, from a read transaction on the store."""
    present = passages.present_pids(conn)
    new = np.setdiff1d(present, version.pids, assume_unique=True)
    texts = passages.fetch(conn, new.tolist())
    bare = bare_state(version, conn)
    alive = np.isin(version.pids, present, assume_unique=True)
    blank = replace(
        bare,
        frozen_at=frozen_at,
        seq=passages.read_clock(conn),
        alive=alive,
        corpus=bare.corpus if alive.all() and not len(new) else None,
    )
    state = _with_texts(blank, [texts[p] for p in sorted(texts)], conn, source)
    heard = _heard(state, conn, source)
    if heard is None:
        votes = vote_store.votes_until(conn, state.last_vote)
        return _judged(state, source.judge(votes), set(), conn, source)
    vectors = past_query_vectors(
        conn, [key.query_hash for key in heard.keys], source.under(version.queries).queries
    )
    state = replace(state, evidence=EvidenceView.of(heard, vectors))
    return _with_votes(state, heard.made.until, conn, source)


def _heard(state: State, conn: sqlite3.Connection, source: Source) -> Heard | None:
    """What the version holds of the votes, if judging them now would come to the same."""
    version, heard = state.version, state.version.heard
    if heard is None or not heard.made.by or heard.made.until > state.last_vote:
        return None
    if version.id is None or not journal.was_promoted(conn, version.id):
        return None
    noise, revision = version.parameters.noise, source.under(version.queries).queries.revision
    now = rests_on(heard.made.until, noise, source.judged_by, revision, conn)
    return heard if heard.made == now else None


def caught_up(state: State, conn: sqlite3.Connection, source: Source) -> State:
    """The state after every event so far, from a read transaction on the store."""
    if forgetting.count_begun(conn) != state.n_forgotten:  # votes it rests on are gone
        return initial_state(state.version, state.frozen_at, conn, source)
    seq = passages.read_clock(conn)
    born, ended = passages.changed_since(conn, state.seq)
    heard, same = state.last_vote, not born and not ended
    state = replace(state, seq=seq, texts={}, corpus=state.corpus if same else None)
    if ended:
        gone = np.array(ended, dtype=np.int64)
        state = replace(
            state,
            alive=state.alive & ~np.isin(state.version.pids, gone),
            fresh=state.fresh.without(gone),
        )
    if not same:
        state = _with_texts(state, born, conn, source)
    return _with_votes(state, heard, conn, source)


def _with_votes(state: State, heard: int, conn: sqlite3.Connection, source: Source) -> State:
    """The state with the votes after event number `heard`: queries with one are judged anew, whole."""
    queries = vote_store.queries_voted_on(conn, heard, state.last_vote)
    if not queries:
        return state
    votes = vote_store.votes_on_queries(conn, queries, state.last_vote)
    return _judged(state, source.judge(votes), set(queries), conn, source)


def _with_texts(
    state: State,
    texts: Sequence[passages.StoredPassage],
    conn: sqlite3.Connection,
    source: Source,
) -> State:
    known = set(state.fresh.pids.tolist())
    new = [t for t in texts if t.pid not in known]
    fresh = state.fresh
    if new:
        pids = np.array([t.pid for t in new], dtype=np.int64)
        words = [passages.encoded_text(t.passage) for t in new]
        titles = [t.passage.title for t in new]
        hashes = [t.text_hash for t in new]
        vectors = vectors_of(conn, dict(zip(hashes, words, strict=True)), source.passages)
        fresh = fresh.with_texts(pids, words, titles, np.stack([vectors[h] for h in hashes]))
    inheritors = passages.inheritors(conn)
    return replace(
        state,
        fresh=fresh,
        statistics=state.version.lexical if len(state.version.pids) else fresh.statistics(),
        lineage_of=dict(inheritors),
        heirs={lineage: pid for pid, lineage in inheritors},
    )


def _judged(
    state: State,
    judged: Sequence[Judgment],
    voted_on: set[bytes],
    conn: sqlite3.Connection,
    source: Source,
) -> State:
    """The state with these judgments, and none for queries of `voted_on` that have none left."""
    version = state.version
    found = past_queries(version.memory, version.parameters.noise, judged, conn)
    for key in state.evidence.known(voted_on):
        found.setdefault(key, NO_VOTES)  # every vote on it was retracted
    if not found:
        return state
    hashes = sorted({key.query_hash for key in found})
    rows = past_query_vectors(conn, hashes, source.under(version.queries).queries)
    vectors = dict(zip(hashes, rows[: len(hashes)], strict=True))
    return replace(state, evidence=state.evidence.updated(found, vectors))
