"""What a refresh with one new vote takes, by how many questions were voted on before.

    python benchmarks/speed/speed_learning.py --out benchmarks/results/speed_learning.json

Each round refreshes two copies of an index, one after the other, after the same vote: one whose version
has the candidates of past questions with their features, and one from whose version they were taken, so
that all are looked up anew. "exponent" is the slope of the time against the number of past questions,
both as logarithms.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel, Vote
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.deploy.manifest import manifest_text
from rag_flywheel.deploy.versions import MANIFEST, read_manifest, version_folder
from rag_flywheel.rank.stored_lookups import FOLDER
from speed_data import SEED, Data, near, read_data
from speed_times import Spent

K = 8
ARMS = "stored", "anew"
LIBRARIES = ("faiss-cpu", "numpy")
_AT_ONCE = 500  # questions
_USERS = 50


def ask_and_vote(fw: Flywheel, data: Data, numbers: range) -> None:
    """Ask questions near those of the collection, and vote on two hits of each."""
    rng = np.random.default_rng([SEED, numbers.start])
    queries = data.queries
    own = data.encoder.encode_queries([queries[i % len(queries)] for i in numbers])
    texts = [f"{queries[i % len(queries)]} {i}" for i in numbers]
    data.encoder.also(texts, near(own, len(own), rng))
    for start in range(0, len(texts), _AT_ONCE):
        votes = []
        for i, shown in enumerate(fw.retrieve_many(texts[start : start + _AT_ONCE], K)):
            user, hits = f"u{(start + i) % _USERS}", shown.hits
            votes.append(Vote(shown.id, hits[i % 2].passage_id, "helpful", user_id=user))
            votes.append(Vote(shown.id, hits[2 + i % 3].passage_id, "harmful", user_id=user))
        fw.feedback_many(votes)


def take_lookups(root: Path, version: str) -> None:
    """Take the stored candidates of past questions out of a version."""
    folder = version_folder(root, version)
    shutil.rmtree(folder / FOLDER)
    manifest = read_manifest(root, version)
    left = {name: file for name, file in manifest.files.items() if not name.startswith(FOLDER)}
    text = manifest_text(replace(manifest, files=left))
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def one_refresh(root: Path, data: Data, number: int, *, anew: bool) -> dict[str, float]:
    """Seconds of a refresh after one vote on a question that is asked then."""
    with Flywheel.open(root, encoder=data.encoder) as fw:
        ask_and_vote(fw, data, range(number, number + 1))
        live = fw.status().version
        assert live is not None
        if anew:
            take_lookups(root, live)
        spent = Spent()
        report = fw.refresh()
        found = spent.since()
        if report.outcome != "promoted":
            raise SystemExit(f"the refresh was {report.outcome}: {report.reason}")
    return found


def exponent(sizes: list[dict[str, Any]], arm: str) -> float:
    """The slope of log time against log past questions."""
    n = np.log([size["n_past"] for size in sizes])
    return round(float(np.polyfit(n, np.log([size[arm]["cpu_s"] for size in sizes]), 1)[0]), 3)


def main() -> None:
    """Build the index, vote, measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="scifact")
    parser.add_argument("--past", type=int, nargs="+", default=[500, 2_000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    data, sizes = read_data(asked.collection, None), []
    with tempfile.TemporaryDirectory() as work:
        base, n_before, number = Path(work) / "kb", 0, 10**6
        for n in asked.past:
            with Flywheel.open(base, encoder=data.encoder) as fw:
                if not n_before:
                    fw.add(data.passages)
                    fw.refresh()
                ask_and_vote(fw, data, range(n_before, n))
                fw.refresh()
                live = fw.status().version
            assert live is not None
            folder, n_before = version_folder(base, live), n
            stored = sum(f.stat().st_size for f in (folder / FOLDER).iterdir())
            rounds: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
            roots = {arm: Path(shutil.copytree(base, Path(work) / arm)) for arm in ARMS}
            for turn in range(asked.rounds):
                number += 1
                for arm in ARMS if turn % 2 else reversed(ARMS):
                    rounds[arm].append(one_refresh(roots[arm], data, number, anew=arm == "anew"))
                    print(time.strftime("%H:%M:%S"), n, arm, rounds[arm][-1], file=sys.stderr)
            for root in roots.values():
                shutil.rmtree(root)
            medians = {
                arm: {unit: float(np.median([r[unit] for r in some])) for unit in ("s", "cpu_s")}
                for arm, some in rounds.items()
            }
            ratios = [a["cpu_s"] / s["cpu_s"] for s, a in zip(*rounds.values(), strict=True)]
            sizes.append(
                {
                    "n_past": n,
                    **medians,
                    "cpu_anew_over_stored": round(float(np.median(ratios)), 3),
                    "stored_mib": round(stored / 2**20, 1),
                }
            )
            found = {
                "commit": commit(),
                "machine": machine(*LIBRARIES),
                "collection": asked.collection,
                "n_passages": len(data.passages),
                "rounds": asked.rounds,
                "sizes": sizes,
                "exponent": {arm: exponent(sizes, arm) for arm in ARMS} if sizes[1:] else None,
            }
            asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
