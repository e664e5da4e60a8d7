"""Collects all events on a passage as the answer of a question, by query group."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from rag_flywheel.curate.judgments import standing_votes
from rag_flywheel.records import QueryKey
from rag_flywheel.store.event_types import ONE_TIME, Correction, Decision, ImportedAnswer, VoteEvent

Topic = tuple[int, int]
"""A query group, which is of one tenant, and the lineage of a passage text."""
_Event = VoteEvent | Correction | ImportedAnswer | Decision
E = TypeVar("E", bound=_Event)


@dataclass(frozen=True)
class Statements:
    """Events of each kind, in the order of their numbers."""

    votes: Sequence[VoteEvent] = ()
    corrections: Sequence[Correction] = ()
    imported: Sequence[ImportedAnswer] = ()
    decisions: Sequence[Decision] = ()

    def events(self) -> Iterable[_Event]:
        """The events of every kind."""
        return chain(self.votes, self.corrections, self.imported, self.decisions)


@dataclass(frozen=True)
class Opinion:
    """The standing events on one passage text for one query group.

    question: the question of the first event, which later events do not change.
    began: the number of the first event.
    helpful, harmful: the last vote of each user who has an id.
    grades: the last imported grade for each query.
    pins: the last pin for each query, unless it was taken back.
    decision: the last one of a reviewer.
    n_old_harmful: harmful votes that were made anonymous, which may all be of one person.
    """

    question: QueryKey
    began: int
    helpful: Mapping[str, VoteEvent] = field(default_factory=dict)
    harmful: Mapping[str, VoteEvent] = field(default_factory=dict)
    corrections: Sequence[Correction] = ()
    grades: Mapping[bytes, int] = field(default_factory=dict)
    decision: Decision | None = None
    n_old_harmful: int = 0
    pins: Mapping[bytes, ImportedAnswer] = field(default_factory=dict)


def opinions(statements: Statements, groups: Mapping[QueryKey, int]) -> dict[Topic, Opinion]:
    """The opinion on each topic that has an event; questions of no group are left out."""
    by_users = (v for v in statements.votes if v.user_id is not None and v.kind != "judge")
    votes = _by_topic(standing_votes(by_users), groups)
    corrections = _by_topic(standing_corrections(statements.corrections), groups)
    imported = _by_topic(statements.imported, groups)
    decisions = _by_topic(standing_decisions(statements.decisions), groups)
    every = {}
    for topic, events in _by_topic(statements.events(), groups).items():
        first = min(events, key=lambda event: event.seq)
        last = {str(v.user_id): v for v in votes[topic]}
        # ids made up for one event do not count as users: three of them may be one person
        users = {u: v for u, v in last.items() if not u.startswith(ONE_TIME)}
        n_harmful = sum(v.verdict == "harmful" for v in last.values())
        harmful = {u: v for u, v in users.items() if v.verdict == "harmful"}
        every[topic] = Opinion(
            question_of(first),
            first.seq,
            {u: v for u, v in users.items() if v.verdict == "helpful"},
            harmful,
            corrections[topic],
            {a.query: a.grade for a in imported[topic] if a.source == "imported"},
            decisions[topic][-1] if decisions[topic] else None,
            n_harmful - len(harmful),
            standing_pins(imported[topic]),
        )
    return every


def standing_corrections(corrections: Iterable[Correction]) -> list[Correction]:
    """The last correction of each user on each retrieval; those without a user id do not count."""
    last = {(c.retrieval, c.user_id): c for c in corrections if c.user_id is not None}
    return sorted(last.values(), key=lambda c: c.seq)


def standing_pins(answers: Iterable[ImportedAnswer]) -> dict[bytes, ImportedAnswer]:
    """The last pin for each query that was not taken back; the answers are on one passage text."""
    last = {a.query: a for a in answers if a.source == "pinned"}
    return {query: pin for query, pin in last.items() if pin.grade > 0}


def standing_decisions(decisions: Iterable[Decision]) -> list[Decision]:
    """The last decision on each (query, passage text) that was not undone, by event number."""
    decided: dict[tuple[QueryKey, int], list[Decision]] = defaultdict(list)
    for decision in decisions:
        on = decided[(question_of(decision), decision.lineage)]
        if decision.kind != "undo":
            on.append(decision)
        elif on:
            on.pop()
    return sorted((on[-1] for on in decided.values() if on), key=lambda d: d.seq)


def question_of(event: _Event) -> QueryKey:
    """The question that an event is on."""
    return QueryKey(event.query, event.tenant)


def item_id(question: QueryKey, lineage: int) -> str:
    """Ten characters that name a passage text as the answer of a question."""
    query, tenant = question
    name = b"%s\n%d\n%s" % (query.hex().encode(), lineage, (tenant or "").encode())
    return hashlib.blake2b(name, digest_size=5).hexdigest()


def _by_topic(events: Iterable[E], groups: Mapping[QueryKey, int]) -> dict[Topic, list[E]]:
    by_topic: dict[Topic, list[E]] = defaultdict(list)
    for event in events:
        group = groups.get(question_of(event))
        if group is not None:
            by_topic[group, event.lineage].append(event)
    return by_topic
