"""Everything said of a passage as the answer of a question, brought together by query group."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rag_flywheel.curate.judgments import standing_votes
from rag_flywheel.records import QueryKey
from rag_flywheel.store.event_types import ONE_TIME, Correction, Decision, ImportedAnswer, VoteEvent

Topic = tuple[int, int]
"""A query group, which is of one tenant, and the lineage of a passage text."""
_Event = VoteEvent | Correction | ImportedAnswer | Decision
E = TypeVar("E", VoteEvent, Correction, ImportedAnswer, Decision)


@dataclass(frozen=True)
class Statements:
    """Events of each kind, in the order of their numbers."""

    votes: Sequence[VoteEvent] = ()
    corrections: Sequence[Correction] = ()
    imported: Sequence[ImportedAnswer] = ()
    decisions: Sequence[Decision] = ()

    def events(self) -> Iterable[_Event]:
        """Those of every kind."""
        for kind in (self.votes, self.corrections, self.imported, self.decisions):
            yield from kind


@dataclass(frozen=True)
class Opinion:
    """What is said of one passage text for one query group, and stands.

    question: the one of the group that it was first said of, which does not change as more is
    said. helpful, harmful: the last vote of each user who has an id. grades: the last imported one of
    each query. decision: the last of a reviewer. n_old_harmful: votes that were made anonymous
    since, which may be one person's.
    """

    question: QueryKey
    began: int
    helpful: Mapping[str, VoteEvent] = field(default_factory=dict)
    harmful: Mapping[str, VoteEvent] = field(default_factory=dict)
    corrections: Sequence[Correction] = ()
    grades: Mapping[bytes, int] = field(default_factory=dict)
    decision: Decision | None = None
    n_old_harmful: int = 0


def opinions(said: Statements, groups: Mapping[QueryKey, int]) -> dict[Topic, Opinion]:
    """What stands of each topic that anything was ever said of; questions of no group are left out."""
    began: dict[Topic, _Event] = {}
    for event in said.events():
        if question_of(event) in groups:
            topic = _topic(event, groups)
            began[topic] = min(began.get(topic, event), event, key=lambda e: e.seq)
    votes = _by_topic(standing_votes(v for v in said.votes if v.user_id is not None), groups)
    corrections = _by_topic(standing_corrections(said.corrections), groups)
    imported = _by_topic(said.imported, groups)
    decisions = _by_topic(standing_decisions(said.decisions), groups)
    found = {}
    for topic, first in began.items():
        last = {str(v.user_id): v for v in votes[topic]}
        found[topic] = Opinion(
            question_of(first),
            first.seq,
            {u: v for u, v in last.items() if v.verdict == "helpful" and not _is_one_time(u)},
            {u: v for u, v in last.items() if v.verdict == "harmful" and not _is_one_time(u)},
            corrections[topic],
            {a.query: a.grade for a in imported[topic]},
            decisions[topic][-1] if decisions[topic] else None,
            sum(v.verdict == "harmful" and _is_one_time(u) for u, v in last.items()),
        )
    return found


def standing_corrections(corrections: Iterable[Correction]) -> list[Correction]:
    """The last correction of each user on each retrieval; those without a user id do not count."""
    last = {(c.retrieval, c.user_id): c for c in corrections if c.user_id is not None}
    return sorted(last.values(), key=lambda c: c.seq)


def standing_decisions(decisions: Iterable[Decision]) -> list[Decision]:
    """The last decision on each (query, passage text) that was not undone, by event number."""
    made: dict[tuple[QueryKey, int], list[Decision]] = defaultdict(list)
    for decision in decisions:
        on = made[(question_of(decision), decision.lineage)]
        if decision.kind != "undo":
            on.append(decision)
        elif on:
            on.pop()
    return sorted((on[-1] for on in made.values() if on), key=lambda d: d.seq)


def _is_one_time(user_id: str) -> bool:
    """Whether it was made up for one event: three such may be one person."""
    return user_id.startswith(ONE_TIME)


def question_of(event: _Event) -> QueryKey:
    """What it was said of."""
    return QueryKey(event.query, event.tenant)


def item_id(question: QueryKey, lineage: int) -> str:
    """Ten characters that name a passage text as the answer of a question."""
    query, tenant = question
    name = b"%s\n%d\n%s" % (query.hex().encode(), lineage, (tenant or "").encode())
    return hashlib.blake2b(name, digest_size=5).hexdigest()


def _topic(event: _Event, groups: Mapping[QueryKey, int]) -> Topic:
    return groups[question_of(event)], event.lineage


def _by_topic(events: Iterable[E], groups: Mapping[QueryKey, int]) -> dict[Topic, list[E]]:
    found: dict[Topic, list[E]] = defaultdict(list)
    for event in events:
        if question_of(event) in groups:
            found[_topic(event, groups)].append(event)
    return found
