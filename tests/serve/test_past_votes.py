"""What votes on past queries leave behind: for their own tenant, for their passage, or nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from plain_model import spellings
from rag_flywheel import Config, Flywheel, Passage

QUERY = "account password"


def scores(fw: Flywheel, query: str, where: Mapping[str, Any] | None = None) -> dict[str, float]:
    found = fw.retrieve(query, k=1000, where=where, record=False)
    return {h.passage_id: h.score for h in found.hits}


@pytest.mark.parametrize("n_past", [1, 10])
@pytest.mark.parametrize("tenant_key", ["team", None])
def test_a_version_remembers_past_queries_among_the_texts_they_could_see(
    tmp_path: Path, encoder: WordEncoder, tenant_key: str | None, n_past: int
) -> None:
    config, ours = (
        Config(encoder="", tenant_key=tenant_key, tenant_required=False),
        {"team": "ours"},
    )
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=config) as fw:
        fw.add([Passage("a", "reset password on the page", "", ours)])
        fw.add([Passage("b", "change the password in settings", "", ours)])
        fw.add(
            Passage(f"t{i}", f"password{i} reset thing{i} other{i}", "", {"team": f"t{i}"})
            for i in range(60)
        )
        static = scores(fw, "reset password", ours)
        for query in spellings("reset password", n_past):
            shown = fw.retrieve(query, where=ours)
            for user in ("ann", "bob"):
                fw.feedback(shown.id, "a", "harmful", user_id=user)
        before = scores(fw, "reset password", ours)
        assert before["b"] - before["a"] > static["b"] - static["a"]
        fw.refresh()
        after = scores(fw, "reset password", ours)
        if n_past == 1:  # nothing else is known of the query than when it was asked
            assert after == pytest.approx(before, abs=1e-4)
        else:
            assert before["b"] > before["a"]
            assert after["b"] > after["a"]


@pytest.mark.parametrize("voted_on", ["reset", "secret", "refund", "cats"])
@pytest.mark.parametrize("n_past", [1, 8, 40])
def test_a_helpful_vote_never_lowers_its_passage(
    fw: Flywheel, help_desk: list[Passage], voted_on: str, n_past: int
) -> None:
    fw.add(help_desk)
    static = scores(fw, "reset password")
    for shown in fw.retrieve_many(spellings("reset password", n_past)):
        fw.feedback(shown.id, voted_on, "helpful")
    for _ in range(2):
        assert scores(fw, "reset password")[voted_on] >= static[voted_on]
        fw.refresh()


@pytest.mark.parametrize("refreshed", [False, True])
def test_a_retracted_vote_leaves_nothing_in_a_later_vote(
    tmp_path: Path, encoder: WordEncoder, help_desk: list[Passage], refreshed: bool
) -> None:
    found = []
    for name, first in (("one", False), ("two", True)):
        with Flywheel.open(tmp_path / name, encoder=encoder) as fw:
            fw.add(help_desk)
            shown = fw.retrieve(QUERY)
            if first:
                fw.feedback(shown.id, "secret", "helpful", user_id="ann")
            again = fw.retrieve(QUERY)  # its scores were moved by the vote
            fw.feedback(again.id, "secret", "helpful", user_id="bob")
            if first:
                fw.feedback(shown.id, "secret", "retract", user_id="ann")
            if refreshed:
                fw.refresh()
            found.append(scores(fw, QUERY))
    assert found[1] == pytest.approx(found[0], abs=1e-6)


def test_a_refresh_after_release_learns_what_was_held_back(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    def remembered() -> int:
        folder = Path(fw.status().path) / "versions" / str(fw.status().version)
        return len(np.load(folder / "memory" / "queries.npy"))

    fw.add(help_desk)
    fw.refresh()
    fw.feedback(fw.retrieve(QUERY).id, "secret", "helpful")
    fw.refresh()
    assert remembered() == 1
    fw.rollback()
    fw.add([Passage("new", "one more text")])
    assert fw.refresh().outcome == "promoted"
    assert remembered() == 0
    assert fw.refresh().outcome == "unchanged"
    assert fw.release()
    assert fw.refresh().outcome == "promoted"  # though nothing was added or voted since
    assert remembered() == 1
    assert fw.refresh().outcome == "unchanged"


def test_votes_after_an_earlier_freeze_do_not_count_though_the_version_heard_them(
    tmp_path: Path,
) -> None:
    """CURRENT decides what counts, also when it was set by hand."""
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add([Passage("a", "alpha common"), Passage("b", "beta common")])  # event 1
        for user in ("ann", "bob"):  # events 2 and 3
            fw.feedback(fw.retrieve("common", user_id=user).id, "b", "helpful", user_id=user)
        version = fw.refresh().version
    (root / "CURRENT").write_text(f"{version} 2\n")
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        found = fw.retrieve("common", record=False).hits
        assert {v for hit in found for v in hit.explanation.votes} == {2}
        assert fw.status().frozen_at == 2
        assert fw.release()
        found = fw.retrieve("common", record=False).hits
        assert {v for hit in found for v in hit.explanation.votes} == {2, 3}
