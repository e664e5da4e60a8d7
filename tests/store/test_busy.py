"""A write lock that another program holds: answers do not wait for it, votes do."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage, restore
from rag_flywheel.capture.signals import note_rephrased
from rag_flywheel.errors import BusyError, InputError, NotRecordedWarning, UnknownIdError
from rag_flywheel.records import Retrieval
from rag_flywheel.serve import postponed
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.place import open_database
from rag_flywheel.store.timeline import read_moment


@contextmanager
def held(root: Path) -> Iterator[sqlite3.Connection]:
    """Another program holds the write lock in the block."""
    other = sqlite3.connect(root / FILE_NAME, timeout=0.1, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield other
    finally:
        other.rollback()
        other.close()


@pytest.fixture
def quick(tmp_path: Path, help_desk: list[Passage]) -> Iterator[Flywheel]:
    config = Config(encoder="", record_wait_s=0.02, explore=0.5)
    with Flywheel.open(tmp_path / "quick", encoder=WordEncoder(), config=config) as fw:
        fw.add(help_desk)
        fw.refresh()
        fw.retrieve("password")
        yield fw


def retrieve(fw: Flywheel) -> list[Retrieval]:
    runs = ["inner", "outer"]
    return [fw.retrieve("my password", 3, user_id="ann", session_id="s", run_id=runs)]


def retrieve_many(fw: Flywheel) -> list[Retrieval]:
    return fw.retrieve_many(["my password", "cats"], 3, run_id=[["inner", "outer"], "outer"])


def rerank(fw: Flywheel) -> list[Retrieval]:
    given = [Candidate("reset", "password reset", 2.0), Candidate("x", "something else", 1.0)]
    return [fw.rerank("my password", given, 3, user_id="ann", run_id=["inner", "outer"])]


def stored(fw: Flywheel) -> dict[str, list[str]]:
    """The ids of recorded retrievals, with the passages that each showed."""
    with fw._database.reading() as conn:
        rows = conn.execute("SELECT id, hits FROM retrievals").fetchall()
        names = dict(conn.execute("SELECT pid, id FROM passages").fetchall())
    return {id_: [names[hit[0]] for hit in json.loads(hits)] for id_, hits in rows}


@pytest.mark.parametrize("ask", [retrieve, retrieve_many, rerank])
def test_an_answer_is_given_at_once_and_recorded_when_the_lock_is_free(
    quick: Flywheel, ask: Callable[[Flywheel], list[Retrieval]]
) -> None:
    before = quick.status().n_retrievals
    with held(Path(quick.status().path)):
        began = time.monotonic()
        found = [each for _ in range(10) for each in ask(quick)]
        assert time.monotonic() - began < 3
        assert all(each.recorded for each in found)
        assert quick.status().n_retrievals == before
    assert quick.feedback(
        found[-1].id, found[-1].hits[0].passage_id, "helpful"
    )  # waits for the record
    quick._postponed.wait_for_all()
    assert quick.status().n_retrievals == before + len(found)
    kept = stored(quick)
    for each in found:
        assert kept[str(each.id)] == [hit.passage_id for hit in each.hits]
    for give in (
        lambda id_: quick.answer_feedback(id_, "helpful"),
        lambda id_: quick.signal(id_, "copied"),
        lambda id_: quick.correct(id_, "reset"),
        lambda id_: quick.missing(id_),
        lambda id_: quick.adopted(id_, used=True),
    ):
        assert give(found[0].id)
    assert quick.verify() == []


def test_too_many_are_given_without_a_record(
    quick: Flywheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postponed, "MOST", 3)
    with held(Path(quick.status().path)):
        first = [retrieve(quick)[0] for _ in range(3)]
        for ask in (retrieve, retrieve_many, rerank):
            with pytest.warns(NotRecordedWarning, match="takes no votes: another program goes on"):
                found = ask(quick)
            assert not any(each.recorded for each in found)
            assert not any(hit.explored for each in found for hit in each.hits)
    quick._postponed.wait_for_all()
    assert {each.id for each in first} <= stored(quick).keys()
    with pytest.raises(InputError, match=r"retrieval_id is None.*that was not recorded"):
        quick.feedback(found[0].id, "reset", "helpful")
    assert retrieve(quick)[0].recorded


def test_what_cannot_be_recorded_before_closing_is_told(
    quick: Flywheel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(quick.status().path)
    monkeypatch.setattr(postponed, "CLOSE_WAIT_S", 0.3)
    with held(root):
        found = retrieve(quick)[0]
        with pytest.warns(NotRecordedWarning, match="1 answer was not recorded"):
            quick.close()
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        assert found.id not in stored(fw)


def test_records_are_given_up_after_a_while(
    tmp_path: Path, help_desk: list[Passage], caplog: pytest.LogCaptureFixture
) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add(help_desk)
        fw._postponed._wait_s = 0.3
        with held(tmp_path / "kb"):
            found = fw.retrieve("password")
            waiter = threading.Thread(target=fw._postponed.wait_for_all)
            waiter.start()
            waiter.join(20.0)
            assert not waiter.is_alive()
        with pytest.raises(UnknownIdError):
            fw.feedback(found.id, "reset", "helpful")
        said = [r for r in caplog.records if getattr(r, "event", "") == "records_lost"]
        assert len(said) == 1 and "password" not in said[0].getMessage()
        with pytest.warns(NotRecordedWarning, match="1 answer was not recorded"):
            fw.close()


@pytest.mark.parametrize("event", ["opted out", "forgotten", "another forgotten", "restored"])
def test_nothing_of_who_left_meanwhile_or_of_another_state_is_recorded(
    quick: Flywheel, tmp_path: Path, event: str
) -> None:
    root, before = Path(quick.status().path), quick.status().n_retrievals
    quick.retrieve("password", user_id="bob")
    quick.retrieve("password", user_id="ann")
    quick.backup(tmp_path / "saved")
    with held(root) as other:
        found = retrieve(quick)[0]
        with Flywheel.open(root, encoder=WordEncoder()) as elsewhere:
            thread = threading.Thread(
                target={
                    "opted out": lambda: elsewhere.opt_out("ann"),
                    "forgotten": lambda: elsewhere.forget("ann"),
                    "another forgotten": lambda: elsewhere.forget("bob"),
                    "restored": lambda: restore(tmp_path / "saved", root),
                }[event]
            )
            # the lock is handed over to the other call, before the record is written
            with quick._postponed._changed:
                time.sleep(2 * postponed._SPELL_S)  # the writer, which wants this too, stands still
                other.rollback()
                thread.start()
                thread.join(20)
            quick._postponed.wait_for_all()
            last = stored(quick)
    assert found.id not in last
    assert len(last) == before + (2 if event in {"opted out", "restored"} else 1)


def test_while_one_record_waits_later_ones_wait_for_no_lock(quick: Flywheel) -> None:
    """They queue up behind it, so that records keep the order of the answers."""
    written = list[int]()
    with quick._database.reading() as conn:
        moment = read_moment(conn)

    def add(n: int, wait_s: float) -> None:
        record = postponed.Record((str(n),), moment, 0, None, lambda _: written.append(n))
        assert quick._postponed.write(record, wait_s=wait_s)

    with held(Path(quick.status().path)) as other:
        add(0, wait_s=0.0)
        thread = threading.Thread(target=lambda: [add(n, wait_s=60.0) for n in (1, 2)])
        thread.start()
        thread.join(20.0)
        assert not thread.is_alive()
        other.rollback()
        quick._postponed.wait_for_all()
    assert written == [0, 1, 2]


def test_the_user_of_a_record_that_waits_is_forgotten_with_it(quick: Flywheel) -> None:
    root = Path(quick.status().path)
    with held(root) as other:
        quick.retrieve("a secret question", user_id="cid")
        timer = threading.Timer(0.5, other.rollback)
        timer.start()
        assert quick.forget("cid").n_retrievals == 1
        timer.join()
    data = b"".join(p.read_bytes() for p in root.rglob("*") if p.is_file())
    assert b"a secret question" not in data


def test_a_forked_child_does_not_write_what_its_parent_does(quick: Flywheel) -> None:
    root = Path(quick.status().path)
    with held(root):
        found = retrieve(quick)[0]
        child = os.fork()
        if not child:
            os._exit(len(quick._postponed))
        assert os.waitpid(child, 0)[1] == 0
    quick._postponed.wait_for_all()
    assert found.id in stored(quick)


HOLDER = """
import sqlite3, sys, time
from pathlib import Path
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute(f"BEGIN {sys.argv[2]}")
print("held", flush=True)
time.sleep(float(sys.argv[3]))
conn.execute("ROLLBACK")
conn.close()
"""
REFRESHER = """
import sys, time
from pathlib import Path
from rag_flywheel.deploy.lock import refresh_lock
with refresh_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE", "refresh lock"])
def test_another_process_that_holds_a_lock_for_five_seconds_delays_no_answer(
    quick: Flywheel, kind: str
) -> None:
    root, bound_s, n_before = Path(quick.status().path), 0.25, quick.status().n_retrievals
    script = REFRESHER if kind == "refresh lock" else HOLDER
    place = root if kind == "refresh lock" else root / FILE_NAME
    with subprocess.Popen(
        [sys.executable, "-c", script, str(place), kind, "5"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        took, until = list[float](), time.monotonic() + 4.0
        ids = []
        while time.monotonic() < until:
            began = time.monotonic()
            ids.append(quick.retrieve("my password", 3, user_id="ann", session_id="s").id)
            took.append(time.monotonic() - began)
            time.sleep(0.01)
        with Flywheel.open(root, encoder=WordEncoder()) as other:  # nor the first one of a process
            began = time.monotonic()
            ids.append(other.retrieve("my password").id)
            assert time.monotonic() - began < 1.0
            assert process.poll() is None, "the lock was let go too early"
    assert len(took) > 100
    assert sorted(took)[int(0.99 * len(took))] < bound_s, sorted(took)[-5:]
    quick._postponed.wait_for_all()
    assert set(ids) <= stored(quick).keys()
    assert quick.status().n_retrievals == n_before + len(ids)


def test_the_first_answer_of_a_process_does_not_wait_either(quick: Flywheel) -> None:
    """It loads the live version, checks its files, notes that they are sound, and that it was found."""
    root = Path(quick.status().path)
    quick.add([Passage("new", "a new passage")])
    quick.refresh()
    with quick._database.transaction() as conn:
        conn.execute("DELETE FROM meta WHERE key = 'checked'")
    live = (root / "CURRENT").read_text().split()[0]
    (root / "CURRENT").write_text(f"{live} 3\n")
    with held(root) as lock:
        began = time.monotonic()
        with Flywheel.open(root, encoder=WordEncoder()) as other:
            assert other.retrieve("my password").hits
            assert time.monotonic() - began < 5
            lock.rollback()


def test_a_lock_that_is_let_go_in_time_costs_no_record(tmp_path: Path) -> None:
    config = Config(encoder="", record_wait_s=20.0)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage("a", "alpha")])
        fw.retrieve("alpha")
        other = sqlite3.connect(tmp_path / "kb" / FILE_NAME, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        assert fw.retrieve("alpha").recorded
        timer.join()
        other.close()


def test_a_signal_that_cannot_be_kept_is_left(quick: Flywheel) -> None:
    """The lock may be taken between the record of an answer and that it rephrases another."""
    quick.retrieve("reset the password please", session_id="s")
    found = quick.retrieve("the password reset please", session_id="s")
    encoder = WordEncoder()
    given = {"within_s": 300.0, "least_cosine": 0.0, "vectors": (encoder.revision, encoder.dim)}
    with held(Path(quick.status().path)):
        database = open_database(Path(quick.status().path))
        assert not note_rephrased(database, str(found.id), wait_s=0.1, **given)
    assert note_rephrased(database, str(found.id), wait_s=0.1, **given)
    database.close()


def test_a_write_says_what_it_waited_for(tmp_path: Path, quick: Flywheel) -> None:
    database = open_database(Path(quick.status().path))
    began = time.monotonic()
    with (
        held(Path(quick.status().path)),
        pytest.raises(BusyError, match=r"is being written to by another program"),
        database.transaction(wait_s=0.1),
    ):
        raise AssertionError
    assert time.monotonic() - began < 5
    with database.reading() as conn:  # later transactions wait as long as ever
        assert conn.execute("PRAGMA busy_timeout").fetchone()[0] == 60_000
    database.close()
