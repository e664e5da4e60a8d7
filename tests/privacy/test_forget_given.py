"""Forgetting and folding reach the candidates that an application gave."""

from pathlib import Path

import pytest

from fakes import WordEncoder
from forgetting import opened, rows, traces
from plain_model import ids, scores
from rag_flywheel import Candidate, Config, Flywheel, Passage, Vote
from rag_flywheel.store.given_texts import drop_unused_given

SECRET = "the letter that only ann may read"
GIVEN = [
    Candidate("shared", "how passwords are reset", 0.9, "Passwords"),
    Candidate("public", "opening hours of the desk", 0.7),
    Candidate("low", "nobody was ever shown this", 0.1),
]


def test_the_texts_that_only_a_forgotten_user_was_given_go_with_their_questions(
    tmp_path: Path,
) -> None:
    root, asked = tmp_path / "kb", list[tuple[str | None, str]]()
    with opened(root) as fw:
        for user in ("ann", "bob"):
            for n in range(3):
                own = Candidate(f"of {user}", SECRET if user == "ann" else "a letter to bob", 0.8)
                shown = fw.rerank(f"reset password {n}", [*GIVEN, own], 2, user_id=user)
                assert ids(shown) == ["shared", f"of {user}"]
                asked.append((shown.id, user))
        fw.feedback_many(Vote(id_, "shared", "harmful", user) for id_, user in asked)
        assert traces(root, [SECRET]) and len(rows(root, "SELECT * FROM passages")) == 5
        kept = rows(root, "SELECT * FROM retrievals WHERE rid > 3")
        report = fw.forget("ann")
        assert (report.n_retrievals, report.n_votes) == (3, 3)
        assert traces(root, [SECRET]) == []
        assert rows(root, "SELECT * FROM retrievals") == kept
        names = {row["id"] for row in rows(root, "SELECT id FROM passages")}
        assert names == {"shared", "public", "low", "of bob"}
        assert fw.verify() == []
        after = fw.rerank("reset password 1", GIVEN, record=False)
        assert ids(after)[0] == "public"  # bob's vote still counts
        again = fw.rerank("reset password 1", [*GIVEN, Candidate("of ann", SECRET, 0.8)])
        assert fw.feedback_many([Vote(again.id, "of ann", "helpful", "bob")]) == 1
        assert fw.verify() == []


