"""Backups of an index that eight processes use: each is one state, and is restored as it was.

RAG_FLYWHEEL_BACKUPS=100 makes a hundred of them; by itself the test makes four.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from busy import N_QUERIES, query, text
from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage, restore
from rag_flywheel.curate.source import Source
from rag_flywheel.store import votes
from rag_flywheel.store.place import open_database

ROUNDS = int(os.environ.get("RAG_FLYWHEEL_BACKUPS", "4"))
WORKER = Path(__file__).with_name("backup_worker.py")
KINDS = ("ask", "ask", "ask", "ask", "edit", "edit", "refresh", "undo")
ENCODER = WordEncoder(dim=16)

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(dim=16))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "kb"
    config = Config(encoder="", keep_versions=10_000)
    with Flywheel.open(root, encoder=ENCODER, config=config) as fw:
        fw.add(Passage(f"p{i}", text(i, 0)) for i in range(80))
        fw.refresh()
    return root


@pytest.fixture
def busy(root: Path) -> Iterator[list[int]]:
    """Eight processes at work; at the end the list has the number of calls of each."""
    places = [str(WORKER.parents[1] / "support"), os.environ.get("PYTHONPATH", "")]
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(root), kind, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        )
        for seed, kind in enumerate(KINDS)
    ]
    calls: list[int] = []
    try:
        yield calls
    finally:
        for worker in workers:
            out, _ = worker.communicate(timeout=120)
            calls.append(int(out) if worker.returncode == 0 else -1)
        print("calls:", dict(enumerate(zip(KINDS, calls, strict=True))))
        assert all(n > 0 for n in calls), calls


def rows(path: Path, sql: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(path / "flywheel.db")) as conn:
        return conn.execute(sql, values).fetchall()


def stored(root: Path, last: int) -> list[Any]:
    """The passages and votes that the database has of the events up to `last`."""
    passages = rows(
        root,
        "SELECT pid, id, text, text_hash, lineage, born, CASE WHEN ended <= ? THEN ended END "
        "FROM passages WHERE born <= ? ORDER BY pid",
        *(last, last),
    )
    cast = rows(root, "SELECT * FROM votes WHERE seq <= ? ORDER BY seq", last)
    looks = rows(root, "SELECT version, n_votes, alpha, p, outcome, arm FROM looks ORDER BY id")
    return [passages, cast, looks]


def rewound(root: Path, last: int, restored: Path, to: Path) -> Path:
    """The index as it was at event `last`, made of its rows and the version that was live then."""
    to.mkdir()
    source = sqlite3.connect(root / "flywheel.db")
    with closing(source), closing(sqlite3.connect(to / "flywheel.db")) as conn:
        source.backup(conn)
        conn.execute("DELETE FROM votes WHERE seq > ?", (last,))
        conn.execute("DELETE FROM passages WHERE born > ?", (last,))
        conn.execute("UPDATE passages SET ended = NULL WHERE ended > ?", (last,))
        conn.execute("UPDATE clock SET seq = ?", (last,))
        conn.commit()
    for name in ("flywheel.toml", "CURRENT"):
        shutil.copy(restored / name, to / name)
    version = (restored / "CURRENT").read_text().split()[0]
    shutil.copytree(root / "versions" / version, to / "versions" / version)
    return to


def learned(root: Path) -> list[Any]:
    """Judgments, parameters and order, as a new process finds them."""
    version = (root / "CURRENT").read_text().split()
    with closing(open_database(root)) as database, database.snapshot() as conn:
        last = int(version[1]) if len(version) > 1 else 2**62
        source = Source(ENCODER, Config(encoder=""))
        judged = source.judge(votes.votes_until(conn, last), {})
    parameters = (root / "versions" / version[0] / "parameters.json").read_bytes()
    with opened(root) as fw:
        found = fw.retrieve_many([query(i) for i in range(N_QUERIES)], record=False)
        order = [[(hit.passage_id, hit.score) for hit in each.hits] for each in found]
    return [version, sorted(map(repr, judged)), parameters, order]


def ranked(fw: Flywheel) -> list[list[str]]:
    return fw.rank_many([p.text for p in sorted(fw.passages(), key=lambda p: p.id)], k=5)


def wrong(fw: Flywheel) -> list[str]:
    """Passages that are not the best for their own text."""
    every = fw.passages()
    ranked = fw.rank_many([p.text for p in every], k=1)
    return [p.id for p, best in zip(every, ranked, strict=True) if best != [p.id]]


def test_backups_of_a_busy_index(root: Path, busy: list[int], tmp_path: Path) -> None:
    saved, over = tmp_path / "saved", tmp_path / "over"
    same, noticed = 0, 0
    bytes_new, versions = list[int](), set[str | None]()
    for n in range(ROUNDS):
        time.sleep(0.5)
        with opened(root) as fw:
            report = fw.backup(saved)
        versions.add(report.version)
        bytes_new.append(report.n_new_bytes)
        elsewhere, twin = tmp_path / f"new{n}", tmp_path / f"rewound{n}"
        restore(saved, elsewhere)
        if n:  # `over` has gone on by itself since the last restore, with versions of its own
            with opened(over) as fw:
                fw.release()
                fw.add(Passage(f"own{n}-{i}", f"own{n} topic{i} alone{n}{i}") for i in range(20))
                assert fw.refresh().outcome == "promoted"
                newer = str(fw.status().version)
            noticed += notices(elsewhere, over, newer, tmp_path / f"pair{n}")
        restore(saved, over)
        rewound(root, report.seq, elsewhere, twin)
        assert stored(elsewhere, report.seq) == stored(twin, report.seq)
        found = [learned(place) for place in (elsewhere, over, twin)]
        same += found[0] == found[1] == found[2]
        with opened(over) as fw:
            assert (fw.verify(), wrong(fw)) == ([], [])
        shutil.rmtree(elsewhere)
        shutil.rmtree(twin)
        print(f"{n + 1}: {report.seq} events, {same} the same, {noticed} noticed", flush=True)
    print(
        f"{ROUNDS} backups of {len(versions)} versions, {same} restored as they were, elsewhere and "
        f"over newer versions; {noticed} of {ROUNDS - 1} wrong pairs noticed; bytes written: "
        f"{bytes_new[0]} at first, then {sum(bytes_new[1:]) // max(1, ROUNDS - 1)} in the mean"
    )
    assert (same, noticed) == (ROUNDS, ROUNDS - 1)


def notices(old: Path, newer: Path, version: str, pair: Path) -> bool:
    """Whether an old database under newer versions is noticed: named by `verify`, answered from as if the
    newer versions were not there, before and after as many passages were added, and mended by a refresh."""
    alone = pair.with_name("alone")
    shutil.copytree(newer, pair)
    for beside in ("", "-wal", "-shm"):
        (pair / f"flywheel.db{beside}").unlink(missing_ok=True)
    source = sqlite3.connect(old / "flywheel.db")
    with closing(source), closing(sqlite3.connect(pair / "flywheel.db")) as copy:
        source.backup(copy)
    shutil.copytree(old, alone)
    if not (pair / "versions" / (old / "CURRENT").read_text().split()[0]).exists():
        shutil.rmtree(alone / "versions")  # then the database alone can answer
        (alone / "CURRENT").unlink()
    with opened(pair) as fw, opened(alone) as reference:
        found = [ranked(fw) == ranked(reference)]
        for each in (fw, reference):
            each.add(Passage(f"other{i}", f"other{i} says other{i} alone") for i in range(40))
        found += [ranked(fw) == ranked(reference), any(version in said for said in fw.verify())]
        fw.refresh()
        found += [wrong(fw) == [], fw.verify() == []]
    for place in (pair, alone):
        shutil.rmtree(place)
    if not all(found):
        print(f"{pair.name}: {found}")
    return all(found)
