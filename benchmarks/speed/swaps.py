"""Whether readers feel that a new version goes live: 500 times, under their questions.

    RAG_FLYWHEEL_DATA=... python benchmarks/speed/swaps.py --out benchmarks/results/swaps.json

Four threads of this process ask all the time, again 10 ms after each answer. Another process changes
something in their folder and refreshes it, so that each round makes a version; and now and then it
does the same in a folder that nobody asks, which costs the machine as much and swaps nothing. Every
answer is checked. What took longer than --most-s ends after the round.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Config, Flywheel, Vote
from rag_flywheel.bench.machine import commit
from swaps_readers import Asking, Readers, footprint
from swaps_rounds import Cells, Marked, known_answers, marked, play, read_marked

_VOTES = 200
_SETTLED = 10  # rounds, after which memory is read for the first time


def prepare(root: Path, collection: str) -> None:
    """A folder of the collection, its marked passages of generation 0, and past votes."""
    data = read_marked(collection)
    with Flywheel.open(root, encoder=data.encoder, config=Config(encoder="")) as fw:
        fw.add([*data.passages, *marked(data, 0)])
        votes: list[Vote] = []
        for query, answers in known_answers(data):
            shown = fw.retrieve(query)
            for hit in shown.hits[:3]:
                verdict = "helpful" if hit.passage_id in answers else "harmful"
                votes.append(Vote(shown.id, hit.passage_id, verdict, f"of {query}"))  # type: ignore[arg-type]
            if len(votes) >= _VOTES:
                break
        fw.feedback_many(votes)
        fw.refresh()


def worker(asked: argparse.Namespace) -> None:
    """The other process: rounds in both folders; a line of JSON for each."""
    data, cells = read_marked(asked.collection), Cells(asked.cells)
    with (
        Flywheel.open(asked.worker[0], encoder=data.encoder) as served,
        Flywheel.open(asked.worker[1], encoder=data.encoder) as other,
    ):
        print("ready", flush=True)
        until = time.monotonic() + asked.most_s
        for n in range(asked.rounds):
            if time.monotonic() > until:
                break
            swap = play(served, asked.worker[0], data, n, cells)
            print(json.dumps(["swap", swap]), flush=True)
            if n % asked.control_every == 0:
                control = play(other, asked.worker[1], data, n // asked.control_every, None)
                print(json.dumps(["control", control]), flush=True)


def soak(asked: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Both processes side by side, and what was found."""
    folders = scratch / "served", scratch / "other"
    for folder in folders:
        prepare(folder, asked.collection)
    data, cells = read_marked(asked.collection), Cells(scratch / "cells", make=True)
    moments: dict[str, dict[str, float]] = {"swap": {}, "control": {}}
    refresh_s: list[float] = []
    with Flywheel.open(folders[0], encoder=data.encoder) as fw:
        readers = Readers(Asking(fw, data, cells), asked.threads)
        settled = footprint(folders[0])
        for kind, (version, at, seconds) in rounds(
            asked, folders, scratch / "cells", fw, data, cells
        ):
            moments[kind][version] = at
            refresh_s.append(seconds)
            if len(moments["swap"]) == _SETTLED and kind == "swap":
                settled = footprint(folders[0])
        time.sleep(1.0)  # the last version is loaded
        last = footprint(folders[0])
        found = readers.stop(moments)
        with Flywheel.open(folders[0], encoder=data.encoder) as fresh:
            agree = same_answers(fw, fresh, data)
    ended = footprint(folders[0])
    return {
        "rounds": len(moments["swap"]),
        "control_rounds": len(moments["control"]),
        "refresh_s_p50": round(float(np.median(refresh_s)), 3),
        **found,
        "agrees_with_a_folder_opened_anew": agree,
        "after_round_10": settled,
        "after_the_last": last,
        "after_close": ended,
        "memory_growth": round(last["rss_mb"] / settled["rss_mb"] - 1.0, 4),
    }


def rounds(
    asked: argparse.Namespace,
    folders: tuple[Path, Path],
    cells_path: Path,
    fw: Flywheel,
    data: Marked,
    cells: Cells,
) -> Any:
    """(kind, (its version, when that went live, seconds of the refresh)) of each round."""
    if asked.inside:
        for n in range(asked.rounds):
            yield "swap", play(fw, folders[0], data, n, cells)
        return
    command = [sys.executable, __file__, "--collection", asked.collection]
    command += ["--rounds", str(asked.rounds), "--control-every", str(asked.control_every)]
    command += ["--most-s", str(asked.most_s)]
    command += ["--cells", str(cells_path), "--worker", *map(str, folders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for line in process.stdout:
            yield json.loads(line)
    assert process.returncode == 0, process.returncode


def same_answers(fw: Flywheel, fresh: Flywheel, data: Marked) -> bool:
    """Whether ids agree, and scores to 1e-5, with those of a Flywheel that saw no swap."""
    fw.refresh()  # nothing to do: what is live is loaded
    both = (f.retrieve_many(data.queries, record=False) for f in (fw, fresh))
    for one, other in zip(*both, strict=True):
        apart = [abs(a.score - b.score) for a, b in zip(one.hits, other.hits, strict=True)]
        same = [h.passage_id for h in one.hits] == [h.passage_id for h in other.hits]
        if one.version != other.version or not same or max(apart) > 1e-5:
            return False
    return True


def main() -> None:
    """Run it, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="squad11_dev")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--control-every", type=int, default=7)
    parser.add_argument("--most-s", type=float, default=36_000.0)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--inside", action="store_true", help="refresh in the process that asks")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cells", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=Path, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        worker(asked)
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        found = soak(asked, Path(scratch))
    report = {
        "commit": commit(),
        "collection": asked.collection,
        "refreshes": "in the process that asks" if asked.inside else "in another process",
        "threads": asked.threads,
        **found,
        "seconds": round(time.monotonic() - began, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "most_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(report, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
