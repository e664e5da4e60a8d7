"""Answers queries: query -> candidates -> rank -> hits, from the live version and every event since."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from rag_flywheel.checks import (
    check_candidates,
    check_k,
    check_query,
    look_like_distances,
)
from rag_flywheel.config import Config
from rag_flywheel.curate.source import Source
from rag_flywheel.encoder import TextEncoder
from rag_flywheel.errors import FlywheelError
from rag_flywheel.rank.evidence import (
    Asked,
    Evidence,
    evidence_for,
    nearest_cosines,
    same_chance,
)
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.posterior import Rates
from rag_flywheel.rank.relevance import (
    Before,
    Relevance,
    before_votes,
    before_votes_of_given,
    log_shares,
    relevance,
    relevance_of_given,
)
from rag_flywheel.rank.score import POOL, Scored, Votes, order, score, score_given
from rag_flywheel.records import (
    Candidate,
    EmbeddedText,
    Features,
    Hit,
    Passage,
    Pids,
    QueryKey,
    Retrieval,
    Vectors,
)
from rag_flywheel.serve.answers import (
    Behind,
    RankedQuery,
    Request,
    answer,
    explored,
    make_hit,
    new_id,
    record_of,
    retrieval,
    retrieval_record,
    warn_not_recorded,
    write_records,
)
from rag_flywheel.serve.candidates import look_up, with_evident
from rag_flywheel.serve.explore import Allowance, passage_to_explore
from rag_flywheel.serve.features import read_features
from rag_flywheel.serve.given import GivenCandidates
from rag_flywheel.serve.live import LiveState
from rag_flywheel.serve.lookups import Lookup, Lookups
from rag_flywheel.serve.postponed import Postponed
from rag_flywheel.serve.scopes import Scopes
from rag_flywheel.serve.state import RestoredError, Scope, State
from rag_flywheel.store import passages, retrievals
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import ChangedError, Database
from rag_flywheel.store.passages import StoredPassage
from rag_flywheel.store.questions import query_hash, question_key

log = logging.getLogger("rag_flywheel")
_TRIES = 5
T = TypeVar("T")
_TEXTS = 20_000  # texts cached with a state
_NEWEST = 200  # retrievals of a question, in which explored hits are counted
_ALIKE = 0.6


class Nearness(NamedTuple):
    """Whether votes on a similar question act on a question, and whether one with votes asks the same."""

    near: bool
    same: bool


@dataclass(frozen=True)
class _Ranked:
    """Scored candidates; best: their positions, the best first; lineages: the rows of their votes."""

    pids: Pids
    lineages: Pids
    scored: Scored
    best: Sequence[int]
    evidence: Evidence

    def behind(self, i: int) -> Behind:
        lineage = int(self.lineages[i])
        return self.evidence.votes_of(lineage), self.evidence.known.get(lineage, ())

    def evidence_of(self, positions: Sequence[int]) -> Votes:
        return Votes.of(self.evidence, self.lineages[list(positions)], None)

    def below(self, shown: Sequence[int]) -> list[int]:
        """The other candidates, the best first."""
        taken = set(shown)
        return [i for i in self.best if i not in taken]

    def to_explore(
        self,
        state: State,
        shown: Sequence[int],
        below: Sequence[int],
        times: Mapping[int, int],
    ) -> int | None:
        """The candidate among those below that may take the last place; None: none."""
        parameters, scores = state.version.parameters, self.scored.scores
        return passage_to_explore(
            scores, self.lineages, self.evidence, parameters, shown, below, times
        )

    def explored(self, passage: Passage, i: int, rank: int, relevance: float) -> Hit:
        """Candidate i as the hit at a rank that it has not earned."""
        return make_hit(passage, rank, self.scored, i, self.behind(i), relevance, explored=True)


@dataclass(frozen=True)
class _Found(_Ranked):
    """Scored passages of the index, with what their relevance is computed from: features (n, 14)."""

    query: EmbeddedText
    lookup: Lookup
    features: Features


class Server:
    """Answers from the live state of one index folder. A call sees one State from start to end."""

    def __init__(
        self,
        database: Database,
        config: Config,
        source: Source,
        live: LiveState,
        lookups: Lookups,
        postponed: Postponed | None = None,
    ) -> None:
        self.postponed = Postponed(database) if postponed is None else postponed
        self._database = database
        with database.reading() as conn:
            self._question_key = question_key(conn)
        self._config = config
        self._source = source
        self._live = live
        self._lookups = lookups
        self._allowance = Allowance(config.explore)
        self._scopes = Scopes(live.texts, copies=config.show_copies)
        self._n_forgotten = 0
        self._warned = False

    def retrieve(self, queries: Sequence[str], asked: Request) -> list[Retrieval]:
        """The k best passages for each query, recorded when asked to."""
        return _again_after_a_restore(lambda: self._retrieve(queries, asked))

    def _retrieve(self, queries: Sequence[str], asked: Request) -> list[Retrieval]:
        began = time.perf_counter()
        self._check(queries, asked.k)
        if not queries:
            return []
        vectors: dict[str, Vectors] = {}
        for tries_left in reversed(range(_TRIES)):
            state, revision = self._state(queries, vectors)
            found, n_gone = self._found(state, queries, vectors[revision], asked)
            if not n_gone or not tries_left:
                break  # else a text was edited or removed meanwhile: its new one may belong here
        more = self._allowance
        return answer(
            self.postponed,
            state,
            asked,
            found,
            more,
            revision=revision,
            began=began,
            wait_s=self._config.record_wait_s,
        )

    def rank(self, queries: Sequence[str], asked: Request) -> list[list[str]]:
        """The ids of the k best passages for each query, and nothing else."""
        return _again_after_a_restore(lambda: self._rank(queries, asked))

    def _rank(self, queries: Sequence[str], asked: Request) -> list[list[str]]:
        self._check(queries, asked.k)
        if not queries:
            return []
        vectors: dict[str, Vectors] = {}
        state, revision = self._state(queries, vectors)
        found = []
        for ranked in self._ranked(state, queries, vectors[revision], asked):
            best, _ = self._standing(state, ranked, asked.k)
            if asked.min_relevance is not None:
                likely = _relevance(state, ranked, [i for i, _ in best]).hits
                kept = zip(best, likely, strict=True)
                best = [each for each, chance in kept if chance >= asked.min_relevance]
            found.append([stored.passage.id for _, stored in best])
        return found

    def _state(self, queries: Sequence[str], vectors: dict[str, Vectors]) -> tuple[State, str]:
        """The newest state, and the revision of its encoder of queries.

        vectors: of the queries, by revision; missing ones of that revision are added.
        """
        state = self._live.last() or self._live.state()
        while True:
            encoder = self._encoder(state)
            if encoder.revision not in vectors:
                vectors[encoder.revision] = self._lookups.vectors.of(
                    encoder.revision, queries, encoder.encode
                )
            state = self._live.state()
            if state.n_forgotten != self._n_forgotten:  # by whatever process
                self._lookups.clear()
                self._n_forgotten = state.n_forgotten
            revision = self._encoder(state).revision
            if revision in vectors:
                return state, revision

    def _encoder(self, state: State) -> TextEncoder:
        """The encoder of queries of a state's version."""
        version = state.version
        return self._source.of(version.encoder).under(version.queries).queries

    def _check(self, queries: Sequence[str], k: int) -> None:
        for query in queries:
            check_query(query, self._config.max_query_chars)
        check_k(k)

    def _found(
        self, state: State, queries: Sequence[str], vectors: Vectors, asked: Request
    ) -> tuple[list[RankedQuery], int]:
        """Hits of each query from one state, and how many of their texts were removed meanwhile."""
        found, n_gone = [], 0
        every = self._ranked(state, queries, vectors, asked)
        for query, vector, ranked in zip(queries, vectors, every, strict=True):
            best, gone = self._standing(state, ranked, asked.k)
            shown = [i for i, _ in best]
            of_hits = _relevance(state, ranked, shown)
            every_hit = [(i, stored.pid, stored.passage) for i, stored in best]
            hits = _hits_of(ranked, every_hit, of_hits, asked.min_relevance)
            other, name = None, ranked.query.name
            assert name is not None
            if self._explores(asked):
                other = self._other(state, ranked, shown, self._times(state, name, asked.tenant))
            found.append(RankedQuery(query, name, vector, hits, of_hits.answerable, other=other))
            n_gone += gone
        return found, n_gone

    def _explores(self, asked: Request) -> bool:
        if self._live.alone:  # how often which passage was explored is not known
            return False
        return asked.record and asked.min_relevance is None and self._allowance.share > 0.0

    def _name_of(self, query: str) -> bytes:
        """The hash that names a question."""
        return query_hash(self._question_key, query)

    def _times(self, state: State, name: bytes, tenant: str | None) -> Counter[int]:
        """How often each passage text was explored for a question, by lineage."""
        question = QueryKey(name, tenant)
        with self._database.reading() as conn:
            found = retrievals.explored_for(conn, question, newest=_NEWEST)
        return Counter(state.lineages(np.array(found, dtype=np.int64)).tolist())

    def _other(
        self, state: State, ranked: _Found, shown: Sequence[int], times: Mapping[int, int]
    ) -> tuple[int, Hit] | None:
        """What may take the last place of those shown, to be explored; None: nothing."""
        i = ranked.to_explore(state, shown, ranked.below(shown), times)
        if i is None:
            return None
        pid = int(ranked.pids[i])
        stored = self._texts(state, [pid]).get(pid)
        if stored is None:  # removed meanwhile
            return None
        (chance,) = _relevance(state, ranked, [i]).hits
        return pid, ranked.explored(stored.passage, i, len(shown), chance)

    def _ranked(
        self, state: State, queries: Sequence[str], vectors: Vectors, asked: Request
    ) -> Iterator[_Found]:
        inside = self._scopes.of(state, asked.where)
        n = max(self._config.n_candidates, asked.k)
        names = map(self._name_of, queries)
        questions = [EmbeddedText(*each) for each in zip(queries, vectors, names, strict=True)]
        lookups = look_up(state, inside, questions, n, self._lookups)
        evidence = _evidence(state, questions, asked.tenant)
        for each in zip(questions, lookups, evidence, strict=True):
            yield _rank(state, inside, *each)

    def rerank(self, query: str, given: Sequence[Candidate], asked: Request) -> Retrieval:
        """Rank an application's own candidates: by their own scores and the evidence."""
        return _again_after_a_restore(lambda: self._rerank(query, given, asked))

    def _rerank(self, query: str, given: Sequence[Candidate], asked: Request) -> Retrieval:
        began = time.perf_counter()
        check_query(query, self._config.max_query_chars)
        check_k(asked.k)
        given = check_candidates(given)
        if not given:
            return Retrieval(None, query, self._live.state().version.id, (), 0.0)
        vectors: dict[str, Vectors] = {}
        state, revision = self._state([query], vectors)
        vector = vectors[revision][0]
        if not self._warned and look_like_distances(given):
            self._warned = True
            log.warning(
                "rerank: the scores rise from each candidate to the next, as distances do; a higher "
                "score must be a better one. Give -distance if they are distances"
            )
        with self._database.reading() as conn:
            tenancy = passages.Tenancy(self._config.tenant_key, asked.tenant)
            copies = self._config.show_copies
            own = GivenCandidates.of(conn, given, tenancy, copies=copies)
        name = self._name_of(query)
        ranked = self._ranked_given(state, EmbeddedText(query, vector, name), own, asked)
        shown = ranked.best[: asked.k]
        of_hits = _relevance_of_given(state, ranked, shown, query, own)
        every = [
            (i, i, own.texts[i]) for i in shown
        ]  # places in stead of the numbers of their rows
        hits = _hits_of(ranked, every, of_hits, asked.min_relevance)
        found = RankedQuery(query, name, vector, hits, of_hits.answerable)
        if not asked.record:
            return retrieval(None, state, found)
        latency_ms = (time.perf_counter() - began) * 1000.0
        kept, id_ = own.kept(shown), new_id()
        if self._explores(asked):
            other = self._other_given(state, ranked, shown, kept, query, name, own, asked)
            found = explored(replace(found, other=other), id_, self._allowance)

        def write(conn: Connection) -> None:
            pids = own.pids.copy()
            pids[kept] = passages.pids_of_given(conn, [own.texts[i] for i in kept], tenancy)
            by_row = [(int(pids[i]), hit) for i, hit in found.hits]
            stored = replace(found, hits=by_row, candidates=own.logged(kept, pids))
            runs = asked.runs[0] if asked.runs else ()
            record = retrieval_record(id_, stored, state, asked, latency_ms, runs)
            write_records(conn, state, [record], [stored], revision)

        to_write = record_of([id_], state, asked, write)
        if self.postponed.write(to_write, wait_s=self._config.record_wait_s):
            return retrieval(id_, state, found)
        warn_not_recorded()
        return retrieval(None, state, replace(found, hits=hits))

    def _other_given(
        self,
        state: State,
        ranked: _Ranked,
        shown: Sequence[int],
        kept: Sequence[int],
        query: str,
        name: bytes,
        own: GivenCandidates,
        asked: Request,
    ) -> tuple[int, Hit] | None:
        """What may take the last place of those shown, to be explored, with its place; None: nothing."""
        stored = set(kept)
        below = [j for j in ranked.below(shown) if j in stored]
        i = ranked.to_explore(state, shown, below, self._times(state, name, asked.tenant))
        if i is None:
            return None
        (chance,) = _relevance_of_given(state, ranked, [i], query, own).hits
        return i, ranked.explored(own.texts[i], i, len(shown), chance)

    def _ranked_given(
        self, state: State, query: EmbeddedText, own: GivenCandidates, asked: Request
    ) -> _Ranked:
        """An application's own candidates, ranked by their own scores, their texts and the votes."""
        parameters, tokenizer = state.version.parameters, state.statistics.tokenizer
        (evidence,) = _evidence(state, [query], asked.tenant)
        text = own.text_features(query.text, tokenizer) if parameters.reads_given else None
        votes = Votes.of(evidence, own.lineages, parameters)
        scored = score_given(parameters, own.scores, votes, text)
        best = np.lexsort((-own.scores, -scored.scores)).tolist()
        return _Ranked(own.pids, own.lineages, scored, best, evidence)

    def renew(self) -> None:
        """Load the live version, if any query was answered before; else the first query loads it."""
        if self._live.last() is not None:
            self._live.renew()

    def follow(self) -> None:
        """Take in what happened since the last query, if any was answered before; else the first query
        does. What fails now fails again, and is raised, at the next query."""
        if self._live.last() is not None:
            with suppress(FlywheelError):
                self._live.state()

    def close(self) -> None:
        """Wait for a version that is being loaded; close the database first."""
        self._live.close()

    def rates(self) -> Rates:
        """How often votes are wrong, by the live version."""
        return self._live.state().version.parameters.rates

    def weights(self) -> Mapping[str, float]:
        """The weights of users in the live version, by their hashes; that of all others is 1."""
        return self._live.state().version.weights

    def queries(self) -> TextEncoder:
        """The encoder of queries of the live version."""
        return self._encoder(self._live.state())

    def alike(self) -> tuple[float, TextEncoder]:
        """(the least cosine of two questions that may be one in other words: 0.6 of the way from the
        typical cosine of two passages to 1; the encoder of those questions)."""
        state = self._live.state()
        typical = state.typical_cosine
        return typical + _ALIKE * (1.0 - typical), self._encoder(state)

    def near_votes(self, asked: Mapping[QueryKey, Vectors]) -> dict[QueryKey, Nearness]:
        """How near these questions, given with their vectors, are to questions with votes."""
        state = self._live.state()
        kernel, typical = state.version.parameters.memory, state.typical_cosine
        by_tenant: dict[str | None, list[QueryKey]] = {}
        for question in asked:
            by_tenant.setdefault(question.tenant, []).append(question)
        found: dict[QueryKey, Nearness] = {}
        for tenant, own in by_tenant.items():
            cosines = nearest_cosines(state.evidence, np.stack([asked[q] for q in own]), tenant)
            same = same_chance((cosines - typical) / (1.0 - typical), 1.0) >= 0.5
            near = same | (cosines > kernel.theta if kernel.neighbours else False)
            found.update(zip(own, map(Nearness, near.tolist(), same.tolist()), strict=True))
        return found

    def _standing(
        self, state: State, ranked: _Ranked, k: int
    ) -> tuple[list[tuple[int, StoredPassage]], int]:
        """The k best candidates that are still present when their texts are read; and how many before
        them are not."""
        found: list[tuple[int, StoredPassage]] = []
        n_gone = 0
        for start in range(0, len(ranked.best), k):
            part = ranked.best[start : start + k]
            texts = self._texts(state, [int(ranked.pids[i]) for i in part])
            for i in part:
                stored = texts.get(int(ranked.pids[i]))
                n_gone += stored is None
                if stored is not None and len(found) < k:
                    found.append((i, stored))
            if len(found) == k:
                break
        return found, n_gone

    def _texts(self, state: State, pids: Sequence[int]) -> dict[int, StoredPassage]:
        """The texts that are present, by pid. They are cached with the state: the next change of a text by
        any process makes another cache, so a cached text is never older than the call.

        Raises RestoredError."""
        known = state.texts
        texts = {pid: stored for pid in pids if (stored := known.get(pid)) is not None}
        missing = [pid for pid in pids if pid not in texts]
        if missing:
            with self._live.texts.of(state) as conn:
                found = passages.fetch(conn, missing)
            if len(known) + len(found) > _TEXTS:
                known.clear()
            known.update(found)
            texts.update(found)
        return texts


