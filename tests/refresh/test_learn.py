"""What a refresh learns from votes, and that votes go on acting at once after it."""

import json
import shutil
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from plain_model import (
    KERNEL,
    TOPICS,
    Chances,
    after_votes,
    is_answer,
    phrasings,
    scored,
    shared_out,
    topics,
    vote_on,
)
from rag_flywheel import Config, Flywheel, Passage, Retrieval, Vote
from rag_flywheel.rank.posterior import NOISE_LIMIT, Rates
from rag_flywheel.records import RefreshReport

WRONG = 0.1
QUERIES = phrasings(0, 1)
OTHERS = [f"topic{t} problem{t} unheard{t} please" for t in range(0, TOPICS, 5)]
Answers = list[list[tuple[str, float]]]


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed index with a version from before 150 past queries got votes, a tenth of them wrong."""
    root, rng = tmp_path_factory.mktemp("history") / "kb", np.random.default_rng(5)
    with opened(root) as fw:
        fw.add(topics())
        assert fw.refresh().parameters == "kept"
        vote_on(fw, QUERIES, lambda q, p: is_answer(q, p) != (rng.random() < WRONG))
    return root


@pytest.fixture
def voted(history: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(history, tmp_path / "kb"))


def answers(fw: Flywheel) -> Answers:
    found = fw.retrieve_many([*QUERIES[::10], *OTHERS], record=False)
    return [[(h.passage_id, h.score) for h in one.hits] for one in found]


def share_right(fw: Flywheel) -> float:
    """Of the phrasings that nobody voted on."""
    found = fw.retrieve_many(OTHERS, k=1, record=False)
    return sum(is_answer(one.query, one.hits[0].passage_id) for one in found) / len(found)


def live_folder(fw: Flywheel) -> Path:
    return Path(fw.status().path) / "versions" / str(fw.status().version)


def parameters_bytes(fw: Flywheel) -> bytes:
    return (live_folder(fw) / "parameters.json").read_bytes()


def parameters(fw: Flywheel) -> Any:
    return json.loads(parameters_bytes(fw))


def refresh_anew(fw: Flywheel) -> RefreshReport:
    """A refresh that has something to do, though no vote is new and no passage stays."""
    fw.add([Passage("for a moment", "nothing to do with it")])
    fw.remove(["for a moment"])
    report = fw.refresh()
    assert report.outcome == "promoted"
    return report


def noise_of(found: dict[str, Any]) -> float:
    return Rates(**found["rates"]).noise


def test_a_refresh_fits_parameters_to_the_votes(voted: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "without votes") as fw:
        fw.add(topics())
        fw.refresh()
        before = share_right(fw)
    with opened(voted) as fw:
        report = fw.refresh()
        assert (report.outcome, report.parameters) == ("promoted", "new")
        assert report.scores["n_fitted"] + report.scores["n_held_out"] == len(QUERIES)
        assert report.scores["n_held_out"] >= 50
        assert f"; held-out votes gain ({report.scores['gain']:+.4f} a query" in report.reason
        found = parameters(fw)
        assert found["source"] == "fitted"
        assert noise_of(found) == pytest.approx(WRONG, abs=0.05)
        assert set(found["kernel"]) == {
            "theta",
            "theta_quantile",
            "gamma",
            "n0",
            "neighbours",
            "same",
        }
        assert share_right(fw) >= max(0.9, before + 0.3)
        assert fw.verify() == []
        assert refresh_anew(fw).parameters == "kept"  # the same votes take no second look


def test_few_past_queries_are_remembered_and_nothing_is_fitted(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(topics())
        vote_on(fw, QUERIES[:63], is_answer)
        report = fw.refresh()
        assert (report.outcome, report.parameters) == ("promoted", "kept")
        n = int(report.scores["n_fitted"])
        assert report.reason.endswith(f"; not fitted: {n} of the 64 past queries it takes")
        assert parameters(fw)["source"] == "shipped"
        assert np.load(live_folder(fw) / "memory" / "queries.npy").shape == (63, 16)


@pytest.mark.slow
def test_votes_by_the_toss_of_a_coin_change_nothing(tmp_path: Path) -> None:
    """Weights stay; mostly the votes are seen to be that, and then no order changes either."""
    silent = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        with opened(tmp_path / str(seed)) as fw:
            fw.add(topics())
            fw.refresh()
            static = answers(fw)
            vote_on(fw, QUERIES, lambda _q, _p, rng=rng: bool(rng.random() < 0.5))
            assert fw.refresh().parameters == "kept"
            found = parameters(fw)
            assert found["source"] == "shipped"
            assert noise_of(found) > 0.35
            if noise_of(found) > NOISE_LIMIT:
                silent += 1
                for new, old in zip(answers(fw), static, strict=True):
                    assert [p for p, _ in new] == [p for p, _ in old]
    assert silent >= 3


@pytest.mark.slow
def test_the_same_votes_give_the_same_parameters_and_answers(voted: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(voted, tmp_path / "twin"))
    with opened(voted) as fw, opened(twin) as other:
        assert (fw.refresh().parameters, other.refresh().parameters) == ("new", "new")
        assert parameters_bytes(fw) == parameters_bytes(other)
        found = answers(fw)
        assert answers(other) == found
        for _ in range(2):
            refresh_anew(fw)
            assert parameters_bytes(fw) == parameters_bytes(other)
            for new, old in zip(answers(fw), found, strict=True):
                assert dict(new) == pytest.approx(dict(old), abs=1e-9)


@pytest.mark.slow
def test_after_a_rollback_a_refresh_keeps_parameters_until_release(voted: Path) -> None:
    with opened(voted) as fw:
        first = fw.status().version
        shipped = parameters_bytes(fw)
        assert fw.refresh().parameters == "new"
        fitted = parameters_bytes(fw)
        assert fw.rollback() == first
        then = answers(fw)
        report = refresh_anew(fw)
        assert (report.parameters, "rollback" in report.reason) == ("kept", True)
        assert parameters_bytes(fw) == shipped
        assert answers(fw) == then
        assert fw.release()
        assert answers(fw) != then
        report = refresh_anew(fw)  # but parameters wait for the votes that a look takes
        assert (report.parameters, "next look" in report.reason) == ("kept", True)
        assert parameters(fw)["source"] == "shipped"
        vote_on(fw, phrasings(1, 2), is_answer)
        assert fw.refresh().parameters == "new"
        assert parameters_bytes(fw) != fitted


def heard(fw: Flywheel, queries: list[str], asked: Retrieval) -> list[tuple[float, Chances]]:
    """What past queries with votes say of one, worked out from the files and the database.

    queries: the past queries with votes; their retrievals are all of the same texts.
    """
    kernel, rates = parameters(fw)["kernel"], Rates(**parameters(fw)["rates"])
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        named = dict(conn.execute("SELECT pid, id FROM passages"))
        hashes = dict(conn.execute("SELECT query, query_hash FROM retrievals"))
        logged: dict[str, Chances] = {}
        for query, hits in conn.execute("SELECT query, hits FROM retrievals ORDER BY rid"):
            shown = {h[1]: float(np.exp(h[2])) for h in json.loads(hits)}
            least = max(1.0, sum(shown.values()))
            logged.setdefault(query, {p: chance / least for p, chance in shown.items()})
        net: dict[str, dict[str, int]] = defaultdict(dict)
        for query, pid, verdict in conn.execute(
            "SELECT query, pid, verdict FROM votes JOIN retrievals USING (rid)"
        ):
            way = 1 if verdict == "helpful" else -1
            net[query][named[pid]] = net[query].get(named[pid], 0) + way
    memory = live_folder(fw) / "memory"
    keys, offsets, lineages, chances = (
        np.load(memory / f"{name}.npy") for name in ("queries", "offsets", "lineages", "chances")
    )
    rows = {key.tobytes(): i for i, key in enumerate(keys)}
    vectors = WordEncoder().encode_queries([asked.query, *queries])
    cosines = dict(zip(queries, (vectors[1:] @ vectors[0]).tolist(), strict=True))
    nearest = sorted(queries, key=lambda q: -cosines[q])[: kernel["neighbours"]]
    found = []
    for query in nearest:
        above = (min(cosines[query], 1.0) - kernel["theta"]) / (1 - kernel["theta"])
        row = rows.get(bytes(hashes[query]))
        before = logged[query]
        if row is not None:
            part = slice(offsets[row], offsets[row + 1])
            pairs = zip(lineages[part].tolist(), chances[part].tolist(), strict=True)
            before = {named[pid]: chance for pid, chance in pairs}
        if above > 0:
            found.append((above ** kernel["gamma"], after_votes(before, net[query], rates)))
    return found


@pytest.mark.slow
def votes_of(fw: Flywheel, query: str) -> dict[str, float | tuple[float, float]]:
    """(helpful, harmful) votes on each passage for a query, one of each user."""
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        rows = conn.execute(
            "SELECT p.id, sum(v.verdict = 'helpful'), sum(v.verdict = 'harmful') FROM votes v "
            "JOIN retrievals r ON r.rid = v.rid JOIN passages p ON p.pid = v.pid "
            "WHERE r.query = ? GROUP BY p.id",
            (query,),
        )
        return {name: (helpful, harmful) for name, helpful, harmful in rows}


def test_votes_after_a_refresh_act_at_once_by_the_documented_formula(tmp_path: Path) -> None:
    queries, rng = phrasings(0, 5, 30), np.random.default_rng(6)
    known, unknown = queries[7 * 5], "topic11 problem11 unheard11 please"
    with opened(tmp_path / "kb") as fw:
        fw.add(topics(30))
        vote_on(fw, queries, lambda q, p: is_answer(q, p) != (rng.random() < WRONG))
        fw.refresh()
        n0 = parameters(fw)["kernel"]["n0"]
        assert parameters(fw)["kernel"]["neighbours"] > 0
        assert (
            parameters(fw)["kernel"]["theta"] < 0.9
        )  # other queries are heard, not the same alone
        for query, topic in ((known, 7), (unknown, 11)):
            before = fw.retrieve(query, k=100)
            best = before.hits[0].passage_id
            assert best == f"answer{topic}"
            users = [f"user {i}" for i in range(10)]
            fw.feedback_many(Vote(before.id, best, "harmful", user) for user in users)
            fw.feedback_many(Vote(before.id, f"decoy{topic}", "helpful", user) for user in users)
            after = fw.retrieve(query, k=100, record=False)
            old = {h.passage_id: h.score for h in before.hits}
            new = {h.passage_id: h.score for h in after.hits}
            assert new[best] < old[best]
            assert new[f"decoy{topic}"] > old[f"decoy{topic}"]
            prior = shared_out(
                {h.passage_id: sum(h.explanation.terms.values()) for h in after.hits}
            )
            others = heard(fw, [q for q in queries if q != query], after)
            expected = scored(
                prior, others, n0, votes_of(fw, query), Rates(**parameters(fw)["rates"])
            )
            assert new == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("refreshed", [False, True])
def test_a_vote_weighs_half_after_its_half_life(
    tmp_path: Path, encoder: WordEncoder, help_desk: list[Passage], refreshed: bool
) -> None:
    query, root = "account password", tmp_path / "kb"
    config = Config(encoder="", vote_half_life_days=30.0)
    with Flywheel.open(root, encoder=encoder, config=config) as fw:
        fw.add(help_desk)
        shown = fw.retrieve(query)
        static = {h.passage_id: h.score for h in shown.hits}
        assert shown.hits[0].passage_id == "reset"
        fw.feedback_many(Vote(shown.id, "secret", "helpful", f"user {i}") for i in range(4))
    for days, net in ((0, 4.0), (30, 2.0), (60, 1.0), (3000, 0.0)):
        with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
            conn.execute("UPDATE votes SET at = unixepoch() - ? * 86400", (days,))
        with Flywheel.open(root, encoder=encoder) as fw:
            if refreshed:
                refresh_anew(fw)
            found = fw.retrieve(query, record=False)
        expected = scored(shared_out(static), [], KERNEL.n0, {"secret": net})
        assert {h.passage_id: h.score for h in found.hits} == pytest.approx(expected, abs=1e-3)
