"""Weighs the voters at a refresh, before anything is learned from their votes."""

import logging
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from rag_flywheel.curate.certain import certain_texts
from rag_flywheel.curate.judgments import standing_votes
from rag_flywheel.curate.source import Source
from rag_flywheel.curate.weights import SAID
from rag_flywheel.errors import counted
from rag_flywheel.improve.crowds import TOGETHER, contradicted, crowds_of
from rag_flywheel.improve.examples import Examples, Floats, Ints
from rag_flywheel.improve.peers import Asking
from rag_flywheel.improve.propagate import build_memory
from rag_flywheel.improve.raters import (
    LEAST_ACCURACY,
    LEAST_VOTERS,
    Ballots,
    accuracy_of,
    accuracy_on_others,
)
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.raters import RaterWeight
from rag_flywheel.records import QueryKey
from rag_flywheel.refresh.examples import judged_again
from rag_flywheel.refresh.past import Past, read_past
from rag_flywheel.store.database import Database
from rag_flywheel.store.event_types import VoteEvent

APART = 0.6
"""The share of their own among the questions around those of users whose questions lie apart."""
_DOUBTED = 0.5
_CLEARLY_LESS = (
    3.0  # standard errors; the least accurate of twenty alike is 2.8 below the others at times
)

log = logging.getLogger("rag_flywheel")


@dataclass(frozen=True)
class _Cast:
    """The ballots with what crowds are told by, as `crowds_of` takes it; users: of the voters, by their
    hashes, None: without an id."""

    ballots: Ballots
    users: list[str | None]
    need: Ints
    text: Ints
    at: Floats


def weighed_raters(
    database: Database, source: Source, examples: Examples, past: Past, *, until: int
) -> dict[str, RaterWeight]:
    """The weight of every user who voted up to an event number, by their hashes.

    examples, past: the past queries, judged as if all users were alike. The chances of passages before a
    question's own votes come from the shipped weights and the votes on similar questions, so that the
    same votes always give the same weights. Users are compared with those of their own tenant where it
    has enough of them, since another tenant may want other answers; a user of several tenants weighs
    what the strictest of them says. Who weighs less than 1, but asks apart from others with a group of
    users, is judged again as one of that group.
    """
    standing = standing_votes(source.heard(past.votes))
    with database.snapshot() as conn:
        known = certain_texts(conn, until)
    if all(vote.user_id is None for vote in standing):
        return {}
    found: dict[str, RaterWeight] = {}
    chances = _chances_before(examples)
    for some in _by_tenant(standing):
        of_some, errors = _weighed(_cast(some, chances, known))
        for peers in _peers_apart(some, of_some, examples):
            if _most_believed(of_some, peers):
                of_some |= _like_their_peers(of_some, errors, peers)
                continue
            weights = dict.fromkeys(of_some.keys() - peers, 0.0)
            alone = read_past(database, source, until=until, weights=weights, again=past)
            own = [vote for vote in some if vote.user_id in peers]
            among = _cast(own, _chances_before(judged_again(examples, alone)), known)
            of_some |= _believed_among_themselves(of_some, among)
        for user, rater in of_some.items():
            if user not in found or rater.weight < found[user].weight:
                found[user] = rater
    low = sum(rater.weight < _DOUBTED for rater in found.values())
    log.info(
        "refresh: weighed %s who voted, %d of them below a half", counted(len(found), "user"), low
    )
    return dict(sorted(found.items()))


def _by_tenant(standing: list[VoteEvent]) -> Iterator[list[VoteEvent]]:
    """The votes of each tenant with enough voters to compare, and those of all the others together."""
    by_tenant: dict[str | None, list[VoteEvent]] = defaultdict(list)
    for vote in standing:
        by_tenant[vote.tenant].append(vote)
    few: list[VoteEvent] = []
    for some in by_tenant.values():
        if len({vote.voice for vote in some}) >= LEAST_VOTERS:
            yield some
        else:
            few += some
    if few:
        yield few


def _peers_apart(
    standing: list[VoteEvent], weighed: Mapping[str, RaterWeight], examples: Examples
) -> Iterator[set[str]]:
    """The groups of users whose questions lie apart, of which some weigh less than 1: of the questions
    around theirs most are their own, so that hardly anybody else's are moved by what they say."""
    rows = {key: i for i, key in enumerate(examples.keys)}
    voters: dict[str, int] = {}
    voter, question = [], []
    for vote in standing:
        key = QueryKey(vote.query, vote.tenant)
        if key in rows:
            voter.append(voters.setdefault(vote.voice, len(voters)))
            question.append(rows[key])
    names = list(voters)
    less = [u for u in names if u in weighed and _weighs_less(weighed[u])]
    if not less:
        return
    asking = Asking.of(
        np.array(voter, dtype=np.int64), np.array(question, dtype=np.int64), examples.near.rows
    )
    judged: set[str] = set()
    for user in less:
        if user not in judged:
            peers = asking.peers(voters[user])
            if len(peers) >= LEAST_VOTERS and asking.apart(peers) >= APART:
                group = {names[i] for i in peers.tolist()}
                judged |= group
                yield group


