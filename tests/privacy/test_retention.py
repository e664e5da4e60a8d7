"""What is old loses who and why, and no judgment and no answer changes by it."""

import json
import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from fakes import WordEncoder
from forgetting import log_of, query_name, rows, traces
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.curate.judgments import judgments
from rag_flywheel.errors import ConfigError
from rag_flywheel.records import Judgment
from rag_flywheel.store import votes as vote_store
from thorough import thorough

DAY_S = 86_400.0
QUERIES = ["reset login", "refund secret", "page month reset", "login page"]
PASSAGES = [Passage(f"p{i}", f"{q} text{i}") for i, q in enumerate(QUERIES)]
SECRETS = ["ann-4711", "session-0815", "the answer given", "the reason why"]


def opened(root: Path) -> Flywheel:
    config = Config(encoder="", retention_days=30)
    return Flywheel.open(root, encoder=WordEncoder(dim=32), config=config)


def age(root: Path, table: str, days: float, where: str = "1 = 1") -> None:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        conn.execute(f"UPDATE {table} SET at = at - ? WHERE {where}", (days * DAY_S,))


def age_both(root: Path, days: float) -> None:
    """Of answers and of votes."""
    for table in ("retrievals", "votes"):
        age(root, table, days)


def judged(root: Path) -> list[Judgment]:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        return judgments(vote_store.votes_until(conn, 2**62), half_life_days=90, now=2e9)


def answers(fw: Flywheel) -> list[Any]:
    found = fw.retrieve_many([*QUERIES, "my login"], record=False)
    return [[(h.passage_id, pytest.approx(h.score, abs=1e-6)) for h in r.hits] for r in found]


asks = st.tuples(st.just("ask"), st.integers(0, 3), st.sampled_from(["ann", "bob", None]))
votes = st.tuples(
    st.just("vote"),
    st.integers(0, 20),
    st.integers(0, 3),
    st.sampled_from(["ann", "bob", None]),
    st.sampled_from(["helpful", "harmful", "retract"]),
)
judges = st.tuples(
    st.just("judge"),
    st.integers(0, 20),
    st.sampled_from(["ann", "bob", None]),
    st.sampled_from(["helpful", "harmful", "retract"]),
    st.booleans(),
)
others = st.sampled_from([("age", 10), ("age", 40), ("refresh",), ("edit", 0), ("remove", 1)])


