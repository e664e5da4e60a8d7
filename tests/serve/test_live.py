"""While a new version loads, the last one answers with every event in it; then the new one does.

What loads waits at a gate, so that each test says how far a load is.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage, restore
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy import restore as restoring
from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.deploy.versions import CURRENT
from rag_flywheel.encode.encoder_slot import OneEncoder
from rag_flywheel.errors import ClosedError, CorruptFileError, StorageError
from rag_flywheel.records import Hit
from rag_flywheel.serve.answers import Request
from rag_flywheel.serve.live import LiveState
from rag_flywheel.serve.live_version import LastLoaded, current_of, read_live
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.serve.server import Server
from rag_flywheel.store.database import Database
from rag_flywheel.store.place import open_database

TEXTS = [f"shared topic{i} topic{i + 1}" for i in range(40)]
QUERY = "shared topic3"
WAIT_S = 20.0


@dataclass
class Gate:
    """What loads versions, when it is let; in a forked child always."""

    load: Callable[[], tuple[LoadedVersion, int | None]]
    open: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    errors: list[Exception] = field(default_factory=list)
    owner: int = field(default_factory=os.getpid)
    n_loads: int = 0

    def __call__(self) -> tuple[LoadedVersion, int | None]:
        self.n_loads += 1
        self.reached.set()
        if os.getpid() == self.owner:
            assert self.open.wait(WAIT_S)
        if self.errors:
            raise self.errors.pop()
        return self.load()


@dataclass
class Reader:
    """One process's way to answer, without the rest of a Flywheel."""

    database: Database
    live: LiveState
    server: Server
    gate: Gate

    def hits(self, query: str = QUERY) -> list[Hit]:
        return list(self.server.retrieve([query], Request(8, record=False))[0].hits)

    def version(self) -> str | None:
        return self.server.retrieve([QUERY], Request(8, record=False))[0].version

    def loaders(self) -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "rag-flywheel-load"]

    def settle(self) -> None:
        """Let what is loading load."""
        self.gate.open.set()
        for thread in self.loaders():
            thread.join(WAIT_S)


@pytest.fixture
def fw(tmp_path: Path) -> Iterator[Flywheel]:
    config = Config(encoder="", keep_versions=2)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(Passage(f"p{i}", text) for i, text in enumerate(TEXTS))
        assert fw.refresh().outcome == "promoted"
        yield fw


@pytest.fixture
def reader(fw: Flywheel, tmp_path: Path) -> Iterator[Reader]:
    """A reader that answered from the first version; the gate is shut."""
    root, encoder = tmp_path / "kb", WordEncoder()
    database, last = open_database(root), LastLoaded(OneEncoder(encoder))
    source = Source(encoder, fw.config)
    gate = Gate(lambda: read_live(root, database, last))
    live = LiveState(database, source, lambda: current_of(root), gate, root / CURRENT)
    made = Reader(database, live, Server(database, fw.config, source, live, Lookups(64)), gate)
    gate.open.set()
    made.hits()
    gate.open.clear()
    gate.reached.clear()
    yield made
    gate.open.set()
    database.close()
    live.close()
    assert made.loaders() == []


def vote(fw: Flywheel, user: str, query: str = QUERY, place: int = 0) -> None:
    shown = fw.retrieve(query)
    fw.feedback(shown.id, shown.hits[place].passage_id, "helpful", user_id=user)


def voted(hits: list[Hit]) -> set[int]:
    return {v for hit in hits for v in hit.explanation.votes}


def new_version(fw: Flywheel, name: str = "more") -> str:
    fw.add([Passage(name, f"quite other {name}")])
    return str(fw.refresh().version)


def test_every_event_is_in_the_next_answer_while_a_version_loads(
    fw: Flywheel, reader: Reader
) -> None:
    old = reader.version()
    new = new_version(fw)
    assert reader.version() == old
    assert reader.gate.reached.wait(WAIT_S)
    fw.add([Passage("fresh", "brandnew thing")])
    assert reader.hits("brandnew thing")[0].passage_id == "fresh"
    fw.add([Passage("fresh", "changed altogether")])
    assert reader.hits("changed altogether")[0].text == "changed altogether"
    fw.remove(["fresh"])
    assert "fresh" not in [hit.passage_id for hit in reader.hits("changed altogether")]
    for n in range(5):
        before = voted(reader.hits())
        vote(fw, f"user{n}", place=n)
        assert len(voted(reader.hits()) - before) == 1
        assert reader.version() == old
    known = voted(reader.hits())
    assert reader.gate.n_loads == 2
    reader.settle()
    assert reader.version() == new
    assert voted(reader.hits()) == known
    assert reader.hits("quite other more")[0].passage_id == "more"
    expected = fw.retrieve(QUERY, record=False).hits
    assert [(h.passage_id, h.score) for h in reader.hits()] == [
        (h.passage_id, pytest.approx(h.score, abs=1e-5)) for h in expected
    ]


