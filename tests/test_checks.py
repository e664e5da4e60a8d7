"""What callers can get wrong: each call raises a named error that says what to do, and changes nothing."""

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from plain_model import scored, shared_out
from rag_flywheel import Candidate, Flywheel, FlywheelError, Passage, Vote
from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.rank.parameters import Parameters

HALF = "\ud83d"  # half of an emoji, as json.loads gives it from broken input
Call = Callable[[Any, str], object]


def one(id_: Any = "new", text: Any = "some words", title: Any = "", **metadata: Any) -> Passage:
    return Passage(id_, text, title, metadata)


def with_metadata(metadata: Any) -> Passage:
    return Passage("new", "some words", "", metadata)


def own(id_: Any = "own", text: Any = "some words", score: Any = 1.0) -> Candidate:
    return Candidate(id_, text, score)


# what is wrong: the call, given an index and the id of a retrieval; its error; words it must say
ADD: dict[str, tuple[Call, type[Exception], str]] = {
    "empty text": (lambda fw, r: fw.add([one(text="")]), InputError, "'new' has an empty or blank"),
    "blank text": (lambda fw, r: fw.add([one(text=" \n\t")]), InputError, "empty or blank text"),
    "bytes": (lambda fw, r: fw.add([one(text=b"x")]), InputError, "text is bytes; expected a str"),
    "no title": (lambda fw, r: fw.add([one(title=None)]), InputError, "title is NoneType"),
    "an id twice": (lambda fw, r: fw.add([one(), one()]), InputError, "'new' comes twice in one"),
    "number as id": (lambda fw, r: fw.add([one(7)]), InputError, "id 7; expected a string"),
    "no id": (lambda fw, r: fw.add([one(None)]), InputError, "id None; expected a string"),
    "blank id": (lambda fw, r: fw.add([one("  ")]), InputError, "expected a string, not blank"),
    "half text": (lambda fw, r: fw.add([one(text=f"a{HALF}")]), InputError, "position 1, half a"),
    "half title": (lambda fw, r: fw.add([one(title=HALF)]), InputError, "title has .* surrogate"),
    "half id": (lambda fw, r: fw.add([one(HALF)]), InputError, "half a surrogate pair"),
    "half value": (lambda fw, r: fw.add([one(a=HALF)]), InputError, "metadata 'a' has .* surrog"),
    "half key": (lambda fw, r: fw.add([one(**{HALF: 1})]), InputError, "metadata"),
    "NaN": (lambda fw, r: fw.add([one(a=math.nan)]), InputError, "'a' is nan; expected a finite"),
    "infinity": (lambda fw, r: fw.add([one(a=-math.inf)]), InputError, "expected a finite number"),
    "nested list": (
        lambda fw, r: fw.add([one(a=[["x"]])]),
        InputError,
        "metadata 'a': item 1 is list; exp",
    ),
    "nested dict": (
        lambda fw, r: fw.add([one(a={"b": b""})]),
        InputError,
        "metadata 'a' 'b' is bytes",
    ),
    "number as key": (
        lambda fw, r: fw.add([with_metadata({3: 1})]),
        InputError,
        "metadata key is 3",
    ),
    "empty key": (lambda fw, r: fw.add([with_metadata({"": 1})]), InputError, "metadata key is ''"),
    "object in list": (lambda fw, r: fw.add([one(a=[{}])]), InputError, "item 1 is dict"),
    "metadata None": (lambda fw, r: fw.add([with_metadata(None)]), InputError, "metadata"),
    "metadata a list": (lambda fw, r: fw.add([with_metadata(["a"])]), InputError, "metadata"),
    "a string": (lambda fw, r: fw.add("some words"), InputError, "item 1.* str; expected a Pass"),
    "dictionaries": (lambda fw, r: fw.add([{"id": "x"}]), InputError, "item 1.* dict; expected"),
    "one passage": (lambda fw, r: fw.add(one()), InputError, "expected"),
    "add None": (lambda fw, r: fw.add(None), InputError, "expected"),
    "a bad one late": (lambda fw, r: fw.add([one(), one("b", "")]), InputError, "'b' has an empty"),
}
REMOVE: dict[str, tuple[Call, type[Exception], str]] = {
    "unknown": (lambda fw, r: fw.remove(["nope"]), UnknownIdError, "no passage 'nope' is in this"),
    "one of two": (lambda fw, r: fw.remove(["a", "nope"]), UnknownIdError, "Nothing was removed"),
    "remove a string": (lambda fw, r: fw.remove("a"), InputError, "string 'a'; expected a list of"),
    "remove a number": (lambda fw, r: fw.remove([3]), InputError, "id 3 is int; expected a string"),
    "remove lists": (lambda fw, r: fw.remove([["a"]]), InputError, "list; expected a string"),
    "remove None": (lambda fw, r: fw.remove(None), InputError, "expected a list"),
    "remove half": (lambda fw, r: fw.remove([HALF]), FlywheelError, "passage"),
}
RETRIEVE: dict[str, tuple[Call, type[Exception], str]] = {
    "empty query": (lambda fw, r: fw.retrieve(""), InputError, "query is empty or blank"),
    "blank query": (lambda fw, r: fw.retrieve(" \n"), InputError, "query is empty or blank"),
    "no query": (lambda fw, r: fw.retrieve(None), InputError, "query is NoneType; expected a str"),
    "long query": (lambda fw, r: fw.retrieve("w " * 50_000), InputError, "100000 .* at most 10000"),
    "half query": (lambda fw, r: fw.retrieve(f"a {HALF}"), InputError, "query has .* position 2"),
    "k 0": (lambda fw, r: fw.retrieve("q", 0), InputError, "k is 0; expected a whole number, 1 or"),
    "k -1": (lambda fw, r: fw.retrieve("q", -1), InputError, "k is -1"),
    "k True": (lambda fw, r: fw.retrieve("q", True), InputError, "k is True"),
    "k 2.0": (lambda fw, r: fw.retrieve("q", 2.0), InputError, "k is 2.0"),
    "k '8'": (lambda fw, r: fw.retrieve("q", "8"), InputError, "k is '8'"),
    "k None": (lambda fw, r: fw.retrieve("q", None), InputError, "k is None"),
    "k huge": (lambda fw, r: fw.retrieve("q", 2**63), InputError, "k is 9223372036854775808"),
    "operator": (
        lambda fw, r: fw.retrieve("q", where={"a": {"like": 1}}),
        InputError,
        "'like'; kn",
    ),
    "where list": (
        lambda fw, r: fw.retrieve("q", where={"a": [1]}),
        InputError,
        "is a list of 1; exp",
    ),
    "in string": (
        lambda fw, r: fw.retrieve("q", where={"a": {"in": "x"}}),
        InputError,
        "a list of",
    ),
    "no key": (lambda fw, r: fw.retrieve("q", where={"": 1}), InputError, "filter key is ''; exp"),
    "no filter": (lambda fw, r: fw.retrieve("q", where={}), InputError, "None for no filter"),
    "no condition": (lambda fw, r: fw.passages({"a": {}}), InputError, "'a' has no condition"),
    "rerank no filter": (
        lambda fw, r: fw.rerank("q", [own()], where={}),
        InputError,
        "None for no",
    ),
    "rerank where number": (
        lambda fw, r: fw.rerank("q", [own()], where=5),
        InputError,
        "where is 5",
    ),
    "k numpy True": (lambda fw, r: fw.retrieve("q", np.True_), InputError, "k is "),
    "k numpy 2.0": (lambda fw, r: fw.retrieve("q", np.float64(2.0)), InputError, "k is "),
    "keys": (
        lambda fw, r: fw.retrieve("q", where={1: 1, "b": 2}),
        InputError,
        "filter key is 1",
    ),
    "half where": (lambda fw, r: fw.retrieve("q", where={"a": HALF}), InputError, "filter 'a'"),
    "half where key": (lambda fw, r: fw.retrieve("q", where={HALF: 1}), InputError, "filter"),
    "big where": (lambda fw, r: fw.retrieve("q", where={"a": 2**70}), InputError, "filter 'a'"),
    "NaN where": (lambda fw, r: fw.retrieve("q", where={"a": math.nan}), InputError, "filter 'a'"),
    "where is text": (lambda fw, r: fw.retrieve("q", where="lang"), InputError, "lang.*expected"),
    "user 3": (lambda fw, r: fw.retrieve("q", user_id=3), InputError, "user_id is 3; expected a"),
    "session": (lambda fw, r: fw.retrieve("q", session_id=[]), InputError, "session_id is"),
    "half user": (lambda fw, r: fw.retrieve("q", user_id=HALF), InputError, "user_id"),
    "many a string": (
        lambda fw, r: fw.retrieve_many("abc"),
        InputError,
        "expected a list of strin",
    ),
    "many, one bad": (lambda fw, r: fw.retrieve_many(["good", " "]), InputError, "query is empty"),
    "many None": (lambda fw, r: fw.retrieve_many(None), InputError, "queries"),
}
RERANK: dict[str, tuple[Call, type[Exception], str]] = {
    "NaN score": (
        lambda fw, r: fw.rerank("q", [own(score=math.nan)]),
        InputError,
        "nan; expected a",
    ),
    "inf score": (lambda fw, r: fw.rerank("q", [own(score=math.inf)]), InputError, "score inf"),
    "score True": (lambda fw, r: fw.rerank("q", [own(score=True)]), InputError, "score True"),
    "score '1'": (
        lambda fw, r: fw.rerank("q", [own(score="1")]),
        InputError,
        "score '1'; expected",
    ),
    "score 10^400": (lambda fw, r: fw.rerank("q", [own(score=10**400)]), InputError, "score 1000"),
    "id twice": (lambda fw, r: fw.rerank("q", [own(), own()]), InputError, "'own' is given twice"),
    "own id 3": (lambda fw, r: fw.rerank("q", [own(3)]), InputError, "3: expected a string id"),
    "own id ''": (lambda fw, r: fw.rerank("q", [own("")]), InputError, "expected a string id"),
    "own half id": (lambda fw, r: fw.rerank("q", [own(HALF)]), InputError, "surrogate"),
    "own half text": (lambda fw, r: fw.rerank("q", [own(text=HALF)]), InputError, "surrogate"),
    "own no text": (lambda fw, r: fw.rerank("q", [own(text=" ")]), InputError, "'own' has no text"),
    "rerank a string": (lambda fw, r: fw.rerank("q", "abc"), InputError, "found str; expected a C"),
    "rerank tuples": (
        lambda fw, r: fw.rerank("q", [("a", "b", 1)]),
        InputError,
        "found tuple; exp",
    ),
    "rerank None": (lambda fw, r: fw.rerank("q", None), InputError, "expected"),
    "rerank blank": (lambda fw, r: fw.rerank(" ", [own()]), InputError, "query is empty or blank"),
    "rerank k": (lambda fw, r: fw.rerank("q", [own()], 0), InputError, "k is 0"),
    "rerank where": (
        lambda fw, r: fw.rerank("q", [own()], where={"x": 1}),
        InputError,
        "filter on 'x'",
    ),
}
FEEDBACK: dict[str, tuple[Call, type[Exception], str]] = {
    "retrieval": (
        lambda fw, r: fw.feedback("x", "a", "helpful"),
        UnknownIdError,
        "no retrieval 'x'",
    ),
    "not recorded": (lambda fw, r: fw.feedback(None, "a", "helpful"), InputError, "record=False"),
    "not shown": (
        lambda fw, r: fw.feedback(r, "b", "helpful"),
        InputError,
        "did not show passage 'b'",
    ),
    "no passage": (lambda fw, r: fw.feedback(r, None, "helpful"), InputError, "passage_id is None"),
    "verdict": (
        lambda fw, r: fw.feedback(r, "a", "up"),
        InputError,
        "'up'; expected one of helpful",
    ),
    "verdict True": (lambda fw, r: fw.feedback(r, "a", True), InputError, "verdict is True"),
    "user": (lambda fw, r: fw.feedback(r, "a", "helpful", user_id=3), InputError, "user_id is 3"),
    "reason": (lambda fw, r: fw.feedback(r, "a", "helpful", reason=3), InputError, "reason is 3"),
    "half voter": (
        lambda fw, r: fw.feedback(r, "a", "helpful", user_id=HALF),
        InputError,
        "user_id",
    ),
    "half reason": (
        lambda fw, r: fw.feedback(r, "a", "helpful", reason=HALF),
        InputError,
        "reason",
    ),
    "half id of it": (lambda fw, r: fw.feedback(HALF, "a", "helpful"), FlywheelError, "retrieval"),
    "votes a string": (
        lambda fw, r: fw.feedback_many("abc"),
        InputError,
        "found str; expected a V",
    ),
    "votes None": (lambda fw, r: fw.feedback_many(None), InputError, "expected"),
    "votes tuples": (
        lambda fw, r: fw.feedback_many([(r, "a")]),
        InputError,
        "found tuple; expected",
    ),
    "one bad vote": (
        lambda fw, r: fw.feedback_many([Vote(r, "a", "helpful"), Vote(r, "b", "helpful")]),
        InputError,
        "did not show passage 'b'; it showed 'a'",
    ),
    "answer": (
        lambda fw, r: fw.answer("x", "text"),
        UnknownIdError,
        "no retrieval 'x' is recorded",
    ),
    "answer None": (lambda fw, r: fw.answer(r, None), InputError, "answer got str and NoneType"),
    "half answer": (lambda fw, r: fw.answer(r, HALF), InputError, "answer"),
}
VERSIONS: dict[str, tuple[Call, type[Exception], str]] = {
    "version": (lambda fw, r: fw.rollback("v1"), UnknownIdError, "'v1' is no version id; expected"),
    "version 3": (lambda fw, r: fw.rollback(3), FlywheelError, "3"),
    "no such version": (
        lambda fw, r: fw.rollback("20200101T000000Z-00000"),
        UnknownIdError,
        "20200101T000000Z-00000",
    ),
    "none before": (lambda fw, r: fw.rollback(), UnknownIdError, "no version before the live one"),
    "path": (lambda fw, r: fw.rollback("../../etc"), UnknownIdError, "is no version id"),
}
BAD = [*ADD.items(), *REMOVE.items(), *RETRIEVE.items(), *RERANK.items()]
BAD += [*FEEDBACK.items(), *VERSIONS.items()]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flywheel, str]]:
    """An index that no bad call may change, and the id of a retrieval that showed only "a"."""
    root = tmp_path_factory.mktemp("bad") / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add([Passage("a", "open the settings"), Passage("b", "kittens sleep", "", {"a": 1})])
        fw.refresh()
        shown = fw.retrieve("open settings", k=1)
        assert shown.id is not None
        assert [h.passage_id for h in shown.hits] == ["a"]
        yield fw, shown.id


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


