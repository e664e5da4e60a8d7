"""Naming the right passage, writing the answer, saying that it is missing; and the gaps that show."""

import math
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fakes import WordEncoder
from known import known
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.rank.posterior import Rates
from rag_flywheel.report.gaps import UNLIKELY, Signs

QUERY = "how do I change my password"
DESK = [
    Passage("reset", "open settings and press reset to change the password"),
    Passage("secret", "the account page changes the login secret of my account"),
    Passage("refund", "how refunds are paid within thirty days"),
    *[Passage(f"p{i}", f"change thing{i} how to password{i}") for i in range(20)],
    Passage("cats", "kittens sleep long"),
]


@pytest.fixture
def desk(fw: Flywheel) -> Flywheel:
    fw.add(DESK)
    return fw


def scores(fw: Flywheel, query: str = QUERY) -> dict[str, float]:
    found = fw.retrieve(query, k=50, record=False)
    return {h.passage_id: h.score for h in found.hits}


def votes_behind(fw: Flywheel, passage: str) -> set[int]:
    (hit,) = (h for h in fw.retrieve(QUERY, k=50, record=False).hits if h.passage_id == passage)
    return set(hit.explanation.votes)


@pytest.mark.parametrize("refreshed", [False, True])
def test_a_passage_that_was_not_shown_is_found_once_it_is_named(
    desk: Flywheel, refreshed: bool
) -> None:
    shown = desk.retrieve(QUERY, k=3)
    assert "cats" not in {h.passage_id for h in shown.hits}
    before = scores(desk)["cats"]
    for user in ("ann", "bob"):
        desk.correct(shown.id, "cats", user_id=user)
        if refreshed:
            desk.refresh()
        after = scores(desk)["cats"]
        assert after > before + 0.1
        before = after
    assert max(scores(desk), key=lambda id_: scores(desk)[id_]) == "cats"
    with Flywheel.open(desk.status().path, encoder=WordEncoder()) as other:
        assert scores(other) == pytest.approx(scores(desk), abs=1e-6)
    assert desk.verify() == []


def test_a_correction_weighs_two_votes_on_what_was_shown(fw: Flywheel, tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "other", encoder=WordEncoder()) as other:
        for each in (fw, other):
            each.add(DESK[:3])
        shown = fw.retrieve(QUERY)
        fw.correct(shown.id, "reset", user_id="ann")
        again = other.retrieve(QUERY)
        for user in ("ann", "bob"):
            other.feedback(again.id, "reset", "helpful", user_id=user)
        assert scores(fw) == pytest.approx(scores(other), abs=1e-6)


def test_the_last_of_a_users_corrections_counts_and_a_later_vote_replaces_it(
    desk: Flywheel,
) -> None:
    shown = desk.retrieve(QUERY)
    static = scores(desk)
    desk.correct(shown.id, "cats", user_id="ann")
    desk.correct(shown.id, "reset", user_id="ann")
    alone = scores(desk)
    assert alone["cats"] <= static["cats"]
    assert alone["reset"] > static["reset"]
    desk.feedback(shown.id, "reset", "harmful", user_id="ann")
    assert scores(desk)["reset"] < static["reset"]
    desk.feedback(shown.id, "reset", "retract", user_id="ann")
    assert scores(desk) == pytest.approx(alone, abs=1e-9)


def test_what_another_named_before_is_not_taken_back_by_a_users_correction(
    desk: Flywheel,
) -> None:
    """Nor is what the user named on another answer to the question."""
    first, second = (desk.retrieve(QUERY) for _ in range(2))
    desk.correct(first.id, "cats", user_id="ann")
    desk.correct(second.id, "cats", user_id="bob")
    before = votes_behind(desk, "cats")
    assert len(before) == 2
    desk.correct(second.id, "refund", user_id="ann")
    assert votes_behind(desk, "cats") > before
    assert len(votes_behind(desk, "refund")) == 3