def test_one_thread_loads_and_no_other_waits(fw: Flywheel, reader: Reader) -> None:
    old, new = reader.version(), new_version(fw)
    with ThreadPoolExecutor(4) as pool:  # returns while the gate is shut: nobody waits for it
        versions = list(pool.map(lambda _: reader.version(), range(40)))
    assert set(versions) == {old}
    assert (len(reader.loaders()), reader.gate.n_loads) == (1, 2)
    reader.settle()
    assert (reader.version(), reader.gate.n_loads) == (new, 2)


def test_a_version_that_comes_while_one_loads_is_loaded_after_it(
    fw: Flywheel, reader: Reader
) -> None:
    old, first = reader.version(), new_version(fw)
    assert reader.version() == old
    assert reader.gate.reached.wait(WAIT_S)
    second, third = new_version(fw, "second"), new_version(fw, "third")
    assert reader.version() == old  # its folder is gone: two are kept
    assert old not in {v.id for v in fw.versions()}
    reader.settle()
    for _ in range(2):
        reader.version()
        reader.settle()
    assert first < second < third == reader.version()


@pytest.mark.parametrize("loading", [False, True], ids=["at rest", "while a version loads"])
def test_a_rollback_and_a_release_act_at_once(loading: bool, fw: Flywheel, reader: Reader) -> None:
    vote(fw, "early")
    fw.refresh()
    reader.version()
    reader.settle()
    reader.gate.open.clear()
    reader.gate.reached.clear()
    first = reader.version()
    early = voted(reader.hits())
    vote(fw, "late", place=1)
    assert voted(reader.hits()) > early
    if loading:
        new_version(fw)
        assert reader.version() == first
        assert reader.gate.reached.wait(WAIT_S)
    fw.rollback(first)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(reader.hits)  # it has to wait for what loads
        assert reader.gate.reached.wait(WAIT_S)
        reader.gate.open.set()
        assert voted(answer.result(WAIT_S)) == early
    assert reader.version() == first
    fw.release()
    assert voted(reader.hits()) > early
    assert reader.loaders() == []


def test_a_rollback_and_its_release_that_nobody_saw_act_at_once(
    fw: Flywheel, reader: Reader
) -> None:
    reader.gate.open.set()
    first, second = reader.version(), new_version(fw)
    fw.rollback(first)
    fw.release()
    assert reader.version() == first
    fw.rollback(second)
    fw.release()
    assert reader.version() == second
    fw.rollback(first)
    fw.release()
    third = new_version(fw, "third")
    assert reader.version() == third
    assert reader.loaders() == []


def test_what_was_learned_from_a_forgotten_user_answers_no_more(
    fw: Flywheel, reader: Reader
) -> None:
    vote(fw, "ann")
    old = reader.version()
    reader.gate.open.set()
    fw.forget("ann")
    assert reader.version() == fw.versions()[0].id != old
    assert voted(reader.hits()) == set()


