"""Counts the people who spoke of each question, so that what few of them say moves no ranking.

A person is a user id. Votes without one are nobody's: they may be of anybody who has one. Whose votes were
made anonymous is counted by the number that was noted then.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from rag_flywheel.curate.judgments import standing_votes
from rag_flywheel.records import QueryKey
from rag_flywheel.store.event_types import ONE_TIME, VoteEvent

_NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


def people_of(
    votes: Iterable[VoteEvent], weights: Mapping[str, float] = _NO_WEIGHTS
) -> dict[QueryKey, int]:
    """How many people, at least, have a standing vote on each question of these votes.

    votes: all on these questions, in the order of their numbers. weights: of users, by their hashes; those
    of weight 0 are nobody.
    """
    users: dict[QueryKey, set[str]] = defaultdict(set)
    noted: dict[QueryKey, int] = defaultdict(int)
    for vote in standing_votes(votes):
        key, user = QueryKey(vote.query, vote.tenant), vote.user_id
        noted[key] = max(noted[key], vote.voters)
        known = user is not None and not user.startswith(ONE_TIME)
        if user is not None and known and weights.get(user, 1.0) > 0.0:
            users[key].add(user)
    return {key: max(n, len(users[key])) for key, n in noted.items()}


def of_enough_people(
    votes: Iterable[VoteEvent], least: int, weights: Mapping[str, float] = _NO_WEIGHTS
) -> Iterable[VoteEvent]:
    """The votes on questions that at least so many people spoke of; arguments as for `people_of`."""
    if least <= 1:
        return votes
    every = list(votes)
    people = people_of(every, weights)
    return [vote for vote in every if people.get(QueryKey(vote.query, vote.tenant), 0) >= least]
