"""Builds the golden set: queries whose answers are known, merged over near-duplicates.

It reads events and applies the rules; it must not know where imported answers come from, nor what
is measured on the items.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rag_flywheel.curate.groups import query_groups
from rag_flywheel.curate.known import KnownAnswer, contradicted, known_answer
from rag_flywheel.curate.opinions import Opinion, Statements, Topic, opinions, question_of
from rag_flywheel.curate.source import Source
from rag_flywheel.records import ALL_TENANTS, GoldenItem, QueryKey, TenantScope, Vectors
from rag_flywheel.store import column_checks, golden, passages, votes
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import stored_vectors_of
from rag_flywheel.store.passages import StoredPassage
from rag_flywheel.store.tenants import shows

MOST_VOTED = 20_000  # past queries with votes that are used: those voted on last


@dataclass(frozen=True)
class Opinions:
    """The opinions on the texts in the index now, by topic.

    disputed: the topics that `contradicted` returns.
    texts, digests, vectors: of the queries, by their hash; they are sorted by digest, as in every index.
    heirs: the text of the index that inherits the votes of each lineage.
    """

    topics: Mapping[Topic, Opinion]
    disputed: set[Topic]
    texts: Mapping[bytes, str]
    digests: Mapping[bytes, bytes]
    vectors: Mapping[bytes, Vectors]
    heirs: Mapping[int, StoredPassage]

    def known_answer(self, topic: Topic) -> KnownAnswer | None:
        """The known answer of a topic; None when its text is not known to be one."""
        return known_answer(self.topics[topic], contradicted=topic in self.disputed)


@dataclass(frozen=True)
class _Merged:
    """The grades, by lineage, of queries that count as one, and the sources of the answers."""

    grades: Mapping[int, int]
    sources: frozenset[str]


def golden_items(
    database: Database,
    source: Source,
    *,
    until: int | None = None,
    scope: TenantScope = ALL_TENANTS,
    by_users: bool = True,
) -> list[GoldenItem]:
    """The queries with known answers that are in the index now, by query hash and tenant.

    All is read in one snapshot; queries that have no vector yet get one, which is stored. The
    caller must not be in a transaction on `database`.
    until: the number of the last event that is used; None uses all. scope: whose queries and passages.
    by_users: False leaves out what users said: imported, pinned and reviewed answers stay.
    """
    present = read_opinions(database, source, until=until, scope=scope, by_users=by_users)
    answers: dict[int, dict[int, KnownAnswer]] = defaultdict(dict)
    tenants: dict[int, str | None] = {}
    for topic, opinion in present.topics.items():
        if (answer := present.known_answer(topic)) is not None:
            group, lineage = topic
            answers[group][lineage] = answer
            tenants[group] = opinion.question.tenant
    items: dict[QueryKey, _Merged] = {}
    for group, by_lineage in answers.items():
        queries = frozenset[bytes]().union(*(a.queries for a in by_lineage.values()))
        if queries:
            first = min(queries, key=present.digests.__getitem__)
            items[QueryKey(first, tenants[group])] = _Merged(
                {lineage: a.grade for lineage, a in by_lineage.items()},
                frozenset[str]().union(*(a.sources for a in by_lineage.values() if a.grade)),
            )
    items = _merged(items, present)
    order = sorted(items, key=lambda q: (present.digests[q.query_hash], q.tenant or ""))
    return [_item(present, question, items[question]) for question in order]


def read_opinions(
    database: Database,
    source: Source,
    *,
    until: int | None = None,
    scope: TenantScope = ALL_TENANTS,
    by_users: bool = True,
) -> Opinions:
    """The opinions on the texts in the index now, from one snapshot; arguments as `golden_items`."""
    with database.snapshot() as conn:
        last = passages.read_clock(conn) if until is None else until
        statements = Statements(
            [
                v
                for v in votes.votes_until(conn, last)
                if by_users and v.kind == "vote" and scope.holds(v.tenant)
            ],
            [c for c in golden.corrections_until(conn, last) if by_users and scope.holds(c.tenant)],
            [a for a in golden.answers_until(conn, last) if scope.holds(a.tenant)],
            [d for d in golden.decisions_until(conn, last) if scope.holds(d.tenant)],
        )
        every_one = _questions(statements)
        hashes = sorted({query for query, _ in every_one})
        found = golden.query_texts(conn, hashes, scope)
        texts = {h: text for h, text in found.items() if text}
        column_checks.complete("query_hash", found, hashes)
        questions = {q for q in every_one if q.query_hash in texts}  # nobody can judge the others
        heirs = passages.present_heirs(conn, sorted({e.lineage for e in statements.events()}))
        heirs = {lineage: s for lineage, s in heirs.items() if shows(scope, s.passage)}
    vectors = stored_vectors_of(database, texts, source.queries)
    digests = {query: passages.query_digest(text) for query, text in texts.items()}
    every = opinions(statements, _groups(questions, digests, vectors))
    topics = {topic: opinion for topic, opinion in every.items() if topic[1] in heirs}
    return Opinions(topics, contradicted(topics), texts, digests, vectors, heirs)


def _questions(statements: Statements) -> set[QueryKey]:
    """Every question of an event; of those with votes alone, the ones voted on last."""
    voted = dict.fromkeys(question_of(v) for v in reversed(statements.votes))
    rest = replace(statements, votes=())
    return {*list(voted)[:MOST_VOTED], *map(question_of, rest.events())}


def _groups(
    questions: Iterable[QueryKey], digests: Mapping[bytes, bytes], vectors: Mapping[bytes, Vectors]
) -> dict[QueryKey, int]:
    """The number of each question's group: near-duplicates under one tenant."""
    by_tenant: dict[str | None, list[QueryKey]] = defaultdict(list)
    for question in sorted(questions, key=lambda q: digests[q.query_hash]):
        by_tenant[question.tenant].append(question)
    numbers_of: dict[QueryKey, int] = {}
    for some in by_tenant.values():
        groups = query_groups(np.stack([vectors[q.query_hash] for q in some]))
        _, numbers = np.unique(groups, return_inverse=True)
        first = max(numbers_of.values(), default=-1) + 1
        numbers_of.update(zip(some, (first + numbers).tolist(), strict=True))
    return numbers_of


def _merged(items: Mapping[QueryKey, _Merged], present: Opinions) -> dict[QueryKey, _Merged]:
    """Items merged over near-duplicates until none are left.

    Which queries are near-duplicates depends on the queries there are: if merging stopped early,
    the exported items could be fewer when they are imported.
    """
    while True:
        members: dict[int, list[QueryKey]] = defaultdict(list)
        for question, group in _groups(items, present.digests, present.vectors).items():
            members[group].append(question)
        merged = {
            min(some, key=lambda q: present.digests[q.query_hash]): _union([items[q] for q in some])
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


def _item(present: Opinions, question: QueryKey, merged: _Merged) -> GoldenItem:
    query, tenant = question
    ids = {lineage: present.heirs[lineage].passage.id for lineage in merged.grades}
    order = sorted(merged.grades, key=lambda lineage: ids[lineage])
    return GoldenItem(
        query=present.texts[query],
        query_hash=query,
        digest=present.digests[query],
        tenant=tenant,
        answers={ids[lineage]: merged.grades[lineage] for lineage in order},
        lineages={lineage: merged.grades[lineage] for lineage in order},
        sources=tuple(sorted(merged.sources)),
    )
