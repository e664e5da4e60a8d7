"""SIGKILL at random moments: what was acknowledged is there, and the folder goes on working."""

import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from forgetting import user_hash
from killed import killed_after, started
from rag_flywheel import Flywheel, Passage

SEED = 20261121
KILLS = 16  # of each operation
N_COMMON = 3000
WORKER = Path(__file__).with_name("kill_worker.py")
OURS = {"flywheel.toml", "flywheel.db", "flywheel.db-wal", "flywheel.db-shm", "CURRENT"}
OURS |= {"refresh.lock", "versions", "staging"}

pytestmark = pytest.mark.slow


@dataclass
class Killed:
    """What a worker said before it was killed, and what it left behind."""

    done: list[Any] = field(default_factory=list)
    begun: Any = None  # the call that was going on, None: it died between two
    staging: list[str] = field(default_factory=list)


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(dim=16))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(
            Passage(f"p{i}", f"common word{i % 50} w{i} x{7 * i % 999}") for i in range(N_COMMON)
        )
        assert fw.refresh().outcome == "promoted"
    return root


def kill_at(root: Path, operation: str, first: int, delay_s: float) -> Killed:
    """Run a worker, end it delay_s after its first call began, and read what it said."""
    killed = Killed()
    for word, what in killed_after(started(WORKER, root, operation, first), delay_s):
        if word == "done":
            killed.done.append(what)
        killed.begun = what if word == "begin" else None
    staging = root / "staging"
    killed.staging = [p.name for p in staging.iterdir()] if staging.is_dir() else []
    return killed


def kills(
    root: Path, operation: str, longest_s: float, check: Callable[[Flywheel, Killed], int]
) -> list[Killed]:
    """Kill workers at random moments; after each, `check` the folder, then that it works on.

    check returns the number that the next worker counts from.
    """
    chance = random.Random(f"{SEED} {operation}")
    found: list[Killed] = []
    first, slowness = 0, 1.0
    for number in range(KILLS):
        if (
            sum(len(k.done) for k in found) < number // 2
        ):  # the machine is busy: let them work longer
            slowness = min(2.0 * slowness, 16.0)
        delay_s = slowness * chance.uniform(0.0, longest_s)
        print(f"seed {SEED}: kill {number} of {operation}, {delay_s:.4f} s after its first call")
        killed = kill_at(root, operation, first, delay_s)
        print(f"  {len(killed.done)} calls done, in a call: {killed.begun is not None}")
        found.append(killed)
        with opened(root) as fw:
            assert fw.verify() == []
            first = check(fw, killed)
            assert_works(fw, root, f"after {operation} {number}")
    assert sum(len(k.done) for k in found) >= KILLS // 2  # they worked,
    assert sum(k.begun is not None for k in found) >= KILLS // 2  # and died at it
    return found


def assert_works(fw: Flywheel, root: Path, word: str) -> None:
    """A refresh promotes a whole version that holds all, and nothing is left lying about."""
    fw.add([Passage(f"check {word}", f"check {word}")])
    before = fw.status()
    report = fw.refresh()
    assert report.outcome == "promoted", report
    assert (root / "CURRENT").read_text().split() == [report.version]
    status = fw.status()
    assert (status.version, status.n_waiting) == (report.version, 0)
    assert status.n_indexed == status.n_passages == before.n_passages
    assert fw.verify() == []
    assert list((root / "staging").iterdir()) == []
    assert {p.name for p in root.iterdir()} <= OURS
    answer = fw.retrieve(f"check {word}")
    assert (answer.version, len(answer.hits)) == (report.version, 8)
    assert answer.hits[0].passage_id == f"check {word}"


def texts(root: Path) -> dict[str, str]:
    """The passages that stand, read past the package."""
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        found = dict(conn.execute("SELECT id, text FROM passages WHERE ended IS NULL"))
    conn.close()
    return found


