"""Computes the evidence of votes on similar past queries for passages, for one query.

S of a passage is the sum of (1 − same) · K(q, q_t) · chance_t over the nearest past queries q_t,
where chance_t is the chance that it answers q_t and K = max(0, (cos − theta) / (1 − theta))^gamma.
Without chance_t it is the sum over the past queries that say anything about the passage. `same` is
the chance that q_t asks the same as q: 1 for the same words, and high for near-duplicates. Votes on
the same question count in full, by Bayes' rule (`SameNeed`). Once past queries are many, the nearest
are found by short codes, and compared exactly. Past queries and passages are numbers here.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.short_codes import Codes
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.rank.posterior import NAMED
from rag_flywheel.rank.stored_evidence import PastQuery, StoredEvidence
from rag_flywheel.records import Pids, QueryKey, Support, Vectors

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
_FEW = 0.1  # of the past queries; a tenant with no more of them has them all compared


@dataclass
class _Room:
    """The append-only arrays that successive views share; a view reads below its own length.

    vectors float32 and tenants int32, over-allocated: the vector of each past query and the code of
    its tenant; keys: the past queries; rows: those with each hash; stored: the evidence of the first
    of them, unless a view has changed it.
    """

    vectors: Vectors
    tenants: npt.NDArray[np.int32]
    keys: list[QueryKey]
    rows: dict[bytes, list[int]]
    stored: StoredEvidence

    def add(self, keys: Sequence[QueryKey], vectors: Vectors, tenants: Sequence[int]) -> None:
        """Append further past queries, for which there must be room."""
        n = len(self.keys)
        self.vectors[n : n + len(keys)] = vectors
        self.tenants[n : n + len(keys)] = tenants
        self.keys.extend(keys)
        _note(self.rows, keys, n)


def _note(rows: dict[bytes, list[int]], keys: Sequence[QueryKey], n: int) -> None:
    """Enter these past queries into the rows by hash, the first of them as row n."""
    for row, (name, _) in enumerate(keys, n):
        rows.setdefault(name, []).append(row)


NO_VOTES = PastQuery((), ())


@dataclass(frozen=True)
class EvidenceView:
    """The past queries that ranking may use, the first `n`. A view never changes; `updated` makes
    the next, which shares all unchanged parts: a vote costs the same however many there are.

    tenant_codes: by tenant that votes were cast under; silent: rows whose votes were all retracted;
    codes: of the first of the vectors, None while there are few. The evidence of row i is in part
    i // 256 of `_changed`; else the stored evidence holds.
    """

    dim: int
    n: int = 0
    tenant_codes: Mapping[str | None, int] = field(default_factory=dict)
    silent: frozenset[int] = frozenset()
    codes: Codes | None = None
    _changed: tuple[Mapping[int, PastQuery], ...] = ()
    _room: _Room | None = None

    @classmethod
    def of(cls, stored: StoredEvidence, vectors: Vectors) -> "EvidenceView":
        """A view of stored evidence, with the vectors of its past queries, float32 unit rows, the
        first n of an array that may have room for more."""
        keys, n = list(stored.keys), len(stored)
        tenants = np.empty(len(vectors), np.int32)
        tenants[:n] = stored.tenant
        room = _Room(vectors, tenants, keys, {}, stored)
        _note(room.rows, keys, 0)
        codes = {tenant: i for i, tenant in enumerate(stored.tenants)}
        coded = codes_of(vectors[:n], stored.codes)
        parts: tuple[Mapping[int, PastQuery], ...] = ({},) * -(-n // _PART)
        return cls(vectors.shape[1], n, codes, codes=coded, _changed=parts, _room=room)

    @property
    def keys(self) -> Sequence[QueryKey]:
        """The past queries: (hash of the text, tenant)."""
        return self._room.keys[: self.n] if self._room is not None else []

    @property
    def vectors(self) -> Vectors:
        """float32 (n, dim): of the past queries."""
        if self._room is None:
            return np.empty((0, self.dim), dtype=np.float32)
        return self._room.vectors[: self.n]

    def past_query(self, row: int) -> PastQuery:
        """The evidence from the votes on the past query in a row."""
        found = self._changed[row // _PART].get(row)
        if found is not None:
            return found
        assert self._room is not None
        return self._room.stored.past_query(row)

    def of_tenant(self, code: int) -> npt.NDArray[np.bool_]:
        """Whether each past query has votes, cast under the tenant with this code; bool (n,)."""
        if self._room is None:
            return np.empty(0, np.bool_)
        own: npt.NDArray[np.bool_] = self._room.tenants[: self.n] == code
        own[list(self.silent)] = False
        return own

    def with_texts(self, hashes: Iterable[bytes]) -> list[QueryKey]:
        """The past queries of the view with these texts, whatever their tenant."""
        return [key for name in hashes for key, _ in self._with_hash(name)]

    def row_of(self, name: bytes | None, tenant: str | None) -> int | None:
        """The row of the past query with this hash, None: there is none with votes."""
        if name is None:
            return None
        for key, row in self._with_hash(name):
            if key.tenant == tenant and row not in self.silent:
                return row
        return None

    def _with_hash(self, name: bytes) -> list[tuple[QueryKey, int]]:
        """The past queries of the view with this text, each with its row."""
        room = self._room
        if room is None:
            return []
        return [(room.keys[row], row) for row in room.rows.get(name, ()) if row < self.n]

    def updated(
        self,
        found: Mapping[QueryKey, PastQuery],
        vectors: Mapping[bytes, Vectors],
    ) -> "EvidenceView":
        """A view in which these past queries have this evidence, and all others are unchanged.

        vectors: float32 (dim,) of each query hash that is not in the view. The room shared with this
        view grows by doubling; one caller at a time.
        """
        names = {name for name, _ in found}
        old = {key: row for name in names for key, row in self._with_hash(name)}
        new = [key for key in found if key not in old]
        rows = {**old, **{key: self.n + i for i, key in enumerate(new)}}
        codes = self.tenant_codes
        for _, tenant in new:
            if tenant not in codes:
                codes = {**codes, tenant: len(codes)}
        room, coded = self._room, self.codes
        if new:
            room = self._with_room(len(new))
            added = np.stack([vectors[key.query_hash] for key in new])
            room.add(new, added, [codes[tenant] for _, tenant in new])
            coded = codes_of(room.vectors[: self.n + len(new)], self.codes)
        silent = {rows[key] for key, past in found.items() if not past.votes}
        loud = self.silent.intersection(rows[key] for key in found) - silent
        return EvidenceView(
            self.dim,
            self.n + len(new),
            codes,
            (self.silent - loud) | silent if loud or silent else self.silent,
            coded,
            _replaced(self._changed, {rows[key]: past for key, past in found.items()}),
            room,
        )

    def _with_room(self, n_more: int) -> _Room:
        """The shared room, or a larger one of its own, with place for so many more."""
        room, n = self._room, self.n
        if room is not None and len(room.keys) == n and n + n_more <= len(room.vectors):
            return room
        size = max(64, 2 * (n + n_more))
        vectors = np.empty((size, self.dim), np.float32)
        larger = _Room(
            vectors, np.empty(size, np.int32), [], {}, room.stored if room else StoredEvidence()
        )
        if room is not None:
            larger.add(room.keys[:n], room.vectors[:n], room.tenants[:n].tolist())
        return larger


def _replaced(
    parts: tuple[Mapping[int, PastQuery], ...], changed: Mapping[int, PastQuery]
) -> tuple[Mapping[int, PastQuery], ...]:
    """The parts, with copies in place of those in which a row changed."""
    new: dict[int, dict[int, PastQuery]] = {}
    for row, past in changed.items():
        at = row // _PART
        if at not in new:
            new[at] = dict(parts[at]) if at < len(parts) else {}
        new[at][row] = past
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
    queries are among those behind it.
    """

    support: Mapping[int, float]
    behind: Sequence[PastQuery] = ()
    same: SameNeed = SameNeed()
    each: Sequence[float] = ()

    def amounts(self, lineages: Pids) -> npt.NDArray[np.float64]:
        """S, float64 (n,), of these passage texts."""
        return _of_each(self.support, lineages)

    def weights(self, lineages: Pids) -> npt.NDArray[np.float64]:
        """The sum of K of the past queries that say anything about each of these texts, float64 (n,)."""
        found: dict[int, float] = {}
        for past, weight in zip(self.behind, self.each, strict=True):
            for s in past.supports:
                if s.chance > 0.0:
                    found[s.lineage] = found.get(s.lineage, 0.0) + weight
        return _of_each(found, lineages)

    def log_odds(self, lineages: Pids) -> npt.NDArray[np.float64]:
        """What votes on the same question add to the log-odds of these texts, float64 (n,)."""
        return _of_each(self.same.log_odds, lineages)

    def least(self, lineages: Pids) -> npt.NDArray[np.float64]:
        """The least chance of these texts before those votes, float64 (n,)."""
        return _of_each(self.same.least, lineages)

    def strongest(self, n: int) -> list[int]:
        """The n passage texts with the largest S, after those that were called helpful for the same
        question."""
        helped = sorted(p for p, odds in self.same.log_odds.items() if odds > 0.0)
        others = self.support.keys() - set(helped)
        if len(helped) + len(others) > n:
            return [*helped, *sorted(others, key=lambda p: (-self.support[p], p))][:n]
        return [*helped, *others]

    @cached_property
    def votes(self) -> Mapping[int, tuple[int, ...]]:
        """The votes on the past queries that are evidence for each passage text."""
        found: dict[int, tuple[int, ...]] = {}
        for past in self.behind:
            for s in past.supports:
                found[s.lineage] = found.get(s.lineage, ()) + past.votes
        return found


