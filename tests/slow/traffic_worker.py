"""One of several processes on a folder: traffic_worker.py MODE FOLDER [SECONDS]; JSON on stdout.

traffic: asks and votes, checking every answer. refresh: edits every passage in one call and
refreshes, over and over. serve: does what each line on stdin says. fork, orphan: uses the folder
on both sides of a fork. closing: closes it under its own threads. make: opens new folders at the
same moment as others.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fakes import WordEncoder
from rag_flywheel import Flywheel, FlywheelError, Passage, Retrieval

N_PASSAGES = 60
K = 8
HANG_S = 20


def generation(g: int) -> list[Passage]:
    """Every passage of the folder, saying that it is of generation g."""
    return [
        Passage(f"p{i}", f"generation{g} shared topic{i} topic{i + 1}") for i in range(N_PASSAGES)
    ]


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


def faults(answer: Retrieval, last: int) -> tuple[int, list[str]]:
    """(its generation, what is wrong with an answer when generation `last` was seen before)."""
    hits, found = answer.hits, []
    seen = sorted({int(hit.text.split()[0].removeprefix("generation")) for hit in hits})
    if len(hits) != K:
        found.append(f"{len(hits)} hits")
    if len(seen) > 1:
        found.append(f"generations {seen} in one answer")
    if seen and seen[0] < last:
        found.append(f"generation {seen[0]} after {last}")
    if [hit.rank for hit in hits] != list(range(1, len(hits) + 1)):
        found.append(f"ranks {[hit.rank for hit in hits]}")
    if len({hit.passage_id for hit in hits}) != len(hits):
        found.append("a passage twice")
    scores = [hit.score for hit in hits]
    if scores != sorted(scores, reverse=True):
        found.append(f"scores {scores}")
    for hit in hits:
        parts = hit.explanation
        total = parts.intercept + sum(parts.terms.values()) + parts.evidence
        if abs(total - hit.score) > 1e-6:
            found.append(f"score {hit.score} explained as {total}")
    return (seen[0] if seen else last), found


def traffic(root: Path, seconds: float) -> dict[str, Any]:
    chance = random.Random(os.getpid())
    votes, answers, last = 0, 0, 0
    versions, wrong, generations = set[str | None](), list[str](), set[int]()
    with opened(root) as fw:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = fw.retrieve(f"shared topic{chance.randrange(N_PASSAGES)}", k=K)
            last, found = faults(answer, last)
            answers, wrong = answers + 1, wrong + found
            versions.add(answer.version)
            generations.add(last)
            if answer.hits and chance.random() < 0.3:
                hit = chance.choice(answer.hits)
                verdict = chance.choice(["helpful", "harmful"])
                fw.feedback(answer.id, hit.passage_id, verdict, user_id=f"u{answers}")  # type: ignore[arg-type]
                votes += 1
    return {
        "answers": answers,
        "votes": votes,
        "versions": sorted(map(str, versions)),
        "generations": len(generations),
        "n_wrong": len(wrong),
        "wrong": sorted(set(wrong))[:20],
    }


def refresh(root: Path, seconds: float) -> dict[str, Any]:
    promoted, g, looks = [], 0, 0
    with opened(root) as fw:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(3):
                g += 1
                assert fw.add(generation(g)).updated == N_PASSAGES
                time.sleep(0.02)
            report = fw.refresh()
            assert report.outcome == "promoted", report
            promoted.append(report.version)
            looks += fw.status().n_indexed == N_PASSAGES
    return {"promoted": promoted, "generations": g, "looks": looks}


def watch(root: Path, seconds: float) -> dict[str, Any]:
    """What an operator looks at, while others refresh."""
    looks, problems = 0, set[str]()
    with opened(root) as fw:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert fw.status().n_passages == N_PASSAGES
            problems |= set(fw.verify())
            looks += len(fw.versions()) >= 1
    return {"looks": looks, "problems": sorted(problems)}


def serve(root: Path) -> None:
    with opened(root) as fw:
        for line in sys.stdin:
            do, *what = json.loads(line)
            result: Any = None
            if do == "retrieve":
                answer = fw.retrieve(what[0], k=K)
                hits = [
                    [h.passage_id, list(h.explanation.votes), h.explanation.evidence, h.score]
                    for h in answer.hits
                ]
                result = [answer.id, hits]
            elif do == "vote":
                fw.feedback(what[0], what[1], "harmful", user_id=str(os.getpid()))
            elif do == "add":
                fw.add([Passage(what[0], what[1])])
            else:
                fw.remove([what[0]])
            print(json.dumps(result), flush=True)


def vote(fw: Flywheel, user: str, n: int) -> int:
    for i in range(n):
        answer = fw.retrieve(f"shared topic{i}", k=K)
        fw.feedback(answer.id, answer.hits[i % K].passage_id, "helpful", user_id=f"{user}{i}")
    return n


def fork(root: Path) -> dict[str, Any]:
    """Parent and child go on with the same object at the same time."""
    fw = opened(root)
    fw.retrieve_many([f"shared topic{i}" for i in range(N_PASSAGES)], k=K)
    child = os.fork()
    if child == 0:
        signal.alarm(HANG_S)
        vote(fw, "child", 30)
        fw.close()
        os._exit(7)
    voted = vote(fw, "parent", 30)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    voted += vote(fw, "later", 10)
    fw.close()
    return {"child": status, "voted": voted}


def orphan(root: Path) -> dict[str, Any]:
    """The child goes on after the parent closed the folder. It only votes: see `fork` for more."""
    fw = opened(root)
    answers = [fw.retrieve(f"shared topic{i}", k=K) for i in range(20)]
    started, closed = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(HANG_S)
        for i, answer in enumerate(answers):
            fw.feedback(answer.id, answer.hits[0].passage_id, "helpful", user_id="child")
            if i == 0:
                os.write(started[1], b"x")
                os.read(closed[0], 1)
        os._exit(7)
    os.read(started[0], 1)
    fw.close()
    os.write(closed[1], b"x")
    return {"child": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "voted": len(answers)}


def closing(root: Path) -> dict[str, Any]:
    """Another thread closes the folder while two use it."""
    asked, errors, rounds = 0, set[str](), 10
    for _ in range(rounds):
        fw = opened(root)
        fw.retrieve("shared", k=K)
        stopped = list[str]()

        def ask(fw: Flywheel = fw, stopped: list[str] = stopped) -> int:
            for n in itertools.count():
                try:
                    answer = fw.retrieve("shared topic3", k=K)
                    fw.feedback(answer.id, answer.hits[0].passage_id, "helpful", user_id="u")
                except Exception as error:
                    stopped.append(type(error).__name__)
                    return n
            raise AssertionError

        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(ask), pool.submit(ask)]
            time.sleep(0.1)
            fw.close()
            asked += sum(job.result() for job in jobs)
        errors |= set(stopped)
    return {"asked": asked, "errors": sorted(errors), "rounds": rounds}


def make(root: Path) -> dict[str, Any]:
    made = 0
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            with opened(root / line.strip()) as fw:
                made += fw.add([Passage(f"of {os.getpid()}", "common words")]).added
            print("done", flush=True)
        except FlywheelError as error:
            print(f"{type(error).__name__}: {error}", flush=True)
    return {"made": made}


if __name__ == "__main__":
    mode, folder = sys.argv[1], Path(sys.argv[2])
    if mode == "serve":
        serve(folder)
    elif mode in {"traffic", "refresh", "watch"}:
        run = {"traffic": traffic, "refresh": refresh, "watch": watch}[mode]
        print(json.dumps(run(folder, float(sys.argv[3]))))
    else:
        modes = {"fork": fork, "orphan": orphan, "closing": closing, "make": make}
        print(json.dumps(modes[mode](folder)))
