"""A version answers only for the database that it was built from.

Event and passage numbers repeat when an old database takes the place of a newer one, so that a version
of the newer one would answer for other texts. However the pair came about, no answer may come from it,
`verify` must name it, and a refresh must mend it.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import CorruptFileError, Flywheel, Passage, restore


def texts(first: int, last: int, kind: str = "text") -> list[Passage]:
    return [Passage(f"{kind}{i}", f"{kind}{i} alone says {kind}{i}") for i in range(first, last)]


OLD, NEWER, OTHERS = texts(0, 20), texts(20, 30), texts(0, 10, "other")


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


def lost(fw: Flywheel, expected: list[Passage]) -> list[str]:
    """The passages that are not first for their own text."""
    assert sorted(p.id for p in fw.passages()) == sorted(p.id for p in expected)
    ranked = fw.rank_many([p.text for p in expected], k=1)
    return [p.id for p, best in zip(expected, ranked, strict=True) if best != [p.id]]


def copy_database(root: Path, target: Path) -> None:
    source = sqlite3.connect(root / "flywheel.db")
    with closing(source), closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")


def put_database(copy: Path, root: Path) -> None:
    for beside in ("", "-wal", "-shm"):
        (root / f"flywheel.db{beside}").unlink(missing_ok=True)
    shutil.copy(copy, root / "flywheel.db")


def old_backup(root: Path) -> None:
    """The old database, copied while it was used, under newer versions."""
    with opened(root) as fw:
        copy_database(root, root.parent / "old.db")
        fw.add(NEWER)
        fw.refresh()
    put_database(root.parent / "old.db", root)


def lost_log(root: Path) -> None:
    """flywheel.db alone was copied while it was used: what was in the log is gone."""
    with opened(root) as fw:
        fw._database.compact()
        fw.add(NEWER)
        fw.refresh()
        shutil.copytree(root, root.with_name("copied"))
    for beside in ("-wal", "-shm"):
        (root.with_name("copied") / f"flywheel.db{beside}").unlink()
    shutil.rmtree(root)
    root.with_name("copied").rename(root)


def versions_of_a_copy(root: Path) -> None:
    """A copy of the folder went on by itself, and its versions came back."""
    copy = Path(shutil.copytree(root, root.with_name("copy")))
    with opened(copy) as fw:
        fw.add(NEWER)
        fw.refresh()
    shutil.rmtree(root / "versions")
    shutil.copytree(copy / "versions", root / "versions")
    shutil.copy(copy / "CURRENT", root / "CURRENT")


def database_of_a_copy(root: Path) -> None:
    """Both went on; the database of one lies under the versions of the other."""
    copy = Path(shutil.copytree(root, root.with_name("copy")))
    with opened(root) as fw:
        fw.add(NEWER)
        fw.refresh()
    with opened(copy) as fw:
        assert fw.refresh().outcome == "unchanged"
    put_database(copy / "flywheel.db", root)


PAIRS = [old_backup, lost_log, versions_of_a_copy, database_of_a_copy]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An index of 20 passages, with two versions."""
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(OLD[:5])
        fw.refresh()
        fw.add(OLD[5:])
        fw.refresh()
    return root


@pytest.mark.parametrize("older", ["there", "gone"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_version_of_another_state_of_the_database_never_answers(
    root: Path, pair: Callable[[Path], None], older: str
) -> None:
    """older: whether versions that the database knows are still on the disk."""
    live_before = (root / "CURRENT").read_text().split()[0]
    pair(root)
    wrong = (root / "CURRENT").read_text().split()[0]
    assert wrong != live_before
    if older == "gone":
        for folder in (root / "versions").iterdir():
            if folder.name != wrong:
                shutil.rmtree(folder)
    with opened(root) as fw:
        assert lost(fw, OLD) == []
        fw.add(OTHERS)  # under the numbers that NEWER had
        assert lost(fw, OLD + OTHERS) == []
        problems = fw.verify()
        assert any(wrong in said and "another state of the database" in said for said in problems)
        with pytest.raises(CorruptFileError, match="another state of the database"):
            fw.rollback(wrong)
        assert fw.status().version == (live_before if older == "there" else None)
        assert fw.refresh().outcome == "promoted"
        assert (lost(fw, OLD + OTHERS), fw.verify()) == ([], [])
    assert not (root / "versions" / wrong).exists()
    assert any(
        p.name.endswith(wrong) for p in (root / "quarantine").iterdir()
    )  # nothing is deleted
    with opened(root) as fw:
        assert lost(fw, OLD + OTHERS) == []


@pytest.mark.parametrize("pair", PAIRS)
def test_a_refresh_with_nothing_to_do_mends_it_too(
    root: Path, pair: Callable[[Path], None]
) -> None:
    pair(root)
    with opened(root) as fw:
        fw.refresh()
        assert (lost(fw, OLD), fw.verify()) == ([], [])


@pytest.mark.parametrize("pair", PAIRS)
def test_a_refresh_builds_nothing_where_an_own_version_is_there(
    root: Path, pair: Callable[[Path], None]
) -> None:
    own = (root / "CURRENT").read_text()
    pair(root)
    with opened(root) as fw:
        assert fw.refresh().outcome == "unchanged"
        assert ((root / "CURRENT").read_text(), fw.verify()) == (own, [])


@pytest.mark.parametrize("pair", PAIRS)
def test_a_backup_holds_the_version_of_its_database(
    root: Path, pair: Callable[[Path], None]
) -> None:
    own = (root / "CURRENT").read_text().split()[0]
    pair(root)
    with opened(root) as fw:
        assert fw.backup(root.parent / "saved").version == own
    restore(root.parent / "saved", root.parent / "new")
    with opened(root.parent / "new") as fw:
        assert (lost(fw, OLD), fw.verify(), fw.status().version) == ([], [], own)


def test_a_version_under_the_name_of_an_own_one_never_answers(root: Path) -> None:
    """Its manifest says which database it was built from."""
    manifest = root / "versions" / (root / "CURRENT").read_text().split()[0] / "manifest.json"
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**values, "token": values["token"][::-1]}))
    with opened(root) as fw:
        assert fw.retrieve("text1", record=False).version is None
        assert any("another state of the database" in said for said in fw.verify())
        assert fw.refresh().outcome == "promoted"
        assert (lost(fw, OLD), fw.verify()) == ([], [])