def _again_after_a_restore(call: Callable[[], T]) -> T:
    """What the call returns, begun anew when a backup was restored meanwhile, or a file that is read
    only began to be written to."""
    for _ in range(_TRIES - 1):
        with suppress(RestoredError, ChangedError):
            return call()
    return call()


def _hits_of(
    ranked: _Ranked,
    every: Sequence[tuple[int, int, Passage]],
    of_hits: Relevance,
    least: float | None,
) -> list[tuple[int, Hit]]:
    """The hits with their pids; every: position, pid and passage of each, the best first; least: the
    least relevance of a hit that is not left out."""
    kept = [
        (*each, chance)
        for each, chance in zip(every, of_hits.hits, strict=True)
        if least is None or chance >= least
    ]
    return [
        (pid, make_hit(passage, rank, ranked.scored, i, ranked.behind(i), chance))
        for rank, (i, pid, passage, chance) in enumerate(kept, 1)
    ]


def _relevance(state: State, ranked: _Found, positions: Sequence[int]) -> Relevance:
    """The relevance of the candidates at these positions."""
    parameters, votes = state.version.parameters, ranked.evidence_of(positions)
    before = _before_votes(state, ranked, positions)
    return relevance(parameters.relevance, before, votes, parameters.kernel.n0)


def _before_votes(state: State, ranked: _Found, positions: Sequence[int]) -> Before:
    """What their relevance is computed from, but for the votes; cached while the same hits are shown."""
    parameters, prior = state.version.parameters, ranked.scored.prior
    places = np.array(positions, dtype=np.int64)
    pids = ranked.pids[places]
    depends_on = places.tobytes(), pids.tobytes(), prior.tobytes()
    cached = ranked.lookup.before.get(depends_on)
    if cached is not None and cached[0] is parameters:
        return cached[1]
    rows = ranked.features[places]
    measured = _measured(state, ranked, pids, rows[:, len(FEATURES) :])
    shares = log_shares(prior, parameters.prior_of_unrelated)[places]
    before = before_votes(parameters.relevance, rows[:, 0], shares, measured)
    ranked.lookup.before.clear()
    ranked.lookup.before[depends_on] = parameters, before
    return before


