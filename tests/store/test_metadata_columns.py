"""The metadata held in memory against that of the database, through random changes by another process,
restores, and keys that come and go."""

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.store import metadata_columns
from rag_flywheel.store.database import Database
from rag_flywheel.store.filters import passes, plain_filter
from rag_flywheel.store.metadata_columns import MetadataColumns
from rag_flywheel.store.place import open_database
from rag_flywheel.store.timeline import begin_timeline

VALUES: list[Any] = [
    "en", "de", "日本", True, False, 1, 1.0, 0, -2.5, 2**53 + 1, None, "2031-02-03", "2031-02-03T04:05:06Z",
    ["en", 1], [], {"id": 7, "deep": {"er": "x"}},
]  # fmt: skip
WHERE: list[dict[str, Any]] = [
    {"a": "en"}, {"a": 1}, {"a": True}, {"a": None}, {"a": {"ne": "de"}}, {"a": {"gt": 0}},
    {"a": {"gte": "2031-02-03"}}, {"a": {"lt": "ef"}}, {"a": {"in": ["en", 1, None]}},
    {"a": {"nin": [True, "de"]}}, {"a": {"contains": 1}}, {"a": {"all": ["en", 1]}},
    {"a": {"prefix": "e"}}, {"a": {"exists": False}}, {"a.id": 7}, {"a.deep.er": {"prefix": "x"}},
    {"a": {"gt": 2**53}}, {"b": "en", "a": {"exists": True}}, {"or": [{"a": "en"}, {"b": 1}, {"a": "de"}]},
    {"not": {"or": [{"a": "en"}, {"a": 1}]}}, {"and": [{"b": {"ne": 0}}, {"not": {"a": {"lte": 1}}}]},
]  # fmt: skip


def made(rng: random.Random) -> dict[str, Any]:
    keys = rng.sample(["a", "b", "c"], rng.randint(0, 3))
    return {key: rng.choice(VALUES) for key in keys}


def some_change(fw: Flywheel, rng: random.Random) -> None:
    """Texts that come, go, or have other words, other metadata or both."""
    ids = [p.id for p in fw.passages()]
    what = rng.choice(["add", "add", "edit", "label", "label", "remove", "vote"])
    if what == "add" or not ids:
        new = [f"p{rng.randrange(10**9)}" for _ in range(rng.randint(1, 4))]
        fw.add([Passage(i, f"words of {i}", "", made(rng)) for i in new])
    elif what == "remove":
        fw.remove(rng.sample(ids, min(len(ids), 2)))
    elif what == "vote":
        found = fw.retrieve("words")
        fw.feedback(found.id, found.hits[0].passage_id, "helpful")
    else:
        chosen = {p.id: p for p in fw.passages() if p.id in rng.sample(ids, min(len(ids), 3))}
        more = " and more" if what == "edit" else ""
        fw.add([Passage(i, p.text + more, p.title, made(rng)) for i, p in chosen.items()])


def plainly(fw: Flywheel, where: dict[str, Any]) -> list[str]:
    return sorted(
        p.id for p in fw.passages() if passes(where, json.loads(json.dumps(dict(p.metadata))))
    )


@pytest.fixture
def database(fw: Flywheel, tmp_path: Path) -> Iterator[Database]:
    """A connection of its own to the database of `fw`."""
    made_ = open_database(tmp_path / "kb")
    yield made_
    made_.close()


def found_by(columns: MetadataColumns, database: Database, where: dict[str, Any]) -> list[str]:
    with database.snapshot() as conn:
        pids = columns.matching(conn, plain_filter(where)).tolist()
        assert pids == sorted(pids)
        sql = "SELECT id FROM passages WHERE pid = ?"
        return sorted(conn.execute(sql, (pid,)).fetchone()[0] for pid in pids)


@pytest.mark.parametrize("seed", range(3))
def test_after_every_change_the_same_pass_as_in_the_database(
    fw: Flywheel, database: Database, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_columns, "_FEW", 3)  # so that it starts over now and then
    monkeypatch.setattr(metadata_columns, "_MOST_COLUMNS", 3)
    rng, columns = random.Random(seed), MetadataColumns()
    for _ in range(25):
        for _ in range(rng.randint(0, 3)):
            some_change(fw, rng)
        for where in rng.sample(WHERE, 3):
            assert found_by(columns, database, where) == plainly(fw, where), where


