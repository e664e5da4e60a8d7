"""Cycles: users ask and vote, the index refreshes, and held-out queries are scored; again and again.

It drives a Flywheel as an application would, and must not know what collection it is given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rag_flywheel.bench.collection import Qrels, Split
from rag_flywheel.bench.measures import Run, mean
from rag_flywheel.bench.users import Users
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.records import Progress, Vote

SHOWN = 8
DEPTH = 10
Measures = Mapping[str, Callable[[Qrels, Run], dict[str, float]]]


@dataclass(frozen=True)
class Cycle:
    """What held-out queries got after so many cycles of votes; values: mean measures by name."""

    number: int
    n_votes: int
    values: Mapping[str, float]


def run_cycles(
    fw: Flywheel,
    train: Split,
    test: Split,
    users: Users,
    measures: Measures,
    *,
    schedule: Sequence[Sequence[str]],
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> list[Cycle]:
    """Cycle 0 is the index before any vote; cycle i follows on the votes of schedule[i - 1].

    schedule: the ids of the train queries that are asked in each cycle, in order, each time by
    another user. Test queries are never voted on and never recorded.
    """
    cycles = [_scored(fw, test, measures, 0, 0)]
    n_votes, n_asked, total = 0, 0, sum(map(len, schedule))
    for number, part in enumerate(schedule, 1):
        for query in part:
            if progress is not None and n_asked % 50 == 0:
                progress("users ask and vote", n_asked, total)
            n_asked += 1
            n_votes += fw.feedback_many(_asked(fw, train, query, f"user-{n_asked}", users, rng))
        fw.refresh()
        cycles.append(_scored(fw, test, measures, number, n_votes))
    if progress is not None:
        progress("users ask and vote", total, total)
    return cycles


def _asked(
    fw: Flywheel, train: Split, query: str, user_id: str, users: Users, rng: np.random.Generator
) -> Sequence[Vote]:
    seen = fw.retrieve(train.queries[query], SHOWN, user_id=user_id)
    return users.votes(seen, train.qrels[query], user_id, rng)


def _scored(fw: Flywheel, test: Split, measures: Measures, number: int, n_votes: int) -> Cycle:
    ids = sorted(test.queries)
    found = fw.retrieve_many([test.queries[q] for q in ids], DEPTH, record=False)
    run = {q: [hit.passage_id for hit in r.hits] for q, r in zip(ids, found, strict=True)}
    values = {name: mean(measure(test.qrels, run)) for name, measure in measures.items()}
    return Cycle(number, n_votes, values)
