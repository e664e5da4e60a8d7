"""The job of a refresh: the folder, its settings and encoder, and how its outcome is reported."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag_flywheel.config import Config
from rag_flywheel.curate.source import Source
from rag_flywheel.encoder import Encoder
from rag_flywheel.records import Outcome, Progress, RefreshReport
from rag_flywheel.refresh.examples import Known
from rag_flywheel.refresh.learn import Learned
from rag_flywheel.refresh.start import Live
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.store.database import Database

New = Literal["new", "kept"]


Tune = Literal["asked", "auto", "off"]


ARMS = "weights", "encoder"


@dataclass(frozen=True)
class Job:
    """The index folder that is refreshed, its settings and encoder, what is remembered of its
    queries, and who is told how far it is."""

    root: Path
    database: Database
    config: Config
    load_encoder: Callable[[], Encoder]
    lookups: Lookups
    progress: Progress | None = None


@dataclass(frozen=True)
class RunningJob:
    """A Job under way: its encoder is there, and what is known of queries; anew: parameters are
    learned from the shipped ones, as if no version had been before; tune: whether queries are to be
    encoded by what votes teach, and whether somebody asked for it."""

    root: Path
    database: Database
    encoder: Encoder
    source: Source
    known: Known
    anew: bool
    tune: Tune


def report_of(
    outcome: Outcome,
    live: Live,
    reason: str,
    began: float,
    scores: Mapping[str, float] | None = None,
    learned: Learned | None = None,
) -> RefreshReport:
    """What a refresh reports, with the seconds since it began (monotonic)."""
    version = live.current.version if live.current else None
    seconds = time.monotonic() - began
    parameters: New = "new" if learned is not None and learned.new else "kept"
    tuned = learned.tuned if learned is not None else None
    encoder: New = "new" if tuned is not None and tuned.queries is not None else "kept"
    return RefreshReport(outcome, version, parameters, reason, scores or {}, seconds, encoder)
