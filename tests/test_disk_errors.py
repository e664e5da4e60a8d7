"""Folders that may not be written or read, and disks without space: one clear error, and a way back."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from folders import PASSAGES, QUERY, ids, opened, use
from rag_flywheel import Passage
from rag_flywheel.errors import DiskFullError

FORBIDDEN = """
import json, os, sys
from pathlib import Path
from fakes import WordEncoder
from rag_flywheel import Flywheel, FlywheelError, Passage

here, nobody = Path(sys.argv[1]), 65534
def open_(name): return Flywheel.open(here / name, encoder=WordEncoder())
def make(name):
    with open_(name) as fw:
        fw.add([Passage(f"p{i}", f"word{i}") for i in range(9)])
        fw.refresh()
        fw.feedback(fw.retrieve("word3").id, "p3", "helpful")
        assert fw.verify() == []  # also: every library is imported before the user changes
    return here / name
def chmod(root, folders, files):
    for path in [*sorted(root.rglob("*"), reverse=True), root]:
        path.chmod(folders if path.is_dir() else files)
made = {name: make(name) for name in ("all", "entries", "hidden", "later", "file", "current")}
if os.getuid() == 0:
    for path in [here, *here.rglob("*")]:
        os.chown(path, nobody, nobody)
    os.setgroups([]); os.setgid(nobody); os.setuid(nobody)
later = open_("later")
later.retrieve("word3")
(here / "later" / "refresh.lock").unlink()
chmod(made["all"], 0o555, 0o444)
chmod(made["entries"], 0o555, 0o644)
chmod(made["hidden"], 0o000, 0o000)
chmod(made["later"], 0o555, 0o644)
next(made["file"].glob("versions/*/vectors/0*.npy")).chmod(0)
(made["current"] / "CURRENT").chmod(0)
calls = {
    "all": lambda: open_("all").retrieve("word3"),
    "entries": lambda: open_("entries").retrieve("word3"),
    "hidden": lambda: open_("hidden"),
    "hidden by name": lambda: Flywheel.open(here / "hidden"),
    "new below": lambda: Flywheel.open(here / "all" / "new"),
    "refresh": lambda: later.refresh(),
    "rollback": lambda: later.rollback(later.status().version),
    "file": lambda: open_("file").retrieve("word3"),
    "verify": lambda: open_("file").verify()[0],
    "current": lambda: open_("current").retrieve("word3"),
    "status": lambda: open_("current").status(),
}
found = {}
for name, call in calls.items():
    try:
        found[name] = ["answered", str(call()), True]
    except Exception as error:
        found[name] = [type(error).__name__, str(error), isinstance(error, FlywheelError)]
for root in made.values():
    root.chmod(0o755)
    chmod(root, 0o755, 0o644)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def forbidden() -> dict[str, tuple[str, str, bool]]:
    """What each use of a folder without permissions said, to a user for whom they count."""
    here = tempfile.mkdtemp()  # not below tmp_path, which other users cannot enter
    path = os.pathsep.join([str(Path(__file__).parent / "support"), *sys.path])
    command = [sys.executable, "-c", FORBIDDEN, here]
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    shutil.rmtree(here)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ("all", ["ReadOnlyError", "cannot be written", "permission"]),
        ("entries", ["ReadOnlyError", "cannot be written", "permission"]),
        ("hidden", ["ReadOnlyError", "flywheel.toml", "permission"]),
        ("hidden by name", ["ReadOnlyError", "flywheel.toml", "permission"]),
        ("new below", ["ReadOnlyError", "permission"]),
        ("refresh", ["ReadOnlyError", "refresh.lock", "permission"]),
        ("rollback", ["ReadOnlyError", "refresh.lock", "permission"]),
        ("file", ["vectors/0"]),
        ("verify", ["answered", "vectors/0"]),
        ("current", ["CURRENT", "permission"]),
        ("status", ["CURRENT", "permission"]),
    ],
)
def test_a_folder_without_permissions(
    forbidden: dict[str, tuple[str, str, bool]], use: str, words: list[str]
) -> None:
    kind, said, ours = forbidden[use]
    assert ours, (kind, said)
    assert [word for word in words if word not in f"{kind} {said.lower()} {said}"] == [], said


