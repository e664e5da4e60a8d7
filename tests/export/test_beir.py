"""An index written as a BEIR folder: which votes it holds, under which ids, and that it is whole."""

import hashlib
import io
import json
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage
from rag_flywheel.cli.app import main
from rag_flywheel.errors import ClosedError, DiskFullError, InputError
from rag_flywheel.formats.beir import Collection, Qrels, read_beir
from rag_flywheel.records import ExportReport, Filter, Verdict

ROOT = Path(__file__).parents[2]
LONG = " ".join(f"word{i}" for i in range(40))


def query_id(text: str) -> str:
    words = " ".join(text.casefold().split()).rstrip(" ?!.")
    return hashlib.blake2b(b"query\n" + words.encode(), digest_size=16).hexdigest()


def split_by_hand(text: str) -> str:
    bucket = int(query_id(text)[:16], 16) % 100
    return "train" if bucket < 70 else "dev" if bucket < 80 else "test"


def vote(
    fw: Flywheel,
    query: str,
    verdicts: dict[tuple[str, str], Verdict],
    where: Filter | None = None,
) -> str:
    """Ask, and cast one vote for each (user, passage)."""
    shown = fw.retrieve(query, k=1000, where=where)
    assert shown.id is not None
    for (user, passage), verdict in verdicts.items():
        fw.feedback(shown.id, passage, verdict, user_id=user)
    return shown.id


def grades(collection: Collection) -> Qrels:
    """Of all splits together."""
    return {query: found for s in collection.splits.values() for query, found in s.qrels.items()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, less the line with the date."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*sv")}
    found |= {p.name: p.read_bytes() for p in folder.glob("*.*")}
    found["README.md"] = re.sub(rb"\nExported.*\n", b"\n", found["README.md"])
    return found


