"""The four runs of a protocol: votes on the flywheel's own hits, and three controls.

Each works on its own copy of the index without votes; it must not know how they are compared.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_flywheel.bench.cycles import (
    CastVotes,
    Respond,
    asking_of,
    give_feedback,
    run_cycles,
    seen_by_users,
)
from rag_flywheel.bench.protocol import CycledRun, FixedVote, Protocol, Refreshed
from rag_flywheel.bench.users import OnAnswer, Users, people
from rag_flywheel.deploy.current import read_current
from rag_flywheel.deploy.versions import version_folder
from rag_flywheel.disk import read_json
from rag_flywheel.rank.parameters import FILE_NAME as PARAMETERS
from rag_flywheel.records import Progress, RefreshReport, Retrieval, Vote
from rag_flywheel.report.exposure import gini

if TYPE_CHECKING:
    from rag_flywheel.bench.setup import Bench
    from rag_flywheel.flywheel import Flywheel

_PEOPLE_SEED = 4


def run_votes(bench: "Bench", protocol: Protocol, progress: Progress | None) -> CycledRun:
    """Users see the flywheel's own hits and vote on them."""
    return _run_votes(_Run("votes", "votes", bench, protocol, progress))


def _run_votes(run: "_Run") -> CycledRun:
    bench = run.bench
    rng = np.random.default_rng([run.protocol.seed, 0])
    exposure: list[Counter[str]] = [Counter() for _ in bench.parts]
    voted = set[str]()

    def noting(respond: Respond, place: int, seen: Retrieval) -> Sequence[Vote | OnAnswer]:
        feedback = respond(place, seen)
        voted.update(vote.passage_id for vote in feedback)
        return feedback

    responds = _responds(bench, run.protocol, rng, lambda _: f"user-{rng.integers(2**62)}")
    with bench.copy(run.folder) as fw:
        steps = [
            asking_of(
                fw,
                bench.train,
                part,
                partial(noting, respond),
                shown=partial(_count, counts),
                progress=partial(run.show, cycle),
            )
            for cycle, (part, respond, counts) in enumerate(
                zip(bench.parts, responds, exposure, strict=True), 1
            )
        ]
        done = run.cycles(fw, steps, "users see the flywheel's own hits and vote on them")
    ginis = tuple(gini([counts[p.id] for p in bench.collection.passages]) for counts in exposure)
    return replace(done, exposure_gini=ginis, voted=frozenset(voted))


def _count(counts: Counter[str], seen: Retrieval) -> None:
    counts.update(hit.passage_id for hit in seen.hits)


def tossed(protocol: Protocol) -> Protocol:
    """The protocol with users whose verdicts are coin tosses, and who are otherwise the same."""
    coin = replace(protocol.users, eps=0.5, malicious=0.0, attack=Users().attack)
    return replace(protocol, users=coin)


def run_random(bench: "Bench", tossing: Protocol, progress: Progress | None) -> CycledRun:
    """Users vote by tossing a coin (see `tossed`), so nothing can be learned from their votes."""
    run = _run_votes(_Run("random votes", "votes", bench, tossing, progress))
    return replace(run, what="as votes, but every verdict is a coin toss")


def run_none(bench: "Bench", protocol: Protocol, progress: Progress | None = None) -> CycledRun:
    """The index is refreshed in every cycle, but nobody votes."""
    run = _Run("no votes", "none", bench, protocol, progress)
    with bench.copy(run.folder) as fw:
        steps = [lambda: 0] * len(bench.parts)
        return run.cycles(fw, steps, "nobody votes; refreshed all the same")


