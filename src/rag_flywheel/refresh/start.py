"""Finds what a refresh starts from: the live version and its parameters."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rag_flywheel.deploy import versions as deploy
from rag_flywheel.deploy.current import live_now, read_current, reconcile
from rag_flywheel.deploy.loaded import load_parameters
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.shared import store_of
from rag_flywheel.deploy.verify import checked_before, note_checked, version_problems
from rag_flywheel.encode.tower import FILE_NAME as TUNED_FILE
from rag_flywheel.encoder import Encoder
from rag_flywheel.errors import CorruptFileError, FlywheelError, NewerFormatError, UnknownIdError
from rag_flywheel.rank.parameters import FILE_NAME, FITTED, Parameters
from rag_flywheel.rank.raters import FILE_NAME as RATERS_FILE
from rag_flywheel.rank.raters import RaterWeight, load_raters
from rag_flywheel.records import Current
from rag_flywheel.store import journal
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")


@dataclass(frozen=True)
class Live:
    """The live version; manifest is None when there is none, or when its files are damaged."""

    current: Current | None
    manifest: Manifest | None

    @property
    def version(self) -> str | None:
        """The id of the live version."""
        return self.current.version if self.current is not None else None

    @property
    def frozen_at(self) -> int | None:
        """The event number that evidence is frozen at."""
        return self.current.frozen_at if self.current is not None else None

    def votes_until(self, watermark: int) -> int:
        """The number of the last event whose vote counts for a version built at this watermark."""
        return watermark if self.frozen_at is None else min(watermark, self.frozen_at)


def read_live(root: Path, database: Database) -> Live:
    """The live version, from CURRENT, or the database where hosts share versions, and the manifest alone; no
    other file is read.

    Call only while holding the refresh lock.
    """
    shared = store_of(database) is not None
    try:
        current = live_now(root, database) if shared else read_current(root)
    except CorruptFileError as error:
        log.warning("refresh: %s", error)
        current = None
    if current is None:
        with database.reading() as conn:
            return Live(journal.last_live_change(conn), None)  # rollbacks stay in force
    reconcile(root, database)
    try:
        return Live(current, deploy.read_manifest(root, current.version))
    except (CorruptFileError, NewerFormatError, UnknownIdError) as error:
        return _unsound(current, str(error))


def sound(root: Path, database: Database, live: Live, *, served: bool) -> Live:
    """The same, without its manifest when a file of the live version does not match it.

    Its files are hashed unless they have not changed since that was last done. served: the version goes
    on serving, so they must be readable too, and are read.
    """
    if live.current is None or live.manifest is None:
        return live
    version = live.current.version
    if checked_before(root, database, version):
        return live
    problems = version_problems(root, version, database) if served else deploy.check(root, version)
    if problems:
        return _unsound(live.current, problems[0])
    if served:
        note_checked(root, database, version)
    return live


def _unsound(current: Current, problem: str) -> Live:
    log.warning("refresh: the live version is not sound, all is built anew: %s", problem)
    return Live(current, None)


@dataclass(frozen=True)
class Model:
    """The model that the next version starts from.

    tuned: (file, revision) of the tuned weights that encode queries, None: the encoder's own.
    lost: whether there were versions, none of which has a model that can be read; raters: the users
    who voted. learned_until: the last event whose vote the weights were fitted to, None: they are shipped.
    """

    parameters: Parameters = field(default_factory=Parameters)
    tuned: tuple[Path, str] | None = None
    lost: bool = False
    raters: Mapping[str, RaterWeight] = field(default_factory=dict)
    learned_until: int | None = None


def live_model(root: Path, live: Live, encoder: Encoder) -> Model:
    """The model of the live version, else of the newest older sound one, else the shipped one.

    encoder: of the index; what was learned of the vectors of another one is not used.
    """
    if live.current is None:
        return Model()
    older = [v for v in reversed(deploy.list_versions(root)) if v < live.current.version]
    for version in (live.current.version, *older):
        try:
            manifest = deploy.read_manifest(root, version)
            if (manifest.revision, manifest.dim) != (encoder.revision, encoder.dim):
                continue
            tuned = manifest.tuned
            needed = (FILE_NAME, RATERS_FILE, *([TUNED_FILE] if tuned is not None else []))
            wrong = [name for name in needed if not deploy.sound_file(root, version, name)]
            if not wrong:
                folder = deploy.version_folder(root, version)
                weights = None if tuned is None else (folder / TUNED_FILE, tuned)
                parameters = load_parameters(folder)
                until = manifest.learned_until or manifest.votes_until
                learned = until if parameters.source == FITTED else None
                return Model(parameters, weights, raters=load_raters(folder), learned_until=learned)
            why = f"{version}/{wrong[0]} is missing or not what its manifest says"
        except FlywheelError as error:
            why = str(error)
        log.warning("refresh: parameters not used: %s", why)
    return Model(lost=True)