def test_a_text_waits_for_a_reviewer_and_becomes_a_passage(desk: Flywheel) -> None:
    shown = desk.retrieve("opening hours of the shop", user_id="ann")
    desk.correct(shown.id, text="The shop opens at nine.", user_id="ann")
    item = desk.review.next()
    assert item is not None
    assert (item.query, item.passage_id, item.text) == (
        "opening hours of the shop",
        "",
        "The shop opens at nine.",
    )
    desk.review.reject(item.id)
    assert desk.review.next() is None
    assert desk.review.undo(item.id) == item.id
    assert [i.id for i in desk.review.items()] == [item.id]
    made = desk.review.accept(item.id, user_id="rita")
    assert desk.review.accept(item.id) == made
    assert desk.review.next() is None
    (added,) = desk.passages({"source": "correction"})
    assert (added.text, added.metadata) == (
        "The shop opens at nine.",
        {"source": "correction", "retrieval": shown.id},
    )
    best = desk.retrieve("opening hours of the shop", k=1).hits[0]
    assert best.passage_id == added.id
    assert known(desk) == {"opening hours of the shop": ({added.id: 1}, ("correction",))}
    assert added.id == made
    with pytest.raises(InputError, match=f"undo the acceptance first: .* undo {item.id}"):
        desk.review.reject(item.id)


def test_an_acceptance_is_taken_back_with_the_passage_that_it_made(desk: Flywheel) -> None:
    static = scores(desk)
    shown = desk.retrieve("opening hours of the shop", user_id="ann")
    desk.correct(shown.id, text="The shop opens at nine.", user_id="ann")
    (item,) = desk.review.items()
    made = desk.review.accept(item.id)
    assert made in [p.id for p in desk.passages()]
    for given in (item.id, None):  # by its id, and as the last decision
        assert desk.review.undo(given) == item.id
        assert made not in [p.id for p in desk.passages()]
        assert known(desk) == {} and scores(desk) == static
        assert [i.id for i in desk.review.items()] == [item.id]
        assert desk.review.accept(item.id) == made
        assert known(desk) == {"opening hours of the shop": ({made: 1}, ("correction",))}
        assert desk.review.next() is None
    desk.remove([str(made)])
    assert desk.review.undo() == item.id  # nothing is left to remove
    with pytest.raises(UnknownIdError, match="no decision is left"):
        desk.review.undo()
    desk.review.reject(item.id)
    assert desk.review.next() is None and desk.verify() == []


def test_the_author_is_counted_once_however_often_a_text_is_accepted(desk: Flywheel) -> None:
    found = []
    for user, times in (("ann", 1), ("bob", 3), (None, 1), (None, 3)):
        shown = desk.retrieve(f"opening hours of shop {user}{times}", user_id=user)
        desk.correct(shown.id, text=f"Shop {user}{times} opens at nine.", user_id=user)
        (item,) = desk.review.items()
        made = desk.review.accept(item.id)
        for _ in range(times - 1):
            desk.review.undo()
            desk.review.accept(item.id)
        hits = desk.retrieve(f"opening hours of shop {user}{times}", record=False).hits
        (evidence,) = [hit.explanation for hit in hits if hit.passage_id == made]
        found.append(len(evidence.votes))
    assert found[0] == found[1] and found[2] == found[3]


def test_a_passage_that_was_edited_since_is_not_removed(desk: Flywheel) -> None:
    shown = desk.retrieve("opening hours", user_id="ann")
    desk.correct(shown.id, text="The shop opens at nine.", user_id="ann")
    (item,) = desk.review.items()
    made = str(desk.review.accept(item.id))
    desk.add([Passage(made, "The shop opens at ten, on Sundays at noon.")])
    with pytest.raises(InputError, match=f"was edited since; .*rag-flywheel remove {made}"):
        desk.review.undo(item.id)
    assert made in [p.id for p in desk.passages()]


def test_undo_takes_the_later_of_a_note_and_a_passage(desk: Flywheel) -> None:
    shown = desk.retrieve("opening hours", user_id="ann")
    desk.correct(shown.id, text="The shop opens at nine.", user_id="ann")
    for passage in ("cats", "reset"):
        desk.correct(desk.retrieve(QUERY).id, passage, user_id=passage)
    cats, reset, note = desk.review.items()
    desk.review.accept(cats.id)
    desk.review.accept(note.id)
    desk.review.reject(reset.id)
    assert [desk.review.undo() for _ in range(3)] == [reset.id, note.id, cats.id]


