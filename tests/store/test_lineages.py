"""Where votes and known answers go when texts move, and what `add` and `remove` report of it."""

import random
import time
from collections import Counter

import numpy as np
import pytest

from fakes import Vectors
from known import known, said
from rag_flywheel import AddReport, Candidate, Flywheel, InputError, Passage, UnknownIdError
from rag_flywheel.store import passages as store
from rag_flywheel.store.near_identical import Words, sketch

A = "to reset the device hold the side button until the light blinks"
B = "refunds are paid to the card that was used for the order"
C = "kittens sleep most of the day and play at night"
QUERY = "how do i reset the device"


def voted_texts(fw: Flywheel) -> dict[str, str]:
    """{id: text} of the hits with votes behind them."""
    hits = fw.retrieve(QUERY, 50).hits
    return {
        h.passage_id: h.text for h in hits if h.explanation.votes and h.explanation.evidence > 0
    }


@pytest.fixture
def desk(fw: Flywheel) -> Flywheel:
    """A has two votes and a pin, under the id "a"; no other text has any."""
    fw.add([Passage("a", A, "Reset"), Passage("b", B, "Money"), Passage("c", C)])
    said(fw, QUERY, "a", "helpful", "ann", "bob")
    fw.pin(QUERY, "a")
    return fw


def assert_follows(fw: Flywheel, *ids: str) -> None:
    assert set(voted_texts(fw)) >= {ids[0]} and set(voted_texts(fw)) <= set(ids)
    assert set(known(fw)[QUERY][0]) <= set(ids)
    assert fw.verify() == []


def test_a_text_that_moves_to_another_id(desk: Flywheel) -> None:
    report = desk.add([Passage("z", A, "Reset")], remove=["a"])
    assert report == AddReport(1, 0, 0, 1, moved_votes=2, moved_answers=1)
    assert_follows(desk, "z")


def test_two_texts_that_change_places(desk: Flywheel) -> None:
    report = desk.add([Passage("a", B, "Money"), Passage("b", A, "Reset")])
    assert (report.updated, report.moved_votes, report.lost_votes) == (2, 2, 0)
    assert_follows(desk, "b")


def test_a_chain_of_moves(desk: Flywheel) -> None:
    desk.add([Passage("b", A, "Reset"), Passage("c", B, "Money"), Passage("a", "new words here")])
    desk.add([Passage("c", A, "Reset"), Passage("b", "other words there")])
    assert_follows(desk, "c")


@pytest.mark.parametrize(
    "changed",
    [
        Passage("z", A, "Setting it back"),  # another heading
        Passage("z", A.replace("device", "devise"), "Reset"),
        Passage("z", A.replace("device", "devise"), "Setting it back"),
        Passage("z", A.upper(), ""),
    ],
)
@pytest.mark.parametrize("order", ["one call", "add first", "remove first", "two calls of add"])
def test_an_edit_that_moves(desk: Flywheel, changed: Passage, order: str) -> None:
    if order == "one call":
        desk.add([changed], remove=["a"])
    elif order == "add first":
        desk.add([changed])
        desk.remove(["a"])
    elif order == "remove first":
        desk.remove(["a"])
        assert voted_texts(desk) == {}
        assert desk.add([changed]).moved_votes == 2  # they came back
    else:
        desk.add([changed])
        assert desk.add([Passage("a", "entirely other words")]).lost_votes == 0
    assert_follows(desk, "z")


def test_a_given_candidate_of_the_same_words_follows_too(desk: Flywheel) -> None:
    """It did not, when it was given before the text that had the votes was removed."""
    edited = A.replace("device", "devise")
    desk.add([Passage("z", edited, "Reset")])
    given = [Candidate("theirs", edited, 0.9, "Reset"), Candidate("other", "quite other", 0.8)]
    desk.rerank(QUERY, given)
    desk.remove(["a"])
    assert set(voted_texts(desk)) == {"z"}
    hit, _ = desk.rerank(QUERY, given, record=False).hits
    assert (hit.passage_id, len(hit.explanation.votes)) == ("theirs", 2)
    assert desk.verify() == []


@pytest.mark.parametrize(
    "changed",
    [
        Passage("a", "entirely other words"),
        Passage("a", A.replace("hold", "never hold"), "Reset"),
        Passage("a", A.replace("side", "top"), "Reset"),  # one of twelve
    ],
)
def test_another_text_loses_them_until_the_old_one_is_back(
    desk: Flywheel, changed: Passage
) -> None:
    report = desk.add([changed])
    assert (report.lost_votes, report.lost_answers, report.moved_votes) == (2, 1, 0)
    assert voted_texts(desk) == {} and known(desk) == {}
    report = desk.add([Passage("elsewhere", A, "Reset")])
    assert (report.moved_votes, report.moved_answers) == (2, 1)
    assert_follows(desk, "elsewhere")


def test_a_heading_that_says_what_a_short_text_is_about(fw: Flywheel) -> None:
    fw.add([Passage("q1", "No.", "Is parking free on Sunday"), Passage("b", B)])
    said(fw, "parking", "q1", "helpful", "ann")
    report = fw.add([Passage("q2", "No.", "May dogs come in")], remove=["q1"])
    assert report.lost_votes == 1
    report = fw.add([Passage("q3", "No.", "Is parking free")])
    assert report.moved_votes == 1