@pytest.mark.parametrize("pair", PAIRS)
def test_a_repair_mends_it_too(root: Path, pair: Callable[[Path], None]) -> None:
    pair(root)
    with opened(root) as fw:
        assert any("another state" in done for done in fw.repair())
        assert (lost(fw, OLD), fw.verify()) == ([], [])


def test_putting_the_right_database_back_puts_all_right(root: Path) -> None:
    """Nothing was moved or built anew by opening and asking."""
    with opened(root) as fw:
        copy_database(root, root.parent / "old.db")
        fw.add(NEWER)
        fw.refresh()
        newest = fw.status().version
    copy_database(root, root.parent / "right.db")
    put_database(root.parent / "old.db", root)
    with opened(root) as fw:
        assert lost(fw, OLD) == []
    put_database(root.parent / "right.db", root)
    with opened(root) as fw:
        assert (lost(fw, OLD + NEWER), fw.verify(), fw.status().version) == ([], [], newest)


def test_a_copy_that_goes_on_by_itself_is_sound(root: Path) -> None:
    copy = Path(shutil.copytree(root, root.with_name("copy")))
    for folder, more in ((root, NEWER), (copy, OTHERS)):
        with opened(folder) as fw:
            fw.add(more)
            assert fw.refresh().outcome == "promoted"
            assert (lost(fw, OLD + more), fw.verify()) == ([], [])
            fw.rollback()
            assert (lost(fw, OLD + more), fw.verify()) == ([], [])


def test_passages_that_were_changed_in_the_database_are_found(root: Path) -> None:
    """Whoever changes rows by hand, tokens or not."""
    from rag_flywheel.store.passages import passage_hash

    other = Passage("text3", "quite another text")
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        conn.execute(
            "UPDATE passages SET text = ?, text_hash = ? WHERE id = ?",
            (other.text, passage_hash(other), other.id),
        )
        conn.commit()
    with opened(root) as fw:
        with pytest.raises(CorruptFileError, match=r"cannot be backed up.* holds other passages"):
            fw.backup(root.parent / "saved")
        assert any("holds other passages" in said for said in fw.verify())
        assert any("holds other passages" in said for said in fw.repair())
        assert fw.verify() == []
        assert fw.rank_many([other.text], k=1) == [["text3"]]


@pytest.fixture
def serving(root: Path) -> Iterator[Flywheel]:
    with opened(root) as fw:
        fw.retrieve("text1", record=False)
        yield fw


def test_a_process_notices_that_the_file_of_the_database_was_exchanged(
    root: Path, serving: Flywheel
) -> None:
    copy_database(root, root.parent / "old.db")
    with opened(root) as fw:
        fw.add(NEWER)
        fw.refresh()
    assert lost(serving, OLD + NEWER) == []
    for beside in ("", "-wal", "-shm"):
        (root / f"flywheel.db{beside}").unlink(missing_ok=True)
    with pytest.raises(Exception, match=r"flywheel.db is missing; .* restore"):
        serving.retrieve("text1")
    (root.parent / "old.db").rename(root / "flywheel.db")
    assert lost(serving, OLD) == []
    serving.add(OTHERS)
    assert lost(serving, OLD + OTHERS) == []
    serving.refresh()
    assert (lost(serving, OLD + OTHERS), serving.verify()) == ([], [])
