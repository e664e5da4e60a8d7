"""The job of a refresh: the index folder, its settings and encoder, and how its outcome is reported."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag_flywheel.config import Config
from rag_flywheel.curate.source import Source
from rag_flywheel.encoder import Encoder
from rag_flywheel.records import Outcome, Progress, RefreshReport
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.store.database import Database

New = Literal["new", "kept"]
Tune = Literal["asked", "auto", "off"]


@dataclass(frozen=True)
class Job:
    """Everything a refresh needs: the index folder, database, settings and encoder, the cache of the
    candidates of queries, and a progress callback."""

    root: Path
    database: Database
    config: Config
    load_encoder: Callable[[], Encoder]
    lookups: Lookups
    progress: Progress | None = None


@dataclass(frozen=True)
class RunningJob:
    """A Job with its encoder loaded.

    source: how the index reads events, queries encoded by the encoder as it was made. anew: fit from
    the shipped parameters, ignoring every earlier version. tune: whether votes may teach the encoder
    of queries, and whether somebody asked for it.
    """

    job: Job
    encoder: Encoder
    source: Source
    anew: bool
    tune: Tune


def report_of(
    outcome: Outcome,
    version: str | None,
    reason: str,
    *,
    began: float,
    scores: Mapping[str, float] | None = None,
    parameters: New = "kept",
    encoder: New = "kept",
) -> RefreshReport:
    """What a refresh reports; version: the live one after it; began: when (time.monotonic)."""
    seconds = time.monotonic() - began
    return RefreshReport(outcome, version, parameters, reason, scores or {}, seconds, encoder)
