"""Files from strangers: a few mutations of each kind, and what a hand with a purpose would do."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import hostile
from fakes import WordEncoder
from folders import QUERY, ids, opened, use
from rag_flywheel import FlywheelError
from rag_flywheel.disk import read_array, read_bytes
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.part import Part


@pytest.mark.slow
def test_sixty_mutations_are_refused_or_harmless(tmp_path: Path) -> None:
    hostile.make(tmp_path / "good")
    (tmp_path / "work").mkdir()
    command = [sys.executable, hostile.__file__, "good", "work", "0", "60"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    last = (tmp_path / "work" / "seed").read_text()
    assert done.returncode == 0, f"the process died at seed {last}: {done.stderr}"
    assert json.loads(done.stdout) == []
    assert "Exception ignored" not in done.stderr


def test_a_message_of_sqlite_that_is_no_utf8_is_a_corrupt_file(tmp_path: Path) -> None:
    hostile.make(tmp_path / "good")
    with closing(sqlite3.connect(tmp_path / "good" / "flywheel.db")) as conn, conn:
        conn.execute("PRAGMA writable_schema=ON")
        conn.execute("UPDATE sqlite_master SET name = CAST(x'ff' AS TEXT) WHERE name = 'votes'")
    conn.close()
    with pytest.raises(CorruptFileError):
        hostile.answer(tmp_path / "good")


@pytest.mark.parametrize("key", [None, "", "zz", "é" * 64, 5, b"\xff"])
def test_without_the_key_of_its_users_an_index_is_a_corrupt_file(
    tmp_path: Path, key: object
) -> None:
    hostile.make(tmp_path / "good")
    with closing(sqlite3.connect(tmp_path / "good" / "flywheel.db")) as conn, conn:
        conn.execute("UPDATE meta SET value = ifnull(?, value) WHERE key = 'user_key'", (key,))
        if key is None:
            conn.execute("DELETE FROM meta WHERE key = 'user_key'")
    conn.close()
    with pytest.raises(CorruptFileError, match="user_key"):
        hostile.answer(tmp_path / "good")


def test_a_row_whose_index_disagrees_is_refused_or_harmless(tmp_path: Path) -> None:
    with hostile.opened(tmp_path) as fw:
        fw.add(hostile.PASSAGES)
        fw.refresh()
        fw.feedback(fw.retrieve(QUERY).id, "p3", "helpful", user_id="u")
    path = tmp_path / "flywheel.db"
    with closing(sqlite3.connect(path)) as conn, conn:
        (name,) = conn.execute("SELECT query_hash FROM retrievals").fetchone()
    conn.close()
    sound = path.read_bytes()
    places = [i for i in range(len(sound)) if sound.startswith(name, i)]
    refused = []
    for place in places:
        path.write_bytes(sound[:place] + b"9" * len(name) + sound[place + len(name) :])
        with hostile.opened(tmp_path) as fw:
            assert fw.verify()
        try:
            hostile.answer(tmp_path)
            with hostile.opened(tmp_path) as fw:
                fw.refresh()
        except CorruptFileError as error:
            refused.append(str(error))
    assert any("other rows name" in why for why in refused)


def live(root: Path) -> Path:
    return root / "versions" / (root / "CURRENT").read_text().split()[0]


def sparse(path: Path, header: bytes) -> None:
    """A file that says it is huge, and is, without any block on the disk."""
    path.write_bytes(header)
    os.truncate(path, 2**42)


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(1, 1000000000000)", "(-1,)", "(4, 4)"])
def test_a_shape_that_the_file_does_not_hold_takes_no_memory(tmp_path: Path, shape: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros(4, np.float32))
    data = (tmp_path / "a.npy").read_bytes()
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    (tmp_path / "a.npy").write_bytes(data[:10] + head.ljust(117) + b"\n" + data[128:])
    with pytest.raises(ValueError, match="header"):
        read_array(tmp_path / "a.npy")


def test_a_file_of_four_terabytes_is_not_read(tmp_path: Path) -> None:
    sparse(tmp_path / "a.npy", b"\x93NUMPY\x01\x00")
    with pytest.raises(ValueError, match="bytes; expected"):
        read_array(tmp_path / "a.npy")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="a folder or a device"):
        read_bytes(tmp_path / "pipe", most=10)


@pytest.mark.parametrize("shape", ["(3000000000, 16)", "(3, 17)", "(-3, 16)", "(48,)", "(0, 16)"])
def test_a_count_of_vectors_that_the_file_does_not_hold(tmp_path: Path, shape: str) -> None:
    vectors = WordEncoder(16).encode_passages(["a", "b", "c"])
    DenseIndex.build(np.arange(3), vectors).save(tmp_path)
    (path,) = (tmp_path / "vectors").glob("0*.npy")
    data = path.read_bytes()
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    path.write_bytes(data[:10] + head.ljust(117) + b"\n" + data[128:])
    with pytest.raises(CorruptFileError, match="cannot be read"):
        DenseIndex.load(tmp_path, dim=16)


def test_vectors_of_another_length_or_number_order_are_refused(tmp_path: Path) -> None:
    vectors = WordEncoder(16).encode_passages(["a", "b", "c"])
    for name, pids, rows in (
        ("long", np.arange(3), vectors * 3),
        ("nan", np.arange(3), np.full_like(vectors, np.nan)),
        ("order", np.array([2, 1, 3]), vectors),
        ("below", np.array([-1, 1, 3]), vectors),
    ):
        (tmp_path / name).mkdir()
        DenseIndex.build(pids, rows).save(tmp_path / name)
        with pytest.raises(CorruptFileError):
            DenseIndex.load(tmp_path / name, dim=16)


def test_a_filter_on_huge_numbers_of_passages_takes_no_memory_for_those_between() -> None:
    vectors = WordEncoder(16).encode_passages(["a", "b", "c"])
    pids = np.array([1, 2**40, 2**61])
    index = DenseIndex.build(pids, vectors)
    (found,) = index.search(vectors[2:], 3, Part.of(pids > pids[0]))
    assert found.tolist()[0] == 2**61
    assert set(found.tolist()) == {2**40, 2**61}


@pytest.mark.parametrize(
    "name", ["../../flywheel.db", "/etc/passwd", "a/b/c/d/e/f", ".hidden", "", "x" * 200]
)
def test_a_manifest_that_names_files_elsewhere(folder: Path, name: str) -> None:
    path = live(folder) / "manifest.json"
    values = json.loads(path.read_text())
    values["files"][name] = ["0" * 64, 1]
    path.write_text(json.dumps(values))
    with pytest.raises(CorruptFileError, match="no usable manifest"):
        use(folder)


@pytest.mark.parametrize("what", ["files", "size"])
def test_a_manifest_without_measure(folder: Path, what: str) -> None:
    path = live(folder) / "manifest.json"
    values = json.loads(path.read_text())
    if what == "files":
        values["files"] = {f"f{i}": ["0" * 64, 1] for i in range(1_001)}
    path.write_text(json.dumps(values) + " " * (0 if what == "files" else 4_000_001))
    with pytest.raises(CorruptFileError, match="no usable manifest"):
        use(folder)


def as_link(path: Path) -> None:
    moved = path.with_name("elsewhere")
    path.rename(moved)
    path.symlink_to(moved.name)


@pytest.mark.parametrize("name", ["", "tokens", "tokens/ids-1.npy", "manifest.json"])
def test_links_in_place_of_a_version_or_its_parts_are_refused(folder: Path, name: str) -> None:
    expected = use(folder)
    as_link(live(folder) / name if name else live(folder))
    with pytest.raises(CorruptFileError):
        use(folder)
    with opened(folder) as fw:
        assert fw.verify()
        assert fw.repair()
        assert fw.verify() == []
    assert use(folder) == expected


def change_rows(root: Path, statements: str) -> None:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        conn.execute("PRAGMA ignore_check_constraints=ON")
        conn.executescript(statements)
    conn.close()


ROWS = {
    "clock": "UPDATE clock SET seq = -5",
    "clock text": "UPDATE clock SET seq = 'soon'",
    "no clock": "DELETE FROM clock",
    "huge clock": "UPDATE clock SET seq = 9223372036854775807",
    "text": "UPDATE passages SET text = x'00ff'",
    "text that is no utf-8": "UPDATE passages SET text = CAST(x'ff41' AS TEXT)",
    "hash": "UPDATE passages SET text_hash = 12345678901234",
    "wrong hash": "UPDATE passages SET text_hash = zeroblob(16) WHERE pid = 3",
    "lineage": "UPDATE passages SET lineage = 'x'",
    "metadata": "UPDATE passages SET metadata = '{'",
    "deep metadata": "UPDATE passages SET metadata = replace(hex(zeroblob(50000)), '0', '[')",
    "hits": "UPDATE retrievals SET hits = 'none'",
    "hits of another kind": "UPDATE retrievals SET hits = '[[1, 2]]'",
    "hit that is no number": "UPDATE retrievals SET hits = '[[1, \"p1\", NaN, {}]]'",
    "query hash": "UPDATE retrievals SET query_hash = 1099511627776",
    "filter": "UPDATE retrievals SET filter = '[3'",
    "vote": "UPDATE votes SET verdict = 'splendid'",
    "time": "UPDATE votes SET at = 'yesterday'",
    "orphan": "UPDATE votes SET pid = 999999",
    "credit": "INSERT INTO answer_votes (seq, rid, kind, verdict, at) VALUES "
    "(1, 1, 'answer', 'helpful', 1); INSERT INTO credits VALUES (1, 1, 7.5)",
    "kind of feedback": "INSERT INTO answer_votes (seq, rid, kind, verdict, at) VALUES "
    "(1, 1, 'splendid', 'helpful', 1); INSERT INTO credits VALUES (1, 1, 0.5)",
    "loose credit": "INSERT INTO credits VALUES (99, 1, 0.5)",
    "note": "INSERT INTO notes (rid, kind, text, at) VALUES (1, 'text', x'ff', 1)",
    "width": "UPDATE meta SET value = 'wide' WHERE key = 'dim'",
    "move": "INSERT INTO moves (at, action, version, frozen_at) VALUES (1, 'found', x'00', 'x')",
}


@pytest.mark.parametrize("kind", sorted(ROWS))
def test_a_row_that_cannot_be_is_named_and_gives_no_other_error(folder: Path, kind: str) -> None:
    change_rows(folder, ROWS[kind])
    try:
        with opened(folder) as fw:
            shown = fw.retrieve(QUERY)
            fw.feedback(shown.id, shown.hits[0].passage_id, "helpful")
            fw.refresh()
    except FlywheelError:
        pass
    try:
        with opened(folder) as fw:
            assert any("flywheel.db" in said for said in fw.verify())
            with pytest.raises(CorruptFileError, match=r"Nothing was changed.*\.recover"):
                fw.repair()
    except CorruptFileError as error:
        assert "flywheel.db" in str(error)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER evil AFTER INSERT ON votes BEGIN DELETE FROM passages; END",
        "ALTER TABLE votes RENAME TO v; CREATE VIEW votes AS SELECT * FROM v",
        "DROP TABLE forgets",
        "DROP INDEX passages_born",
        "DROP TRIGGER moves_update",
        "ALTER TABLE votes DROP COLUMN reason",
        "ALTER TABLE votes ADD COLUMN more TEXT",
        "CREATE TABLE more (x)",
        "DROP TABLE _sqlite_migrations",
        "CREATE INDEX evil ON passages (upper(text))",
    ],
)
def test_another_schema_is_refused_at_open(folder: Path, statement: str) -> None:
    change_rows(folder, statement)
    with pytest.raises(CorruptFileError, match=r"flywheel\.db: .*restore"):
        opened(folder)


@pytest.mark.parametrize(
    "vector", ["'text'", "x'00'", "zeroblob(256)", "zeroblob(255)", "randomblob(64)"]
)
def test_vectors_that_cannot_be_used_are_named_and_made_anew(folder: Path, vector: str) -> None:
    expected = use(folder)
    change_rows(folder, f"UPDATE vectors SET vector = {vector}")
    with opened(folder) as fw:
        assert any("vectors" in said and "repair" in said for said in fw.verify())
        with pytest.raises(CorruptFileError, match="repair"):
            ids(fw)
        done = fw.repair()
        assert done[0].startswith("dropped")
        assert fw.verify() == []
    assert use(folder) == expected
