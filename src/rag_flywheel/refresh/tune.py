"""The second arm of the gate: an encoder of queries taught by votes, with parameters fitted to it.

It must not know how it is taught or judged, nor what becomes of a version.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_flywheel.curate.groups import held_out
from rag_flywheel.curate.source import Encode, Source
from rag_flywheel.encode.tower import require_tunable
from rag_flywheel.encode.tuned import TunedQueries
from rag_flywheel.encoder import Encoder, QueryEncoder
from rag_flywheel.errors import EncoderError
from rag_flywheel.evaluate.gate import LEAST_JUDGED, Looks, too_soon
from rag_flywheel.evaluate.trial import Gate, Judges, Side, gated
from rag_flywheel.improve.examples import Examples, Ints
from rag_flywheel.improve.fit import listening, propose
from rag_flywheel.improve.teach import MOST_QUERIES, Lessons, soft_targets, teach
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import Progress, Vectors
from rag_flywheel.refresh.examples import Past

_APART = 6  # one group in so many only says when to stop
Seen = Callable[[Past], Examples]
JudgesOf = Callable[[Examples, Encode], Judges]


@dataclass(frozen=True)
class Tuning:
    """What tuning takes besides past queries.

    encoder: of the index; file: where taught weights are written and read back from; checkpoint:
    where it keeps how far it is; source: how the index reads events; looks: of this arm, before;
    asked: whether somebody asked for it, else an encoder that cannot be taught is left as it is.
    """

    encoder: Encoder
    file: Path
    checkpoint: Path
    source: Source
    looks: Looks
    asked: bool = True


@dataclass(frozen=True)
class Scene:
    """Past queries as the live encoder sees them: what they are, and who of them judges.

    groups int64 (n,): near-duplicates; apart bool (n,): those held out; seen: makes examples of
    past queries with other vectors; judges: those of examples; passages: {lineages} -> vectors.
    """

    past: Past
    examples: Examples
    groups: Ints
    apart: npt.NDArray[np.bool_]
    seen: Seen
    judges: JudgesOf
    passages: Callable[[Ints], Vectors]


@dataclass(frozen=True)
class Tuned:
    """What came of tuning: why, the numbers, what the gate decided (None: nothing came before it).

    n_votes: how many there were when something was taught, 0: nothing was.
    queries: the taught encoder with the parameters that belong to it, the past queries as it sees
    them and their vectors by hash, when it goes live.
    """

    why: str
    scores: Mapping[str, float] = field(default_factory=dict)
    gate: Gate | None = None
    n_votes: int = 0
    queries: QueryEncoder | None = None
    parameters: Parameters | None = None
    examples: Examples | None = None
    vectors: Mapping[bytes, Vectors] = field(default_factory=dict)


def tuned_by_votes(
    scene: Scene,
    live: Side,
    tuning: Tuning,
    read_back: Callable[[Parameters], Parameters],
    n_votes: int,
    progress: Progress | None,
) -> Tuned:
    """Teach the encoder of queries by what is not held out, and let the gate compare.

    live: what would stay, as the judges see it. Raises EncoderError when the encoder cannot be
    taught, and somebody asked for it.
    """
    if why := too_soon(n_votes, tuning.looks) or _nobody_could_tell(scene, live):
        return Tuned(f"not tuned: {why}")
    lessons = _lessons(scene, live.parameters)
    if why := lessons.too_few:
        return Tuned(f"not tuned: {why}")
    try:
        tower = require_tunable(tuning.encoder).tower()
    except EncoderError as error:
        if tuning.asked:
            raise
        return Tuned(f"not tuned: {error}")
    taught = teach(tower, lessons, tuning.checkpoint, progress)
    if not taught.better:
        return Tuned(f"not tuned: {taught.why}", taught.scores, None, n_votes)
    tower.save(tuning.file)
    queries = TunedQueries(tuning.encoder, tuning.file, tower.revision)
    encode = tuning.source.under(queries).encode_queries
    texts = scene.past.texts
    hashes = sorted(texts, key=lambda h: (len(texts[h]), h))
    vectors = dict(zip(hashes, encode([texts[h] for h in hashes]), strict=True))
    examples = scene.seen(scene.past.under(vectors))
    judges = scene.judges(examples, encode)
    proposal = propose(judges.others, live.parameters)
    if proposal.parameters is None:
        return Tuned(f"not tuned: {proposal.why}", taught.scores, None, n_votes)
    candidate = Side(read_back(listening(judges.others, proposal.parameters)), judges)
    gate = gated(candidate, live, scene.groups[scene.apart], n_votes, tuning.looks)
    scores = {**taught.scores, **{f"tuned_{name}": v for name, v in gate.scores.items()}}
    why = f"{taught.why}: {gate.decision.why}"
    if not gate.decision.replaces:
        return Tuned(f"encoder kept, {why}", scores, gate, n_votes)
    why = f"encoder tuned, {why}"
    found = queries, candidate.parameters, examples, vectors
    return Tuned(why, scores, gate, n_votes, *found)


def _nobody_could_tell(scene: Scene, live: Side) -> str:
    """Why no gate could say whether a taught encoder is better; empty when one could."""
    judged = len(np.unique(scene.groups[scene.apart]))
    if max(judged, len(live.judges.golden.queries)) < LEAST_JUDGED:
        return (
            f"{judged} held-out queries have votes, fewer than the {LEAST_JUDGED} that can decide"
        )
    return ""


def _lessons(scene: Scene, parameters: Parameters) -> Lessons:
    rows = np.flatnonzero(~scene.apart)[-MOST_QUERIES:]
    examples = scene.examples.at(rows)
    names = [b"stop" + key[0] for key in examples.keys]
    return Lessons(
        [scene.past.texts[key[0]] for key in examples.keys],
        examples,
        held_out(names, scene.groups[rows], one_in=_APART),
        soft_targets(examples, parameters),
        scene.passages,
    )
