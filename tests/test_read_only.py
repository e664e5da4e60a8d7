"""An index that is opened to be read only: it answers, follows what others write, and writes no byte."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from rag_flywheel import Candidate, Flywheel, Passage
from rag_flywheel.errors import NotAFlywheelError, ReadOnlyError, StorageError
from rag_flywheel.store.database import FILE_NAME, ChangedError
from rag_flywheel.store.sqlite import SqliteDatabase

GIVEN = [Candidate("p3", "common word3", 2.0), Candidate("own", "other text", 1.0)]
SUPPORT = str(Path(__file__).parent / "support")


def whole(folder: Path) -> dict[str, Any]:
    """Bytes, modes and times of everything in a folder, and of itself."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        s = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(s.st_mode) else b""
        found[str(path)] = s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns, data
    return found


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(), read_only=True)


def read_everything(fw: Flywheel) -> list[str]:
    """Call all that only reads; returns what a question finds."""
    fw.warm()
    found = fw.retrieve(QUERY, user_id="u", session_id="s")
    assert found.id is None and not found.recorded and found.hits
    assert all(each.id is None for each in fw.retrieve_many([QUERY, "word5"]))
    assert fw.rerank(QUERY, GIVEN).id is None
    fw.rank_many([QUERY])
    fw.votes_behind(found.hits[0])
    fw.passages()
    fw.metadata_keys()
    fw.gaps()
    fw.golden.items()
    fw.review.items()
    fw.raters()
    fw.status()
    fw.history()
    fw.explain_version(fw.versions()[0].id)
    assert fw.verify() == []
    return [hit.passage_id for hit in found.hits]


WRITES: dict[str, Callable[[Flywheel, Path], object]] = {
    "add": lambda fw, _: fw.add([Passage("new", "new words")]),
    "add_files": lambda fw, out: fw.add_files(out),
    "add_documents": lambda fw, _: fw.add_documents([]),
    "remove": lambda fw, _: fw.remove(["p1"]),
    "feedback": lambda fw, _: fw.feedback(fw.retrieve(QUERY).id, "p3", "helpful"),
    "feedback_many": lambda fw, _: fw.feedback_many([]),
    "answer_feedback": lambda fw, _: fw.answer_feedback("r", "helpful"),
    "relevance": lambda fw, _: fw.relevance("r", {"p3": True}),
    "adopted": lambda fw, _: fw.adopted("r", used=True),
    "signal": lambda fw, _: fw.signal("r", "copied"),
    "correct": lambda fw, _: fw.correct("r", "p3"),
    "missing": lambda fw, _: fw.missing("r"),
    "answer": lambda fw, _: fw.answer("r", "text"),
    "pin": lambda fw, _: fw.pin(QUERY, "p3"),
    "import_votes": lambda fw, _: fw.import_votes([]),
    "mute": lambda fw, _: fw.mute("u"),
    "opt_out": lambda fw, _: fw.opt_out("u"),
    "forget": lambda fw, _: fw.forget("u"),
    "refresh": lambda fw, _: fw.refresh(),
    "rollback": lambda fw, _: fw.rollback(),
    "release": lambda fw, _: fw.release(),
    "repair": lambda fw, _: fw.repair(),
}


@pytest.mark.parametrize("call", WRITES)
def test_what_writes_says_that_the_index_is_read_only(
    folder: Path, tmp_path: Path, call: str
) -> None:
    (tmp_path / "docs").mkdir()
    before = whole(folder)
    with opened(folder) as fw, pytest.raises(ReadOnlyError, match=r"opened with read_only=True"):
        WRITES[call](fw, tmp_path / "docs")
    assert whole(folder) == before


def test_a_closed_index_is_read_without_a_byte_written(folder: Path, tmp_path: Path) -> None:
    assert sorted(p.name for p in folder.glob("flywheel.db*")) == [FILE_NAME]
    before = whole(folder)
    with opened(folder) as fw:
        found = read_everything(fw)
        assert fw.backup(tmp_path / "copy").seq > 0
        fw.export.beir(tmp_path / "out")
    assert whole(folder) == before
    with Flywheel.open(folder, encoder=WordEncoder()) as writer:
        assert [h.passage_id for h in writer.retrieve(QUERY).hits] == found


