"""What votes teach at a refresh: parameters that passed the gate, and a memory of past queries.

It must not know how parameters are fitted or judged, nor when.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_flywheel.deploy.build import read_back_parameters
from rag_flywheel.encoder import QueryEncoder
from rag_flywheel.evaluate.gate import Looks, too_soon
from rag_flywheel.evaluate.gate_file import gate_text
from rag_flywheel.evaluate.trial import Gate, Side, gated
from rag_flywheel.improve.fit import listening, propose
from rag_flywheel.improve.propagate import remember
from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import Judgment
from rag_flywheel.refresh.examples import ExampleBuilder
from rag_flywheel.refresh.panel import Panel
from rag_flywheel.refresh.past import Past
from rag_flywheel.refresh.tune import Tuned, Tuning, tune_encoder


@dataclass(frozen=True)
class Learned:
    """Parameters for the next version and the memory that belongs to them.

    why: a sentence; scores: the numbers behind it; gate: what decided, None: nothing was compared;
    tuned: what came of tuning the encoder of queries, None: it was not to be tuned; judged: all
    judgments on past queries.
    """

    parameters: Parameters
    memory: Memory
    why: str
    scores: Mapping[str, float]
    gate: Gate | None = None
    tuned: Tuned | None = None
    judged: Sequence[Judgment] = ()

    @property
    def gate_text(self) -> str:
        """What the gate weighed and decided, as it is kept in a version: JSON."""
        tuned = self.tuned
        return gate_text(self.why, self.gate, None if tuned is None else (tuned.why, tuned.gate))

    @property
    def queries(self) -> QueryEncoder | None:
        """What votes taught to encode queries, None: nothing new."""
        return None if self.tuned is None else self.tuned.queries

    @property
    def new(self) -> bool:
        """Whether the gate let new parameters in."""
        gates = (self.gate, self.tuned.gate if self.tuned is not None else None)
        return any(gate is not None and gate.decision.replaces for gate in gates)


def learn(
    panel: Panel,
    *,
    staged: Path,
    n_votes: int,
    looks: Looks,
    tuning: Tuning | None,
) -> Learned:
    """Parameters and memory for the version that the panel's examples were built in.

    What is fitted without the held-out queries replaces the kept parameters if the gate finds it
    better. staged: the folder of the next version, where parameters are written and read back;
    n_votes: how many were ever cast; looks: those that the gate took before; tuning: what it takes
    to tune the encoder of queries, None: it is not due.
    """
    kept, gate, tuned = panel.builder.version.parameters, None, None
    why, scores = too_soon(n_votes, looks), dict[str, float]()
    if not why:
        recent = panel.recent_teachers
        proposal = propose(recent, kept)
        why, scores = proposal.why, dict(proposal.scores)
        if proposal.parameters is not None:
            candidate = read_back_parameters(staged, listening(recent, proposal.parameters))
            sides = Side(candidate, panel.judges), Side(listening(recent, kept), panel.judges)
            gate = gated(*sides, panel.groups[panel.held_out], n_votes, looks)
            why, scores = gate.decision.why, {**scores, **gate.scores}
            kept = candidate if gate.decision.replaces else kept
    examples = panel.examples
    if tuning is not None:
        live = Side(listening(panel.recent_teachers, kept), panel.judges)
        tuned = tune_encoder(panel, live, tuning, staged=staged, n_votes=n_votes)
        scores |= tuned.scores
        kept, examples = tuned.parameters or kept, tuned.examples or examples
    kept = listening(examples, kept)
    memory = remember(examples, kept)
    return Learned(kept, memory, why, scores, gate, tuned, panel.past.every)


def learn_nothing(builder: ExampleBuilder, past: Past) -> Learned:
    """The kept parameters as they are, and a memory of the past queries that count."""
    parameters = builder.version.parameters
    memory = remember(builder.past(past), parameters)
    why = "votes after the rollback stay held back until release"
    return Learned(parameters, memory, why, {}, judged=past.every)
