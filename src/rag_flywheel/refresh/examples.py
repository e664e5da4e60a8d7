"""Past queries, and golden ones, as examples: each with its candidates and what is said of them.

It must not know what is learned from examples, nor when.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rag_flywheel.curate.groups import near_duplicate
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.disk import parsed_json
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.evaluate.trial import Golden
from rag_flywheel.improve.examples import Examples
from rag_flywheel.index.dense import nearest_rows
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.memory import Key
from rag_flywheel.rank.posterior import NAMING
from rag_flywheel.rank.score import POOL
from rag_flywheel.records import Features, GoldenItem, Judgment, Pids, Progress, Vectors
from rag_flywheel.serve.candidates import look_up, plain_worth, with_evident
from rag_flywheel.serve.lookups import Lookup, Lookups, Question
from rag_flywheel.serve.scope import Scope, scope
from rag_flywheel.serve.state import State, bare_state
from rag_flywheel.store import column_checks, retrievals, votes
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.database import Database
from rag_flywheel.store.filters import matching_pids

MOST_REMEMBERED = 20_000  # past queries, those voted on last
_AT_ONCE = 256


@dataclass(frozen=True)
class Past:
    """Past queries, those voted on last at the end: judgments, metadata filters, texts, vectors.

    every: the judgments on these and on those before them.
    """

    judged: dict[Key, list[Judgment]]
    filters: dict[Key, str | None]
    texts: dict[bytes, str]
    vectors: dict[bytes, Vectors]
    every: Sequence[Judgment] = ()

    def under(self, vectors: dict[bytes, Vectors]) -> "Past":
        """The same queries with other vectors."""
        return replace(self, vectors=vectors)


@dataclass(frozen=True)
class Known:
    """How queries are looked up: n candidates of each kind, those of `lookups` being known already;
    and which metadata key names their tenant."""

    lookups: Lookups
    n: int
    tenant_key: str | None = None


def past_examples(
    database: Database,
    version: LoadedVersion,
    past: Past,
    known: Known,
    progress: Progress | None = None,
) -> Examples:
    """One example for each past query with a vote on a passage that the version still holds.

    A query's candidates are the texts that pass its own metadata filter.
    """
    with database.snapshot() as conn:
        state = bare_state(version, conn)
        scopes = {
            where: scope(state, None if where is None else _passing(conn, where))
            for where in set(past.filters.values())
        }
    return _examples(state, past, scopes, known, progress)


def _passing(conn: sqlite3.Connection, where: str) -> Pids:
    """Pids of the texts that pass a stored filter. Raises CorruptFileError when it is none."""
    try:
        return matching_pids(conn, parsed_json(where, "it"))
    except ValueError as error:  # an InputError is one
        raise CorruptFileError(
            f"flywheel.db: retrievals.filter holds {where[:60]!r}, which is no filter ({error}). "
            "Run `rag-flywheel verify`, and restore the database from a backup"
        ) from error


def read_past(database: Database, source: Source, *, until: int) -> Past:
    """The past queries that got votes up to event number `until`; vectors as `source` has them."""
    judged: dict[Key, list[Judgment]] = defaultdict(list)
    with database.snapshot() as conn:
        every = source.judge(votes.votes_until(conn, until))
        for judgment in every:
            judged[(judgment.query, judgment.tenant)].append(judgment)
        newest = sorted(judged, key=lambda key: max(v for j in judged[key] for v in j.votes))
        kept = {key: judged[key] for key in newest[-MOST_REMEMBERED:]}
        rows = {key: min(j.retrieval for j in js) for key, js in kept.items()}
        where = retrievals.filters_of(conn, sorted(set(rows.values())))
        hashes = sorted({key[0] for key in kept})
        texts = retrievals.query_texts(conn, hashes)
    filters = {key: where[row] for key, row in rows.items()}
    return Past(kept, filters, texts, kept_vectors(database, source, texts), every)


def kept_vectors(
    database: Database,
    source: Source,
    texts: Mapping[bytes, str],
    progress: Progress | None = None,
) -> dict[bytes, Vectors]:
    """Vectors of queries by hash, as `source` has them; those that are not stored yet are made and
    stored."""
    with database.reading() as conn:
        known = vector_store.known_vectors(conn, sorted(texts), source.of_queries, source.dim)
    missing = sorted((h for h in texts if h not in known), key=lambda h: (len(texts[h]), h))
    for start in range(0, len(missing), _AT_ONCE):
        if progress is not None:
            progress("encoding past queries", start, len(missing))
        part = missing[start : start + _AT_ONCE]
        made = source.encode_queries([texts[h] for h in part])
        with database.transaction(durable=False) as conn:
            vector_store.put_vectors(conn, part, made, source.of_queries)
        known.update(zip(part, made, strict=True))
    return known


def _examples(
    state: State,
    past: Past,
    scopes: dict[str | None, Scope],
    known: Known,
    progress: Progress | None,
) -> Examples:
    """scopes: the texts that pass each metadata filter."""
    found: dict[Key, tuple[Pids, Features]] = {}
    given = list(past.judged)
    for start in range(0, len(given), _AT_ONCE):
        if progress is not None:
            progress("past queries", start, len(given))
        part = given[start : start + _AT_ONCE]
        for where, inside in scopes.items():
            keys = [key for key in part if past.filters[key] == where]
            queries = [Question(past.texts[key[0]], past.vectors[key[0]]) for key in keys]
            lookups = look_up(state, inside, queries, known.n, known.lookups, keep=False)
            for key, query, lookup in zip(keys, queries, lookups, strict=True):
                judged = [j.lineage for j in past.judged[key]]
                row = _candidates(state, inside, query, lookup, judged)
                if np.isin(row[0], judged).any():
                    found[key] = row
    keys = [key for key in given if key in found]
    return _stacked(past, keys, [found[key] for key in keys], state.version.dense.dim)


def _candidates(
    state: State, inside: Scope, query: Question, lookup: Lookup, judged: list[int]
) -> tuple[Pids, Features]:
    """Lineages and features of a past query's best candidates, those with votes among them.

    Which ones are best is for the plain hybrid to say: the same votes always give the same examples.
    """
    pids, features = with_evident(state, inside, query, lookup, judged)
    lineages = state.lineages(pids)
    wanted = np.isin(lineages, judged)
    worth = np.where(wanted, np.inf, plain_worth(features))
    best = np.sort(np.lexsort((pids, -worth))[:POOL])
    return lineages[best], features[best]


def _stacked(past: Past, keys: list[Key], rows: list[tuple[Pids, Features]], dim: int) -> Examples:
    n = len(keys)
    lineages = np.full((n, POOL), -1, dtype=np.int64)
    features = np.zeros((n, POOL, len(FEATURES)), dtype=np.float32)
    net, chosen = np.zeros((n, POOL)), np.zeros((n, POOL))
    n_helpful, n_harmful, n_named = np.zeros(n), np.zeros(n), np.zeros(n)
    for i, (key, (found, values)) in enumerate(zip(keys, rows, strict=True)):
        lineages[i, : len(found)] = found
        features[i, : len(found)] = values
        place = {p: at for at, p in enumerate(found.tolist())}
        for judgment in past.judged.get(key, ()):
            at = place.get(judgment.lineage)
            if at is not None:
                net[i, at] = judgment.helpful - judgment.harmful
                chosen[i, at] = judgment.chosen
                n_helpful[i] += judgment.helpful - judgment.named
                n_harmful[i] += judgment.harmful
                n_named[i] += judgment.named / NAMING
    vectors = [past.vectors[key[0]] for key in keys]
    numbers: dict[str | None, int] = {}
    tenants = [numbers.setdefault(key[1], len(numbers)) for key in keys]
    return Examples(
        keys,
        np.stack(vectors) if n else np.empty((0, dim), dtype=np.float32),
        lineages,
        features,
        net,
        n_helpful,
        n_harmful,
        np.array(tenants, dtype=np.int64),
        chosen if chosen.any() else None,
        n_named if n_named.any() else None,
    )


def golden_of(
    database: Database,
    version: LoadedVersion,
    items: Sequence[GoldenItem],
    vectors: Mapping[bytes, Vectors],
    known: Known,
) -> Golden:
    """Golden queries as examples, with their vectors, by hash."""
    with database.snapshot() as conn:
        state = bare_state(version, conn)
        scopes = {
            tenant: scope(state, matching_pids(conn, _of_tenant(known.tenant_key, tenant)))
            for tenant in {item.tenant for item in items}
        }
    found: dict[Key, tuple[Pids, Features]] = {}
    for tenant, inside in scopes.items():
        some = [item for item in items if item.tenant == tenant]
        queries = [Question(item.query, vectors[item.query_hash]) for item in some]
        lookups = look_up(state, inside, queries, known.n, known.lookups, keep=False)
        for item, query, lookup in zip(some, queries, lookups, strict=True):
            row = _candidates(state, inside, query, lookup, [])
            found[(item.query_hash, tenant)] = row
    past = Past({}, {}, {}, dict(vectors))
    keys = [(item.query_hash, item.tenant) for item in items]
    rows_of = [found[key] for key in keys]
    examples = _stacked(past, keys, rows_of, state.version.dense.dim)
    return Golden(examples, [{p: float(g) for p, g in item.lineages.items()} for item in items])


def fit_to_judge(
    items: Sequence[GoldenItem], vectors: Mapping[bytes, Vectors], others: Vectors
) -> list[GoldenItem]:
    """The golden queries that are no near-duplicates of those that parameters were fitted to.

    Those that rest on a correction are left out: one user's word must not decide for all. others:
    float32 (m, dim); vectors: of the golden queries, by hash.
    """
    new = [item for item in items if "correction" not in item.sources]
    if not new or not len(others):
        return new
    rows = np.stack([vectors[item.query_hash] for item in new])
    closest = nearest_rows(rows, others, 1).cosines[:, 0]
    least = near_duplicate(others)
    return [item for item, cosine in zip(new, closest, strict=True) if cosine < least]


def _of_tenant(key: str | None, tenant: str | None) -> dict[str, object]:
    return (
        {}
        if key is None or tenant is None
        else {key: column_checks.parsed("golden.tenant", tenant)}
    )
