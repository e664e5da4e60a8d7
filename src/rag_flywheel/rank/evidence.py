"""Evidence: what votes on similar past queries say about passages, for one query.

S of a passage is the sum of K(q, q_t) · chance_t over the nearest past queries q_t, where chance_t
is the chance that it is the answer of q_t and K = max(0, (cos − theta) / (1 − theta))^gamma. Once
past queries are many, the nearest are found by short codes, and compared exactly. Past queries and
passages are numbers here; this module must not know where votes come from.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.codes import Codes
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.records import Pids, Support, Vectors

Rows = npt.NDArray[np.int64]
PastQueryKey = tuple[bytes, str | None]
_NOBODY = -1
_AT_ONCE = 64  # queries
CODES_FROM = 20_000  # past queries; below, looking at all of them takes about a millisecond
_UNCODED = 4_096  # past queries, those added last, that are looked at as they are
_LIKELY = 8  # times as many as count are compared exactly
_FEW = 0.1  # of the past queries; a tenant with no more of them has them all compared


@dataclass
class _Buffer:
    """What a family of views shares and only ever adds to; a view reads below its own length.

    rows: vectors of past queries, over-allocated; positions: the row of each past query.
    """

    rows: Vectors
    positions: dict[PastQueryKey, int]
    n_used: int


@dataclass(frozen=True)
class PastQuery:
    """What votes on a past query say: the chances of passages, and the votes' event numbers."""

    supports: tuple[Support, ...]
    votes: tuple[int, ...]


NO_VOTES = PastQuery((), ())


@dataclass(frozen=True)
class EvidenceView:
    """The past queries that ranking may use. A view never changes; `updated` makes the next.

    keys[i] and past[i] belong to vectors[i], float32 (n, dim) unit rows; tenants[i] is a code
    of the tenant that the votes were cast under, -1 when every vote on the query was retracted.
    codes: of the first of the vectors, None: they are few.
    """

    dim: int
    keys: tuple[PastQueryKey, ...] = ()
    past: tuple[PastQuery, ...] = ()
    tenants: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    tenant_codes: Mapping[str | None, int] = field(default_factory=dict)
    codes: Codes | None = None
    _buffer: _Buffer | None = None

    @property
    def vectors(self) -> Vectors:
        """float32 (n, dim): the past queries."""
        if self._buffer is None:
            return np.empty((0, self.dim), dtype=np.float32)
        return self._buffer.rows[: len(self.keys)]

    def known(self, hashes: Iterable[bytes]) -> list[PastQueryKey]:
        """The past queries of the view with these texts, whatever their tenant."""
        positions = self._buffer.positions if self._buffer is not None else {}
        keys = [(name, tenant) for name in hashes for tenant in self.tenant_codes]
        return [key for key in keys if positions.get(key, len(self.keys)) < len(self.keys)]

    def updated(
        self,
        found: Mapping[PastQueryKey, PastQuery],
        vectors: Mapping[bytes, Vectors],
    ) -> "EvidenceView":
        """A view in which these past queries say this, and all others what they said.

        vectors: float32 (dim,) of each query hash. The room for vectors is shared with this view
        and grows by doubling, so a vote costs no copy of all of them; one caller at a time.
        """
        n = len(self.keys)
        positions = self._buffer.positions if self._buffer is not None else {}
        rows = [positions.get(key, n) for key in found]
        new = [key for key, row in zip(found, rows, strict=True) if row >= n]
        changed = [*self.past, *(found[key] for key in new)]
        codes = dict(self.tenant_codes)
        for key in new:
            codes.setdefault(key[1], len(codes))
        tenants = np.concatenate([self.tenants, np.zeros(len(new), dtype=np.int32)])
        fresh_rows = iter(range(n, n + len(new)))
        for (key, past), row in zip(found.items(), rows, strict=True):
            at = row if row < n else next(fresh_rows)
            changed[at] = past
            tenants[at] = codes[key[1]] if past.votes else _NOBODY
        buffer = self._extended(new, [vectors[key[0]] for key in new])
        return EvidenceView(
            self.dim,
            (*self.keys, *new),
            tuple(changed),
            tenants,
            codes,
            self.codes if buffer is None else _coded(self.codes, buffer.rows[: n + len(new)]),
            buffer,
        )

    def _extended(self, keys: Sequence[PastQueryKey], added: Sequence[Vectors]) -> _Buffer | None:
        n = len(self.keys)
        buffer = self._buffer
        if not added:
            return buffer
        if buffer is None or buffer.n_used != n or n + len(added) > len(buffer.rows):
            rows = np.empty((max(64, 2 * (n + len(added))), self.dim), dtype=np.float32)
            rows[:n] = self.vectors
            buffer = _Buffer(rows, {key: i for i, key in enumerate(self.keys)}, n)
        buffer.rows[n : n + len(added)] = np.stack(added)
        buffer.n_used = n + len(added)
        buffer.positions.update({key: n + i for i, key in enumerate(keys)})
        return buffer