def test_an_accepted_text_stays_with_its_tenant(tmp_path: Path) -> None:
    config = Config(encoder="", tenant_key="team", tenant_required=False)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(
            [Passage("a", "one text", "", {"team": "x"}), Passage("b", "two", "", {"team": "y"})]
        )
        where = {"team": "x", "lang": "en", "year": {"gte": 2020}}
        shown = fw.retrieve("opening hours", where=where)
        fw.correct(shown.id, text="we open at nine")
        fw.review.accept(fw.review.items()[0].id)
        (added,) = fw.passages({"source": "correction"})
        assert (added.metadata["team"], added.metadata["lang"]) == ("x", "en")
        assert "year" not in added.metadata


def test_notes_come_after_disputes_and_can_be_decided(desk: Flywheel) -> None:
    shown = desk.retrieve("opening hours")
    desk.missing(shown.id, "when is it open?", user_id="ann")
    for passage in ("cats", "reset"):
        desk.correct(desk.retrieve(QUERY).id, passage, user_id=passage)
    assert [i.passage_id for i in desk.review.items()] == ["cats", "reset", ""]
    note = desk.review.items()[-1]
    assert (note.text, note.why) == ("when is it open?", "a user says that the answer is missing")
    desk.review.accept(note.id)
    assert len(desk.review.items()) == 2
    assert desk.verify() == []


def test_a_user_who_opted_out_leaves_no_text(desk: Flywheel) -> None:
    shown = desk.retrieve("opening hours")
    desk.opt_out("ann")
    desk.missing(shown.id, "secret words", user_id="ann")
    desk.correct(shown.id, text="secret words", user_id="ann")
    desk.correct(shown.id, "cats", user_id="ann")
    assert desk.review.items() == []
    assert desk.status().n_votes == 0


def aged(fw: Flywheel, days: float) -> None:
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn, conn:
        conn.execute("UPDATE retrievals SET at = ?", (time.time() - days * 86_400,))


def test_gaps_are_topics_without_a_good_answer_with_their_trend(desk: Flywheel) -> None:
    asked = ["opening hours of shop", "opening hours of shop today", "pizza near office"]
    for query in asked[:2]:
        desk.missing(desk.retrieve(query).id)
    aged(desk, 40)
    for query in (*asked[:2], asked[0]):
        desk.retrieve(query)
    shown = desk.retrieve(asked[2])
    for user in ("ann", "bob"):
        desk.relevance(shown.id, {h.passage_id: False for h in shown.hits}, user_id=user)
    helped = desk.retrieve(QUERY)
    desk.feedback(helped.id, "reset", "helpful", user_id="ann")
    found = desk.gaps()
    assert [(g.examples, g.n, g.n_before, g.missing) for g in found] == [
        ((asked[0], asked[1]), 3, 2, 2),
        ((asked[2],), 1, 0, 0),
    ]
    assert found[1].harmful == 1
    assert desk.gaps(0.01)[0].n_before == 0
    note = desk.review.items()[0]
    desk.review.reject(note.id)
    assert sum(g.missing for g in desk.gaps()) == 1


def test_whether_a_question_has_an_answer_is_for_all_its_votes_to_say(desk: Flywheel) -> None:
    def asks(text: str, **votes: str) -> None:
        shown = desk.retrieve(text)
        for user, verdict in votes.items():
            desk.feedback(shown.id, shown.hits[0].passage_id, verdict, user_id=user)  # type: ignore[arg-type]

    asks("secret of my account", ann="harmful")  # one thumb down, which may be wrong
    asks("refunds paid", **{f"u{n}": "harmful" for n in range(6)})
    asks("press reset", ann="helpful", **{f"u{n}": "harmful" for n in range(6)})
    assert {text for gap in desk.gaps() for text in gap.examples} == {"refunds paid", "press reset"}
    for n in range(9):
        asks("refunds paid", **{f"v{n}": "helpful"})
    desk.missing(desk.retrieve("refunds paid").id)
    assert {text for gap in desk.gaps() for text in gap.examples} == {"press reset"}


