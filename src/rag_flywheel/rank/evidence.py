"""Computes the evidence of votes on similar past queries for passages, for one query.

S of a passage is the sum of (1 − same) · K(q, q_t) · chance_t over the nearest past queries q_t,
where chance_t is the chance that it answers q_t and K = max(0, (cos − theta) / (1 − theta))^gamma.
Without chance_t it is the sum over the past queries that say anything about the passage. `same` is
the chance that q_t asks the same as q: 1 for the same words, and high for near-duplicates. Votes on
the same question count in full, by Bayes' rule (`SameNeed`). Once past queries are many, the nearest
are found by short codes, and compared exactly. Past queries and passages are numbers here.

A past query whose answers are known has chance_t 1 for each of them, or, where one passage is the
answer, 1 shared by them and 0 for all others. Those of the very question are kept apart: ranking puts
them first.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, repeat

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.short_codes import Codes
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.rank.posterior import LEAST_CHANCE, NAMED
from rag_flywheel.rank.stored_evidence import PastQuery, StoredEvidence
from rag_flywheel.records import Known, KnownAnswer, Pids, QueryKey, Support, Vectors

Rows = npt.NDArray[np.int64]
_PART = 256  # past queries
_AT_ONCE = 64  # queries
CODES_FROM = 20_000  # past queries; below, comparing all of them takes about a millisecond
_UNCODED = 4_096  # past queries, the last added, that are compared without codes
_LIKELY = 8  # times as many as count are compared exactly
_DUPLICATE = (
    0.85,
    0.95,
)  # scaled cosines from which two queries may, and most likely do, ask the same
_LEAST_CHANCE = 1e-3
_KNOWN_LOG_ODDS = math.log((1.0 - _LEAST_CHANCE) / _LEAST_CHANCE) - math.log(
    LEAST_CHANCE / (1.0 - LEAST_CHANCE)
)  # what makes a passage that hardly anything speaks for as good as certain
_KNOWN_SAME = Kernel().same  # for known answers, also where a fitted kernel has 0 for votes
_KNOWN_PLACES = 32  # past queries with known answers that count though others are nearer
_COMPARED, _COMPARED_AT_ONCE = 100_000, 16_384  # past queries, for a report
_FEW = 0.1  # of the past queries; a tenant with no more of them has them all compared


@dataclass
class _Room:
    """The append-only columns that successive views share; a view reads below its own length.

    vectors float32 and tenants int32, over-allocated: the vector of each past query and the code of
    its tenant; hashes: of their texts; names: the tenants by code; first: the first row with each
    hash; more: the further rows of a hash that several tenants asked; stored: the evidence of the first
    of them, unless a view has changed it.
    """

    vectors: Vectors
    tenants: npt.NDArray[np.int32]
    stored: StoredEvidence
    hashes: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    first: dict[bytes, int] = field(default_factory=dict)
    more: dict[bytes, list[int]] = field(default_factory=dict)

    def enter(self, hashes: Sequence[bytes], names: Iterable[str | None]) -> None:
        """Append the hashes of further past queries, whose vectors and codes are there already; names:
        all tenants by code."""
        first, more = self.first, self.more
        for row, name in enumerate(hashes, len(self.hashes)):
            if first.setdefault(name, row) != row:
                more.setdefault(name, []).append(row)
        self.hashes.extend(hashes)
        self.names = list(names)

    def key(self, row: int) -> QueryKey:
        """The past query in a row."""
        return QueryKey(self.hashes[row], self.names[self.tenants[row]])

    def rows_with(self, name: bytes) -> Iterator[int]:
        """The rows with a hash, ascending."""
        if (row := self.first.get(name)) is not None:
            yield row
            yield from self.more.get(name, ())


NO_VOTES = PastQuery((), ())


class Unjudged:
    """Past queries whose votes are judged when a question first comes near them; thread-safe.

    judge: what the votes on such past queries say, of those on which any vote stands.
    known: the known answers of those that have some.
    """

    def __init__(
        self,
        judge: Callable[[Sequence[QueryKey]], Mapping[QueryKey, PastQuery]],
        known: Mapping[QueryKey, tuple[Known, ...]],
    ) -> None:
        self._judge = judge
        self._known = known
        self._judged: dict[QueryKey, PastQuery] = {}

    def of(self, keys: Sequence[QueryKey]) -> list[PastQuery]:
        """The evidence from each of these past queries, of which those new to it are judged together."""
        judged = self._judged
        missing = [key for key in keys if key not in judged]
        if missing:
            found = self._judge(missing)
            for key in missing:
                past, known = found.get(key, NO_VOTES), self._known.get(key, ())
                judged[key] = replace(past, known=known) if known else past
        return [judged[key] for key in keys]


@dataclass(frozen=True)
class EvidenceView:
    """The past queries that ranking may use, the first `n`. A view never changes; `updated` makes
    the next, which shares all unchanged parts: a vote costs the same however many there are.

    tenant_codes: by tenant that votes were cast under; silent: rows whose votes were all retracted,
    without known answers; codes: of the first of the vectors, None while there are few; known: the
    rows with known answers, ascending; unjudged: whether the votes on some past queries may be unjudged
    as yet, any of which may turn out to be silent. The evidence of row i is in part i // 256 of
    `_changed`; else the stored evidence holds.
    """

    dim: int
    n: int = 0
    tenant_codes: Mapping[str | None, int] = field(default_factory=dict)
    silent: frozenset[int] = frozenset()
    codes: Codes | None = None
    known: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    unjudged: bool = False
    _changed: tuple[Mapping[int, PastQuery | Unjudged], ...] = ()
    _room: _Room | None = None

    @classmethod
    def of(cls, stored: StoredEvidence, vectors: Vectors) -> "EvidenceView":
        """A view of stored evidence, with the vectors of its past queries, float32 unit rows, the
        first n of an array that may have room for more."""
        n = len(stored)
        tenants = np.empty(len(vectors), np.int32)
        tenants[:n] = stored.tenant
        room = _Room(vectors, tenants, stored)
        room.enter(stored.names, stored.tenants)
        codes = {tenant: i for i, tenant in enumerate(stored.tenants)}
        coded = codes_of(vectors[:n], stored.codes)
        parts: tuple[Mapping[int, PastQuery | Unjudged], ...] = ({},) * -(-n // _PART)
        return cls(vectors.shape[1], n, codes, codes=coded, _changed=parts, _room=room)

    @property
    def keys(self) -> Sequence[QueryKey]:
        """The past queries: (hash of the text, tenant)."""
        return [self._room.key(row) for row in range(self.n)] if self._room is not None else []

    @property
    def vectors(self) -> Vectors:
        """float32 (n, dim): of the past queries."""
        if self._room is None:
            return np.empty((0, self.dim), dtype=np.float32)
        return self._room.vectors[: self.n]

    def past_query(self, row: int) -> PastQuery:
        """The evidence from the votes on the past query in a row."""
        found = self._changed[row // _PART].get(row)
        assert self._room is not None
        if isinstance(found, Unjudged):
            return found.of([self._room.key(row)])[0]
        return self._room.stored.past_query(row) if found is None else found

    def silent_of(self, rows: Rows) -> list[int]:
        """Those of these past queries that are found to be silent once the votes on them are judged."""
        if not self.unjudged or self._room is None:
            return []
        of_each = dict[Unjudged, list[int]]()
        for row in rows.tolist():
            found = self._changed[row // _PART].get(row)
            if isinstance(found, Unjudged):
                of_each.setdefault(found, []).append(row)
        key = self._room.key
        judged = ((own, each.of([key(row) for row in own])) for each, own in of_each.items())
        return [
            row
            for own, every in judged
            for row, past in zip(own, every, strict=True)
            if _mute(past)
        ]

    def of_tenant(self, code: int) -> npt.NDArray[np.bool_]:
        """Whether each past query has votes or known answers under the tenant with this code, (n,)."""
        if self._room is None:
            return np.empty(0, np.bool_)
        own: npt.NDArray[np.bool_] = self._room.tenants[: self.n] == code
        own[list(self.silent)] = False
        return own

    def with_texts(self, hashes: Iterable[bytes]) -> list[QueryKey]:
        """The past queries of the view with these texts, whatever their tenant."""
        return [key for name in hashes for key, _ in self._with_hash(name)]

    def row_of(self, name: bytes | None, tenant: str | None) -> int | None:
        """The row of the past query with this hash, None: there is none with votes or known answers."""
        if name is None:
            return None
        for key, row in self._with_hash(name):
            if key.tenant == tenant and row not in self.silent:
                return None if self.silent_of(np.array([row])) else row
        return None

    def of_queries(self, keys: Sequence[QueryKey]) -> dict[QueryKey, PastQuery]:
        """The evidence from those of these past queries that the view has a row for."""
        rows = {key: row for key in keys if (row := self._row(key)) is not None}
        self.silent_of(
            np.array(list(rows.values()), np.int64)
        )  # judges those that need it together
        return {key: self.past_query(row) for key, row in rows.items()}

    def _with_hash(self, name: bytes) -> list[tuple[QueryKey, int]]:
        """The past queries of the view with this text, each with its row."""
        room = self._room
        if room is None:
            return []
        return [(room.key(row), row) for row in room.rows_with(name) if row < self.n]

    def updated(
        self,
        found: Mapping[QueryKey, PastQuery],
        vectors: Mapping[bytes, Vectors],
    ) -> "EvidenceView":
        """A view in which these past queries have this evidence, and all others are unchanged.

        vectors: float32 (dim,) of each query hash that is not in the view. The room shared with this
        view grows by doubling; one caller at a time.
        """
        old = {key: row for key in found if (row := self._row(key)) is not None}
        new = [key for key in found if key not in old]
        rows = {**old, **{key: self.n + i for i, key in enumerate(new)}}
        silent = {rows[key] for key, past in found.items() if _mute(past)}
        loud = self.silent.intersection(rows[key] for key in found) - silent
        return replace(
            self._extended(
                [name for name, _ in new],
                [tenant for _, tenant in new],
                lambda rows: np.stack([vectors[name] for name, _ in new], out=rows),
            ),
            silent=(self.silent - loud) | silent if loud or silent else self.silent,
            known=_with_rows(
                self.known, {rows[key]: bool(past.known) for key, past in found.items()}
            ),
            _changed=_replaced(self._changed, {rows[key]: past for key, past in found.items()}),
        )

    def lacking(self, keys: Iterable[QueryKey]) -> list[QueryKey]:
        """Those of these past queries that have no row in the view, in their order."""
        return [key for key in keys if self._row(key) is None]

    def with_unjudged(
        self,
        questions: Mapping[str | None, Sequence[bytes]],
        unjudged: Unjudged,
        fill: Callable[[Sequence[bytes], Vectors], object],
    ) -> "EvidenceView":
        """A view in which the votes on these past queries have to be judged.

        questions: distinct hashes by tenant; fill: puts the vectors of hashes into the rows of an array.
        """
        new, tenants, old = list[bytes](), list[str | None](), list[Rows]()
        for tenant, hashes in questions.items():
            rows = self._rows_of(hashes, tenant)
            lacking = [hashes[i] for i in np.flatnonzero(rows < 0).tolist()]
            old.append(rows[rows >= 0])
            new.extend(lacking)
            tenants.extend([tenant] * len(lacking))
        view = self._extended(new, tenants, lambda rows: fill(new, rows))
        changed = np.concatenate([*old, np.arange(self.n, view.n)])
        silent = self.silent.difference(changed.tolist()) if self.silent else self.silent
        parts = _all_replaced(self._changed, changed, unjudged)
        return replace(view, silent=silent, unjudged=True, _changed=parts)

    def _row(self, key: QueryKey) -> int | None:
        for own, row in self._with_hash(key.query_hash):
            if own == key:
                return row
        return None

    def _rows_of(self, hashes: Sequence[bytes], tenant: str | None) -> Rows:
        """The rows of the past queries of a tenant with these hashes, -1 of those that have none."""
        room, code = self._room, self.tenant_codes.get(tenant)
        if room is None or code is None:
            return np.full(len(hashes), -1, np.int64)
        rows = np.fromiter(map(room.first.get, hashes, repeat(-1)), np.int64, len(hashes))
        rows[(rows >= self.n) | (room.tenants[rows] != code)] = -1
        if room.more:
            for i in np.flatnonzero(rows < 0).tolist():
                own = (row for row in room.more.get(hashes[i], ()) if row < self.n)
                rows[i] = next((row for row in own if room.tenants[row] == code), -1)
        return rows

    def _extended(
        self,
        hashes: Sequence[bytes],
        tenants: Sequence[str | None],
        fill: Callable[[Vectors], object],
    ) -> "EvidenceView":
        """A view with rows for further past queries, of which nothing is said as yet; fill: sets their
        vectors."""
        if not hashes:
            return self
        codes = {**self.tenant_codes}
        for tenant in dict.fromkeys(tenants):
            codes.setdefault(tenant, len(codes))
        room, n = self._with_room(len(hashes)), self.n + len(hashes)
        fill(room.vectors[self.n : n])
        room.tenants[self.n : n] = [codes[tenant] for tenant in tenants]
        room.enter(hashes, codes)
        coded = codes_of(room.vectors[:n], self.codes)
        return replace(self, n=n, tenant_codes=codes, codes=coded, _room=room)

    def _with_room(self, n_more: int) -> _Room:
        """The shared room, or a larger one of its own, with place for so many more."""
        room, n = self._room, self.n
        if room is not None and len(room.hashes) == n and n + n_more <= len(room.vectors):
            return room
        size = max(64, 2 * (n + n_more))
        vectors = np.empty((size, self.dim), np.float32)
        stored = room.stored if room else StoredEvidence()
        larger = _Room(vectors, np.empty(size, np.int32), stored)
        if room is not None:
            vectors[:n], larger.tenants[:n] = room.vectors[:n], room.tenants[:n]
            larger.enter(room.hashes[:n], self.tenant_codes)
        return larger


def _mute(past: PastQuery) -> bool:
    return not past.votes and not past.known


def _with_rows(rows: Rows, changed: Mapping[int, bool]) -> Rows:
    """These ascending rows, with those that are True in `changed`, and without those that are False."""
    there = [row for row, known in changed.items() if known]
    if not len(rows) and not there:
        return rows
    others = rows[~np.isin(rows, list(changed))]
    return np.sort(np.append(others, np.array(there, np.int64)))


def _replaced(
    parts: tuple[Mapping[int, PastQuery | Unjudged], ...],
    changed: Mapping[int, PastQuery | Unjudged],
) -> tuple[Mapping[int, PastQuery | Unjudged], ...]:
    """The parts, with copies in place of those in which a row changed."""
    new: dict[int, dict[int, PastQuery | Unjudged]] = {}
    for row, past in changed.items():
        at = row // _PART
        if at not in new:
            new[at] = dict(parts[at]) if at < len(parts) else {}
        new[at][row] = past
    return _with_parts(parts, new)


def _all_replaced(
    parts: tuple[Mapping[int, PastQuery | Unjudged], ...], rows: Rows, value: Unjudged
) -> tuple[Mapping[int, PastQuery | Unjudged], ...]:
    """The parts, with copies in place of those that these rows are in, all of which get one value."""
    if not len(rows):
        return parts
    rows = np.sort(rows)
    each, starts = np.unique(rows // _PART, return_index=True)
    new = dict[int, Mapping[int, PastQuery | Unjudged]]()
    for at, own in zip(each.tolist(), np.split(rows, starts[1:]), strict=True):
        before = parts[at] if at < len(parts) else {}
        new[at] = {**before, **dict.fromkeys(own.tolist(), value)}
    return _with_parts(parts, new)


def _with_parts(
    parts: tuple[Mapping[int, PastQuery | Unjudged], ...],
    new: Mapping[int, Mapping[int, PastQuery | Unjudged]],
) -> tuple[Mapping[int, PastQuery | Unjudged], ...]:
    """The parts, with these in their places."""
    n = max([len(parts), *(at + 1 for at in new)])
    return tuple(new[at] if at in new else parts[at] for at in range(n))


@dataclass(frozen=True)
class Asked:
    """A query as its past is looked up: its vector float32 (dim,) and the hash of its words.

    typical_cosine: of two texts, from which cosines of near-duplicates are scaled to 1; with None,
    near-duplicates count as other neighbours do.
    """

    vector: Vectors
    query_hash: bytes | None = None
    typical_cosine: float | None = None


@dataclass(frozen=True)
class SameNeed:
    """What votes on the very same question say, by passage text (lineage).

    log_odds: what they add to the log-odds of each; least: the least chance before them of each
    passage that a user named as the answer.
    """

    log_odds: Mapping[int, float] = field(default_factory=dict)
    least: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """S by passage text (lineage), from these past queries, the nearest first.

    each: (1 − same) · K of each past query behind it. same: from votes on the same question, whose past
    queries are among those behind it. own: the known answers of the very question.
    """

    support: Mapping[int, float]
    behind: Sequence[PastQuery] = ()
    same: SameNeed = SameNeed()
    each: Sequence[float] = ()
    own: Sequence[Known] = ()

    def amounts(self, lineages: Pids) -> npt.NDArray[np.float64]:
        """S, float64 (n,), of these passage texts."""
        return _of_each(self.support, lineages)

    def weights(self, lineages: Pids) -> npt.NDArray[np.float64]:
        """The sum of K of the past queries that say anything about each of these texts, float64 (n,)."""
        return _of_each(self._speaking[1], lineages)

    def log_odds(self, lineages: Pids) -> npt.NDArray[np.float64]:
        """What votes on the same question add to the log-odds of these texts, float64 (n,)."""
        return _of_each(self.same.log_odds, lineages)

    def least(self, lineages: Pids) -> npt.NDArray[np.float64]:
        """The least chance of these texts before those votes, float64 (n,)."""
        return _of_each(self.same.least, lineages)

    def grades(self, lineages: Pids) -> npt.NDArray[np.float64]:
        """The grades of these texts as known answers of the very question, 0: of none, float64 (n,)."""
        return _of_each({known.lineage: float(known.grade) for known in self.own}, lineages)

    def strongest(self, n: int) -> list[int]:
        """The n passage texts with the largest S, after those that were called helpful for the same
        question; before them all known answers of the very question."""
        first = sorted(known.lineage for known in self.own)
        rest = self._strongest(n, set(first)) if len(first) < n else []
        return [*first, *rest][: max(n, len(first))]

    def _strongest(self, n: int, left_out: set[int]) -> list[int]:
        odds_of = self.same.log_odds.items()
        helped = sorted(p for p, odds in odds_of if odds > 0.0 and p not in left_out)
        others = self.support.keys() - set(helped) - left_out
        if len(helped) + len(others) > n:
            return [*helped, *sorted(others, key=lambda p: (-self.support[p], p))][:n]
        return [*helped, *others]

    @cached_property
    def known(self) -> Mapping[int, tuple[KnownAnswer, ...]]:
        """The known answers, of the very question and of similar ones, that are behind each text."""
        found: dict[int, dict[KnownAnswer, None]] = {}
        for same, some in ((True, self.own), *((False, past.known) for past in self.behind)):
            for known in some:
                answer = KnownAnswer(same, known.sources, known.grade)
                found.setdefault(known.lineage, {})[answer] = None
        return {p: tuple(answers) for p, answers in found.items()}

    def votes_of(self, lineage: int) -> tuple[int, ...]:
        """The votes on the past queries that are evidence for a passage text."""
        return tuple(chain.from_iterable(past.votes for past in self._speaking[0].get(lineage, ())))

    @property
    def votes(self) -> Mapping[int, tuple[int, ...]]:
        """`votes_of` each passage text that there are any for."""
        return {lineage: self.votes_of(lineage) for lineage in self._speaking[0]}

    @cached_property
    def _speaking(self) -> tuple[Mapping[int, Sequence[PastQuery]], Mapping[int, float]]:
        """The past queries whose votes are evidence for each passage text, and the sum of K of those
        that say anything about it."""
        found: dict[int, list[PastQuery]] = defaultdict(list)
        weights: dict[int, float] = {}
        for past, weight in zip(self.behind, self.each, strict=True):
            certain = {known.lineage for known in past.known}
            for s in past.supports:
                if s.lineage not in certain:
                    found[s.lineage].append(past)
                if s.chance > 0.0:
                    weights[s.lineage] = weights.get(s.lineage, 0.0) + weight
        return found, weights


def _of_each(values: Mapping[int, float], lineages: Pids) -> npt.NDArray[np.float64]:
    if not values:
        return np.zeros(len(lineages))
    return np.array([values.get(p, 0.0) for p in lineages.tolist()])


def evidence_for(
    view: EvidenceView,
    queries: Sequence[Asked],
    tenant: str | None,
    kernel: Kernel,
    *,
    several: bool = False,
) -> list[Evidence]:
    """The evidence of the nearest past queries for each query.

    With no neighbours, the votes on the same words alone count, and known answers of near-duplicates.
    several: whether any number of passages may answer a query.
    """
    code = view.tenant_codes.get(tenant)
    if code is None:
        return [Evidence({}) for _ in queries]
    own = [view.row_of(query.query_hash, tenant) for query in queries]
    search = _near_by_codes if view.codes is not None else _near_of_all
    if kernel.neighbours < 1:
        if not len(view.known):
            nothing = np.empty(0, np.int64), np.empty(0)
            return [
                _gathered(view, *nothing, *each, kernel, several=several)
                for each in zip(queries, own, strict=True)
            ]
        search = _near_of_known
    vectors = np.array([query.vector for query in queries], np.float32).reshape(-1, view.dim)
    every = (
        each
        for start in range(0, len(queries), _AT_ONCE)
        for each in search(view, vectors[start : start + _AT_ONCE], code, kernel)
    )
    return [
        _gathered(view, near, cosines.astype(np.float64), query, row, kernel, several=several)
        for (near, cosines), query, row in zip(every, queries, own, strict=True)
    ]


def nearest_cosines(
    view: EvidenceView, queries: Vectors, tenant: str | None
) -> npt.NDArray[np.float64]:
    """float64 (m,): the largest cosine of each of float32 (m, dim) queries with a past query of a tenant, of
    the newest 100,000; -1 where there is none."""
    best = np.full(len(queries), -1.0)
    code = view.tenant_codes.get(tenant)
    if code is None:
        return best
    rows = np.flatnonzero(view.of_tenant(code))[-_COMPARED:]
    for start in range(0, len(rows), _COMPARED_AT_ONCE):
        part = view.vectors[rows[start : start + _COMPARED_AT_ONCE]]
        best = np.maximum(best, (queries @ part.T).max(axis=1))
    return best


def same_chance(scaled: npt.NDArray[np.float64], most: float) -> npt.NDArray[np.float64]:
    """The chance that queries of other words ask the same, by cosine, scaled so that 0 is typical."""
    low, high = _DUPLICATE
    found: npt.NDArray[np.float64] = most * np.clip((scaled - low) / (high - low), 0.0, 1.0)
    return found


def _near_of_all(
    view: EvidenceView, queries: Vectors, code: int, kernel: Kernel
) -> Iterator[tuple[Rows, Vectors]]:
    """For each query the past ones of a tenant beyond theta, and their cosines."""
    own = view.of_tenant(code)
    for cosines in queries @ view.vectors.T:
        near = np.flatnonzero((cosines > kernel.theta) & own)
        yield near, cosines[near]


def _near_of_known(
    view: EvidenceView, queries: Vectors, code: int, kernel: Kernel
) -> Iterator[tuple[Rows, Vectors]]:
    """For each query the past ones of a tenant with known answers, and their cosines."""
    rows = view.known[view.of_tenant(code)[view.known]]
    for cosines in queries @ view.vectors[rows].T:
        yield rows, cosines


def _near_by_codes(
    view: EvidenceView, queries: Vectors, code: int, kernel: Kernel
) -> Iterator[tuple[Rows, Vectors]]:
    """`_near_of_all`, nearly complete: it compares the likely ones by codes, and those without."""
    assert view.codes is not None
    n_coded, own = len(view.codes), view.of_tenant(code)
    share = np.count_nonzero(own[:n_coded]) / n_coded
    others = np.arange(n_coded, view.n)
    likely: Iterable[Rows]
    if share <= _FEW:
        likely = [np.flatnonzero(own[:n_coded])] * len(queries)
    else:
        likely = view.codes.likely(queries, math.ceil(_LIKELY * kernel.neighbours / share))
    for query, found in zip(queries, likely, strict=True):
        rows = np.append(found[found >= 0], others)
        if 0 < len(view.known) <= _UNCODED:
            rows = np.union1d(rows, view.known)
        rows = rows[own[rows]]
        cosines = view.vectors[rows] @ query
        near = cosines > kernel.theta
        yield rows[near], cosines[near]


def codes_of(vectors: Vectors, codes: Codes | None = None) -> Codes | None:
    """Codes of nearly all of these past queries, None while they are few; `codes`: of the first."""
    n = len(vectors)
    if n < CODES_FROM:
        return None
    if codes is None or n >= 2 * codes.n_learned:
        return Codes.build(vectors)
    return codes if n - len(codes) < _UNCODED else codes.extended(vectors[len(codes) :])


def _gathered(
    view: EvidenceView,
    near: Rows,
    cosines: npt.NDArray[np.float64],
    query: Asked,
    own: int | None,
    kernel: Kernel,
    *,
    several: bool,
) -> Evidence:
    """The evidence of these past queries; own: the row of the one with the same words."""
    if own is not None:
        others = near != own
        near, cosines = near[others], cosines[others]
    above = (np.minimum(cosines, 1.0) - kernel.theta) / (1.0 - kernel.theta)
    nearest = _nearest(view, near, above, kernel)
    while silent := view.silent_of(near[nearest]):
        others = ~np.isin(near, silent)
        near, cosines, above = near[others], cosines[others], above[others]
        nearest = _nearest(view, near, above, kernel)
    same = sure = np.zeros(len(nearest))
    if (typical := query.typical_cosine) is not None:
        scaled = (cosines[nearest] - typical) / (1.0 - typical)
        same = sure = same_chance(scaled, kernel.same)
        if len(view.known):
            known_there = np.isin(near[nearest], view.known)
            sure = np.where(known_there, same_chance(scaled, max(kernel.same, _KNOWN_SAME)), same)
    if kernel.neighbours < 1:
        nearest, same, sure = nearest[sure > 0.0], same[sure > 0.0], sure[sure > 0.0]
        weights = np.zeros(len(nearest))
    else:
        weights = (1.0 - sure) * above[nearest] ** kernel.gamma
    found = [view.past_query(row) for row in near[nearest].tolist()]
    chances = list(zip(found, same.tolist(), sure.tolist(), strict=True))
    duplicates = [each for each in chances if each[2] > 0.0]
    behind = [
        _certain(past, several=several, same=rho > 0.0) if past.known else past
        for past, rho, _ in chances
    ]
    each = weights.tolist()
    support: dict[int, float] = {}
    for past, weight in zip(behind, each, strict=True):
        for s in past.supports:
            if s.chance > 0.0:
                support[s.lineage] = support.get(s.lineage, 0.0) + weight * s.chance
    known: tuple[Known, ...] = ()
    if own is not None:
        first = view.past_query(own)
        known, first = first.known, replace(first, known=())
        behind, each = [first, *behind], [0.0, *each]
        duplicates = [(first, 1.0, 1.0), *duplicates]
    return Evidence(support, tuple(behind), _same_need(duplicates), tuple(each), known)


def _nearest(
    view: EvidenceView, near: Rows, above: npt.NDArray[np.float64], kernel: Kernel
) -> Rows:
    """The places in `near` of the past queries that count: the nearest, and beyond them some with
    known answers, which others must not crowd out."""
    order = np.lexsort((near, -above))
    nearest = order[: kernel.neighbours]
    if not len(view.known) or len(nearest) == len(order):
        return nearest
    rest = order[kernel.neighbours :]
    return np.append(nearest, rest[np.isin(near[rest], view.known)][:_KNOWN_PLACES])


def _certain(past: PastQuery, *, several: bool, same: bool) -> PastQuery:
    """A past query with its known answers as what is certain.

    Where one passage is the answer, no other is; votes on it count only where it asks the same (same).
    """
    certain = {known.lineage for known in past.known}
    share = 1.0 if several else 1.0 / len(certain)
    others = [s for s in past.supports if s.lineage not in certain]
    if not several:
        others = [replace(s, chance=0.0) for s in others if same and s.log_odds]
    supports = (*others, *(Support(known.lineage, share) for known in past.known))
    return PastQuery(supports, past.votes if others else (), past.known)


def _same_need(duplicates: Sequence[tuple[PastQuery, float, float]]) -> SameNeed:
    """What is said of these past queries, each of which asks the same with some chance: as far as
    votes are concerned, and as far as known answers are.

    Where q_t asks the same, its votes on a passage multiply the odds of it by R, and where not they
    say nothing but what its own chance π before them makes likely, so they multiply the odds by

        (rho · R + (1 − rho) · m) / (rho + (1 − rho) · m),   m = π · R + 1 − π

    A known answer speaks for its passage as much as takes it from 0.01 to near certainty, whatever the
    votes on it say.
    """
    log_odds, least = dict[int, float](), dict[int, float]()
    for past, rho, rho_of_known in duplicates:
        certain = {known.lineage for known in past.known}
        for p in certain:
            sure = Support(p, 1.0, _KNOWN_LOG_ODDS)
            log_odds[p] = log_odds.get(p, 0.0) + _damped(sure, rho_of_known)
        for s in past.supports:
            if s.log_odds == 0.0 or s.lineage in certain or rho == 0.0:
                continue
            moved = s.log_odds if rho >= 1.0 else _damped(s, rho)
            log_odds[s.lineage] = log_odds.get(s.lineage, 0.0) + moved
            if s.named:
                least[s.lineage] = max(least.get(s.lineage, 0.0), rho * NAMED)
    return SameNeed(log_odds, least)


def _damped(support: Support, rho: float) -> float:
    after = min(max(support.chance, _LEAST_CHANCE), 1.0 - _LEAST_CHANCE)
    before = 1.0 / (1.0 + math.exp(support.log_odds - math.log(after / (1.0 - after))))
    ratio = math.exp(support.log_odds)
    apart = (1.0 - rho) * (before * ratio + 1.0 - before)
    return math.log(rho * ratio + apart) - math.log(rho + apart)
