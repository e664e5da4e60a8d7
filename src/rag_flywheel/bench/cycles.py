"""Runs cycles: users vote, the index refreshes, and held-out queries are scored.

It drives a Flywheel as an application would, and must not know what collection it is given.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rag_flywheel.bench.measures import Run, mean
from rag_flywheel.bench.users import OnAnswer, Users
from rag_flywheel.formats.beir import Qrels, Split
from rag_flywheel.records import Hit, Progress, RefreshReport, Retrieval, Vote

if TYPE_CHECKING:
    from rag_flywheel.flywheel import Flywheel

SHOWN = 8
_AT_A_TIME = 16  # users
Measures = Mapping[str, Callable[[Qrels, Run], dict[str, float]]]
CastVotes = Callable[[], int]
"""Casts the votes of one cycle, before its refresh, and returns how many."""
Respond = Callable[[int, Retrieval], Sequence[Vote | OnAnswer]]
"""The feedback of whoever asked the question at this place of a cycle, on what they were shown."""


@dataclass(frozen=True)
class Cycle:
    """The accuracy on held-out queries after so many cycles of votes; values: mean measures by name."""

    number: int
    n_votes: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """The measures of one group of questions by cycle (0: the static index).

    bound: nDCG@10 of the last cycle if whatever right passage a user was ever shown came first; only
    for questions that users asked.
    """

    name: str
    what: str
    n_queries: int
    cycles: tuple[Cycle, ...]
    bound: float | None = None

    def gain(self, measure: str = "nDCG@10") -> float:
        """The last cycle less the static index."""
        return self.cycles[-1].values[measure] - self.cycles[0].values[measure]


def run_cycles(
    fw: "Flywheel",
    test: Split,
    steps: Sequence[CastVotes],
    *,
    depth: int,
    tune_after: Collection[int] = (),
    refreshed: Callable[[RefreshReport], None] | None = None,
) -> Iterator[tuple[int, Run]]:
    """Yield (votes so far, run of the test queries) before any vote, and after each step and refresh.

    Test queries are never recorded, so they never take a vote. tune_after: the steps, from 1, after
    which the encoder of queries is tuned as well. refreshed: called with the report of each refresh.
    """
    n_votes = 0
    yield n_votes, answers(fw, test, depth)
    for number, step in enumerate(steps, 1):
        n_votes += step()
        report = fw.refresh(tune=number in tune_after)
        if refreshed is not None:
            refreshed(report)
        yield n_votes, answers(fw, test, depth)


def answers(fw: "Flywheel", split: Split, depth: int) -> Run:
    """The run of a split's queries, `depth` passages each, without recording them.

    The passage of a query's own id is left out, as BEIR does.
    """
    ids = sorted(split.queries)
    more = 1 if split.own else 0
    found = fw.rank_many([split.queries[q] for q in ids], depth + more)
    if not more:
        return dict(zip(ids, found, strict=True))
    return {
        query: [id_ for id_ in hits if id_ != query][:depth]
        for query, hits in zip(ids, found, strict=True)
    }


def seen_by_users(fw: "Flywheel", split: Split, queries: Sequence[str]) -> list[Retrieval]:
    """The recorded answers to a split's queries, 8 hits each; none is the passage of a query's own id."""
    own = [query for query in queries if query in split.own]
    other = [query for query in queries if query not in split.own]
    found = dict(
        zip(other, fw.retrieve_many([split.queries[q] for q in other], SHOWN), strict=True)
    )
    more = fw.retrieve_many([split.queries[q] for q in own], SHOWN + 1) if own else []
    for query, seen in zip(own, more, strict=True):
        found[query] = replace(seen, hits=_without(query, seen.hits)[:SHOWN])
    return [found[query] for query in queries]


def _without(id_: str, hits: Sequence[Hit]) -> tuple[Hit, ...]:
    """The hits but for one passage, their ranks closed up."""
    left = (hit for hit in hits if hit.passage_id != id_)
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(left, 1))


def measured(cycles: Sequence[tuple[int, Run]], qrels: Qrels, measures: Measures) -> list[Cycle]:
    """The mean of each measure after each cycle."""
    return [
        Cycle(number, n_votes, {name: mean(of(qrels, run)) for name, of in measures.items()})
        for number, (n_votes, run) in enumerate(cycles)
    ]


def asking(
    fw: "Flywheel",
    train: Split,
    queries: Sequence[str],
    users: Users,
    rng: np.random.Generator,
    *,
    shown: Callable[[Retrieval], None] | None = None,
    progress: Progress | None = None,
) -> CastVotes:
    """A cycle in which each of these train queries is asked by a different user, who votes."""

    def stranger(place: int, seen: Retrieval) -> Sequence[Vote | OnAnswer]:
        user_id = f"user-{rng.integers(2**62)}"
        return users.feedback(seen, train.qrels[queries[place]], user_id, rng)

    return asking_of(fw, train, queries, stranger, shown=shown, progress=progress)


def asking_of(
    fw: "Flywheel",
    train: Split,
    queries: Sequence[str],
    respond: Respond,
    *,
    shown: Callable[[Retrieval], None] | None = None,
    progress: Progress | None = None,
) -> CastVotes:
    """A cycle in which these train queries are asked in turn, and whoever asked responds.

    Sixteen users ask at a time, and vote before the next ones do. shown is called with every answer
    that a user saw.
    """

    def step() -> int:
        n_votes = 0
        for start in range(0, len(queries), _AT_A_TIME):
            if progress is not None:
                progress("users ask and vote", start, len(queries))
            part = queries[start : start + _AT_A_TIME]
            feedback: list[Vote | OnAnswer] = []
            for place, seen in enumerate(seen_by_users(fw, train, part), start):
                if shown is not None:
                    shown(seen)
                feedback += respond(place, seen)
            n_votes += give_feedback(fw, feedback)
        return n_votes

    return step


def give_feedback(fw: "Flywheel", feedback: Sequence[Vote | OnAnswer]) -> int:
    """Record users' feedback as an application would; returns how many votes."""
    n_votes = fw.feedback_many([vote for vote in feedback if isinstance(vote, Vote)])
    for v in feedback:
        if isinstance(v, OnAnswer):
            fw.answer_feedback(
                v.retrieval_id, v.verdict, answer=v.answer, cited=v.cited, user_id=v.user_id
            )
            n_votes += 1
    return n_votes
