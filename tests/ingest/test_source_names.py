"""One file has one name, two files have two, whatever the folders are called."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.errors import CorruptFileError, InputError
from rag_flywheel.ingest.source_names import SourceNames, project_of
from rag_flywheel.store import journal
from rag_flywheel.store.migrations import migrate
from rag_flywheel.store.place import open_database
from thorough import thorough

PART = st.sampled_from(["a", "A", "a.md", "b:c", "x y", "ö", "#top.1", "b", "..c", "-", "a#b"])
PATH = st.lists(PART, min_size=1, max_size=4).map(lambda parts: Path("/", *parts))
ROOTS = st.dictionaries(st.sampled_from(["", "a", "b"]), PATH, max_size=3)


@given(roots=ROOTS, paths=st.lists(PATH, min_size=2, max_size=8, unique=True))
@thorough(1000, few=150)
def test_two_files_never_share_a_name(roots: dict[str, Path], paths: list[Path]) -> None:
    names = SourceNames(roots)
    found = {path: names.of(path) for path in paths}
    assert len(set(found.values())) == len(paths)
    for path, name in found.items():
        assert names.path_of(name) == path
        assert name not in names.others(path, name)
        assert all(names.path_of(other) == path for other in names.others(path, name))


def test_names_are_short_within_the_project() -> None:
    names = SourceNames({"": Path("/p"), "manual": Path("/p/docs/manual"), "x": Path("/srv")})
    assert names.of(Path("/p/docs/a.md")) == "docs/a.md"
    assert names.of(Path("/p/docs/manual/a.md")) == "manual:a.md"
    assert names.of(Path("/srv/a.md")) == "x:a.md"
    assert names.of(Path("/etc/a.md")) == "/etc/a.md"
    assert names.of(Path("/p/a:b/c.md")) == "./a:b/c.md"
    assert names.of(Path("/p/docs/manual/a.md"), "") == "docs/manual/a.md"
    assert names.others(Path("/p/docs/manual/a.md"), "manual:a.md") == {
        "docs/manual/a.md",
        "/p/docs/manual/a.md",
    }


@pytest.mark.parametrize(
    ("index", "marks", "expected"),
    [
        ("p/indexes/kb", [], "p"),
        ("p/kb", [], "p"),
        ("p/var/indexes/kb", ["p/.git"], "p"),
        ("p/var/kb", ["p/pyproject.toml", "p/var/package.json"], "p/var"),
    ],
)
def test_the_project_is_that_of_the_index(
    tmp_path: Path, index: str, marks: list[str], expected: str
) -> None:
    (tmp_path / index).mkdir(parents=True)
    for mark in marks:
        (tmp_path / mark).touch()
    database = open_database(tmp_path / index)
    migrate(database, lambda *_: "")
    with database.reading() as conn:
        found = SourceNames.load(conn, tmp_path / index)
    assert found.roots == {"": tmp_path / expected}
    with database.transaction() as conn:
        found.save(conn, tmp_path / index)
    (tmp_path / index / ".." / ".git").touch()  # a project that begins later changes no name
    with database.reading() as conn:
        assert SourceNames.load(conn, tmp_path / index) == found
    database.close()
    (tmp_path / "p").rename(tmp_path / "moved")
    moved = tmp_path / index.replace("p/", "moved/", 1)
    database = open_database(moved)
    with database.reading() as conn:
        assert SourceNames.load(conn, moved).roots == {
            "": tmp_path / expected.replace("p", "moved", 1)
        }
    with database.transaction() as conn:
        journal.write_meta(conn, "source_roots", "[1]")
    with database.reading() as conn, pytest.raises(CorruptFileError, match="source_roots"):
        SourceNames.load(conn, moved)
    database.close()


def test_a_name_stands_for_one_folder(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    names = SourceNames({"": tmp_path, "docs": tmp_path / "one"})
    other = tmp_path / "two"
    with pytest.raises(InputError, match=r"'docs' stands for files below .*one.*another --name"):
        names.with_root("docs", other, is_used=True)
    with pytest.raises(InputError, match="names without a prefix stand for files below"):
        names.with_root("", other, is_used=True)
    assert names.with_root("docs", other, is_used=False).roots["docs"] == other
    (tmp_path / "one").rmdir()  # a checkout that moved
    assert names.with_root("docs", other, is_used=True).roots["docs"] == other


@pytest.mark.parametrize("name", ["a/b", "a:b", " a", ".", "..", "a "])
def test_odd_names_of_roots_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="source name"):
        SourceNames({}).with_root(name, Path("/x"), is_used=False)


def test_files_outside_the_root_and_names_that_are_no_text_are_refused() -> None:
    names = SourceNames({"": Path("/p")})
    with pytest.raises(InputError, match="is not below the root /p"):
        names.of(Path("/q/a.md"), "")
    with pytest.raises(InputError, match="not UTF-8"):
        names.of(Path(os.fsdecode(b"/p/\xff.md")))


def test_the_root_of_a_new_name(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert project_of([tmp_path / "a"]) == tmp_path / "a"
    assert project_of([tmp_path / "a" / "x.md"]) == tmp_path / "a"
    assert project_of([tmp_path / "a" / "x.md", tmp_path / "a" / "b" / "y.md"]) == tmp_path / "a"
