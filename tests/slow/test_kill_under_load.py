"""SIGKILL at random moments of refresh, rollback, release and forget, while others vote."""

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fakes import WordEncoder
from killed import killed_after, started
from rag_flywheel import Flywheel, Passage
from rag_flywheel.deploy.current import read_current
from rag_flywheel.store import journal
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.place import open_database

SEED = 20261121
KILLS = int(os.environ.get("RAG_FLYWHEEL_KILLS", "40"))
USERS = 60  # to forget; as in the worker
CALLS = ("refresh", "rollback", "release", "refresh again", "forget")  # of the worker, in order
FINISHED_EVERY = 10  # kills, after which a refresh has to mend all that is left undone
N_COMMON = 400
WORKER = Path(__file__).with_name("load_worker.py")
UNDONE = "deleted, but what was learned from them was not"

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(dim=16))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(Passage(f"p{i}", f"common word{i % 50} w{i}") for i in range(N_COMMON))
        fw.refresh()
        for n in range(USERS):
            shown = fw.retrieve(f"question of gone{n}", user_id=f"gone{n}")
            fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id=f"gone{n}")
        fw.refresh()
    return root


@pytest.fixture
def votes(root: Path, tmp_path: Path) -> Iterator[Path]:
    """A file that another process writes the numbers of its acknowledged votes to."""
    file = tmp_path / "acknowledged"
    voter = started(WORKER, root, "vote", file)
    try:
        for _ in range(600):
            if file.exists() and file.stat().st_size:
                break
            time.sleep(0.1)
        yield file
        assert voter.poll() is None, "the one who votes met an error"
    finally:
        voter.send_signal(signal.SIGKILL)
        voter.wait()
        assert voter.stdout is not None
        voter.stdout.close()


def killed_in(root: Path, first: int, call: str, delay_s: float) -> str | None:
    """End a worker delay_s after that call began: the call it died in, None: between two."""
    word, what = killed_after(started(WORKER, root, "move", first), delay_s, call)[-1]
    return str(what) if word == "begin" else None


def acknowledged(file: Path) -> set[int]:
    return {int(line) for line in file.read_text().splitlines(keepends=True) if line[-1] == "\n"}


def stored(root: Path) -> set[int]:
    with closing(sqlite3.connect(root / FILE_NAME)) as conn:
        rows = conn.execute("SELECT reason FROM votes WHERE reason LIKE 'load %'").fetchall()
    return {int(reason.split()[1]) for (reason,) in rows}


def agree(root: Path) -> bool:
    """Whether CURRENT and the journal in the database say the same."""
    database = open_database(root)
    try:
        with database.reading() as conn:
            return journal.last_live_change(conn) == read_current(root)
    finally:
        database.close()


def test_kill_while_others_vote(root: Path, votes: Path) -> None:
    chance, died_in = random.Random(SEED), Counter[str | None]()
    for number in range(KILLS):
        call, delay_s = chance.choice(CALLS), chance.uniform(0.0, 0.6)
        died_in[killed_in(root, number, call, delay_s)] += 1
        safe = acknowledged(votes)
        print(f"seed {SEED}: kill {number}, {delay_s:.3f} s after {call}: {died_in}")
        with opened(root) as fw:
            found = fw.retrieve("common word3", record=False)
            assert agree(root)
            current = read_current(root)
            assert current is not None
            assert found.version == current.version
            assert len(found.hits) == 8
            assert [p for p in fw.verify() if UNDONE not in p] == []
            assert safe <= stored(root)
            if number % FINISHED_EVERY == FINISHED_EVERY - 1:
                fw.release()
                fw.add([Passage(f"kill {number}", f"common kill {number}")])
                assert fw.refresh().outcome == "promoted"
                assert fw.verify() == []
                assert list((root / "staging").iterdir()) == []
    assert sum(n for name, n in died_in.items() if name is not None) >= KILLS // 2
    assert {"refresh", "refresh again", "forget"} <= set(died_in), died_in
    assert len(acknowledged(votes)) > KILLS
