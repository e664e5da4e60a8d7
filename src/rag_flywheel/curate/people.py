"""Counts the people who spoke of each question, so that what few of them say moves no ranking.

A person is a user id. Votes without one are nobody's: they may be of anybody who has one. When votes are
made anonymous, the number of people is noted who have no other votes on the question; whoever votes on it
afterwards may be one of them.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from rag_flywheel.curate.judgments import standing_votes
from rag_flywheel.records import QueryKey
from rag_flywheel.store.event_types import ONE_TIME, VoteEvent

_NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


@dataclass
class _Spoken:
    """Who spoke of a question.

    users: those with a vote that stands. early: those with a vote from before at, the event number at which
    so many others were noted.
    """

    users: set[str] = field(default_factory=set)
    early: set[str] = field(default_factory=set)
    noted: int = 0
    at: int = 0


def people_of(
    votes: Collection[VoteEvent], weights: Mapping[str, float] = _NO_WEIGHTS
) -> dict[QueryKey, int]:
    """How many people, at least, have a standing vote on each question of these votes.

    votes: all on these questions, in the order of their numbers. weights: of users, by their hashes; those
    of weight 0 are nobody.
    """
    return {
        key: max(each.noted + len(each.users & each.early), len(each.users))
        for key, each in _spoken(votes, weights).items()
    }


def people_noted(
    votes: Collection[VoteEvent],
    leaving: Collection[VoteEvent],
    weights: Mapping[str, float] = _NO_WEIGHTS,
) -> dict[QueryKey, int]:
    """The number to note for each question when some of the votes on it are made anonymous, or deleted.

    Nobody is counted twice, so that whoever is forgotten afterwards takes their part away. votes: all on
    these questions; leaving: those of them; weights: as for `people_of`.
    """
    gone = {(vote.seq, vote.lineage) for vote in leaving}
    staying: dict[QueryKey, set[str]] = defaultdict(set)
    for vote in votes:
        if vote.user_id is not None and (vote.seq, vote.lineage) not in gone:
            staying[_question(vote)].add(vote.user_id)
    found = {}
    for key, each in _spoken(votes, weights).items():
        left = each.users - staying[key]
        found[key] = max(each.noted + len(left & each.early), len(left))
    return found


def of_enough_people(
    votes: Iterable[VoteEvent], least: int, weights: Mapping[str, float] = _NO_WEIGHTS
) -> Iterable[VoteEvent]:
    """The votes on questions that at least so many people spoke of; arguments as for `people_of`."""
    if least <= 1:
        return votes
    every = list(votes)
    people = people_of(every, weights)
    return [vote for vote in every if people.get(_question(vote), 0) >= least]


def _spoken(votes: Collection[VoteEvent], weights: Mapping[str, float]) -> dict[QueryKey, _Spoken]:
    found: dict[QueryKey, _Spoken] = defaultdict(_Spoken)
    for vote in votes:
        each = found[_question(vote)]
        each.at, each.noted = max((each.at, each.noted), (vote.voters_at, vote.voters))
    for vote in votes:
        each = found[_question(vote)]
        if vote.seq <= each.at and vote.user_id is not None and vote.kind != "judge":
            each.early.add(vote.user_id)
    for vote in standing_votes(votes):
        user = vote.user_id
        if user is None or user.startswith(ONE_TIME) or weights.get(user, 1.0) <= 0.0:
            continue
        if vote.kind == "judge":
            continue  # a language model
        found[_question(vote)].users.add(user)
    return dict(found)


def _question(vote: VoteEvent) -> QueryKey:
    return QueryKey(vote.query, vote.tenant)
