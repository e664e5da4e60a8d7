"""`rag-flywheel change-encoder`, as an operator runs it."""

import json
import shutil
from pathlib import Path

import pytest

import changing
from changing import NEW, live, opened, share_right
from rag_flywheel.cli.app import main


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changing.made(tmp_path_factory.mktemp("made") / "kb")


@pytest.fixture
def kb(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "kb"))


def run(capsys: pytest.CaptureFixture[str], kb: Path, *words: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--index", str(kb)])
    said = capsys.readouterr()
    assert ended.value.code == code, said
    return said.out if "--json" in words else said.out + said.err


def test_an_encoder_is_changed_and_rolled_back(
    kb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(kb) as fw:
        old = live(fw)
    said = run(capsys, kb, "change-encoder", "changing:knowing")
    assert "promoted: 300 passages; encoder changed from words: held-out votes gain" in said
    assert "300 passages to embed" in said  # one line a step
    assert "knowing" in run(capsys, kb, "status")
    with opened(kb) as fw:
        assert share_right(fw, NEW) == 1.0
        new = live(fw)
    assert "encoder changed from words" in run(capsys, kb, "versions", "--explain", new)
    assert "unchanged" in run(capsys, kb, "change-encoder", "changing:knowing")
    assert old in run(capsys, kb, "rollback")
    assert "words" in run(capsys, kb, "status")
    assert "sound" in run(capsys, kb, "verify")


def test_what_the_gate_refuses_has_an_exit_code_of_its_own(
    kb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(run(capsys, kb, "--json", "change-encoder", "changing:deaf", code=3))
    assert found["outcome"] == "rejected"
    assert found["reason"].startswith("deaf is not live: held-out votes do not clearly gain")
    assert "to deaf, 300 of 300 passages embedded; not live" in run(capsys, kb, "status")
    assert "vectors dropped" in run(capsys, kb, "change-encoder", "--drop")
    assert "vectors dropped 0" in run(capsys, kb, "change-encoder", "--drop")
    run(capsys, kb, "change-encoder", "changing:deaf", code=3)
    assert "by force" in run(capsys, kb, "change-encoder", "changing:deaf", "--force")


@pytest.mark.parametrize(
    "words", [(), ("changing:deaf", "--drop"), ("--drop", "--force"), ("--force",)]
)
def test_usage(words: tuple[str, ...], kb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give the name of an encoder, or --drop alone" in run(
        capsys, kb, "change-encoder", *words, code=2
    )


def test_an_encoder_that_is_not_there_is_an_error(
    kb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "cannot be made" in run(capsys, kb, "change-encoder", "no_such:thing", code=1)


def test_an_encoder_that_fails_says_why(
    kb: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one line, with no traceback; the change goes on once the encoder does."""

    def fails(self: object, texts: list[str]) -> None:
        raise ConnectionError("the card fell out")

    with monkeypatch.context() as broken:
        broken.setattr("fakes.WordEncoder.encode_passages", fails)
        said = run(capsys, kb, "change-encoder", "changing:deaf", code=1)
    assert "the encoder failed on" in said and "(cause: the card fell out)" in said
    assert "Traceback" not in said
    assert "to deaf, 0 of 300 passages embedded" in run(capsys, kb, "status")
    assert "deaf is not live" in run(capsys, kb, "change-encoder", "changing:deaf", code=3)
