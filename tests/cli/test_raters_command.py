"""The commands on users who vote."""

import json
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage, Vote
from rag_flywheel.cli.app import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "kb"
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(root, encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage(p, f"{p} page") for p in ("one", "two", "three")])
        shown = fw.retrieve("one page")
        fw.feedback_many(Vote(shown.id, "two", "helpful", user) for user in ("ann", "bob"))
    return root


def printed(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main([*words, "--index", str(root)])
    return (int(str(done.value.code)), *capsys.readouterr())


def test_voters_are_listed_under_the_names_that_are_known(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = printed(root, capsys, "raters", "--name", "ann", "--json")
    found = json.loads(out)
    assert code == 0
    assert sorted(r["name"] or "" for r in found) == ["", "ann"]
    assert {(r["weight"], r["n_votes"], r["muted"]) for r in found} == {(1.0, 1, False)}
    code, out, _ = printed(root, capsys, "raters", "--name", "ann")
    assert "ann" in out and "weight" in out
    assert next(r["user"] for r in found if r["name"] is None)[:20] in out


def test_they_are_muted_by_id_or_hash_and_heard_again(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = printed(root, capsys, "raters", "--name", "ann", "--json")
    bob = next(r["user"] for r in json.loads(out) if r["name"] is None)
    assert printed(root, capsys, "mute", "ann")[1] == "muted 1\n"
    assert printed(root, capsys, "mute", "--rater", bob)[1] == "muted 1\n"
    assert printed(root, capsys, "mute", "ann")[1] == "muted 0\n"
    assert printed(root, capsys, "mute", "ann", "--undo")[1] == "heard again 1\n"
    _, out, _ = printed(root, capsys, "raters", "--json")
    assert {r["user"]: r["muted"] for r in json.loads(out)}[bob]


def test_a_crowd_that_is_not_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = printed(root, capsys, "mute", "--crowd", "3")
    assert code == 2 and "no crowd 3" in err
    code, _, err = printed(root, capsys, "mute")
    assert code == 2 and "expected USER, --rater HASH or --crowd NUMBER" in err
