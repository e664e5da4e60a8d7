"""Weighs another encoder against the live one: both rank held-out and golden questions, and the gate decides.

Each has parameters fitted to the same questions, those that are not held out, as it encodes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rag_flywheel.deploy.build import read_back_parameters
from rag_flywheel.encoder import TextEncoder
from rag_flywheel.errors import counted
from rag_flywheel.evaluate.gate import LEAST_JUDGED, Looks
from rag_flywheel.evaluate.trial import Gate, Side, gated
from rag_flywheel.improve.examples import Examples, Ints
from rag_flywheel.improve.fit import calibrated_parameters, newest, propose
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.refresh.examples import ExampleBuilder
from rag_flywheel.refresh.job import RunningJob
from rag_flywheel.refresh.panel import Panel


@dataclass(frozen=True)
class Change:
    """A change of the encoder, for which a version is built.

    old: the refresh of the live version, by its encoder; forced: whether the new version goes live
    whatever the gate says.
    """

    old: RunningJob
    forced: bool = False


@dataclass(frozen=True)
class Weighed:
    """What came of weighing another encoder: its parameters, and whether it may go live.

    why: a sentence; fitted: the same of its parameters; scores: the numbers behind both; gate: the
    decision, None: there was nothing to compare.
    """

    parameters: Parameters
    why: str
    fitted: str
    allowed: bool
    scores: Mapping[str, float] = field(default_factory=dict)
    gate: Gate | None = None


def not_compared(examples: Examples, shipped: Parameters, why: str, *, allowed: bool) -> Weighed:
    """The parameters under another encoder, fitted to all examples, where there is nothing to compare it
    with."""
    parameters, fitted, scores = _fitted(newest(examples), shipped)
    return Weighed(parameters, why, fitted, allowed, scores)


def weigh(
    panel: Panel,
    examples: Examples,
    builder: ExampleBuilder,
    queries: TextEncoder,
    live: Parameters,
    *,
    staged: Path,
    n_votes: int,
    n_looks: int,
) -> Weighed:
    """Let the gate decide whether the version of `builder`, of another encoder, replaces the live one.

    panel: the past queries as the live version finds them, examples: the same as the other one does, in the
    same order; queries: its encoder of queries; live: the parameters of the live version. The live side has
    those, or ones that are fitted to the same queries as the other side's, whichever judge it the better:
    what the other encoder gains is not what a refresh would gain anyway.
    staged: the folder of the version; n_looks: how many encoders the gate looked at since it let one in.
    """
    training = newest(examples.at(np.flatnonzero(~panel.held_out)))
    parameters, fitted, scores = _fitted(training, builder.version.parameters)
    judges = panel.judges_of(examples, queries, builder)
    candidate = Side(read_back_parameters(staged, parameters), judges)
    incumbent = _best_of_live(panel, live)
    groups, looks = panel.groups[panel.held_out], Looks(n_looks)
    gate = gated(candidate, incumbent, groups, n_votes, looks, other_encoder=True)
    why, allowed = gate.decision.why, gate.decision.replaces
    if gate.decision.outcome == "too few":
        n = len(judges.golden.queries)
        known = counted(n, "question has a known answer", "questions have known answers")
        why = f"{why}; {known}, of {LEAST_JUDGED} that could decide instead"
    return Weighed(candidate.parameters, why, fitted, allowed, {**scores, **gate.scores}, gate)


def _fitted(training: Examples, kept: Parameters) -> tuple[Parameters, str, Mapping[str, float]]:
    """(parameters fitted to these queries, or the kept ones where they are too few; why; the numbers)."""
    proposal = propose(training, kept)
    found = kept if proposal.parameters is None else proposal.parameters
    return (
        calibrated_parameters(training, found, proposal.likeliest),
        proposal.why,
        proposal.scores,
    )


def _best_of_live(panel: Panel, live: Parameters) -> Side:
    """The live version with its parameters or newly fitted ones, whichever held-out queries prefer."""
    training = panel.recent_training
    kept = Side(calibrated_parameters(training, live), panel.judges)
    anew = Side(_fitted(training, live)[0], panel.judges)
    return max(kept, anew, key=_worth)


def _worth(side: Side) -> float:
    """What a side is worth to the judges that decide."""
    votes, golden = side.held_out.log_likelihood, side.golden
    deciding = golden if len(votes) < LEAST_JUDGED <= len(golden) else votes
    return float(deciding.mean()) if len(deciding) else 0.0


def shared_rows(one: Examples, other: Examples) -> tuple[Ints, Ints]:
    """(rows of the one, rows of the other) of the queries that both have, with the same votes: one version
    may lack a passage that was added, or have one that was removed, meanwhile."""
    place = {key: i for i, key in enumerate(other.keys)}
    both = [(i, place[key]) for i, key in enumerate(one.keys) if key in place]
    rows = np.array(both, dtype=np.int64).reshape(-1, 2)
    same = np.ones(len(rows), dtype=bool)
    for name in ("helpful", "harmful"):
        mine, theirs = (
            getattr(e, name).sum(axis=1)[at] for e, at in ((one, rows[:, 0]), (other, rows[:, 1]))
        )
        same &= np.isclose(mine, theirs)
    return rows[same, 0], rows[same, 1]