def test_kill_during_add(root: Path) -> None:
    last = -1  # the last batch known to be there

    def check(fw: Flywheel, killed: Killed) -> int:
        nonlocal last
        last = max([last, *killed.done])
        stored = texts(root)
        news = Counter(id_.split("-")[0] for id_ in stored if id_.startswith("new"))
        says = {text.split()[0] for id_, text in stored.items() if id_.startswith("edited")}
        if killed.begun is not None and f"new{killed.begun}" in news:
            last = killed.begun  # committed, and died before it could say so
        assert news == {f"new{n}": 30 for n in range(last + 1)}
        assert says == ({f"batch{last}"} if last >= 0 else set())
        assert sum(id_.startswith("p") for id_ in stored) == N_COMMON
        assert fw.status().n_passages == len(stored)
        if last >= 0:
            edited = fw.retrieve(f"batch{last} of the edited text7", k=3, record=False).hits[0]
            assert (edited.passage_id, edited.text.split()[0]) == ("edited7", f"batch{last}")
            new = fw.retrieve(f"batch{last} brings word29", k=3, record=False).hits[0]
            assert new.passage_id == f"new{last}-29"
        return int(last + 1)

    kills(root, "add", 0.25, check)
    assert last >= KILLS // 2


def test_kill_during_feedback(root: Path) -> None:
    acknowledged: list[tuple[str, str, str]] = []

    def check(fw: Flywheel, killed: Killed) -> int:
        acknowledged.extend(tuple(vote) for votes in killed.done for vote in votes)
        with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
            rows = conn.execute(
                "SELECT r.id, p.id, v.user_id FROM votes v JOIN retrievals r ON r.rid = v.rid "
                "JOIN passages p ON p.pid = v.pid"
            ).fetchall()
        conn.close()
        open_ = [tuple(vote) for vote in killed.begun or []]
        if open_ and (*open_[0][:2], user_hash(root, open_[0][2])) in rows:
            acknowledged.extend(open_)  # committed, and died before it could say so
        hashes = {user: user_hash(root, user) for _, _, user in acknowledged}
        known = [(r, p, hashes[user]) for r, p, user in acknowledged]
        assert Counter(rows) == Counter(dict.fromkeys(known, 1))
        assert fw.status().n_votes == len(acknowledged)
        return 1 + max((int(user[4:]) for _, _, user in acknowledged), default=-1)

    kills(root, "feedback", 0.08, check)
    assert len(acknowledged) >= 10 * KILLS


def test_kill_during_refresh(root: Path) -> None:
    promoted = {(root / "CURRENT").read_text().split()[0]}
    live = set[str]()

    def check(fw: Flywheel, killed: Killed) -> int:
        for _, outcome, version in killed.done:
            assert outcome == "promoted"
            promoted.add(version)
        status = fw.status()
        assert status.version in {v.id for v in fw.versions()}
        if killed.done and killed.begun is None:
            assert status.version == killed.done[-1][2]
        if status.version not in promoted:
            assert killed.begun is not None  # promoted, and died before it could say so
        live.add(str(status.version))
        n = max([killed.begun if killed.begun is not None else -1, *(d[0] for d in killed.done)])
        extra = {id_ for id_ in texts(root) if id_.startswith("extra")}
        assert {f"extra{i}" for i in range(n + 1)} <= extra
        asked = fw.retrieve(f"common extra{n}", record=False)
        assert (asked.version, asked.hits[0].passage_id) == (status.version, f"extra{n}")
        promoted.add(str(fw.refresh().version))
        return len(extra)

    with opened(root) as fw:
        fw.add([Passage("timing", "how long a refresh takes here")])
        took_s = fw.refresh().seconds
    found = kills(root, "refresh", 10.0 * took_s, check)
    assert any(k.staging for k in found), "no kill left a half-built version behind"
    assert any(not k.staging for k in found), "every kill did"
    assert len(live) >= KILLS // 2
