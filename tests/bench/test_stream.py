"""cycles-v2 on a small made collection: its stream, its users, its rules, its slices, its report."""

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_collection import TOPICS, write_collection
from rag_flywheel.bench.baselines import History, Matrices, RuleQueries, VoteTable, hybrid
from rag_flywheel.bench.baselines_repeated import (
    LEAST_EPS,
    SHARPNESS,
    bayes,
    memory_without_a_model,
    own_votes,
)
from rag_flywheel.bench.bench import run_bench
from rag_flywheel.bench.compare_stream import (
    AHEAD_OF,
    MEASURES,
    START,
    measured_slice,
    slices_of,
    warnings,
)
from rag_flywheel.bench.measures import by_query
from rag_flywheel.bench.protocol import CycledRun, Protocol, Refreshed, Traffic
from rag_flywheel.bench.reading import how_to_read
from rag_flywheel.bench.report import write_report
from rag_flywheel.bench.setup import Bench, prepare, with_stream
from rag_flywheel.bench.stream import needs_of, stream, zipf_counts
from rag_flywheel.bench.terminal import print_result, refresh_table
from rag_flywheel.bench.users import OnAnswer, Users, people
from rag_flywheel.errors import InputError
from rag_flywheel.formats.beir import Split
from rag_flywheel.records import Explanation, Hit, Retrieval

