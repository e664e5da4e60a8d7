"""SIGKILL at random moments of forgetting: what was begun is finished, and nothing else is lost."""

import random
import time
from pathlib import Path

import pytest

from fakes import WordEncoder
from forgetting import Row, log_of, query_name, rows, traces, user_hash
from killed import killed_after, started
from rag_flywheel import Flywheel, Passage

SEED = 20261121
KILLS = 20
N_USERS = 120
WORKER = Path(__file__).with_name("forget_worker.py")

pytestmark = pytest.mark.slow


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(dim=16))


def user(n: int) -> str:
    return f"user-{n}-forgotten"


def secrets(root: Path, n: int) -> list[str | bytes]:
    own = f"own question of {user(n)}"
    return [user(n), user_hash(root, user(n)), own, query_name(root, own), f"reason of {user(n)}"]


def question(fw: Flywheel, n: int) -> None:
    """User n asks and votes; so does a friend who stays, on that question and on their own."""
    own = fw.retrieve(f"own question of {user(n)}", user_id=user(n), session_id=f"of {user(n)}")
    shared = fw.retrieve(f"shared word{n % 7}", user_id="friend")
    for shown in (own, shared):
        for who in (user(n), "friend"):
            reason = f"reason of {user(n)}" if who == user(n) else "friendly"
            passage = shown.hits[n % 3].passage_id
            fw.feedback(shown.id, passage, "helpful", user_id=who, reason=reason)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(Passage(f"p{i}", f"shared word{i % 50} w{i} x{7 * i % 99}") for i in range(600))
        fw.refresh()
        for n in range(N_USERS):
            question(fw, n)
        fw.refresh()
    return root


def kill_at(root: Path, first: int, delay_s: float) -> tuple[int, int | None]:
    """Run a worker and end it after delay_s: (users it said to be forgotten, the one under way)."""
    done, begun = 0, None
    for word, n in killed_after(started(WORKER, root, first), delay_s):
        done += word == "done"
        begun = n if word == "begin" else None
    return done, begun


def kept_of(root: Path) -> list[Row]:
    friend = user_hash(root, "friend")
    shared = {r["rid"] for r in log_of(root).retrievals if r["user_id"] == friend}
    return [v for v in log_of(root).votes if v["rid"] in shared and v["user_id"] == friend]


def test_kill_during_forget(root: Path) -> None:
    chance, first, unfinished, took_s = random.Random(SEED), 1, 0, 0.0
    with opened(root) as fw:
        oldest = fw.versions()[-1].id  # from before anybody voted
        began = time.monotonic()
        fw.forget(user(0))
        took_s = time.monotonic() - began
    kept = kept_of(root)
    assert len(kept) == N_USERS
    for number in range(KILLS):
        delay_s = chance.uniform(0.0, 2.0 * took_s)
        done, begun = kill_at(root, first, delay_s)
        print(f"seed {SEED}: kill {number}, {delay_s:.3f} s after its first call; {done} done")
        gone = list(range(first + done))
        with opened(root) as fw:
            pending = any("deleted, but what was learned" in problem for problem in fw.verify())
            unfinished += pending
            if begun is not None and not log_has(root, begun):
                gone.append(begun)  # its rows are deleted: all of it must go
            assert begun is not None or not pending
            report = fw.refresh()
            assert pending == (report.outcome == "promoted")
            assert fw.verify() == []
            live = (root / "CURRENT").read_text().split()[0]
            assert live == fw.status().version == fw.versions()[0].id
            promoted = (e.text.split()[0] for e in fw.history() if e.kind == "promoted")
            assert next(promoted) == live
            assert [v.id for v in fw.versions()] == [live, oldest]
            for n in gone[-3:]:
                assert traces(root, secrets(root, n)) == []
            assert kept_of(root) == kept
            left = {r["query"] for r in log_of(root).retrievals if r["query"].startswith("own")}
            assert left == {f"own question of {user(n)}" for n in range(len(gone), N_USERS)}
            assert rows(root, "SELECT count(*) AS n FROM votes")[0]["n"] == expected(len(gone))
        first = len(gone)
        assert first < N_USERS
    assert unfinished >= KILLS // 4, "few kills came in the middle"


def log_has(root: Path, n: int) -> bool:
    name = user_hash(root, user(n))
    log = log_of(root)
    return any(row["user_id"] == name for row in [*log.retrievals, *log.votes])


def expected(n_gone: int) -> int:
    """Votes that are left: the friend's on shared questions, and four for each user who stays, of
    which one is the friend's on a shared question."""
    return N_USERS + 3 * (N_USERS - n_gone)
