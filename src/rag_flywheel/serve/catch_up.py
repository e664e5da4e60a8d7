"""Computes the state of a just loaded version, and the state after further events of the store."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from rag_flywheel.curate.acting import acting_answers
from rag_flywheel.curate.chances import past_queries, rests_on
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.index.fresh import FreshSegment
from rag_flywheel.index.positions import find_pids
from rag_flywheel.rank.evidence import NO_VOTES, EvidenceView, Unjudged
from rag_flywheel.rank.stored_evidence import PastQuery, StoredEvidence
from rag_flywheel.records import Acting, Judgment, QueryKey, Vectors
from rag_flywheel.serve.fresh_texts import no_texts, with_texts, without_texts
from rag_flywheel.serve.inheritance import Inheritance, inheritance, inheritance_after
from rag_flywheel.serve.state import RestoredError, State
from rag_flywheel.store import forgetting, golden, mutes, passages
from rag_flywheel.store import votes as vote_store
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import fill_past_query_vectors, past_query_vectors
from rag_flywheel.store.timeline import read_moment

_AT_ONCE = 256  # questions whose votes are judged without waiting for a question that needs them


def bare_state(version: LoadedVersion, conn: Connection) -> State:
    """A version alone: without fresh texts, removals or votes."""
    own = inheritance(conn, version.pids)
    return State(
        version,
        read_moment(conn).timeline,
        None,
        version.watermark,
        np.ones(len(version.pids), dtype=bool),
        FreshSegment.empty(version.engine.dim, version.engine.statistics.tokenizer),
        version.engine.statistics,
        own.lineage_of,
        own.heirs,
        own.copies,
        EvidenceView(version.engine.dim),
        corpus_of(conn, version, version.watermark),
        passages.last_edit(conn),
        forgetting.count_begun(conn),
    )


def corpus_of(conn: Connection, version: LoadedVersion, until: int) -> str:
    """A name for the texts that were in the index at event `until`, as a version of another event
    searches them: what it has, what changed since, and by which encoder."""
    changes = dict.fromkeys(passages.last_change(conn, seq) for seq in (version.watermark, until))
    revision = "" if version.encoder is None else version.encoder.revision
    return " ".join([read_moment(conn).timeline, *map(str, changes), revision])


def initial_state(
    version: LoadedVersion,
    frozen_at: int | None,
    conn: Connection,
    source: Source,
    database: Database | None = None,
) -> State:
    """The state of a just loaded version, from a read transaction on the store.

    database: where votes on very many questions are read from when they are judged; None: they are judged
    at once.
    """
    source = source.of(version.encoder)
    present = passages.present_pids(conn)
    new = np.setdiff1d(present, version.pids, assume_unique=True)
    bare, seq = bare_state(version, conn), passages.read_clock(conn)
    own = inheritance(conn, present)
    blank = replace(
        bare,
        frozen_at=frozen_at,
        seq=seq,
        alive=np.isin(version.pids, present, assume_unique=True),
        fresh=bare.fresh if len(version.pids) else no_texts(version, source),
        lineage_of=own.lineage_of,
        heirs=own.heirs,
        copies=own.copies,
        corpus=corpus_of(conn, version, seq),
        texts_at=seq,
    )
    state = with_texts(blank, new, conn, source)
    stored = _usable_evidence(state, conn, source)
    if stored is None:
        votes = vote_store.votes_until(conn, state.last_vote)
        state = _judged(state, source.judge(votes, state.version.weights), set(), conn, source)
    else:
        vectors = past_query_vectors(conn, stored.names, source.under(version.queries).queries)
        state = replace(state, evidence=EvidenceView.of(stored, vectors))
        state = _with_votes(state, stored.provenance.until, conn, source, database)
    return _with_known(state, conn, source)


def _usable_evidence(state: State, conn: Connection, source: Source) -> StoredEvidence | None:
    """The evidence stored in the version, if judging the votes now would give the same."""
    version, stored = state.version, state.version.evidence
    if stored is None or not stored.provenance.by or stored.provenance.until > state.last_vote:
        return None
    revision = source.under(version.queries).queries.revision
    until = stored.provenance.until
    now = rests_on(until, version.parameters, version.weights, source.judged_by, revision, conn)
    return stored if stored.provenance == now else None


def caught_up(
    state: State, conn: Connection, source: Source, database: Database | None = None
) -> State:
    """The state after every event so far, from a read transaction on the store; database: as in
    `initial_state`."""
    source = source.of(state.version.encoder)
    if forgetting.count_begun(conn) != state.n_forgotten:  # some of its votes are gone
        return initial_state(state.version, state.frozen_at, conn, source, database)
    seq = passages.read_clock(conn)
    born, ended = passages.changed_since(conn, state.seq)
    last_vote, same = state.last_vote, not born and not ended
    heard = mutes.changed_since(conn, state.seq)
    spoken_of = golden.known_since(conn, state.seq)
    if state.known.lineages and not same:
        moved = set(born.values()) | passages.lineages_of(conn, ended)
        spoken_of |= moved & state.known.lineages
    edited = passages.last_edit(conn)
    if same and edited == state.edited:
        state = replace(state, seq=seq)
    else:
        state = replace(state, seq=seq, texts={}, texts_at=seq, edited=edited)
    if not same:
        own = Inheritance(state.lineage_of, state.heirs, state.copies)
        own = inheritance_after(own, conn, born, ended)
        state = with_texts(
            replace(
                without_texts(state, ended),
                lineage_of=own.lineage_of,
                heirs=own.heirs,
                copies=own.copies,
                corpus=corpus_of(conn, state.version, seq),
            ),
            np.array(list(born), dtype=np.int64),
            conn,
            source,
        )
    queries = vote_store.queries_of_users(conn, heard) if heard else []
    state = _with_votes(state, last_vote, conn, source, database, queries)
    return _with_known(state, conn, source, spoken_of) if spoken_of else state


def _with_known(
    state: State, conn: Connection, source: Source, changed: set[int] | None = None
) -> State:
    """The state with the known answers as they are now; without any where they only judge.

    changed: the lineages of the texts whose answers may be others than before; None: all.
    """
    if not source.config.known_answers:
        return state
    known = acting_answers(
        conn,
        source,
        lambda lineages: _present(state, lineages),
        until=state.seq,
        typical_cosine=state.typical_cosine,
        before=None if changed is None else state.known,
        changed=changed or (),
    )
    return _with_answers(replace(state, known=known), state.known, conn, source)


def _present(state: State, lineages: Collection[int]) -> set[int]:
    """Those of these lineages that a text in the index has."""
    every = list(lineages)
    pids = np.array([state.heirs.get(p, p) for p in every], dtype=np.int64)
    at, there = find_pids(pids, state.version.pids)
    there[there] = state.alive[at[there]]
    at, fresh = find_pids(pids, state.fresh.pids)
    fresh[fresh] = state.fresh.present[at[fresh]]
    there |= fresh
    return {lineage for lineage, present in zip(every, there.tolist(), strict=True) if present}


def _with_answers(state: State, before: Acting, conn: Connection, source: Source) -> State:
    """The state whose evidence has its known answers; before: those it has."""
    old, new, view = before.answers, state.known.answers, state.evidence
    changed = [key for key, known in new.items() if old.get(key, ()) != known]
    changed += [key for key in old if key not in new]
    if not changed:
        return state
    past = view.of_queries(changed)
    found = {key: replace(past.get(key, NO_VOTES), known=new.get(key, ())) for key in changed}
    vectors = _vectors_of(state, [key for key in changed if key not in past], conn, source)
    return replace(state, evidence=view.updated(found, vectors))


def _with_votes(
    state: State,
    since: int,
    conn: Connection,
    source: Source,
    database: Database | None,
    also: Sequence[bytes] = (),
) -> State:
    """The state with the votes after event number `since`; all votes on their queries, and on those of
    `also`, are judged. Where they are very many, each is judged when it is needed."""
    questions = vote_store.questions_voted_on(conn, since, state.last_vote)
    if database is not None and not also and sum(map(len, questions.values())) > _AT_ONCE:
        return _with_unjudged(state, questions, conn, source, database)
    queries = list(dict.fromkeys([*chain.from_iterable(questions.values()), *also]))
    if not queries:
        return state
    votes = vote_store.votes_on_queries(conn, queries, state.last_vote)
    return _judged(state, source.judge(votes, state.version.weights), set(queries), conn, source)


def _judged(
    state: State,
    judged: Sequence[Judgment],
    voted_on: set[bytes],
    conn: Connection,
    source: Source,
) -> State:
    """The state with these judgments, and none for queries of `voted_on` that have none left."""
    version = state.version
    found = past_queries(version.memory, version.parameters, judged, conn)
    for key in state.evidence.with_texts(voted_on):
        found.setdefault(key, NO_VOTES)  # every vote on it was retracted
    for key in found.keys() & state.known.answers.keys():
        found[key] = replace(found[key], known=state.known.answers[key])
    if not found:
        return state
    vectors = _vectors_of(state, state.evidence.lacking(found), conn, source)
    return replace(state, evidence=state.evidence.updated(found, vectors))


def _with_unjudged(
    state: State,
    questions: Mapping[str | None, Sequence[bytes]],
    conn: Connection,
    source: Source,
    database: Database,
) -> State:
    """The state in which the votes on these questions, hashes by tenant, are judged when one of them is
    needed."""
    unjudged = Unjudged(_judge_of(state, source, database), state.known.answers)
    encoder = source.under(state.version.queries).queries

    def fill(hashes: Sequence[bytes], rows: Vectors) -> None:
        fill_past_query_vectors(conn, hashes, encoder, rows)

    return replace(state, evidence=state.evidence.with_unjudged(questions, unjudged, fill))


def _judge_of(
    state: State, source: Source, database: Database
) -> Callable[[Sequence[QueryKey]], Mapping[QueryKey, PastQuery]]:
    """What judges the votes of a state on some questions."""
    version, timeline, last = state.version, state.timeline, state.last_vote

    def judge(questions: Sequence[QueryKey]) -> Mapping[QueryKey, PastQuery]:
        with database.reading() as conn:
            if conn.in_transaction:  # that in which the next state is computed
                return judged_by(conn, questions)
        with database.snapshot() as conn:
            return judged_by(conn, questions)

    def judged_by(conn: Connection, questions: Sequence[QueryKey]) -> Mapping[QueryKey, PastQuery]:
        if read_moment(conn).timeline != timeline:  # then its numbers are of other events
            raise RestoredError
        hashes = sorted({key.query_hash for key in questions})
        votes = vote_store.votes_on_queries(conn, hashes, last)
        judged = source.judge(votes, version.weights)
        return past_queries(version.memory, version.parameters, judged, conn)

    return judge


def _vectors_of(
    state: State, questions: Sequence[QueryKey], conn: Connection, source: Source
) -> dict[bytes, Vectors]:
    """The vectors of these questions, float32 (dim,), by hash."""
    if not questions:
        return {}
    hashes = sorted({key.query_hash for key in questions})
    rows = past_query_vectors(conn, hashes, source.under(state.version.queries).queries)
    return dict(zip(hashes, rows[: len(hashes)], strict=True))