def run_fixed(
    bench: "Bench", protocol: Protocol, progress: Progress | None = None
) -> tuple[CycledRun, list[FixedVote]]:
    """Users see the static ranking's hits in every cycle. Returns the run, and its votes in order.

    The run separates learning from exposure, and gives every rule the same votes to learn from. Of the
    votes of one user on the same passage for the same question only the last is among them.
    """
    rng = np.random.default_rng([protocol.seed, 1])
    votes: dict[tuple[str, str, str], FixedVote] = {}
    run = _Run("fixed exposure", "fixed", bench, protocol, progress)
    with bench.copy(run.folder) as fw:
        queries = list(dict.fromkeys(q for part in bench.parts for q in part))
        seen = seen_by_users(fw, bench.train, queries)
        answers = dict(zip(queries, seen, strict=True))

        def vote(part: Sequence[str], respond: Respond) -> int:
            feedback: list[Vote | OnAnswer] = []
            for place, query in enumerate(part):
                given = respond(place, answers[query])
                for v in given:
                    key = (query, v.passage_id, str(v.user_id))
                    votes[key] = FixedVote(query, v.passage_id, v.verdict == "helpful")
                feedback += given
            return give_feedback(fw, feedback)

        responds = _responds(bench, protocol, rng, lambda query: query)
        steps = [
            partial(vote, part, respond)
            for part, respond in zip(bench.parts, responds, strict=True)
        ]
        what = (
            "users see the static ranking's hits in every cycle; all rules learn from these votes"
        )
        done = run.cycles(fw, steps, what)
    voted = frozenset(v.passage for v in votes.values())
    return replace(done, voted=voted), list(votes.values())


def _responds(
    bench: "Bench",
    protocol: Protocol,
    rng: np.random.Generator,
    stranger: Callable[[str], str],
) -> list[Respond]:
    """Who responds in each cycle: the people of the stream, or strangers, who are named by `stranger`
    from the question that they ask."""
    qrels, traffic = bench.train.qrels, protocol.traffic
    if traffic is None:

        def of_strangers(
            part: Sequence[str], place: int, seen: Retrieval
        ) -> Sequence[Vote | OnAnswer]:
            query = part[place]
            return protocol.users.feedback(seen, qrels[query], stranger(query), rng)

        return [partial(of_strangers, part) for part in bench.parts]
    drawn = np.random.default_rng([protocol.seed, _PEOPLE_SEED])
    everybody = people(protocol.users, traffic.n_users, traffic.willingness, drawn)

    def of_people(
        part: Sequence[str], askers: Sequence[int], place: int, seen: Retrieval
    ) -> Sequence[Vote | OnAnswer]:
        return everybody[askers[place]].feedback(seen, qrels[part[place]], rng)

    return [
        partial(of_people, part, askers)
        for part, askers in zip(bench.parts, bench.askers, strict=True)
    ]


@dataclass(frozen=True)
class _Run:
    """A run under way: its name, its folder beside the index without votes, and who sees progress."""

    name: str
    folder: str
    bench: "Bench"
    protocol: Protocol
    progress: Progress | None

    def show(self, cycle: int, doing: str, done: int, _: int) -> None:
        """Show what a cycle, from 1, is doing, with `done` of its questions asked."""
        if self.progress is not None:
            sizes = [len(part) for part in self.bench.parts]
            run = f"{self.bench.collection.name}, {self.name}"
            step = f"{run}: cycle {cycle} of {len(sizes)}, {doing}"
            self.progress(step, sum(sizes[: cycle - 1]) + done, sum(sizes))

    def cycles(self, fw: "Flywheel", steps: Sequence[CastVotes], what: str) -> CycledRun:
        """The run after all of its cycles."""
        root = self.bench.folder(self.folder)
        refreshes: list[Refreshed] = []

        def note(report: RefreshReport) -> None:
            found = Refreshed(
                report.parameters, report.encoder, report.reason, live_parameters(root)
            )
            refreshes.append(found)

        found = run_cycles(
            fw,
            self.bench.scored,
            [partial(self._cast, cycle, step) for cycle, step in enumerate(steps, 1)],
            depth=self.protocol.depth,
            tune_after=self.protocol.tune_after,
            refreshed=note,
        )
        return CycledRun(self.name, what, tuple(found), refreshes=tuple(refreshes))

    def _cast(self, cycle: int, step: CastVotes) -> int:
        n_votes = step()
        n_asked = len(self.bench.parts[cycle - 1])
        self.show(cycle, "the index is refreshed and measured", n_asked, n_asked)
        return n_votes


def live_parameters(root: Path) -> dict[str, Any]:
    """The fields of the live version's parameters.json, whatever they are; none before any version."""
    current = read_current(root)
    if current is None:
        return {}
    found: dict[str, Any] = read_json(
        version_folder(root, current.version) / PARAMETERS, dict[str, Any]
    )
    return found
