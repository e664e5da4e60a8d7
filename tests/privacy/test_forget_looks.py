"""Forgetting users buys no looks of the gate, and weights are learned again instead of dropped."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetting import learned, log_of, traces, user_hash
from gates import QUERIES, candidate_of, gate_of, live, make_history, opened, rows_of
from plain_model import is_answer
from rag_flywheel import Flywheel, Vote
from rag_flywheel.evaluate.trial import Gate
from rag_flywheel.rank.parameters import FITTED, SHIPPED, Parameters
from rag_flywheel.refresh import learn_again
from rag_flywheel.store.journal import Look, looks, record_look
from rag_flywheel.store.place import open_database

N = 12
THROWAWAYS = [f"throwaway {n}" for n in range(N)]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_history(tmp_path_factory.mktemp("history") / "kb")


@pytest.fixture
def voted(history: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(history, tmp_path / "kb"))


def vote_as(fw: Flywheel, user: str, queries: list[str], *, wrong: float = 0.0) -> None:
    rng = np.random.default_rng(len(user))
    for query in queries:
        shown = fw.retrieve(query, user_id=user)
        fw.feedback_many(
            Vote(
                shown.id,
                hit.passage_id,
                "helpful"
                if is_answer(query, hit.passage_id) != (rng.random() < wrong)
                else "harmful",
                user,
            )
            for hit in shown.hits[:2]
        )


def looks_of(fw: Flywheel) -> list[str]:
    """The outcomes of the looks that tested something."""
    return [outcome for _, _, alpha, _, outcome in rows_of(fw) if alpha > 0]


def weights_of(fw: Flywheel) -> dict[str, float]:
    return dict(live(fw).weights)


@pytest.mark.slow
def test_forgetting_twelve_throwaway_users_takes_no_look_and_keeps_what_was_learned(
    voted: Path, tmp_path: Path
) -> None:
    twin = Path(shutil.copytree(voted, tmp_path / "twin"))
    with opened(voted) as fw, opened(twin) as without:
        before = fw.versions()[-1].id
        for n, user in enumerate(THROWAWAYS):
            vote_as(fw, user, QUERIES[n :: 2 * N], wrong=0.1)
        assert fw.refresh().parameters == "new"
        with_all = weights_of(fw)
        hashes = [user_hash(voted, user) for user in THROWAWAYS]
        for n, user in enumerate(THROWAWAYS):
            fw.forget(user)
            assert live(fw).source == FITTED
            assert looks_of(fw) == ["better"], n
            assert before in {v.id for v in fw.versions()}
            assert traces(voted, [hashes[n]]) == []
            assert fw.verify() == []
        assert weights_of(fw) != with_all
        assert gate_of(fw)["again"]["decision"]["outcome"] == "again"
        assert without.refresh().parameters == "new"
        assert weights_of(fw) == weights_of(without)  # as if they had never been there
        ours, theirs = learned(voted, fw), learned(twin, without)
        assert ours.judged == theirs.judged
        assert ours.parameters == theirs.parameters
        assert [v.id for v in fw.versions()] == [fw.status().version, before]
        assert fw.rollback() == before
        assert live(fw).source == SHIPPED
        assert fw.retrieve(QUERIES[0], record=False).version == before
        assert fw.release()


@pytest.mark.slow
def test_forgetting_brings_no_look_nearer(voted: Path, tmp_path: Path) -> None:
    """Users who vote and are forgotten, again and again, get the looks that their votes get without it."""
    twin = Path(shutil.copytree(voted, tmp_path / "twin"))
    with opened(voted) as fw, opened(twin) as without:
        for each in (fw, without):
            each.refresh()
        for user in THROWAWAYS[:5]:
            for each in (fw, without):
                vote_as(each, user, QUERIES[:50], wrong=0.5)
            fw.forget(user)
            for each in (fw, without):
                each.refresh()
            assert len(looks_of(fw)) <= len(looks_of(without))
        assert len(looks_of(without)) > 1
    assert n_counted(voted) == [100] * 5  # so a look that is due without forgetting stays due


def test_second_thoughts_and_retractions_of_the_forgotten_bring_no_look_nearer(voted: Path) -> None:
    with opened(voted) as fw:
        fw.refresh()
        n = rows_of(fw)[0][1]
        for user in THROWAWAYS[:2]:
            shown = fw.retrieve(QUERIES[0], user_id=user)
            hit = shown.hits[0].passage_id
            said = ["helpful", "harmful"] * (n // 4) + ["retract"]
            fw.feedback_many(Vote(shown.id, hit, verdict, user) for verdict in said)  # type: ignore[arg-type]
            fw.forget(user)
        assert n_counted(voted) == [0, 0]
        assert len(rows_of(fw)) == 1


def n_counted(root: Path) -> list[int]:
    database = open_database(root)
    with database.reading() as conn:
        found = conn.execute("SELECT n_counted FROM forgets WHERE state = 'begun'").fetchall()
    database.close()
    return [row[0] for row in found]


@pytest.mark.slow
def test_what_only_the_forgotten_bore_out_is_withdrawn_and_its_looks_count_on(
    tmp_path: Path,
) -> None:
    root = make_history_of_one(tmp_path / "kb")
    with opened(root) as fw:
        assert fw.refresh().parameters == "new"
        before = fw.versions()[-1].id
        fw.forget("attacker")
        assert live(fw) == Parameters(relevance=live(fw).relevance)
        assert "again" in gate_of(fw)
        assert [row[4] for row in rows_of(fw)] == ["better", "withdrawn"]
        assert any("withdrawn" in entry.text for entry in fw.history())
        assert "withdrawn" in " ".join(fw.explain_version(str(fw.status().version)).sentences)
        assert [v.id for v in fw.versions()] == [fw.status().version, before]
    database = open_database(root)
    with database.reading() as conn:
        assert looks(conn) == (
            1,
            rows_n_votes(root),
        )  # the look is spent, and its votes still count
    database.close()


def rows_n_votes(root: Path) -> int:
    with opened(root) as fw:
        return rows_of(fw)[0][1]


def make_history_of_one(root: Path) -> Path:
    make_history(root)
    database = open_database(root)
    with opened(root) as fw:
        name = user_hash(root, "attacker")
        with database.transaction() as conn:
            conn.execute("UPDATE retrievals SET user_id = ?", (name,))
            conn.execute("UPDATE votes SET user_id = ?", (name,))
        assert len(log_of(root).without(name).votes) == 0
        fw.status()
    database.close()
    return root


def test_looks_before_a_withdrawal_count_and_those_before_the_next_replacement_do_not(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "kb"):
        pass
    database = open_database(tmp_path / "kb")
    steps = [
        ("no better", 0.025, 1), ("better", 0.0125, 0), ("no better", 0.025, 1), ("withdrawn", 0.0, 3),
        ("no better", 0.005, 4), ("better", 0.004, 0), ("no better", 0.025, 1), ("recounted", 0.0, 1),
        ("withdrawn", 0.0, 6), ("reset", 0.0, 0), ("vetoed", 0.025, 1),
    ]  # fmt: skip
    for n, (outcome, alpha, expected) in enumerate(steps):
        with database.transaction() as conn:
            record_look(conn, Look("v", 100 + n, alpha, None, outcome))
            assert looks(conn) == (expected, 100 + n), n
            assert looks(conn, "encoder")[0] == 0
    database.close()


def test_a_version_built_before_the_user_came_is_served_again_after_a_rollback(voted: Path) -> None:
    with opened(voted) as fw:
        fw.refresh()
        (newest, first) = (v.id for v in fw.versions())
        shown = fw.retrieve(QUERIES[0], user_id="joan")
        fw.feedback(shown.id, shown.hits[0].passage_id, "harmful", user_id="joan")
        fw.refresh()
        report = fw.forget("joan")
        assert [v.id for v in fw.versions()] == [report.version, newest, first]
        assert next(v for v in fw.versions() if v.live).parent == newest
        weights = weights_of(fw)
        assert fw.rollback() == newest
        assert weights_of(fw) == weights
        assert fw.verify() == []


def test_a_question_without_a_vote_leaves_every_version(voted: Path) -> None:
    with opened(voted) as fw:
        fw.refresh()
        kept = {v.id for v in fw.versions()}
        fw.retrieve("how is my own question answered", user_id="joan")
        fw.forget("joan")
        assert {v.id for v in fw.versions()} > kept
        assert traces(voted, [user_hash(voted, "joan"), "how is my own question answered"]) == []


def test_the_votes_of_others_since_the_last_look_are_not_learned_from_by_forgetting(
    voted: Path, tmp_path: Path
) -> None:
    """What was learned again rests on the votes that the gate let it in by, less those deleted: else
    someone whose friend is forgotten could have votes learned from that no look has judged."""
    twin = Path(shutil.copytree(voted, tmp_path / "twin"))
    with opened(voted) as fw, opened(twin) as without:
        vote_as(fw, "joan", QUERIES[:3])
        for each in (fw, without):
            assert each.refresh().parameters == "new"
        vote_as(fw, "eve", QUERIES[60:75], wrong=1.0)
        fw.forget("joan")
        again = gate_of(fw)["again"]["candidate"]["weights"]
        assert again == candidate_of(without).weights
        assert weights_of(fw) == again


def test_weights_that_held_out_queries_do_not_bear_out_without_the_user_are_withdrawn(
    voted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = learn_again.gated

    def no_better(*given: Any) -> Gate:
        found = plain(*given)
        return replace(found, decision=replace(found.decision, outcome="no better"))

    monkeypatch.setattr(learn_again, "gated", no_better)
    with opened(voted) as fw:
        vote_as(fw, "joan", QUERIES[:3])
        assert fw.refresh().parameters == "new"
        fw.forget("joan")
        assert live(fw).source == SHIPPED
        assert [row[4] for row in rows_of(fw)] == ["better", "withdrawn"]
        assert fw.verify() == []
