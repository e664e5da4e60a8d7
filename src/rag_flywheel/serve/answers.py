"""Builds the retrievals that a caller gets, and records them."""

import json
import secrets
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rag_flywheel.errors import NotRecordedWarning
from rag_flywheel.rank.score import Scored
from rag_flywheel.records import Filter, Hit, KnownAnswer, Passage, Retrieval, Vectors
from rag_flywheel.serve.explore import Allowance, drawn
from rag_flywheel.serve.postponed import MOST, Postponed, Record, Write
from rag_flywheel.serve.state import RestoredError, State
from rag_flywheel.store import retrievals, wall_clock
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.column_checks import EXPLORED, KNOWN, STAYED
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.filters import PlainFilter
from rag_flywheel.store.timeline import Moment, is_of

Behind = tuple[tuple[int, ...], tuple[KnownAnswer, ...]]
"""The event numbers of votes, and the known answers, that the evidence for a passage comes from."""


@dataclass(frozen=True)
class Request:
    """Who asks, how many hits, and what is recorded. Ids of users, sessions and runs are hashes.

    where: a checked filter; stored_where: as it is recorded. tenant: as JSON, None: no tenant.
    min_relevance: hits below it are left out. keep_query: whether the words of the query are stored.
    runs: those that each of the queries belongs to, in their order; (): none.
    """

    k: int
    where: PlainFilter | None = None
    stored_where: Filter | None = None
    tenant: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    record: bool = True
    kind: str = "retrieve"
    min_relevance: float | None = None
    keep_query: bool = True
    runs: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class RankedQuery:
    """A query, its hash, its vector float32 (dim,), and its hits with their pids, the best first.

    answerable: the chance that one of the k best is right, whether or not it is among the hits.
    candidates: (pid, the given score) of an application's own candidates, None: there are none.
    other: what may take the last place to be explored, None: nothing.
    probability: with which the last place went to its hit, None: no other might have had it.
    """

    query: str
    query_hash: bytes
    vector: Vectors
    hits: Sequence[tuple[int, Hit]]
    answerable: float
    candidates: Sequence[tuple[int, float]] | None = None
    other: tuple[int, Hit] | None = None
    probability: float | None = None


def make_hit(
    passage: Passage,
    rank: int,
    scored: Scored,
    i: int,
    behind: Behind,
    relevance: float,
    *,
    explored: bool = False,
) -> Hit:
    """Candidate i as a hit; behind: the votes and known answers that its evidence comes from."""
    return Hit(
        passage.id,
        rank,
        float(scored.scores[i]),
        passage.text,
        passage.title,
        passage.metadata,
        scored.explanation(i, behind[0] if scored.evidence[i] else (), behind[1]),
        relevance,
        explored,
    )


def answer(
    postponed: Postponed,
    state: State,
    asked: Request,
    found: Sequence[RankedQuery],
    allowance: Allowance,
    *,
    revision: str,
    began: float,
    wait_s: float,
) -> list[Retrieval]:
    """The retrievals for the caller, committed to the database first when they are to be recorded.

    allowance: how many recorded ones may be explored. began: when the call began (time.perf_counter).
    wait_s: for how long to wait for another program that writes; then they are recorded later.
    Raises RestoredError.
    """
    if not asked.record or not found:
        return [retrieval(None, state, f) for f in found]
    latency_ms = (time.perf_counter() - began) * 1000.0 / len(found)
    ids = [new_id() for _ in found]
    chosen = [explored(f, id_, allowance) for f, id_ in zip(found, ids, strict=True)]
    runs = asked.runs or [()] * len(found)
    records = [
        retrieval_record(id_, f, state, asked, latency_ms, own)
        for id_, f, own in zip(ids, chosen, runs, strict=True)
    ]
    to_write = record_of(
        ids, state, asked, lambda conn: write_records(conn, state, records, chosen, revision)
    )
    if not postponed.write(to_write, wait_s=wait_s):
        warn_not_recorded()
        return [retrieval(None, state, f) for f in found]
    return [retrieval(id_, state, f) for id_, f in zip(ids, chosen, strict=True)]


