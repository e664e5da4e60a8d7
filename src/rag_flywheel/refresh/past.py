"""Reads the past queries that got votes, with their judgments, filters, texts and vectors.

It must not know what is learned from them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rag_flywheel.curate.source import Source
from rag_flywheel.rank.memory import Key
from rag_flywheel.records import Judgment, Progress, Vectors
from rag_flywheel.store import retrievals, votes
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.database import Database

MOST_PAST_QUERIES = 20_000  # those voted on last
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


def read_past(database: Database, source: Source, *, until: int) -> Past:
    """The past queries that got votes up to event number `until`; vectors as `source` has them."""
    judged: dict[Key, list[Judgment]] = defaultdict(list)
    with database.snapshot() as conn:
        every = source.judge(votes.votes_until(conn, until))
        for judgment in every:
            judged[(judgment.query, judgment.tenant)].append(judgment)
        newest = sorted(judged, key=lambda key: max(v for j in judged[key] for v in j.votes))
        kept = {key: judged[key] for key in newest[-MOST_PAST_QUERIES:]}
        rows = {key: min(j.retrieval for j in js) for key, js in kept.items()}
        where = retrievals.filters_of(conn, sorted(set(rows.values())))
        hashes = sorted({key[0] for key in kept})
        texts = retrievals.query_texts(conn, hashes)
    filters = {key: where[row] for key, row in rows.items()}
    return Past(kept, filters, texts, query_vectors(database, source, texts), every)


def query_vectors(
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
