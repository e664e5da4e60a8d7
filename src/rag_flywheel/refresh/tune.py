"""Tunes the encoder of queries to votes, the second arm of the gate, and fits parameters to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rag_flywheel.curate.groups import held_out
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.build import read_back_parameters
from rag_flywheel.encode.tower import FILE_NAME, require_tunable
from rag_flywheel.encode.tuned import TunedQueries
from rag_flywheel.encoder import Encoder
from rag_flywheel.errors import EncoderError, counted
from rag_flywheel.evaluate.gate import LEAST_JUDGED, Looks, too_soon
from rag_flywheel.evaluate.trial import Gate, Side, gated
from rag_flywheel.improve.fit import calibrated_parameters, propose
from rag_flywheel.improve.teach import MOST_QUERIES, Lessons, soft_targets, teach
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.refresh.panel import Panel
from rag_flywheel.refresh.tuned_encoder import NewEncoder
from rag_flywheel.store.passages import query_digest

_STOP_ONE_IN = 6  # one group in six is for validation only


@dataclass(frozen=True)
class Tuning:
    """The settings of a tuning.

    encoder: of the index; checkpoint: the file that holds its progress; source: how the index reads
    events; looks: the gate's earlier looks at encoders; asked: whether the caller asked for tuning:
    an encoder that cannot be tuned is then an error.
    """

    encoder: Encoder
    checkpoint: Path
    source: Source
    looks: Looks
    asked: bool = True


@dataclass(frozen=True)
class Tuned:
    """The result of a tuning: why, the numbers, and the gate's decision (None: it was not asked).

    n_votes: how many votes there were when an encoder was tuned, 0: none was. new: the tuned encoder,
    when it goes live.
    """

    why: str
    scores: Mapping[str, float] = field(default_factory=dict)
    gate: Gate | None = None
    n_votes: int = 0
    new: NewEncoder | None = None


def tune_encoder(panel: Panel, live: Side, tuning: Tuning, *, staged: Path, n_votes: int) -> Tuned:
    """Tune the encoder to the queries that are not held out, and let the gate compare.

    live: the incumbent; staged: the folder of the next version. Raises EncoderError when the encoder
    cannot be tuned although the caller asked for it.
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
    hashes = sorted(texts, key=lambda h: (len(texts[h]), texts[h]))
    vectors = dict(zip(hashes, encoder.encode([texts[h] for h in hashes]), strict=True))
    examples = panel.builder.past(replace(panel.past, vectors=vectors))
    judges = panel.judges_of(examples, encoder)
    proposal = propose(judges.others, live.parameters)
    if proposal.parameters is None:
        return Tuned(f"not tuned: {proposal.why}", taught.scores, None, n_votes)
    found = proposal.parameters, proposal.likeliest
    parameters = calibrated_parameters(judges.others, *found)
    candidate = Side(read_back_parameters(staged, parameters), judges)
    gate = gated(candidate, live, panel.groups[panel.held_out], n_votes, tuning.looks)
    scores = {**taught.scores, **{f"tuned_{name}": v for name, v in gate.scores.items()}}
    why = f"{taught.why}: {gate.decision.why}"
    if not gate.decision.replaces:
        return Tuned(f"encoder kept, {why}", scores, gate, n_votes)
    why = f"encoder tuned, {why}"
    return Tuned(
        why, scores, gate, n_votes, NewEncoder(queries, candidate.parameters, examples, vectors)
    )


def _too_few_judges(panel: Panel, live: Side) -> str:
    """Why no gate could decide whether a tuned encoder is better; empty when one could."""
    judged = len(np.unique(panel.groups[panel.held_out]))
    if max(judged, len(live.judges.golden.queries)) < LEAST_JUDGED:
        which = counted(judged, "held-out query has", "held-out queries have")
        return f"{which} votes, fewer than the {LEAST_JUDGED} that can decide"
    return ""


def _lessons(panel: Panel, parameters: Parameters) -> Lessons:
    own = panel.examples.given  # an application's own candidates have no vectors here
    taught = ~panel.held_out if own is None else ~panel.held_out & ~own
    rows = np.flatnonzero(taught)[-MOST_QUERIES:]
    examples = panel.examples.at(rows)
    names = [b"stop" + query_digest(panel.past.texts[key.query_hash]) for key in examples.keys]
    return Lessons(
        [panel.past.texts[key.query_hash] for key in examples.keys],
        examples,
        held_out(names, panel.groups[rows], one_in=_STOP_ONE_IN),
        soft_targets(examples, parameters),
        panel.builder.passage_vectors,
    )
