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
from rag_flywheel.store.embedding import shortest_first, stored_vectors_of
from rag_flywheel.store.event_types import VoteEvent

MOST_PAST_QUERIES = 20_000  # those voted on last


@dataclass(frozen=True)
class Past:
    """Past queries, those voted on last at the end: judgments, metadata filters, texts, vectors.

    every: all judgments, also those on past queries that were left out: for their age, or, n_without_words
    of them, because their words are not stored. votes: what was judged.
    """

    judged: dict[QueryKey, list[Judgment]]
    filters: dict[QueryKey, str | None]
    texts: dict[bytes, str]
    vectors: dict[bytes, Vectors]
    every: Sequence[Judgment] = ()
    n_without_words: int = 0
    votes: Sequence[VoteEvent] = ()


def read_past(
    database: Database,
    source: Source,
    *,
    until: int,
    weights: Mapping[str, float] = NO_WEIGHTS,
    again: Past | None = None,
) -> Past:
    """The past queries that got votes up to event number `until`; vectors as `source` has them.

    weights: of users, by their hashes, as for `judgments`. again: what was read before of the same votes,
    which are judged again; None: they are read here.
    """
    before = again or Past({}, {}, {}, {})
    judged: dict[QueryKey, list[Judgment]] = defaultdict(list)
    with database.snapshot() as conn:
        cast = list(votes.votes_until(conn, until)) if again is None else again.votes
        every = source.judge(cast, weights)
        for judgment in every:
            judged[QueryKey(judgment.query, judgment.tenant)].append(judgment)
        texts = dict(before.texts)
        unread = sorted({key.query_hash for key in judged} - texts.keys())
        texts.update(retrievals.query_texts(conn, unread))
        n_without = sum(not texts[key.query_hash] for key in judged)
        judged = {key: some for key, some in judged.items() if texts[key.query_hash]}
        newest = sorted(judged, key=lambda key: max(v for j in judged[key] for v in j.votes))
        kept = {key: judged[key] for key in newest[-MOST_PAST_QUERIES:]}
        rows = {key: min(j.retrieval for j in js) for key, js in kept.items()}
        where = retrievals.filters_of(conn, sorted(set(rows.values())))
        texts = {key.query_hash: texts[key.query_hash] for key in kept}
    filters = {key: where[row] for key, row in rows.items()}
    vectors = {name: before.vectors[name] for name in texts if name in before.vectors}
    unknown = {name: text for name, text in texts.items() if name not in vectors}
    vectors |= query_vectors(database, source.queries, unknown)
    return Past(kept, filters, texts, vectors, every, n_without, cast)


def query_vectors(
    database: Database,
    encoder: TextEncoder,
    texts: Mapping[bytes, str],
    progress: Progress | None = None,
) -> dict[bytes, Vectors]:
    """Vectors of queries by hash; missing ones are encoded and stored, the shortest query first."""
    in_order = shortest_first(texts)
    return stored_vectors_of(database, in_order, encoder, progress, "encoding past queries")
