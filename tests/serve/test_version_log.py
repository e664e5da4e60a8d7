"""The log of serving says which version answers, and when another takes its place, as fields."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from folders import QUERY, opened
from rag_flywheel import Passage
from rag_flywheel.serve import fresh_texts


def events(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    names = ("event", "version", "previous", "n_passages", "frozen_at", "instead", "error")
    return [
        {name: getattr(record, name) for name in names if hasattr(record, name)}
        for record in caplog.records
        if getattr(record, "event", "").startswith("version_")
    ]


@pytest.fixture(autouse=True)
def every_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rag_flywheel")


def test_loaded_swapped_and_rolled_back(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(folder) as fw:
        first = fw.retrieve(QUERY).version
        fw.retrieve(QUERY)
        assert events(caplog) == [
            {"event": "version_loaded", "version": first, "previous": None, "n_passages": 30,
             "frozen_at": None}
        ]  # fmt: skip
        assert f"serving {first} (loaded in " in caplog.text
        fw.add([Passage("n", "new words")])
        second = fw.refresh().version
        assert events(caplog)[1:] == [
            {"event": "version_swapped", "version": second, "previous": first, "n_passages": 31,
             "frozen_at": None}
        ]  # fmt: skip
        fw.rollback()
        fw.retrieve(QUERY)
        last = events(caplog)[-1]
        assert (last["version"], last["previous"]) == (first, second)
        assert isinstance(last["frozen_at"], int)
        assert all(isinstance(r.seconds, float) for r in caplog.records if hasattr(r, "n_passages"))  # type: ignore[attr-defined]


def test_before_the_first_refresh(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.retrieve("anything")
    (found,) = events(caplog)
    assert (found["event"], found["version"]) == ("version_loaded", None)
    assert "serving no version" in caplog.text


def test_a_version_that_cannot_be_served(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(folder) as fw:
        first = fw.retrieve(QUERY).version
        (folder / "CURRENT").write_text("20200101T000000Z-00000\n")
        assert fw.retrieve(QUERY).version == first
        kept = {"event": "version_kept", "version": first, "error": "CorruptFileError"}
        assert events(caplog)[1:] == [kept]
        fw.retrieve(QUERY)
        assert len(events(caplog)) == 2  # said once


def test_a_version_of_another_state_of_the_database(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(folder / "flywheel.db", tmp_path / "old.db")
    with opened(folder) as fw:
        own = fw.status().version
        fw.add([Passage("n", "new words")])
        foreign = fw.refresh().version
    shutil.copy(tmp_path / "old.db", folder / "flywheel.db")
    with opened(folder) as fw:
        assert fw.retrieve(QUERY).version == own
    fallback = {"event": "version_fallback", "version": foreign, "instead": own}
    assert fallback in events(caplog)
    assert f"{own} answers instead: run `rag-flywheel refresh`" in caplog.text


def test_many_passages_before_the_first_refresh_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_texts, "_MANY", 20)
    with opened(tmp_path / "kb") as fw:
        fw.add([Passage(f"p{i}", f"words number {i}") for i in range(19)])
        fw.retrieve("words")
        assert "no refresh yet" not in caplog.text
        fw.add([Passage(f"q{i}", f"more words {i}") for i in range(20)])
        for _ in range(3):
            fw.retrieve("more words")
        assert caplog.text.count("no refresh yet: 39 passages are compared with each question") == 1
        fw.refresh()
        fw.add([Passage(f"r{i}", f"yet more words {i}") for i in range(50)])
        fw.retrieve("more words")
        assert caplog.text.count("no refresh yet") == 1
