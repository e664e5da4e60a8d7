"""Recorded retrievals, votes and judgments, as an application reads them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Flywheel, InputError, Passage, UnknownIdError


@pytest.fixture
def fw(tmp_path: Path) -> Iterator[Flywheel]:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as opened:
        opened.add(
            [
                Passage("pay", "invoices are paid by card", metadata={"lang": "en"}),
                Passage("send", "parcels are sent on Monday", metadata={"lang": "en"}),
            ]
        )
        yield opened


def ask(fw: Flywheel, query: str, **named: object) -> str:
    found = fw.retrieve(query, **named)  # type: ignore[arg-type]
    assert found.id is not None
    return found.id


def test_a_retrieval_is_read_back_as_it_was_shown(fw: Flywheel) -> None:
    shown = fw.retrieve("when are parcels sent", 2, where={"lang": "en"}, user_id="ann")
    assert shown.id is not None
    fw.answer(shown.id, "On Monday.")
    read = fw.retrieval(shown.id)
    assert (read.id, read.kind, read.query, read.k) == (shown.id, "retrieve", shown.query, 2)
    assert read.where == {"lang": "en"}
    assert [(h.passage_id, h.rank) for h in read.hits] == [
        (h.passage_id, h.rank) for h in shown.hits
    ]
    for recorded, hit in zip(read.hits, shown.hits, strict=True):
        assert recorded.score == pytest.approx(hit.score)
        assert recorded.relevance == pytest.approx(hit.relevance, abs=1e-6)
    assert read.answerable == pytest.approx(shown.answerable)
    assert read.answer == "On Monday."
    assert read.user is not None
    assert "ann" not in read.user
    assert read.at.endswith("Z")


def test_the_log_is_paged_from_the_newest_on_without_gaps(fw: Flywheel) -> None:
    ids = [ask(fw, f"parcels number {n}") for n in range(7)]
    paged: list[str] = []
    before = None
    while page := fw.retrievals(3, before=before):
        paged += [each.id for each in page]
        before = page[-1].id
    assert paged == ids[::-1]


def test_votes_of_every_kind_are_listed_in_one_order(fw: Flywheel) -> None:
    one, two = ask(fw, "paying by card"), ask(fw, "sending a parcel")
    fw.feedback(one, "pay", "helpful", user_id="ann", reason="short")
    fw.answer_feedback(two, "harmful", user_id="bob")
    fw.signal(one, "copied", passage_id="pay", user_id="cid")
    fw.correct(two, "send", user_id="bob")
    fw.feedback(one, "pay", "retract", user_id="ann")
    listed = fw.votes()
    assert [(v.kind, v.verdict, v.passage_id) for v in listed[::-1]] == [
        ("vote", "helpful", "pay"),
        ("answer", "harmful", None),
        ("copied", "helpful", "pay"),
        ("correction", "helpful", "send"),
        ("vote", "retract", "pay"),
    ]
    assert [v.number for v in listed] == sorted((v.number for v in listed), reverse=True)
    assert listed[-1].reason == "short"
    assert listed[-1].user == listed[0].user != listed[1].user
    paged = [
        v
        for before in (None, listed[1].number, listed[3].number)
        for v in fw.votes(2, before=before)
    ]
    assert paged == listed


def test_judgments_count_the_last_verdict_of_a_user(fw: Flywheel) -> None:
    for user, verdicts in {
        "ann": ("harmful", "helpful"),
        "bob": ("helpful",),
        "cid": ("harmful",),
    }.items():
        for verdict in verdicts:
            fw.feedback(ask(fw, "paying by card"), "pay", verdict, user_id=user)  # type: ignore[arg-type]
    (judgment,) = fw.judgments()
    assert (judgment.query, judgment.passage_id) == ("paying by card", "pay")
    assert (judgment.helpful, judgment.harmful, len(judgment.votes)) == (2.0, 1.0, 3)


def test_a_judgment_follows_its_text_to_another_id_and_leaves_with_it(fw: Flywheel) -> None:
    fw.feedback(ask(fw, "paying by card"), "pay", "helpful", user_id="ann")
    fw.add([Passage("bills", "invoices are paid by card")], remove=["pay"])
    assert [j.passage_id for j in fw.judgments()] == ["bills"]
    fw.remove(["bills"])
    assert fw.judgments() == []


def test_a_forgotten_user_is_in_no_list(fw: Flywheel) -> None:
    kept = ask(fw, "sending a parcel", user_id="bob")
    fw.feedback(ask(fw, "paying by card", user_id="ann"), "pay", "helpful", user_id="ann")
    fw.forget("ann")
    assert [each.id for each in fw.retrievals()] == [kept]
    assert fw.votes() == []
    assert fw.judgments() == []


def test_what_is_not_there_is_named(fw: Flywheel) -> None:
    with pytest.raises(UnknownIdError, match="'nowhere'"):
        fw.retrieval("nowhere")
    with pytest.raises(UnknownIdError, match="'nowhere'"):
        fw.retrievals(before="nowhere")
    with pytest.raises(InputError, match="n is 0"):
        fw.votes(0)
    with pytest.raises(InputError, match="before is"):
        fw.votes(before=1.5)  # type: ignore[arg-type]


def test_a_user_may_be_given_as_the_hash_they_are_stored_under(fw: Flywheel) -> None:
    ann = fw.hashed_user("ann")
    shown = ask(fw, "when are parcels sent", user_id="ann")
    assert fw.retrieval(shown).user == ann == fw.hashed_user(ann)
    fw.feedback(shown, "send", "helpful", user_id="ann")
    fw.feedback(shown, "send", "harmful", user_id=ann)
    fw.answer_feedback(shown, "harmful", user_id=ann)
    fw.signal(shown, "copied", user_id=ann)
    fw.correct(shown, "pay", user_id=ann)
    fw.missing(shown, "late ones", user_id=ann)
    again = ask(fw, "when are parcels sent", user_id=ann)
    assert {each.user for each in fw.votes()} == {fw.retrieval(again).user} == {str(ann)}
    judged = {each.passage_id: each for each in fw.judgments()}
    assert judged["send"].helpful < judged["send"].harmful
    plain = fw.retrieval(shown).user
    assert plain is not None
    fw.feedback(shown, "send", "helpful", user_id=plain)  # a text is an id, whatever it looks like
    assert fw.votes(1)[0].user not in (None, ann)
    fw.opt_out(ann)
    assert not fw.feedback(shown, "send", "helpful", user_id="ann")
    fw.opt_out("ann", out=False)
    fw.forget(ann)
    assert {each.user for each in fw.votes()}.isdisjoint({ann})


@pytest.mark.parametrize("blank", ["", "  "])
def test_the_hash_of_a_blank_user_is_refused(fw: Flywheel, blank: str) -> None:
    with pytest.raises(InputError, match="user_id"):
        fw.hashed_user(blank)
