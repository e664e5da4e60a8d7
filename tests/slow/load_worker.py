"""Works until it is killed: load_worker.py FOLDER vote FILE, or FOLDER move FIRST.

vote: asks and votes, some ten times a second (what a refresh takes grows with the votes); after
each vote that is acknowledged its number is a line of FILE.
move: refreshes, rolls back, releases and forgets, over and over; on stdout one JSON line each:
["ready"], before a call ["begin", what], after it returned ["done", what].
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage

USERS = 60


def say(*what: object) -> None:
    print(json.dumps(what), flush=True)


def vote(fw: Flywheel, file: Path) -> None:
    with file.open("a", encoding="utf-8") as out:
        for n in itertools.count():
            shown = fw.retrieve(f"common word{n % 50}", user_id=f"loader{n % 9}")
            hit = shown.hits[n % 3].passage_id
            fw.feedback(shown.id, hit, "helpful", user_id=f"loader{n % 9}", reason=f"load {n}")
            out.write(f"{n}\n")
            out.flush()
            time.sleep(0.1)


def move(fw: Flywheel, first: int) -> None:
    say("ready")
    for n in itertools.count(first):
        fw.add([Passage(f"extra{n}", f"common extra{n}")])
        calls: dict[str, Callable[[], object]] = {
            "refresh": fw.refresh,
            "rollback": partial(fw.rollback, hold=n % 3 == 0),
            "release": fw.release,
            "refresh again": fw.refresh,
            "forget": partial(fw.forget, f"gone{n % USERS}"),
        }
        for name, call in calls.items():
            if name == "rollback" and len(fw.versions()) < 2:
                continue
            say("begin", name)
            call()
            say("done", name)


if __name__ == "__main__":
    folder, what, argument = sys.argv[1:]
    with Flywheel.open(Path(folder), encoder=WordEncoder(dim=16)) as flywheel:
        flywheel.retrieve("warm up", record=False)
        if what == "vote":
            vote(flywheel, Path(argument))
        else:
            move(flywheel, int(argument))
