"""One of the processes that are busy during backups: backup_worker.py FOLDER ask|edit|refresh|undo SEED.

It works until its input is closed, and then says how many calls it made.
"""

import random
import select
import sys
from pathlib import Path

from busy import N_QUERIES, query, text
from fakes import WordEncoder
from rag_flywheel import Flywheel, LockedError, Passage

PAUSE_S = {"ask": 0.3, "edit": 1.0, "refresh": 2.0, "undo": 3.0}


def work(fw: Flywheel, what: str, chance: random.Random) -> None:
    if what == "ask":
        user = f"user{chance.randrange(40)}"
        shown = fw.retrieve(query(chance.randrange(N_QUERIES)), user_id=user)
        hit = shown.hits[min(int(chance.expovariate(1.0)), len(shown.hits) - 1)]
        verdict = "helpful" if chance.random() < 0.8 else "harmful"
        fw.feedback(shown.id, hit.passage_id, verdict, user_id=user)  # type: ignore[arg-type]
    elif what == "edit":
        i = chance.randrange(120)
        fw.add([Passage(f"p{i}", text(i, chance.randrange(1_000)))])
        if chance.random() < 0.2:
            fw.remove([f"p{i}"])
    elif what == "refresh":
        fw.refresh()
    elif chance.random() < 0.3:
        newest = [version.id for version in fw.versions()[:3]]
        fw.rollback(chance.choice(newest), hold=chance.random() < 0.5)
    else:
        fw.release()


def main(root: Path, what: str, seed: int) -> None:
    n, chance = 0, random.Random(seed)
    with Flywheel.open(root, encoder=WordEncoder(dim=16)) as fw:
        while not select.select([sys.stdin], [], [], PAUSE_S[what])[0]:
            try:
                work(fw, what, chance)
                n += 1
            except (LockedError, LookupError):  # another holds the lock, or removed the passage
                pass
    print(n)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
