"""Measure how long a day's log of another tool takes to import, and how much memory.

RAG_FLYWHEEL_DATA=... python benchmarks/speed/imports.py --out benchmarks/results/speed_imports.json
The log is Langfuse's blob export: observations with the texts of five documents each, and scores, of which
half are on traces and half on retrievers, a fifth of them by a language model. A child imports it, twice.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rag_flywheel import Flywheel
from rag_flywheel.bench.machine import commit
from rag_flywheel.formats.beir import read_beir

DOCUMENTS = 5
DAY = datetime(2026, 11, 1, tzinfo=UTC)


def main() -> None:
    """Make an index and a log, import the log in a child process, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("RAG_FLYWHEEL_DATA"))
    parser.add_argument("--collection", default="squad11_dev")
    parser.add_argument("--retrievals", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=30_000, help="different ones among them")
    parser.add_argument("--scores", type=int, default=20_000)
    parser.add_argument("--encoder", help="module:factory; default: the model of new indexes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(json.dumps(child(given.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given)
    found |= {"encoder": given.encoder or "default", "load": os.getloadavg()[0]}
    found |= {"commit": commit(), "retrievals": given.retrievals, "scores": given.scores}
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


def measure(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The seconds and MiB of each import, as the child measured them."""
    collection = read_beir(given.data / given.collection)
    with Flywheel.open(folder / "kb", encoder=given.encoder) as fw:
        fw.add(collection.passages)
    write_log(folder, collection, given)
    size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
    words = [sys.executable, __file__, "--child", str(folder)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return {
        "log_mib": round(size / 2**20, 1),
        "passages": len(collection.passages),
        **json.loads(done.stdout),
    }


def write_log(folder: Path, collection: Any, given: argparse.Namespace) -> None:
    """Write observations.jsonl and scores.jsonl."""
    rng = random.Random(0)
    texts = list(collection.queries.values())
    asked = [
        f"{rng.choice(texts)} {n if n >= len(texts) else ''}".strip()
        for n in range(given.questions)
    ]
    passages = collection.passages
    with (folder / "observations.jsonl").open("w", encoding="utf-8") as file:
        for n in range(given.retrievals):
            at = DAY + timedelta(seconds=86_000 * n / given.retrievals)
            shown = rng.sample(passages, DOCUMENTS)
            documents = [{"page_content": p.text, "metadata": {"passage_id": p.id}} for p in shown]
            row: dict[str, Any] = {
                "id": f"ret-{n:08}", "trace_id": f"trace-{n:08}", "type": "RETRIEVER", "name": "retrieve",
                "parent_observation_id": "", "start_time": f"{at:%Y-%m-%d %H:%M:%S.%f}", "metadata": {},
                "input": rng.choice(asked), "user_id": f"user-{rng.randrange(3_000)}",
                "output": json.dumps(documents),
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
    with (folder / "scores.jsonl").open("w", encoding="utf-8") as file:
        for n in range(given.scores):
            of = rng.randrange(given.retrievals)
            at = DAY + timedelta(seconds=86_000 * of / given.retrievals + 60)
            on_trace, by_model = n % 2 == 0, n % 5 == 0
            score: dict[str, Any] = {
                "id": f"score-{n:08}", "trace_id": f"trace-{of:08}",
                "name": "relevance" if by_model else "user-feedback",
                "observation_id": None if on_trace else f"ret-{of:08}", "data_type": "BOOLEAN",
                "value": rng.randrange(2), "source": "EVAL" if by_model else "API",
                "metadata": {} if on_trace else {"rank": str(rng.randrange(1, DOCUMENTS + 1))},
                "timestamp": f"{at:%Y-%m-%d %H:%M:%S.%f}",
            }  # fmt: skip
            file.write(json.dumps(score) + "\n")


def peak_mib() -> int:
    """The most memory that this process had so far."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def child(folder: Path) -> dict[str, Any]:
    """Import the log, then import it again."""
    files = [folder / "scores.jsonl", folder / "observations.jsonl"]
    found: dict[str, Any] = {}
    with Flywheel.open(folder / "kb") as fw:
        for name, dry in (("dry_run", True), ("first", False), ("again", False)):
            began, spent = time.perf_counter(), time.process_time()
            report = fw.import_files("langfuse", files, dry_run=dry)
            found[f"{name}_s"] = round(time.perf_counter() - began, 1)
            found[f"{name}_cpu_s"] = round(time.process_time() - spent, 1)
            found[f"{name}_peak_mib"] = peak_mib()
            print(name, report, file=sys.stderr)
        began = time.perf_counter()
        fw.retrieve("when was it built?")
        found["next_question_s"] = round(time.perf_counter() - began, 1)
    return found


if __name__ == "__main__":
    main()
