"""What a benchmark run follows and what it comes to: the protocol, the runs, the votes cast."""

from dataclasses import dataclass, field

from rag_flywheel.bench.measures import Run
from rag_flywheel.bench.users import Users

RESULT_FORMAT = "rag-flywheel-bench-1"
"""Names the shape of a result, which reports check."""


@dataclass(frozen=True)
class Protocol:
    """cycles-v1: train queries, shuffled, are asked in n_cycles equal parts; then test is scored.

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
    """What the test queries got before any vote and after each cycle: (votes so far, run).

    exposure_gini: of how often each passage was shown in each cycle; empty where nobody asked.
    """

    name: str
    what: str
    cycles: tuple[tuple[int, Run], ...]
    exposure_gini: tuple[float, ...] = ()


@dataclass(frozen=True)
class FixedVote:
    """A vote on a hit of the static ranking: of a train query, on a passage. A verdict on an answer
    is one on the passage that it was written from."""

    query: str
    passage: str
    helpful: bool
