"""Turns past and golden queries into examples, each with its candidates and the votes on them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rag_flywheel.curate.groups import near_duplicate
from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.disk import parsed_json
from rag_flywheel.encoder import TextEncoder
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.improve.examples import Examples, Golden, Ints
from rag_flywheel.index.nearest import nearest_rows
from rag_flywheel.rank.features import FEATURES, GIVEN, MEASURES
from rag_flywheel.rank.posterior import CORRECTION_WEIGHT
from rag_flywheel.rank.score import POOL
from rag_flywheel.rank.stored_lookups import Row
from rag_flywheel.records import (
    EmbeddedText,
    Features,
    GoldenItem,
    Pids,
    Progress,
    QueryKey,
    Vectors,
)
from rag_flywheel.refresh.given import GivenExamples, given_candidates
from rag_flywheel.refresh.past import Past
from rag_flywheel.refresh.past_rows import Naming, PastRows
from rag_flywheel.refresh.unrelated import UNRELATED
from rag_flywheel.serve.candidates import look_up, plain_worth, with_evident
from rag_flywheel.serve.catch_up import bare_state
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.serve.state import Scope, State, scope
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import stored_vectors_of
from rag_flywheel.store.filters import plain_filter
from rag_flywheel.store.metadata_columns import MetadataColumns
from rag_flywheel.store.passages import query_digest

_AT_ONCE = 256


@dataclass(frozen=True)
class ExampleBuilder:
    """Turns past and golden queries into examples, their candidates looked up in one version.

    lookups: the cache of candidates; n: how many of each kind are looked up; tenant_key: the metadata
    key that names a query's tenant, None: there are no tenants.
    """

    database: Database
    version: LoadedVersion
    lookups: Lookups
    n: int
    tenant_key: str | None = None
    progress: Progress | None = None

    def past(self, past: Past, rows: PastRows | None = None) -> Examples:
        """One example for each past query with a vote on a passage that the version still holds, or on
        a candidate that an application gave.

        A query's candidates are the texts that pass its own metadata filter, or those that were given.
        rows: those known already, to which those that are looked up are added; None: of none.
        """
        rows = PastRows() if rows is None else rows
        with self.database.snapshot() as conn:
            state = bare_state(self.version, conn)
            naming = Naming.of(state, self.n, conn)
        own = given_candidates(self.database, past, state)
        found: dict[QueryKey, Row] = {}
        of_given = GivenExamples(self.database, past, self.version.engine.statistics.tokenizer)
        for part in _parts(list(own)):
            found.update(of_given.of({key: own[key] for key in part}))
        every = [key for key in past.judged if key not in own]
        names = {key: naming.name(*_depends_on(past, key)) for key in every}
        missing = [key for key in every if rows.find(names[key]) is None]
        for key, row in self._looked_up(state, past, missing):
            rows.put(names[key], row)
        for key in every:
            known = rows.find(names[key])
            if known is not None and not set(_judged(past, key)).isdisjoint(known[0].tolist()):
                found[key] = known
        keys = [key for key in past.judged if key in found]
        own_given = [key in own for key in keys]
        every_row = [found[key] for key in keys]
        return _stacked(past, keys, every_row, self.version, given=own_given)

    def _looked_up(
        self, state: State, past: Past, keys: Sequence[QueryKey]
    ) -> Iterator[tuple[QueryKey, Row]]:
        """The row of each of these past queries, among the texts that pass its filter."""
        by_filter: dict[str | None, list[QueryKey]] = {}
        for key in keys:
            by_filter.setdefault(past.filters[key], []).append(key)
        columns, done = MetadataColumns(), 0
        for where, some in by_filter.items():
            allowed = None
            if where is not None:
                with self.database.snapshot() as conn:
                    allowed = _passing(columns, conn, where)
            inside = scope(state, allowed)
            for part in _parts(some):
                if self.progress is not None:
                    self.progress("past queries", done, len(keys))
                judged = [_judged(past, key) for key in part]
                yield from zip(
                    part, self._candidates(state, inside, past, part, judged), strict=True
                )
                done += len(part)

    def golden(self, items: Sequence[GoldenItem], vectors: Mapping[bytes, Vectors]) -> Golden:
        """Golden queries as examples; vectors: of the queries, by hash."""
        with self.database.snapshot() as conn:
            state = bare_state(self.version, conn)
            columns = MetadataColumns()
            scopes = {
                tenant: scope(state, _pids_of_tenant(columns, conn, self.tenant_key, tenant))
                for tenant in {item.tenant for item in items}
            }
        past = Past({}, {}, {item.query_hash: item.query for item in items}, dict(vectors))
        keys = [QueryKey(item.query_hash, item.tenant) for item in items]
        found: dict[QueryKey, tuple[Pids, Features]] = {}
        for tenant, inside in scopes.items():
            own = [key for key in keys if key.tenant == tenant]
            rows = self._candidates(state, inside, past, own, [[]] * len(own))
            found.update(zip(own, rows, strict=True))
        every_row, none = [found[key] for key in keys], [False] * len(keys)
        examples = _stacked(past, keys, every_row, self.version, given=none)
        return Golden(examples, [{p: float(g) for p, g in item.lineages.items()} for item in items])

    def unrelated(self, encoder: TextEncoder, rows: PastRows | None = None) -> Examples:
        """Questions that have nothing to do with the passages, most likely, as examples without votes.

        Their vectors are stored, so that the next version needs no encoder for them. rows: as for `past`.
        """
        rows = PastRows() if rows is None else rows
        texts = {query_digest(text): text for text in UNRELATED}
        vectors = stored_vectors_of(self.database, texts, encoder)
        with self.database.snapshot() as conn:
            state = bare_state(self.version, conn)
            naming = Naming.of(state, self.n, conn)
        past, keys = Past({}, {}, texts, vectors), [QueryKey(name, None) for name in texts]
        names = [naming.name(EmbeddedText(texts[h], vectors[h]), None, ()) for h in texts]
        missing = [i for i, name in enumerate(names) if rows.find(name) is None]
        nothing: list[list[int]] = [[]] * len(missing)
        some = [keys[i] for i in missing]
        looked_up = self._candidates(state, scope(state, None), past, some, nothing)
        for i, row in zip(missing, looked_up, strict=True):
            rows.put(names[i], row)
        found = [known for name in names if (known := rows.find(name)) is not None]
        return _stacked(past, keys, found, self.version, given=[False] * len(keys))

    def passage_vectors(self, lineages: Ints) -> Vectors:
        """float32 (m, dim), unit rows: of the texts that now inherit the votes of these lineages."""
        pids = np.array([self._heirs.get(p, p) for p in lineages.tolist()], dtype=np.int64)
        return self.version.engine.vectors(pids)

    @cached_property
    def _heirs(self) -> Mapping[int, int]:
        with self.database.snapshot() as conn:
            return bare_state(self.version, conn).heirs

    def _candidates(
        self,
        state: State,
        inside: Scope,
        past: Past,
        keys: Sequence[QueryKey],
        judged: Sequence[Sequence[int]],
    ) -> Iterator[tuple[Pids, Features]]:
        """Lineages and features with measures of each query's best candidates.

        Its `judged` lineages are among them. The best are those of the plain hybrid, so that the same
        votes always give the same examples.
        """
        queries = [EmbeddedText(past.texts[h], past.vectors[h]) for h, _ in keys]
        lookups = look_up(state, inside, queries, self.n, self.lookups, keep=False)
        trust = self.version.parameters.trust
        for query, lookup, wanted in zip(queries, lookups, judged, strict=True):
            pids, features = with_evident(state, inside, query, lookup, wanted)
            lineages = state.lineages(pids)
            worth = np.where(np.isin(lineages, wanted), np.inf, plain_worth(features, trust))
            best = np.sort(np.lexsort((pids, -worth))[:POOL])
            yield lineages[best], features[best]


def _parts(keys: Sequence[QueryKey]) -> Iterator[Sequence[QueryKey]]:
    return (keys[i : i + _AT_ONCE] for i in range(0, len(keys), _AT_ONCE))


def _judged(past: Past, key: QueryKey) -> list[int]:
    return [judgment.lineage for judgment in past.judged[key]]


def _depends_on(past: Past, key: QueryKey) -> tuple[EmbeddedText, str | None, list[int]]:
    """What the row of a past query depends on besides the index: (query, filter, judged lineages)."""
    query = EmbeddedText(past.texts[key.query_hash], past.vectors[key.query_hash])
    return query, past.filters[key], _judged(past, key)


def _passing(columns: MetadataColumns, conn: Connection, where: str) -> Pids:
    """Pids of the texts that pass a stored filter. Raises CorruptFileError for a damaged filter."""
    try:
        plain = plain_filter(parsed_json(where, "it"))
    except ValueError as error:  # an InputError is one
        raise CorruptFileError(
            f"flywheel.db: retrievals.filter holds {where[:60]!r}, which is no filter ({error}). "
            "Run `rag-flywheel verify`, and restore the database from a backup"
        ) from error
    return columns.matching(conn, plain)


def _stacked(
    past: Past,
    keys: Sequence[QueryKey],
    rows: Sequence[tuple[Pids, Features]],
    version: LoadedVersion,
    *,
    given: Sequence[bool],
) -> Examples:
    """Examples of these rows of (lineages, features); given: whether each row's features are those of
    GIVEN, and not FEATURES followed by MEASURES."""
    n = len(keys)
    lineages = np.full((n, POOL), -1, dtype=np.int64)
    d = len(FEATURES) + len(GIVEN) if any(given) else len(FEATURES)
    features = np.zeros((n, POOL, d), dtype=np.float32)
    measures = np.full((n, POOL, len(MEASURES)), np.nan, dtype=np.float32)
    for i, (found, values) in enumerate(rows):
        lineages[i, : len(found)] = found
        if given[i]:
            features[i, : len(found), len(FEATURES) :] = values
        else:
            features[i, : len(found), : len(FEATURES)] = values[:, : len(FEATURES)]
            measures[i, : len(found)] = values[:, len(FEATURES) :]
    vectors = [past.vectors[key.query_hash] for key in keys]
    numbers: dict[str | None, int] = {}
    tenants = [numbers.setdefault(key.tenant, len(numbers)) for key in keys]
    none = np.zeros((n, POOL))
    without = Examples(
        keys,
        np.stack(vectors) if n else np.empty((0, version.engine.dim), dtype=np.float32),
        lineages,
        features,
        none,
        none,
        np.array(tenants, dtype=np.int64),
        given=np.array(given, dtype=np.bool_) if any(given) else None,
        measures=measures,
        trust=version.parameters.trust,
    )
    return _with_votes(without, past)


def judged_again(examples: Examples, past: Past) -> Examples:
    """The same examples with the votes as `past` judges them, without those that have none left."""
    found = _with_votes(examples, past)
    rows = np.flatnonzero(found.voted.any(axis=1))
    if len(rows) < len(found):
        return found.at(rows)
    found.__dict__["near"] = examples.near  # which are costly to find, and the same
    return found


def _with_votes(examples: Examples, past: Past) -> Examples:
    """The same candidates with the votes of `past` on them."""
    shape = examples.lineages.shape
    helpful, harmful, chosen = (np.zeros(shape) for _ in range(3))
    n_named = np.zeros(len(examples))
    for i, key in enumerate(examples.keys):
        judged = past.judged.get(key, ())
        place = {p: at for at, p in enumerate(examples.lineages[i].tolist())} if judged else {}
        for judgment in judged:
            at = place.get(judgment.lineage)
            if at is not None:
                helpful[i, at], harmful[i, at] = judgment.helpful, judgment.harmful
                chosen[i, at] = judgment.chosen
                n_named[i] += judgment.named / CORRECTION_WEIGHT
    return replace(
        examples,
        helpful=helpful,
        harmful=harmful,
        chosen=chosen if chosen.any() else None,
        n_named=n_named if n_named.any() else None,
    )


def fit_to_judge(
    items: Sequence[GoldenItem], vectors: Mapping[bytes, Vectors], others: Vectors
) -> list[GoldenItem]:
    """The golden queries that are no near-duplicates of those that parameters were fitted to.

    Golden queries from corrections are left out: a single user must not decide for all. others:
    float32 (m, dim); vectors: of the golden queries, by hash.
    """
    new = [item for item in items if "correction" not in item.sources]
    if not new or not len(others):
        return new
    rows = np.stack([vectors[item.query_hash] for item in new])
    closest = nearest_rows(rows, others, 1).cosines[:, 0]
    least = near_duplicate(others)
    return [item for item, cosine in zip(new, closest, strict=True) if cosine < least]


def _pids_of_tenant(
    columns: MetadataColumns, conn: Connection, key: str | None, tenant: str | None
) -> Pids | None:
    """Pids of the texts of a tenant; None: all texts."""
    if key is None or tenant is None:
        return None
    return columns.matching(conn, {key: column_checks.parsed("golden.tenant", tenant)})