class Counted:
    """How many rows were decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        plain: Callable[..., Any] = metadata_columns._taken

        def taken(*given: Any) -> Any:
            self.n += 1
            return plain(*given)

        monkeypatch.setattr(metadata_columns, "_taken", taken)


def test_only_what_changed_is_read_again(
    fw: Flywheel, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fw.add([Passage(f"p{i}", f"words {i}", "", {"a": i % 5, "b": i}) for i in range(300)])
    columns, read = MetadataColumns(), Counted(monkeypatch)
    assert len(found_by(columns, database, {"a": 1, "b": {"gte": 100}})) == 40
    assert read.n == 300  # both keys in one pass
    found = fw.retrieve("words 7")
    fw.feedback(found.id, found.hits[0].passage_id, "helpful")
    assert len(found_by(columns, database, {"b": {"lt": 10}})) == 10
    assert read.n == 300  # a vote changes no metadata, and another condition needs none
    fw.add([Passage("p0", "words 0", "", {"a": 1}), Passage("new", "words", "", {"a": 1})])
    assert len(found_by(columns, database, {"a": 1})) == 62
    assert read.n == 302


def test_another_timeline_is_read_anew(fw: Flywheel, database: Database) -> None:
    fw.add([Passage("p", "words", "", {"a": 1})])
    columns = MetadataColumns()
    assert found_by(columns, database, {"a": 1}) == ["p"]
    with database.transaction() as conn:  # as a restore does: the same numbers mean other rows
        conn.execute("UPDATE passages SET metadata = '{\"a\": 2}'")
        begin_timeline(conn)
    assert found_by(columns, database, {"a": 1}) == []
    assert found_by(columns, database, {"a": 2}) == ["p"]


@pytest.mark.parametrize("key", ["a", "b"])
def test_damaged_metadata_leaves_nothing_half_read(
    fw: Flywheel, database: Database, key: str
) -> None:
    """Neither of a key that was read before nor of one that is read first."""
    fw.add([Passage(f"p{i}", f"words {i}", "", {"a": i, "b": i}) for i in range(4)])
    columns = MetadataColumns()
    assert found_by(columns, database, {"a": {"gte": 2}}) == ["p2", "p3"]
    with database.transaction() as conn:
        sound = conn.execute("SELECT metadata FROM passages WHERE id = 'p3'").fetchone()[0]
        conn.execute("UPDATE passages SET metadata = '{' WHERE id = 'p3'")
        if key == "a":
            conn.execute("UPDATE passages SET edited = 99 WHERE id = 'p3'")
            conn.execute("UPDATE clock SET seq = 99")
    for _ in range(2):
        with pytest.raises(CorruptFileError, match=r"passages\.metadata of row"):
            found_by(columns, database, {key: {"gte": 2}})
    with database.transaction() as conn:
        conn.execute("UPDATE passages SET metadata = ? WHERE id = 'p3'", (sound,))
    assert found_by(columns, database, {key: {"gte": 2}}) == ["p2", "p3"]


@pytest.mark.parametrize("key", ["a.b", 'quo"te', "back\\slash", "nul\x01", "x" * 200, "日本"])
def test_keys_of_every_kind(fw: Flywheel, database: Database, key: str) -> None:
    fw.add([Passage("p", "words", "", {key: "yes"}), Passage("q", "words", "", {"a": {"b": "no"}})])
    assert found_by(MetadataColumns(), database, {key: {"prefix": "ye"}}) == ["p"]


def test_a_vote_keeps_what_passes_and_other_metadata_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    plain = MetadataColumns.matching

    def matching(self: MetadataColumns, conn: sqlite3.Connection, where: dict[str, Any]) -> Any:
        asked.append(where)
        return plain(self, conn, where)

    monkeypatch.setattr(MetadataColumns, "matching", matching)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add([Passage(f"p{i}", f"words {i}", "", {"a": i % 2}) for i in range(20)])
        fw.refresh()
        for _ in range(3):
            found = fw.retrieve("words", where={"a": 1})
            fw.feedback(found.id, found.hits[0].passage_id, "helpful")
        assert len(asked) == 1
        fw.add([Passage("p0", "words 0", "", {"a": 1})])
        assert "p0" in [h.passage_id for h in fw.retrieve("words 0", where={"a": 1}).hits]
        assert len(asked) == 2
