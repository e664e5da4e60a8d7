"""Reads the past queries that got votes, with their judgments, filters, texts and vectors."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag_flywheel.curate.judgments import NO_WEIGHTS
from rag_flywheel.curate.source import Source
from rag_flywheel.encoder import TextEncoder
from rag_flywheel.records import Judgment, Progress, QueryKey, Vectors
from rag_flywheel.store import retrievals, votes
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import stored_vectors_of

MOST_PAST_QUERIES = 20_000  # those voted on last


@dataclass(frozen=True)
class Past:
    """Past queries, those voted on last at the end: judgments, metadata filters, texts, vectors.

    every: all judgments, also those on past queries that were left out: for their age, or, n_without_words
    of them, because their words are not stored.
    """

    judged: dict[QueryKey, list[Judgment]]
    filters: dict[QueryKey, str | None]
    texts: dict[bytes, str]
    vectors: dict[bytes, Vectors]
    every: Sequence[Judgment] = ()
    n_without_words: int = 0


def read_past(
    database: Database,
    source: Source,
    *,
    until: int,
    weights: Mapping[str, float] = NO_WEIGHTS,
) -> Past:
    """The past queries that got votes up to event number `until`; vectors as `source` has them.

    weights: of users, by their hashes, as for `judgments`.
    """
    judged: dict[QueryKey, list[Judgment]] = defaultdict(list)
    with database.snapshot() as conn:
        every = source.judge(votes.votes_until(conn, until), weights)
        for judgment in every:
            judged[QueryKey(judgment.query, judgment.tenant)].append(judgment)
        texts = retrievals.query_texts(conn, sorted({key.query_hash for key in judged}))
        n_without = sum(not texts[key.query_hash] for key in judged)
        judged = {key: some for key, some in judged.items() if texts[key.query_hash]}
        newest = sorted(judged, key=lambda key: max(v for j in judged[key] for v in j.votes))
        kept = {key: judged[key] for key in newest[-MOST_PAST_QUERIES:]}
        rows = {key: min(j.retrieval for j in js) for key, js in kept.items()}
        where = retrievals.filters_of(conn, sorted(set(rows.values())))
        texts = {key.query_hash: texts[key.query_hash] for key in kept}
    filters = {key: where[row] for key, row in rows.items()}
    vectors = query_vectors(database, source.queries, texts)
    return Past(kept, filters, texts, vectors, every, n_without)


def query_vectors(
    database: Database,
    encoder: TextEncoder,
    texts: Mapping[bytes, str],
    progress: Progress | None = None,
) -> dict[bytes, Vectors]:
    """Vectors of queries by hash; missing ones are encoded and stored, the shortest query first."""
    shortest_first = dict(sorted(texts.items(), key=lambda each: (len(each[1]), each[1])))
    return stored_vectors_of(database, shortest_first, encoder, progress, "encoding past queries")
