"""The review queue: what gets into it, in which order, and what a decision does until it is undone."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes import Vectors, WordEncoder
from known import QUERY, TURNED, corrected, imported, known, said, table
from rag_flywheel import Flywheel, Passage
from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.records import ReviewItem


@pytest.fixture
def desk(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


def queue(fw: Flywheel) -> list[tuple[str, str, int, int]]:
    """(query, passage, helpful, harmful) of what waits."""
    return [(i.query, i.passage_id, i.helpful, i.harmful) for i in fw.review.items()]


def first(fw: Flywheel) -> ReviewItem:
    item = fw.review.next()
    assert item is not None
    assert item == fw.review.items()[0]
    return item


@pytest.mark.parametrize(
    ("helpful", "harmful", "waits"),
    [(1, 1, False), (2, 1, False), (1, 2, False), (2, 2, True), (5, 2, True), (0, 5, False)],
)
def test_two_users_on_either_side_disagree(
    desk: Flywheel, helpful: int, harmful: int, waits: bool
) -> None:
    said(desk, QUERY, "secret", "helpful", *(f"a{i}" for i in range(helpful)))
    said(desk, TURNED, "secret", "harmful", *(f"b{i}" for i in range(harmful)))
    said(desk, "kittens", "secret", "harmful", "c0", "c1")  # another question
    said(desk, QUERY, "secret", "harmful", None, None)  # who may be anybody
    assert queue(desk) == ([(QUERY, "secret", helpful, harmful)] if waits else [])
    if waits:
        text = "the account page changes the login secret"
        why = f"{helpful} users said helpful and {harmful} harmful"
        assert first(desk) == ReviewItem(
            first(desk).id, QUERY, "secret", text, helpful, harmful, why
        )


def test_corrections_that_contradict_one_another_wait_until_one_is_rejected(
    desk: Flywheel,
) -> None:
    corrected(desk, QUERY, "cats", "ann")
    assert queue(desk) == []
    corrected(desk, TURNED, "secret", "bob")
    assert queue(desk) == [(QUERY, "cats", 0, 0), (TURNED, "secret", 0, 0)]  # the older first
    assert first(desk).why == "users named different passages as the answer"
    assert known(desk) == {}
    desk.review.accept(first(desk).id)
    assert known(desk) == {QUERY: ({"cats": 1}, ("review",))}
    assert queue(desk) == [(TURNED, "secret", 0, 0)]
    desk.review.undo()
    desk.review.reject(first(desk).id)
    assert known(desk) == {TURNED: ({"secret": 1}, ("correction",))}
    assert queue(desk) == []


def test_known_answers_that_users_call_harmful_wait(desk: Flywheel, tmp_path: Path) -> None:
    imported(desk, tmp_path, table({(QUERY, "reset"): 2, ("money", "refund"): 1}))
    corrected(desk, "kittens", "cats")
    said(desk, TURNED, "reset", "harmful", "ann")
    said(desk, "kittens", "cats", "harmful", "ann", "ann")
    assert queue(desk) == []
    said(desk, TURNED, "reset", "harmful", "bob")
    said(desk, "kittens", "cats", "harmful", "bob", "cid")
    assert queue(desk) == [("kittens", "cats", 0, 3), (QUERY, "reset", 0, 2)]  # most votes first
    assert [i.why for i in desk.review.items()] == [
        "known as an answer (correction), but 3 users said harmful",
        "known as an answer (imported), but 2 users said harmful",
    ]
    assert known(desk)[QUERY] == ({"reset": 2}, ("imported",))  # until it is decided
    desk.review.reject(desk.review.items()[1].id)
    assert QUERY not in known(desk)
    imported(desk, tmp_path, table({(QUERY, "reset"): 3}))  # rejected is never known
    said(desk, QUERY, "reset", "helpful", "dan")
    assert QUERY not in known(desk)


def test_agreement_over_harm(desk: Flywheel) -> None:
    said(desk, QUERY, "secret", "helpful", *(f"a{i}" for i in range(9)))
    said(desk, QUERY, "secret", "harmful", "b0", "b1")
    assert known(desk) == {QUERY: ({"secret": 1}, ("agreement",))}
    assert queue(desk) == [(QUERY, "secret", 9, 2)]


def test_imported_as_no_answer_against_what_users_say(desk: Flywheel, tmp_path: Path) -> None:
    imported(desk, tmp_path, table({(QUERY, "secret"): 0}))
    said(desk, QUERY, "secret", "helpful", "ann", "bob")
    assert queue(desk) == []
    said(desk, QUERY, "secret", "helpful", "cid")
    assert first(desk).why == "imported as no answer, but users say that it is one"
    assert known(desk) == {}
    desk.review.accept(first(desk).id)
    assert known(desk) == {QUERY: ({"secret": 1}, ("agreement", "review"))}


@pytest.mark.parametrize(
    ("decide", "against", "agrees"),
    [("accept", "harmful", "helpful"), ("reject", "helpful", "harmful")],
)
def test_a_decision_stands_until_two_more_users_contradict_it(
    desk: Flywheel, decide: str, against: str, agrees: str
) -> None:
    said(desk, QUERY, "secret", "helpful", "ann", "bob")
    said(desk, QUERY, "secret", "harmful", "cid", "dan")
    item = first(desk)
    golden = {QUERY: ({"secret": 1}, ("review",))} if decide == "accept" else {}
    getattr(desk.review, decide)(item.id, user_id="rita")
    assert (queue(desk), known(desk)) == ([], golden)
    said(desk, QUERY, "secret", agrees, *(f"e{i}" for i in range(3)))
    said(desk, TURNED, "secret", against, "f0", "f0")
    assert queue(desk) == []
    said(desk, TURNED, "secret", against, "f1")
    again = first(desk)
    assert again.id == item.id
    assert again.why == f"{decide}ed in review, but 2 users said otherwise since"
    assert list(known(desk)) == list(golden)  # what was decided holds meanwhile
    getattr(desk.review, decide)(item.id)
    assert queue(desk) == []
    assert desk.review.undo() == item.id  # the second time
    assert first(desk).why == again.why
    assert desk.review.undo(item.id) == item.id
    assert "users said helpful and" in first(desk).why


def test_a_rejected_passage_that_users_go_on_naming_comes_back(desk: Flywheel) -> None:
    corrected(desk, QUERY, "cats", "ann")
    corrected(desk, QUERY, "secret", "bob")
    rejected = first(desk).id
    desk.review.reject(rejected)
    corrected(desk, QUERY, "cats", "cid")
    corrected(desk, QUERY, "cats", None)
    assert queue(desk) == []
    corrected(desk, QUERY, "cats", "dan")
    assert first(desk).id == rejected


def test_undo_takes_back_the_last_decision_or_that_on_an_item(desk: Flywheel) -> None:
    for query, passage in ((QUERY, "secret"), ("kittens", "cats")):
        said(desk, query, passage, "helpful", "ann", "bob")
        said(desk, query, passage, "harmful", "cid", "dan")
    one, two = desk.review.items()
    desk.review.accept(one.id)
    desk.review.accept(two.id)
    desk.review.reject(one.id)  # another mind: allowed while it is decided
    assert {q: a for q, (a, _) in known(desk).items()} == {"kittens": {"cats": 1}}
    assert desk.review.undo(two.id) == two.id
    assert known(desk) == {}
    assert desk.review.next() == two
    assert desk.review.undo() == one.id  # the rejection: it is accepted again
    assert {q: a for q, (a, _) in known(desk).items()} == {QUERY: {"secret": 1}}
    assert desk.review.undo() == one.id
    assert desk.review.items() == [one, two]
    with pytest.raises(UnknownIdError, match="no decision is left; expected one"):
        desk.review.undo()
    with pytest.raises(UnknownIdError, match=f"no decision on '{one.id}' stands"):
        desk.review.undo(one.id)


def test_ids_stay_while_more_is_said_and_texts_are_touched_up(desk: Flywheel) -> None:
    long = " ".join(f"word{i}" for i in range(40))
    desk.add([Passage("long", long)])
    said(desk, QUERY, "long", "helpful", "ann", "bob")
    said(desk, QUERY, "long", "harmful", "cid", "dan")
    before = first(desk)
    assert len(before.id) == 10
    said(desk, TURNED, "long", "helpful", "eve")
    desk.add([Passage("long", f"{long} more")])
    after = first(desk)
    assert (after.id, after.query, after.helpful) == (before.id, QUERY, 3)
    assert after.text.endswith("more")
    desk.review.accept(after.id)
    assert known(desk)[QUERY] == ({"long": 1}, ("review",))
    desk.remove(["long"])
    assert queue(desk) == []
    assert known(desk) == {}
    with pytest.raises(UnknownIdError):
        desk.review.reject(after.id)


def users_of(fw: Flywheel) -> list[str | None]:
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        return [user for (user,) in conn.execute("SELECT user_id FROM reviews ORDER BY seq")]


def test_a_reviewer_who_opted_out_is_not_stored(desk: Flywheel) -> None:
    said(desk, QUERY, "secret", "helpful", "ann", "bob")
    said(desk, QUERY, "secret", "harmful", "cid", "dan")
    item = first(desk)
    desk.review.accept(item.id, user_id="rita")
    desk.opt_out("rita")
    desk.review.reject(item.id, user_id="rita")
    assert known(desk) == {}  # what was decided counts
    desk.review.undo(user_id="rita")
    assert list(known(desk)) == [QUERY]
    desk.review.reject(item.id, user_id="sue")
    named, *others, sue = users_of(desk)
    assert (others, None in (named, sue), named == sue) == ([None, None], False, False)


class Interrupted(WordEncoder):
    """Between reading what was said and the decision on it, something else happens once."""

    meanwhile: Callable[[], object] | None = None

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        if (then := self.meanwhile) is not None:
            self.meanwhile = None
            then()
        return super().encode_queries(texts)


def test_a_question_that_was_deleted_meanwhile_is_not_decided(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    root, encoder = tmp_path / "kb", Interrupted()
    with Flywheel.open(root, encoder=WordEncoder()) as other:
        other.add(help_desk)
        asked = other.retrieve(QUERY, k=4, user_id="ann")
        for user, verdict in zip("abcd", ["helpful"] * 2 + ["harmful"] * 2, strict=True):
            other.feedback(asked.id, "secret", verdict, user_id=user)  # type: ignore[arg-type]
        with Flywheel.open(root, encoder=encoder) as fw:
            item = first(fw)
            imported(fw, tmp_path, table({("never asked", "cats"): 0}))  # to be embedded first
            encoder.meanwhile = lambda: other.forget("ann")
            with pytest.raises(UnknownIdError, match=f"question of item '{item.id}' was deleted"):
                fw.review.accept(item.id, user_id="rita")
            assert encoder.meanwhile is None
            assert (users_of(fw), queue(fw)) == ([], [])
            assert QUERY not in known(fw)


def test_an_empty_index_has_nothing_to_review(fw: Flywheel) -> None:
    assert fw.review.next() is None
    assert fw.review.items() == []


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "unknown": (lambda r: r.accept("0123456789"), UnknownIdError, "no item '0123456789' is in the"),
    "none": (lambda r: r.reject(None), InputError, "id is None; expected a string"),
    "undo 3": (lambda r: r.undo(3), InputError, "id is 3; expected a string or None"),
    "undo x": (lambda r: r.undo("x"), UnknownIdError, "no decision on 'x' stands"),
    "half": (lambda r: r.accept("\ud83d"), InputError, "half a surrogate pair"),
    "user": (lambda r: r.accept("x", user_id=3), InputError, "user_id is 3; expected a string"),
    "undo user": (lambda r: r.undo(user_id=[]), InputError, "user_id is"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_decision_says_what_is_wrong(desk: Flywheel, name: str) -> None:
    call, error, words = BAD[name]
    said(desk, QUERY, "secret", "helpful", "ann", "bob", "cid")  # known, and not in the queue
    with pytest.raises(error, match=words):
        call(desk.review)
    assert list(known(desk)) == [QUERY]


def written(fw: Flywheel, text: str) -> ReviewItem:
    """A text that a user wrote, as it waits."""
    fw.correct(fw.retrieve("when do cats sleep", user_id="ann").id, text=text, user_id="ann")
    return next(item for item in fw.review.items() if item.text == text)


def test_a_written_text_is_edited_accepted_and_undone(desk: Flywheel) -> None:
    item = written(desk, "Cats sleep all dya.")
    made = desk.review.accept(item.id, text="Cats sleep all day.")
    assert made is not None
    assert desk.passage(made).text == "Cats sleep all day."
    assert desk.review.accept(item.id, text="Cats sleep all day.") == made
    assert desk.review.undo() == item.id
    assert made not in {p.id for p in desk.passages()}
    assert [waits.text for waits in desk.review.items()] == ["Cats sleep all dya."]
    desk.review.accept(item.id)
    assert desk.passage(made).text == "Cats sleep all dya."


def test_an_edited_text_that_changed_since_is_not_removed_by_undo(desk: Flywheel) -> None:
    made = desk.review.accept(written(desk, "Cats sleep.").id, text="Cats sleep all day.")
    assert made is not None
    kept = desk.passage(made)
    desk.add([Passage(made, "Cats sleep at night too.", kept.title, kept.metadata)])
    with pytest.raises(InputError, match="was edited since"):
        desk.review.undo()
    assert desk.passage(made).text == "Cats sleep at night too."


def test_only_a_written_text_can_be_edited(desk: Flywheel) -> None:
    said(desk, QUERY, "secret", "helpful", "a0", "a1")
    said(desk, QUERY, "secret", "harmful", "b0", "b1")
    with pytest.raises(InputError, match="which is a passage of the index"):
        desk.review.accept(first(desk).id, text="other words")
    desk.missing(desk.retrieve("when do cats eat", user_id="ann").id, "no word", user_id="ann")
    note = next(item for item in desk.review.items() if item.text == "no word")
    with pytest.raises(InputError, match="a note that an answer is missing"):
        desk.review.accept(note.id, text="other words")
    item = written(desk, "Cats sleep.")
    with pytest.raises(InputError, match="blank"):
        desk.review.accept(item.id, text=" ")
    assert item in desk.review.items()
