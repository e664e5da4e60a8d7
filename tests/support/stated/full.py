"""What the runs of benchmarks/learning/full.py hold: one file a kind of user and seed."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from stated.page import Page
from stated.results import Json, named

MEASURE = "nDCG@10"
NAMES = {  # as tables write them
    "metatool": "metatool",
    "feedbackqa": "feedbackqa",
    "squad11_dev": "SQuAD dev",
    "scifact": "scifact",
}
OURS = "flywheel"
SAME_VOTES = "flywheel, fixed exposure"


@dataclass(frozen=True)
class Runs:
    """The collections of one kind of user, seed by seed."""

    seeds: list[dict[str, Json]]

    def median(self, of: Callable[[Json], float], collection: str) -> float:
        """The median over the seeds."""
        return statistics.median(self.each(of, collection))

    def each(self, of: Callable[[Json], float], collection: str) -> list[float]:
        """By seed."""
        return [of(seed[collection]) for seed in self.seeds]


def runs(page: Page, kind: str) -> Runs:
    """The three seeds of a kind of user."""
    files = [page.result(f"full-{kind}-{seed}") for seed in range(3)]
    return Runs([{c["name"]: c for c in file["collections"]} for file in files])


def rule(name: str) -> Callable[[Json], float]:
    """The final nDCG@10 of a ranking."""
    return lambda c: float(named(c["rankings"], name=name)["values"][MEASURE])


def curve(c: Json, run: str = "votes") -> list[float]:
    """The nDCG@10 before any vote and after each cycle."""
    return [cycle["values"][MEASURE] for cycle in named(c["runs"], name=run)["cycles"]]


def start(c: Json) -> float:
    """The nDCG@10 of the flywheel before any vote."""
    return curve(c)[0]


def best_other(found: Runs, collection: str) -> tuple[str, float]:
    """The rule beside the flywheel with the highest median, the oracle aside."""
    names = [r["name"] for r in found.seeds[0][collection]["rankings"]]
    others = [n for n in names if not n.startswith(OURS) and n != "oracle"]
    medians = {name: found.median(rule(name), collection) for name in others}
    best = max(medians, key=lambda name: medians[name])
    return best, medians[best]
