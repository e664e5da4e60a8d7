"""The commands that say what users thought of an answer."""

import json
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.cli.app import main


@pytest.fixture
def kb(tmp_path: Path) -> tuple[Path, str]:
    """A folder that any process can open, and the id of a retrieval that showed a and b."""
    root = tmp_path / "kb"
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(root, encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage("a", "open the settings"), Passage("b", "kittens sleep")])
        shown = fw.retrieve("open settings", run_id=["one run", "another"])
        fw.answer(str(shown.id), "Open the settings.")
        return root, str(shown.id)


OF_AN_ANSWER = pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["feedback", "ID", "a", "helpful"], 1),
        (["answer-feedback", "ID", "helpful", "--answer", "Open settings.", "--cited", "a"], 1),
        (["answer-feedback", "ID", "retract"], 1),
        (["relevance", "ID", "--yes", "a", "--no", "b"], 2),
        (["adopted", "ID", "--unused", "--why", "too long"], 1),
        (["signal", "ID", "copied", "--passage", "a"], 1),
        (["signal", "ID", "rating", "4"], 1),
        (["signal", "ID", "rating", "0.5"], 1),
        (["signal", "ID", "task_done", "false"], 1),
        (["signal", "ID", "edited", "Open the settings now."], 1),
        (["correct", "ID", "b"], 1),
        (["correct", "ID", "--text", "press the button"], 1),
        (["missing", "ID", "--note", "which settings?"], 1),
    ],
)


@OF_AN_ANSWER
def test_each_is_kept(
    kb: tuple[Path, str], words: list[str], kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    root, id_ = kb
    with pytest.raises(SystemExit) as done:
        main([id_ if w == "ID" else w for w in words] + ["--index", str(root), "--json"])
    assert done.value.code == 0
    assert json.loads(capsys.readouterr().out) == {"kept": kept}


@OF_AN_ANSWER
def test_each_may_name_a_run(
    kb: tuple[Path, str], words: list[str], kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = kb
    of_run = [words[0], "--run", *("another" if w == "ID" else w for w in words[1:])]
    for line, code in ((of_run, 0), (["retrieve", "kittens", "--run", "x", "--run", "another"], 0)):
        with pytest.raises(SystemExit) as done:
            main([*line, "--index", str(root), "--json"])
        assert done.value.code == code
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == {"kept": kept}
    with Flywheel.open(root) as fw:
        assert {v.retrieval_id for v in fw.votes()} <= {kb[1]}
        assert fw.feedback(run="x", passage_id="b", verdict="helpful")
    with pytest.raises(SystemExit) as done:
        main([of_run[0], "--run", "none", *of_run[3:], "--index", str(root)])
    assert done.value.code == 1 and "no retrieval of run 'none'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["answer-feedback", "ID", "good"], 2),
        (["answer-feedback", "x", "helpful"], 1),
        (["relevance", "ID", "--yes", "a", "--no", "a"], 2),
        (["adopted", "ID"], 2),
        (["signal", "ID", "loved"], 2),
        (["signal", "ID", "rating", "many"], 1),
        (["correct", "ID", "b", "--text", "so"], 1),
        (["missing", "x"], 1),
    ],
)
def test_mistakes_have_their_exit_codes(
    kb: tuple[Path, str], words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    root, id_ = kb
    with pytest.raises(SystemExit) as done:
        main([id_ if w == "ID" else w for w in words] + ["--index", str(root)])
    assert done.value.code == code
    assert "Traceback" not in capsys.readouterr().err


def test_gaps(kb: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    root, id_ = kb
    with Flywheel.open(root) as fw:
        fw.missing(id_)
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as done:
            main(["gaps", "--index", str(root), *more])
        assert done.value.code == 0
    said = capsys.readouterr().out
    assert "1 topic without a good answer" in said
    assert json.loads(said.splitlines()[-1])[0]["missing"] == 1
