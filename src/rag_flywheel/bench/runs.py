"""The four runs of cycles-v1: votes on the flywheel's own hits, and three controls.

Each works on its own copy of the index without votes; it must not know how they are compared.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rag_flywheel.bench.cycles import SHOWN, CastVotes, asking, give_feedback, run_cycles
from rag_flywheel.bench.exposure import gini
from rag_flywheel.bench.measures import Run
from rag_flywheel.bench.protocol import CycledRun, FixedVote, Protocol
from rag_flywheel.bench.users import OnAnswer, Users
from rag_flywheel.records import Progress, Retrieval, Vote

if TYPE_CHECKING:
    from rag_flywheel.bench.setup import Bench
    from rag_flywheel.flywheel import Flywheel


def run_votes(bench: "Bench", protocol: Protocol, progress: Progress | None) -> CycledRun:
    """Users see the flywheel's own hits and vote on them."""
    train, users = bench.train, protocol.users
    rng = np.random.default_rng([protocol.seed, 0])
    exposure: list[Counter[str]] = [Counter() for _ in bench.parts]
    with bench.copy("votes") as fw:
        steps = [
            asking(fw, train, part, users, rng, shown=partial(_count, counts), progress=progress)
            for part, counts in zip(bench.parts, exposure, strict=True)
        ]
        cycles = _cycles(fw, bench, protocol, steps)
    ginis = tuple(gini([counts[p.id] for p in bench.collection.passages]) for counts in exposure)
    return CycledRun("votes", "users see the flywheel's own hits and vote on them", cycles, ginis)


def _count(counts: Counter[str], seen: Retrieval) -> None:
    counts.update(hit.passage_id for hit in seen.hits)


def tossed(protocol: Protocol) -> Protocol:
    """The protocol with users whose verdicts are coin tosses, and who are otherwise the same."""
    coin = replace(protocol.users, eps=0.5, malicious=0.0, attack=Users().attack)
    return replace(protocol, users=coin)


def run_random(bench: "Bench", tossing: Protocol, progress: Progress | None) -> CycledRun:
    """Users vote by tossing a coin (see `tossed`), so nothing can be learned from their votes."""
    run = run_votes(bench, tossing, progress)
    return replace(run, name="random votes", what="as votes, but every verdict is a coin toss")


def run_none(bench: "Bench", protocol: Protocol) -> CycledRun:
    """The index is refreshed in every cycle, but nobody votes."""
    with bench.copy("none") as fw:
        cycles = _cycles(fw, bench, protocol, [lambda: 0] * len(bench.parts))
    return CycledRun("no votes", "nobody votes; refreshed all the same", cycles)


def run_fixed(bench: "Bench", protocol: Protocol) -> tuple[CycledRun, list[FixedVote]]:
    """Users see the static ranking's hits in every cycle. Returns the run, and its votes in order.

    The run separates learning from exposure, and gives every rule the same votes to learn from.
    """
    rng = np.random.default_rng([protocol.seed, 1])
    votes: list[FixedVote] = []
    with bench.copy("fixed") as fw:
        queries = [q for part in bench.parts for q in part]
        seen = fw.retrieve_many([bench.train.queries[q] for q in queries], SHOWN)
        answers = dict(zip(queries, seen, strict=True))

        def vote(part: Sequence[str]) -> int:
            feedback: list[Vote | OnAnswer] = []
            for query in part:
                judged = bench.train.qrels[query]
                given = protocol.users.feedback(answers[query], judged, query, rng)
                votes.extend(FixedVote(query, v.passage_id, v.verdict == "helpful") for v in given)
                feedback += given
            return give_feedback(fw, feedback)

        cycles = _cycles(fw, bench, protocol, [partial(vote, part) for part in bench.parts])
    what = "users see the static ranking's hits in every cycle; all rules learn from these votes"
    return CycledRun("fixed exposure", what, cycles), votes


def _cycles(
    fw: "Flywheel", bench: "Bench", protocol: Protocol, steps: Sequence[CastVotes]
) -> tuple[tuple[int, Run], ...]:
    tune_after = protocol.tune_after
    return tuple(run_cycles(fw, bench.test, steps, depth=protocol.depth, tune_after=tune_after))