def record_of(ids: Sequence[str], state: State, asked: Request, write: Write) -> Record:
    """What records the retrievals of these ids, which were answered from a state."""
    moment = Moment(state.timeline, state.seq)
    return Record(tuple(ids), moment, state.n_forgotten, asked.user_id, write)


def warn_not_recorded() -> None:
    """Warn that an answer is given without a record."""
    warnings.warn(
        "the answer was not recorded, and takes no votes: another program goes on writing to the database, "
        f"or its server is gone, and {MOST} records wait for it",
        NotRecordedWarning,
        stacklevel=2,
    )


def write_records(
    conn: Connection,
    state: State,
    records: Sequence[retrievals.RetrievalRecord],
    found: Sequence[RankedQuery],
    revision: str,
) -> None:
    """Write retrievals with the vectors of their queries. Raises RestoredError."""
    if not is_of(conn, Moment(state.timeline, state.seq)):
        raise RestoredError
    for record, f in zip(records, found, strict=True):
        vector_store.put_vectors(conn, [record.query_hash], f.vector[None, :], revision)
    retrievals.record_retrievals(conn, records)


def retrieval(id_: str | None, state: State, found: RankedQuery) -> Retrieval:
    """The retrieval for the caller; id_: None: it is not recorded."""
    hits = tuple(hit for _, hit in found.hits)
    return Retrieval(id_, found.query, state.version.id, hits, found.answerable)


def new_id() -> str:
    """An id of a retrieval."""
    return f"{int(wall_clock.now() * 1000):011x}{secrets.token_hex(6)}"


def explored(found: RankedQuery, id_: str, allowance: Allowance) -> RankedQuery:
    """The ranked query as the retrieval of this id shows it."""
    probability = allowance.spend(useful=found.other is not None)
    if found.other is None or probability <= 0.0:
        return found
    if drawn(id_, probability):
        return replace(found, hits=[*found.hits[:-1], found.other], probability=probability)
    return replace(found, probability=1.0 - probability)


def retrieval_record(
    id_: str,
    found: RankedQuery,
    state: State,
    asked: Request,
    latency_ms: float,
    runs: Sequence[str] = (),
) -> retrievals.RetrievalRecord:
    """What is stored of the retrieval of this id; runs: those that it belongs to."""
    where, parts = (
        asked.stored_where,
        [_parts(hit, terms=asked.keep_query) for _, hit in found.hits],
    )
    if found.probability is not None:
        parts[-1][EXPLORED if found.hits[-1][1].explored else STAYED] = found.probability
    return retrievals.RetrievalRecord(
        id=id_,
        kind=asked.kind,
        at=wall_clock.now(),
        query=found.query if asked.keep_query else "",
        query_hash=found.query_hash,
        k=asked.k,
        filter=json.dumps(where, sort_keys=True) if where is not None else None,
        tenant=asked.tenant,
        version=state.version.id,
        seen=state.seq,
        user_id=asked.user_id,
        session_id=asked.session_id,
        latency_ms=latency_ms,
        hits=[
            retrievals.LoggedHit(pid, hit.passage_id, hit.score, own)
            for (pid, hit), own in zip(found.hits, parts, strict=True)
        ],
        candidates=found.candidates,
        answerable=found.answerable,
        runs=runs,
    )


def _parts(hit: Hit, *, terms: bool) -> dict[str, float]:
    """The parts of a hit's score, as they are logged; terms: also what each feature adds, which tells of the
    words of the query."""
    why = hit.explanation
    parts = {"intercept": why.intercept, **why.terms} if terms else {}
    known = {KNOWN: why.by_known} if why.by_known else {}
    return {**parts, "evidence": why.evidence, **known, "relevance": round(hit.relevance, 6)}
