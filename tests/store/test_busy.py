"""A write lock that another program holds: answers do not wait for it, votes do."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage
from rag_flywheel.capture.signals import note_rephrased
from rag_flywheel.errors import BusyError, InputError, NotRecordedWarning
from rag_flywheel.records import Retrieval
from rag_flywheel.store.database import FILE_NAME, Database


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Another program holds the write lock in the block."""
    other = sqlite3.connect(root / FILE_NAME, timeout=0.1, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.rollback()
        other.close()


@pytest.fixture
def quick(tmp_path: Path, help_desk: list[Passage]) -> Iterator[Flywheel]:
    config = Config(encoder="", record_wait_s=0.2, explore=0.5)
    with Flywheel.open(tmp_path / "quick", encoder=WordEncoder(), config=config) as fw:
        fw.add(help_desk)
        fw.refresh()
        fw.retrieve("password")
        yield fw


def retrieve(fw: Flywheel) -> list[Retrieval]:
    return [fw.retrieve("my password", 3, user_id="ann", session_id="s")]


def retrieve_many(fw: Flywheel) -> list[Retrieval]:
    return fw.retrieve_many(["my password", "cats"], 3)


def rerank(fw: Flywheel) -> list[Retrieval]:
    given = [Candidate("reset", "password reset", 2.0), Candidate("x", "something else", 1.0)]
    return [fw.rerank("my password", given, 3, user_id="ann")]


@pytest.mark.parametrize("ask", [retrieve, retrieve_many, rerank])
def test_an_answer_is_given_without_a_record(quick: Flywheel, ask: object) -> None:
    assert callable(ask)
    before = quick.status().n_retrievals
    recorded: list[Retrieval] = ask(quick)
    assert all(found.recorded and found.id for found in recorded)
    with held(Path(quick.status().path)):
        began = time.monotonic()
        with pytest.warns(NotRecordedWarning, match=r"takes no votes: .*waited 0\.2 s, config"):
            found_now: list[Retrieval] = ask(quick)
        assert time.monotonic() - began < 5
    assert [f.id for f in found_now] == [None] * len(recorded)
    assert not any(f.recorded for f in found_now)
    assert [len(f.hits) for f in found_now] == [len(f.hits) for f in recorded]
    assert not any(hit.explored for f in found_now for hit in f.hits)
    assert quick.status().n_retrievals == before + len(recorded)
    assert all(f.recorded for f in ask(quick))  # when it is free again
    for give in (
        lambda id_: quick.feedback(id_, "reset", "helpful"),
        lambda id_: quick.answer_feedback(id_, "helpful"),
        lambda id_: quick.signal(id_, "copied"),
        lambda id_: quick.correct(id_, "reset"),
        lambda id_: quick.missing(id_),
        lambda id_: quick.adopted(id_, used=True),
    ):
        with pytest.raises(InputError, match=r"retrieval_id is None.*that was not recorded"):
            give(found_now[0].id)


def test_the_first_answer_of_a_process_does_not_wait_either(quick: Flywheel) -> None:
    """It loads the live version, checks its files, and notes that they are sound."""
    root = Path(quick.status().path)
    quick.add([Passage("new", "a new passage")])
    quick.refresh()
    with quick._database.transaction() as conn:
        conn.execute("DELETE FROM meta WHERE key = 'checked'")
    with held(root), Flywheel.open(root, encoder=WordEncoder()) as other:
        began = time.monotonic()
        with pytest.warns(NotRecordedWarning):
            assert other.retrieve("my password").hits
        assert time.monotonic() - began < 10


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
        database = Database(Path(quick.status().path) / FILE_NAME)
        assert not note_rephrased(database, str(found.id), wait_s=0.1, **given)
    assert note_rephrased(database, str(found.id), wait_s=0.1, **given)
    database.close()


def test_a_write_says_what_it_waited_for(tmp_path: Path, quick: Flywheel) -> None:
    database = Database(Path(quick.status().path) / FILE_NAME)
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
