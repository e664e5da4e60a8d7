"""What a refresh does with new parameters: who judges them, when, what goes live, what is kept of it."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from gates import (
    QUERIES,
    candidate_of,
    edit,
    folder_of,
    gains_of,
    gate_of,
    hashes_of,
    live,
    looked,
    make_history,
    opened,
    rows_of,
)
from plain_model import TOPICS, is_answer, phrasings, topics, vote_on
from rag_flywheel import Flywheel, Passage
from rag_flywheel.evaluate.gate import alpha_of
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.store.journal import looks


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_history(tmp_path_factory.mktemp("history") / "kb")


@pytest.fixture
def voted(history: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(history, tmp_path / "kb"))


def test_votes_that_help_let_new_parameters_in_and_all_of_it_is_kept(voted: Path) -> None:
    with opened(voted) as fw:
        report = fw.refresh()
        found = gate_of(fw)
        decision, scores = found["decision"], found["scores"]
        assert (report.outcome, report.parameters) == ("promoted", "new")
        assert (decision["outcome"], decision["measure"]) == ("better", "held-out votes")
        assert decision["why"] in report.reason
        n, gains = decision["n_judged"], gains_of(found["log_likelihood"])
        assert len(found["queries"]) == len(gains) == n == scores["n_held_out"]
        assert scores.items() <= dict(report.scores).items()
        assert decision["mean"] == scores["gain"] == pytest.approx(gains.mean(), abs=1e-5)
        assert decision["error"] == pytest.approx(stats.sem(gains), abs=1e-5)
        assert decision["p"] == scores["gate_p"] <= decision["alpha"] == alpha_of(1)
        assert stats.wilcoxon(gains, alternative="greater").pvalue < 0.001
        condensed = gains_of(found["condensed_ndcg"])
        assert scores["condensed_gain"] == pytest.approx(condensed.mean(), abs=1e-5)
        assert sorted(i for rows in found["slices"].values() for i in rows) == list(range(n))
        assert (found["golden_queries"], scores["n_golden"]) == ([], 0)
        n_votes = decision["n_votes"]
        assert n_votes == fw.status().n_votes == 3 * len(QUERIES)  # of all, not of those that judge
        assert found["groups"] == list(range(n))  # no two are near-duplicates
        assert rows_of(fw) == [(report.version, n_votes, alpha_of(1), decision["p"], "better")]
        assert fw.verify() == []


@pytest.mark.slow
def test_about_a_third_of_the_past_queries_judge_and_the_same_ones_later(voted: Path) -> None:
    with opened(voted) as fw:
        assert fw.refresh().scores["n_fitted"] == len(QUERIES) - len(gate_of(fw)["queries"])
        first = set(gate_of(fw)["queries"])
        assert first < set(hashes_of(fw))
        assert 0.2 < len(first) / len(QUERIES) < 0.45
        vote_on(fw, phrasings(1, 2), is_answer)
        fw.refresh()
        later = set(gate_of(fw)["queries"])
        assert {h for h in later if hashes_of(fw)[h] in QUERIES} == first


def test_what_goes_live_is_what_was_judged(voted: Path) -> None:
    """The order of the prior to the last digit; what votes are worth every refresh estimates anew,
    and now from those that judged as well."""
    with opened(voted) as fw:
        fw.refresh()
        judged, found = candidate_of(fw), live(fw)
        assert found.weights == judged.weights != Parameters().weights
        assert found.source == judged.source == "fitted"


def test_both_sides_are_judged_with_what_votes_are_worth_under_them(voted: Path) -> None:
    """A tenth of the votes is wrong: the live side is judged knowing that, so must the other be."""
    with opened(voted) as fw:
        fw.refresh()
        assert [live(fw).rates.noise, candidate_of(fw).rates.noise] == pytest.approx(
            [0.1, 0.1], abs=0.03
        )
        assert candidate_of(fw).sharpness == pytest.approx(live(fw).sharpness, rel=0.3)


@pytest.mark.slow
def test_votes_on_the_judging_queries_do_not_move_the_candidate(
    voted: Path, tmp_path: Path
) -> None:
    twin, third = (Path(shutil.copytree(voted, tmp_path / name)) for name in ("twin", "third"))
    with opened(voted) as fw, opened(twin) as other, opened(third) as last:
        fw.refresh()
        judges = {hashes_of(fw)[h] for h in gate_of(fw)["queries"]}
        for user in ("bob", "eve", "dan"):  # they outvote the others
            vote_on(other, sorted(judges), lambda q, p: not is_answer(q, p), user)
        report = other.refresh()
        assert set(gate_of(other)["queries"]) == set(gate_of(fw)["queries"])
        assert gate_of(other)["candidate"] == gate_of(fw)["candidate"]
        assert report.parameters == "kept"
        assert gate_of(other)["decision"]["outcome"] in {"no better", "vetoed"}
        assert live(other).source == "shipped"
        vote_on(last, [q for q in QUERIES if q not in judges][:9], lambda *_: False, "bob")
        last.refresh()
        assert gate_of(last)["candidate"] != gate_of(fw)["candidate"]


@pytest.mark.parametrize(("n", "fitted"), [(40, False), (110, True)])
def test_with_few_judges_parameters_stay_and_passages_go_live(
    tmp_path: Path, n: int, fitted: bool
) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(topics())
        vote_on(fw, QUERIES[:n], is_answer)
        fw.add([Passage("news", "something entirely different")])
        report = fw.refresh()
        assert (report.outcome, report.parameters) == ("promoted", "kept")
        assert (live(fw).weights, live(fw).source) == (Parameters().weights, "shipped")
        assert rows_of(fw) == []
        assert ("decision" in gate_of(fw)) == fitted
        if fitted:
            decision = gate_of(fw)["decision"]
            assert decision["outcome"] == "too few"
            assert f"{decision['n_judged']} held-out queries have votes" in report.reason
            assert decision["n_judged"] < 50
        (found,) = fw.retrieve_many(["entirely different"], k=1, record=False)
        assert (found.hits[0].passage_id, found.version) == ("news", report.version)


@pytest.mark.parametrize(
    "n", [pytest.param(8, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.slow)]
)
def test_one_refresh_after_another_with_the_same_votes_changes_nothing(voted: Path, n: int) -> None:
    with opened(voted) as fw:
        assert fw.refresh().parameters == "new"
        first, rows = live(fw), rows_of(fw)
        noise = []
        for i in range(n):
            edit(fw, i)
            report = fw.refresh()
            assert (report.outcome, report.parameters) == ("promoted", "kept")
            n_votes = rows[0][1]
            assert f"{n_votes} votes so far" in report.reason
            assert f"next look is at {-(-3 * n_votes // 2)}" in report.reason
            assert (live(fw).weights, live(fw).source) == (first.weights, "fitted")
            noise.append(live(fw).rates.noise)
            assert "decision" not in gate_of(fw)
        assert rows_of(fw) == rows
        assert noise == pytest.approx([first.rates.noise] * n, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["no better", "vetoed"])
def test_after_a_refusal_too_the_same_votes_take_no_second_look(voted: Path, outcome: str) -> None:
    looked(voted, 400, outcome)
    with opened(voted) as fw:
        for i in range(3):
            report = fw.refresh()
            assert (report.parameters, "next look is at 600" in report.reason) == ("kept", True)
            assert live(fw).source == "shipped"
            edit(fw, i)
        assert len(rows_of(fw)) == 1


@pytest.mark.slow
def test_the_second_look_may_spend_less_and_the_first_after_a_replacement_all(
    voted: Path, tmp_path: Path
) -> None:
    twin = Path(shutil.copytree(voted, tmp_path / "twin"))
    looked(voted, 60, "no better")
    looked(twin, 60, "no better")
    looked(twin, 90, "better")
    with opened(voted) as fw, opened(twin) as other:
        for each, look in ((fw, 2), (other, 1)):
            assert each.refresh().parameters == "new"
            decision = gate_of(each)["decision"]
            assert (decision["look"], decision["alpha"]) == (look, alpha_of(look))
            assert rows_of(each)[-1][2] == alpha_of(look)


@pytest.mark.slow
def test_after_a_replacement_the_next_look_is_at_half_as_many_votes_again(voted: Path) -> None:
    with opened(voted) as fw:
        fw.refresh()
        n_first = rows_of(fw)[0][1]
        for start in range(0, 150, 30):
            vote_on(fw, phrasings(1, 2)[start : start + 30], is_answer)
            report = fw.refresh()
            if len(rows_of(fw)) == 2:
                break
            assert "next look" in report.reason
            assert int(report.reason.split("; ")[1].split()[0]) < 1.5 * n_first
        _, second = rows_of(fw)
        assert second[0] == report.version
        assert 1.5 * n_first <= second[1] == fw.status().n_votes
        assert second[2] == alpha_of(1)  # of a new family
        assert (second[4] == "better") == (report.parameters == "new")


def learned_by(fw: Flywheel, version: str | None = None) -> Any:
    """The parameters of a version but for how near unrelated questions come to its passages."""
    found = json.loads((folder_of(fw, version) / "parameters.json").read_text())
    for of_passages in ("unrelated", "spread"):
        del found["relevance"][of_passages]
    return found


@pytest.mark.slow
def test_while_a_rollback_holds_votes_back_parameters_stay_and_nobody_looks(voted: Path) -> None:
    with opened(voted) as fw:
        fw.refresh()
        shipped = fw.rollback()
        kept, rows = learned_by(fw, shipped), rows_of(fw)
        vote_on(fw, phrasings(1, 2), is_answer)  # many more than a look takes
        for i in range(3):
            edit(fw, i)
            report = fw.refresh()
            assert (report.outcome, report.parameters) == ("promoted", "kept")
            assert "held back until release" in report.reason
            assert learned_by(fw) == kept
            assert "decision" not in gate_of(fw)
        assert rows_of(fw) == rows
        assert fw.release()
        edit(fw, 9)
        report = fw.refresh()
        assert gate_of(fw)["decision"]["why"] in report.reason
        assert [row[0] for row in rows_of(fw)[len(rows) :]] == [report.version]


def table(folder: Path, lines: list[str]) -> Path:
    """A file of known answers."""
    path = folder / "known.csv"
    path.write_text("\n".join(["query,passage_id,grade", *lines]) + "\n", encoding="utf-8")
    return path


def golden_answers(folder: Path, right: str) -> Path:
    """75 more phrasings, and the passage that answers each."""
    numbers = range(0, TOPICS, 2)
    return table(folder, [f"topic{t} problem{t} known{t} please,{right}{t},1" for t in numbers])


@pytest.mark.parametrize(
    ("right", "outcome"),
    [("answer", "better"), pytest.param("decoy", "no better", marks=pytest.mark.slow)],
)
def test_golden_queries_judge_where_too_few_have_votes(
    tmp_path: Path, right: str, outcome: str
) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(topics())
        vote_on(fw, QUERIES[:120], is_answer)
        fw.golden.add(golden_answers(tmp_path, right))
        report = fw.refresh()
        found = gate_of(fw)
        assert report.scores["n_held_out"] < 50
        decision = found["decision"]
        assert (decision["measure"], decision["outcome"]) == ("golden queries", outcome)
        gains = gains_of(found["golden_ndcg@10"])
        assert len(gains) == len(found["golden_queries"]) == decision["n_judged"] >= 50
        assert decision["mean"] == pytest.approx(gains.mean(), abs=1e-5)
        assert (gains.mean() > 0) == (outcome == "better") == (report.parameters == "new")
        assert rows_of(fw)[0][1:] == (fw.status().n_votes, 0.025, decision["p"], outcome)


def test_golden_queries_may_veto_what_votes_speak_for(voted: Path, tmp_path: Path) -> None:
    with opened(voted) as fw:
        fw.golden.add(golden_answers(tmp_path, "decoy"))
        report = fw.refresh()
        assert report.parameters == "kept"
        assert live(fw).source == "shipped"
        decision, gains = gate_of(fw)["decision"], gains_of(gate_of(fw)["golden_ndcg@10"])
        assert decision["outcome"] == "vetoed"
        assert f"golden queries lose {-gains.mean():.4f} (n {len(gains)})" in decision["why"]
        assert rows_of(fw)[0][4] == "vetoed"


@pytest.mark.slow
def test_golden_queries_like_those_fitted_to_do_not_judge(voted: Path, tmp_path: Path) -> None:
    """They would know the answer from the votes; held-out ones may judge."""
    lines = [f"{q},answer{q.split()[0].removeprefix('topic')},1" for q in QUERIES]
    with opened(voted) as fw:
        fw.golden.add(table(tmp_path, lines))
        fw.refresh()
        found = gate_of(fw)
        assert set(found["golden_queries"]) <= set(found["queries"])
        assert len(found["golden_queries"]) > 0.5 * len(found["queries"])


def test_looks_are_counted_from_the_last_replacement(voted: Path) -> None:
    def counted() -> tuple[int, int]:
        with closing(sqlite3.connect(voted / "flywheel.db")) as conn:
            return looks(conn)

    assert counted() == (0, 0)
    found = [(60, "no better", (1, 60)), (90, "vetoed", (2, 90)), (140, "better", (0, 140))]
    found += [(210, "no better", (1, 210)), (0, "reset", (0, 0)), (75, "no better", (1, 75))]
    for n_votes, outcome, after in found:
        looked(voted, n_votes, outcome)
        assert counted() == after
