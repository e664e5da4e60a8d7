"""What tests of forgetting share: the rows of a log, their replay in a fresh folder, and a search of
every byte of a folder."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.curate.judgments import judgments
from rag_flywheel.deploy.loaded import load_memory as read_memory
from rag_flywheel.deploy.loaded import load_parameters
from rag_flywheel.privacy.ids import hashed
from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import Judgment
from rag_flywheel.store import users
from rag_flywheel.store import votes as vote_store
from rag_flywheel.store.questions import query_hash, question_key
from stored_bytes import stored_bytes

Row = dict[str, Any]


@dataclass(frozen=True)
class Log:
    """Rows of the tables `retrievals`, `votes`, `answer_votes` and `credits`."""

    retrievals: list[Row]
    votes: list[Row]
    answers: list[Row] = field(default_factory=list)
    credits: list[Row] = field(default_factory=list)

    def without(self, user: str) -> "Log":
        """What is to remain when a user, given as a hash, is forgotten."""
        kept = [r for r in self.retrievals if r["user_id"] != user]
        rids = {r["rid"] for r in kept}
        votes, answers = (
            [v for v in each if v["rid"] in rids and v["user_id"] != user]
            for each in (self.votes, self.answers)
        )
        return Log(kept, votes, answers, self._credits(answers))

    def first_event_of(self, user: str) -> int:
        """The first event of a user, given as a hash, or on a question of theirs."""
        mine = {r["rid"] for r in self.retrievals if r["user_id"] == user}
        said = [*self.votes, *self.answers]
        own = [v["seq"] for v in said if v["user_id"] == user or v["rid"] in mine]
        return min(own, default=2**62)

    def until(self, seq: int | None) -> "Log":
        """With the votes up to an event number; None: with all."""
        votes, answers = (
            [v for v in each if seq is None or v["seq"] <= seq]
            for each in (self.votes, self.answers)
        )
        return Log(self.retrievals, votes, answers, self._credits(answers))

    def _credits(self, answers: list[Row]) -> list[Row]:
        numbers = {v["seq"] for v in answers}
        return [c for c in self.credits if c["seq"] in numbers]


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(dim=32))


def rows(root: Path, sql: str, *values: object) -> list[Row]:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        conn.row_factory = sqlite3.Row
        return [dict(row) for row in conn.execute(sql, values)]


def log_of(root: Path) -> Log:
    tables = ("retrievals", "votes", "answer_votes", "credits")
    return Log(*(rows(root, f"SELECT * FROM {table}") for table in tables))


def key_of(root: Path) -> bytes:
    """The key of a folder."""
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        return users.user_key(conn)


def user_hash(root: Path, user: str) -> str:
    return hashed(key_of(root), user)


def query_name(root: Path, query: str) -> bytes:
    """The hash that names a question in a folder."""
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        return query_hash(question_key(conn), query)


def replay(root: Path, corpus: Iterable[Passage | str], log: Log, key: bytes) -> Flywheel:
    """A fresh folder after these additions and removals (by id) and this log, refreshed once; key: that
    its users and questions are hashed under."""
    opened(root).close()
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        conn.execute("UPDATE meta SET value = ? WHERE key = ?", (key.hex(), users.USER_KEY))
    fw = opened(root)
    for change in corpus:
        if isinstance(change, Passage):
            fw.add([change])
        else:
            fw.remove([change])
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        for table, found in (
            ("retrievals", log.retrievals),
            ("votes", log.votes),
            ("answer_votes", log.answers),
            ("credits", log.credits),
        ):
            for row in found:
                marks = ", ".join("?" * len(row))
                columns = ", ".join(row)
                conn.execute(
                    f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(row.values())
                )
        last = max((v["seq"] for v in [*log.votes, *log.answers]), default=0)
        conn.execute("UPDATE clock SET seq = max(seq, ?)", (last,))
    assert fw.refresh().outcome == "promoted"
    return fw


@dataclass(frozen=True)
class Learned:
    """What a folder has made of its log."""

    judged: list[Judgment]
    parameters: Parameters
    memory: Memory


def learned(root: Path, fw: Flywheel) -> Learned:
    status = fw.status()
    last = 2**62 if status.frozen_at is None else status.frozen_at
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        judged = judgments(vote_store.votes_until(conn, last))
    folder = root / "versions" / str(status.version)
    return Learned(judged, load_parameters(folder), read_memory(folder))


def assert_same(
    root: Path, fw: Flywheel, other: Path, fresh: Flywheel, queries: Sequence[str]
) -> None:
    """The same judgments, parameters, memory, and answers to these queries."""
    ours, theirs = learned(root, fw), learned(other, fresh)
    assert ours.judged == theirs.judged
    assert ours.parameters == theirs.parameters
    assert ours.memory.keys == theirs.memory.keys
    assert ours.memory.lineages.tolist() == theirs.memory.lineages.tolist()
    assert ours.memory.chances == pytest.approx(theirs.memory.chances, abs=1e-5)
    pairs = zip(
        fw.retrieve_many(queries, k=50, record=False),
        fresh.retrieve_many(queries, k=50, record=False),
        strict=True,
    )
    for one, two in pairs:
        assert [h.passage_id for h in one.hits] == [h.passage_id for h in two.hits]
        assert [h.score for h in one.hits] == pytest.approx([h.score for h in two.hits], abs=1e-5)
        assert [h.explanation.votes for h in one.hits] == [h.explanation.votes for h in two.hits]


def traces(root: Path, secrets: Iterable[str | bytes]) -> list[str]:
    """Which files of a folder, or tables, hold which of these, as UTF-8, UTF-16, hex, or escaped in JSON."""
    found = []
    for name, data in stored_bytes(root):
        for secret in secrets:
            if any(form in data for form in forms(secret)):
                found.append(f"{name}: {secret!r}")
    return found


def forms(secret: str | bytes) -> list[bytes]:
    if isinstance(secret, bytes):
        return [secret, secret.hex().encode()]
    escaped = json.dumps(secret)[1:-1].encode()
    return [secret.encode(), escaped, secret.encode("utf-16-le")]
