"""Which answers are known, and which a person has to decide: the rules and their numbers."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from rag_flywheel.curate.opinions import Opinion, Topic

AGREE = 3  # users who say helpful make an answer known ...
HARMFUL_AT_MOST = 5  # ... when fewer than one in so many says harmful
DISAGREE = 2  # users on a side, below which it is one person's slip


@dataclass(frozen=True)
class KnownAnswer:
    """The grade of a passage text for a query group, who says so, and the queries it was said of."""

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


def known(opinion: Opinion, *, contradicted: bool) -> KnownAnswer | None:
    """What is known of the passage as an answer; None: nothing."""
    if _decided(opinion, "reject"):
        return None
    accepted = _decided(opinion, "accept")
    best = max(opinion.grades.values(), default=None)
    if best == 0 and not accepted:
        return KnownAnswer(0, frozenset({"imported"}), frozenset())
    said = {
        "imported": {query for query, grade in opinion.grades.items() if grade},
        "correction": {c.query for c in opinion.corrections if not contradicted},
        "agreement": {v.query for v in opinion.helpful.values() if agreed(opinion)},
        "review": {opinion.decision.query} if opinion.decision and accepted else set(),
    }
    queries = frozenset().union(*said.values())
    if not queries:
        return None
    return KnownAnswer(best or 1, frozenset(name for name, some in said.items() if some), queries)


def agreed(opinion: Opinion) -> bool:
    """Whether enough users call the passage helpful, and hardly any harmful."""
    helpful, harmful = len(opinion.helpful), len(opinion.harmful) + opinion.n_old_harmful
    return helpful >= AGREE and HARMFUL_AT_MOST * harmful < helpful + harmful


def why_review(opinion: Opinion, found: KnownAnswer | None, *, contradicted: bool) -> str:
    """Why a person has to decide, as a sentence; "": nobody has to."""
    helpful, harmful = len(opinion.helpful), len(opinion.harmful)
    if opinion.decision is not None:
        n = _against(opinion)
        done = f"{opinion.decision.kind}ed in review"
        return f"{done}, but {n} users said otherwise since" if n >= DISAGREE else ""
    reasons = []
    if helpful >= DISAGREE and harmful >= DISAGREE:
        reasons.append(f"{helpful} users said helpful and {harmful} harmful")
    elif found is not None and found.grade and harmful >= DISAGREE:
        names = ", ".join(sorted(found.sources))
        reasons.append(f"known as an answer ({names}), but {harmful} users said harmful")
    if contradicted:
        reasons.append("users named different passages as the answer")
    if found is not None and not found.grade and (agreed(opinion) or opinion.corrections):
        reasons.append("imported as no answer, but users say that it is one")
    return "; ".join(reasons)


def _decided(opinion: Opinion, kind: str) -> bool:
    return opinion.decision is not None and opinion.decision.kind == kind


def _against(opinion: Opinion) -> int:
    """How many users have spoken against the decision since it was made."""
    if opinion.decision is None:
        return 0
    since = opinion.decision.seq
    if opinion.decision.kind == "accept":
        return sum(v.seq > since for v in opinion.harmful.values())
    users = {user for user, v in opinion.helpful.items() if v.seq > since}
    named = {c.user_id for c in opinion.corrections if c.seq > since and c.user_id is not None}
    return len(users | named)
