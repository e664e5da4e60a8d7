"""What votes teach at a refresh: parameters that passed the gate, and a memory of past queries.

It must not know how parameters are fitted or judged, nor when.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rag_flywheel.curate.groups import held_out, query_groups
from rag_flywheel.evaluate.gate import Looks, too_soon
from rag_flywheel.gating import Gate, Judges, gated
from rag_flywheel.improve.examples import NEIGHBOURS
from rag_flywheel.improve.learn import listening, propose
from rag_flywheel.improve.remember import remember
from rag_flywheel.index.dense import nearest_rows
from rag_flywheel.past_queries import Known, Past, golden_of, past_examples
from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import GoldenItem, Progress
from rag_flywheel.serve.loaded import LoadedVersion
from rag_flywheel.store.database import Database


@dataclass(frozen=True)
class Learned:
    """Parameters for the next version and the memory that belongs to them.

    why: a sentence; scores: the numbers behind it; gate: what decided, None: nothing was compared.
    """

    parameters: Parameters
    memory: Memory
    why: str
    scores: Mapping[str, float]
    gate: Gate | None = None

    @property
    def new(self) -> bool:
        """Whether the gate let new parameters in."""
        return self.gate is not None and self.gate.decision.replaces


@dataclass(frozen=True)
class Judging:
    """What a look of the gate takes besides past queries.

    golden: the queries with known answers; read_back: parameters as they are read from the file
    that they were written to; n_votes: those in all that were ever cast; looks: those before.
    """

    golden: Callable[[], Sequence[GoldenItem]]
    read_back: Callable[[Parameters], Parameters]
    n_votes: int
    looks: Looks


def learned_from_votes(
    database: Database,
    version: LoadedVersion,
    past: Past,
    known: Known,
    judging: Judging,
    *,
    progress: Progress | None,
) -> Learned:
    """Parameters and memory for a version that holds the kept parameters, from its past queries.

    What is fitted without the held-out queries replaces the kept parameters if the gate finds it
    better.
    """
    examples = past_examples(database, version, past, known, progress)
    near = nearest_rows(examples.vectors, examples.vectors, 2 * NEIGHBOURS)
    groups = query_groups(examples.vectors, near)
    apart = held_out([key[0] for key in examples.keys], groups)
    kept, gate = version.parameters, None
    why, scores = too_soon(judging.n_votes, judging.looks), dict[str, float]()
    if not why:
        others = examples.at(np.flatnonzero(~apart))
        proposal = propose(others, kept)
        why, scores = proposal.why, dict(proposal.scores)
        if proposal.parameters is not None:
            golden = golden_of(database, version, judging.golden(), others, known)
            judges = Judges(examples.at(np.flatnonzero(apart)), groups[apart], golden, others)
            candidate = judging.read_back(listening(others, proposal.parameters))
            heard = listening(others, kept)
            gate = gated(judges, candidate, heard, judging.n_votes, judging.looks)
            why, scores = gate.decision.why, {**scores, **gate.scores}
            kept = candidate if gate.decision.replaces else kept
    kept = listening(examples, kept)
    return Learned(kept, remember(examples, kept, near), why, scores, gate)


def frozen(
    database: Database,
    version: LoadedVersion,
    past: Past,
    known: Known,
    *,
    progress: Progress | None,
) -> Learned:
    """The kept parameters as they are, and a memory of the past queries that count."""
    examples = past_examples(database, version, past, known, progress)
    memory = remember(examples, version.parameters)
    return Learned(
        version.parameters, memory, "votes after the rollback stay held back until release", {}
    )
