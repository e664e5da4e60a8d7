"""What a refresh starts from: the live version, checked and loaded, and its parameters."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from rag_flywheel.deploy import versions as deploy
from rag_flywheel.deploy.current import read_current, reconcile
from rag_flywheel.deploy.loaded import load_parameters, load_version
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.encode.tower import FILE_NAME as TUNED_FILE
from rag_flywheel.errors import CorruptFileError, FlywheelError
from rag_flywheel.rank.parameters import FILE_NAME, Parameters
from rag_flywheel.records import Current
from rag_flywheel.store import journal
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")


@dataclass(frozen=True)
class Live:
    """What is live; manifest is None when nothing is, or when its files are not sound."""

    current: Current | None
    manifest: Manifest | None

    @property
    def frozen_at(self) -> int | None:
        """The event number that evidence is frozen at."""
        return self.current.frozen_at if self.current is not None else None

    def votes_until(self, watermark: int) -> int:
        """The number of the last event whose vote counts for a version built at this watermark."""
        return watermark if self.frozen_at is None else min(watermark, self.frozen_at)


def look(root: Path, database: Database) -> Live:
    """What is live, its files checked and loaded once; for the holder of the refresh lock."""
    try:
        current = read_current(root)
    except CorruptFileError as error:
        log.warning("refresh: %s", error)
        current = None
    if current is None:
        with database.reading() as conn:
            return Live(journal.last_move(conn), None)  # what it was: rollbacks stay in force
    reconcile(root, database)
    problems = deploy.check(root, current.version)
    if problems:
        log.warning("refresh: the live version is not sound, all is built anew: %s", problems[0])
        return Live(current, None)
    manifest = deploy.read_manifest(root, current.version)
    try:
        load_version(
            deploy.version_folder(root, manifest.id),
            version=manifest.id,
            watermark=manifest.watermark,
            dim=manifest.dim,
            n_passages=manifest.n_passages,
        )
    except CorruptFileError as error:  # whole, but not as this release has it
        log.warning("refresh: the live version cannot be read, all is built anew: %s", error)
        return Live(current, None)
    return Live(current, manifest)


@dataclass(frozen=True)
class Kept:
    """What the next version starts from: parameters, and the weights that encode queries, None:
    those of the encoder; tuned: (their file, what they must come to)."""

    parameters: Parameters = field(default_factory=Parameters)
    tuned: tuple[Path, str] | None = None


def live_model(root: Path, live: Live) -> Kept:
    """What the live version ranks by, else the newest older one that is sound, else what is shipped."""
    if live.current is None:
        return Kept()
    older = [v for v in reversed(deploy.list_versions(root)) if v < live.current.version]
    for version in (live.current.version, *older):
        try:
            tuned = deploy.read_manifest(root, version).tuned
            needed = (FILE_NAME, *([TUNED_FILE] if tuned is not None else []))
            wrong = [name for name in needed if not deploy.sound_file(root, version, name)]
            if not wrong:
                folder = deploy.version_folder(root, version)
                weights = None if tuned is None else (folder / TUNED_FILE, tuned)
                return Kept(load_parameters(folder), weights)
            why = f"{version}/{wrong[0]} is missing or not what its manifest says"
        except FlywheelError as error:
            why = str(error)
        log.warning("refresh: parameters not used: %s", why)
    return Kept()
