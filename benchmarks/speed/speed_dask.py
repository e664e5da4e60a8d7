"""How much sooner passages are embedded by two Dask workers than by one, and than by no cluster.

    RAG_FLYWHEEL_DATA=... python benchmarks/speed/speed_dask.py

A scheduler and workers of one thread each, in processes of their own on this machine, with the default model.
They embed some passages first, which loads it. Then the cost of adding others to a new index is measured, in
turns with one worker, two, and none.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.formats.beir import read_beir
from speed_data import SEED

LIBRARIES = ("distributed", "torch")
SPEC = Config().encoder


@contextmanager
def workers(n: int) -> Iterator[str | None]:
    """The address of a scheduler that has so many workers; none: None."""
    if not n:
        yield None
        return
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    own = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": own}
    cli = [sys.executable, "-m"]
    scheduler = [*cli, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    worker = [*cli, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    started = [subprocess.Popen([*scheduler, "--no-dashboard"], **quiet)]  # type: ignore[call-overload]
    started += [
        subprocess.Popen([*worker, "--no-dashboard"], **quiet)  # type: ignore[call-overload]
        for _ in range(n)
    ]
    try:
        yield address
    finally:
        for process in started:
            process.kill()
            process.wait()


def seconds(n_workers: int, first: Sequence[Passage], others: Sequence[Passage]) -> float:
    """How long it takes to add the other passages."""
    with (
        workers(n_workers) as address,
        tempfile.TemporaryDirectory() as folder,
        Flywheel.open(Path(folder) / "kb", encoder=SPEC, dask=address) as fw,
    ):
        fw.add(first)
        began = time.perf_counter()
        fw.add(others)
        return time.perf_counter() - began


def main() -> None:
    """Measure in turns, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="squad11_dev")
    parser.add_argument("--passages", type=int, default=4_096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_dask.json"))
    asked = parser.parse_args()
    texts = read_beir(find_collection(asked.collection)).passages
    others = [Passage(p.id, p.text, p.title) for p in texts[: asked.passages]]
    first = [Passage(f"first {p.id}", f"{p.text} again", p.title) for p in texts[:1_024]]
    spent: dict[int, list[float]] = {1: [], 2: [], 0: []}
    for turn in range(asked.rounds):
        print(f"{time.strftime('%H:%M:%S')} round {turn}", file=sys.stderr, flush=True)
        for n, found in spent.items():
            found.append(seconds(n, first, others))
    ratios = np.array(spent[1]) / np.array(spent[2])
    result = {
        "commit": commit(),
        "seed": SEED,
        "machine": machine(*LIBRARIES),
        "collection": asked.collection,
        "n_passages": len(others),
        "rounds": asked.rounds,
        "seconds_by_workers": {
            str(n): round(float(np.median(found)), 2) for n, found in spent.items()
        },
        "two_against_one": {
            "median": round(float(np.median(ratios)), 3),
            "each": ratios.round(3).tolist(),
        },
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
