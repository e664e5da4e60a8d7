"""Several processes, threads and a fork on one folder: nothing mixed, nothing late, nothing lost.

RAG_FLYWHEEL_TRAFFIC_S shortens the thirty seconds of traffic while developing.
"""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from forgetting import user_hash
from rag_flywheel import Candidate, Config, Flywheel, Passage
from rag_flywheel.errors import ClosedError

SECONDS = float(os.environ.get("RAG_FLYWHEEL_TRAFFIC_S", "30"))
N_PASSAGES = 60
WORKER = Path(__file__).with_name("traffic_worker.py")

pytestmark = pytest.mark.slow


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "kb"
    # old versions go away under their readers; a busy machine may hold the write lock for long
    config = Config(encoder="", keep_versions=2, record_wait_s=60.0)
    with Flywheel.open(root, encoder=WordEncoder(), config=config) as fw:
        texts = [f"generation0 shared topic{i} topic{i + 1}" for i in range(N_PASSAGES)]
        fw.add(Passage(f"p{i}", text) for i, text in enumerate(texts))
        assert fw.refresh().outcome == "promoted"
    return root


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_worker_outlives_its_test() -> Iterator[None]:
    yield
    while STARTED:
        with STARTED.pop() as process:  # closes its pipes and waits
            process.kill()


