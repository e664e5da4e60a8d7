"""A database and versions of another state of it, however they came together, are noticed each time.

RAG_FLYWHEEL_PAIRS=100 makes a hundred such pairs; by itself the test makes six.
"""

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage

PAIRS = int(os.environ.get("RAG_FLYWHEEL_PAIRS", "6"))

pytestmark = pytest.mark.slow


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(dim=16))


def texts(kind: str, n: int) -> list[Passage]:
    return [Passage(f"{kind}{i}", f"{kind}{i} alone says {kind}{i}") for i in range(n)]


def copied(root: Path, target: Path) -> None:
    source = sqlite3.connect(root / "flywheel.db")
    with closing(source), closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def put(database: Path, root: Path) -> None:
    for beside in ("", "-wal", "-shm"):
        (root / f"flywheel.db{beside}").unlink(missing_ok=True)
    shutil.copy(database, root / "flywheel.db")


def vote(fw: Flywheel, chance: random.Random, n: int) -> None:
    for _ in range(n):
        shown = fw.retrieve(
            f"who says old{chance.randrange(80)}", user_id=f"u{chance.randrange(9)}"
        )
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="ann")


def ranked(fw: Flywheel) -> list[tuple[str, list[str]]]:
    every = sorted(fw.passages(), key=lambda p: p.id)
    return list(zip([p.id for p in every], fw.rank_many([p.text for p in every], k=3), strict=True))


def lost(fw: Flywheel) -> list[str]:
    return [id_ for id_, best in ranked(fw) if best[:1] != [id_]]


def made_wrong(root: Path, chance: random.Random) -> str:
    """Put a database and versions together that do not belong together; returns how."""
    how = chance.choice(["old database", "lost log", "copied versions", "other branch"])
    copy = root.with_name("copy")
    copied(root, root.with_name("old.db"))
    n = chance.randrange(1, 50)
    if how == "old database":
        with opened(root) as fw:
            fw.add(texts("newer", n))
            vote(fw, chance, 3)
            fw.refresh()
        put(root.with_name("old.db"), root)
    elif how == "lost log":
        with opened(root) as fw:
            fw._database.compact()
            fw.add(texts("newer", n))
            fw.refresh()
            shutil.copytree(root, copy)
        for beside in ("-wal", "-shm"):
            (copy / f"flywheel.db{beside}").unlink(missing_ok=True)
        shutil.rmtree(root)
        copy.rename(root)
    else:
        shutil.copytree(root, copy)
        with opened(copy) as fw:
            fw.add(texts("newer", n))
            fw.refresh()
        if how == "other branch":
            with opened(root) as fw:
                fw.add(texts("branch", n))
                fw.refresh()
        shutil.rmtree(root / "versions")
        shutil.copytree(copy / "versions", root / "versions")
        shutil.copy(copy / "CURRENT", root / "CURRENT")
    return how


def test_every_wrong_pair_is_noticed(tmp_path: Path) -> None:
    chance, noticed, hows = random.Random(7), 0, dict[str, int]()
    for n in range(PAIRS):
        place = tmp_path / str(n)
        root, alone = place / "kb", place / "alone"
        with opened(root) as fw:
            fw.add(texts("old", 80))
            fw.refresh()
            vote(fw, chance, chance.randrange(5))
            if chance.random() < 0.5:
                fw.refresh()
        how = made_wrong(root, chance)
        version = (root / "CURRENT").read_text().split()[0]
        alone.mkdir()
        copied(root, alone / "flywheel.db")
        shutil.copy(root / "flywheel.toml", alone)
        others = texts("other", 40)  # under the numbers that the newer ones had
        with opened(root) as fw, opened(alone) as reference:
            found = [lost(fw)]
            for each in (fw, reference):
                each.add(others)
            found += [lost(fw), [] if any(version in said for said in fw.verify()) else ["unseen"]]
            fw.refresh()
            found += [lost(fw), fw.verify()]
            reference.refresh()
            found.append([] if ranked(fw) == ranked(reference) else ["ranked otherwise"])
        if any(found):
            print(n, how, found)
        noticed += not any(found)
        hows[how] = hows.get(how, 0) + 1
        shutil.rmtree(place)
    print(f"{noticed} of {PAIRS} wrong pairs noticed: {hows}")
    assert noticed == PAIRS
