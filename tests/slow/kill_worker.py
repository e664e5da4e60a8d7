"""Does one operation over and over until it is killed: kill_worker.py FOLDER add|feedback|refresh.

On stdout, one JSON line each: "ready"; before a call ["begin", what]; after it returned ["done", what].
"""

import itertools
import json
import sys
from pathlib import Path

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage, Vote

N_EDITED = 20
N_NEW = 30


def say(*what: object) -> None:
    print(json.dumps(what), flush=True)


def batch(n: int) -> list[Passage]:
    """Batch n: new passages, and a few old ones that all say n from then on."""
    edited = [Passage(f"edited{i}", f"batch{n} of the edited text{i}") for i in range(N_EDITED)]
    return edited + [Passage(f"new{n}-{i}", f"batch{n} brings word{i}") for i in range(N_NEW)]


def add(fw: Flywheel, first: int) -> None:
    say("ready")
    for n in itertools.count(first):
        say("begin", n)
        fw.add(batch(n))
        say("done", n)


def feedback(fw: Flywheel, first: int) -> None:
    asked = fw.retrieve_many([f"common word{n}" for n in range(50)])
    say("ready")
    for n in itertools.count(first):
        retrieval = asked[n % len(asked)]
        assert retrieval.id is not None
        shown = [hit.passage_id for hit in retrieval.hits[: 1 + n % 4]]
        votes = [[retrieval.id, passage, f"user{n}"] for passage in shown]
        say("begin", votes)
        fw.feedback_many(Vote(r, p, "helpful", u) for r, p, u in votes)
        say("done", votes)


def refresh(fw: Flywheel, first: int) -> None:
    say("ready")
    for n in itertools.count(first):
        fw.add([Passage(f"extra{n}", f"common extra{n}")])
        say("begin", n)
        report = fw.refresh()
        say("done", [n, report.outcome, report.version])


if __name__ == "__main__":
    with Flywheel.open(Path(sys.argv[1]), encoder=WordEncoder(dim=16)) as flywheel:
        flywheel.retrieve("warm up", record=False)
        work = {"add": add, "feedback": feedback, "refresh": refresh}[sys.argv[2]]
        work(flywheel, int(sys.argv[3]))
