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
        print(json.dumps(child(given.child)))
        return
    found: dict[str, Any] = {"commit": commit(), "machine": machine("numpy", "torch")}
    found |= {name: getattr(given, name) for name in ("retrievals", "questions", "scores")}
    for name in given.encoders:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(Path(folder), given, ENCODERS[name])
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


def measure(folder: Path, given: argparse.Namespace, encoder: str | None) -> dict[str, Any]:
    """The seconds and MiB of each import, as the child measured them."""
    collection = read_beir(given.data / given.collection)
    with Flywheel.open(folder / "kb", encoder=encoder) as fw:
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


@contextmanager
def timed(found: dict[str, Any], name: str) -> Iterator[None]:
    """Note the seconds that a block takes, those of the processor, and the most memory so far."""
    began, spent = time.perf_counter(), time.process_time()
    yield
    found[f"{name}_s"] = round(time.perf_counter() - began, 1)
    found[f"{name}_cpu_s"] = round(time.process_time() - spent, 1)
    found[f"{name}_peak_mib"] = peak_mib()


def child(folder: Path) -> dict[str, Any]:
    """Import the log, import it again, ask something, and refresh."""
    files = [folder / "scores.jsonl", folder / "observations.jsonl"]
    found: dict[str, Any] = {}
    with Flywheel.open(folder / "kb") as fw:
        for name, dry in (("dry_run", True), ("first", False), ("again", False)):
            with timed(found, name):
                report = fw.import_files("langfuse", files, dry_run=dry)
            print(name, report, file=sys.stderr)
            found["waiting"] = report.waiting
        with timed(found, "next_question"):
            fw.retrieve("when was it built?")
        parts: list[
            tuple[int, float, float]
        ] = []  # (questions embedded so far, when, processor time)

        def told(step: str, done: int, _: int) -> None:
            if step == EMBEDDING:
                parts.append((done, time.perf_counter(), time.process_time()))

        with timed(found, "refresh"):
            refreshed = fw.refresh(progress=told)
        print(refreshed, file=sys.stderr)
    return {**found, **embedding(parts, found["waiting"])}


def embedding(parts: Sequence[tuple[int, float, float]], n: int) -> dict[str, Any]:
    """The seconds of embedding n questions, by those of all parts but the last."""
    done, *times = (last - first for first, last in zip(parts[0], parts[-1], strict=True))
    seconds, cpu = (spent * n / done for spent in times)
    return {"embedding_s": round(seconds, 1), "embedding_cpu_s": round(cpu, 1)}


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