AUDITED = """
import os, sys
writes = []
def hook(event, args):
    if event == "open" and args[1] is not None and set(str(args[1])) & set("wax+"):
        writes.append(str(args[0]))
    elif event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        writes.append(str(args[0]))
    elif event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link",
                   "os.symlink", "os.utime"}:
        writes.append(f"{event} {args[0]}")
    elif event == "sqlite3.connect" and "mode=ro" not in str(args[0]) and ":memory:" not in str(args[0]):
        writes.append(str(args[0]))
sys.path.insert(0, sys.argv[2])
from test_read_only import opened, read_everything
from pathlib import Path
root, user, made = Path(sys.argv[1]), sys.argv[3], sys.argv[4] == "too"
if user:  # who may read neither Python nor this package: all is loaded before
    with opened(Path(user)) as fw:
        read_everything(fw)
    os.setgid(65534)
    os.setuid(65534)
sys.addaudithook(hook)
with opened(root) as fw:
    read_everything(fw)
if made:  # the hook sees what it should
    (root / "x").write_text("x")
print(*[w for w in writes if str(root) in w], sep="\\n")
"""


def audited(root: Path, *, more: str = "", first: Path | str = "") -> str:
    """What a process that reads everything opened for writing, created or renamed in the folder.

    more: "too": it also writes a file there; first: a folder to read as root, before it becomes nobody.
    """
    done = subprocess.run(
        [sys.executable, "-B", "-c", AUDITED, str(root), str(Path(__file__).parent), str(first), more],
        env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{SUPPORT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_nothing_is_opened_for_writing(folder: Path) -> None:
    before = whole(folder)
    assert audited(folder) == ""
    assert whole(folder) == before
    assert str(folder / "x") in audited(folder, more="too")


@pytest.fixture
def foreign(folder: Path) -> Iterator[Path]:
    """A folder that nobody may write to, all may read, and that belongs to root, in a place all reach."""
    if os.getuid() != 0:
        pytest.skip("only root can run a process as another user")
    place = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp") / f"ro-{os.getpid()}"
    shutil.copytree(folder, place / "kb")
    for path in (place, *place.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield place / "kb"
    shutil.rmtree(place)


@pytest.mark.slow
@pytest.mark.parametrize("beside", ["", "log", "log in use"])
def test_another_user_without_write_permission(foreign: Path, folder: Path, beside: str) -> None:
    writer = None
    if beside:
        writer = Flywheel.open(foreign, encoder=WordEncoder())  # as root
        writer.add([Passage("late", f"{QUERY} late")])
        if beside == "log":
            copy = foreign.with_name("copy")
            shutil.copytree(foreign, copy)
            writer.close()
            foreign = copy
        for path in foreign.glob("flywheel.db*"):
            path.chmod(0o444)
    before = whole(foreign)
    assert audited(foreign, first=folder) == ""
    if beside != "log in use":
        assert whole(foreign) == before
    if writer is not None:
        writer.close()


@pytest.mark.slow
def test_a_read_only_mount(foreign: Path) -> None:
    place = foreign.with_name("mount")
    foreign.parent.chmod(0o755)
    place.mkdir()
    bound = subprocess.run(["mount", "--bind", foreign, place], check=False, capture_output=True)
    if bound.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        assert audited(place) == ""
        with pytest.raises(ReadOnlyError):
            Flywheel.open(place, encoder=WordEncoder())
    finally:
        subprocess.run(["umount", place], check=True)


WRITER = """
import sys
from pathlib import Path
from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
fw = Flywheel.open(sys.argv[1], encoder=WordEncoder())
print("ready", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "refresh":
        print(fw.refresh().version, flush=True)
    elif word == "close":
        fw.close(); print("closed", flush=True)
    else:
        fw.add([Passage(word, f"{word} is fresh")]); print("added", flush=True)
"""


@pytest.fixture
def writer(folder: Path) -> Iterator[Callable[[str], str]]:
    """Another process that has the index open for writing, and does what it is told."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{SUPPORT}"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    out, into = process.stdout, process.stdin

    def tell(word: str) -> str:
        if word:
            into.write(f"{word}\n")
            into.flush()
        return out.readline().strip()

    yield tell
    into.close()
    process.wait()
    out.close()


def test_what_another_process_writes_and_builds_is_followed(
    folder: Path, writer: Callable[[str], str]
) -> None:
    with opened(folder) as fw:  # the file is closed, perhaps: the other process begins meanwhile
        first = fw.retrieve(QUERY).version
        assert writer("") == "ready"
        for word in ("zebra", "yak"):
            assert writer(word) == "added"
            assert fw.retrieve(word, 1).hits[0].passage_id == word
        built = writer("refresh")
        assert built != first
        for _ in range(200):
            if fw.retrieve("zebra", 1).version == built:
                break
        else:
            raise AssertionError("the new version was never served")
        assert fw.status().version == built
        assert writer("close") == "closed"
        assert fw.retrieve("yak", 1).hits[0].passage_id == "yak"
    before = whole(folder)
    with opened(folder) as fw:
        assert fw.retrieve("yak", 1).hits[0].passage_id == "yak"
    assert whole(folder) == before


def test_readers_and_a_writer_in_one_process(folder: Path) -> None:
    with opened(folder) as fw:
        fw.retrieve(QUERY)
        for i in range(3):
            with Flywheel.open(folder, encoder=WordEncoder()) as writing:
                writing.add([Passage(f"n{i}", f"walrus{i} is new")])
                assert fw.retrieve(f"walrus{i}", 1).hits[0].passage_id == f"n{i}"
                writing.feedback(writing.retrieve(QUERY).id, "p3", "helpful")
            assert fw.retrieve(f"walrus{i}", 1).hits[0].passage_id == f"n{i}"
        with opened(folder) as other, Flywheel.open(folder, encoder=WordEncoder()) as writing:
            other.retrieve(QUERY)
            writing.add([Passage("last", "the last walrus")])
            assert other.retrieve("last", 1).hits[0].passage_id == "last"


def test_a_log_without_its_index_is_refused_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    with Flywheel.open(folder, encoder=WordEncoder()) as fw:
        fw.add([Passage("late", "late words")])
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    with opened(copy) as fw:
        assert fw.retrieve("late", 1).hits[0].passage_id == "late"
    (copy / f"{FILE_NAME}-shm").unlink()
    before = whole(copy)
    with pytest.raises(ReadOnlyError, match=r"-shm.* is missing: open the index once with write"):
        opened(copy)
    assert whole(copy) == before
    with Flywheel.open(copy, encoder=WordEncoder()) as fw:
        assert fw.retrieve("late", 1).hits[0].passage_id == "late"
    with opened(copy) as fw:
        assert fw.retrieve("late", 1).hits[0].passage_id == "late"


def test_a_file_that_changes_while_it_is_read_is_noticed(folder: Path) -> None:
    database = SqliteDatabase(folder / FILE_NAME, read_only=True)
    with pytest.raises(ChangedError, match="repeat the call"), database.reading() as conn:
        conn.execute("SELECT count(*) FROM passages").fetchone()
        with Flywheel.open(folder, encoder=WordEncoder()) as fw:
            fw.add(PASSAGES[:1])
            fw.add([Passage("x", "y")])
    with database.reading() as conn:
        assert conn.execute("SELECT count(*) FROM passages WHERE id = 'x'").fetchone() == (1,)
    database.close()


def test_what_there_is_not(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(NotAFlywheelError):
        opened(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
    with Flywheel.open(folder, encoder=WordEncoder()) as fw, fw._database.transaction() as conn:
        conn.execute("DELETE FROM _sqlite_migrations WHERE name = 'm027_attempts'")
    before = whole(folder)
    with pytest.raises(StorageError, match="written by an earlier release"):
        opened(folder)
    assert whole(folder) == before


def test_an_empty_index_answers_nothing(tmp_path: Path) -> None:
    Flywheel.open(tmp_path / "kb", encoder=WordEncoder()).close()
    before = whole(tmp_path / "kb")
    with opened(tmp_path / "kb") as fw:
        assert fw.retrieve("anything").hits == ()
        assert fw.status().n_passages == 0
    assert whole(tmp_path / "kb") == before
