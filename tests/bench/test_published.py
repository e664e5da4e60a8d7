"""The benchmark on collections as they are published: queries that are passages, one split, odd lines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_collection import write_collection
from rag_flywheel import Flywheel, Passage
from rag_flywheel.bench.baselines import History, VoteTable, run_of
from rag_flywheel.bench.bench import run_bench
from rag_flywheel.bench.cycles import answers, seen_by_users
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.terminal import print_result
from rag_flywheel.errors import InputError
from rag_flywheel.formats.beir import Split, read_beir


@pytest.fixture
def arguments(fw: Flywheel) -> tuple[Flywheel, Split]:
    """Arguments that are queries too, as in ArguAna, and one query that is none."""
    texts = {f"a{n}": f"cats claim number{n} because reason{n}" for n in range(12)}
    fw.add(Passage(id_, text) for id_, text in texts.items())
    queries = {**texts, "other": "cats claim number3"}
    qrels = {id_: {f"a{(n + 1) % 12}": 1} for n, id_ in enumerate(queries)}
    return fw, Split(queries, qrels, frozenset(texts))


def test_a_query_is_never_its_own_answer(arguments: tuple[Flywheel, Split]) -> None:
    fw, split = arguments
    run = answers(fw, split, 5)
    for id_, hits in run.items():
        found = fw.rank_many([split.queries[id_]], 6)[0]
        assert hits == [hit for hit in found if hit != id_][:5]
        assert (found[0] == id_) == (id_ != "other")  # without the rule it would be the first
    assert {len(hits) for hits in run.values()} == {5}


def test_users_do_not_see_their_own_text(arguments: tuple[Flywheel, Split]) -> None:
    fw, split = arguments
    queries = ["a3", "other", "a5", "a3"]
    for query, seen in zip(queries, seen_by_users(fw, split, queries), strict=True):
        assert seen.query == split.queries[query]
        assert query not in [hit.passage_id for hit in seen.hits]
        assert [hit.rank for hit in seen.hits] == list(range(1, 9))
        fw.feedback(seen.id, seen.hits[-1].passage_id, "helpful")


def test_rules_do_not_rank_it_either() -> None:
    none = np.zeros((0, 2), np.float32)
    empty = np.zeros(0, np.int64)
    votes = VoteTable(empty, empty, empty.astype(np.bool_))
    history = History(none, ["a", "b", "c"], none, votes)
    scores = np.array([[3, 2, 1], [3, 2, 1]], np.float32)
    assert run_of(scores, ["b", "q"], history, depth=2) == {"b": ["a", "c"], "q": ["a", "b"]}
    assert run_of(scores, ["b", "q"], history, depth=9) == {"b": ["a", "c"], "q": ["a", "b", "c"]}
    assert scores[0, 1] == 2  # the caller's array is not written to


def odd(folder: Path) -> Path:
    """A made collection with judgments of test alone, and one of each oddity."""
    write_collection(folder)
    (folder / "minilm.npz").unlink()
    train = (folder / "qrels" / "train.tsv").read_text().splitlines()[1:]
    (folder / "qrels" / "train.tsv").unlink()
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("\n".join([*train, "q0-0\tgone\t1", "nobody\tanswer0\t1"]) + "\n")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "blank", "title": "", "text": ""}) + "\n")
    return folder


@pytest.mark.slow
def test_a_collection_with_one_split_and_odd_lines_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = odd(tmp_path / "odd")
    result = run_bench([folder], Protocol(n_cycles=2))
    (found,) = result["collections"]
    assert (found["n_train"], found["n_dev"], found["n_test"]) == (58, 14, 72)
    expected = [
        "corpus: left out 1 line: neither text nor title (the first is line 49)",
        "qrels/test: left out 1 line: the passage is not there, or blank (the first is line 146)",
        "qrels/test: left out 1 line: the query is not there, or blank (the first is line 147)",
        "no train queries: half of those of test, by seed, are asked, and the others scored",
    ]
    assert found["left_out"] == expected
    by_file: dict[str, Any] = {lines["file"]: lines for lines in found["lines"]}
    assert by_file["qrels/test"]["n_lines"] == 147
    assert by_file["qrels/test"]["n_used"] == 144
    print_result(result)
    printed = " ".join(capsys.readouterr().out.split())
    for sentence in expected:
        assert f"odd: {sentence}" in printed


def test_ids_twice_stop_a_run_unless_it_is_lenient(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "twice")
    corpus = folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + corpus.read_text().splitlines()[0] + "\n")
    with pytest.raises(
        InputError, match=r"line 49 has the _id 'answer0' of line 1 again.*--lenient"
    ):
        run_bench([folder], Protocol())
    found = read_beir(folder, lenient=True)
    assert len(found.passages) == 48