def _weighs_less(rater: RaterWeight) -> bool:
    return rater.weight < 1.0 and rater.crowd is None


def _most_believed(weighed: Mapping[str, RaterWeight], peers: set[str]) -> bool:
    own = [weighed[user].weight >= _DOUBTED for user in peers if user in weighed]
    return 2 * sum(own) > len(own)


def _like_their_peers(
    weighed: Mapping[str, RaterWeight], errors: Mapping[str, float], peers: set[str]
) -> dict[str, RaterWeight]:
    """Those of a group most of which is believed who are not clearly less accurate than the group, with the
    weight of the others: by the standards of a majority all of a minority looks alike, and luck alone
    puts some below what is tolerated."""
    own = {user: weighed[user] for user in peers if user in weighed}
    usual = statistics.median(rater.accuracy for rater in own.values())
    weight = min(statistics.median(rater.weight for rater in own.values()), 1.0)
    return {
        user: replace(rater, weight=weight)
        for user, rater in own.items()
        if rater.weight < weight
        and rater.crowd is None
        and usual - rater.accuracy <= _CLEARLY_LESS * errors[user]
    }


def _believed_among_themselves(
    weighed: dict[str, RaterWeight], among: _Cast
) -> dict[str, RaterWeight]:
    """The users of a group whose votes bear each other out where only theirs count, with the weight that
    they have there, at most 1, where that is more: a minority that wants other answers."""
    again, _ = _weighed(among)
    if not again or accuracy_on_others(among.ballots) < LEAST_ACCURACY:
        return {}
    return {
        user: replace(weighed[user], weight=min(rater.weight, 1.0))
        for user, rater in again.items()
        if rater.weight > weighed[user].weight and rater.crowd is None
    }


def _weighed(cast: _Cast) -> tuple[dict[str, RaterWeight], dict[str, float]]:
    """How far each user is trusted, and the standard error of their accuracy."""
    ballots = cast.ballots
    if not len(ballots.voter):
        return {}, {}
    found = accuracy_of(ballots)
    weight = found.weight.copy()
    crowd = np.full(len(weight), -1)
    ballots = replace(ballots, chances=found.before)
    for number, members in enumerate(crowds_of(ballots, cast.need, cast.text, cast.at), 1):
        crowd[members] = number
        if contradicted(ballots, members, cast.need):
            weight[members] = np.minimum(weight[members], TOGETHER / len(members))
    named = {user: i for i, user in enumerate(cast.users) if user is not None}
    raters = {
        user: RaterWeight(
            round(float(weight[i]), 4),
            round(float(found.balanced[i]), 4),
            int(crowd[i]) if crowd[i] > 0 else None,
        )
        for user, i in sorted(named.items())
    }
    return raters, {user: float(found.error[i]) for user, i in named.items()}


def _chances_before(examples: Examples) -> Mapping[QueryKey, Mapping[int, float]]:
    """The chance of each passage text before a question's own votes, by question and lineage."""
    memory = build_memory(examples, Parameters.starting(examples.trust))
    return {key: memory.before(row) for key, row in memory.rows.items()}


def _cast(
    standing: list[VoteEvent],
    before: Mapping[QueryKey, Mapping[int, float]],
    known: dict[tuple[QueryKey, int], bool],
) -> _Cast:
    """The votes and named passages as ballots; a vote on an answer counts by its part in the passage."""
    voters: dict[str, int] = {}
    users: list[str | None] = []
    places: dict[tuple[QueryKey, int], int] = {}
    rows: list[tuple[int, int, bool, float, float]] = []
    named = []
    for vote in standing:
        key = QueryKey(vote.query, vote.tenant)
        if vote.lineage not in before.get(key, ()) or vote.kind not in SAID:
            continue
        if vote.voice not in voters:
            voters[vote.voice] = len(voters)
            users.append(vote.user_id)
        place = places.setdefault((key, vote.lineage), len(places))
        rows.append(
            (voters[vote.voice], place, vote.verdict == "helpful", min(vote.credit, 1.0), vote.at)
        )
        named.append(vote.kind == "correction")
    voter, place_of = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    helpful = np.array([row[2] for row in rows], dtype=np.bool_)
    counts, at = (np.array([row[i] for row in rows], dtype=np.float64) for i in (3, 4))
    is_known = np.array([known.get(p, np.nan) for p in places], dtype=np.float64)
    # a passage picked from the whole index tells of its voter only where others judge it too
    n_on = np.bincount(place_of, minlength=len(places))
    lonely = np.array(named, dtype=np.bool_) & (n_on[place_of] < 2) & np.isnan(is_known[place_of])
    numbers: dict[QueryKey, int] = {}
    need = [numbers.setdefault(key, len(numbers)) for key, _ in places]
    chances = np.array([before[key][lineage] for key, lineage in places], dtype=np.float64)
    return _Cast(
        Ballots(voter, place_of, helpful, np.where(lonely, 0.0, counts), chances, is_known),
        users,
        np.array(need, dtype=np.int64),
        np.array([lineage for _, lineage in places], dtype=np.int64),
        at,
    )
