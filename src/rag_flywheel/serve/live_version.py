"""Serves the live version of a folder, whose files are checked against its manifest before."""

import logging
from pathlib import Path

from rag_flywheel.config import Config
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.current import live_now, live_of, read_current
from rag_flywheel.deploy.follow import follower_of
from rag_flywheel.deploy.loaded import (
    LoadedVersion,
    SharedIndexes,
    empty_version,
    load_version,
)
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.shared import store_of
from rag_flywheel.deploy.verify import checked_before, note_checked
from rag_flywheel.deploy.versions import CURRENT, check, read_manifest, version_folder
from rag_flywheel.disk import disk_errors
from rag_flywheel.encode.tower import FILE_NAME as TUNED_FILE
from rag_flywheel.encode.tuned import TunedQueries
from rag_flywheel.encoder import Encoder, Encoders, TextEncoder
from rag_flywheel.errors import CorruptFileError, MissingObjectError, UnknownIdError
from rag_flywheel.records import Current
from rag_flywheel.serve.live import LiveState
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.serve.postponed import Postponed
from rag_flywheel.serve.server import Server
from rag_flywheel.serve.texts import Texts
from rag_flywheel.store.database import Database
from rag_flywheel.store.place import text_copy

log = logging.getLogger("rag_flywheel")
_ANY_QUERY = "a"


def server_of(
    root: Path,
    database: Database,
    config: Config,
    encoders: Encoders,
    lookups: Lookups,
    postponed: Postponed,
    indexes: SharedIndexes,
) -> Server:
    """A server that answers queries from the live version of this folder.

    indexes: where it keeps those it answers from, and finds those of the same files.
    """
    source = Source(encoders.get(), config)
    last = LastLoaded(encoders, indexes)
    follower = follower_of(root, database)

    def read_current() -> Current | None:
        return current_of(root) if follower is None else live_now(root, database)

    def load_live() -> tuple[LoadedVersion, int | None]:
        if follower is not None:
            follower.require_version()
        return read_live(root, database, last)

    texts = Texts(database, text_copy(root, database))
    live = LiveState(database, source, read_current, load_live, root / CURRENT, follower, texts)
    return Server(database, config, source, live, lookups, postponed)


def server_at(
    root: Path,
    database: Database,
    config: Config,
    lookups: Lookups,
    version: str,
    last: "LastLoaded",
) -> Server:
    """A server that answers as a version did when it was built: with the votes up to then, whichever is live.

    It is for one use, and records nothing. Raises UnknownIdError, CorruptFileError.
    """
    with disk_errors(root):
        frozen = Current(version, read_manifest(root, version).votes_until)
    source = Source(last.encoders.get(), config)
    live = LiveState(
        database,
        source,
        lambda: frozen,
        lambda: (_read_version(root, database, last, version), frozen.frozen_at),
        root / CURRENT,
    )
    return Server(database, config, source, live, lookups, Postponed(database))


class LastLoaded:
    """Parts of the last loaded version that the next may share: its encoders, and indexes read from the
    same files. encoders: of the index."""

    def __init__(self, encoders: Encoders, indexes: SharedIndexes | None = None) -> None:
        self.encoders = encoders
        self.indexes = SharedIndexes() if indexes is None else indexes
        self._encoder: Encoder | None = None
        self._tuned: TunedQueries | None = None

    def encoder(self, manifest: Manifest) -> Encoder:
        """The encoder that a version was built with; another one than that of the last version has its model
        loaded, so that no question waits for it, and a version whose model is missing goes not live here.

        Raises EncoderMismatchError, EncoderNotFoundError, EncoderError.
        """
        found = self.encoders.of(manifest.encoder, manifest.revision, manifest.dim)
        if self._encoder is not None and found is not self._encoder:
            TextEncoder(found.revision, found.dim, found.encode_queries).encode([_ANY_QUERY])
        self._encoder = found
        return found

    def tuned(self, encoder: Encoder, folder: Path, manifest: Manifest) -> TunedQueries | None:
        """The tuned encoder of queries of a version; None: it uses its own, `encoder`."""
        if manifest.tuned is None:
            return None
        last = self._tuned
        if last is None or last.revision != manifest.tuned or not last.loaded:
            self._tuned = last = TunedQueries(encoder, folder / TUNED_FILE, manifest.tuned)
        return last


def current_of(root: Path) -> Current | None:
    """Which version is live. Raises CorruptFileError, StorageError."""
    with disk_errors(root):
        return read_current(root)


def _log_fallback(named: Current | None, used: Current | None) -> None:
    """Say that another version answers than CURRENT names, which is of another state of the database."""
    if named is None or named == used:
        return
    instead = "no version" if used is None else used.version
    fields = {"event": "version_fallback", "version": named.version, "instead": instead}
    log.warning(
        "version %s is of another state of the database; %s answers instead: run `rag-flywheel refresh`",
        named.version,
        instead,
        extra=fields,
    )


def read_live(root: Path, database: Database, last: LastLoaded) -> tuple[LoadedVersion, int | None]:
    """(the live version, the event number that evidence is frozen at).

    Raises CorruptFileError, EncoderMismatchError, StorageError.
    """
    with disk_errors(root):
        return _read(root, database, last)


def _read(root: Path, database: Database, last: LastLoaded) -> tuple[LoadedVersion, int | None]:
    current = live_of(root, database)
    _log_fallback(read_current(root), current)
    if current is None:
        _require_none_live(root, database)
        return empty_version(last.encoders.get()), None
    try:
        return _read_version(root, database, last, current.version), current.frozen_at
    except UnknownIdError as error:
        raise CorruptFileError(
            f"{root / CURRENT} names version {current.version}, which is not there; run "
            "`rag-flywheel refresh` to build one from the database, or `rag-flywheel rollback ID`"
        ) from error


def _require_none_live(root: Path, database: Database) -> None:
    """Raises MissingObjectError where hosts share versions, and one is live that this folder has not: answers
    without what votes taught, from the database alone, would be slow and thin."""
    live = None if store_of(database) is None else live_now(root, database)
    if live is not None:
        raise MissingObjectError(
            f"version {live.version}, which is live, is not in {root}; expected it to be fetched there: open "
            "the index once without read_only, and see that the object store answers"
        )


def _read_version(root: Path, database: Database, last: LastLoaded, version: str) -> LoadedVersion:
    """A version, its files checked. Raises UnknownIdError, CorruptFileError, EncoderMismatchError."""
    manifest = read_manifest(root, version)
    encoder = last.encoder(manifest)
    checked = checked_before(root, database, version)
    if not checked and (problems := check(root, version)):
        raise CorruptFileError(
            f"version {version} cannot be served: {problems[0]}. Run `rag-flywheel refresh` to "
            "build a new one from the database, or `rag-flywheel rollback` to an earlier one"
        )
    folder = version_folder(root, version)
    queries = last.tuned(encoder, folder, manifest)
    if queries is not None:
        queries.load()
    loaded = load_version(
        folder,
        version=version,
        watermark=manifest.watermark,
        dim=manifest.dim,
        n_passages=manifest.n_passages,
        encoder=encoder,
        queries=queries,
        engine=last.indexes.open(root, manifest),
    )
    if not checked:
        note_checked(root, database, version)
    last.indexes.keep(manifest, loaded)
    return loaded