@dataclass(frozen=True)
class Evidence:
    """S by passage text (lineage), from these past queries, the nearest first."""

    support: Mapping[int, float]
    behind: Sequence[PastQuery] = ()

    def amounts(self, lineages: Pids) -> npt.NDArray[np.float64]:
        """S, float64 (n,), of these passage texts."""
        if not self.support:
            return np.zeros(len(lineages))
        return np.array([self.support.get(p, 0.0) for p in lineages.tolist()])

    def strongest(self, n: int) -> list[int]:
        """The n passage texts with the largest S."""
        if len(self.support) <= n:
            return list(self.support)
        return sorted(self.support, key=lambda p: (-self.support[p], p))[:n]

    @cached_property
    def votes(self) -> Mapping[int, tuple[int, ...]]:
        """The votes on the past queries behind each passage text."""
        found: dict[int, tuple[int, ...]] = {}
        for past in self.behind:
            for s in past.supports:
                found[s.lineage] = found.get(s.lineage, ()) + past.votes
        return found


def evidence_for(
    view: EvidenceView, queries: Vectors, tenant: str | None, kernel: Kernel
) -> list[Evidence]:
    """What the votes on the past queries nearest to each query say; queries: float32 (m, dim)."""
    code = view.tenant_codes.get(tenant)
    if code is None or kernel.neighbours < 1:
        return [Evidence({}) for _ in queries]
    search = _near_by_codes if view.codes is not None else _near_of_all
    return [
        _gathered(view, near, cosines.astype(np.float64), kernel)
        for start in range(0, len(queries), _AT_ONCE)
        for near, cosines in search(view, queries[start : start + _AT_ONCE], code, kernel)
    ]


def _near_of_all(
    view: EvidenceView, queries: Vectors, code: int, kernel: Kernel
) -> Iterator[tuple[Rows, Vectors]]:
    """For each query the past ones of a tenant beyond theta, and their cosines."""
    for cosines in queries @ view.vectors.T:
        near = np.flatnonzero((cosines > kernel.theta) & (view.tenants == code))
        yield near, cosines[near]


def _near_by_codes(
    view: EvidenceView, queries: Vectors, code: int, kernel: Kernel
) -> Iterator[tuple[Rows, Vectors]]:
    """`_near_of_all`, nearly all of the nearest: those that codes call likely and those without."""
    assert view.codes is not None
    n_coded = len(view.codes)
    own = view.tenants[:n_coded] == code
    share = np.count_nonzero(own) / n_coded
    others = np.arange(n_coded, len(view.keys))
    likely: Iterable[Rows]
    if share <= _FEW:
        likely = [np.flatnonzero(own)] * len(queries)
    else:
        likely = view.codes.likely(queries, math.ceil(_LIKELY * kernel.neighbours / share))
    for query, found in zip(queries, likely, strict=True):
        rows = np.append(found, others)
        rows = rows[view.tenants[rows] == code]
        cosines = view.vectors[rows] @ query
        near = cosines > kernel.theta
        yield rows[near], cosines[near]


def _coded(codes: Codes | None, vectors: Vectors) -> Codes | None:
    """Codes of nearly all of these past queries, None while they are few; `codes`: of the first."""
    n = len(vectors)
    if n < CODES_FROM:
        return None
    if codes is None or n >= 2 * codes.n_learned:
        return Codes.build(vectors)
    return codes if n - len(codes) < _UNCODED else codes.extended(vectors[len(codes) :])


def _gathered(
    view: EvidenceView, near: Rows, cosines: npt.NDArray[np.float64], kernel: Kernel
) -> Evidence:
    above = (np.minimum(cosines, 1.0) - kernel.theta) / (1.0 - kernel.theta)
    nearest = np.lexsort((near, -above))[: kernel.neighbours]
    weights = above[nearest] ** kernel.gamma
    behind = [view.past[row] for row in near[nearest].tolist()]
    support: dict[int, float] = {}
    for past, weight in zip(behind, weights.tolist(), strict=True):
        for s in past.supports:
            support[s.lineage] = support.get(s.lineage, 0.0) + weight * s.chance
    return Evidence(support, behind)
