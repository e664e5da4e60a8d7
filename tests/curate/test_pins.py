"""Pins in the golden set, in its files, and through the life of an index."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fakes import WordEncoder
from forgetting import assert_same, key_of, log_of, replay, rows
from known import QUERY, TURNED, imported, known, said, table
from known import assert_same as assert_same_items
from rag_flywheel import Config, Flywheel, Passage

CHINESE = "怎么 重置 密码"


@pytest.fixture
def desk(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


def test_pins_are_in_the_golden_set(desk: Flywheel, tmp_path: Path) -> None:
    desk.pin(QUERY, "cats", grade=3)
    desk.pin(CHINESE, "refund")
    assert known(desk) == {
        QUERY: ({"cats": 3}, ("pinned",)),
        CHINESE: ({"refund": 1}, ("pinned",)),
    }
    imported(desk, tmp_path, table({(QUERY, "cats"): 1, (QUERY, "secret"): 0}))
    assert known(desk)[QUERY] == ({"cats": 3, "secret": 0}, ("imported", "pinned"))
    imported(desk, tmp_path, table({(QUERY, "cats"): 0}))  # takes back what was imported alone
    assert known(desk)[QUERY] == ({"cats": 3, "secret": 0}, ("pinned",))
    desk.unpin(QUERY, "cats")
    desk.unpin(CHINESE, "refund")
    assert known(desk) == {}


def test_users_who_call_a_pin_harmful_bring_it_to_review(desk: Flywheel) -> None:
    desk.pin(TURNED, "cats")
    said(desk, QUERY, "cats", "harmful", "ann", "bob")
    (item,) = desk.review.items()
    assert item.why == "known as an answer (pinned), but 2 users said harmful"
    desk.review.reject(item.id)
    assert known(desk) == {}
    assert desk.review.items() == []
    desk.review.undo(item.id)
    assert known(desk) == {TURNED: ({"cats": 1}, ("pinned",))}


@pytest.mark.parametrize("name", ["out", "out.csv", "out.tsv"])
def test_export_and_import_give_the_same_items(
    desk: Flywheel, tmp_path: Path, help_desk: list[Passage], name: str
) -> None:
    desk.pin(QUERY, "cats", grade=3)
    desk.pin(QUERY, "reset")
    desk.pin(CHINESE, "refund")
    assert desk.golden.export(tmp_path / name) == 2
    items = desk.golden.items()
    assert_same_items(tmp_path / "new", help_desk, tmp_path / name, items)
    with Flywheel.open(tmp_path / "new", encoder=WordEncoder()) as new:
        for query in (QUERY, TURNED, CHINESE):
            pair = (f.rank_many([query]) for f in (desk, new))
            assert next(pair) == next(pair)


def test_an_import_leaves_pins_and_a_pin_leaves_imports(desk: Flywheel, tmp_path: Path) -> None:
    desk.pin(QUERY, "cats")
    assert imported(desk, tmp_path, table({(QUERY, "cats"): 1})).added == 1
    assert imported(desk, tmp_path, table({(QUERY, "cats"): 1})).unchanged == 1
    assert not desk.pin(QUERY, "cats")
    desk.unpin(QUERY, "cats")
    assert known(desk) == {QUERY: ({"cats": 1}, ("imported",))}
    assert desk.rank_many([QUERY], 1) == [["cats"]]  # it is imported


def test_forgetting_a_user_equals_a_replay_and_leaves_pins(tmp_path: Path) -> None:
    corpus = [Passage(f"p{i}", f"reset word{i} text{i}") for i in range(6)]
    queries = ["reset word1", "reset word2", "word2 reset", "word5 text5 reset"]
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder=WordEncoder(dim=32)) as fw:
        fw.add(corpus)
        fw.pin(queries[0], "p5")
        said(fw, queries[0], "p1", "helpful", "ann")  # first asked when it was pinned
        said(fw, queries[1], "p2", "harmful", "ann", "bob")
        fw.pin(queries[1], "p4")
        fw.unpin(queries[0], "p5")
        fw.pin("only ann asks this", "p0")
        said(fw, "only ann asks this", "p3", "helpful", "ann")
        fw.refresh()
        fw.forget("ann")
        golden = rows(root, "SELECT * FROM golden ORDER BY seq")
        assert [row["source"] for row in golden] == ["pinned"] * 4
        assert len(
            rows(root, "SELECT 1 FROM vectors WHERE text_hash = ?", golden[-1]["query_hash"])
        )
        with replay(tmp_path / "fresh", corpus, log_of(root), key_of(root)) as fresh:
            with closing(sqlite3.connect(tmp_path / "fresh" / "flywheel.db")) as conn, conn:
                for row in golden:
                    marks = ", ".join("?" * len(row))
                    conn.execute(f"INSERT INTO golden VALUES ({marks})", list(row.values()))
                conn.execute("UPDATE clock SET seq = max(seq, ?) + 1", (golden[-1]["seq"],))
            assert_same(root, fw, tmp_path / "fresh", fresh, [*queries, "only ann asks this"])
            assert known(fw) == known(fresh)
        assert fw.rank_many([queries[1], queries[2]], 1) == [["p4"], ["p4"]]
        assert fw.rank_many(["only ann asks this"], 1) == [["p0"]]
        assert fw.verify() == []


def test_forgetting_takes_an_accepted_answer_of_their_own_question(desk: Flywheel) -> None:
    for user, verdict in (
        ("h1", "helpful"),
        ("h2", "helpful"),
        ("n1", "harmful"),
        ("n2", "harmful"),
    ):
        shown = desk.retrieve(QUERY, k=100, user_id="ann")
        desk.feedback(shown.id, "cats", verdict, user_id=user)  # type: ignore[arg-type]
    desk.review.accept(desk.review.items()[0].id)
    assert desk.rank_many([QUERY], 1) == [["cats"]]
    desk.forget("ann")
    assert desk.rank_many([QUERY], 1) == [["reset"]]


def test_old_pins_stay_when_events_are_folded(tmp_path: Path, help_desk: list[Passage]) -> None:
    config = Config(encoder="", retention_days=30)
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder=WordEncoder(), config=config) as fw:
        fw.add(help_desk)
        fw.pin(QUERY, "cats")
        fw.retrieve(QUERY, user_id="ann")
        said(fw, QUERY, "cats", "harmful", "ann", "bob")
        with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
            for name in ("retrievals", "votes", "golden"):
                conn.execute(f"UPDATE {name} SET at = at - 31 * 86400")
        fw.refresh()
        assert rows(root, "SELECT 1 FROM retrievals WHERE folded IS NOT NULL")
        assert fw.rank_many([QUERY, TURNED], 1) == [["cats"], ["cats"]]
        assert known(fw) == {QUERY: ({"cats": 1}, ("pinned",))}
        assert fw.verify() == []


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("source", "somewhere", "golden.source holds str 'somewhere'; expected imported or pinned"),
        ("grade", -1, "golden.grade holds int -1"),
        ("query", "another", "golden.query_hash"),
        ("tenant", "{", "golden.tenant"),
        ("at", "now", "golden.at"),
        ("seq", 99, "clock says"),
    ],
)
def test_damaged_rows_are_found(desk: Flywheel, column: str, value: object, found: str) -> None:
    desk.pin(QUERY, "cats")
    assert desk.verify() == []
    with closing(sqlite3.connect(Path(desk.status().path) / "flywheel.db")) as conn, conn:
        conn.execute(f"UPDATE golden SET {column} = ?", (value,))
    assert any(found in problem for problem in desk.verify())