TRAFFIC = Traffic(n_asked=60, n_users=10, willingness=1.0)
PROTOCOL = Protocol(n_cycles=2, users=Users(eps=0.1), traffic=TRAFFIC)
SLICES = ["asked again", "asked often", "rephrased", "related", "far", "answer no vote reached"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made collection, with the decoy of every other topic as a second right passage."""
    found = write_collection(tmp_path_factory.mktemp("data") / "made")
    for split in ("train", "test"):
        path = found / "qrels" / f"{split}.tsv"
        rows = path.read_text().splitlines()
        pairs = [(row.split("\t")[0], int(row.split("\t")[1][6:])) for row in rows[1:]]
        more = [f"{query}\tdecoy{t}\t1" for query, t in pairs if t % 2]
        path.write_text("\n".join([*rows, *more]) + "\n")
    return found


@pytest.fixture(scope="module")
def bench(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    scratch = tmp_path_factory.mktemp("scratch")
    return prepare(folder, PROTOCOL, scratch, None)


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def result(folder: Path, steps: list[tuple[str, int, int]]) -> dict[str, Any]:
    return run_bench([folder], PROTOCOL, lambda *step: steps.append(step))


@pytest.mark.parametrize(
    ("n", "n_ranks", "exponent", "counts"),
    [
        (11, 3, 1.0, [6, 3, 2]),  # quotas 6, 3, 2
        (10, 3, 1.0, [5, 3, 2]),  # 5.45, 2.73, 1.82: the two left over go to .82 and .73
        (49, 3, 2.0, [36, 9, 4]),  # 36 / 1, 36 / 4, 36 / 9
        (7, 3, 0.0, [3, 2, 2]),  # equal shares: what is left goes to the first
        (1, 4, 1.0, [1, 0, 0, 0]),
        (0, 2, 1.0, [0, 0]),
    ],
)
def test_zipf_counts_of_tables_worked_by_hand(
    n: int, n_ranks: int, exponent: float, counts: list[int]
) -> None:
    assert zipf_counts(n, n_ranks, exponent) == counts


@pytest.mark.parametrize(("n", "n_ranks"), [(844, 100), (30, 50), (5000, 7), (1, 1)])
def test_zipf_counts_are_within_one_of_their_quotas(n: int, n_ranks: int) -> None:
    total = sum(1 / r for r in range(1, n_ranks + 1))
    found = zipf_counts(n, n_ranks, 1.0)
    assert sum(found) == n
    assert found == sorted(found, reverse=True)
    assert all(abs(c - n / r / total) < 1 for r, c in enumerate(found, 1))


def split(**answers: tuple[str, str]) -> Split:
    """Queries by id: (text, the letters of its right passages)."""
    return Split(
        {q: text for q, (text, _) in answers.items()},
        {q: dict.fromkeys(right, 1) | {"z": 0} for q, (_, right) in answers.items()},
    )


def test_needs_are_the_queries_with_the_same_right_passages() -> None:
    given = split(
        q1=("how", "ab"), q2=("why", "ba"), q3=("Why?", "ab"), q4=("what", "a"), q5=("who", "")
    )
    assert needs_of(given) == {frozenset("ab"): ["q1", "q2"], frozenset("a"): ["q4"]}


def test_the_stream_follows_zipfs_law_twice_and_leaves_needs_out() -> None:
    names = [f"{need}{i}" for need in "abcde" for i in range(3)]
    train = split(**{name: (f"text {name}", name[0]) for name in names})
    traffic = Traffic(n_asked=110, n_users=4)
    found = stream(train, traffic, np.random.default_rng(5))
    times = Counter(query for query, _ in found)
    by_need = Counter(query[0] for query, _ in found)
    asked = sorted(by_need.values(), reverse=True)
    assert asked == zipf_counts(110, 4, 1.0)  # the fifth need is never asked about
    for need, n in by_need.items():
        phrasings = sorted((c for q, c in times.items() if q[0] == need), reverse=True)
        assert phrasings == [c for c in zipf_counts(n, 3, 1.0) if c]
    for query, n in times.items():  # everybody has asked before one asks again
        of_users = Counter(user for q, user in found if q == query)
        assert set(of_users) <= set(range(4))
        assert {n // 4, -(-n // 4)} >= {of_users[user] for user in range(4)}
    assert stream(train, traffic, np.random.default_rng(5)) == found
    assert stream(train, traffic, np.random.default_rng(6)) != found


def test_the_bench_asks_the_stream_and_tests_what_is_not_in_it(folder: Path, bench: Bench) -> None:
    asked = [query for part in bench.parts for query in part]
    assert [len(part) for part in bench.parts] == [30, 30] == [len(a) for a in bench.askers]
    assert set(asked) == set(bench.train.queries) == set(bench.again.queries)
    assert len({q.split("-")[0] for q in asked}) == round(0.8 * TOPICS)
    assert set(bench.test.queries) == {f"q{t}-5" for t in range(TOPICS)}
    assert set(bench.scored.queries) == set(asked) | set(bench.test.queries)
    some = replace(PROTOCOL, max_test=7)
    assert len(with_stream(bench, some, TRAFFIC).again.queries) == 7
    copied, every = replace(bench, test=bench.again), Traffic(n_asked=5000, unasked=0.0)
    with pytest.raises(InputError, match="every test query of made is a train query word for word"):
        with_stream(copied, PROTOCOL, every)
    with pytest.raises(InputError, match="has 1 question; expected at least 2, one a cycle"):
        with_stream(bench, PROTOCOL, Traffic(n_asked=1))


WHY = Explanation(0.0, {}, 0.0)
SEEN = Retrieval("r", "q", None, tuple(Hit(f"p{i}", i + 1, 0, "t", "", {}, WHY) for i in range(8)))


def test_people_have_names_and_habits_around_the_average() -> None:
    found = people(Users(malicious=0.05), 2000, 0.3, np.random.default_rng(1))
    assert [person.name for person in found[:2]] == ["user-1", "user-2"]
    eps = [person.habits.eps for person in found]
    assert np.mean(eps) == pytest.approx(0.2, abs=0.01)
    assert 0 <= min(eps) < 0.05 and 0.4 < max(eps) <= 0.5
    eta = [person.habits.eta for person in found]
    assert (np.mean(eta), min(eta), max(eta)) == pytest.approx((1.0, 0.5, 1.5), abs=0.03)
    assert np.mean([person.willingness for person in found]) == pytest.approx(0.3, abs=0.02)
    assert Counter(person.habits.malicious for person in found) == {0.0: 1900, 1.0: 100}


@pytest.mark.parametrize("eps", [0.0, 0.5, 0.9])
def test_averages_at_the_end_of_their_range_are_everybodys(eps: float) -> None:
    found = people(Users(eta=0.0, eps=eps), 20, 1.0, np.random.default_rng(1))
    assert {(p.habits.eps, p.habits.eta, p.willingness) for p in found} == {(eps, 0.0, 1.0)}


def test_people_vote_after_a_share_of_their_questions_under_their_name() -> None:
    rng = np.random.default_rng(2)
    (person,) = people(Users(eta=0.0, eps=0.0), 1, 1.0, rng)
    given = person.feedback(SEEN, {"p2": 1}, rng)
    assert [(v.passage_id, v.verdict == "helpful") for v in given] == [
        (f"p{i}", i == 2) for i in range(8)
    ]
    assert {v.user_id for v in given} == {"user-1"}
    assert not any(isinstance(v, OnAnswer) for v in given)
    rarely = replace(person, willingness=0.25)
    answered = [bool(rarely.feedback(SEEN, {}, rng)) for _ in range(2000)]
    assert np.mean(answered) == pytest.approx(0.25, abs=0.03)


def history(rows: list[tuple[int, int, bool]]) -> History:
    """Past questions t1 at 0 degrees, t2 at an angle of cosine 0.8, t3 at a right angle; 3 passages."""
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    query, passage, helpful = (np.array(column) for column in zip(*rows, strict=True))
    return History(
        vectors, ["a", "b", "c"], vectors, VoteTable(query, passage, helpful), ["t1", "t2", "t3"]
    )


def asking(*ids: str) -> RuleQueries:
    vectors = np.array([[1, 0]] * len(ids), dtype=np.float32)
    cosines = np.array([[0.5, 0.4, 0.1]] * len(ids), dtype=np.float32)
    return RuleQueries(list(ids), vectors, Matrices(cosines, np.zeros_like(cosines)))


def test_bayes_rule_of_a_table_worked_by_hand() -> None:
    # Odds of a vote 0.8 / 0.2 = 4: two helpful votes times 16, one harmful one by 4.
    chances = np.exp(bayes(np.log([0.5, 0.3, 0.2]), np.array([0.0, -1.0, 2.0]), 0.2))
    assert chances == pytest.approx([0.5, 0.075, 3.2])
    assert bayes(np.zeros(1), np.array([9.0]), 0.5).tolist() == [0.0]  # coins say nothing


def test_own_votes_count_for_the_question_itself_alone() -> None:
    votes = history(
        [(0, 1, True), (0, 1, True), (0, 0, False), (0, 2, True), (0, 2, False), (1, 2, True)]
    )
    asked = asking("t1", "new")
    found = own_votes(0.2, votes, asked)
    log4 = math.log(4)
    start = [SHARPNESS * cosine for cosine in (0.5, 0.4, 0.1)]
    assert found[0] == pytest.approx([start[0] - log4, start[1] + 2 * log4, start[2]], abs=1e-5)
    assert found[1] == pytest.approx(SHARPNESS * hybrid(asked.matrices)[1])
    never = own_votes(0.0, votes, asked)[0]  # users who are never wrong: large, and finite
    assert never[1] == pytest.approx(start[1] + 2 * math.log((1 - LEAST_EPS) / LEAST_EPS), abs=1e-4)


def test_memory_without_a_model_of_a_table_worked_by_hand() -> None:
    # K: 1 at cosine 1, (0.8 - 0.6) / 0.4 = 0.5 at 0.8, 0 at 0.
    votes = history(
        [(0, 1, True), (0, 0, False), (1, 1, True), (1, 2, True), (1, 2, False), (2, 0, True)]
    )
    found = memory_without_a_model(2.0, votes, asking("new"))[0]
    expected = [0.5 - 2 * 0.3, 0.4 + 2 * (1 + 0.5), 0.1 + 2 * 0.5 * (1 - 0.3)]
    assert found == pytest.approx(expected, abs=1e-6)
    assert memory_without_a_model(0.0, votes, asking("new"))[0] == pytest.approx([0.5, 0.4, 0.1])


def test_slices_of_a_table_worked_by_hand(bench: Bench) -> None:
    train = split(q1=("one", "a"), q2=("two", "bc"))
    test = split(t1=("uno", "a"), t2=("b alone", "b"), t3=("tres", "d"), t4=("dos", "cb"))
    parts = (("q1", "q2", "q1", "q1"), ("q1", "q1", "q2"))
    small = replace(bench, train=train, test=test, again=train, parts=parts)
    nearest = {"t1": 0.1, "t2": 0.7, "t3": 0.2, "t4": 0.9}
    found = slices_of(small, nearest, 0.7, frozenset("ac"))
    assert {name: queries for name, _, queries in found} == {
        "asked again": ["q1", "q2"],
        "asked often": ["q1"],
        "rephrased": ["t1", "t4"],  # however far their words are
        "related": ["t2"],
        "far": ["t3"],
        "answer no vote reached": ["t2", "t3"],
    }
    assert [name for name, _, _ in found] == SLICES


def warned(*n_right: int, **parameters: Any) -> list[str]:
    """The warnings on questions with so many right passages, under these live parameters."""
    qrels = {f"q{i}": {f"p{j}": 1 for j in range(n)} | {"z": 0} for i, n in enumerate(n_right)}
    refreshes = (Refreshed("kept", "kept", "few votes", parameters),)
    return warnings(qrels, CycledRun("votes", "what", (), refreshes=refreshes))


def test_several_right_answers_are_a_warning_from_a_twentieth_of_the_questions_on() -> None:
    assert warned(*[1] * 39, 2) == warned(0) == []
    (said,) = warned(*[1] * 19, 2, noise=0.2)
    assert said.startswith("5% of the questions have several right passages, 1.1 on average: the")
    assert "takes one to be the answer" in said
    assert "each passage on its own" in warned(2, 3, answers=2.5)[0]
    assert "takes one to be the answer" in warned(2, 3, answers=None)[0]


def test_measures_by_slice_are_those_of_plain_python(bench: Bench) -> None:
    rng = np.random.default_rng(0)
    passages = [p.id for p in bench.collection.passages]
    qrels = {**bench.again.qrels, **bench.test.qrels}
    names = ("flywheel", "hybrid", *AHEAD_OF[1:])
    runs = {n: {q: rng.permutation(passages)[:20].tolist() for q in qrels} for n in names}
    values = {n: by_query(MEASURES, qrels, run) for n, run in runs.items()}
    queries = sorted(bench.test.queries)[:15]
    by_cycle = [values["hybrid"], values["flywheel"]]  # as if the hybrid were its start
    found = measured_slice(("some", "what", queries), values, by_cycle, PROTOCOL)

    def plain(name: str, measure: str) -> list[float]:
        measured = []
        for q in queries:
            answers = {p for p, grade in qrels[q].items() if grade > 0}
            n = sum(p in answers for p in runs[name][q][:8])
            measured.append(n / (8 if measure == "P@8" else len(answers)))
        return measured

    assert found["n"] == 15
    for measure in ("P@8", "R@8"):
        for name in names:
            mean = found["rankings"][name][measure]
            assert mean == pytest.approx(np.mean(plain(name, measure)))
        paired = np.subtract(plain("flywheel", measure), plain("hybrid", measure))
        difference = found["differences"][measure]
        assert difference["mean"] == pytest.approx(paired.mean())
        error = paired.std() / math.sqrt(15)
        assert difference["high"] - difference["low"] == pytest.approx(2 * 1.96 * error, rel=0.2)
    assert found["by_cycle"] == [found["static"], found["flywheel"]]
    assert list(found["ahead"]) == [START, *AHEAD_OF[1:]]
    assert found["ahead"][START] == found["difference"]
    nobody = measured_slice(("none", "what", []), values, by_cycle, PROTOCOL)
    assert (nobody["n"], nobody["flywheel"], nobody["difference"]) == (0, None, None)


def test_votes_help_questions_asked_again_and_rephrased(result: dict[str, Any]) -> None:
    (c,) = result["collections"]
    assert result["protocol"]["name"] == "cycles-v2"
    assert result["protocol"]["traffic"] == asdict(TRAFFIC)
    slices = {s["name"]: s for s in c["slices"]}
    assert list(slices) == SLICES
    assert slices["asked again"]["difference"]["low"] > 0
    learned, static = (
        slices["rephrased"]["rankings"][name]["nDCG@10"]
        for name in ("memory without a model", "hybrid")
    )
    assert learned > static + 0.02
    assert sum(slices[name]["n"] for name in SLICES[2:5]) == c["n_test"] == TOPICS
    names = [r["name"] for r in c["rankings"]]
    assert {"hybrid", "±1 unbounded", "Bayes on own votes", "memory without a model"} <= set(names)
    on_own = slices["rephrased"]["rankings"]["Bayes on own votes"]
    assert (
        on_own == slices["rephrased"]["rankings"]["hybrid"]
    )  # no test question has votes of its own
    assert c["stream"]["n_asked"] == 60
    assert c["stream"]["n_needs"] == round(0.8 * TOPICS)


def test_what_each_refresh_made_live_is_in_the_result(result: dict[str, Any]) -> None:
    (c,) = result["collections"]
    for run in c["runs"]:
        assert len(run["refreshes"]) == 2
        for refresh in run["refreshes"]:
            assert refresh["weights"] in ("new", "kept") and refresh["reason"]
            assert "kernel" in refresh["parameters"]
    assert c["warnings"] and "several right passages, 1.5 on average" in c["warnings"][0]


def test_the_table_of_refreshes_has_whatever_rates_there_are() -> None:
    old = {"noise": 0.25, "sharpness": 1.0, "source": "x", "kernel": {"theta": 0.5, "n0": 4.0}}
    new = {"false_helpful": 0.1, "false_harmful": 0.3, "answers": None, "kernel": {"theta": 0.625}}
    run = {
        "refreshes": [
            {"weights": "kept", "reason": "few", "parameters": old},
            {"weights": "new", "reason": "better", "parameters": new},
        ]
    }
    columns, rows = refresh_table(run)
    assert list(columns) == [
        "cycle",
        "weights",
        "noise",
        "false +",
        "false −",
        "answers",
        "theta",
        "n0",
    ]
    assert rows == [
        ["1", "kept", "0.25", "–", "–", "–", "0.5", "4"],
        ["2", "new", "–", "0.1", "0.3", "1", "0.625", "–"],
    ]


@pytest.mark.slow
def test_the_report_has_results_first_and_how_to_read_folded_below(
    result: dict[str, Any], tmp_path: Path
) -> None:
    write_report(json.loads(json.dumps(result)), file := tmp_path / "report.html")
    text = file.read_text(encoding="utf-8")
    places = [
        text.index(f"<section id='{key}'>") for key in ("all", "collection-1", "read", "made")
    ]
    assert places == sorted(places)
    how = text[places[2] : places[3]]
    assert how.index("<details>") < how.index("Zipf")
    assert "Zipf" not in text[: places[2]]
    assert text.index("several right passages") < places[1]
    assert "Live after each cycle of the run “votes”" in text


def test_the_terminal_prints_slices_refreshes_and_warnings(
    result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    print_result(result)
    printed = capsys.readouterr().out
    for shown in ("warning, made: ", "rephrased", "R@8", "Bayes on own votes", "weights", "theta"):
        assert shown in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_progress_names_the_run_the_cycle_and_the_total(
    result: dict[str, Any], steps: list[tuple[str, int, int]]
) -> None:
    assert result
    assert ("made, votes: cycle 2 of 2, users ask and vote", 30, 60) in steps
    assert ("made, no votes: cycle 1 of 2, the index is refreshed and measured", 30, 60) in steps
    runs = {step.partition(",")[2].partition(":")[0] for step, _, _ in steps if "cycle" in step}
    assert runs == {" votes", " random votes", " fixed exposure", " no votes"}


def test_the_page_explains_this_protocol(result: dict[str, Any]) -> None:
    topics = dict(how_to_read(result))
    assert "60 questions, repeats included" in topics["The protocol"]
    assert "10 users ask all questions" in topics["The users"]
    assert "Rephrased" in topics["Slices"]
