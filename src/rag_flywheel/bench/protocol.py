"""The records of a benchmark run: its protocol, its results by cycle, and the votes cast."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rag_flywheel.bench.measures import Run
from rag_flywheel.bench.users import Users

RESULT_FORMAT = "rag-flywheel-bench-1"
"""The name of the format of results, which reports check."""
PROTOCOLS = ("v1", "v2")
"""What the command line calls cycles-v1 and cycles-v2."""


@dataclass(frozen=True)
class Traffic:
    """The questions that a help desk gets, in the protocol cycles-v2 (see `stream`).

    n_asked: questions asked in all, repeats included; None: as many as there are train queries.
    exponent: the need at place r of the order of popularity is asked in proportion to r^-exponent
        (Zipf's law), and within a need so is the phrasing at place r.
    unasked: share of the needs that nobody asks about.
    n_users: people who ask, each with a name and habits (see `users.people`).
    willingness: mean probability that somebody who asked votes at all.
    """

    n_asked: int | None = None
    exponent: float = 1.0
    unasked: float = 0.2
    n_users: int = 50
    willingness: float = 0.5


@dataclass(frozen=True)
class Protocol:
    """What a benchmark run follows: cycles of votes, each with a refresh, and test queries scored.

    In cycles-v1 the shuffled train queries are asked once each, in n_cycles equal parts, by a
    stranger each. In cycles-v2, which has `traffic`, questions come again: a fixed stream of them is
    cut into n_cycles equal parts and asked by the same people throughout.

    depth: passages scored per test query. max_train, max_test: at most so many queries of the split,
    chosen by seed.
    tune_after: cycles after which the refresh also tunes the encoder of queries, from 1.
    lenient: whether lines of a collection that cannot be used are left out instead of refused.
    """

    n_cycles: int = 10
    seed: int = 0
    max_train: int | None = None
    max_test: int | None = None
    depth: int = 75
    tune_after: tuple[int, ...] = ()
    users: Users = field(default_factory=Users)
    traffic: Traffic | None = None
    lenient: bool = False

    @property
    def name(self) -> str:
        """The name of the protocol in results."""
        return "cycles-v1" if self.traffic is None else "cycles-v2"


@dataclass(frozen=True)
class Refreshed:
    """What a refresh of a run came to.

    weights, encoder: "new" when new ones of the prior, and of the encoder of queries, went live, else
        "kept". reason: why, a sentence.
    parameters: the live version's parameters.json, whatever fields it has.
    """

    weights: str
    encoder: str
    reason: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class CycledRun:
    """The runs of the test queries before any vote and after each cycle: (votes so far, run).

    exposure_gini: the Gini index of how often each passage was shown, by cycle; empty without users.
    refreshes: what the refresh of each cycle came to.
    voted: ids of the passages that got a vote.
    """

    name: str
    what: str
    cycles: tuple[tuple[int, Run], ...]
    exposure_gini: tuple[float, ...] = ()
    refreshes: tuple[Refreshed, ...] = ()
    voted: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FixedVote:
    """A vote on a hit of the static ranking for a train query.

    A verdict on an answer counts as a vote on the passage that the answer was written from.
    """

    query: str
    passage: str
    helpful: bool
