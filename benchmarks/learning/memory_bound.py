"""What the votes of a benchmark run could tell at most, to a memory that knew which questions share
an answer: beside what the flywheel makes of them.

    RAG_FLYWHEEL_DATA=... python benchmarks/learning/memory_bound.py --eps 0 --seeds 3

After ten cycles of cycles-v1 every test question's answers that somebody called helpful for a train
question are put first, and what was called harmful for a train question with one of the same answers
(cosine 0.8 or more) is taken out; the rest stays in the flywheel's order. Who shares an answer is
read from the collection's relevance grades, which no retriever knows.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import ndcg_at_10
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.runs import run_votes
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.formats.beir import Split
from rag_flywheel.records import Retrieval, Vectors, Vote

ALIKE = 0.8  # cosine
BANDS = (-1.0, 0.5, 0.7, 0.8, 0.9, 1.01)


@dataclass(frozen=True)
class Listening(Users):
    """Users whose votes are noted besides: {question: {passage: called helpful}}."""

    heard: dict[str, dict[str, bool]] = field(default_factory=dict)

    def votes(
        self, seen: Retrieval, answers: Any, user_id: str, rng: np.random.Generator
    ) -> list[Vote]:
        """Those of `Users`."""
        given = super().votes(seen, answers, user_id, rng)
        said = {vote.passage_id: vote.verdict == "helpful" for vote in given}
        self.heard.setdefault(seen.query, {}).update(said)
        return given


def run(name: str, eps: float, seed: int) -> dict[str, Any]:
    """One collection under one seed."""
    began = time.monotonic()
    users = Listening(eps=eps)
    protocol = Protocol(seed=seed, users=users)
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), protocol, Path(scratch), None)
        cycles = run_votes(bench, protocol, None).cycles
        (_, static), (_, learned) = cycles[0], cycles[-1]
        known = _Known(bench, users.heard)
        told = {query: known.ranked(query, found) for query, found in learned.items()}
    scores = {
        kind: ndcg_at_10(bench.test.qrels, found)
        for kind, found in (("static", static), ("learned", learned), ("bound", told))
    }
    return {
        "collection": name,
        "eps": eps,
        "seed": seed,
        "n_asked": len(bench.train.queries),
        "n_answer_called_helpful": sum(bool(good) for good in known.good.values()),
        **{kind: round(float(np.mean(list(each.values()))), 4) for kind, each in scores.items()},
        "by_nearest_question_with_an_answer_of_it": known.by_cosine(scores),
        "seconds": round(time.monotonic() - began, 1),
    }


class _Known:
    """Which train questions share an answer with a test question, and what was said of them."""

    def __init__(self, bench: Bench, heard: dict[str, dict[str, bool]]) -> None:
        assert bench.encoder is not None, "cosines are taken from prepared vectors"
        self._tests, self._trains = sorted(bench.test.queries), sorted(bench.train.queries)
        ours, theirs = (
            _vectors(bench, split, ids)
            for split, ids in ((bench.test, self._tests), (bench.train, self._trains))
        )
        self._cosines = dict(zip(self._tests, ours @ theirs.T, strict=True))
        self._answers = {q: _relevant(bench.test, q) for q in self._tests}
        self._of_train = {q: _relevant(bench.train, q) for q in self._trains}
        said = {q: heard.get(bench.train.queries[q], {}) for q in self._trains}
        self.good = {
            q: {p for p, ok in v.items() if ok} & self._of_train[q] for q, v in said.items()
        }
        self._bad = {q: {p for p, ok in v.items() if not ok} for q, v in said.items()}

    def _sharing(self, query: str) -> list[tuple[str, float]]:
        """The train questions with an answer of this one, and their cosines."""
        pairs = zip(self._trains, self._cosines[query].tolist(), strict=True)
        return [(t, cosine) for t, cosine in pairs if self._of_train[t] & self._answers[query]]

    def ranked(self, query: str, found: Sequence[str]) -> list[str]:
        """What was found, answers that somebody called helpful first."""
        sharing, answers = self._sharing(query), self._answers[query]
        good = {p for t, _ in sharing for p in self.good[t]} & answers
        bad = {p for t, cosine in sharing if cosine >= ALIKE for p in self._bad[t]} - answers
        first = [p for p in found if p in good]
        rest = [p for p in found if p not in good and p not in bad]
        return [*first, *sorted(good.difference(first)), *rest]

    def by_cosine(self, scores: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
        """Means over the test questions whose nearest sharing question has such a cosine."""
        nearest = {q: max((c for _, c in self._sharing(q)), default=-2.0) for q in self._tests}
        rows = [self._mean("none", [q for q in self._tests if nearest[q] == -2.0], scores)]
        for low, high in itertools.pairwise(BANDS):
            among = [q for q in self._tests if low <= nearest[q] < high]
            rows.append(self._mean(f"{low:g} to {min(high, 1.0):g}", among, scores))
        return rows

    @staticmethod
    def _mean(
        name: str, among: Sequence[str], scores: dict[str, dict[str, float]]
    ) -> dict[str, Any]:
        means = {
            kind: round(float(np.mean([each[q] for q in among])), 3) if among else None
            for kind, each in scores.items()
        }
        return {"cosine": name, "n": len(among), **means}


def _vectors(bench: Bench, split: Split, ids: Sequence[str]) -> Vectors:
    assert bench.encoder is not None
    return bench.encoder.encode_queries([split.queries[q] for q in ids])


def _relevant(split: Split, query: str) -> set[str]:
    return {p for p, grade in split.qrels[query].items() if grade > 0}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=["scifact"])
    parser.add_argument("--eps", type=float, default=0.0, help="share of wrong votes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/memory_bound.json"))
    asked = parser.parse_args()
    runs = []
    for name in asked.collections:
        for seed in range(asked.seeds):
            runs.append(found := run(name, asked.eps, seed))
            print(json.dumps(found, indent=1), flush=True)
    median = {
        name: {
            kind: statistics.median(r[kind] for r in runs if r["collection"] == name)
            for kind in ("static", "learned", "bound")
        }
        for name in asked.collections
    }
    found = {"protocol": "cycles-v1", "commit": commit(), "median": median, "runs": runs}
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
