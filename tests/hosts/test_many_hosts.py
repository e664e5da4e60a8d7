"""Eight processes on four hosts retrieve, vote and edit one index on PostgreSQL, while a ninth refreshes and
is killed again and again.

Each host has a folder of its own, and versions lie in an object store. Each process has a network of its
own, where the system allows it, without any address: it reaches the server by a Unix socket.
RAG_FLYWHEEL_MANY_HOSTS_S and RAG_FLYWHEEL_MANY_HOSTS_REFRESHES make it longer; what was counted is printed.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import many_hosts_worker
from many_hosts_worker import N_EDITED, N_HOSTS, N_STATIC, K, edited, static
from on_postgres import server_url, url_of
from rag_flywheel import Config, Flywheel, copy
from rag_flywheel.store.place import open_database

WORKER = Path(many_hosts_worker.__file__)
SECONDS = float(os.environ.get("RAG_FLYWHEEL_MANY_HOSTS_S", "10"))
REFRESHES = int(os.environ.get("RAG_FLYWHEEL_MANY_HOSTS_REFRESHES", "4"))
N_MACHINES = 4  # with two processes each; the one that refreshes is on a fifth
KILL_EVERY = 4  # refreshes
LAG_S = 10.0
"""After so long at most, a host answers from a version that another one made live."""
CLOCK_S = 0.05  # between two looks at the clock by different processes
WAITS_S = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def namespaced() -> list[str]:
    """The words before a command that give it a network of its own; none where that is not allowed."""
    if shutil.which("unshare") is None:
        return []
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True)
    return [] if done.returncode else ["unshare", "--net"]


class Process:
    """One worker, which is talked to in lines of JSON."""

    def __init__(self, role: str, number: int, place: dict[str, Any], out: Path) -> None:
        path = [str(WORKER.parent), *sys.path]
        self.out = out / f"{role}{number}.json"
        self.process = subprocess.Popen(
            [
                *namespaced(),
                sys.executable,
                str(WORKER),
                role,
                str(number),
                json.dumps(place),
                str(self.out),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"},
        )

    def tell(self, *words: object) -> None:
        """A line to the worker."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def hear(self) -> list[Any]:
        """The next line of the worker; [] when it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return list(json.loads(line)) if line else []

    def end(self, *, kill: bool = False) -> int:
        """Wait for its end. kill: bring it about."""
        if kill:
            self.process.send_signal(signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return self.process.wait(WAITS_S)


class Refresher:
    """The ninth process, killed in the middle of every fourth refresh and started anew."""

    def __init__(self, place: dict[str, Any], out: Path) -> None:
        self.place, self.out = place, out
        self.outcomes: Counter[str] = Counter()
        self.n_kills = 0
        self.chance = random.Random(7)
        self.took = [0.5]
        self.begin()

    def begin(self) -> None:
        """Begin a process."""
        self.process = Process("refresh", self.n_kills, self.place, self.out)
        assert self.process.hear() == ["ready"]

    def refresh(self) -> None:
        """One refresh, which may be the last of its process."""
        self.process.tell("refresh")
        assert self.process.hear()[0] == "begin"
        began = time.monotonic()
        n = sum(self.outcomes.values()) + self.n_kills
        if n % KILL_EVERY == KILL_EVERY - 1:
            time.sleep(self.chance.uniform(0.0, max(self.took)))
            assert self.process.end(kill=True) == -signal.SIGKILL
            self.n_kills += 1
            self.begin()
            return
        word, outcome = self.process.hear()
        assert word == "end"
        self.took.append(time.monotonic() - began)
        self.outcomes[outcome] += 1


def test_many_hosts(tmp_path: Path) -> None:
    places, root = made(tmp_path)
    hosts = [Process("serve", n, places[n % N_MACHINES], tmp_path) for n in range(N_HOSTS)]
    refresher = Refresher(places[-1], tmp_path)
    try:
        for host in hosts:
            assert host.hear() == ["ready"]
        began, rounds = time.monotonic(), 0
        until = began + SECONDS
        while time.monotonic() < until or sum(refresher.outcomes.values()) < REFRESHES:
            seen_by_all(hosts, rounds)
            refresher.refresh()
            rounds += 1
        took_s = time.monotonic() - began
        refresher.process.tell("stop")
        assert refresher.process.end() == 0
        for host in hosts:
            host.tell("stop")
        for host in hosts:
            assert host.hear() == ["ended"]
            assert host.end() == 0
    finally:
        for each in (*hosts, refresher.process):
            each.process.kill()
            each.process.wait()
    saw = [json.loads(host.out.read_text()) for host in hosts]
    lag_s = check_versions(root, saw)
    check_wordings(saw)
    n_votes = check_votes(root, saw)
    n_events = check_events(root, saw)
    check_orders(root, tmp_path)
    print(
        json.dumps(
            {
                "seconds": round(took_s),
                "own networks": bool(namespaced()),
                "answers": sum(len(s["answers"]) for s in saw),
                "votes": n_votes,
                "edits": sum(len(s["edits"]) for s in saw),
                "events": n_events,
                "looks at events": sum(s["n_polls"] for s in saw),
                "votes seen by all other hosts at once": rounds,
                "refreshes": refresher.outcomes,
                "kills": refresher.n_kills,
                "longest lag of a version in s": round(lag_s, 2),
            }
        )
    )
    assert refresher.outcomes["promoted"] >= REFRESHES - 1
    assert refresher.n_kills >= REFRESHES // KILL_EVERY


def made(folder: Path) -> tuple[list[dict[str, Any]], Path]:
    """How each of the hosts opens the index, by a folder of its own, and one of these folders."""
    pytest.importorskip("obstore", reason="needs the extra objects")
    server_url()
    shared = {"path": url_of("many_hosts"), "objects": f"file://{folder}/store"}
    places = [{**shared, "cache": str(folder / f"host{n}")} for n in range(N_MACHINES + 1)]
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(**places[0], config=config) as fw:
        fw.add([edited(i, 0) for i in range(N_EDITED)] + [static(i) for i in range(N_STATIC)])
        fw.refresh()
    return places, folder / "host0"


def seen_by_all(hosts: Sequence[Process], n: int) -> None:
    """A vote that one process cast is seen by the next call of each other one."""
    voter, *others = hosts[n % N_HOSTS :] + list(hosts[: n % N_HOSTS])
    question = f"fence{n} static matter{n % N_STATIC}"
    voter.tell("vote", question)
    word, passage = voter.hear()
    assert word == "voted"
    for other in others:
        other.tell("ask", question)
    for other in others:
        word, evidence = other.hear()
        assert word == "found"
        assert evidence[passage] > 0, (n, passage, evidence)


def check_versions(root: Path, saw: Sequence[Any]) -> float:
    """Every answer is of a version that was live while it was made, or LAG_S before; the longest lag."""
    database = open_database(root)
    with database.reading() as conn:
        moves = [tuple(row) for row in conn.execute("SELECT at, version FROM moves ORDER BY id")]
    database.close()
    longest = 0.0
    for begin, end, version, hits in (answer for each in saw for answer in each["answers"]):
        assert len(hits) == K
        assert len({passage for passage, _ in hits}) == K
        lags = []
        for (at, name), (over, _) in zip(moves, [*moves[1:], (float("inf"), "")], strict=True):
            if name == version and at <= end + CLOCK_S:
                lags.append(max(0.0, begin - over))
        assert lags, f"{version} was not live before {end}"
        assert min(lags) <= LAG_S, (version, begin, moves)
        longest = max(longest, min(lags))
    return longest


def check_wordings(saw: Sequence[Any]) -> None:
    """Every text in an answer was that of its passage at some time of the call."""
    edits: dict[int, list[Any]] = defaultdict(list)
    for each in saw:
        for i, k, begin, end in each["edits"]:
            edits[i].append((k, begin, end))
    n_edited = 0
    for begin, end, _, hits in (answer for each in saw for answer in each["answers"]):
        for passage, text in hits:
            if not passage.startswith("e"):
                continue
            i, k = int(passage[1:]), int(text.split()[0].removeprefix("wording"))
            least = max((n for n, _, ended in edits[i] if ended + CLOCK_S < begin), default=0)
            most = max((n for n, began, _ in edits[i] if began - CLOCK_S < end), default=0)
            assert least <= k <= most, (passage, text, least, most)
            n_edited += k > 0
    assert n_edited > 100


def check_votes(root: Path, saw: Sequence[Any]) -> int:
    """Every acknowledged vote is stored once, and none that was not; it counts as a judgment."""
    acknowledged = Counter(tuple(vote) for each in saw for vote in each["votes"])
    assert set(acknowledged.values()) == {1}
    with Flywheel.open(root) as fw:
        stored = Counter((v.retrieval_id, v.passage_id, v.verdict) for v in fw.votes(10**6))
        assert fw.status().n_votes == len(acknowledged)
        assert fw.verify() == []
        assert sum(1 for _ in fw.judgments()) > 0
    assert stored == Counter(vote[:3] for vote in acknowledged)
    return len(acknowledged)


def check_events(root: Path, saw: Sequence[Any]) -> int:
    """Every reader saw every event, in the order of the numbers, which have no gap that closed later."""
    database = open_database(root)
    with database.reading() as conn:
        sql = "SELECT seq FROM votes UNION SELECT born FROM passages ORDER BY 1"
        every = [row[0] for row in conn.execute(sql)]
    database.close()
    for each in saw:
        assert each["seen"] == every[: len(each["seen"])]
        assert each["n_polls"] > 20
    assert max(len(each["seen"]) for each in saw) > len(every) - 50
    return len(every)


def check_orders(root: Path, folder: Path) -> None:
    """The index on the server answers in the order of a copy of its events in SQLite, both built anew."""
    copy(root, folder / "lite")
    orders = []
    for each in (root, folder / "lite"):
        with Flywheel.open(each) as fw:
            assert fw.refresh().outcome == "promoted"
            found = [fw.retrieve(f"static matter{i} common", k=K, record=False) for i in range(40)]
            orders.append([[(h.passage_id, round(h.score, 6)) for h in a.hits] for a in found])
    assert orders[0] == orders[1]