def test_texts_that_votes_corrections_or_passages_rest_on_stay(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        asked = fw.rerank("reset password", GIVEN, user_id="bob")
        fw.feedback(asked.id, "shared", "helpful", user_id="bob")
        with fw._database.transaction() as conn:
            conn.execute("UPDATE retrievals SET candidates = NULL, hits = '[]'")
            assert drop_unused_given(conn) == 2
        assert [row["id"] for row in rows(root, "SELECT id FROM passages")] == ["shared"]


def test_folding_keeps_the_candidates_that_votes_were_cast_on(tmp_path: Path) -> None:
    root, config = tmp_path / "kb", Config(encoder="", retention_days=30.0)
    with Flywheel.open(root, encoder=WordEncoder(dim=32), config=config) as fw:
        voted = fw.rerank("reset password", GIVEN, 2, user_id="ann")
        fw.feedback(voted.id, "public", "helpful", user_id="ann")
        fw.rerank("opening hours", [Candidate("lone", "nothing rests on this", 1.0)])
        fw.refresh()
        before = scores(fw.rerank("reset password", GIVEN, record=False))
        stored = rows(root, "SELECT candidates, hits FROM retrievals WHERE rid = 1")
        with fw._database.transaction() as conn:
            for table in ("retrievals", "votes"):
                conn.execute(f"UPDATE {table} SET at = at - 31 * 86400")
        fw.refresh()
        assert rows(root, "SELECT candidates, hits FROM retrievals") == stored
        names = {row["id"] for row in rows(root, "SELECT id FROM passages")}
        assert names == {"shared", "public", "low"}
        fw.refresh()
        after = scores(fw.rerank("reset password", GIVEN, record=False))
        assert after == pytest.approx(before, abs=1e-6)
        assert fw.verify() == []


def aged(fw: Flywheel, days: int = 31) -> None:
    with fw._database.transaction() as conn:
        for table in ("retrievals", "votes"):
            conn.execute(f"UPDATE {table} SET at = at - ?", (days * 86_400,))


def test_an_old_text_with_votes_leaves_its_digest_and_comes_back_when_it_is_given_again(
    tmp_path: Path,
) -> None:
    root = tmp_path / "kb"
    config = Config(encoder="", retention_days=30.0, tenant_key="team")
    own = Candidate("letter", SECRET, 0.8, "to ann", {"team": "a", "by": "bob"})
    with Flywheel.open(root, encoder=WordEncoder(dim=32), config=config) as fw:
        shown = fw.rerank("reset password", [*GIVEN, own], user_id="ann", tenant="a")
        for user in ("ann", "bob", "cy"):
            fw.feedback(shown.id, "letter", "helpful", user_id=user, tenant="a")
        fw.refresh()
        aged(fw)
        fw.refresh()
        kept = rows(root, "SELECT id, title, text, metadata FROM passages ORDER BY pid")
        assert kept == [
            {
                "id": id_,
                "title": "",
                "text": "",
                "metadata": '{"team": "a"}' if id_ == "letter" else "{}",
            }
            for id_ in ("shared", "letter", "public", "low")
        ]
        assert fw.verify() == []
        assert fw.refresh().outcome == "unchanged"
        fw.add([Passage("more", "something to do", "", {"team": "a"})])
        assert fw.refresh().outcome == "promoted"  # without what was erased
        again = fw.rerank("reset password", [*GIVEN, own], user_id="dan", tenant="a")
        assert ids(again)[0] == "letter"
        assert len(again.hits[0].explanation.votes) == 3
        elsewhere = Candidate("other id", SECRET, 0.8, "to ann", {"team": "a"})
        assert ids(fw.rerank("reset password", [*GIVEN, elsewhere], tenant="a"))[0] == "other id"
        (row,) = rows(root, "SELECT title, text, metadata FROM passages WHERE id = 'letter'")
        assert row["text"] == SECRET and row["title"] == "to ann" and "bob" in row["metadata"]
        assert fw.verify() == []


def test_a_text_of_a_young_question_too_stays(tmp_path: Path) -> None:
    root, config = tmp_path / "kb", Config(encoder="", retention_days=30.0)
    with Flywheel.open(root, encoder=WordEncoder(dim=32), config=config) as fw:
        old = fw.rerank("reset password", GIVEN, 2)
        fw.feedback(old.id, "public", "helpful", user_id="ann")
        fw.refresh()
        aged(fw)
        fw.rerank("opening hours", [GIVEN[1]])
        fw.refresh()
        texts = {r["id"]: r["text"] for r in rows(root, "SELECT id, text FROM passages")}
        assert texts == {"shared": "", "public": GIVEN[1].text, "low": ""}


def test_forgetting_erases_a_text_that_only_its_heir_needs(tmp_path: Path) -> None:
    """The same text under another id inherits its votes, and has a question of its own."""
    root = tmp_path / "kb"
    with opened(root) as fw:
        first = fw.rerank(
            "reset password", [Candidate("secret title", "a letter", 1.0)], user_id="ann"
        )
        fw.rerank(
            "reset password", [Candidate("other", "secret title a letter", 1.0)], user_id="ann"
        )
        fw.add([Passage("page", "a letter")])
        fw.rerank("reset password", [Candidate("third", "a letter", 1.0)], user_id="bob")
        assert first.id is not None
        fw.forget("ann")
        texts = {r["id"]: r["text"] for r in rows(root, "SELECT id, text FROM passages")}
        assert texts == {"secret title": "", "page": "a letter", "third": "a letter"}
        assert fw.verify() == []


def test_a_text_goes_with_the_last_of_those_that_inherit_its_votes(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        for id_ in ("first", "second", "third"):
            fw.rerank("reset password", [Candidate(id_, SECRET, 1.0)], user_id="ann")
        lineages = [r["lineage"] for r in rows(root, "SELECT lineage FROM passages")]
        assert len(lineages) == 3 and len(set(lineages)) == 1
        fw.forget("ann")
        assert rows(root, "SELECT * FROM passages") == []
        assert (traces(root, [SECRET]), fw.verify()) == ([], [])
