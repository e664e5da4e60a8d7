"""Holds the rules for which answers are known, and which a person has to decide."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from rag_flywheel.curate.opinions import Opinion, Topic
from rag_flywheel.errors import counted
from rag_flywheel.store.event_types import Decision

AGREE = 3  # users who say helpful make an answer known ...
HARMFUL_AT_MOST = 5  # ... when fewer than one in so many says harmful
DISAGREE = 2  # users on a side; a single one may be a slip


@dataclass(frozen=True)
class KnownAnswer:
    """The grade of a passage text for a query group, its sources, and the queries they are on."""

    grade: int
    sources: frozenset[str]
    queries: frozenset[bytes]


def contradicted(topics: Mapping[Topic, Opinion]) -> set[Topic]:
    """Topics whose corrections compete with another's in the group; rejected ones do not compete."""
    named: dict[int, list[Topic]] = defaultdict(list)
    for topic, opinion in topics.items():
        if opinion.corrections and not _decided(opinion, "reject"):
            named[topic[0]].append(topic)
    return {topic for some in named.values() if len(some) > 1 for topic in some}


def known_answer(opinion: Opinion, *, contradicted: bool) -> KnownAnswer | None:
    """The known answer that an opinion amounts to; None when nothing is known.

    A rejection outweighs everything before it, and all but a pin after it.
    """
    if opinion.decision is not None and _decided(opinion, "reject"):
        pins = {q: pin for q, pin in opinion.pins.items() if pin.seq > opinion.decision.seq}
        grade = max((pin.grade for pin in pins.values()), default=0)
        return KnownAnswer(grade, frozenset({"pinned"}), frozenset(pins)) if pins else None
    accepted = _decided(opinion, "accept")
    grades = [*opinion.grades.values(), *(pin.grade for pin in opinion.pins.values())]
    best = max(grades, default=None)
    if best == 0 and not accepted:
        return KnownAnswer(0, frozenset({"imported"}), frozenset())
    queries_of = {
        "imported": {query for query, grade in opinion.grades.items() if grade},
        "pinned": set(opinion.pins),
        "correction": {c.query for c in opinion.corrections if not contradicted},
        "agreement": {v.query for v in opinion.helpful.values() if agreed(opinion)},
        "review": {opinion.decision.query} if opinion.decision and accepted else set(),
    }
    queries = frozenset().union(*queries_of.values())
    if not queries:
        return None
    sources = frozenset(name for name, some in queries_of.items() if some)
    return KnownAnswer(best or 1, sources, queries)


def agreed(opinion: Opinion) -> bool:
    """Whether enough users call the passage helpful, and hardly any harmful."""
    helpful, harmful = len(opinion.helpful), len(opinion.harmful) + opinion.n_old_harmful
    return helpful >= AGREE and HARMFUL_AT_MOST * harmful < helpful + harmful


def why_review(opinion: Opinion, answer: KnownAnswer | None, *, contradicted: bool) -> str:
    """The reason why a person has to decide, as a sentence; "" when nobody has to."""
    helpful, harmful = len(opinion.helpful), len(opinion.harmful)
    if opinion.decision is not None:
        n = _n_against(opinion, opinion.decision)
        done = f"{opinion.decision.kind}ed in review"
        return f"{done}, but {counted(n, 'user')} said otherwise since" if n >= DISAGREE else ""
    reasons = []
    if helpful >= DISAGREE and harmful >= DISAGREE:
        reasons.append(f"{counted(helpful, 'user')} said helpful and {harmful} harmful")
    elif answer is not None and answer.grade and harmful >= DISAGREE:
        names = ", ".join(sorted(answer.sources))
        reasons.append(f"known as an answer ({names}), but {counted(harmful, 'user')} said harmful")
    if contradicted:
        reasons.append("users named different passages as the answer")
    if answer is not None and not answer.grade and (agreed(opinion) or opinion.corrections):
        reasons.append("imported as no answer, but users say that it is one")
    return "; ".join(reasons)


def _decided(opinion: Opinion, kind: str) -> bool:
    return opinion.decision is not None and opinion.decision.kind == kind


def _n_against(opinion: Opinion, decision: Decision) -> int:
    """The number of users whose votes or corrections since the decision contradict it."""
    if decision.kind == "accept":
        return sum(v.seq > decision.seq for v in opinion.harmful.values())
    voted = [(user, v.seq) for user, v in opinion.helpful.items()]
    named = [(c.user_id, c.seq) for c in opinion.corrections if c.user_id is not None]
    return len({user for user, seq in voted + named if seq > decision.seq})
