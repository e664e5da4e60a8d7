"""Tuning that helps nobody, fails, or is cut short: what was served goes on being served."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag_flywheel import Passage
from rag_flywheel.errors import FlywheelError
from rag_flywheel.improve import teach
from rag_flywheel.refresh import next_version as refreshing
from teachable import TeachableEncoder, questions, share_right, vote
from tuned import (
    NEW,
    N,
    folder_of,
    ids,
    live,
    make_voted,
    manifest_of,
    opened,
    order,
    revisions,
    rows,
    weights_of,
)

pytestmark = pytest.mark.slow  # torch alone takes seconds to load


@pytest.fixture(scope="module")
def tossed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed index whose votes are coin tosses."""
    return make_voted(tmp_path_factory.mktemp("tossed") / "kb", wrong=0.5)


@pytest.fixture
def tossed(tossed_once: Path, voted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tossed_once, tmp_path / "tossed"))


@pytest.mark.slow
def test_votes_that_are_coin_tosses_teach_nothing(tossed: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(tossed, tmp_path / "twin"))
    with opened(tossed) as fw, opened(twin) as other:
        report, plain = fw.refresh(tune=True), other.refresh()
        assert (report.outcome, report.encoder) == ("promoted", "kept")
        assert report.parameters == plain.parameters
        assert order(fw) == order(other)
        assert manifest_of(fw)["tuned"] is None
        assert not weights_of(fw).parent.exists()
        names = [sorted(manifest_of(each)["files"]) for each in (fw, other)]
        assert names[0] == names[1]
        assert set(revisions(tossed)) == {TeachableEncoder().revision}
        story = fw.explain_version(live(fw)).sentences
        assert any(s.startswith("encoder of queries kept: ") for s in story)
        assert not any("which votes taught" in s for s in story)
        assert fw.verify() == []
    assert not (tossed / "tuning").exists()


@pytest.mark.slow
def test_what_taught_nothing_is_not_taught_again_until_there_are_more_votes(tossed: Path) -> None:
    (tossed / "flywheel.toml").write_text('format_version = 1\nencoder = ""\ntune = "auto"\n')
    steps: list[str] = []

    def see(step: str, _: int, __: int) -> None:
        steps.append(step)

    with opened(tossed) as fw:
        assert fw.refresh(progress=see).encoder == "kept"
        assert "tuning the query encoder" in steps
        del steps[:]
        for n in range(2):
            fw.add([Passage(f"new{n}", "one more")])
            report = fw.refresh(progress=see, tune=n == 1)
            assert (
                f"not tuned: 840 votes so far, the next look is at {3 * 840 // 2}" in report.reason
            )
        assert "tuning the query encoder" not in steps
        vote(fw, questions(70, 110), wrong=0.5)
        fw.refresh(progress=see)
        assert "tuning the query encoder" in steps


def gate_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """To gain less than that is taken for harm."""
    from rag_flywheel.evaluate import gate

    monkeypatch.setattr(gate, "MARGIN", -9.0)


