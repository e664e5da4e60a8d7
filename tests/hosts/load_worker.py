"""A process of a host under load: load_worker.py URL FOLDER OBJECTS use|refresh NAME STOP.

It goes on until there is a file STOP. On stdout, JSON lines: "ready"; of `refresh`, "refreshed" with the
outcome, each time; of `use`, at the end, how many votes were acknowledged and passages added, and what went
wrong.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.errors import FlywheelError, LockedError


def say(*what: object) -> None:
    print(json.dumps(what), flush=True)


def markers(fw: Flywheel) -> set[str]:
    """What was committed before this, whoever did it."""
    with fw._database.reading() as conn:
        rows = conn.execute("SELECT id FROM passages WHERE ended IS NULL AND id LIKE 'mark-%'")
        return {row[0] for row in rows}


class User:
    """One who asks, votes and edits, and notes what should not be."""

    def __init__(self, fw: Flywheel, name: str) -> None:
        self.fw, self.name = fw, name
        self.n_votes = self.n_added = 0
        self.wrong: list[str] = []
        self.last = ""

    def ask(self, n: int) -> Any:
        found = self.fw.retrieve(f"word{n % 30} common", k=8, user_id=f"{self.name}-{n}")
        ids = [hit.passage_id for hit in found.hits]
        if len(ids) != len(set(ids)) or len(ids) < 8:
            self.wrong.append(f"hits {ids}")
        if (found.version or "") < self.last:
            self.wrong.append(f"{found.version} after {self.last}")
        self.last = found.version or ""
        return found

    def vote(self, n: int) -> None:
        found = self.ask(n)
        shown = found.hits[n % 8].passage_id
        self.n_votes += self.fw.feedback(found.id, shown, "helpful", user_id=f"{self.name}-{n}")

    def add(self, n: int) -> None:
        self.fw.add([Passage(f"mark-{self.name}-{n}", f"marker of {self.name} number{n}")])
        self.n_added += 1

    def look(self) -> None:
        """Every text that was there before is found, in a version or fresh: no event was skipped."""
        there = markers(self.fw)
        hits = self.fw.retrieve("marker", k=1000, record=False).hits
        if missing := there - {hit.passage_id for hit in hits}:
            self.wrong.append(f"missing {sorted(missing)}")


def use(fw: Flywheel, name: str, stop: Path) -> None:
    user, n = User(fw, name), 0
    while not stop.exists():
        n += 1
        try:
            user.vote(n)
            if n % 10 == 0:
                user.add(n)
            if n % 5 == 0:
                user.look()
        except FlywheelError as error:
            user.wrong.append(repr(error))
    say(user.n_votes, user.n_added, user.wrong[:5])


def refresh(fw: Flywheel, name: str, stop: Path) -> None:
    n = 0
    while not stop.exists():
        n += 1
        fw.add([Passage(f"{name}-{n}", f"common word{n % 30} of {name}")])
        try:
            say("refreshed", fw.refresh().outcome)
        except LockedError:
            say("refreshed", "locked")
            time.sleep(0.2)


if __name__ == "__main__":
    url, folder, store, what, name, end = sys.argv[1:]
    with Flywheel.open(url, cache=Path(folder), encoder=WordEncoder()) as flywheel:
        flywheel.retrieve("word1", record=False)
        say("ready")
        {"use": use, "refresh": refresh}[what](flywheel, name, Path(end))
