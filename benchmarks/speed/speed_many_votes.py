"""What the next question waits for when very many votes came in at once, from another program.

    python benchmarks/speed/speed_many_votes.py

Needs aws_docs below RAG_FLYWHEEL_DATA. As many questions as votes were asked before, near the
collection's own; their vectors are given. "first": none of them had a vote before; "again": all of them
had. "waiting" is the library as it is, "at once" the same with all votes judged before the answer.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel, Vote
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.records import Verdict
from rag_flywheel.serve import catch_up
from speed_data import SEED, Data, near, read_data

K, N_USERS, BATCH = 8, 400, 2_100
Figures = dict[str, Any]
WAYS = {"waiting": catch_up._AT_ONCE, "at_once": 10**9}


@contextmanager
def judged_at_once(n: int) -> Iterator[None]:
    """Votes on more questions than n wait until they are needed."""
    before, catch_up._AT_ONCE = catch_up._AT_ONCE, n
    try:
        yield
    finally:
        catch_up._AT_ONCE = before


def asked_before(root: Path, data: Data, n: int) -> list[tuple[str, str]]:
    """An index whose users asked n questions: for each the id of its answer and a passage of that."""
    rng = np.random.default_rng([SEED, n])
    texts = [f"{data.queries[i % len(data.queries)]} {i}" for i in range(n)]
    data.encoder.also(texts, near(data.encoder.encode_queries(data.queries), n, rng))
    with Flywheel.open(root, encoder=data.encoder) as fw:
        fw.add(data.passages)
        fw.refresh()
        parts = (texts[start : start + 500] for start in range(0, n, 500))
        shown = [one for part in parts for one in fw.retrieve_many(part, K)]
    return [(one.id or "", one.hits[i % 3].passage_id) for i, one in enumerate(shown)]


def waited_ms(root: Path, data: Data, given: Sequence[tuple[str, str]]) -> Figures:
    """Milliseconds of the processor of the question after all votes, first and again, and of the one
    after that; a quiet one is asked before."""
    found: Figures = {}
    queries = iter(data.queries[50:])

    def ask(fw: Flywheel) -> float:
        began = time.thread_time()
        fw.retrieve(next(queries), K, record=False)
        return (time.thread_time() - began) * 1000.0

    with (
        Flywheel.open(root, encoder=data.encoder) as fw,
        Flywheel.open(root, encoder=data.encoder) as other,
    ):
        for query in data.queries[:50]:
            fw.retrieve(query, K, record=False)
        found["quiet_ms"] = float(np.median([ask(fw) for _ in range(9)]))
        verdicts: dict[str, Verdict] = {"first": "helpful", "again": "harmful"}
        for name, verdict in verdicts.items():
            for start in range(0, len(given), BATCH):
                part = enumerate(given[start : start + BATCH], start)
                other.feedback_many(
                    [Vote(*pair, verdict, f"{name}{i % N_USERS}") for i, pair in part]
                )
            found[f"{name}_ms"] = ask(fw)
            found[f"{name}_next_ms"] = ask(fw)
    return found


def measured(n_passages: int, n_votes: int, rounds: int, work: Path) -> Figures:
    """Both ways in turns, medians; and, of each round, how many times as long the one takes."""
    data = read_data("aws_docs", n_passages)
    given = asked_before(work / "kb", data, n_votes)
    spent: dict[str, list[Figures]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, n in WAYS.items():
            with judged_at_once(n):
                copy = Path(shutil.copytree(work / "kb", work / "copy"))
                spent[way].append(waited_ms(copy, data, given))
                shutil.rmtree(copy)
    found: Figures = {
        way: {key: round(float(np.median([one[key] for one in each])), 2) for key in each[0]}
        for way, each in spent.items()
    }
    for name in ("first", "again"):
        times = [
            old[f"{name}_ms"] / new[f"{name}_ms"]
            for old, new in zip(spent["at_once"], spent["waiting"], strict=True)
        ]
        found[f"{name}_times"] = round(float(np.median(times)), 1)
    return found


def main() -> None:
    """Measure and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=2_000)
    parser.add_argument("--votes", type=int, default=12_600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/speed_many_votes.json")
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = measured(asked.passages, asked.votes, asked.rounds, Path(work))
    result = {
        "commit": commit(),
        "seed": SEED,
        "n_passages": asked.passages,
        "n_votes": asked.votes,
        "rounds": asked.rounds,
        "machine": machine("faiss-cpu", "numpy"),
        **found,
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