class Disk:
    """A small disk of its own that can be filled up."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, leave_kb: int = 0) -> None:
        stat = os.statvfs(self.path)
        size = max(stat.f_bavail * stat.f_bsize - leave_kb * 1024, 0)
        (self.path / "filler").write_bytes(bytes(size))

    def free(self) -> None:
        (self.path / "filler").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(path)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only a user who may mount can make a disk that is full")
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_keeps_nothing_half_and_serves_on(disk: Disk) -> None:
    with opened(disk.path / "kb") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        asked = fw.retrieve(QUERY)
        shown = asked.hits[0].passage_id
        before = (ids(fw), fw.status().n_passages, fw.status().n_votes)
        calls: list[Callable[[], object]] = [
            lambda: fw.add([Passage(f"more{i}", "common word3 " * 99) for i in range(50)]),
            lambda: fw.feedback(asked.id, shown, "harmful", user_id="u"),
            lambda: fw.remove(["p0"]),
            lambda: fw.retrieve("never asked before"),
        ]
        disk.fill()
        for call in calls:
            with pytest.raises(DiskFullError, match=r"no space.*free some and repeat"):
                call()
        assert (ids(fw), fw.status().n_passages, fw.status().n_votes) == before
        assert fw.verify() == []
        disk.free()
        for call in calls:
            call()
        assert (fw.status().n_passages, fw.status().n_votes) == (79, 1)
        assert ids(fw) != before[0]


def test_a_version_is_loaded_on_a_full_disk(disk: Disk) -> None:
    with opened(disk.path / "kb") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        disk.fill()
        assert len(use(disk.path / "kb")) == 8  # to remember that its files are sound can wait


def test_the_first_to_open_on_a_full_disk_is_told_so(disk: Disk) -> None:
    opened(disk.path / "kb").close()  # this takes SQLite's shared memory file away
    disk.fill()
    with pytest.raises(DiskFullError, match=r"no space.*free some and repeat"):
        use(disk.path / "kb")


@pytest.mark.slow
def test_a_refresh_that_runs_out_of_space_anywhere_changes_nothing(disk: Disk) -> None:
    root = disk.path / "kb"
    outcomes, wrong = [], list[object]()
    with opened(root) as fw:
        fw.add([Passage(f"p{i}", f"common word{i} word{7 * i % 50}") for i in range(150)])
        fw.refresh()
        for leave_kb in range(0, 400, 4):
            fw.add([Passage(f"new{leave_kb}", f"common word{leave_kb}")])
            live, expected = (root / "CURRENT").read_text(), ids(fw)
            disk.fill(leave_kb)
            try:
                outcomes.append(fw.refresh().outcome)
            except Exception as error:
                outcomes.append(type(error).__name__)
                if type(error) is not DiskFullError or (root / "CURRENT").read_text() != live:
                    wrong.append((leave_kb, "CURRENT was", live, error))
            disk.free()
            assert list((root / "staging").iterdir()) == []
            wrong += [(leave_kb, problem) for problem in fw.verify()]
            assert ids(fw) == expected, leave_kb
            if outcomes[-2:] == ["promoted", "promoted"]:
                break
        assert wrong == []
        assert outcomes.count("DiskFullError") >= 10, outcomes
        fw.add([Passage("last", "common words")])
        assert fw.refresh().outcome == "promoted"


@pytest.mark.slow
def test_a_tuning_that_runs_out_of_space_anywhere_changes_nothing(disk: Disk, voted: Path) -> None:
    from tuned import opened, order, revisions

    subprocess.run(["mount", "-o", "remount,size=8m", str(disk.path)], check=True)
    root = Path(shutil.copytree(voted, disk.path / "kb"))
    outcomes = list[str]()
    with opened(root) as fw:
        fw.refresh()
        live, expected, base = (root / "CURRENT").read_text(), order(fw), set(revisions(root))
        for leave_kb in [*range(0, 160, 16), *range(160, 4_000, 160)]:
            disk.fill(leave_kb)
            try:
                outcomes.append(fw.refresh(tune=True).encoder)
            except DiskFullError:
                outcomes.append("full")
                assert (root / "CURRENT").read_text() == live, leave_kb
            disk.free()
            if outcomes[-1] == "new":
                break
            assert order(fw) == expected
            assert fw.verify() == []
            assert list(root.glob("staging/*")) == []
        assert outcomes == ["full"] * (len(outcomes) - 1) + ["new"]
        assert len(outcomes) > 8, outcomes
        assert order(fw) != expected
        assert set(revisions(root)) > base
        assert fw.verify() == []
