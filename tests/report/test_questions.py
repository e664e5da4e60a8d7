"""What users ask, as an operator reads it: askings, people, votes, and the order."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, InputError, Passage


@pytest.fixture
def fw(tmp_path: Path) -> Iterator[Flywheel]:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as opened:
        opened.add(
            [
                Passage("pay", "invoices are paid by card"),
                Passage("send", "parcels are sent on Monday"),
                Passage("back", "parcels come back in thirty days"),
            ]
        )
        yield opened


def ask(fw: Flywheel, query: str, user: str | None = None) -> str:
    found = fw.retrieve(query, user_id=user)
    assert found.id is not None
    return found.id


def test_a_question_is_counted_by_askings_people_and_standing_votes(fw: Flywheel) -> None:
    for user in ("ann", "ann", "bob", None):
        last = ask(fw, "when are parcels sent", user)
    ask(fw, "paying by card", "cid")
    for user, verdict in (("ann", "harmful"), ("ann", "helpful"), ("bob", "harmful")):
        fw.feedback(last, "send", verdict, user_id=user)  # type: ignore[arg-type]
    fw.feedback(last, "back", "harmful", user_id="bob")
    first, second = fw.questions()
    assert (first.query, first.n, first.n_people) == ("when are parcels sent", 4, 2)
    assert (first.helpful, first.harmful, first.disputed) == (1.0, 2.0, 1.0)
    assert first.answerable == pytest.approx(fw.retrieval(last).answerable)
    assert first.first <= first.last
    assert (second.query, second.n, second.helpful) == ("paying by card", 1, 0.0)
    assert [q.query for q in fw.questions(1)] == ["when are parcels sent"]


def test_the_worst_served_are_those_with_most_askings_in_vain(fw: Flywheel) -> None:
    for _ in range(3):
        ask(fw, "parcels are sent on Monday")
    for _ in range(2):
        ask(fw, "zebra quantum violin")
    ask(fw, "another zebra")
    by_hand = sorted(
        fw.questions(), key=lambda q: -q.n * (1 - (1 if q.answerable is None else q.answerable))
    )
    assert [q.query for q in fw.questions(order="worst")] == [q.query for q in by_hand]
    assert by_hand[0].query == "zebra quantum violin"
    assert fw.questions(order="disputed") == []


def test_a_muted_voter_does_not_dispute(fw: Flywheel) -> None:
    for user, verdict in (("ann", "helpful"), ("bob", "harmful")):
        fw.feedback(ask(fw, "paying by card"), "pay", verdict, user_id=user)  # type: ignore[arg-type]
    assert [q.disputed for q in fw.questions(order="disputed")] == [1.0]
    fw.mute("bob")
    assert fw.questions(order="disputed") == []


def test_the_words_of_a_question_may_not_be_stored(tmp_path: Path) -> None:
    config = Config(encoder="", store_queries="hash")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage("pay", "invoices are paid by card")])
        fw.retrieve("paying by card")
        (found,) = fw.questions()
        assert (found.query, found.n) == ("", 1)


def test_activity_counts_each_day(fw: Flywheel) -> None:
    one = ask(fw, "paying by card", "ann")
    ask(fw, "when are parcels sent", "ann")
    fw.feedback(one, "pay", "helpful", user_id="ann")
    fw.answer_feedback(one, "harmful", user_id="bob")
    fw.signal(one, "copied", user_id="cid")  # no vote
    fw.feedback(one, "pay", "retract", user_id="ann")
    (today,) = fw.activity()
    assert (today.retrievals, today.helpful, today.harmful) == (2, 1, 1)
    assert today.day == fw.retrieval(one).at[:10]
    assert fw.activity(1e-9) == []
    with pytest.raises(InputError, match="days is 0"):
        fw.activity(0)


def test_what_is_no_order_or_number(fw: Flywheel) -> None:
    with pytest.raises(InputError, match="order"):
        fw.questions(order="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="n is 0"):
        fw.questions(0)
    with pytest.raises(InputError, match="n is 0"):
        fw.refreshes(0)


def test_each_tenant_has_its_own_questions_and_activity(tmp_path: Path) -> None:
    config = Config(encoder="", tenant_key="team")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage(t, f"parcels of {t}", "", {"team": t}) for t in ("one", "two")])
        for team, n in (("one", 1), ("two", 3)):
            for user in range(n):
                shown = fw.retrieve("which parcels", user_id=f"user{user}", tenant=team)
                fw.feedback(shown.id, team, "helpful", user_id=f"user{user}", tenant=team)
        for team, n in (("one", 1), ("two", 3)):
            (question,) = fw.questions(tenant=team)
            assert (question.n, question.n_people, question.helpful) == (n, n, n)
            assert question.tenant == f'"{team}"'
            (day,) = fw.activity(tenant=team)
            assert (day.retrievals, day.helpful) == (n, n)
        assert [q.n for q in fw.questions(all_tenants=True)] == [3, 1]
        assert [d.retrievals for d in fw.activity(all_tenants=True)] == [4]
