"""What a rollback costs at 100,000 passages, and whether answers come back as they were.

    python benchmarks/rollback_cost.py --out benchmarks/results/rollback_cost.json

Passages are random words with vectors around random centres. Votes are cast, a version is built,
its answers are kept; more votes and another version follow; then the first one is rolled back to,
several times, and its answers are compared.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag_flywheel import Flywheel, Passage, Vote
from rag_flywheel.bench.bench import commit
from rag_flywheel.records import Vectors

DIM, CENTRES, WORDS, ROUNDS = 384, 500, 5_000, 5
Answers = list[list[tuple[str, float]]]


class Made:
    """Vectors near a centre that the first word of a text names; the same in every process."""

    name, revision, dim = "made", "1", DIM

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return self.encode_passages(texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        centres = np.random.default_rng(1).normal(size=(CENTRES, DIM))
        rows = np.empty((len(texts), DIM), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            seed = sum(map(ord, text)) + 1000 * len(text)
            noise = np.random.default_rng(seed).normal(size=DIM)
            row[:] = centres[int(text.split()[0][1:]) % CENTRES] + noise
        unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def text(rng: np.random.Generator, n_words: int) -> str:
    """The name of a centre and random words."""
    words = " ".join(f"w{i}" for i in rng.zipf(1.3, n_words) % WORDS)
    return f"c{rng.integers(CENTRES)} {words}"


def vote(fw: Flywheel, queries: Sequence[str], rng: np.random.Generator, user: str) -> None:
    """Votes at random on the best three hits."""
    votes = []
    for shown in fw.retrieve_many(queries):
        for hit in shown.hits[:3]:
            verdict = "helpful" if rng.random() < 0.6 else "harmful"
            votes.append(Vote(shown.id, hit.passage_id, verdict, user))  # type: ignore[arg-type]
    fw.feedback_many(votes)


def answers(fw: Flywheel, queries: Sequence[str]) -> Answers:
    """Ids and scores."""
    found = fw.retrieve_many(queries, record=False)
    return [[(hit.passage_id, hit.score) for hit in one.hits] for one in found]


def main() -> None:
    """Build two versions, roll back to the first, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rollback_cost.json"))
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    queries = [text(rng, 6) for _ in range(400)]
    seconds, first_answer_s, same_order, apart = [], [], True, 0.0
    with (
        tempfile.TemporaryDirectory() as scratch,
        Flywheel.open(Path(scratch) / "kb", encoder=Made()) as fw,
    ):
        fw.add([Passage(f"p{i}", text(rng, 30)) for i in range(asked.passages)])
        vote(fw, queries[:200], rng, "ann")
        first = str(fw.refresh().version)
        before = answers(fw, queries)
        for number in range(ROUNDS):
            vote(fw, queries, rng, f"user {number}")
            fw.release()
            fw.refresh()
            began = time.monotonic()
            fw.rollback(first)
            seconds.append(time.monotonic() - began)
            vote(fw, queries[:50], rng, f"later {number}")
            began = time.monotonic()
            fw.retrieve(queries[0], record=False)
            first_answer_s.append(time.monotonic() - began)
            after = answers(fw, queries)
            for one, other in zip(before, after, strict=True):
                same_order &= [i for i, _ in one] == [i for i, _ in other]
                for (_, a), (_, b) in zip(one, other, strict=True):
                    apart = max(apart, abs(a - b))
    found = {
        "commit": commit(),
        "n_passages": asked.passages,
        "rollback_seconds": [round(s, 3) for s in seconds],
        "rollback_seconds_median": round(statistics.median(seconds), 3),
        "first_answer_seconds_median": round(statistics.median(first_answer_s), 3),
        "same_order": same_order,
        "largest_difference_of_scores": apart,
        "n_cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