@pytest.mark.parametrize("query", ["is it the", "the", "?!", "👍", "zebra xylophone"])
@pytest.mark.parametrize("refreshed", [False, True])
def test_a_query_without_a_known_word_is_answered_from_dense_search(
    fw: Flywheel, encoder: WordEncoder, help_desk: list[Passage], query: str, refreshed: bool
) -> None:
    fw.add(help_desk)
    if refreshed:
        fw.refresh()
    found = fw.retrieve(query)
    vector = encoder.encode_queries([query])[0]
    texts = [f"{p.title} {p.text}".strip() for p in help_desk]
    cosines = dict(
        zip([p.id for p in help_desk], encoder.encode_passages(texts) @ vector, strict=True)
    )
    assert [h.passage_id for h in found.hits] == sorted(cosines, key=lambda p: -cosines[p])
    shipped = Parameters()
    for hit in found.hits:
        assert {name for name, term in hit.explanation.terms.items() if term} == {"dense"}
    worth = {p: shipped.weights["dense"] * float(cosine) for p, cosine in cosines.items()}
    expected = scored(shared_out(worth), [], shipped.kernel.n0)
    assert {h.passage_id: h.score for h in found.hits} == pytest.approx(expected, abs=1e-5)


def test_a_question_of_small_words_is_answered(fw: Flywheel, help_desk: list[Passage]) -> None:
    fw.add(help_desk)
    assert len(fw.retrieve("what is it").hits) == len(help_desk)


def test_scores_of_numpy_are_numbers(fw: Flywheel) -> None:
    own_scores = [
        own("x", "first words", np.float32(0.5)),
        own("y", "other words", np.float64(2.0)),
    ]
    assert [h.passage_id for h in fw.rerank("q", own_scores).hits] == ["y", "x"]


@pytest.mark.parametrize(
    "scores",
    [
        [1.9, math.nextafter(1.9, 2.0), 3.7],
        [1e-9, 2e-9, 1e9],
        [-5e-324, 0.0, 1.0],
        [1e300, 2e300, -1e308],
    ],
)
def test_own_candidates_that_differ_by_little_keep_their_order(
    fw: Flywheel, scores: list[float]
) -> None:
    given = [own(f"c{i}", f"text {i}", score) for i, score in enumerate(scores)]
    expected = [c.passage_id for c in sorted(given, key=lambda c: -c.score)]
    assert [h.passage_id for h in fw.rerank("q", given).hits] == expected
