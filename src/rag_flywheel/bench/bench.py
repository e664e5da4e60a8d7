"""The benchmark: cycles-v1 on collections, as one result that holds all it takes to repeat it.

It must not know how results are shown.
"""

import dataclasses
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rag_flywheel.bench.compare import compare
from rag_flywheel.bench.measures import all_means
from rag_flywheel.bench.replay import replay
from rag_flywheel.bench.runs import CycledRun, run_fixed, run_none, run_random, run_votes
from rag_flywheel.bench.setup import RESULT_FORMAT, Bench, Protocol, hashes, prepare
from rag_flywheel.config import DEFAULT_ENCODER
from rag_flywheel.index.encoder import make_encoder
from rag_flywheel.records import Progress

_PACKAGES = ("bm25s", "faiss-cpu", "ir-measures", "numpy", "rag-flywheel", "scipy")


def run_bench(
    folders: Sequence[Path], protocol: Protocol, progress: Progress | None = None
) -> dict[str, Any]:
    """Run the protocol on each collection; the result is plain data, ready for JSON.

    Two runs with the same seed on one thread give the same result, `environment` and the seconds
    of each collection aside. Raises InputError.
    """
    began, started = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    collections = [_collection(folder, protocol, progress) for folder in folders]
    return {
        "format": RESULT_FORMAT,
        "protocol": {"name": "cycles-v1", "k": 8, **dataclasses.asdict(protocol)},
        "environment": _environment(started, time.monotonic() - began),
        "collections": collections,
    }


def write_result(result: Mapping[str, Any], path: Path) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _collection(folder: Path, protocol: Protocol, progress: Progress | None) -> dict[str, Any]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(folder, protocol, Path(scratch), progress)
        fixed, cast = run_fixed(bench, protocol)
        runs = [
            run_votes(bench, protocol, progress),
            fixed,
            run_random(bench, protocol, progress),
            run_none(bench, protocol),
        ]
        replayed = replay(folder, bench, protocol)
    encoder = bench.encoder or make_encoder(DEFAULT_ENCODER)
    return {
        "name": bench.collection.name,
        "n_passages": len(bench.collection.passages),
        "n_train": len(bench.train.queries),
        "n_voted": len({vote.query for vote in cast}),
        "n_dev": len(bench.dev.queries),
        "n_test": len(bench.test.queries),
        "sha256": hashes(folder),
        "vectors": bench.vectors_note,
        "dev": bench.dev_note,
        "runs": [_run(bench, run) for run in runs],
        **compare(bench, protocol, encoder, runs, cast),
        "replay": replayed,
        "seconds": round(time.monotonic() - began, 1),
    }


def _run(bench: Bench, run: CycledRun) -> dict[str, Any]:
    cycles = [
        {"number": i, "n_votes": n_votes, "values": all_means(bench.test.qrels, found)}
        for i, (n_votes, found) in enumerate(run.cycles)
    ]
    gini = list(run.exposure_gini)
    return {"name": run.name, "what": run.what, "cycles": cycles, "exposure_gini": gini}


def _environment(started: str, seconds: float) -> dict[str, Any]:
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "n_cores": os.cpu_count(),
        "n_threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "started": started,
        "seconds": round(seconds, 1),
    }


def commit() -> str | None:
    """The commit of the source this runs from, "+" when files differ from it; None outside git."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + (
            "+"
            if _git(here, "status", "--porcelain", "--untracked-files=no", "--", "../..")
            else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
