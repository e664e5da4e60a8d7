"""Votes on whole answers, from the call to the ranking, in every process and until they are taken back."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import WordEncoder
from known import known
from rag_flywheel import Flywheel, Hit, Passage, Retrieval
from rag_flywheel.records import Verdict

QUERY = "how do I change my password"
DESK = [
    Passage("reset", "open settings and press reset to change the password"),
    Passage("secret", "the account page changes the login secret of my account"),
    Passage("refund", "how refunds are paid within thirty days"),
    Passage("cats", "kittens sleep most of my day"),
]


@pytest.fixture
def desk(fw: Flywheel) -> Flywheel:
    fw.add(DESK)
    return fw


def credits(fw: Flywheel) -> dict[str, float]:
    """{passage id: its part in the newest vote on an answer}."""
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        rows = conn.execute(
            "SELECT p.id, c.credit FROM credits c JOIN passages p ON p.pid = c.pid "
            "WHERE c.seq = (SELECT max(seq) FROM answer_votes)"
        )
        return dict(rows.fetchall())


def scores(fw: Flywheel, query: str = QUERY) -> dict[str, float]:
    return {h.passage_id: h.score for h in fw.retrieve(query, record=False).hits}


def asked(fw: Flywheel) -> Retrieval:
    return fw.retrieve(QUERY, user_id="ann")


def hit(fw: Flywheel, passage: str) -> Hit:
    found = fw.retrieve(QUERY, record=False)
    return next(h for h in found.hits if h.passage_id == passage)


def test_without_text_the_blame_goes_by_the_chance_of_each_hit(desk: Flywheel) -> None:
    shown = asked(desk)
    desk.answer_feedback(shown.id, "harmful", user_id="ann")
    chances = {h.passage_id: math.exp(h.score) for h in shown.hits}
    expected = {id_: chance if chance >= 0.01 else 0.0 for id_, chance in chances.items()}
    assert credits(desk) == pytest.approx(expected, abs=1e-9)
    assert len({round(c, 3) for c in credits(desk).values()}) > 1  # not by exposure


def test_a_cited_passage_has_it_all_and_several_share_it(desk: Flywheel) -> None:
    shown = asked(desk)
    desk.answer_feedback(shown.id, "helpful", cited=["secret"])
    assert credits(desk) == {"reset": 0.0, "secret": 1.0, "refund": 0.0, "cats": 0.0}
    desk.answer_feedback(shown.id, "helpful", cited=["secret", "cats", "secret"])
    assert credits(desk) == {"reset": 0.0, "secret": 0.5, "refund": 0.0, "cats": 0.5}
    text = "The account page changes the login secret."
    desk.answer_feedback(shown.id, "helpful", answer=text, cited=["secret", "cats"])
    found = credits(desk)
    assert found["secret"] > 0.9
    assert sum(found.values()) == pytest.approx(1.0, abs=0.02)


def test_the_text_of_the_answer_tells_whose_it_was(desk: Flywheel) -> None:
    shown = asked(desk)
    text = "The account page changes the login secret of my account."
    desk.answer_feedback(shown.id, "helpful", answer=text)
    found = credits(desk)
    assert found["secret"] > 0.8
    assert sum(found.values()) <= 1.0 + 1e-9
    desk.answer(
        str(shown.id), "Kittens sleep most of my day."
    )  # the stored one, when none is given
    desk.answer_feedback(shown.id, "helpful")
    assert max(credits(desk).items(), key=lambda c: c[1])[0] == "cats"


def test_a_thumbs_down_moves_the_passage_behind_it_in_every_process_and_a_retraction_undoes_it(
    desk: Flywheel,
) -> None:
    desk.refresh()
    before = scores(desk)
    with Flywheel.open(desk.status().path, encoder=WordEncoder()) as other:
        assert scores(other) == pytest.approx(before)
        shown = asked(desk)
        desk.answer_feedback(shown.id, "harmful", cited=["reset"], user_id="ann")
        after = scores(other)
        assert after["reset"] < before["reset"]
        assert after["secret"] > before["secret"]
        assert scores(desk) == pytest.approx(after, abs=1e-6)
        other.answer_feedback(shown.id, "retract", user_id="ann")
        assert scores(desk) == pytest.approx(before, abs=1e-6)
    desk.refresh()
    assert scores(desk) == pytest.approx(before, abs=1e-6)


def test_a_vote_on_the_passage_outranks_the_one_on_the_answer(desk: Flywheel) -> None:
    shown = asked(desk)
    desk.feedback(shown.id, "reset", "harmful", user_id="ann")
    alone = scores(desk)
    desk.answer_feedback(shown.id, "helpful", cited=["reset"], user_id="ann")
    assert scores(desk) == pytest.approx(alone, abs=1e-9)
    desk.feedback(shown.id, "reset", "retract", user_id="ann")
    assert scores(desk)["reset"] > alone["reset"]


def test_votes_on_answers_are_counted_explained_and_never_make_an_answer_known(
    desk: Flywheel,
) -> None:
    shown = asked(desk)
    for user in ("ann", "bob", "cid", "dan"):
        desk.answer_feedback(shown.id, "helpful", cited=["reset", "secret"], user_id=user)
    desk.feedback(shown.id, "cats", "harmful", user_id="ann")
    assert (desk.status().n_votes, desk.status().votes_since_refresh) == (5, 5)
    assert desk.golden.items() == []
    assert desk.review.items() == []
    behind = {v.passage_id: v for v in desk.votes_behind(hit(desk, "reset"))}
    assert {id_: (v.helpful, v.harmful, v.shared) for id_, v in behind.items()} == {
        "reset": (0, 0, 2.0),
        "secret": (0, 0, 2.0),
        "cats": (0, 1, 0.0),
    }
    assert len(hit(desk, "reset").explanation.votes) == 5  # each event once
    assert desk.refresh().outcome == "promoted"
    assert known(desk) == {}
    assert desk.status().votes_since_refresh == 0
    assert desk.verify() == []


def test_a_whole_vote_makes_a_grade_and_a_small_part_of_one_does_not(
    desk: Flywheel, tmp_path: Path
) -> None:
    shown = asked(desk)
    desk.answer_feedback(shown.id, "helpful", cited=["reset"], user_id="ann")
    three = desk.retrieve("refunds and kittens", user_id="bob")
    desk.answer_feedback(three.id, "helpful", cited=["refund", "cats", "reset"])
    report = desk.export.beir(tmp_path / "out")
    assert (report.written["questions"], report.written["judgments"]) == (1, 1)
    assert report.left_out == {"questions without a helpful passage": 1}


def test_a_rollback_holds_votes_on_answers_back_until_release(desk: Flywheel) -> None:
    desk.refresh()
    desk.add([Passage("more", "another text")])
    desk.refresh()
    desk.rollback()
    before = scores(desk)
    desk.answer_feedback(asked(desk).id, "harmful", cited=["reset"])
    assert scores(desk) == pytest.approx(before, abs=1e-6)
    desk.release()
    assert scores(desk)["reset"] < before["reset"]


def test_nothing_is_kept_of_a_user_who_opted_out(desk: Flywheel) -> None:
    shown = asked(desk)
    desk.opt_out("bob")
    desk.answer_feedback(shown.id, "helpful", user_id="bob")
    assert desk.status().n_votes == 0


def test_the_answer_is_not_kept(desk: Flywheel) -> None:
    shown = asked(desk)
    desk.answer_feedback(shown.id, "helpful", answer="a very particular answer of my account")
    root = Path(desk.status().path)
    assert not any(b"very particular" in p.read_bytes() for p in root.rglob("*") if p.is_file())


def test_candidates_of_an_application_share_votes_too(desk: Flywheel) -> None:
    from rag_flywheel import Candidate

    own = [Candidate("x", "buy a ticket at the gate", 0.9), Candidate("y", "take the bus", 0.8)]
    shown = desk.rerank("how to travel", own)
    desk.answer_feedback(shown.id, "harmful", answer="Buy a ticket at the gate.")
    assert credits(desk)["x"] > 0.8 > 0.2 > credits(desk)["y"]
    again = desk.rerank("how to travel", own)
    before, after = ({h.passage_id: h.score for h in r.hits} for r in (shown, again))
    assert after["x"] - after["y"] < before["x"] - before["y"]


orders = st.permutations([("ann", "helpful"), ("bob", "harmful"), ("cid", "helpful")])


@settings(max_examples=6, deadline=None)
@given(orders)
def test_the_order_of_users_and_processes_changes_nothing(order: list[tuple[str, str]]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        root = Path(folder) / "kb"
        with Flywheel.open(root, encoder=WordEncoder()) as one:
            one.add(DESK)
            shown = asked(one)
            with Flywheel.open(root, encoder=WordEncoder()) as two:
                for n, (user, verdict) in enumerate(order):
                    fw = (one, two)[n % 2]
                    fw.answer_feedback(shown.id, verdict, cited=["secret"], user_id=user)  # type: ignore[arg-type]
                found = scores(one)
                assert scores(two) == pytest.approx(found, abs=1e-9)
        with Flywheel.open(root, encoder=WordEncoder()) as again:
            assert scores(again) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize("answer", [None, "Open the settings and choose reset."])
@pytest.mark.parametrize("verdict", ["helpful", "harmful"])
def test_an_answer_that_cites_nothing_moves_no_passage(
    desk: Flywheel, verdict: Verdict, answer: str | None
) -> None:
    before = {h.passage_id: h.score for h in desk.retrieve(QUERY, record=False).hits}
    shown = asked(desk)
    desk.answer_feedback(shown.id, verdict, cited=[], answer=answer, user_id="ann")
    assert {h.passage_id: h.score for h in desk.retrieve(QUERY, record=False).hits} == before
    desk.answer_feedback(shown.id, verdict, answer=answer, user_id="ann")  # not told: shared
    moved = {h.passage_id: h.score for h in desk.retrieve(QUERY, record=False).hits}
    assert moved != before
    desk.answer_feedback(shown.id, verdict, cited=[], answer=answer, user_id="ann")  # the last word
    assert {h.passage_id: h.score for h in desk.retrieve(QUERY, record=False).hits} == before
    assert desk.refresh().outcome == "promoted" and desk.verify() == []


def test_a_hit_that_hardly_can_be_it_has_no_part(desk: Flywheel) -> None:
    for user in ("bob", "cyd", "dan", "eve"):
        desk.feedback(asked(desk).id, "cats", "harmful", user_id=user)
    shown = asked(desk)
    chances = {h.passage_id: math.exp(h.score) for h in shown.hits}
    assert 0.0 < chances["cats"] < 0.01
    desk.answer_feedback(shown.id, "harmful", user_id="ann")
    assert credits(desk)["cats"] == 0.0
    others = {id_: chance for id_, chance in chances.items() if chance >= 0.01}
    assert {id_: c for id_, c in credits(desk).items() if c} == pytest.approx(others, abs=1e-9)