@pytest.fixture
def voted(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    """A history small enough to work out by hand."""
    fw.add([*help_desk, Passage("long", LONG), Passage("old", "old words"), Passage("gone", "x")])
    first = vote(
        fw,
        "reset password",
        {
            ("ann", "reset"): "helpful",  # 2 : 1
            ("bob", "reset"): "helpful",
            ("cid", "reset"): "harmful",
            ("ann", "secret"): "helpful",  # 1 : 1
            ("bob", "secret"): "harmful",
            ("ann", "cats"): "helpful",  # taken back below
            ("ann", "refund"): "helpful",  # harmful below
            ("ann", "long"): "helpful",  # hardly edited below
            ("ann", "old"): "helpful",  # edited to other words below
            ("ann", "gone"): "helpful",  # removed below
        },
    )
    fw.feedback(first, "cats", "retract", user_id="ann")
    fw.feedback(first, "refund", "harmful", user_id="ann")
    vote(fw, "reset password", {("dan", "long"): "helpful", ("eve", "long"): "harmful"})  # 2 : 1
    vote(fw, "thirty days", {("ann", "refund"): "helpful"})
    vote(fw, "kittens", {("ann", "cats"): "harmful"})
    vote(fw, "a tie alone", {("ann", "cats"): "harmful", ("bob", "cats"): "helpful"})
    vote(fw, "what is gone", {("ann", "gone"): "helpful"})
    fw.retrieve("nobody voted")
    fw.add([Passage("long", f"{LONG} more"), Passage("old", "quite another text")])
    fw.remove(["gone"])
    return fw


def test_grades_are_what_the_standing_votes_on_present_texts_say(
    voted: Flywheel, tmp_path: Path
) -> None:
    report = voted.export.beir(tmp_path / "out")
    found = read_beir(tmp_path / "out")
    assert [p.id for p in found.passages] == ["cats", "long", "old", "refund", "reset", "secret"]
    assert {p.id: (p.text, p.title) for p in found.passages} == {
        p.id: (p.text, p.title) for p in voted.passages()
    }
    assert grades(found) == {
        query_id("reset password"): {"long": 1, "refund": 0, "reset": 1},
        query_id("thirty days"): {"refund": 1},
    }
    assert report == ExportReport(
        str(tmp_path / "out"),
        {"passages": 6, "questions": 2, "judgments": 4},
        {"questions without a helpful passage": 2},
    )
    queries = {line["_id"]: line["text"] for line in lines(tmp_path / "out" / "queries.jsonl")}
    texts = ["reset password", "thirty days", "kittens", "a tie alone"]
    assert queries == {query_id(text): text for text in texts}
    assert list(queries) == sorted(queries)
    assert lines(tmp_path / "out" / "corpus.jsonl")[0] == {
        "_id": "cats",
        "title": "",
        "text": "kittens sleep most of the day",
        "metadata": {"lang": "de", "year": 2021},
    }
    everything = b"".join(contents(tmp_path / "out").values())
    assert not re.search(rb"\b(ann|bob|cid|dan|eve)\b", everything)


def test_the_readme_counts_and_states_the_limits(voted: Flywheel, tmp_path: Path) -> None:
    voted.export.beir(tmp_path / "out")
    text = " ".join((tmp_path / "out" / "README.md").read_text(encoding="utf-8").split())
    splits = [split_by_hand(q) for q in ("reset password", "thirty days")]
    numbers = [splits.count(s) for s in ("train", "dev", "test")]
    for words in (
        "index `kb`",
        "6 passages",
        "{}, {} and {} queries: 4 grades, 3 of them 1".format(*numbers),
        "2 queries have no passage of grade 1",
        "Only hits that were shown have votes",
        "User ids, sessions, answers and reasons of votes are not exported",
    ):
        assert words in text


def test_the_same_folder_gives_the_same_bytes(voted: Flywheel, tmp_path: Path) -> None:
    voted.export.beir(tmp_path / "a")
    (tmp_path / "b").mkdir()
    voted.export.beir(str(tmp_path / "b"))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    filled = {split_by_hand(q) for q in ("reset password", "thirty days")}
    assert set(contents(tmp_path / "a")) == {
        "README.md",
        "corpus.jsonl",
        "queries.jsonl",
        *(f"qrels/{split}.tsv" for split in {"train", *filled}),
    }


def test_a_query_stays_in_its_split_whatever_is_added(
    fw: Flywheel, help_desk: list[Passage], tmp_path: Path
) -> None:
    fw.add(help_desk)
    texts = [f"question {i}" for i in range(60)]
    found = list[dict[str, str]]()
    for part in (texts[:20], texts[20:]):
        for text in part:
            vote(fw, text, {("ann", "reset"): "helpful"})
        fw.add([Passage(f"more{len(found)}", f"text {len(found)}")])
        fw.export.beir(tmp_path / str(len(found)))
        splits = read_beir(tmp_path / str(len(found))).splits
        found.append({t: name for name, s in splits.items() for t in s.queries.values()})
    assert found[1] == {text: split_by_hand(text) for text in texts}
    assert found[0] == {text: found[1][text] for text in texts[:20]}
    assert set(found[1].values()) == {"train", "dev", "test"}


def test_tenants_have_queries_of_their_own_in_the_same_split(
    tmp_path: Path, encoder: WordEncoder
) -> None:
    config = Config(encoder="", tenant_key="team", tenant_required=False)
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=config) as fw:
        fw.add([Passage(f"{t}{i}", f"text {i}", metadata={"team": t}) for t in "xy" for i in "12"])
        vote(fw, "text", {("ann", "x1"): "helpful"}, {"team": "x"})
        vote(fw, "text", {("ann", "y1"): "helpful", ("bob", "y2"): "harmful"}, {"team": "y"})
        vote(fw, "text", {("ann", "x2"): "helpful"})
        report = fw.export.beir(tmp_path / "out")
    assert report.written == {"passages": 4, "questions": 3, "judgments": 4}
    assert report.left_out == {}
    found = grades(read_beir(tmp_path / "out"))
    queries = lines(tmp_path / "out" / "queries.jsonl")
    by_tenant = {q.get("metadata", {}).get("tenant"): q["_id"] for q in queries}
    assert found == {
        by_tenant[None]: {"x2": 1},
        by_tenant["x"]: {"x1": 1},
        by_tenant["y"]: {"y1": 1, "y2": 0},
    }
    assert by_tenant[None] == query_id("text")
    assert all(re.fullmatch(f"{query_id('text')}(-[0-9a-f]{{16}})?", id_) for id_ in found)
    filled = {k: s.queries for k, s in read_beir(tmp_path / "out").splits.items() if s.queries}
    assert list(filled) == [split_by_hand("text")]


def test_votes_that_a_rollback_holds_back_are_not_exported(
    fw: Flywheel, help_desk: list[Passage], tmp_path: Path
) -> None:
    fw.add(help_desk)
    vote(fw, "before", {("ann", "reset"): "helpful"})
    version = fw.refresh().version
    vote(fw, "after", {("ann", "reset"): "helpful"})
    fw.refresh()
    fw.rollback(version)
    fw.export.beir(tmp_path / "held")
    fw.release()
    fw.export.beir(tmp_path / "released")
    assert set(grades(read_beir(tmp_path / "held"))) == {query_id("before")}
    assert set(grades(read_beir(tmp_path / "released"))) == {query_id("before"), query_id("after")}


