"""Measure how long a day's log of another tool takes to import, how much memory, and the refresh after it.

RAG_FLYWHEEL_DATA=... python benchmarks/speed/imports.py --out benchmarks/results/speed_imports.json
The log is Langfuse's blob export: observations with the texts of five documents each, and scores, of which
half are on traces and half on retrievers, a fifth of them by a language model. A child imports it, twice, and
refreshes: with the model of new indexes, and with an encoder that takes next to no time.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel import Flywheel
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.formats.beir import read_beir

Vectors = npt.NDArray[np.float32]
ENCODERS = {"model": None, "words": "imports:words"}
EMBEDDING = "encoding past queries"
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
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        child(given.child)
        return
    found: dict[str, Any] = {"commit": commit(), "machine": machine("numpy", "torch")}
    found |= {name: getattr(given, name) for name in ("retrievals", "questions", "scores")}
    for name in given.encoders:
        with tempfile.TemporaryDirectory() as folder:
            for so_far in measure(Path(folder), given, ENCODERS[name]):
                found[name] = so_far
                if given.out is not None:
                    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def measure(
    folder: Path, given: argparse.Namespace, encoder: str | None
) -> Iterator[dict[str, Any]]:
    """The seconds and MiB of each step, as the child measured them so far."""
    collection = read_beir(given.data / given.collection)
    with Flywheel.open(folder / "kb", encoder=encoder) as fw:
        fw.add(collection.passages)
    write_log(folder, collection, given)
    size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
    found = {"log_mib": round(size / 2**20, 1), "passages": len(collection.passages)}
    words = [sys.executable, __file__, "--child", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            found |= json.loads(line)
            yield found
    if running.returncode:
        raise SystemExit(f"the child ended with {running.returncode}")


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


@contextmanager
def timed(name: str, **more: Any) -> Iterator[dict[str, Any]]:
    """Tell the parent what a step took: seconds, those of the processor, and the most memory so far; and
    what the block adds."""
    began, spent, found = time.perf_counter(), time.process_time(), dict[str, Any]()
    yield found
    found[f"{name}_s"] = round(time.perf_counter() - began, 1)
    found[f"{name}_cpu_s"] = round(time.process_time() - spent, 1)
    found[f"{name}_peak_mib"] = peak_mib()
    tell(found)


def tell(found: dict[str, Any]) -> None:
    """Send figures to the parent."""
    print(json.dumps(found), flush=True)


def child(folder: Path) -> None:
    """Import the log, ask something, refresh, and import the log again."""
    files = [folder / "scores.jsonl", folder / "observations.jsonl"]
    with Flywheel.open(folder / "kb") as fw:
        with timed("first") as found:
            found["waiting"] = fw.import_files("langfuse", files).waiting
        with timed("next_question"):
            fw.retrieve("when was it built?")
        first: list[tuple[float, float]] = []  # when embedding began, and its processor time

        def told(step: str, done: int, _: int) -> None:
            if step != EMBEDDING:
                return
            now = time.perf_counter(), time.process_time()
            first.append(now)
            seconds, cpu = (last - before for before, last in zip(first[0], now, strict=True))
            if done:
                tell(
                    {
                        "embedded": done,
                        "embedding_s": round(seconds, 1),
                        "embedding_cpu_s": round(cpu, 1),
                    }
                )

        with timed("refresh"):
            fw.refresh(progress=told)
        with timed("again"):
            fw.import_files("langfuse", files)


@cache
def _direction(word: str) -> Vectors:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(seed).standard_normal(384, np.float32)


class Words:
    """A text is the normalised sum of a random direction for each of its words."""

    name, revision, dim = "words", "1", 384

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, 384), unit rows."""
        every = ([_direction(""), *map(_direction, text.lower().split())] for text in texts)
        rows = np.stack([np.sum(some, axis=0) for some in every])
        unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    encode_passages = encode_queries


def words() -> Words:
    """For `encoder="imports:words"`."""
    return Words()


if __name__ == "__main__":
    main()