class Worker:
    """A process of traffic_worker.py."""

    def __init__(self, *arguments: str | Path) -> None:
        path = os.pathsep.join(
            [str(WORKER.parents[1] / "support"), os.environ.get("PYTHONPATH", "")]
        )
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        STARTED.append(self.process)

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ask(self, *what: object) -> Any:
        self.tell(json.dumps(what))
        return json.loads(self.hear())

    def report(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """What it says at its end, which must be a good one."""
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert self.process.returncode == 0, err
        assert "Traceback" not in err, err
        return dict(json.loads(out.splitlines()[-1])) if out else {}


@pytest.fixture
def pair(root: Path) -> Iterator[tuple[Worker, Worker]]:
    workers = (Worker("serve", root), Worker("serve", root))
    yield workers
    for worker in workers:
        worker.report()


@pytest.mark.alone
def test_traffic_of_four_while_a_fifth_edits_and_refreshes(root: Path) -> None:
    first = (root / "CURRENT").read_text().strip()
    refresher = Worker("refresh", root, str(SECONDS))
    workers = [Worker("traffic", root, str(SECONDS)) for _ in range(4)]
    reports = [worker.report(SECONDS + 60) for worker in workers]
    refreshed = refresher.report(SECONDS + 60)
    print(refreshed["generations"], len(refreshed["promoted"]), reports)
    assert [(r["n_wrong"], r["wrong"]) for r in reports] == [(0, [])] * 4
    assert len(set(refreshed["promoted"])) == len(refreshed["promoted"]) >= SECONDS / 4
    assert refreshed["looks"] == len(refreshed["promoted"])
    promoted = {first, *refreshed["promoted"]}
    for report in reports:
        assert set(report["versions"]) <= promoted
        assert len(report["versions"]) >= SECONDS / 8  # it saw versions come and go,
        assert report["generations"] >= SECONDS / 2  # and texts between them
        assert report["answers"] >= 4 * SECONDS
        assert report["votes"] >= SECONDS / 2
    with opened(root) as fw:
        status = fw.status()
        assert status.n_votes == sum(r["votes"] for r in reports)
        assert status.n_retrievals == sum(r["answers"] for r in reports)
        assert (status.version, status.n_versions) == (refreshed["promoted"][-1], 2)
        assert fw.verify() == []


@pytest.mark.alone
def test_looking_at_a_folder_while_another_process_refreshes(root: Path) -> None:
    seconds = min(SECONDS, 10.0)
    refresher = Worker("refresh", root, str(seconds))
    found = Worker("watch", root, str(seconds)).report()
    refresher.report()
    assert found["looks"] >= seconds
    assert found["problems"] == []


def test_a_vote_of_one_process_is_in_the_next_answer_of_the_other(
    pair: tuple[Worker, Worker],
) -> None:
    for n in range(60):
        voter, other = pair if n % 2 else pair[::-1]
        query = f"unlike{n} shared topic{n}"
        id_, hits = voter.ask("retrieve", query)
        chosen = hits[n % 8][0]
        before = {p: (set(votes), score) for p, votes, _, score in other.ask("retrieve", query)[1]}
        voter.ask("vote", id_, chosen)
        after = {p: (set(v), e, score) for p, v, e, score in other.ask("retrieve", query)[1]}
        if chosen in after:  # else the vote took it out of the best eight
            assert after[chosen][2] < before[chosen][1], n
        known = set().union(*(votes for votes, _ in before.values()))
        shown = set().union(*(votes for votes, _, _ in after.values()))
        # the vote, which the passages that it speaks of show, is newer than all others
        heard = max(shown, default=0) > max(known, default=0)
        assert heard or chosen not in after, n
        if heard:
            new = max(shown)
            speaks = {p: evidence for p, (votes, evidence, _) in after.items() if new in votes}
            assert all((evidence < 0) == (p == chosen) for p, evidence in speaks.items())
        own = {p: (set(v), e, score) for p, v, e, score in voter.ask("retrieve", query)[1]}
        assert own == after


def test_added_and_removed_passages_are_in_the_next_answer_of_the_other(
    pair: tuple[Worker, Worker],
) -> None:
    for n in range(24):
        writer, other = pair if n % 2 else pair[::-1]
        writer.ask("add", f"fresh{n}", f"brandnew{n} thing{n}")
        assert other.ask("retrieve", f"brandnew{n}")[1][0][0] == f"fresh{n}"
        writer.ask("add", f"fresh{n}", f"changed{n} altogether{n}")
        assert other.ask("retrieve", f"altogether{n} changed{n}")[1][0][0] == f"fresh{n}"
        writer.ask("remove", f"fresh{n}")
        shown = [p for p, *_ in other.ask("retrieve", f"altogether{n} changed{n}")[1]]
        assert (len(shown), f"fresh{n}" in shown) == (8, False)


def test_processes_that_make_the_same_folder_at_once(tmp_path: Path) -> None:
    workers = [Worker("make", tmp_path) for _ in range(4)]
    assert [worker.hear() for worker in workers] == ["ready\n"] * 4
    for n in range(20):
        for worker in workers:
            worker.tell(f"kb{n}")
        assert [worker.hear() for worker in workers] == ["done\n"] * 4
    assert [worker.report()["made"] for worker in workers] == [20] * 4
    for n in range(20):
        with opened(tmp_path / f"kb{n}") as fw:
            assert (fw.status().n_passages, fw.verify()) == (4, [])


def test_both_sides_of_a_fork_retrieve_and_vote(root: Path) -> None:
    found = Worker("fork", root).report()
    with opened(root) as fw:
        assert (found["child"], fw.status().n_votes) == (7, 30 + 40)
        assert fw.verify() == []


def test_votes_of_a_forked_child_survive_that_its_parent_closes(root: Path) -> None:
    found = Worker("orphan", root).report()
    assert found == {"child": 7, "voted": 20}
    with opened(root) as fw:
        assert fw.status().n_votes == 20
        assert fw.verify() == []


def test_threads_share_one_object(root: Path) -> None:
    def ask_and_vote(fw: Flywheel, name: str) -> int:
        for n in range(150):
            answer = fw.retrieve(f"shared topic{n % N_PASSAGES}", user_id=name)
            assert len({hit.passage_id for hit in answer.hits}) == 8
            fw.feedback(answer.id, answer.hits[n % 8].passage_id, "helpful", user_id=name)
            newest = fw.retrieve(answer.query, k=N_PASSAGES, record=False).hits
            known = {vote for hit in newest for vote in hit.explanation.votes}
            assert last_vote(name) in known
        return 150

    def last_vote(name: str) -> int:
        with closing(sqlite3.connect(root / "flywheel.db")) as conn:
            user = user_hash(root, name)
            row = conn.execute("SELECT max(seq) FROM votes WHERE user_id = ?", (user,)).fetchone()
        return int(row[0])

    def edit(fw: Flywheel) -> int:
        for n in range(15):
            fw.add([Passage(f"more{n}", f"quite other{n}")])
            assert fw.retrieve(f"quite other{n}", record=False).hits[0].passage_id == f"more{n}"
            assert fw.refresh().outcome == "promoted"
        return 15

    with opened(root) as fw, ThreadPoolExecutor(3) as pool:
        voting = [pool.submit(ask_and_vote, fw, name) for name in ("ann", "bob")]
        editing = pool.submit(edit, fw)
        assert [job.result() for job in voting] == [150, 150]
        assert editing.result() == 15
        assert (fw.status().n_votes, fw.status().n_retrievals) == (300, 300)
        assert (fw.status().n_passages, fw.status().n_waiting) == (N_PASSAGES + 15, 0)
        assert fw.verify() == []


@pytest.mark.alone
def test_closing_while_other_threads_ask_ends_them_with_one_error(root: Path) -> None:
    found = Worker("closing", root).report()
    assert (found["rounds"], found["errors"]) == (10, ["ClosedError"])
    assert found["asked"] >= 50
    with opened(root) as fw:
        unsaid = fw.status().n_votes - found["asked"]  # kept, and closed before it could be said
        assert 0 <= unsaid <= 2 * found["rounds"]
        assert fw.verify() == []


CALLS: dict[str, Callable[[Flywheel], object]] = {
    "add": lambda fw: fw.add([Passage("x", "words")]),
    "remove": lambda fw: fw.remove(["p0"]),
    "retrieve": lambda fw: fw.retrieve("shared"),
    "retrieve_many": lambda fw: fw.retrieve_many(["shared"]),
    "rerank": lambda fw: fw.rerank("shared", [Candidate("a", "words", 1.0)]),
    "feedback": lambda fw: fw.feedback("r", "p0", "helpful"),
    "answer": lambda fw: fw.answer("r", "text"),
    "refresh": lambda fw: fw.refresh(),
    "versions": lambda fw: fw.versions(),
    "rollback": lambda fw: fw.rollback(),
    "release": lambda fw: fw.release(),
    "status": lambda fw: fw.status(),
    "verify": lambda fw: fw.verify(),
    "forget": lambda fw: fw.forget("ann"),
    "opt_out": lambda fw: fw.opt_out("ann"),
    "history": lambda fw: fw.history(),
}


@pytest.mark.parametrize("call", CALLS)
def test_after_close_every_call_says_so(root: Path, call: str) -> None:
    fw = opened(root)
    fw.retrieve("shared")
    fw.close()
    fw.close()
    with pytest.raises(ClosedError, match=r"was closed; open it again"):
        CALLS[call](fw)
    assert not [p.name for p in root.iterdir() if p.name.endswith(("-wal", "-shm"))]
