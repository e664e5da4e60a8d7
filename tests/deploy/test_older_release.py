"""A folder whose versions an earlier release wrote: a refresh builds anew what it cannot read, and
keeps passages and votes."""

import json
import logging
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.errors import CorruptFileError, OlderFormatError, UnknownIdError

PASSAGES = [Passage(f"p{i}", f"common word{i} text") for i in range(12)]
QUESTION = "common word3"


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(dim=64), config=Config(encoder=""))


def best(fw: Flywheel) -> str:
    return fw.retrieve(QUESTION, record=False).hits[0].passage_id


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Two versions and votes of six users; all that is in versions/ is of an earlier format."""
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        for user in range(6):
            shown = fw.retrieve(QUESTION, 12, user_id=f"user {user}")
            fw.feedback(shown.id, "p5", "helpful", user_id=f"user {user}")
            fw.feedback(shown.id, "p3", "harmful", user_id=f"user {user}")
        fw.refresh()
    for folder in (root / "versions").iterdir():
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 1}))
        (folder / "parameters.json").write_text('{"format_version": 1}')
    return root


def test_the_error_says_what_to_do_and_doing_it_helps(old: Path) -> None:
    """It did not: a refresh found that nothing had changed."""
    with opened(old) as fw:
        with pytest.raises(
            OlderFormatError, match=r"earlier release .* Run `rag-flywheel refresh`"
        ):
            fw.retrieve(QUESTION)
        report = fw.refresh(if_votes=50, max_age_s=6 * 3600)
        assert report.outcome == "promoted"
        assert (fw.status().n_passages, fw.status().n_votes) == (12, 12)
        assert best(fw) == "p5"  # the votes are kept
    with opened(old) as fw:
        assert best(fw) == "p5"
        assert fw.refresh(if_votes=50).outcome == "unchanged"


def test_a_version_of_an_earlier_release_is_not_rolled_back_to(old: Path) -> None:
    with opened(old) as fw:
        older = [folder.name for folder in (old / "versions").iterdir()]
        with pytest.raises(CorruptFileError, match="earlier release"):
            fw.rollback(older[0])
        fw.refresh()
        live = fw.status().version
        assert [folder.name for folder in (old / "versions").iterdir()] == [live]
        with pytest.raises(UnknownIdError, match="no version"):
            fw.rollback(older[0])
        assert fw.status().version == live
        assert best(fw) == "p5"


def test_the_gate_may_look_again_where_the_weights_are_lost(
    old: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else an index would stay at the shipped weights until half as many votes again had come."""
    with opened(old) as fw, caplog.at_level(logging.WARNING, logger="rag_flywheel"):
        fw.refresh()
        looks = [entry for entry in fw.history() if entry.kind == "look"]
        assert any("from the beginning again" in entry.text for entry in looks)
    assert any("parameters not used" in message for message in caplog.messages)
