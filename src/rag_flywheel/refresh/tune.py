"""The second arm of the gate: an encoder of queries taught by votes, with parameters fitted to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rag_flywheel.curate.groups import held_out
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.build import read_back_parameters
from rag_flywheel.encode.tower import FILE_NAME, require_tunable
from rag_flywheel.encode.tuned import TunedQueries
from rag_flywheel.encoder import Encoder
from rag_flywheel.errors import EncoderError
from rag_flywheel.evaluate.gate import LEAST_JUDGED, Looks, too_soon
from rag_flywheel.evaluate.trial import Gate, Side, gated
from rag_flywheel.improve.fit import calibrated_parameters, propose
from rag_flywheel.improve.teach import MOST_QUERIES, Lessons, soft_targets, teach
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.refresh.panel import Panel
from rag_flywheel.refresh.tuned_encoder import NewEncoder

_STOP_ONE_IN = 6  # one group in so many only says when to stop


@dataclass(frozen=True)
class Tuning:
    """What tuning takes besides past queries.

    encoder: of the index; checkpoint: the file that holds its progress; source: how the index reads
    events; looks: those that the gate took at encoders before; asked: whether somebody asked for it,
    else an encoder that cannot be taught is left as it is.
    """

    encoder: Encoder
    checkpoint: Path
    source: Source
    looks: Looks
    asked: bool = True


@dataclass(frozen=True)
class Tuned:
    """What came of tuning: why, the numbers, what the gate decided (None: nothing came before it).

    n_votes: how many there were when something was taught, 0: nothing was. new: the taught encoder,
    when it goes live.
    """

    why: str
    scores: Mapping[str, float] = field(default_factory=dict)
    gate: Gate | None = None
    n_votes: int = 0
    new: NewEncoder | None = None


def tune_encoder(panel: Panel, live: Side, tuning: Tuning, *, staged: Path, n_votes: int) -> Tuned:
    """Teach the encoder of queries by what is not held out, and let the gate compare.

    live: what would stay, as the judges see it; staged: the folder of the next version. Raises
    EncoderError when the encoder cannot be taught, and somebody asked for it.
    """
    if why := too_soon(n_votes, tuning.looks) or _too_few_judges(panel, live):
        return Tuned(f"not tuned: {why}")
    lessons = _lessons(panel, live.parameters)
    if why := lessons.too_few:
        return Tuned(f"not tuned: {why}")
    try:
        tower = require_tunable(tuning.encoder).tower()
    except EncoderError as error:
        if tuning.asked:
            raise
        return Tuned(f"not tuned: {error}")
    taught = teach(tower, lessons, tuning.checkpoint, panel.builder.progress)
    if not taught.better:
        return Tuned(f"not tuned: {taught.why}", taught.scores, None, n_votes)
    file = staged / FILE_NAME
    tower.save(file)
    queries = TunedQueries(tuning.encoder, file, tower.revision)
    encoder = tuning.source.under(queries).queries
    texts = panel.past.texts
    hashes = sorted(texts, key=lambda h: (len(texts[h]), h))
    vectors = dict(zip(hashes, encoder.encode([texts[h] for h in hashes]), strict=True))
    examples = panel.builder.past(panel.past.under(vectors))
    judges = panel.judges_of(examples, encoder)
    proposal = propose(judges.others, live.parameters)
    if proposal.parameters is None:
        return Tuned(f"not tuned: {proposal.why}", taught.scores, None, n_votes)
    parameters = read_back_parameters(
        staged, calibrated_parameters(judges.others, proposal.parameters)
    )
    candidate = Side(parameters, judges)
    gate = gated(candidate, live, panel.groups[panel.held_out], n_votes, tuning.looks)
    scores = {**taught.scores, **{f"tuned_{name}": v for name, v in gate.scores.items()}}
    why = f"{taught.why}: {gate.decision.why}"
    if not gate.decision.replaces:
        return Tuned(f"encoder kept, {why}", scores, gate, n_votes)
    why = f"encoder tuned, {why}"
    return Tuned(why, scores, gate, n_votes, NewEncoder(queries, parameters, examples, vectors))


def _too_few_judges(panel: Panel, live: Side) -> str:
    """Why no gate could say whether a taught encoder is better; empty when one could."""
    judged = len(np.unique(panel.groups[panel.held_out]))
    if max(judged, len(live.judges.golden.queries)) < LEAST_JUDGED:
        return (
            f"{judged} held-out queries have votes, fewer than the {LEAST_JUDGED} that can decide"
        )
    return ""


def _lessons(panel: Panel, parameters: Parameters) -> Lessons:
    rows = np.flatnonzero(~panel.held_out)[-MOST_QUERIES:]
    examples = panel.examples.at(rows)
    names = [b"stop" + key.query_hash for key in examples.keys]
    return Lessons(
        [panel.past.texts[key.query_hash] for key in examples.keys],
        examples,
        held_out(names, panel.groups[rows], one_in=_STOP_ONE_IN),
        soft_targets(examples, parameters),
        panel.builder.passage_vectors,
    )
