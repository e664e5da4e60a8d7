"""Learns weights again from the votes that the live ones rest on, without those that were deleted.

Nothing new is tested, so it is no look of the gate. It must not know who was forgotten.
"""

from dataclasses import dataclass
from pathlib import Path

from rag_flywheel.deploy.build import read_back_parameters
from rag_flywheel.evaluate.trial import Gate, Side, gated
from rag_flywheel.improve.fit import calibrated_parameters, propose
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.refresh.panel import Panel


@dataclass(frozen=True)
class LearnedAgain:
    """The weights that were learned again; None: the remaining votes do not bear them out, and why.

    gate: the comparison with the shipped weights, None: nothing was compared.
    """

    parameters: Parameters | None
    why: str
    gate: Gate | None = None


def learn_again(panel: Panel, *, staged: Path) -> LearnedAgain:
    """Fit weights to the training queries of the votes that the live ones rest on; they stay where
    held-out queries say that they are better than the shipped ones.

    panel: of those votes alone, in a version with the shipped weights; staged: the folder of the next
    version, where parameters are written and read back.
    """
    shipped, recent = panel.builder.version.parameters, panel.recent_training
    proposal = propose(recent, shipped)
    if proposal.parameters is None:
        return LearnedAgain(None, f"weights not learned again: {proposal.why}")
    new, old = (
        calibrated_parameters(recent, given, proposal.likeliest)
        for given in (proposal.parameters, shipped)
    )
    candidate = read_back_parameters(staged, new)
    sides = Side(candidate, panel.judges), Side(old, panel.judges)
    gate = gated(*sides, panel.groups[panel.held_out], 0, None)
    if not gate.decision.replaces:
        return LearnedAgain(None, f"weights withdrawn: {gate.decision.why}", gate)
    return LearnedAgain(candidate, f"weights learned again: {gate.decision.why}", gate)
