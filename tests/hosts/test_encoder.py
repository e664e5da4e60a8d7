"""A change of the encoder on one host is followed by those that have the model."""

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from hosts import Shared, come_to
from rag_flywheel import Flywheel
from rag_flywheel.config import read_config
from rag_flywheel.errors import EncoderError

OLD, NEW = "fakes:word_encoder", "other_words:other_encoder"
MODULE = """
from fakes import WordEncoder


def other_encoder():
    return WordEncoder(dim=32, name="other", revision="2")
"""


def ids(fw: Flywheel) -> list[str]:
    return [hit.passage_id for hit in fw.retrieve(QUERY, k=8, record=False).hits]


def test_hosts_that_can_make_it_follow_to_the_new_encoder(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = shared.folder / "modules"
    modules.mkdir()
    (modules / "other_words.py").write_text(MODULE)
    monkeypatch.syspath_prepend(modules)
    one = shared.open("one", encoder=OLD)
    one.add(PASSAGES)
    one.refresh()
    two = shared.open("two", encoder=None)
    assert ids(two) == ids(one)
    report = one.change_encoder(NEW, force=True)
    assert report.outcome == "promoted"
    come_to(two, report.version)
    assert ids(two) == ids(one)
    assert two.status().encoder == "other"
    assert read_config(shared.root("two") / "flywheel.toml").encoder == NEW
    two.add(PASSAGES[:1])
    assert two.verify() == []
    first = two.versions()[-1].id
    assert two.rollback() == first  # of the encoder before
    assert one.retrieve(QUERY, record=False).version == first


def test_a_host_without_the_model_goes_on_with_the_version_before(
    shared: Shared, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = shared.begun("one", "two")
    first = two.retrieve(QUERY, record=False).version
    report = one.change_encoder(WordEncoder(dim=32, name="other", revision="2"), force=True)
    assert report.outcome == "promoted"
    for _ in range(200):
        assert two.retrieve(QUERY, record=False).version == first
        if "cannot be served" in caplog.text:
            break
    assert "the new live version cannot be served; keeping the last" in caplog.text
    assert len(ids(two)) == 8
    found = two.retrieve(QUERY, k=2, user_id="u")
    assert two.feedback(found.id, found.hits[0].passage_id, "helpful", user_id="u")
    with pytest.raises(EncoderError):
        two.add(PASSAGES[:1])