@pytest.mark.slow
def test_an_encoder_that_the_gate_refuses_leaves_nothing(
    voted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate_that_refuses(monkeypatch)
    twin = Path(shutil.copytree(voted, tmp_path / "twin"))
    with opened(voted) as fw, opened(twin) as other:
        report = fw.refresh(tune=True)
        other.refresh()
        assert (report.outcome, report.encoder) == ("promoted", "kept")
        assert "encoder kept, taught by" in report.reason
        assert order(fw) == order(other)
        assert manifest_of(fw)["tuned"] is None
        assert not weights_of(fw).parent.exists()
        assert set(revisions(voted)) == {TeachableEncoder().revision}
        looked = rows(voted, "SELECT outcome FROM looks WHERE arm = 'encoder'")
        assert looked == [("vetoed",)]
        decision = json.loads((folder_of(fw) / "gate.json").read_text())["encoder"]["decision"]
        sentences = fw.explain_version(live(fw)).sentences
        assert f"encoder of queries kept: vetoed: {decision['why']}" in sentences
        assert fw.verify() == []


def test_an_encoder_that_the_gate_refuses_leaves_the_tuned_one(
    tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate_that_refuses(monkeypatch)
    with opened(tuned) as fw:
        before = manifest_of(fw)["tuned"]
        vote(fw, questions(70, 110))
        report = fw.refresh(tune=True)
        assert (report.outcome, report.encoder) == ("promoted", "kept")
        assert "encoder kept, taught by" in report.reason
        assert manifest_of(fw)["tuned"] == before
        assert set(revisions(tuned)) == {TeachableEncoder().revision, before}
        assert share_right(fw, questions(110, N)) > 0.9
        assert fw.verify() == []


def full(*_: object, **__: object) -> Any:
    raise OSError(28, "No space left on device")


def interrupted(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


FAILURES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "publishing": lambda patch: patch.setattr(refreshing.deploy, "publish", full),
    "going live": lambda patch: patch.setattr(refreshing, "make_live", interrupted),
    "sealing": lambda patch: patch.setattr(refreshing.deploy, "seal", full),
    "storing vectors": lambda patch: patch.setattr(refreshing, "put_queries", interrupted),
    "the check": lambda patch: patch.setattr(refreshing, "version_problems", interrupted),
}


@pytest.mark.slow
@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
def test_a_tuned_version_that_never_goes_live_changes_nothing(
    fail: Callable[[pytest.MonkeyPatch], None], voted: Path
) -> None:
    with opened(voted) as fw, opened(voted) as other:
        fw.refresh()
        expected, version = order(fw), live(fw)
        with pytest.MonkeyPatch.context() as patch:
            fail(patch)
            with pytest.raises((FlywheelError, KeyboardInterrupt)):
                fw.refresh(tune=True)
        assert order(fw) == order(other) == expected
        assert live(fw) == version
        assert list((voted / "staging").iterdir()) == []
        assert [p for p in fw.verify() if "no version folder" not in p] == []
        assert rows(voted, "SELECT * FROM looks WHERE arm = 'encoder'") == []
        report = fw.refresh(tune=True)
        assert (report.outcome, report.encoder) == ("promoted", "new")
        assert other.refresh().outcome == "unchanged"  # what the first one made is loaded
        assert share_right(other, NEW) > 0.9
        tuned = {manifest_of(fw, v)["tuned"] for v in ids(fw)} - {None}
        assert set(revisions(voted)) == {TeachableEncoder().revision} | tuned
        assert fw.verify() == []


@pytest.mark.slow
def test_a_version_that_fails_its_check_is_rejected_with_its_encoder(
    voted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(voted) as fw:
        fw.refresh()
        expected, before = order(fw), ids(fw)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(refreshing, "version_problems", lambda *_: ["it looks wrong"])
            report = fw.refresh(tune=True)
        assert (report.outcome, report.encoder, report.reason) == (
            "rejected",
            "kept",
            "it looks wrong",
        )
        assert order(fw) == expected
        assert ids(fw) == before
        assert set(revisions(voted)) == {TeachableEncoder().revision}
        assert rows(voted, "SELECT * FROM looks WHERE arm = 'encoder'") == []
        assert fw.refresh(tune=True).encoder == "new"


@pytest.mark.slow
def test_an_interruption_at_any_step_changes_nothing_and_the_next_goes_on(
    voted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(teach, "_SAVE_EVERY_S", -1.0)
    twin, steps = Path(shutil.copytree(voted, tmp_path / "twin")), list[tuple[str, int]]()
    with opened(twin) as fw:
        fw.refresh(tune=True, progress=lambda step, done, _: steps.append((step, done)))
        revision, expected_after = manifest_of(fw)["tuned"], order(fw)
    assert len({step for step, _ in steps}) >= 2
    assert len(steps) > 10
    with opened(voted) as fw:
        expected, version = order(fw), live(fw)
        for at in sorted({0, len(steps) // 2, len(steps) - 1, *range(3, len(steps), 4)}):
            told = list[object]()

            def stop(step: str, done: int, _: int, at: int = at, told: list[Any] = told) -> None:
                told.append(step)
                if len(told) > at:
                    raise KeyboardInterrupt

            try:
                report = fw.refresh(tune=True, progress=stop)
            except KeyboardInterrupt:
                assert order(fw) == expected
                assert live(fw) == version
                assert fw.verify() == []
            else:  # it went on so far into its steps that there were fewer
                assert report.outcome == "promoted"
                break
        if live(fw) == version:
            with caplog.at_level(logging.INFO, logger="rag_flywheel"):
                fw.refresh(tune=True)
            assert "tuning: going on from step 8 of 8" in caplog.messages
        assert manifest_of(fw)["tuned"] == revision
        assert order(fw) == expected_after
        assert fw.verify() == []
    assert not (voted / "tuning").exists()
