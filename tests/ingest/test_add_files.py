"""Files in folders become passages of the index, and nothing is lost or replaced silently."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fakes import WordEncoder
from rag_flywheel import Flywheel, InputError, Passage
from rag_flywheel.encode import encoder_slot
from thorough import ALL


@pytest.fixture
def fw(tmp_path: Path) -> Iterator[Flywheel]:
    with Flywheel.open(tmp_path / "indexes" / "kb", encoder=WordEncoder()) as opened:
        yield opened


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


def texts(fw: Flywheel) -> dict[str, str]:
    return {p.id: p.text for p in fw.passages()}


def sources(fw: Flywheel) -> set[str]:
    return {i.partition("#")[0] for i in texts(fw)}


def test_folders_and_files_of_one_name_stay_apart(fw: Flywheel, tmp_path: Path) -> None:
    for service in ("svc-a", "svc-b"):
        write(tmp_path / service / "docs", index_md=f"# Reset\n\nof {service}")
        write(tmp_path / service, README_md=f"# About\n\n{service}")
        fw.add_files(tmp_path / service / "docs", prune=True)
        fw.add_files(tmp_path / service / "README.md", prune=True)
    assert sources(fw) == {
        f"svc-{x}/{name}" for x in "ab" for name in ("docs/index.md", "README.md")
    }
    assert sorted(texts(fw).values()) == ["of svc-a", "of svc-b", "svc-a", "svc-b"]


def test_a_file_has_one_name_however_it_is_given(
    fw: Flywheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = write(tmp_path / "docs", a_md="# A\n\nalpha")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.md").symlink_to(docs / "a.md")
    (tmp_path / "way").symlink_to(docs)
    monkeypatch.chdir(tmp_path)
    fw.add_files("docs/a.md")
    for given in (docs, docs / "a.md", tmp_path / "docs" / ".." / "docs", tmp_path / "way"):
        assert fw.add_files(given).passages.unchanged == 1
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("link.md", "../docs", "../way/a.md"):
        assert fw.add_files([name, "../docs/a.md"]).passages.unchanged == 1
    assert sources(fw) == {"docs/a.md"}


def test_an_edited_file_alone_replaces_what_its_folder_brought(
    fw: Flywheel, tmp_path: Path
) -> None:
    docs = write(tmp_path / "docs", a_md="# A\n\nold", b_md="# B\n\nstays")
    fw.add_files(docs)
    write(docs, a_md="# A\n\nnew\n\n# C\n\nmore")
    report = fw.add_files(docs / "a.md")
    assert sorted(texts(fw).values()) == ["more", "new", "stays"]
    write(docs, a_md="# C\n\nmore")
    report = fw.add_files(docs / "a.md")
    assert (report.passages.added, report.passages.removed, report.n_files) == (0, 1, 1)


def test_a_bad_file_is_skipped_and_keeps_what_it_had(fw: Flywheel, tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", a_md="# A\n\nalpha", b_txt="bravo")
    fw.add_files(docs)
    (docs / "b.txt").write_bytes("café".encode("latin-1"))
    (docs / "c.jsonl").write_text("{")
    write(docs, a_md="# A\n\nalpha again")
    report = fw.add_files([docs, docs / "c.jsonl"], prune=True)
    assert {Path(s.path).name: s.failed for s in report.skipped if s.failed} == {
        "b.txt": True,
        "c.jsonl": True,
    }
    assert sorted(texts(fw).values()) == ["alpha again", "bravo"]
    with pytest.raises(InputError, match=r"nothing was added: .*b\.txt: it is not UTF-8"):
        fw.add_files(write(docs, a_md="# A\n\nthird"), strict=True)
    assert sorted(texts(fw).values()) == ["alpha again", "bravo"]


def test_what_is_left_out_is_named(fw: Flywheel, tmp_path: Path) -> None:
    docs = write(
        tmp_path / "docs",
        a_md="# A\n\nalpha", CHANGELOG_md="# 1.0\n\nold", x_png="", y_jsonl="", drafts_md="# D\n\nd",
    )  # fmt: skip
    write(docs / "node_modules" / "m", README_md="# M\n\nm")
    write(docs / ".git", c_md="# C\n\nc")
    (docs / "loop").symlink_to(docs)
    (docs / "gone.md").symlink_to(docs / "nothing.md")
    report = fw.add_files(docs, exclude=["drafts*"])
    assert {os.path.relpath(s.path, docs): s.reason.partition(",")[0] for s in report.skipped} == {
        ".git": "hidden",
        "CHANGELOG.md": "changelog",
        "drafts.md": "excluded by a pattern",
        "gone.md": "it cannot be read (No such file or directory)",
        "loop": "link to a folder",
        "node_modules": "folder left out by default",
        "x.png": ".png",
        "y.jsonl": ".jsonl",
    }
    assert list(texts(fw).values()) == ["alpha"]
    fw.add_files(docs, exclude=["!node_modules/", "!CHANGELOG.md"])
    assert sorted(texts(fw).values()) == ["alpha", "d", "m", "old"]


def test_include_patterns_choose_files(fw: Flywheel, tmp_path: Path) -> None:
    docs = write(
        tmp_path / "docs", a_md="# A\n\nalpha", b_rst="B\n=\n\nbravo", CHANGELOG_md="# C\n\nc"
    )
    fw.add_files(docs, include=["*.rst", "CHANGELOG.md"])
    assert sorted(texts(fw).values()) == ["bravo", "c"]


def test_prune_removes_only_what_is_gone_from_the_folders_given(
    fw: Flywheel, tmp_path: Path
) -> None:
    one = write(
        tmp_path / "one" / "docs", a_md="# A\n\nalpha", b_md="# B\n\nbravo", d_md="# D\n\nd"
    )
    two = write(tmp_path / "one" / "docs2", c_md="# C\n\ncharlie")
    fw.add([Passage("mine", "not from a file", "", {"source": "one/docs/z.md"})])
    fw.add_files([one, two])
    (one / "b.md").unlink()
    (two / "c.md").unlink()
    assert fw.add_files(one).passages.removed == 0
    report = fw.add_files(one, prune=True, include=["a.md"])
    assert report.passages.removed == 1
    assert sorted(texts(fw).values()) == ["alpha", "charlie", "d", "not from a file"]
    assert fw.add_files(one, prune=True, exclude=["d.md"]).passages.removed == 1
    assert sorted(texts(fw).values()) == ["alpha", "charlie", "not from a file"]
    shutil.rmtree(one)
    one.mkdir()
    with pytest.raises(InputError, match="holds no file"):
        fw.add_files(one, prune=True)
    write(two, e_md="# E\n\necho")
    report = fw.add_files([one, two], prune=True)  # one folder is rather not mounted than empty
    assert [s.reason for s in report.skipped] == [
        "it holds no file that is read, so its passages stay"
    ]
    assert sorted(texts(fw).values()) == ["alpha", "echo", "not from a file"]


def test_lines_that_a_jsonl_file_no_longer_has_can_be_pruned(fw: Flywheel, tmp_path: Path) -> None:
    lines = [f'{{"id": "p{n}", "text": "text {n}", "metadata": {{"n": {n}}}}}\n' for n in range(5)]
    file = tmp_path / "kb.jsonl"
    file.write_text("".join(lines))
    fw.add([Passage("own", "another")])
    fw.add_files(file)
    file.write_text("".join(lines[2:]))
    assert fw.add_files(file).passages.removed == 0
    assert fw.add_files(file, prune=True).passages.removed == 2
    assert set(texts(fw)) == {"p2", "p3", "p4", "own"}
    metadata = {p.id: dict(p.metadata) for p in fw.passages()}
    assert metadata["p2"] == {"n": 2, "added_from": "kb.jsonl"}


def test_an_id_that_comes_twice_is_named_and_the_file_skipped_whole(
    fw: Flywheel, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "x", "text": "first"}\n')
    (tmp_path / "b.jsonl").write_text(
        '{"id": "y", "text": "good"}\n{"id": "x", "text": "second"}\n'
    )
    report = fw.add_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert [s.reason for s in report.skipped] == [
        "the passage id 'x' comes in another file, too; expected each id once"
    ]
    assert texts(fw) == {"x": "first"}


def test_a_bad_line_leaves_no_half_file(
    fw: Flywheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_slot, "_FOR_ONE", 2)
    lines = "".join(f'{{"id": "p{n}", "text": "text {n}"}}\n' for n in range(9))
    (tmp_path / "a.jsonl").write_text(lines + "{\n")
    with pytest.raises(InputError, match="line 10 is no JSON"):
        fw.add_files(tmp_path / "a.jsonl")
    assert not texts(fw)


def test_passages_are_added_some_at_a_time_and_a_stopped_call_goes_on(
    fw: Flywheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_slot, "_FOR_ONE", 10)
    docs = write(tmp_path / "docs", **{f"f{n}_md": f"# T\n\nfile {n}" for n in range(35)})

    def stop(step: str, done: int, total: int) -> None:
        assert (step, total) == ("add files", 35)
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fw.add_files(docs, progress=stop)
    assert len(texts(fw)) == 20
    report = fw.add_files(docs)
    assert (report.passages.added, report.passages.unchanged) == (15, 20)


def test_a_dry_run_counts_and_writes_nothing(fw: Flywheel, tmp_path: Path) -> None:
    docs = write(tmp_path / "docs", a_md="# A\n\nalpha\n\n# B\n\nbravo", c_md="# C\n\nc")
    fw.add_files(docs)
    before = texts(fw)
    write(docs, a_md="# A\n\nchanged\n\n# N\n\nnew")
    (docs / "c.md").unlink()
    dry = fw.add_files(docs, prune=True, dry_run=True)
    assert texts(fw) == before
    assert dry == fw.add_files(docs, prune=True)
    assert (dry.passages.added, dry.passages.updated, dry.passages.removed) == (1, 1, 2)


def test_a_root_and_a_name_are_chosen(fw: Flywheel, tmp_path: Path) -> None:
    docs = write(tmp_path / "far" / "docs", a_md="# A\n\nalpha")
    fw.add_files(docs)
    assert sources(fw) == {"far/docs/a.md"}
    fw.add_files(docs, name="manual")
    assert sources(fw) == {"manual:a.md"}  # the other name of the same file is gone
    assert fw.add_files(docs / "a.md").passages.unchanged == 1
    other = write(tmp_path / "other", a_md="# A\n\nother")
    with pytest.raises(InputError, match="'manual' stands for files below"):
        fw.add_files(other, name="manual", root=other)
    with pytest.raises(InputError, match="is not below the root"):
        fw.add_files(other, name="manual")
    fw.add_files(other, name="second")
    with pytest.raises(InputError, match="is no folder"):
        fw.add_files(other, root=tmp_path / "nothing")
    assert sources(fw) == {"manual:a.md", "second:a.md"}


def test_an_index_that_moved_with_its_project_keeps_the_names(tmp_path: Path) -> None:
    write(tmp_path / "p" / "docs", a_md="# A\n\nalpha")
    with Flywheel.open(tmp_path / "p" / "indexes" / "kb", encoder=WordEncoder()) as fw:
        fw.add_files(tmp_path / "p" / "docs")
    (tmp_path / "p").rename(tmp_path / "q")
    with Flywheel.open(tmp_path / "q" / "indexes" / "kb", encoder=WordEncoder()) as fw:
        assert fw.add_files(tmp_path / "q" / "docs").passages.unchanged == 1


def test_the_own_export_can_be_added(fw: Flywheel, tmp_path: Path) -> None:
    fw.add_files(write(tmp_path / "docs", a_md="# A\n\nalpha", b_md="# B\n\nbravo"))
    fw.add([Passage("x", "own", "T", {"n": 1})])
    fw.export.beir(tmp_path / "out")
    with Flywheel.open(tmp_path / "second", encoder=WordEncoder()) as other:
        other.add_files(tmp_path / "out" / "corpus.jsonl")
        assert texts(other) == texts(fw)


@pytest.mark.parametrize("paths", [[], [1], [""], 5])
def test_what_is_no_path_is_refused(fw: Flywheel, paths: object) -> None:
    with pytest.raises(InputError, match="path"):
        fw.add_files(paths)  # type: ignore[arg-type]


def test_a_path_that_does_not_exist_is_refused_before_anything_is_added(
    fw: Flywheel, tmp_path: Path
) -> None:
    docs = write(tmp_path / "docs", a_md="# A\n\nalpha")
    with pytest.raises(InputError, match=r"no file or folder .*gone"):
        fw.add_files([docs, tmp_path / "gone"])
    assert not texts(fw)


@dataclass
class LangChainDocument:
    page_content: str
    metadata: dict[str, object]
    id: str | None = None


class LlamaIndexNode:
    def __init__(self, text: str, id_: str, metadata: dict[str, object]) -> None:
        self.text, self.id_, self.metadata = text, id_, metadata

    def get_content(self, metadata_mode: str = "none") -> str:
        return self.text


def test_documents_of_other_frameworks(fw: Flywheel) -> None:
    documents = [
        LangChainDocument("alpha", {"source": "a.pdf", "page": 3, "loc": {"from": 1}}, "one"),
        LangChainDocument("bravo", {"source": "a.pdf", "title": "B"}),
        LangChainDocument("bravo", {"source": "a.pdf", "title": "B"}),
        LangChainDocument("  ", {}),
        LlamaIndexNode("charlie", "n1", {"file_path": "c.md"}),
    ]
    assert fw.add_documents(documents).added == 3
    found = {p.id: p for p in fw.passages()}
    assert found["one"].metadata == {"source": "a.pdf", "page": 3, "loc": {"from": 1}}
    assert found["n1"].text == "charlie"
    (content_id,) = set(found) - {"one", "n1"}
    assert content_id.startswith("a.pdf#") and found[content_id].title == "B"
    loaded_again = LangChainDocument("bravo", {"source": "a.pdf", "title": "B"}, "another id")
    again = fw.add_documents([loaded_again], ids="content")
    assert again.unchanged == 1


@pytest.mark.parametrize("documents", ["text", [object()], [LangChainDocument(1, {})], 3])  # type: ignore[arg-type]
def test_what_is_no_document_is_named(fw: Flywheel, documents: object) -> None:
    with pytest.raises(InputError, match="document"):
        fw.add_documents(documents)  # type: ignore[arg-type]


NAMES = st.sampled_from(
    ["a.md", "A.md", "a b.txt", "ö.md", "d/a.md", "d/e.markdown", "x/a.md", "x/d/a.md"]
)
WHERE = st.sampled_from([".", "d", "x", "x/d"])


class Folders(RuleBasedStateMachine):
    """Random edits and adds: the index holds what each file held when it was last added."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(os.environ["TEST_FOLDERS"]) / os.urandom(6).hex()
        self.docs = self.root / "docs"
        for folder in ("d", "x/d"):
            (self.docs / folder).mkdir(parents=True)
        self.fw = Flywheel.open(self.root / "indexes" / "kb", encoder=WordEncoder(dim=4))
        self.indexed: dict[str, str] = {}
        self.n = 0

    @rule(name=NAMES)
    def edit(self, name: str) -> None:
        self.n += 1
        (self.docs / name).write_text(f"word{self.n}")

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        (self.docs / name).unlink(missing_ok=True)

    @rule(where=WHERE, prune=st.booleans(), linked=st.booleans())
    def add_folder(self, where: str, prune: bool, linked: bool) -> None:
        folder = self.docs / where
        files = {p.relative_to(self.docs).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        given = folder
        if linked:
            given = self.root / f"link{self.n}-{os.urandom(3).hex()}"
            given.symlink_to(folder)
        if not files:
            with pytest.raises(InputError):
                self.fw.add_files(given, prune=prune)
            return
        self.fw.add_files(given, prune=prune)
        if prune:
            inside = "" if where == "." else f"{where}/"
            self.indexed = {n: t for n, t in self.indexed.items() if not n.startswith(inside)}
        self.indexed |= {name: path.read_text() for name, path in files.items()}

    @rule(name=NAMES)
    def add_one(self, name: str) -> None:
        if (self.docs / name).exists():
            self.fw.add_files(self.docs / name, prune=True)
            self.indexed[name] = (self.docs / name).read_text()

    @invariant()
    def the_index_holds_what_was_added(self) -> None:
        found = {str(p.metadata["source"]): p.text for p in self.fw.passages()}
        assert found == {f"docs/{name}": text for name, text in self.indexed.items()}

    def teardown(self) -> None:
        self.fw.close()
        shutil.rmtree(self.root)


@pytest.mark.thorough
def test_random_edits_and_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    monkeypatch.setenv("TEST_FOLDERS", str(tmp_path))
    n = 60 if settings.get_current_profile_name() == ALL else 4
    chosen = settings(max_examples=n, stateful_step_count=12, deadline=None)
    run_state_machine_as_test(Folders, settings=chosen)


def test_votes_that_a_later_batch_brings_back_are_not_lost(fw: Flywheel, tmp_path: Path) -> None:
    docs = write(
        tmp_path / "docs", a_md="# Reset\n\nHold the side button for ten seconds until it blinks."
    )
    fw.add_files(docs)
    (passage,) = fw.passages()
    found = fw.retrieve("how do i reset it?")
    fw.feedback(found.id, passage.id, "helpful", user_id="ann")
    (docs / "a.md").rename(docs / "z.md")
    more = "".join(f"# Part {n}\n\nThe number {n} is told here.\n\n" for n in range(700))
    write(docs, b_md=more, c_md="# More\n\nOther words.")
    report = fw.add_files(docs, prune=True).passages
    assert (report.moved_votes, report.lost_votes) == (1, 0)
    (docs / "z.md").unlink()
    report = fw.add_files(docs, prune=True).passages
    assert (report.moved_votes, report.lost_votes) == (0, 1)
