"""`rag-flywheel bench`, as an engineer runs it."""

import json
from pathlib import Path

import pytest

from made_collection import write_collection
from rag_flywheel.cli.app import main


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(["bench", *words])
    return int(done.value.code or 0)


@pytest.mark.slow
def test_a_run_leaves_a_result_a_report_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_collection(tmp_path / "made")
    monkeypatch.setenv("RAG_FLYWHEEL_DATA", str(tmp_path))
    out = tmp_path / "result.json"
    assert run("made", "--cycles", "2", "--eps", "0", "--seed", "3", "--out", str(out)) == 0
    result = json.loads(out.read_text())
    assert result["format"] == "rag-flywheel-bench-1"
    assert (result["protocol"]["seed"], result["protocol"]["users"]["eps"]) == (3, 0.0)
    (collection,) = result["collections"]
    assert len(collection["sha256"]["corpus.jsonl"]) == 64
    value = next(r for r in collection["rankings"] if r["name"] == "flywheel")["values"]["nDCG@10"]
    html = out.with_suffix(".html").read_text()
    printed = capsys.readouterr().out
    assert f"{value:.3f}" in html
    assert f"{value:.3f}" in printed
    assert "made" in printed


@pytest.mark.slow
def test_a_stream_of_questions_is_another_protocol(tmp_path: Path) -> None:
    write_collection(tmp_path / "made")
    out = tmp_path / "result.json"
    words = ["--cycles", "2", "--asked", "40", "--users", "7", "--out", str(out)]
    assert run(str(tmp_path / "made"), "--protocol", "v2", *words) == 0
    result = json.loads(out.read_text())
    assert result["protocol"]["name"] == "cycles-v2"
    assert result["protocol"]["traffic"]["n_users"] == 7
    (collection,) = result["collections"]
    assert collection["stream"]["n_asked"] == 40
    assert "asked again" in out.with_suffix(".html").read_text()


def test_mistakes_are_said_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(tmp_path), "--attack", "shout") == 2
    assert run(str(tmp_path), "--protocol", "v3") == 2
    assert run(str(tmp_path), "--out", "result.txt") == 2
    assert run(str(tmp_path / "gone")) == 1
    assert "no collection" in capsys.readouterr().err
    assert run(str(tmp_path), "--out", str(tmp_path / "no" / "r.json")) == 1
    assert "is no folder that can be written to" in capsys.readouterr().err
