"""What is live in a folder, and whether a refresh of it is due.

It must not know how versions are built.
"""

import logging
import time
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
from rag_flywheel.store import journal, passages
from rag_flywheel.store import votes as vote_store
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")


@dataclass(frozen=True)
class When:
    """When a refresh is due, if anything changed: at this many new votes, or at this age.

    Neither given: whenever anything changed. Both: when either is reached.
    """

    if_votes: int | None = None
    max_age_s: float | None = None


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


def nothing_to_do(database: Database, found: Live, when: When, *, tune: bool = False) -> str | None:
    """Why a refresh is not due; None when it is. Votes that a release let count again are new.

    tune: whether there is an encoder to tune though nothing is new.
    """
    live = found.manifest
    if live is None:
        return None
    if found.current is not None and found.current.held:
        return f"version {live.id} is held live until release"
    heard = live.votes_until if found.frozen_at is None else live.watermark
    with database.snapshot() as conn:
        votes = vote_store.count_votes(conn, heard)
        changes = passages.count_changes(conn, live.watermark)
        changes += passages.count_without_vector(conn, live.revision)
    age_s = time.time() - live.created
    if tune:
        return None
    if not votes and not changes:
        return "no passage and no vote since the live version was built"
    enough = when.if_votes is not None and votes >= when.if_votes
    old = when.max_age_s is not None and age_s >= when.max_age_s
    if enough or old or when == When():
        return None
    return (
        f"not due: {votes} new votes (asked for: {when.if_votes}), live version {age_s:.0f} s old "
        f"(asked for: {when.max_age_s})"
    )


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
