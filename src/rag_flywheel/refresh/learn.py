"""What votes teach at a refresh: parameters that passed the gate, and a memory of past queries.

It must not know how parameters are fitted or judged, nor when.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from rag_flywheel.curate.groups import held_out, query_groups
from rag_flywheel.curate.source import Encode
from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.encoder import QueryEncoder
from rag_flywheel.evaluate.gate import Looks, too_soon
from rag_flywheel.evaluate.gate_file import gate_text
from rag_flywheel.evaluate.trial import Gate, Judges, Side, gated
from rag_flywheel.improve.examples import Examples, Ints
from rag_flywheel.improve.fit import listening, newest, propose
from rag_flywheel.improve.propagate import remember
from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import GoldenItem, Judgment, Progress, Vectors
from rag_flywheel.refresh.examples import Known, Past, fit_to_judge, golden_of, past_examples
from rag_flywheel.refresh.tune import Scene, Tuned, Tuning, tuned_by_votes
from rag_flywheel.serve.state import bare_state
from rag_flywheel.store.database import Database


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


@dataclass(frozen=True)
class Judging:
    """What a look of the gate takes besides past queries.

    golden: the queries with known answers; encode: their vectors, as the live version has them;
    read_back: parameters as they are read from the file that they were written to; n_votes: those in
    all that were ever cast; looks: those before; tuning: what it takes to tune, None: it is not due.
    """

    golden: Callable[[], Sequence[GoldenItem]]
    encode: Encode
    read_back: Callable[[Parameters], Parameters]
    n_votes: int
    looks: Looks
    tuning: Tuning | None = None


def learned_from_votes(
    database: Database,
    version: LoadedVersion,
    past: Past,
    base: Mapping[bytes, Vectors],
    known: Known,
    judging: Judging,
    *,
    progress: Progress | None,
) -> Learned:
    """Parameters and memory for a version that holds the kept parameters, from its past queries.

    What is fitted without the held-out queries replaces the kept parameters if the gate finds it
    better. base: vectors of past queries under the encoder as it was made, whatever was taught
    since: by those near-duplicates are told, so that who judges stays the same.
    """
    examples = past_examples(database, version, past, known, progress)
    groups, apart = _apart(examples, past, base)
    others = examples.at(np.flatnonzero(~apart))
    recent = newest(others)  # one object, that its neighbours are looked for once
    kept, gate, tuned = version.parameters, None, None
    n_votes = judging.n_votes

    @cache
    def golden() -> list[GoldenItem]:
        items = judging.golden()
        return fit_to_judge(items, _vectors(items, judging.encode), others.vectors)

    def judges_of(seen: Examples, encode: Encode) -> Judges:
        vectors = _vectors(golden(), encode)
        return Judges(
            seen.at(np.flatnonzero(apart)),
            golden_of(database, version, golden(), vectors, known),
            others if seen is examples else seen.at(np.flatnonzero(~apart)),
        )

    @cache
    def judges() -> Judges:
        return judges_of(examples, judging.encode)

    why, scores = too_soon(n_votes, judging.looks), dict[str, float]()
    if not why:
        proposal = propose(recent, kept)
        why, scores = proposal.why, dict(proposal.scores)
        if proposal.parameters is not None:
            candidate = judging.read_back(listening(recent, proposal.parameters))
            sides = Side(candidate, judges()), Side(listening(recent, kept), judges())
            gate = gated(*sides, groups[apart], n_votes, judging.looks)
            why, scores = gate.decision.why, {**scores, **gate.scores}
            kept = candidate if gate.decision.replaces else kept
    if judging.tuning is not None:
        with database.snapshot() as conn:
            heirs = bare_state(version, conn).heirs
        scene = Scene(
            past,
            examples,
            groups,
            apart,
            seen=lambda taught: past_examples(database, version, taught, known, progress),
            judges=judges_of,
            passages=lambda rows: version.dense.vectors(
                np.array([heirs.get(p, p) for p in rows.tolist()], dtype=np.int64)
            ),
        )
        live = Side(listening(recent, kept), judges())
        tuned = tuned_by_votes(scene, live, judging.tuning, judging.read_back, n_votes, progress)
        scores |= tuned.scores
        kept, examples = tuned.parameters or kept, tuned.examples or examples
    kept = listening(examples, kept)
    return Learned(kept, remember(examples, kept), why, scores, gate, tuned, past.every)


def _apart(
    examples: Examples, past: Past, base: Mapping[bytes, Vectors]
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """(the group of each query, int64 (n,); which ones are held out)."""
    keys = [key[0] for key in examples.keys]
    if not keys:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_)
    if base is past.vectors:
        groups = query_groups(examples.vectors, examples.near)
    else:
        groups = query_groups(np.stack([base[key] for key in keys]))
    return groups, held_out(keys, groups)


def _vectors(items: Sequence[GoldenItem], encode: Encode) -> dict[bytes, Vectors]:
    texts = {item.query_hash: item.query for item in items}
    return dict(zip(texts, encode(list(texts.values())), strict=True)) if texts else {}


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
    why = "votes after the rollback stay held back until release"
    return Learned(version.parameters, memory, why, {}, judged=past.every)