def test_votes_cast_on_an_own_candidate_count_once_the_text_is_in_the_index(
    fw: Flywheel, tmp_path: Path
) -> None:
    shown = fw.rerank("q", [Candidate("a", "some text", 1.0), Candidate("b", "other text", 0.5)])
    for hit in shown.hits:
        fw.feedback(shown.id, hit.passage_id, "helpful")
    fw.add([Passage("a", "some text")])
    fw.export.beir(tmp_path / "out")
    assert grades(read_beir(tmp_path / "out")) == {query_id("q"): {"a": 1}}


def test_an_index_without_votes_or_passages_can_be_read_back(fw: Flywheel, tmp_path: Path) -> None:
    assert set(fw.export.beir(tmp_path / "a").written.values()) == {0}
    fw.add([Passage("p", "some words")])
    assert fw.export.beir(tmp_path / "new" / "b").written["passages"] == 1
    found = read_beir(tmp_path / "new" / "b")
    assert {name: split.queries for name, split in found.splits.items()} == {"train": {}}


def test_odd_ids_and_texts_come_back(fw: Flywheel, tmp_path: Path) -> None:
    odd = ["a\tb", 'say "x"', '"', "line\nbreak", "bare\rreturn", " space ", "c\u2028d", "ü\x00"]
    fw.add([Passage(text, f"text of {text}", f"title of {text}") for text in odd])
    query = "one\nline\r\x85 and\u2028more"
    vote(fw, query, {("ann", text): "helpful" for text in odd})
    fw.export.beir(tmp_path / "out")
    found = read_beir(tmp_path / "out")
    assert {p.id: (p.text, p.title) for p in found.passages} == {
        text: (f"text of {text}", f"title of {text}") for text in odd
    }
    assert grades(found) == {query_id(query): dict.fromkeys(odd, 1)}
    assert [q for s in found.splits.values() for q in s.queries.values()] == [query]


def test_more_passages_than_are_held_at_once(fw: Flywheel, tmp_path: Path) -> None:
    given = [Passage(f"p{i:04d}", f"word{i % 7}") for i in range(1201)]
    fw.add(reversed(given))
    assert fw.export.beir(tmp_path / "out").written["passages"] == 1201
    assert read_beir(tmp_path / "out").passages == given


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """No file of this process may become larger: as on a disk that fills up in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_export_that_fails_in_the_middle_leaves_nothing(voted: Flywheel, tmp_path: Path) -> None:
    voted.add([Passage("zz", "large " * 400_000)])
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("out", "empty"):
        with largest_file(2_000_000), pytest.raises(DiskFullError, match="no space to write"):
            voted.export.beir(tmp_path / name)
        assert sorted(tmp_path.iterdir()) == before
    assert list((tmp_path / "empty").iterdir()) == []
    assert voted.export.beir(tmp_path / "empty").written["passages"] == 7
    assert len(read_beir(tmp_path / "empty").passages) == 7


def test_it_refuses_what_it_would_overwrite(voted: Flywheel, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for path, words in (
        (tmp_path / "full", "full is not empty; expected a new or empty folder"),
        (tmp_path / "file", "file is a file; expected the name of a new folder"),
        (tmp_path / "kb", "kb is in the index folder"),
        (tmp_path / "kb" / "new", "new is in the index folder"),
        (None, "to is None; expected the name of a new folder"),
    ):
        with pytest.raises(InputError, match=words):
            voted.export.beir(path)  # type: ignore[arg-type]
    assert (tmp_path / "full" / "note.txt").read_text() == "mine"
    assert not (tmp_path / "kb" / "new").exists()
    voted.close()
    with pytest.raises(ClosedError):
        voted.export.beir(tmp_path / "out")


def command(*words: str) -> str:
    output = io.StringIO()
    with redirect_stdout(output), pytest.raises(SystemExit) as done:
        main([*words])
    assert not done.value.code
    return output.getvalue()


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    with Flywheel.open("kb", encoder="fakes:word_encoder") as fw:
        fw.add([Passage("a", "one two")])
        vote(fw, "two", {("ann", "a"): "helpful"})
    expected = {
        "path": str(tmp_path / "new"),
        "written": {"passages": 1, "questions": 1, "judgments": 1},
        "left_out": {},
        "version": None,
    }
    assert (
        json.loads(command("export", "beir", "--to", "new", "--index", "kb", "--json")) == expected
    )
    assert grades(read_beir(tmp_path / "new")) == {query_id("two"): {"a": 1}}
    said = command("export", "beir", "--to", "other", "--index", "kb")
    assert said == f"{tmp_path / 'other'} (passages: 1, questions: 1, judgments: 1)\n"


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_the_example_of_the_documentation_makes_a_collection(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "own-data-in-the-benchmark.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, check=True)
    found = read_beir(tmp_path / "mine")
    assert [p.id for p in found.passages] == ["reset", "refund", "secret"]
    assert {name: len(split.qrels) for name, split in found.splits.items()} == {
        "train": 2,
        "dev": 1,
        "test": 1,
    }