def test_the_chance_that_nothing_answers_by_hand() -> None:
    said = Signs(4, frozenset({"ann"}), {1: (0.0, 2.0), 2: (1.0, 0.0)}, {1: 0.5, 2: 0.1, 3: 0.2})
    # odds of a vote 4; unseen 0.2, of which half is none
    some = 0.9 * (0.1 + 0.5 / 16 + 0.1 * 4 + 0.2)
    none = (0.1 + 0.9 * 0.1) * 16 * math.exp(-0.05 * 4)
    assert said.chance_of_none(Rates()) == pytest.approx(none / (none + some))
    assert replace(said, n=0).chance_of_none(Rates(0.5, 0.5)) == pytest.approx(
        0.19
    )  # votes that say nothing
    assert Signs(0, frozenset(), {}, {1: 1.0}).chance_of_none(Rates()) == pytest.approx(0.1)
    assert replace(said, n=80).chance_of_none(Rates()) < 0.5  # one of eighty calls it missing


def test_a_question_whose_best_hit_was_unlikely_is_a_gap(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(dim=2048)) as fw:
        fw.add(Passage(f"p{i}", f"same words in each{i}") for i in range(60))
        shown = fw.retrieve("zebra")
        assert shown.answerable < UNLIKELY
        fw.retrieve("same words in each7")
        assert [(g.examples, g.unlikely) for g in fw.gaps()] == [(("zebra",), 1)]
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful")
        assert fw.gaps() == []
        for query in ("giraffe", "giraffe", "same words in each8"):
            last = fw.retrieve(query)
        fw.missing(last.id)
        told, guessed = fw.gaps()  # what users say comes first
        assert (told.n, told.missing, told.unlikely) == (1, 1, 0)
        assert (guessed.n, guessed.missing, guessed.unlikely) == (2, 0, 1)


def test_no_question_no_gap(fw: Flywheel) -> None:
    assert fw.gaps() == []


def test_old_notes_lose_their_author_and_go_once_decided(tmp_path: Path) -> None:
    config = Config(encoder="", retention_days=30)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(DESK)
        for note in ("first", "second"):
            fw.missing(fw.retrieve(note, user_id="ann").id, note, user_id="ann")
        fw.review.reject(fw.review.items()[0].id)
        with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn, conn:
            for table in ("retrievals", "notes"):
                conn.execute(f"UPDATE {table} SET at = 0")
        fw.refresh()
        fw.add([Passage("more", "another")])
        fw.refresh()
        with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn:
            assert conn.execute("SELECT text, user_id FROM notes").fetchall() == [("second", None)]
            assert conn.execute("SELECT count(*) FROM note_reviews").fetchone() == (0,)
        assert fw.verify() == []


def test_what_the_filter_of_a_question_leaves_out_is_not_its_answer(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    """It may be another tenant's."""
    fw.add(help_desk)
    shown = fw.retrieve(QUERY, where={"lang": "en"}, k=1)
    with pytest.raises(UnknownIdError, match=r"passes the filter of retrieval"):
        fw.correct(shown.id, "cats")  # in German
    other = next(p.id for p in help_desk[1:3] if p.id != shown.hits[0].passage_id)
    fw.correct(shown.id, other)
    assert fw.status().n_votes == 1


def test_the_same_note_of_a_user_waits_once(desk: Flywheel) -> None:
    shown, other = desk.retrieve(QUERY, k=3), desk.retrieve("kittens", k=3)
    for _ in range(2):  # an application repeats a call whose answer was lost
        assert desk.missing(shown.id, "of the app", user_id="ann")
        assert desk.missing(shown.id, "of the app")
        assert desk.correct(shown.id, text="In the app.", user_id="ann")
    assert len(desk.review.items()) == 3
    desk.missing(shown.id, "of the site", user_id="ann")
    desk.missing(shown.id, "of the app", user_id="bob")
    desk.missing(other.id, "of the app", user_id="ann")
    desk.correct(shown.id, text="of the app", user_id="ann")
    assert len(desk.review.items()) == 7


def test_a_note_that_was_decided_may_be_sent_again(desk: Flywheel) -> None:
    shown = desk.retrieve(QUERY, k=3)
    desk.missing(shown.id, "of the app", user_id="ann")
    (item,) = desk.review.items()
    desk.review.reject(item.id)
    assert desk.review.items() == []
    desk.missing(shown.id, "of the app", user_id="ann")
    assert len(desk.review.items()) == 1