@thorough(25, few=3, phases=(Phase.reuse, Phase.generate))
@given(st.lists(st.one_of(asks, votes, votes, judges, others), min_size=4, max_size=24))
def test_judgments_and_answers_are_the_same_after_folding(history: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as folder, opened(Path(folder) / "kb") as fw:
        root, asked = Path(folder) / "kb", []
        fw.add(PASSAGES)
        for kind, *more in history:
            if kind == "ask":
                asked.append(fw.retrieve(QUERIES[more[0]], user_id=more[1]))
            elif kind == "vote" and asked:
                which, hit, user, verdict = more
                shown = asked[which % len(asked)]
                passage = shown.hits[hit % len(shown.hits)].passage_id
                fw.feedback(shown.id, passage, verdict, user_id=user)
            elif kind == "judge" and asked:
                which, user, verdict, read = more
                shown = asked[which % len(asked)]
                text = " ".join(h.text for h in shown.hits[:2])
                given = {"answer": text} if read and verdict != "retract" else {}
                fw.answer_feedback(shown.id, verdict, user_id=user, **given)
            elif kind == "age":
                for table in ("retrievals", "votes", "answer_votes"):
                    age(root, table, more[0])
            elif kind == "edit":
                fw.add([Passage("p0", "quite another text")])
            elif kind == "remove" and len(fw.passages()) == len(PASSAGES):
                fw.remove(["p1"])
            elif kind == "refresh":
                fw.refresh()
                asked = [a for a in asked if a.id in {r["id"] for r in log_of(root).retrievals}]
        fw.add([Passage("more", "so that there is something to do")])
        plain = root.parent / "plain"
        with replace_retention(root, plain) as unfolded:
            unfolded.refresh()
            fw.refresh()
            assert judged(root) == judged(plain)
            assert answers(fw) == answers(unfolded)
            with Flywheel.open(root, encoder=WordEncoder(dim=32)) as other:  # all read again
                assert answers(other) == answers(unfolded)
        assert_folded(root)
        fw.refresh()
        assert (fw.refresh().outcome, fw.verify()) == ("unchanged", [])


@pytest.mark.parametrize("read", [False, True])
def test_what_was_taken_back_on_another_answer_does_not_come_back(
    tmp_path: Path, read: bool
) -> None:
    """It did: the retraction was folded away while the vote waited, on an answer voted on since."""
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        first, second = (fw.retrieve(QUERIES[1], user_id="bob") for _ in range(2))
        passage = first.hits[0].passage_id
        fw.feedback(first.id, passage, "harmful", user_id="ann")
        if read:
            fw.answer_feedback(first.id, "helpful", answer=first.hits[0].text, user_id="ann")
        fw.feedback(second.id, passage, "retract", user_id="ann")
        fw.feedback(second.id, second.hits[1].passage_id, "helpful", user_id="cy")
        fw.refresh()
        for table in ("retrievals", "votes", "answer_votes"):
            age(root, table, 40)
        fw.feedback(first.id, passage, "harmful", user_id="bob")
        before = judged(root)
        fw.refresh()  # folds the second answer alone
        left = {r["id"]: r["user_id"] is not None for r in log_of(root).retrievals}
        assert left == {first.id: True, second.id: False}
        assert judged(root) == before


def test_a_vote_that_is_not_old_keeps_its_user(tmp_path: Path) -> None:
    """It did not, once an old answer to the same question was folded."""
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        old = fw.retrieve(QUERIES[1], user_id="bob")
        fw.feedback(old.id, old.hits[0].passage_id, "helpful", user_id="bob")
        age_both(root, 40)
        new = fw.retrieve(QUERIES[1], user_id="ann")
        fw.feedback(new.id, new.hits[0].passage_id, "harmful", user_id="ann", reason="wrong page")
        before = log_of(root).votes
        fw.refresh()
        assert fw.refresh().outcome == "unchanged"
        after = log_of(root).votes
    assert after[0]["user_id"] != before[0]["user_id"]
    assert after[1] == before[1]
    assert after[1]["reason"] == "wrong page"


def replace_retention(root: Path, plain: Path) -> Flywheel:
    """A copy of a folder that keeps everything."""
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(root, plain)
    settings_file = plain / "flywheel.toml"
    lines = settings_file.read_text().splitlines()
    settings_file.write_text("\n".join(x for x in lines if "retention" not in x) + "\n")
    return Flywheel.open(plain, encoder=WordEncoder(dim=32))


def assert_folded(root: Path) -> None:
    """Nothing old says who, and every old retrieval has a vote or is the first of its question."""
    log, cutoff = log_of(root), time.time() - 30 * DAY_S
    said = [*log.votes, *log.answers]
    voted = {v["rid"] for v in said}
    hashes = {r["query_hash"] for r in log.retrievals if r["rid"] in voted}
    for row in log.retrievals:
        mine = [v for v in said if v["rid"] == row["rid"]]
        if row["at"] < cutoff and all(v["at"] < cutoff for v in mine):
            assert (row["user_id"], row["session_id"], row["answer"], row["latency_ms"]) == (
                None,
                None,
                None,
                0,
            )
            assert row["folded"] is not None
            assert mine or row["query_hash"] in hashes
            assert all(v["verdict"] != "retract" for v in mine)
            named = [v["user_id"] for v in mine if v["user_id"] is not None]
            assert all(re.fullmatch("once:[0-9a-f]{32}", user) for user in named)
            assert len(set(named)) == len(named)
    vectors = {r["text_hash"] for r in rows(root, "SELECT text_hash FROM vectors")}
    asked = {r["query_hash"] for r in log.retrievals}
    assert {query_name(root, q) for q in QUERIES} & vectors == asked & vectors
    assert asked <= vectors


def test_what_is_old_says_no_longer_who_and_why(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        for old in (True, False):
            question = "reset login" if old else "reset my login"
            shown = fw.retrieve(question, user_id="ann-4711", session_id="session-0815")
            fw.answer(str(shown.id), "the answer given")
            for user in ("ann-4711", "bob", None, None):
                fw.feedback(shown.id, "p0", "helpful", user_id=user, reason="the reason why")
            fw.retrieve(f"nobody voted {old}")
            if old:
                age_both(root, 31)
        fw.refresh()
        log = log_of(root)
        assert [r["query"] for r in log.retrievals] == [
            "reset login",
            "reset my login",
            "nobody voted False",
        ]
        first, second = log.retrievals[:2]
        assert (first["user_id"], first["answer"]) == (None, None)
        assert None not in (second["user_id"], second["session_id"], second["answer"])
        voices = [v["user_id"] for v in log.votes if v["rid"] == first["rid"]]
        assert len(set(voices)) == 3 and voices.count(None) == 1  # nobody stays nobody
        assert [v["reason"] for v in log.votes] == [None] * 3 + ["the reason why"] * 4
        assert (
            rows(
                root,
                "SELECT * FROM vectors WHERE text_hash = ?",
                query_name(root, "nobody voted True"),
            )
            == []
        )
        age(root, "retrievals", 31)
        age(root, "votes", 31, "reason IS NOT NULL AND user_id IS NULL")
        fw.refresh()
        assert log_of(root).votes == rows(root, "SELECT * FROM votes")
        assert log_of(root).retrievals[1]["user_id"] is not None  # it has younger votes
        age(root, "votes", 31)
        fw.refresh()
        assert {r["user_id"] for r in log_of(root).retrievals} == {None}
        fw.forget("nobody")
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        conn.execute("VACUUM")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert traces(root, SECRETS) == []


def test_the_first_answer_to_a_question_stays_while_votes_on_it_stand(tmp_path: Path) -> None:
    root, plain = tmp_path / "kb", tmp_path / "plain"
    with opened(root) as fw:
        fw.add(PASSAGES)
        fw.retrieve("reset login")  # what was known before any vote, in full
        shown = fw.retrieve("reset login", k=1)
        voted = shown.hits[0].passage_id
        fw.feedback(shown.id, voted, "harmful", user_id="ann")
        fw.remove([voted])  # so that no version remembers the question
        age_both(root, 31)
        with replace_retention(root, plain) as unfolded:
            unfolded.refresh()
            fw.refresh()
            with opened(root) as other:
                assert answers(other) == answers(unfolded)
        assert_folded(root)
        first, second = log_of(root).retrievals
        assert len(json.loads(first["hits"])) > len(json.loads(second["hits"])) == 1


def test_an_old_answer_that_is_voted_on_again_loses_that_voter_too_once_the_vote_is_old(
    tmp_path: Path,
) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        shown = fw.retrieve("reset login", user_id="ann-4711")
        fw.feedback(shown.id, "p0", "helpful", user_id="ann-4711")
        for user in (None, "bob", "cid"):
            if user is not None:
                fw.feedback(shown.id, "p0", "helpful", user_id=user, reason="the reason why")
            fw.refresh()
            age_both(root, 31)
            fw.refresh()
            voices = [v["user_id"] for v in log_of(root).votes]
            assert all(re.fullmatch("once:[0-9a-f]{32}", str(voice)) for voice in voices), voices
            assert {v["reason"] for v in log_of(root).votes} == {None}
        assert len(set(voices)) == 3


@pytest.mark.parametrize(("days", "is_old"), [(29, False), (31, True)])
def test_what_is_old_is_older_than_the_days_of_the_settings(
    tmp_path: Path, days: int, is_old: bool
) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        shown = fw.retrieve("reset login", user_id="ann-4711")
        fw.feedback(shown.id, "p0", "helpful", user_id="ann-4711")
        fw.refresh()
        age_both(root, days)
        fw.refresh()
        assert [r["user_id"] is None for r in log_of(root).retrievals] == [is_old]


@pytest.mark.slow
def test_many_batches(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        for part in range(3):
            fw.retrieve_many([f"question {part} {n}" for n in range(400)])
        age(root, "retrievals", 31, "rid % 2 = 1")
        fw.refresh()
        assert fw.status().n_retrievals == 600


def test_votes_of_which_the_live_version_does_not_know_wait(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        shown = fw.retrieve("reset login", user_id="ann")
        fw.feedback(shown.id, "p0", "helpful", user_id="ann")
        fw.refresh()
        fw.feedback(shown.id, "p0", "retract", user_id="ann")
        age_both(root, 31)
        assert fw.refresh(if_votes=5).outcome == "unchanged"
        assert fw.status().n_votes == 2
        assert fw.refresh().outcome == "promoted"  # nothing was lost of what is new
        assert (fw.status().n_votes, fw.status().n_retrievals) == (0, 0)


@pytest.mark.parametrize("what", ["note", "text", "correction", "vote"])
def test_an_old_answer_keeps_its_user_while_something_on_it_is_not_old(
    tmp_path: Path, what: str
) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        shown = fw.retrieve("reset login", user_id="ann-4711", session_id="session-0815")
        fw.refresh()
        age(root, "retrievals", 40)
        before = log_of(root).retrievals
        if what == "note":
            fw.missing(shown.id, "the reason why", user_id="ann-4711")
        elif what == "text":
            fw.correct(shown.id, text="the reason why", user_id="ann-4711")
        elif what == "correction":
            fw.correct(shown.id, "p3", user_id="ann-4711")
        else:
            fw.feedback(shown.id, "p0", "helpful", user_id="ann-4711", reason="the reason why")
        fw.refresh()
        assert log_of(root).retrievals == before
        assert None not in (before[0]["user_id"], before[0]["session_id"])
        for table in ("notes", "corrections", "votes", "answer_votes"):
            age(root, table, 40)
            assert all(row["user_id"] for row in rows(root, f"SELECT user_id FROM {table}"))
        fw.refresh()
        (row,) = log_of(root).retrievals
        assert (row["user_id"], row["session_id"]) == (None, None)


@pytest.mark.parametrize("days", [0, -1, True, "30", 1e6])
def test_days_that_cannot_be(days: Any) -> None:
    with pytest.raises(ConfigError, match="retention_days"):
        Config(retention_days=days)
