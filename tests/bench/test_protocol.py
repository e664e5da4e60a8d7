"""cycles-v1 on a small made collection: controls, determinism, honesty."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from made_collection import write_collection
from rag_flywheel import FlywheelError
from rag_flywheel.bench.bench import Series, run_bench
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.reading import how_to_read
from rag_flywheel.bench.users import Users
from rag_flywheel.formats.beir import read_beir


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("data") / "made")


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    return run_bench([folder], Protocol(n_cycles=3, users=Users(eta=0.0, eps=0.0)))


def run_named(result: dict[str, Any], name: str) -> list[dict[str, float]]:
    (found,) = [r for r in result["collections"][0]["runs"] if r["name"] == name]
    return [c["values"] for c in found["cycles"]]


def test_votes_help_where_questions_come_again(result: dict[str, Any]) -> None:
    cycles = run_named(result, "votes")
    assert cycles[-1]["nDCG@10"] > cycles[0]["nDCG@10"] + 0.1
    (ours,) = [r for r in result["collections"][0]["rankings"] if r["name"] == "flywheel"]
    assert ours["values"] == cycles[-1]
    assert ours["difference"]["mean"] == pytest.approx(
        cycles[-1]["nDCG@10"] - run_named(result, "no votes")[0]["nDCG@10"]
    )
    assert ours["difference"]["low"] > 0
    assert ours["helped"] > 0.25
    assert ours["hurt"] == 0.0


def test_without_votes_every_cycle_is_the_same_to_the_last_digit(result: dict[str, Any]) -> None:
    cycles = run_named(result, "no votes")
    assert len(cycles) == 4
    assert all(cycle == cycles[0] for cycle in cycles)
    assert cycles[0] == run_named(result, "votes")[0]


def test_the_oracle_is_above_and_the_static_rule_is_cycle_0(result: dict[str, Any]) -> None:
    by_name = {r["name"]: r for r in result["collections"][0]["rankings"]}
    assert by_name["oracle"]["values"]["nDCG@10"] == 1.0
    assert by_name["hybrid"]["values"] == run_named(result, "no votes")[0]
    assert by_name["hybrid"]["difference"] is None


def test_votes_are_counted_and_slices_cover_the_test_queries(result: dict[str, Any]) -> None:
    collection = result["collections"][0]
    assert (collection["n_train"], collection["n_dev"], collection["n_test"]) == (96, 24, 24)
    slices = {s["name"]: s["n"] for s in collection["slices"]}
    assert slices["near"] + slices["related"] + slices["far"] == 24
    for run in collection["runs"]:
        counts = [c["n_votes"] for c in run["cycles"]]
        assert counts == sorted(counts)
        assert (counts[-1] > 0) == (run["name"] != "no votes")


@pytest.mark.slow
def test_at_most_so_many_queries_are_asked_and_scored(folder: Path) -> None:
    protocol = Protocol(n_cycles=3, max_train=12, max_test=10, users=Users(eta=0.0, eps=0.0))
    found = run_bench([folder], protocol)
    (collection,) = found["collections"]
    assert (collection["n_train"], collection["n_test"]) == (12, 10)
    assert collection["runs"][0]["cycles"][-1]["n_votes"] <= 12 * 8
    assert "12 at most" in how_to_read(found)[0][1]
    with pytest.raises(FlywheelError, match="2 train queries to ask; expected at least 3"):
        run_bench([folder], Protocol(n_cycles=3, max_train=2))


@pytest.mark.slow
def test_one_seed_on_one_thread_gives_the_same_bytes(folder: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path\n"
        "from rag_flywheel.bench.bench import run_bench\n"
        "from rag_flywheel.bench.setup import Protocol\n"
        "r = run_bench([Path(sys.argv[1])], Protocol(n_cycles=2, max_test=10))\n"
        "r.pop('environment'); [c.pop('seconds') for c in r['collections']]\n"
        "print(json.dumps(r))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            capture_output=True,
            text=True,
            env={**env, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    )
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["collections"][0]["n_test"] == 10
    assert first.stdout == second.stdout


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("qrels/test.tsv", "h\nq0-5\tanswer0\tyes\n", "line 2 has the grade 'yes'; expected"),
        ("queries.jsonl", "{\n", r"queries\.jsonl, line 1 is no JSON"),
        ("corpus.jsonl", '{"_id": "x"}\n', "line 1 has no _id and text"),
    ],
)
def test_bad_collections_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    folder = write_collection(tmp_path / "bad")
    (folder / name).write_text(text)
    with pytest.raises(FlywheelError, match=message):
        read_beir(folder)


def test_what_a_run_needs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_collection(tmp_path / "made")
    for name in ("train", "test"):
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(
        FlywheelError, match=r"judges no query of train\.tsv or test\.tsv; expected"
    ):
        run_bench([folder], Protocol())
    monkeypatch.setenv("RAG_FLYWHEEL_DATA", str(tmp_path))
    assert find_collection("made") == folder
    with pytest.raises(FlywheelError, match="no collection 'nowhere': looked for nowhere and"):
        find_collection("nowhere")


def test_prepared_vectors_must_fit(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "made")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "more", "text": "one more"}\n')
    with pytest.raises(FlywheelError, match="holds 48 passages and 176 queries; the collection"):
        run_bench([folder], Protocol())


def test_plain_and_gzipped_collections_read_alike(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "made")
    plain = read_beir(folder)
    for name in ("corpus", "queries"):
        path = folder / f"{name}.jsonl"
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read_beir(folder) == plain


@pytest.mark.slow
def test_verdicts_on_answers_go_through_answer_feedback(folder: Path) -> None:
    """Verdicts on the answer alone, without its text, still teach; the rules know the hit."""
    users = Users(eta=0.0, eps=0.0, answer_level=True, told="cited")
    found = run_bench([folder], Protocol(n_cycles=3, users=users))["collections"][0]
    (votes,) = [r for r in found["runs"] if r["name"] == "votes"]
    assert [c["n_votes"] for c in votes["cycles"]] == [0, 32, 64, 96]  # one a question
    assert votes["cycles"][-1]["values"]["nDCG@10"] > votes["cycles"][0]["values"]["nDCG@10"] + 0.05
    assert found["n_voted"] == 96


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in result.items() if name != "environment"}
    for collection in kept["collections"]:
        del collection["seconds"]
    return kept


@pytest.mark.slow
def test_runs_that_share_what_no_user_changes_give_what_each_alone_gives(
    folder: Path, tmp_path: Path
) -> None:
    kinds = [
        Users(eps=0.4),
        Users(malicious=0.3, attack="collude"),
        Users(eta=0.0),
        Users(answer_level=True),
    ]
    series = Series([folder], tmp_path)
    for users in kinds:
        protocol = Protocol(n_cycles=2, users=users)
        alone = run_bench([folder], protocol)
        assert timeless(series.run(protocol)) == timeless(alone)


@pytest.mark.slow
def test_runs_that_differ_in_more_than_users_share_nothing(folder: Path, tmp_path: Path) -> None:
    series = Series([folder], tmp_path)
    series.run(Protocol(n_cycles=2))
    with pytest.raises(ValueError, match="which the runs before it had"):
        series.run(Protocol(n_cycles=2, seed=1))
