"""What callers can get wrong when they say what users thought: a named error, and nothing changes."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.errors import InputError, UnknownIdError

HALF = "\ud83d"  # half of an emoji, as json.loads gives it from broken input
Call = Callable[[Any, str], object]

# what is wrong: the call, given an index and the id of a retrieval; its error; words it must say
ANSWERS: dict[str, tuple[Call, type[Exception], str]] = {
    "retrieval": (
        lambda fw, r: fw.answer_feedback("x", "helpful"),
        UnknownIdError,
        "no retrieval 'x'",
    ),
    "not recorded": (
        lambda fw, r: fw.answer_feedback(None, "helpful"),
        InputError,
        "record=False",
    ),
    "verdict": (lambda fw, r: fw.answer_feedback(r, "good"), InputError, "'good'; expected"),
    "blank answer": (
        lambda fw, r: fw.answer_feedback(r, "helpful", answer=" \n"),
        InputError,
        "answer is blank",
    ),
    "answer bytes": (
        lambda fw, r: fw.answer_feedback(r, "helpful", answer=b"x"),
        InputError,
        "answer is b'x'; expected a string",
    ),
    "half answer": (
        lambda fw, r: fw.answer_feedback(r, "helpful", answer=HALF),
        InputError,
        "answer has",
    ),
    "cited string": (
        lambda fw, r: fw.answer_feedback(r, "helpful", cited="a"),
        InputError,
        "cited is the string 'a'; expected a list of strings",
    ),
    "cited number": (
        lambda fw, r: fw.answer_feedback(r, "helpful", cited=[3]),
        InputError,
        "cited: item 1, found int",
    ),
    "cited not shown": (
        lambda fw, r: fw.answer_feedback(r, "helpful", cited=["a", "b"]),
        InputError,
        "did not show the passage 'b'; it showed 'a'",
    ),
    "retraction with text": (
        lambda fw, r: fw.answer_feedback(r, "retract", answer="so it is"),
        InputError,
        "leave out answer and cited",
    ),
    "user": (
        lambda fw, r: fw.answer_feedback(r, "helpful", user_id=3),
        InputError,
        "user_id is 3",
    ),
}
CORRECTIONS: dict[str, tuple[Call, type[Exception], str]] = {
    "neither": (lambda fw, r: fw.correct(r), InputError, "passage_id is None; expected"),
    "both": (lambda fw, r: fw.correct(r, "a", "text"), InputError, "expected one of them"),
    "passage": (lambda fw, r: fw.correct(r, "zebra"), UnknownIdError, "no passage 'zebra'"),
    "blank text": (lambda fw, r: fw.correct(r, text=" "), InputError, "text is blank"),
    "text bytes": (lambda fw, r: fw.correct(r, text=b"x"), InputError, "text is b'x'; expected"),
    "half text": (lambda fw, r: fw.correct(r, text=HALF), InputError, "text has"),
    "long text": (lambda fw, r: fw.correct(r, text="x" * 20_001), InputError, "at most 20000"),
    "text: retrieval": (
        lambda fw, r: fw.correct("x", text="so"),
        UnknownIdError,
        "no retrieval 'x'",
    ),
    "missing: retrieval": (lambda fw, r: fw.missing("x"), UnknownIdError, "no retrieval 'x'"),
    "missing: not recorded": (lambda fw, r: fw.missing(None), InputError, "record=False"),
    "missing: note": (lambda fw, r: fw.missing(r, 3), InputError, "note is 3; expected a string"),
    "missing: user": (lambda fw, r: fw.missing(r, user_id=3), InputError, "user_id is 3"),
    "gaps: 0": (lambda fw, r: fw.gaps(0), InputError, "days is 0; expected a number above 0"),
    "gaps: text": (lambda fw, r: fw.gaps("30"), InputError, "days is '30'"),
    "gaps: nan": (lambda fw, r: fw.gaps(float("nan")), InputError, "days is nan"),
}
SIGNALS: dict[str, tuple[Call, type[Exception], str]] = {
    "kind": (lambda fw, r: fw.signal(r, "loved"), InputError, "'loved'; expected one of copied"),
    "signal: retrieval": (lambda fw, r: fw.signal("x", "copied"), UnknownIdError, "no retrieval"),
    "signal: not recorded": (lambda fw, r: fw.signal(None, "copied"), InputError, "record=False"),
    "signal: not shown": (
        lambda fw, r: fw.signal(r, "copied", passage_id="b"),
        InputError,
        "did not show the passage 'b'",
    ),
    "signal: value": (lambda fw, r: fw.signal(r, "copied", 1), InputError, "value 1; expected non"),
    "signal: user": (lambda fw, r: fw.signal(r, "copied", user_id=3), InputError, "user_id is 3"),
    "no rating": (lambda fw, r: fw.signal(r, "rating"), InputError, "rating is None; expected 1"),
    "rating True": (lambda fw, r: fw.signal(r, "rating", True), InputError, "rating is True"),
    "rating 0": (lambda fw, r: fw.signal(r, "rating", 0), InputError, "rating is 0; expected 1"),
    "rating 6": (lambda fw, r: fw.signal(r, "rating", 6), InputError, "rating is 6"),
    "rating 5.5": (lambda fw, r: fw.signal(r, "rating", 5.5), InputError, "rating is 5.5"),
    "rating -0.5": (lambda fw, r: fw.signal(r, "rating", -0.5), InputError, "rating is -0.5"),
    "rating nan": (lambda fw, r: fw.signal(r, "rating", float("nan")), InputError, "is nan"),
    "rating text": (lambda fw, r: fw.signal(r, "rating", "5"), InputError, "rating is '5'"),
    "edited nothing": (lambda fw, r: fw.signal(r, "edited"), InputError, "value of edited is None"),
    "edited without an answer": (
        lambda fw, r: fw.signal(r, "edited", "so"),
        InputError,
        "no answer is stored with this retrieval",
    ),
    "task": (lambda fw, r: fw.signal(r, "task_done", "yes"), InputError, "value 'yes'"),
}
MORE: dict[str, tuple[Call, type[Exception], str]] = {
    "used": (lambda fw, r: fw.adopted(r, used="yes"), InputError, "used is 'yes'; expected True"),
    "used 1": (
        lambda fw, r: fw.adopted(r, used=1),
        InputError,
        "used is 1; expected True or False",
    ),
    "why": (
        lambda fw, r: fw.adopted(r, used=True, why=3),
        InputError,
        "why is 3; expected a string",
    ),
    "long why": (
        lambda fw, r: fw.adopted(r, used=True, why="x" * 20_001),
        InputError,
        "at most 20000",
    ),
    "adopted: cited": (
        lambda fw, r: fw.adopted(r, used=True, cited=["b"]),
        InputError,
        "did not show the passage 'b'",
    ),
    "adopted: one cited": (
        lambda fw, r: fw.adopted(r, used=True, cited="a"),
        InputError,
        "cited is the string 'a'; expected a list",
    ),
    "adopted: retrieval": (
        lambda fw, r: fw.adopted("x", used=True),
        UnknownIdError,
        "no retrieval",
    ),
    "relevance list": (lambda fw, r: fw.relevance(r, ["a"]), InputError, "relevance is list"),
    "relevance 1": (lambda fw, r: fw.relevance(r, {"a": 1}), InputError, "of 'a' is 1; expected"),
    "one not shown": (
        lambda fw, r: fw.relevance(r, {"a": True, "b": False}),
        InputError,
        "did not show passage 'b'",
    ),
    "relevance: retrieval": (
        lambda fw, r: fw.relevance("x", {"a": True}),
        UnknownIdError,
        "no retrieval",
    ),
    "adopted as signal": (lambda fw, r: fw.signal(r, "adopted"), InputError, "expected one of"),
}
BAD = [*MORE.items(), *ANSWERS.items(), *CORRECTIONS.items(), *SIGNALS.items()]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flywheel, str]]:
    """An index that no bad call may change, and the id of a retrieval that showed only "a"."""
    root = tmp_path_factory.mktemp("bad") / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add([Passage("a", "open the settings"), Passage("b", "kittens sleep")])
        shown = fw.retrieve("open settings", k=1)
        yield fw, str(shown.id)


def clock(fw: Flywheel) -> int:
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        return int(conn.execute("SELECT seq FROM clock").fetchone()[0])


@pytest.mark.parametrize(
    ("call", "error", "words"), [pytest.param(*row, id=name) for name, row in BAD]
)
def test_a_bad_call_says_what_is_wrong_and_changes_nothing(
    shared: tuple[Flywheel, str], call: Call, error: type[Exception], words: str
) -> None:
    fw, retrieval_id = shared
    before = fw.status(), clock(fw)
    with pytest.raises(error, match=words):
        call(fw, retrieval_id)
    assert (fw.status(), clock(fw)) == before
