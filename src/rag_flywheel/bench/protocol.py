"""The records of a benchmark run: its protocol, its results by cycle, and the votes cast."""

from dataclasses import dataclass, field

from rag_flywheel.bench.measures import Run
from rag_flywheel.bench.users import Users

RESULT_FORMAT = "rag-flywheel-bench-1"
"""The name of the format of results, which reports check."""


@dataclass(frozen=True)
class Protocol:
    """The protocol cycles-v1: shuffled train queries are asked in n_cycles equal parts; test is scored.

    depth: passages scored per test query. max_train, max_test: at most so many queries of the split,
    chosen by seed.
    tune_after: cycles after which the refresh also tunes the encoder of queries, from 1.
    """

    n_cycles: int = 10
    seed: int = 0
    max_train: int | None = None
    max_test: int | None = None
    depth: int = 75
    tune_after: tuple[int, ...] = ()
    users: Users = field(default_factory=Users)


@dataclass(frozen=True)
class CycledRun:
    """The runs of the test queries before any vote and after each cycle: (votes so far, run).

    exposure_gini: the Gini index of how often each passage was shown, by cycle; empty without users.
    """

    name: str
    what: str
    cycles: tuple[tuple[int, Run], ...]
    exposure_gini: tuple[float, ...] = ()


@dataclass(frozen=True)
class FixedVote:
    """A vote on a hit of the static ranking for a train query.

    A verdict on an answer counts as a vote on the passage that the answer was written from.
    """

    query: str
    passage: str
    helpful: bool
