"""Processes that use an index on a server are killed in the middle: what they were told is there, and nothing
is half there."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from on_postgres import url_of
from rag_flywheel import Flywheel, Passage

pytestmark = pytest.mark.slow
ROUNDS = 6


def use(root: Path, name: int, log: Path) -> None:
    """Vote, edit and refresh for ever; a line of `log` says what was acknowledged."""
    with Flywheel.open(root, encoder=WordEncoder()) as fw, log.open("a") as out:
        n = 0
        while True:
            n += 1
            given = fw.retrieve(f"{QUERY} {n % 7}", k=3, user_id=f"{name}")
            fw.feedback(given.id, given.hits[0].passage_id, "helpful", user_id=f"{name} {n}")
            print("vote", given.id, file=out, flush=True)
            if n % 5 == 0:
                fw.add([Passage(f"new {name}", f"{QUERY} edit {n}")])
                print("text", n, file=out, flush=True)
            if n % 9 == 0:
                fw.refresh()


def test_killed_processes_lose_nothing_that_they_were_told(tmp_path: Path) -> None:
    root, rng = tmp_path / "kb", random.Random(0)
    with Flywheel.open(url_of("killed"), cache=root, encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        fw.refresh()
    context = multiprocessing.get_context("spawn")
    voted, edits = set[str](), dict[int, int]()
    for name in range(ROUNDS):
        log = tmp_path / f"log{name}"
        log.touch()
        process = context.Process(target=use, args=(root, name, log))
        process.start()
        assert process.pid is not None
        until = time.monotonic() + 60
        while time.monotonic() < until and log.read_text().count("\n") < 8:
            assert process.is_alive()
            time.sleep(0.02)
        time.sleep(rng.random() / 2)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        for kind, value in (line.split() for line in log.read_text().splitlines()):
            if kind == "vote":
                voted.add(value)
            else:
                edits[name] = int(value)
        with Flywheel.open(root, encoder=WordEncoder()) as fw:
            assert voted <= {vote.retrieval_id for vote in fw.votes(10_000)}
            assert fw.refresh().outcome in ("promoted", "unchanged")
            assert fw.verify() == []
            texts = {p.id: p.text for p in fw.passages()}
            for other, n in edits.items():
                assert int(texts[f"new {other}"].split()[-1]) >= n
            first = fw.retrieve(QUERY, k=8, record=False)
        with Flywheel.open(root, encoder=WordEncoder()) as fw:
            again = fw.retrieve(QUERY, k=8, record=False)
            assert [h.passage_id for h in again.hits] == [h.passage_id for h in first.hits]
