"""Fits parameters to votes, the first arm of the gate; they go live only when they are better."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rag_flywheel.deploy.build import read_back_parameters
from rag_flywheel.evaluate.gate import Looks, too_soon
from rag_flywheel.evaluate.trial import Gate, Side, gated
from rag_flywheel.improve.fit import calibrated_parameters, propose
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.refresh.panel import Panel


@dataclass(frozen=True)
class Weights:
    """The parameters of the next version: new ones, or those of the version before.

    why: a sentence; scores: the numbers behind it; gate: the decision, None: nothing was compared.
    """

    parameters: Parameters
    why: str
    scores: Mapping[str, float]
    gate: Gate | None = None

    @property
    def new(self) -> bool:
        """Whether the gate let new parameters in."""
        return self.gate is not None and self.gate.decision.replaces


def learn_weights(panel: Panel, *, staged: Path, n_votes: int, looks: Looks) -> Weights:
    """Fit parameters to the training queries, and judge them on the held-out ones.

    staged: the folder of the next version, where parameters are written and read back; n_votes: how
    many votes were ever cast; looks: the earlier looks of the gate.
    """
    kept = panel.builder.version.parameters
    if why := too_soon(n_votes, looks):
        return Weights(kept, why, {})
    recent = panel.recent_training
    proposal = propose(recent, kept)
    if proposal.parameters is None:
        return Weights(kept, proposal.why, dict(proposal.scores))
    new, old = (
        calibrated_parameters(recent, given, proposal.likeliest)
        for given in (proposal.parameters, kept)
    )
    candidate = read_back_parameters(staged, new)
    sides = Side(candidate, panel.judges), Side(old, panel.judges)
    gate = gated(*sides, panel.groups[panel.held_out], n_votes, looks)
    scores = {**proposal.scores, **gate.scores}
    parameters = candidate if gate.decision.replaces else kept
    return Weights(parameters, gate.decision.why, scores, gate)
