"""`copy` moves an index between SQLite and PostgreSQL, and loses nothing."""

from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from on_postgres import server_url, url_of
from rag_flywheel import Flywheel, InputError, NotAFlywheelError, Passage, copy
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.migrations import migrations
from rag_flywheel.store.place import FOLDER, open_database
from rag_flywheel.store.schema import expected_tables

QUERIES = [QUERY, *(p.text for p in PASSAGES[:6])]


def make(fw: Flywheel) -> None:
    """Every table that users and passages write to has rows, some of texts that are gone."""
    fw.add(
        [
            *PASSAGES,
            Passage("ünï", "ein Text mit Ümläuten 🦉", "Títle", {"n": [1, 2.5, None, True]}),
        ]
    )
    fw.refresh()
    for i, query in enumerate(QUERIES):
        found = fw.retrieve(query, k=4, user_id=f"u{i % 3}", session_id=f"s{i % 2}")
        fw.feedback(found.id, found.hits[0].passage_id, "helpful", user_id=f"u{i}", reason="so")
        fw.feedback(found.id, found.hits[1].passage_id, "harmful", user_id=f"u{i}")
        fw.answer_feedback(found.id, "helpful", answer=found.hits[0].text, user_id=f"v{i}")
        fw.signal(found.id, "copied", user_id="w")
        fw.missing(found.id, "nothing on x", user_id=f"u{i}")
        fw.correct(found.id, passage_id="p7", user_id=f"x{i}")
    fw.pin(QUERY, "p3")
    fw.mute("u1")
    fw.opt_out("u99")
    fw.add([Passage("p1", "an entirely other text")], remove=["p2"])
    fw.refresh()
    fw.forget("u2")
    fw.add([Passage("late", "added after the last refresh")])


def rows(root: Path) -> dict[str, list[Any]]:
    """All rows of all tables, but for what tells copies from each other."""
    database = open_database(root)
    try:
        with database.snapshot() as conn:
            return {t: _rows(conn, t, names) for t, names in expected_tables(migrations).items()}
    finally:
        database.close()


def _rows(conn: Connection, table: str, names: list[str]) -> list[Any]:
    kept = [name for name in names if name != "timeline"]
    found = conn.execute(f"SELECT {', '.join(kept)} FROM {table}").fetchall()
    own = {FOLDER, "checked"}  # by `verify`
    return sorted((row for row in found if table != "meta" or row[0] not in own), key=repr)


def answers(fw: Flywheel) -> list[Any]:
    """What is answered, with scores, without a record."""
    return [
        [(hit.passage_id, round(hit.score, 9), hit.relevance) for hit in found.hits]
        for found in fw.retrieve_many(QUERIES, k=8, record=False)
    ]


def test_there_and_back_loses_nothing(tmp_path: Path) -> None:
    first, there, back = (tmp_path / name for name in ("first", "there", "back"))
    with Flywheel.open(first, encoder=WordEncoder()) as fw:
        make(fw)
        expected = answers(fw), fw.votes(n=1000), fw.retrievals(n=1000), fw.history(n=100)
    url = url_of("copied")
    report = copy(first, url, cache=there)
    assert (report.store, report.path) == (f"{url}".replace("postgres:@", "postgres@"), str(there))
    again = copy(there, back)
    assert (again.store, again.path) == (str(back), str(back))
    assert (again.seq, again.version) == (report.seq, report.version)
    for root in (there, back):
        with Flywheel.open(root, encoder=WordEncoder()) as fw:
            found = answers(fw), fw.votes(n=1000), fw.retrievals(n=1000), fw.history(n=100)
            assert fw.verify() == []
        assert found == expected
    assert not (there / "flywheel.db").exists()
    tables = [rows(root) for root in (first, there, back)]
    for other in tables[1:]:
        assert [name for name in other if other[name] != tables[0][name]] == []
    assert sum(map(bool, tables[0].values())) > 15


def test_a_copy_goes_on_as_the_first_would_have(tmp_path: Path) -> None:
    """Numbers go on where they were, and what was forgotten gives none away."""
    first, there = tmp_path / "first", tmp_path / "there"
    with Flywheel.open(first, encoder=WordEncoder()) as fw:
        make(fw)
        fw.add([Passage("last", "the newest text of all")])
        fw.remove(["last"])
    copy(first, url_of("goes_on"), cache=there)
    found = []
    for root in (first, there):
        with Flywheel.open(root, encoder=WordEncoder()) as fw:
            fw.add([Passage("more", "a text for more questions")])
            answer = fw.retrieve("more questions", k=3, user_id="z")
            fw.feedback(answer.id, "more", "helpful", user_id="z")
            fw.refresh()
            found.append((answers(fw), fw.status().n_votes, fw.verify()))
    assert found[0] == found[1]
    assert rows(first)["passages"] == rows(there)["passages"]


def test_the_index_that_is_copied_may_be_in_use(tmp_path: Path) -> None:
    first = tmp_path / "first"
    with Flywheel.open(first, encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        copy(first, url_of("in_use"), cache=tmp_path / "there")
        fw.add([Passage("late", "added after the copy")])
    with Flywheel.open(tmp_path / "there", encoder=WordEncoder()) as fw:
        assert fw.status().n_passages == len(PASSAGES)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    first, there = tmp_path / "first", tmp_path / "there"
    with Flywheel.open(first, encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
    url = url_of("once")
    copy(first, url, cache=there)
    with pytest.raises(InputError, match="is there already"):
        copy(first, url, cache=there)
    with pytest.raises(InputError, match="holds an index; expected a schema without one"):
        copy(first, url, cache=tmp_path / "other")
    with pytest.raises(InputError, match="is there already"):
        copy(there, first)
    with pytest.raises(NotAFlywheelError):
        copy(tmp_path / "nothing", tmp_path / "other")
    with pytest.raises(InputError, match="expected cache=FOLDER"):
        copy(first, f"{server_url()}&schema=none")
    assert {each.name for each in tmp_path.iterdir()} == {"first", "there"}
    with Flywheel.open(there, encoder=WordEncoder()) as fw:
        assert fw.status().n_passages == len(PASSAGES)


def test_a_copy_whose_object_store_refuses_can_be_tried_again(tmp_path: Path) -> None:
    """What had been stored on the server by then is taken back, though tables refuse to delete rows."""
    pytest.importorskip("obstore", reason="needs the extra objects")
    first, there = tmp_path / "first", tmp_path / "there"
    with Flywheel.open(first, encoder=WordEncoder()) as fw:
        make(fw)
        expected = answers(fw)
    taken, free = f"file://{tmp_path}/taken", f"file://{tmp_path}/free"
    copy(first, url_of("has_the_place"), cache=tmp_path / "other", objects=taken)
    url = url_of("again")
    with pytest.raises(InputError, match="holds the versions of another index"):
        copy(first, url, cache=there, objects=taken)
    assert not there.exists()
    copy(first, url, cache=there, objects=free)
    with Flywheel.open(there, encoder=WordEncoder()) as fw:
        assert (answers(fw), fw.verify()) == (expected, [])
    before, after = rows(first), rows(there)
    assert [each for each in before if before[each] != after[each]] == ["meta", "builds"]
