"""What ten cycles of one kind of feedback gain on test queries, for the programs beside this one.

It must not know what the feedback is.
"""

import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import answers
from rag_flywheel.bench.intervals import bootstrap_interval
from rag_flywheel.bench.machine import commit, versions
from rag_flywheel.bench.measures import by_query
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare

MEASURE = "nDCG@10"
Json = dict[str, Any]


def gained(
    name: str, protocol: Protocol, cycle: Callable[[Flywheel, Bench, Sequence[str]], None]
) -> Json:
    """Feedback on each part of a collection's train queries by `cycle`, a refresh after each; the gain
    over the ranking before any, with the 95 % interval of the bootstrap, and what was learned."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        bench, new = prepare(find_collection(name), protocol, Path(scratch), None), 0
        with bench.open(bench.base) as fw:
            runs = [answers(fw, bench.test, protocol.depth)]
            for part in bench.parts:
                cycle(fw, bench, part)
                new += fw.refresh().parameters == "new"
                runs.append(answers(fw, bench.test, protocol.depth))
            version = fw.status().version
        file = bench.base / "versions" / str(version) / "parameters.json"
        parameters = json.loads(file.read_text(encoding="utf-8"))
    found = [by_query((MEASURE,), bench.test.qrels, each)[MEASURE] for each in runs]
    queries = sorted(found[0])
    static, learned = (np.array([f[q] for q in queries]) for f in (found[0], found[-1]))
    low, high = bootstrap_interval(learned - static, seed=protocol.seed)
    return {
        "static": float(static.mean()),
        "learned": float(learned.mean()),
        "gain": float((learned - static).mean()),
        "gain_interval": [low, high],
        "by_cycle": [float(np.mean([f[q] for q in queries])) for f in found],
        "new_weights": new,
        "rates": parameters["rates"],
        "kernel": parameters.get("kernel"),
        "seconds": round(time.monotonic() - began, 1),
        "commit": commit(),
    }


PACKAGES = ("numpy", "scipy", "sentence-transformers", "torch")


def surroundings(packages: Sequence[str] = PACKAGES) -> Json:
    """The machine and the versions of packages."""
    return {
        "machine": {"python": platform.python_version(), "machine": platform.platform()},
        "versions": versions(*packages),
    }
