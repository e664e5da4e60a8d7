"""The golden set: queries whose answers are known, merged over near-duplicates.

It reads events and asks the rules; it must not know where imported answers come from, nor what is
measured on the items.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rag_flywheel.curate.groups import query_groups
from rag_flywheel.curate.known import KnownAnswer, contradicted, known
from rag_flywheel.curate.opinions import Opinion, Statements, Topic, opinions, question_of
from rag_flywheel.curate.source import Source
from rag_flywheel.records import GoldenItem, QueryKey, Vectors
from rag_flywheel.store import column_checks, golden, passages, votes
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import stored_vectors_of
from rag_flywheel.store.passages import StoredPassage

MOST_VOTED = 20_000  # past queries with votes that are looked at, those voted on last


@dataclass(frozen=True)
class Opinions:
    """What is said of the texts in the index now, by topic; texts and vectors by query hash.

    heirs: {lineage: the text of the index that it stands for}; disputed: see `contradicted`.
    """

    topics: Mapping[Topic, Opinion]
    disputed: set[Topic]
    texts: Mapping[bytes, str]
    vectors: Mapping[bytes, Vectors]
    heirs: Mapping[int, StoredPassage]

    def known(self, topic: Topic) -> KnownAnswer | None:
        """What is known of a topic."""
        return known(self.topics[topic], contradicted=topic in self.disputed)


@dataclass(frozen=True)
class _Merged:
    """{lineage: grade} of queries that count as one, and who says so."""

    grades: Mapping[int, int]
    sources: frozenset[str]


def golden_items(
    database: Database, source: Source, *, until: int | None = None
) -> list[GoldenItem]:
    """The queries with known answers that are in the index now, by query hash and tenant.

    All is read in one snapshot; queries that have no vector yet get one, which is stored. until: of
    events up to this number; None: of all. The caller must not be in a transaction on `database`.
    """
    found = read_opinions(database, source, until=until)
    answers: dict[int, dict[int, KnownAnswer]] = defaultdict(dict)
    tenants: dict[int, str | None] = {}
    for topic, opinion in found.topics.items():
        if (answer := found.known(topic)) is not None:
            group, lineage = topic
            answers[group][lineage] = answer
            tenants[group] = opinion.question.tenant
    items: dict[QueryKey, _Merged] = {}
    for group, by_lineage in answers.items():
        queries = frozenset[bytes]().union(*(a.queries for a in by_lineage.values()))
        if queries:
            items[QueryKey(min(queries), tenants[group])] = _Merged(
                {lineage: a.grade for lineage, a in by_lineage.items()},
                frozenset[str]().union(*(a.sources for a in by_lineage.values() if a.grade)),
            )
    items = _merged(items, found.vectors)
    return [
        _item(found, q, items[q])
        for q in sorted(items, key=lambda q: (q.query_hash, q.tenant or ""))
    ]


def read_opinions(database: Database, source: Source, *, until: int | None = None) -> Opinions:
    """Everything said of the texts in the index now, in one snapshot; arguments as `golden_items`."""
    with database.snapshot() as conn:
        last = passages.read_clock(conn) if until is None else until
        said = Statements(
            [v for v in votes.votes_until(conn, last) if v.kind == "vote"],
            golden.corrections_until(conn, last),
            golden.answers_until(conn, last),
            golden.decisions_until(conn, last),
        )
        questions = _questions(said)
        hashes = sorted({query for query, _ in questions})
        texts = column_checks.complete("query_hash", golden.query_texts(conn, hashes), hashes)
        heirs = passages.present_heirs(conn, sorted({e.lineage for e in said.events()}))
    vectors = stored_vectors_of(database, {h: texts[h] for h in hashes}, source.queries)
    every = opinions(said, _groups(questions, vectors))
    topics = {topic: opinion for topic, opinion in every.items() if topic[1] in heirs}
    return Opinions(topics, contradicted(topics), texts, vectors, heirs)


def _questions(said: Statements) -> set[QueryKey]:
    """Every question that anything was said of, of those with votes alone the ones voted on last."""
    voted = dict.fromkeys(question_of(v) for v in reversed(said.votes))
    rest = Statements(
        corrections=said.corrections, imported=said.imported, decisions=said.decisions
    )
    return {*list(voted)[:MOST_VOTED], *map(question_of, rest.events())}


def _groups(questions: Iterable[QueryKey], vectors: Mapping[bytes, Vectors]) -> dict[QueryKey, int]:
    """The number of each question's group: near-duplicates under one tenant."""
    by_tenant: dict[str | None, list[QueryKey]] = defaultdict(list)
    for question in sorted(questions, key=lambda q: q.query_hash):
        by_tenant[question.tenant].append(question)
    found: dict[QueryKey, int] = {}
    for some in by_tenant.values():
        groups = query_groups(np.stack([vectors[q.query_hash] for q in some]))
        _, numbers = np.unique(groups, return_inverse=True)
        first = max(found.values(), default=-1) + 1
        found.update(zip(some, (first + numbers).tolist(), strict=True))
    return found


def _merged(
    items: Mapping[QueryKey, _Merged], vectors: Mapping[bytes, Vectors]
) -> dict[QueryKey, _Merged]:
    """Items merged over near-duplicates until none are left.

    What a near-duplicate is hangs on the queries there are: without further merging, the items
    alone, exported and imported, could be fewer.
    """
    while True:
        members: dict[int, list[QueryKey]] = defaultdict(list)
        for question, group in _groups(items, vectors).items():
            members[group].append(question)
        merged = {
            min(some, key=lambda q: q.query_hash): _union([items[q] for q in some])
            for some in members.values()
        }
        if len(merged) == len(items):
            return merged
        items = merged


def _union(some: Sequence[_Merged]) -> _Merged:
    grades: dict[int, int] = {}
    for item in some:
        for lineage, grade in item.grades.items():
            grades[lineage] = max(grade, grades.get(lineage, 0))
    return _Merged(grades, frozenset[str]().union(*(item.sources for item in some)))


def _item(found: Opinions, question: QueryKey, merged: _Merged) -> GoldenItem:
    query, tenant = question
    ids = {lineage: found.heirs[lineage].passage.id for lineage in merged.grades}
    order = sorted(merged.grades, key=lambda lineage: ids[lineage])
    return GoldenItem(
        query=found.texts[query],
        query_hash=query,
        tenant=tenant,
        answers={ids[lineage]: merged.grades[lineage] for lineage in order},
        lineages={lineage: merged.grades[lineage] for lineage in order},
        sources=tuple(sorted(merged.sources)),
    )