def _of_each(values: Mapping[int, float], lineages: Pids) -> npt.NDArray[np.float64]:
    if not values:
        return np.zeros(len(lineages))
    return np.array([values.get(p, 0.0) for p in lineages.tolist()])


def evidence_for(
    view: EvidenceView, queries: Sequence[Asked], tenant: str | None, kernel: Kernel
) -> list[Evidence]:
    """The evidence of the nearest past queries for each query.

    With no neighbours, the votes on the same words alone count.
    """
    code = view.tenant_codes.get(tenant)
    if code is None:
        return [Evidence({}) for _ in queries]
    own = [view.row_of(query.query_hash, tenant) for query in queries]
    if kernel.neighbours < 1:
        nothing = np.empty(0, np.int64), np.empty(0)
        return [_gathered(view, *nothing, *each, kernel) for each in zip(queries, own, strict=True)]
    search = _near_by_codes if view.codes is not None else _near_of_all
    vectors = np.array([query.vector for query in queries], np.float32).reshape(-1, view.dim)
    every = (
        each
        for start in range(0, len(queries), _AT_ONCE)
        for each in search(view, vectors[start : start + _AT_ONCE], code, kernel)
    )
    return [
        _gathered(view, near, cosines.astype(np.float64), query, row, kernel)
        for (near, cosines), query, row in zip(every, queries, own, strict=True)
    ]


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
) -> Evidence:
    """The evidence of these past queries; own: the row of the one with the same words."""
    if own is not None:
        others = near != own
        near, cosines = near[others], cosines[others]
    above = (np.minimum(cosines, 1.0) - kernel.theta) / (1.0 - kernel.theta)
    nearest = np.lexsort((near, -above))[: kernel.neighbours]
    same = np.zeros(len(nearest))
    if (typical := query.typical_cosine) is not None:
        same = same_chance((cosines[nearest] - typical) / (1.0 - typical), kernel.same)
    weights = (1.0 - same) * above[nearest] ** kernel.gamma
    behind = [view.past_query(row) for row in near[nearest].tolist()]
    each = weights.tolist()
    support: dict[int, float] = {}
    for past, weight in zip(behind, each, strict=True):
        for s in past.supports:
            if s.chance > 0.0:
                support[s.lineage] = support.get(s.lineage, 0.0) + weight * s.chance
    duplicates = [(past, rho) for past, rho in zip(behind, same.tolist(), strict=True) if rho > 0.0]
    if own is not None:
        first = view.past_query(own)
        behind, each = [first, *behind], [0.0, *each]
        duplicates = [(first, 1.0), *duplicates]
    return Evidence(support, tuple(behind), _same_need(duplicates), tuple(each))


def _same_need(duplicates: Sequence[tuple[PastQuery, float]]) -> SameNeed:
    """What votes on these past queries say, each of which asks the same with some chance.

    Where q_t asks the same, its votes on a passage multiply the odds of it by R, and where not they
    say nothing but what its own chance π before them makes likely, so they multiply the odds by

        (rho · R + (1 − rho) · m) / (rho + (1 − rho) · m),   m = π · R + 1 − π
    """
    log_odds, least = dict[int, float](), dict[int, float]()
    for past, rho in duplicates:
        for s in past.supports:
            if s.log_odds == 0.0:
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
