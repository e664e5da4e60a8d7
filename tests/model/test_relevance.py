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


OFF = [
    "which yarn is warmest for mittens",
    "how do I calm a nervous horse",
    "who painted the ceiling of that chapel",
    "lyrics of a lullaby for twins",
    "welche Blumen blühen im Schatten",
    "comment enlever de la cire sur une nappe",
    "cuándo se podan los olivos",
    "jak wyczyścić dywan z sierści",
    "как посадить картошку на даче",
    "怎么洗羊毛衫",
    "고양이가 밥을 안 먹어요",
    "lkj asdf poiq",
    "wub wub wub wub",
    "9 8 7 6 5",
    "@#$ %^& *()",
]
ABOUT = [
    "opening hours",
    "when can I come to the desk",
    "how long until my money is back",
    "which day do I get the bill by mail",
    "what happens to my files after I leave",
    "reset my login",
]


@pytest.mark.model
def test_off_topic_questions_in_many_languages_get_a_low_chance_and_short_ones_keep_theirs(
    tmp_path: Path,
) -> None:
    with Flywheel.open(tmp_path / "kb") as fw:
        fw.add(Passage(f"p{i}", text) for i, text in enumerate(DESK))
        fw.refresh()
        off = [r.answerable for r in fw.retrieve_many(OFF)]
        about = [r.answerable for r in fw.retrieve_many(ABOUT)]
        assert sum(chance < 0.2 for chance in off) >= 0.95 * len(OFF), off
        assert min(about) > max(off), (about, off)


@pytest.mark.model
def test_a_single_passage_does_not_answer_everything(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb") as fw:
        fw.add([Passage("hours", DESK[2])])
        fw.refresh()
        assert max(r.answerable for r in fw.retrieve_many(OFF)) < 0.3
        assert fw.retrieve("when is the desk open on working days").answerable > 0.5
