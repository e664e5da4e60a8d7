"""Who has the versions of an index, but not its database, cannot try guesses at questions and users."""

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from forgetting import key_of, query_name, user_hash
from gates import QUERIES, gate_of, make_history, opened
from plain_model import topics
from rag_flywheel.store.passages import normalised, query_digest

ALGORITHMS = sorted(hashlib.algorithms_guaranteed - {"shake_128", "shake_256"})
SIZES = 8, 16, 20, 24, 32, 48  # of BLAKE2b, whose digests of two sizes have nothing in common
USERS = [f"user {i}" for i in range(20)]


def digests(text: str) -> Iterator[bytes]:
    """Digests of a text as people hash texts: by many algorithms, in many forms."""
    forms = {text, normalised(text), text.lower(), text.upper(), f" {text} ", f"{text}\n"}
    kinds = ("", "query\n", "query:", "question\n", "user\n", "q\0")
    for data in {f"{kind}{form}".encode() for form in forms for kind in kinds}:
        for name in ALGORITHMS:
            yield hashlib.new(name, data).digest()
        for size in SIZES:
            yield hashlib.blake2b(data, digest_size=size).digest()
        once = hashlib.sha256(data).digest()
        yield hashlib.sha256(once).digest()


def found_in(folder: Path, needles: set[bytes]) -> set[bytes]:
    """Those of some strings of 8 bytes or more that are in the bytes of a folder, as they are or in hex,
    or that begin with 8 bytes that are."""
    forms = {n[:8]: n for n in needles} | {n.hex().encode()[:16]: n for n in needles}
    found = set[bytes]()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes() + bytes(8)
        windows = np.concatenate(
            [np.frombuffer(data[i : i + (len(data) - i) // 8 * 8], "<u8") for i in range(8)]
        )
        wanted = np.array([int.from_bytes(form[:8], "little") for form in forms], np.uint64)
        there = np.isin(wanted, windows)
        found |= {
            n for (form, n), hit in zip(forms.items(), there, strict=True) if hit and form in data
        }
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that learned from votes, brought new weights before the gate, and knows answers."""
    root = tmp_path_factory.mktemp("names") / "kb"
    make_history(root)
    with opened(root) as fw:
        for i, query in enumerate(QUERIES[:20]):
            shown = fw.retrieve(query, user_id=USERS[i])
            fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id=USERS[i])
        for query in QUERIES[20:30]:
            fw.pin(query, fw.retrieve(query, record=False).hits[0].passage_id)
        fw.refresh()
        assert gate_of(fw)["queries"]
    return root


def test_no_digest_of_a_question_or_user_is_in_a_version(root: Path) -> None:
    guesses = {digest for text in [*QUERIES, *USERS] for digest in digests(text)}
    assert len(guesses) > 50_000
    assert found_in(root / "versions", guesses) == set()


def test_nor_are_their_texts(root: Path) -> None:
    for path in (root / "versions").rglob("*"):
        if path.is_file():
            data = path.read_bytes().lower()
            assert not [text for text in [*QUERIES, *USERS] if text.encode() in data], path


def test_with_the_key_of_the_database_they_are_found(root: Path) -> None:
    """Else the tests above could not fail."""
    names = {query_name(root, query) for query in QUERIES}
    assert len(found_in(root / "versions", names)) > 100
    users = {bytes.fromhex(user_hash(root, user)) for user in USERS}
    assert found_in(root / "versions", users) == users


def test_the_key_is_in_the_database_alone(root: Path) -> None:
    key = key_of(root)
    derived = hashlib.blake2b(b"questions", key=key, digest_size=32).digest()
    assert found_in(root / "versions", {key, derived}) == set()
    for path in root.rglob("*"):
        if path.is_file() and not path.name.startswith("flywheel.db"):
            assert not re.search(re.escape(key.hex()).encode(), path.read_bytes()), path


def test_an_index_of_before_finds_its_questions_by_their_new_names(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(topics(5))
        shown = fw.retrieve(QUERIES[0], user_id="ann")
        fw.feedback(shown.id, shown.hits[-1].passage_id, "helpful", user_id="ann")
        fw.pin(QUERIES[1], shown.hits[0].passage_id)
        before = [(h.passage_id, h.score) for h in fw.retrieve(QUERIES[0], record=False).hits]
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        for query in QUERIES[:2]:
            names = query_digest(query), query_name(root, query)
            for table in ("retrievals", "golden"):
                conn.execute(f"UPDATE {table} SET query_hash = ? WHERE query_hash = ?", names)
            conn.execute("UPDATE vectors SET text_hash = ? WHERE text_hash = ?", names)
        conn.execute("DELETE FROM _sqlite_migrations WHERE name LIKE 'm024%'")
    with opened(root) as fw:
        assert fw.verify() == []
        n = fw._slot.get().n_encoded  # type: ignore[attr-defined]
        after = [(h.passage_id, h.score) for h in fw.retrieve(QUERIES[0], record=False).hits]
        assert fw._slot.get().n_encoded == n + 1  # type: ignore[attr-defined]  # the query alone
    assert after == before


def test_two_folders_have_no_name_in_common(root: Path, tmp_path: Path) -> None:
    make_history(tmp_path / "kb")
    names = {query_name(root, query) for query in QUERIES}
    assert not names & {query_name(tmp_path / "kb", query) for query in QUERIES}
