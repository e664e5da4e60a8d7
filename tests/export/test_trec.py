"""Runs and qrels of TREC: read by another tool, and the same grades and order as the index has."""

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rag_flywheel import Flywheel, Passage
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.formats.trec import field, id_of_field, write_run

ODD = ["a b", "c\td", "100%", "e\u2028f", "%20", "ü", 'say "x"', "g\x85h", "i\u3000j"]


@example("%")
@example(" ")
@given(st.text(min_size=1).map(lambda text: text.encode("utf-8", "replace").decode()))
def test_an_id_is_one_column_and_comes_back(id_: str) -> None:
    assert len(field(id_).split()) == 1
    assert id_of_field(field(id_)) == id_


def columns(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def voted(fw: Flywheel) -> Flywheel:
    fw.add([Passage(id_, f"words number{n} of a text") for n, id_ in enumerate(ODD)])
    for n, id_ in enumerate(ODD):
        for _ in range(2):  # the second ranking is the one that counts
            shown = fw.retrieve(f"number{n} \t words?", k=20, user_id=f"u{n}")
            fw.feedback(shown.id, id_, "helpful", user_id=f"u{n}")
            fw.feedback(shown.id, ODD[n - 1], "harmful", user_id=f"u{n}")
    return fw


def test_the_run_is_the_newest_ranking_and_the_qrels_are_those_of_beir(
    voted: Flywheel, tmp_path: Path
) -> None:
    report = voted.export.trec(tmp_path / "trec")
    voted.export.beir(tmp_path / "beir")
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for question, zero, passage, grade in columns(tmp_path / "trec" / "qrels.trec"):
        assert zero == "0"
        qrels[question][id_of_field(passage)] = int(grade)
    splits = read_beir(tmp_path / "beir").splits.values()
    assert qrels == {q: grades for split in splits for q, grades in split.qrels.items()}
    topics = dict(
        line.split("\t")
        for line in (tmp_path / "trec" / "topics.tsv").read_text(encoding="utf-8").splitlines()
    )
    newest = {}
    for seen in voted.retrievals(100):
        newest.setdefault(seen.query, [hit.passage_id for hit in seen.hits])
    run: dict[str, list[str]] = defaultdict(list)
    for question, q0, passage, rank, score, tag in columns(tmp_path / "trec" / "run.trec"):
        run[question].append(id_of_field(passage))
        assert (q0, int(rank), tag) == ("Q0", len(run[question]), "rag-flywheel")
        assert float(score) < 10.0
    assert {topics[q]: ids for q, ids in run.items()} == {
        " ".join(query.split()): ids for query, ids in newest.items()
    }
    assert report.written == {
        "questions": len(ODD),
        "ranks": sum(map(len, run.values())),
        "judgments": 2 * len(ODD),
    }


def test_questions_whose_votes_are_even_are_in_no_file_and_are_counted(
    fw: Flywheel, tmp_path: Path
) -> None:
    fw.add([Passage("p", "some words of a text"), Passage("q", "more words of a text")])
    for query, verdicts in {
        "some words": ["helpful", "harmful"],
        "more words": ["harmful"],
    }.items():
        for n, verdict in enumerate(verdicts):
            shown = fw.retrieve(query, user_id=f"u{n}")
            fw.feedback(shown.id, "q", verdict, user_id=f"u{n}")  # type: ignore[arg-type]
    report = fw.export.trec(tmp_path / "trec")
    assert report.written["questions"] == report.written["judgments"] == 1
    assert report.left_out == {"questions on whose passages the votes are even": 1}
    topics, qrels, run = (
        {line.split()[0] for line in (tmp_path / "trec" / name).read_text().splitlines()}
        for name in ("topics.tsv", "qrels.trec", "run.trec")
    )
    assert len(topics) == 1
    assert topics == qrels == run


def test_trec_eval_reads_both_and_ranks_as_the_index_did(voted: Flywheel, tmp_path: Path) -> None:
    measures = pytest.importorskip("ir_measures", reason="needs the extra bench")
    voted.export.trec(tmp_path / "trec")
    qrels = list(measures.read_trec_qrels(str(tmp_path / "trec" / "qrels.trec")))
    run = list(measures.read_trec_run(str(tmp_path / "trec" / "run.trec")))
    found = measures.calc_aggregate([measures.RR @ 10, measures.P @ 1], qrels, run)
    first = {seen.query: seen.hits[0].passage_id for seen in reversed(voted.retrievals(100))}
    right = sum(first[f"number{n} \t words?"] == id_ for n, id_ in enumerate(ODD))
    assert found[measures.P @ 1] == pytest.approx(right / len(ODD))
    assert found[measures.RR @ 10] >= found[measures.P @ 1] > 0.5


def test_equal_scores_keep_the_order_shown(tmp_path: Path) -> None:
    """trec_eval sorts by scores, and equal ones by the ids, backwards."""
    measures = pytest.importorskip("ir_measures", reason="needs the extra bench")
    shown = [("b", 1.0), ("a", 1.0), ("c", 1.0 - 1e-12), ("d", 1.5)]
    assert write_run(tmp_path / "run", [("q", shown)], "t") == 4
    for best, rank in (("b", 1), ("a", 2), ("c", 3), ("d", 4)):
        qrels = [measures.Qrel("q", best, 1)]
        run = list(measures.read_trec_run(str(tmp_path / "run")))
        assert measures.calc_aggregate([measures.RR], qrels, run)[measures.RR] == 1 / rank
