"""The job of a refresh: the index folder, its settings, its encoder, and the progress callback."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_flywheel.config import Config
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.loaded import SharedIndexes
from rag_flywheel.encoder import Encoder
from rag_flywheel.records import Progress
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.store.database import Database

if TYPE_CHECKING:
    from rag_flywheel.deploy.published import Published

Tune = Literal["asked", "auto", "off"]


@dataclass(frozen=True)
class Job:
    """Everything a refresh needs: the index folder, database, settings and encoder, the cache of the
    candidates of queries, and a progress callback.

    indexes: those that the process answers from, None: from none; published: the database of vectors that
    texts are found in, None: in memory.
    """

    root: Path
    database: Database
    config: Config
    load_encoder: Callable[[], Encoder]
    lookups: Lookups
    progress: Progress | None = None
    indexes: SharedIndexes | None = None
    published: "Published | None" = None


@dataclass(frozen=True)
class RunningJob:
    """A Job with its encoder loaded.

    source: how the index reads events, with queries encoded by the untuned encoder. anew: use no
    parameters of an earlier version, and learn them again from the votes behind them that still count.
    tune: whether votes may tune the encoder of queries, and whether the caller asked for it.
    """

    job: Job
    encoder: Encoder
    source: Source
    anew: bool
    tune: Tune
