"""Measures against hand-worked tables, and against pytrec_eval asked directly."""

import math
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from rag_flywheel.bench import measures as m
from rag_flywheel.formats.beir import read_beir

QRELS = {"q1": {"a": 1, "b": 1, "c": 0}, "q2": {"z": 1}, "q3": {"x": 1}}
RUN = {"q1": ["a", "c", "b"], "q2": ["y", "z"]}


def test_ndcg_by_hand() -> None:
    found = m.ndcg_at_10(QRELS, RUN)
    ideal = 1 + 1 / math.log2(3)
    assert found["q1"] == pytest.approx((1 + 1 / math.log2(4)) / ideal)
    assert found["q2"] == pytest.approx(1 / math.log2(3))
    assert found["q3"] == 0.0  # no hits at all


def test_graded_relevance_by_hand() -> None:
    found = m.ndcg_at_10({"q": {"a": 1, "b": 2}}, {"q": ["a", "b"]})
    assert found["q"] == pytest.approx((1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3)))


def test_the_others_by_hand() -> None:
    found = m.by_query(m.STANDARD, QRELS, RUN)
    assert found["R@1"] == {"q1": 0.5, "q2": 0.0, "q3": 0.0}
    assert found["P@8"] == {"q1": 0.25, "q2": 0.125, "q3": 0.0}
    assert found["R@8"] == {"q1": 1.0, "q2": 1.0, "q3": 0.0}
    assert found["Judged@8"] == {"q1": 1.0, "q2": 0.5, "q3": 0.0}
    assert m.harmful_at_8(QRELS, RUN) == {"q1": pytest.approx(1 / 3), "q2": 0.5, "q3": 0.0}


def test_only_the_first_eight_hits_count_as_harmful() -> None:
    hits = [f"n{i}" for i in range(6)] + ["a", "b"] + [f"m{i}" for i in range(20)]
    assert m.harmful_at_8({"q": {"a": 1, "b": 1}}, {"q": hits}) == {"q": 0.75}


def test_order_is_that_of_the_run_whatever_the_names() -> None:
    qrels = {"q": {"b": 1}}
    assert m.ndcg_at_10(qrels, {"q": ["b", "a"]})["q"] == 1.0
    assert m.ndcg_at_10(qrels, {"q": ["a", "b"]})["q"] < 1.0


@pytest.mark.parametrize(
    "name",
    [
        "scifact",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("metatool", "feedbackqa", "squad11_dev", "aws_docs")
        ),
    ],
)
def test_measures_agree_with_pytrec_eval_on_real_qrels(name: str, data_folder: Path) -> None:
    if name == "aws_docs":
        pytest.skip("159,173 passages take a minute to read; its graded qrels are tested below")
    split = read_beir(data_folder / name).splits["test"]
    _agree(split.qrels)


@pytest.mark.slow
def test_measures_agree_with_pytrec_eval_on_graded_qrels(data_folder: Path) -> None:
    qrels = read_beir(data_folder / "aws_docs").splits["test"].qrels
    assert {g for judged in qrels.values() for g in judged.values()} == {1, 2}
    _agree(qrels)


def _agree(qrels: dict[str, dict[str, int]]) -> None:
    rng = np.random.default_rng(0)
    everything = sorted({p for judged in qrels.values() for p in judged})
    run = {}
    for query, judged in qrels.items():
        others = rng.choice(everything, 20).tolist()
        hits = list(dict.fromkeys([*judged, *others]))
        run[query] = [hits[i] for i in rng.permutation(len(hits))[:75]]
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.1,8,75", "P.8"})
    scored = {q: {p: -float(i) for i, p in enumerate(hits)} for q, hits in run.items()}
    expected = theirs.evaluate(scored)
    ours = m.by_query(m.STANDARD, qrels, run)
    names = {
        "nDCG@10": "ndcg_cut_10",
        "R@1": "recall_1",
        "R@8": "recall_8",
        "R@75": "recall_75",
        "P@8": "P_8",
    }
    for measure, name in names.items():
        for query in qrels:
            assert ours[measure][query] == pytest.approx(expected[query][name]), (measure, query)
