"""A process of one of many hosts: many_hosts_worker.py ROLE NUMBER PLACE OUT.

PLACE: how the index is opened, as JSON: the arguments of `Flywheel.open`. ROLE: "serve" asks, votes and edits
until its input ends or says stop, does what lines of it say, and then writes what it saw to OUT, as JSON;
"refresh" adds a passage and refreshes, over and over, until it is stopped or killed.
"""

import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rag_flywheel import Flywheel, Passage
from rag_flywheel.store.database import Database

N_HOSTS = 8
N_EDITED, N_STATIC, N_TOPICS = 64, 64, 16
K = 8
_NOUNS = {"edited": "thing", "static": "matter"}
_SEEN = (
    "SELECT seq FROM votes WHERE seq > ? UNION SELECT born FROM passages WHERE born > ? ORDER BY 1"
)


def edited(i: int, k: int) -> Passage:
    """A passage that one of the processes edits, in its k-th wording."""
    return Passage(f"e{i}", f"wording{k} of edited thing{i} about topic{i % N_TOPICS} common")


def static(i: int) -> Passage:
    """A passage that nobody edits."""
    return Passage(f"s{i}", f"static matter{i} of topic{i % N_TOPICS} common")


def opened(place: dict[str, Any]) -> Flywheel:
    """The index, which is there."""
    return Flywheel.open(place["path"], **{k: v for k, v in place.items() if k != "path"})


def say(*words: object) -> None:
    """A line for the test, as JSON."""
    print(json.dumps(words), flush=True)


class Serving:
    """What one process does and saw. Times are of the machine's clock, which all share here."""

    def __init__(self, fw: Flywheel, number: int) -> None:
        self.fw, self.number = fw, number
        self.stop = threading.Event()
        self.chance = random.Random(number)
        self.answers: list[Any] = []  # (begin, end, version, [(passage, text)])
        self.votes: list[Any] = []  # (retrieval, passage, verdict, user) of those acknowledged
        self.edits: list[Any] = []  # (passage number, wording, begin, end)
        self.seen: list[int] = []  # event numbers, in the order in which the reader saw them
        self.n_polls = 0
        self.wordings = dict.fromkeys(range(number, N_EDITED, N_HOSTS), 0)

    def ask(self, query: str, user: str) -> Any:
        """Ask, and note the answer."""
        begin = time.time()
        found = self.fw.retrieve(query, k=K, user_id=user)
        hits = [(hit.passage_id, hit.text) for hit in found.hits]
        self.answers.append((begin, time.time(), found.version, hits))
        return found

    def vote(self, found: Any, passage: str, verdict: Any, user: str) -> None:
        """Vote, and note that it was acknowledged."""
        assert self.fw.feedback(found.id, passage, verdict, user_id=user)
        self.votes.append((found.id, passage, verdict, user))

    def edit(self) -> None:
        """Give one of the own passages other words."""
        i = self.chance.choice(list(self.wordings))
        k = self.wordings[i] = self.wordings[i] + 1
        begin = time.time()
        self.fw.add([edited(i, k)])
        self.edits.append((i, k, begin, time.time()))

    def traffic(self) -> None:
        """Ask, vote and edit until it is over."""
        n = 0
        while not self.stop.is_set():
            n += 1
            user = f"u{self.number}-{n}"
            kind, i = self.chance.choice(("edited", "static")), self.chance.randrange(N_EDITED)
            found = self.ask(f"{kind} {_NOUNS[kind]}{i} common {n % 50}", user)
            if self.chance.random() < 0.7:
                passage = self.chance.choice(found.hits[:3]).passage_id
                right = (passage == f"{kind[0]}{i}") == (self.chance.random() < 0.9)
                self.vote(found, passage, "helpful" if right else "harmful", user)
            if self.chance.random() < 0.3:
                self.edit()

    def read_events(self, database: Database) -> None:
        """Follow the events, as who loads what is new does: each look begins after the last one seen."""
        last, ends = 0, False
        while not ends:
            ends = self.stop.is_set()
            with database.reading() as conn:
                found = [row[0] for row in conn.execute(_SEEN, (last, last))]
            self.seen += found
            last = found[-1] if found else last
            self.n_polls += 1
            time.sleep(0.01)

    def told(self, word: str, question: str) -> None:
        """Do what a line says, and answer with a line."""
        found = self.ask(question, f"told {self.number}")
        if word == "vote":
            passage = found.hits[0].passage_id
            self.vote(found, passage, "helpful", f"told {self.number}")
            say("voted", passage)
        else:
            say("found", {hit.passage_id: hit.explanation.evidence for hit in found.hits})


def serve(number: int, place: dict[str, Any], out: Path) -> None:
    """Serve until the input says stop."""
    with opened(place) as fw:
        fw.warm()
        serving = Serving(fw, number)
        failed: list[BaseException] = []

        def run(work: Any, *given: Any) -> None:
            try:
                work(*given)
            except BaseException as error:
                failed.append(error)

        threads = [
            threading.Thread(target=run, args=(serving.traffic,)),
            threading.Thread(target=run, args=(serving.read_events, fw._database)),
        ]
        say("ready")
        for thread in threads:
            thread.start()
        for line in sys.stdin:
            word, *given = json.loads(line)
            if word == "stop":
                break
            serving.told(word, *given)
        serving.stop.set()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        lists = "answers", "votes", "edits", "seen", "n_polls"
        out.write_text(json.dumps({name: getattr(serving, name) for name in lists}))
        say("ended")


def refresh(number: int, place: dict[str, Any]) -> None:
    """Refresh until it is killed, or the input ends."""
    with opened(place) as fw:
        say("ready")
        for n, line in enumerate(sys.stdin):
            if json.loads(line) == ["stop"]:
                break
            fw.add([Passage(f"r{number}", f"refreshed matter {n} common topic{n % N_TOPICS}")])
            say("begin", n)
            say("end", fw.refresh().outcome)


if __name__ == "__main__":
    if sys.argv[1] == "refresh":
        refresh(int(sys.argv[2]), json.loads(sys.argv[3]))
    else:
        serve(int(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4]))
