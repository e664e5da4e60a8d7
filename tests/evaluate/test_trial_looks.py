"""When a look is taken, who judges at it, and what is left of one that brought nothing to life."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import WordEncoder
from gates import QUERIES, gate_of, hashes_of, live, looked, make_history, opened, rows_of
from plain_model import TOPICS, is_answer, spellings, topics, vote_on
from rag_flywheel import Config, Flywheel, Passage, Vote
from rag_flywheel.errors import FlywheelError
from rag_flywheel.evaluate.gate import alpha_of
from rag_flywheel.store.passages import query_digest

KNOWN = [f"topic{t} problem{t} known{t} please" for t in range(0, TOPICS, 2)]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_history(tmp_path_factory.mktemp("history") / "kb")


@pytest.fixture
def voted(history: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(history, tmp_path / "kb"))


def test_copies_of_a_judging_question_judge_as_one(voted: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(voted, tmp_path / "twin"))
    with opened(voted) as fw, opened(twin) as other:
        fw.refresh()
        once = gate_of(fw)
        query = min((hashes_of(fw)[h] for h in once["queries"]), key=query_digest)
        first = query_digest(query)  # the smallest of a group says whether it is held out
        copies = [q for q in spellings(query, 50) if query_digest(q) > first]
        vote_on(other, copies, is_answer)
        other.refresh()
        often, queries = gate_of(other), {h: q.rstrip(" -") for h, q in hashes_of(other).items()}
        of_one = [
            group
            for h, group in zip(often["queries"], often["groups"], strict=True)
            if queries[h] == query
        ]
        assert len(of_one) == len(copies) + 1 > 30
        assert len(set(of_one)) == 1
        assert len(often["queries"]) == len(once["queries"]) + len(copies)
        n = once["decision"]["n_judged"]
        assert often["decision"]["n_judged"] == len(often["log_likelihood"]["candidate"]) == n
        assert set(often["groups"]) == set(range(n))


@pytest.mark.slow
def test_votes_on_any_query_bring_the_next_look_nearer(voted: Path) -> None:
    """Also those on queries that do not judge; a user's second thoughts only replace the first."""
    looked(voted, 400, "no better")
    with opened(voted) as fw:
        assert "450 votes so far, the next look is at 600" in fw.refresh().reason
        shown = fw.retrieve(QUERIES[0])
        hit = shown.hits[0].passage_id
        for n, users, look in (
            (0, ["user 0"] * 150, False),
            (1, [f"user {i}" for i in range(149)], False),
            (2, ["user 149"], True),
        ):
            fw.feedback_many(Vote(shown.id, hit, "helpful", user) for user in users)
            fw.add([Passage("edited", f"edition number{n} of a passage")])
            report = fw.refresh()
            assert ("votes so far" not in report.reason) == look
            assert len(rows_of(fw)) == 1 + look
        assert rows_of(fw)[1][1] == 600 == fw.status().n_votes - 150


def full_at_current(failing: list[bool]) -> Callable[..., None]:
    """os.replace, but the disk is full when CURRENT is replaced."""
    replace = os.replace

    def found(src: str | Path, dst: str | Path, **folders: int) -> None:
        if failing and Path(dst).name == "CURRENT":
            failing.clear()
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(src, dst, **folders)

    return found


@pytest.mark.slow
def test_a_look_that_brought_nothing_to_life_leaves_nothing(
    voted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = Path(shutil.copytree(voted, tmp_path / "twin"))
    with opened(twin) as other:
        assert other.refresh().parameters == "new"
        expected = live(other)
    with opened(voted) as fw:
        before, shipped = fw.status().version, live(fw)
        failing = [True]
        monkeypatch.setattr(os, "replace", full_at_current(failing))
        with pytest.raises(FlywheelError, match="no space"):
            fw.refresh()
        assert failing == []
        assert (fw.status().version, live(fw)) == (before, shipped)
        assert rows_of(fw) == []
        assert not [e for e in fw.history() if e.kind == "look"]
    with opened(voted) as fw:
        report = fw.refresh()
        assert (report.outcome, report.parameters) == ("promoted", "new")
        assert live(fw) == expected
        ((version, _, alpha, _, outcome),) = rows_of(fw)
        assert (version, alpha, outcome) == (report.version, alpha_of(1), "better")
        assert fw.verify() == []


def corrected(fw: Flywheel, right: str) -> None:
    for query in KNOWN:
        shown = fw.retrieve(query)
        fw.correct(shown.id, query.split()[0].replace("topic", right), user_id="ann")


@pytest.mark.slow
@pytest.mark.parametrize("right", ["answer", "decoy"])
def test_what_rests_on_corrections_does_not_judge(tmp_path: Path, right: str) -> None:
    """Neither where few queries have votes nor as a veto: it is one user's word, and counts as that,
    as a vote on its question."""
    config = Config(encoder="", corrections_per_day=None)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(topics())
        vote_on(fw, QUERIES[:30], is_answer)
        corrected(fw, right)
        assert len(fw.golden.items()) >= 60
        report = fw.refresh()
        assert (report.parameters, gate_of(fw)["golden_queries"]) == ("kept", [])
        assert gate_of(fw)["decision"]["outcome"] == "too few"


@pytest.mark.slow
def test_imported_answers_that_somebody_corrected_too_do_not_judge(
    voted: Path, tmp_path: Path
) -> None:
    lines = [f"{q},{q.split()[0].replace('topic', 'answer')},1" for q in KNOWN]
    path = tmp_path / "known.csv"
    path.write_text("\n".join(["query,passage_id,grade", *lines]) + "\n")
    twin = Path(shutil.copytree(voted, tmp_path / "twin"))
    with opened(voted) as fw, opened(twin) as other:
        for each in (fw, other):
            each.golden.add(path)
        shown = other.retrieve(KNOWN[0])
        other.correct(shown.id, "answer0", user_id="ann")
        for each in (fw, other):
            each.refresh()
        assert len(gate_of(fw)["golden_queries"]) == len(KNOWN)
        assert len(gate_of(other)["golden_queries"]) == len(KNOWN) - 1
