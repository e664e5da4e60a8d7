"""Keeps the state of one process up to date, call by call, with the changes of every process.

A version built by a refresh is loaded in the background, while the last state goes on answering.
"""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.follow import Follower
from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import ClosedError, FlywheelError, UnreachableError
from rag_flywheel.records import Current
from rag_flywheel.serve.candidates import warm_up
from rag_flywheel.serve.catch_up import caught_up, initial_state
from rag_flywheel.serve.state import State
from rag_flywheel.serve.texts import Texts
from rag_flywheel.store import forgetting, journal
from rag_flywheel.store.database import ChangedError, Database
from rag_flywheel.store.timeline import Moment, read_moment, read_moment_and_change

log = logging.getLogger("rag_flywheel")
ReadCurrent = Callable[[], Current | None]
LoadLive = Callable[[], tuple[LoadedVersion, int | None]]
_Signature = tuple[int, ...] | None
_TRIES = 5


@dataclass(frozen=True)
class _Live:
    """A state of the version that was live at `signature`.

    file: of the database that it is of: another file, or timeline, has other events.
    n_orders: how many rollbacks, releases and forgotten users there were before it was loaded.
    """

    signature: _Signature
    file: object
    n_orders: int
    state: State


class LiveState:
    """The newest State, loaded whole and swapped in one step; thread-safe.

    read_current names the live version; load_live loads it, with the event number that evidence is
    frozen at; a change of current_file means that another version is live. follower: brings the folder up to
    what is live by the database; None: the folder is where that is decided. texts: where those of its states
    are read, None: in the store.
    """

    def __init__(
        self,
        database: Database,
        source: Source,
        read_current: ReadCurrent,
        load_live: LoadLive,
        current_file: Path,
        follower: Follower | None = None,
        texts: Texts | None = None,
    ) -> None:
        self.texts = Texts(database) if texts is None else texts
        self._follower = follower
        self._database = database
        self._source = source
        self._read_current = read_current
        self._load_live = load_live
        self._current_file = current_file
        self._live: _Live | None = None
        self._closed = False
        self.start_over()
        _states.add(self)

    def start_over(self) -> None:
        """Reset locks and loading, as a forked child must, which has none of the other threads."""
        self._lock = threading.Lock()  # held while the state is exchanged, never while files load
        self._loading = threading.Lock()  # held while files load
        self._loader: threading.Thread | None = None
        self._begun: object = None  # what was loaded in the background last: each is tried once
        self.alone = False  # whether the server of the store could not be reached at the last call

    def state(self) -> State:
        """The state after every event committed before this call, of any process.

        Its version is the live one, unless a refresh has just made another: until that is fetched and
        loaded, the one before answers. When a new live version cannot be, the last one goes on
        serving and the error is logged; it is raised only when there is no last one. While the server of the
        store cannot be reached, the last state goes on, which is logged, unless it was rolled back.
        """
        try:
            state = self._newest()
        except UnreachableError as error:
            if (live := self._live) is None:
                raise
            if live.signature != self._signature() and not self._is_as_live(live):
                raise
            self._log_alone(live.state, error)
            return live.state
        self.alone = False
        return state

    def _newest(self) -> State:
        for _ in range(_TRIES):
            live, signature = self._live, self._signature()
            if live is None or live.signature != signature:
                if live is not None and self._may_go_on(live):
                    self._load_aside(signature)
                else:
                    self.renew()
            live = self._live
            assert live is not None
            moment = self._moment(live)
            if moment is None:
                continue
            if moment == (live.state.timeline, live.state.seq) and self._database.file == live.file:
                return live.state
            if (state := self._caught_up(live)) is not None:
                return state
            log.warning("another state of the database was restored: all is loaded anew")
            self.renew(unless=live)
        raise AssertionError("the database was replaced at every try to read it")

    def _moment(self, live: _Live) -> Moment | None:
        """The state of the database; None: the folder was brought up to another live version."""
        follower = self._follower
        with self._database.reading() as conn:
            if follower is None:
                return read_moment(conn)
            moment, change = read_moment_and_change(conn)
        if not follower.lags(change):
            return moment
        if follower.has_failed(change) or self._may_go_on(live):
            self._load_aside((change, time.monotonic()))
            return moment
        self.renew()
        return None

    def _log_alone(self, state: State, error: UnreachableError) -> None:
        """Say once that questions are answered without the server."""
        if not self.alone:
            fields = {"event": "server_unreachable", "version": state.version.id, "seq": state.seq}
            log.warning(
                "questions are answered from what was loaded at event %d: %s",
                state.seq,
                error,
                extra=fields,
            )
        self.alone = True

    def _caught_up(self, live: _Live) -> State | None:
        """The state after every event so far; None when the database is not the one it was."""
        with self._lock:
            live = self._live or live  # another thread may have exchanged it
            with self._database.snapshot() as conn:
                moment = read_moment(conn)
                later = moment.timeline == live.state.timeline and moment.seq >= live.state.seq
                if not later or self._database.file != live.file:
                    return None
                if moment.seq != live.state.seq:
                    live = replace(
                        live, state=caught_up(live.state, conn, self._source, self._database)
                    )
                    if live.state.texts_at == moment.seq:
                        self.texts.follow(conn)
            self._live = live
            return live.state

    def last(self) -> State | None:
        """The state that was given last, which may be an old one; None: there was none yet."""
        live = self._live
        return None if live is None else live.state

    def renew(self, *, unless: "_Live | None" = None) -> None:
        """Load the live version, unless it is loaded, and answer from it.

        unless: a state that must not go on, whatever version is live: its events are gone.
        Raises the errors of loading when there is no last state to go on with.
        """
        with self._loading:
            if self._follower is not None:
                self._follower.bring_up(anew=unless is not None)
            live = self._live
            if live is not None and live is not unless and live.signature == self._signature():
                return
            began = time.monotonic()
            loaded = self._loaded(last=None if live is unless else live)
            if live is not None:
                warm_up(loaded.state)
            with self._lock:
                self._live = loaded
        _log_loaded(live, loaded, time.monotonic() - began)

    def close(self) -> None:
        """Stop loading in the background, and wait for a load under way; close the database first."""
        with self._lock:
            self._closed = True
            loader = self._loader
        if loader is not None:
            loader.join()
        with suppress(ClosedError):
            self._database.require_open()  # or others go on answering from this state
            return
        self.texts.close()

    def _may_go_on(self, live: _Live) -> bool:
        """Whether the old state may answer while the new version loads: yes after a refresh, while a
        rollback, a release and the forgetting of a user take effect at once."""
        return (
            self._is_as_live(live)
            and self._count_orders() == live.n_orders
            and self._is_of_its_database(live)
        )

    def _is_as_live(self, live: _Live) -> bool:
        """Whether the live version is that of a state or a later one, with evidence up to the same event."""
        try:
            current = self._read_current()
        except FlywheelError:
            return False
        state = live.state
        return (
            current is not None
            and current.version >= (state.version.id or "")
            and current.frozen_at == state.frozen_at
        )

    def _is_of_its_database(self, live: _Live) -> bool:
        with self._database.reading() as conn:
            timeline = read_moment(conn).timeline
        return timeline == live.state.timeline and self._database.file == live.file

    def _count_orders(self) -> int:
        with self._database.snapshot() as conn:
            return journal.count_by_hand(conn) + forgetting.count_done(conn)

    def _load_aside(self, what: object) -> None:
        """Load the live version in the background. what: a name of this attempt, of which each is made
        once."""
        if what == self._begun:
            return
        with self._lock:
            busy = self._loader is not None and self._loader.is_alive()
            if busy or self._closed or what == self._begun:
                return
            self._begun = what
            self._loader = threading.Thread(target=self._renew_aside, name="rag-flywheel-load")
            self._loader.start()

    def _renew_aside(self) -> None:
        try:
            self.renew()
        except FlywheelError:
            pass  # a reader finds the same
        except Exception:
            log.exception("the new live version cannot be served; keeping the last")

    def _loaded(self, last: _Live | None) -> _Live:
        for _ in range(_TRIES):
            signature = self._signature()
            try:
                n_orders = self._count_orders()
                with self._database.reading() as conn:
                    before = read_moment(conn).timeline, self._database.file
                version, frozen_at = self._load_live()
                with self._database.snapshot() as conn:
                    if before != (read_moment(conn).timeline, self._database.file):
                        continue  # a backup was restored, and this version may not be of it
                    state = initial_state(version, frozen_at, conn, self._source, self._database)
                    self.texts.follow(conn)
                return _Live(signature, before[1], n_orders, state)
            except (ClosedError, ChangedError):
                raise
            except FlywheelError as error:
                if signature != self._signature():
                    continue  # another version went live, and this one may have been pruned
                if last is None:
                    raise
                kept = last.state.version.id
                fields = {"event": "version_kept", "version": kept, "error": type(error).__name__}
                log.error(
                    "the new live version cannot be served; keeping the last: %s",
                    error,
                    extra=fields,
                )
                return replace(last, signature=signature)
        raise AssertionError("the live version changed at every try to load it")

    def _signature(self) -> _Signature:
        with disk_errors(self._current_file):
            try:
                stat = os.stat(self._current_file)  # noqa: PTH116 - half the time of Path.stat
            except FileNotFoundError:
                return None
        return (stat.st_ino, stat.st_mtime_ns, stat.st_size)


def _log_loaded(before: _Live | None, loaded: _Live, seconds: float) -> None:
    """Say which version answers from now on, with the same as fields of the record."""
    version, last = loaded.state.version, None if before is None else before.state.version
    fields = {
        "event": "version_loaded" if last is None else "version_swapped",
        "version": version.id,
        "previous": None if last is None else last.id,
        "n_passages": len(version.pids),
        "frozen_at": loaded.state.frozen_at,
        "seconds": round(seconds, 3),
    }
    if last is None:
        log.info("serving %s (loaded in %.2f s)", version.id or "no version", seconds, extra=fields)
    elif last is not version:
        log.info(
            "serving %s instead of %s (loaded in %.2f s)",
            version.id or "no version",
            last.id or "no version",
            seconds,
            extra=fields,
        )


_states: weakref.WeakSet[LiveState] = weakref.WeakSet()


def _after_fork() -> None:
    for live in list(_states):
        live.start_over()


os.register_at_fork(after_in_child=_after_fork)