def _measured(state: State, ranked: _Found, pids: Pids, measured: Features) -> Features:
    """The measures of these passages; words that were not read yet are read."""
    unread = np.isnan(measured[:, 0])
    if unread.any():
        read = read_features(state, ranked.query, ranked.lookup, np.sort(pids[unread]))
        for place in np.flatnonzero(unread).tolist():
            measured[place] = read[int(pids[place])][len(FEATURES) :]
    return measured


def _relevance_of_given(
    state: State, ranked: _Ranked, positions: Sequence[int], query: str, own: GivenCandidates
) -> Relevance:
    parameters, votes = state.version.parameters, ranked.evidence_of(positions)
    measured = own.measures(query, positions, state.statistics.tokenizer)
    before = before_votes_of_given(parameters.relevance, measured)
    return relevance_of_given(parameters.relevance, before, votes, parameters.kernel.n0)


def _evidence(state: State, queries: Sequence[EmbeddedText], tenant: str | None) -> list[Evidence]:
    parameters, typical = state.version.parameters, state.typical_cosine
    past = [Asked(q.vector, q.name, typical) for q in queries]
    several = parameters.answers is not None
    return evidence_for(state.evidence, past, tenant, parameters.memory, several=several)


def _rank(
    state: State, inside: Scope, query: EmbeddedText, lookup: Lookup, evidence: Evidence
) -> _Found:
    pids, features = with_evident(state, inside, query, lookup, evidence.strongest(POOL))
    lineages = state.lineages(pids)
    parameters = state.version.parameters
    votes = Votes.of(evidence, lineages, parameters)
    scored = score(parameters, features[:, : len(FEATURES)], votes)
    best = order(scored.scores, pids).tolist()
    return _Found(pids, lineages, scored, best, evidence, query, lookup, features)
