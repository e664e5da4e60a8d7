"""Ratings of people are replayed as the votes that they are."""

import gzip
import json
from pathlib import Path

import pytest

from made_collection import TOPICS, write_collection
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.replay import replay
from rag_flywheel.bench.setup import prepare


def rated(folder: Path, good: str, bad: str, *, split: str = "dev", phrasing: int = 0) -> None:
    """Three raters of one phrasing of each topic agree on the good and the bad passage."""
    rows = []
    for t in range(TOPICS):
        query = f"topic{t} problem{t} word{t}{phrasing} please"
        for passage, rating in ((good, "Excellent"), (bad, "Bad")):
            row = {"query": query, "passage_id": f"{passage}{t}", "feedback_split": split}
            rows.append({**row, "ratings": [rating] * 3})
    rows.append({"query": "topic1 x", "passage_id": "gone", "feedback_split": "dev", "ratings": []})
    with gzip.open(folder / "feedback.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, rows)) + "\n")


def replayed(tmp_path: Path) -> dict[str, float]:
    protocol = Protocol(n_cycles=3)
    bench = prepare(tmp_path / "made", protocol, tmp_path, None)
    found = replay(tmp_path / "made", bench, protocol)
    assert found is not None
    return found


def test_right_ratings_help_and_wrong_ones_hurt(tmp_path: Path) -> None:
    for name, good, bad in (("right", "answer", "decoy"), ("wrong", "decoy", "answer")):
        rated(write_collection(tmp_path / name / "made"), good, bad)
    right, wrong = replayed(tmp_path / "right"), replayed(tmp_path / "wrong")
    assert (right["n_questions"], right["n_votes"]) == (TOPICS, 6 * TOPICS)
    assert right["before"] == wrong["before"]
    assert right["after"] > right["before"] > wrong["after"]


def test_ratings_of_other_splits_and_of_test_questions_are_left_out(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "made")
    rated(folder, "answer", "decoy", phrasing=5)  # the phrasings that are scored
    found = replayed(tmp_path)
    assert (found["n_questions"], found["n_votes"], found["after"]) == (0, 0, found["before"])


@pytest.mark.parametrize("split", ["test", "train"])
def test_only_dev_ratings_count(tmp_path: Path, split: str) -> None:
    rated(write_collection(tmp_path / "made"), "answer", "decoy", split=split)
    assert replayed(tmp_path)["n_votes"] == 0


def test_collections_without_ratings_are_not_replayed(tmp_path: Path) -> None:
    write_collection(tmp_path / "made")
    bench = prepare(tmp_path / "made", Protocol(n_cycles=3), tmp_path, None)
    assert replay(tmp_path / "made", bench, Protocol(n_cycles=3)) is None