@pytest.mark.parametrize("error", [CorruptFileError("no good"), MemoryError("no room")])
def test_a_version_that_cannot_be_loaded_is_tried_once(
    error: Exception, fw: Flywheel, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    old = reader.version()
    new_version(fw)
    reader.gate.errors = [error]
    reader.gate.open.set()
    with caplog.at_level(logging.ERROR, "rag_flywheel"):
        for n in range(20):
            assert reader.version() == old
            reader.settle()
            vote(fw, f"user{n}", place=n % 8)
            assert len(voted(reader.hits())) == n + 1
    said = [r for r in caplog.records if "cannot be served; keeping the last" in r.message]
    assert len(said) == 1
    assert reader.gate.n_loads == 2
    third = new_version(fw, "third")
    reader.version()
    reader.settle()
    assert reader.version() == third


def test_close_ends_what_is_loading(fw: Flywheel, reader: Reader) -> None:
    new_version(fw)
    reader.version()
    assert reader.gate.reached.wait(WAIT_S)
    (loader,) = reader.loaders()
    assert not loader.daemon
    closing = threading.Thread(target=lambda: (reader.database.close(), reader.live.close()))
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()  # it waits for what loads
    reader.gate.open.set()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    assert not loader.is_alive()
    with pytest.raises(ClosedError):
        reader.hits()
    assert reader.loaders() == []


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_child_forked_while_a_version_loads_loads_it_itself(fw: Flywheel, reader: Reader) -> None:
    old, new = reader.version(), new_version(fw)
    assert reader.version() == old
    assert reader.gate.reached.wait(WAIT_S)
    child = os.fork()
    if child == 0:
        said = 1
        try:
            assert reader.version() in {old, new}
            reader.settle()
            assert reader.version() == new
            assert reader.loaders() == []
            said = 7
        finally:
            os._exit(said)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert reader.version() == old
    reader.settle()
    assert reader.version() == new


def test_ones_own_refresh_answers_when_it_returns(fw: Flywheel) -> None:
    with Flywheel.open(fw._root, encoder=WordEncoder()) as other:
        for n in range(3):
            other.retrieve(QUERY, record=False)
            new = new_version(fw, f"more{n}")
            assert fw.retrieve(QUERY, record=False).version == new
            assert other.refresh().outcome == "unchanged"  # which looks at what is live
            assert other.retrieve(QUERY, record=False).version == new


def test_indexes_of_the_same_files_are_not_read_again(fw: Flywheel, reader: Reader) -> None:
    reader.gate.open.set()
    before = reader.live.state().version
    vote(fw, "ann")
    fw.refresh()
    reader.live.renew()
    after = reader.live.state().version
    assert after.id != before.id
    assert after.engine is before.engine
    assert len(after.memory.rows) == 1 != len(before.memory.rows)
    new_version(fw)
    reader.live.renew()
    third = reader.live.state().version
    assert third.engine is not after.engine
    assert len(third.pids) == len(after.pids) + 1


@pytest.mark.parametrize("what", ["an older version", "an earlier vote"])
def test_what_is_set_by_hand_acts_at_once(fw: Flywheel, reader: Reader, what: str) -> None:
    """The journal does not say so."""
    reader.gate.open.set()
    first = reader.version()
    vote(fw, "early")
    vote(fw, "late", place=1)
    new_version(fw)
    reader.version()
    reader.settle()
    second = reader.version()
    assert second != first
    counted = voted(reader.hits())
    assert len(counted) == 2
    text = f"{first}\n" if what == "an older version" else f"{second} {min(counted)}\n"
    (fw._root / CURRENT).write_text(text)
    found = reader.hits()
    if what == "an older version":
        assert reader.version() == first
    else:
        assert voted(found) == {min(counted)}


def test_a_removed_fresh_text_is_in_no_state(fw: Flywheel, reader: Reader) -> None:
    fw.add([Passage("fresh", "brandnew thing"), Passage("other", "brandnew too")])
    assert int(reader.live.state().fresh.present.sum()) == 2
    fw.remove(["fresh"])
    assert int(reader.live.state().fresh.present.sum()) == 1
    fw.remove(["p3"])
    state = reader.live.state()
    assert int(state.alive.sum()) == len(TEXTS) - 1


def test_a_database_that_is_restored_while_a_version_loads_answers_by_its_own(
    fw: Flywheel, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the restore died before it said which version is live."""
    old = reader.version()
    fw.backup(tmp_path / "saved")
    new = new_version(fw)
    load = reader.gate.load

    def dies(*_: object) -> None:
        raise OSError("died")

    def load_and_restore() -> tuple[LoadedVersion, int | None]:
        reader.gate.load = load
        loaded = load()
        with pytest.raises(StorageError):
            restore(tmp_path / "saved", tmp_path / "kb")
        return loaded

    monkeypatch.setattr(restoring, "write_current", dies)
    reader.gate.load = load_and_restore
    assert reader.version() == old
    reader.settle()
    assert (fw._root / CURRENT).read_text() == f"{new}\n"
    assert reader.version() == old
    assert {hit.passage_id for hit in reader.hits()[:2]} == {"p2", "p3"}
