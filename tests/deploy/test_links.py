"""Links in an index folder: whatever is asked of it, nothing that a link leads to is changed.

Either the call works, or its error names the link and says what to do. The index folder itself may be
reached through a link.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY, Entries, opened, state, use
from rag_flywheel import Config, Flywheel, FlywheelError, Passage, StorageError
from rag_flywheel.config import config_text
from rag_flywheel.errors import ConfigError

FOLDERS = ("versions", "staging", "quarantine", "tuning")
FILES = (
    "CURRENT",
    "refresh.lock",
    "flywheel.toml",
    "flywheel.db",
    "flywheel.db-wal",
    "flywheel.db-shm",
    "flywheel.db-journal",
)
BELOW = ("versions/LIVE", "versions/LIVE/manifest.json", "versions/LIVE/tokens", "staging/left")


def documents(folder: Path) -> Path:
    """What somebody keeps elsewhere."""
    (folder / "letters").mkdir(parents=True)
    (folder / "thesis.odt").write_text("years of work")
    (folder / "letters" / "to ann.txt").write_text("dear Ann")
    (folder / "20261121T093000Z-3f9c1").mkdir()  # named like a version
    (folder / "20261121T093000Z-1-abcdef").mkdir()  # and like one that was not finished
    (folder / "20261121T093000Z-1-abcdef" / "notes.txt").write_text("keep")
    (folder / "checkpoint.safetensors").write_bytes(b"of another program")
    return folder


def put_link(root: Path, name: str, outside: Path, *, moved: bool) -> str:
    """Link an entry of the index to what lies outside: to a stranger's documents, or to itself, moved
    there as to another disk. Returns the name of the entry."""
    live = (root / "CURRENT").read_text().split()[0]
    name = name.replace("LIVE", live)
    path = root / name
    path.parent.mkdir(exist_ok=True)
    is_file = "." in path.name or path.name == "CURRENT"
    target = outside / ("file" if is_file else "folder")
    if moved and path.exists():
        path.rename(target)
    elif is_file:
        target.write_bytes(b"words of a stranger")
    else:
        documents(target)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return name


def retain(fw: Flywheel) -> object:
    return fw.refresh(if_votes=1)


CALLS: dict[str, Callable[[Flywheel], object]] = {
    "open": lambda fw: fw.status(),
    "retrieve": lambda fw: fw.retrieve(QUERY),
    "add": lambda fw: fw.add([Passage("new", "one more text")]),
    "refresh": lambda fw: (fw.add([Passage("other", "yet another")]), fw.refresh()),
    "forget": lambda fw: fw.forget("u"),
    "repair": lambda fw: fw.repair(),
    "rollback": lambda fw: fw.rollback(),
    "retention": retain,
    "release": lambda fw: fw.release(),
    "verify": lambda fw: fw.verify(),
    "export": lambda fw: fw.export.beir((fw.verify() and "") or _new_name(fw)),
}


def _new_name(fw: Flywheel) -> Path:
    return Path(fw.status().path).parent / "exported"


def refused_or_works(error: FlywheelError | None, name: str) -> None:
    if error is None:
        return
    said = str(error)
    assert isinstance(error, StorageError | ConfigError), said
    parts = name.split("/")
    assert parts[0].split("-")[0] in said or parts[-1] in said, said
    assert any(
        word in said for word in ("rm ", "delete", "restore", "refresh", "repair", "mend")
    ), said


def check(root: Path, outside: Path, name: str, call: str, *, moved: bool, late: bool) -> str:
    """late: the link is put there while the index is open. Returns the error's text, "" without one."""
    error: FlywheelError | None = None
    before: Entries = {}
    try:
        if late:
            with opened(root) as fw:
                name = put_link(root, name, outside, moved=moved)
                before = state(outside)
                CALLS[call](fw)
        else:
            name = put_link(root, name, outside, moved=moved)
            before = state(outside)
            with opened(root) as fw:
                CALLS[call](fw)
    except FlywheelError as raised:
        error = raised
    refused_or_works(error, name)
    assert state(outside) == before, f"{call} through {name}: {error}"
    return "" if error is None else str(error)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `sound`, but retention has something to do. Copied, never changed."""
    root = tmp_path_factory.mktemp("links") / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add(PASSAGES[:20])
        fw.refresh()
        fw.feedback(fw.retrieve(QUERY, user_id="u").id, "p3", "helpful", user_id="u")
        fw.refresh()
        fw.feedback(fw.retrieve(QUERY, user_id="v").id, "p3", "helpful", user_id="v")
    (root / "flywheel.toml").write_text(config_text(Config(encoder="", retention_days=1e-9)))
    return root


def places(tmp_path: Path, indexed: Path) -> Iterator[tuple[Path, Path]]:
    """(an index, an empty folder outside), as often as wanted."""
    while True:
        shutil.rmtree(tmp_path / "at", ignore_errors=True)
        outside = tmp_path / "at" / "outside"
        outside.mkdir(parents=True)
        yield Path(shutil.copytree(indexed, tmp_path / "at" / "kb")), outside


@pytest.mark.parametrize("moved", [False, True], ids=["documents", "moved"])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_linked_folder_is_refused_before_anything_is_touched(
    tmp_path: Path, indexed: Path, name: str, moved: bool
) -> None:
    """`ln -s DOCS kb/staging`, then a refresh: it deleted all of DOCS."""
    place = places(tmp_path, indexed)
    for call in ("open", "refresh", "forget", "repair"):
        root, outside = next(place)
        said = check(root, outside, name, call, moved=moved, late=False)
        assert str(root / name) in said and str(outside / "folder") in said
        assert "rm " in said and " mv " in said and "link that" in said  # what to do


@pytest.mark.parametrize("name", FOLDERS)
def test_a_refresh_changes_nothing_once_a_folder_is_linked(
    tmp_path: Path, indexed: Path, name: str
) -> None:
    """Also one that this refresh has no use for."""
    root, outside = next(places(tmp_path, indexed))
    with opened(root) as fw:
        fw.add([Passage("new", "one more text")])
        put_link(root, name, outside, moved=True)
        before = {n: s for n, s in state(root).items() if not n.startswith("flywheel.db")}
        with pytest.raises(StorageError, match=f"{root / name} is a .*link"):
            fw.refresh()
        after = {n: s for n, s in state(root).items() if not n.startswith("flywheel.db")}
        assert after == before


def test_a_link_named_like_a_version_is_no_version(tmp_path: Path, indexed: Path) -> None:
    root, outside = next(places(tmp_path, indexed))
    with opened(root) as fw:
        versions = fw.versions()
        link = root / "versions" / "20261121T093000Z-3f9c1"
        shutil.copytree(root / "versions" / versions[0].id, outside / "copy")
        link.symlink_to(outside / "copy")
        before = state(outside)
        assert fw.versions() == versions
        assert [f"versions/{link.name} is no version folder" in said for said in fw.verify()] == [
            True
        ]
        fw.repair()
        assert (fw.verify(), state(outside)) == ([], before)


def test_what_the_error_says_to_do_helps(tmp_path: Path, indexed: Path) -> None:
    root, outside = next(places(tmp_path, indexed))
    expected = use(root)
    put_link(root, "versions", outside, moved=True)
    with pytest.raises(StorageError) as caught:
        use(root)
    command = str(caught.value).split("in its place: ")[1].split(". Or move")[0]
    assert os.system(command) == 0
    assert use(root) == expected


@pytest.mark.parametrize("moved", [False, True], ids=["a stranger's", "moved"])
@pytest.mark.parametrize("name", [*FILES, *BELOW])
def test_a_linked_file_or_version_is_never_written_through(
    tmp_path: Path, indexed: Path, name: str, moved: bool
) -> None:
    place = places(tmp_path, indexed)
    for call in ("add", "refresh", "repair"):
        check(*next(place), name, call, moved=moved, late=False)


@pytest.mark.slow
@pytest.mark.parametrize("moved", [False, True], ids=["a stranger's", "moved"])
@pytest.mark.parametrize("name", [*FOLDERS, *FILES, *BELOW])
def test_every_call_on_an_index_with_a_link(
    tmp_path: Path, indexed: Path, name: str, moved: bool
) -> None:
    place = places(tmp_path, indexed)
    for call in CALLS:
        # a log that SQLite has open is written wherever its name went to: no link is followed
        held_open = moved and name in {"flywheel.db-wal", "flywheel.db-shm"}
        for late in (False,) if held_open else (False, True):
            check(*next(place), name, call, moved=moved, late=late)


def test_a_link_to_the_index_folder_itself_works(tmp_path: Path, indexed: Path) -> None:
    root, outside = next(places(tmp_path, indexed))
    link = tmp_path / "link"
    link.symlink_to(root)
    before = state(outside)
    with opened(link) as fw:
        fw.add([Passage("new", "one more text")])
        assert fw.refresh().outcome == "promoted"
        fw.rollback()
        fw.release()
        fw.forget("u")
        assert fw.verify() == []
        fw.export.beir(tmp_path / "exported")
    assert state(outside) == before
    assert link.is_symlink()


def test_what_no_refresh_made_stays_in_staging(tmp_path: Path, indexed: Path) -> None:
    root, _ = next(places(tmp_path, indexed))
    documents(root / "staging" / "mine")
    before = state(root / "staging")
    (root / "staging" / "20261121T093000Z-1-abcdef").mkdir()
    with opened(root) as fw:
        fw.refresh()
    assert state(root / "staging") == before


class Swap:
    """Puts a link in the place of a folder at the nth call that opens, makes, moves or deletes a file
    of the index: the moment between a check and its use."""

    EVENTS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"})

    def __init__(self) -> None:
        self.left = -1
        self.folder, self.target = Path(), Path()
        sys.addaudithook(self._hook)

    def arm(self, folder: Path, target: Path, n: int) -> None:
        self.folder, self.target, self.left = folder, target, n

    def disarm(self) -> bool:
        """Whether the link was put there."""
        done, self.left = self.left == 0, -1
        return done

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left <= 0 or event not in self.EVENTS:
            return
        if event == "open" and not self._is_here(arguments[0]):
            return
        self.left -= 1
        if self.left == 0:
            if self.folder.is_dir():
                self.folder.rename(self.folder.with_name(f"real {self.folder.name}"))
            self.folder.symlink_to(self.target)

    def _is_here(self, path: object) -> bool:
        return isinstance(path, str) and (not path.startswith("/") or "/kb" in path)


@pytest.fixture(scope="module")
def swap() -> Swap:
    return Swap()


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("call", ["refresh", "forget", "repair"])
def test_a_link_put_in_place_between_check_and_use(
    tmp_path: Path, indexed: Path, swap: Swap, name: str, call: str
) -> None:
    """At the calls to the operating system in turn: RAG_FLYWHEEL_SWAPS=1 at each, else at some."""
    place = places(tmp_path, indexed)
    step = int(os.environ.get("RAG_FLYWHEEL_SWAPS", "5"))
    for n in range(1 + FOLDERS.index(name) % step, 2_000, step):
        root, outside = next(place)
        if call == "repair":
            (root / "versions" / "thesis.odt").write_text("words")
        (root / "staging" / "20261121T093000Z-1-abcdef" / "deep").mkdir(parents=True)
        target = documents(outside / "documents")
        before = state(outside)
        with opened(root) as fw:
            fw.retrieve(QUERY, record=False)
            swap.arm(root / name, target, n)
            try:
                CALLS[call](fw)
            except FlywheelError as error:
                assert isinstance(error, StorageError), error
            swapped = swap.disarm()
        assert state(outside) == before, f"{call}, swapped at {n}"
        if not swapped:
            break
    assert n > 5
