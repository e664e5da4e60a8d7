"""Relevance under the default model: what is there stands out from what is not."""

from pathlib import Path

import pytest

from rag_flywheel import Flywheel, Passage

DESK = [
    "To get a new password, open Settings and choose Reset.",
    "Refunds are paid within 30 days to the card that was used.",
    "The desk is open from 8 to 18 on working days.",
    "Invoices are sent by e-mail on the first of each month.",
    "Close your account under Settings; files are deleted after 30 days.",
]


@pytest.mark.model
def test_questions_about_the_passages_stand_out_from_others(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb") as fw:
        fw.add(Passage(f"p{i}", text) for i, text in enumerate(DESK))
        fw.refresh()
        asked = ["how do I get a new password", "when will my refund be paid", "delete my account"]
        others = ["qwxv bnzz pltk", "how do I prune a climbing rose", "jak upiec chleb na zakwasie"]
        for text in asked:
            assert fw.retrieve(text).answerable > 0.5, text
        for text in others:
            found = fw.retrieve(text)
            assert found.answerable < 0.2, text
            assert max(hit.relevance for hit in found.hits) < 0.2