def test_a_text_that_becomes_two(desk: Flywheel) -> None:
    edited = A.replace("device", "devise")
    desk.add(
        [Passage("x", edited, "Reset"), Passage("y", B * 2), Passage("z", A, "Reset")], remove=["a"]
    )
    assert_follows(desk, "z")  # the same words; the others are not close enough for a copy
    desk.remove(["z"])
    assert_follows(desk, "x")


def test_two_texts_that_become_one(desk: Flywheel) -> None:
    said(desk, "refunds", "b", "helpful", "cid")
    report = desk.add([Passage("a", f"{A}. {B}", "Reset")], remove=["b"])
    assert (report.lost_votes, report.moved_votes) == (3, 0)
    report = desk.add([Passage("a", A, "Reset"), Passage("b", B, "Money")])
    assert (report.lost_votes, report.moved_votes) == (0, 3)


def test_a_copy_of_a_copied_text_that_is_edited(desk: Flywheel) -> None:
    desk.add([Passage("copy", A, "Reset")])
    assert_follows(desk, "a", "copy")
    long = A.replace("side", "top")
    desk.add([Passage("copy", long, "Reset")])  # another text from now on
    assert_follows(desk, "a")


def test_a_younger_text_with_votes_of_its_own_takes_nothing(desk: Flywheel) -> None:
    desk.add([Passage("z", A, "Setting it back")])
    said(desk, QUERY, "z", "harmful", "eve")
    desk.remove(["a"])
    assert known(desk) == {} and voted_texts(desk) == {}


def test_remove_in_add_is_all_or_nothing(desk: Flywheel) -> None:
    with pytest.raises(UnknownIdError, match="'nowhere'"):
        desk.add([Passage("z", C * 2)], remove=["nowhere"])
    with pytest.raises(InputError, match="to be added and to be removed"):
        desk.add([Passage("a", C * 2)], remove=["a"])
    assert {p.id for p in desk.passages()} == {"a", "b", "c"}
    assert desk.add([], remove=["a", "a"]).removed == 1


class LengthEncoder:
    """Costs nothing: a text is a direction by its length."""

    name, revision, dim = "length", "1", 4

    def encode_queries(self, texts: list[str]) -> Vectors:
        angles = np.array([len(text) for text in texts], dtype=np.float32)
        rows = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1)
        return rows.astype(np.float32)

    encode_passages = encode_queries


@pytest.mark.slow
@pytest.mark.alone
def test_adding_costs_the_same_among_many(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A template is the hardest case: all texts are alike, and none is near-identical to another."""
    seconds = []
    with Flywheel.open(tmp_path / "kb", encoder=LengthEncoder()) as fw:
        for part in range(5):
            some = [
                Passage(f"{part} {i}", f"item {part}x{i} is on floor {i} and paid by team {i * 7}")
                for i in range(2_000)
            ]
            began = time.process_time()
            fw.add(some)
            seconds.append(time.process_time() - began)
    assert seconds[-1] < 2.0 * seconds[1] + 0.5


def test_new_texts_are_added_with_few_statements_each(fw: Flywheel) -> None:
    draws = random.Random(3)
    words = ["".join(draws.choices("abcdefgh", k=5)) for _ in range(300)]
    texts = [Passage(f"p{i}", " ".join(draws.choices(words, k=12))) for i in range(400)]
    fw.add(texts[:200])
    seen: list[str] = []
    with fw._database.transaction() as conn:
        conn.set_trace_callback(seen.append)
    try:
        fw.add(texts[200:])
    finally:
        with fw._database.transaction() as conn:
            conn.set_trace_callback(None)
    reads = [sql for sql in seen if sql.lstrip().startswith("SELECT")]
    assert len(seen) > 200  # one insertion each at least
    assert len(reads) < 2 * 200


def test_rows_that_share_most_keys_come_first(fw: Flywheel) -> None:
    draws = random.Random(4)
    words = ["".join(draws.choices("abcdefgh", k=4)) for _ in range(40)]
    texts = [" ".join(draws.choices(words, k=9)) for _ in range(120)]
    fw.add([Passage(f"p{i}", text) for i, text in enumerate(texts)])
    asked = [sketch(Words.of(" ".join(draws.choices(words, k=9)))) for _ in range(30)]
    with fw._database.snapshot() as conn:
        pairs = [(int(key), int(pid)) for key, pid in conn.execute("SELECT key, pid FROM sketches")]
        found = store.rows_like(conn, asked, 5, 4)
    for keys, rows in zip(asked, found, strict=True):
        shared = Counter[int]()
        for key in keys:
            shared.update(sorted((pid for k, pid in pairs if k == key), reverse=True)[:5])
        best = sorted(shared, key=lambda pid: (-shared[pid], -pid))[:4]
        assert [row.stored.pid for row in rows] == best
    assert any(found)


def test_a_number_of_a_row_is_never_used_again(fw: Flywheel) -> None:
    fw.add([Passage("a", A), Passage("b", B)])
    with fw._database.transaction() as conn:
        last = store.last_pid(conn)
        conn.execute("DELETE FROM sketches WHERE pid = ?", (last,))
        conn.execute("DELETE FROM passages WHERE pid = ?", (last,))
    fw.add([Passage("c", C)])
    with fw._database.snapshot() as conn:
        assert store.last_pid(conn) == last + 1
