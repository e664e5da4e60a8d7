"""How costs grow with the passages: `add`, a refresh, a question, and the memory, by the size of an index.

    RAG_FLYWHEEL_DATA=... python benchmarks/speed/speed_growth.py

Each size has a process of its own that adds and refreshes, and each round has one that asks, so that peaks
and memory are its own. The vectors of passages and queries are given, those of passages from a mapped file.
Raw indexes with texts are counted, not run: vectors and links of the graph, BM25 scores with their texts'
numbers, and the texts in UTF-8. Memory is what a process holds after its questions above what it held with
the libraries imported.
"""

import argparse
import json
import math
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.deploy.current import read_current
from rag_flywheel.deploy.files import files_below
from rag_flywheel.deploy.versions import version_folder
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.records import Vectors
from rag_flywheel.store.passages import encoded_text
from speed_data import SEED, Stored, read_data
from speed_times import Spent, memory_mib, percentiles, timed

K, DIM, MIB = 8, 384, 1024.0**2
SIZES = (2_000, 6_000, 20_000, 60_000, 159_173)
LIBRARIES = ("faiss-cpu", "numpy", "scipy")
_QUERIES, _PASSAGES, _VECTORS = "queries.pickle", "passages.jsonl", "vectors.npy"


class Mapped(Stored):
    """An Encoder whose vectors of passages lie in a mapped file, in the order of the passages."""

    def __init__(self, work: Path, queries: dict[str, Vectors]) -> None:
        super().__init__(queries)
        self._rows: dict[int, int] = {}
        self._n = 0
        self._mapped: Vectors = np.load(work / _VECTORS, mmap_mode="r")

    def know(self, passage: Passage) -> Passage:
        """The passage, which is the next one of the file."""
        self._rows[hash(encoded_text(passage))] = self._n
        self._n += 1
        return passage

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        self.n_passages += len(texts)
        return np.asarray(self._mapped[[self._rows[hash(text)] for text in texts]])


def prepare(work: Path, collection: str) -> None:
    """Write the passages, their vectors, and the queries with theirs."""
    data = read_data(collection, None)
    with (work / _PASSAGES).open("w", encoding="utf-8") as file:
        for p in data.passages:
            file.write(json.dumps([p.id, p.text, p.title, dict(p.metadata)]) + "\n")
    np.save(work / _VECTORS, data.encoder.encode_queries([*map(encoded_text, data.passages)]))
    vectors = data.encoder.encode_queries(data.queries)
    (work / _QUERIES).write_bytes(pickle.dumps((data.queries, vectors)))


def encoder(work: Path) -> Mapped:
    """Knows the queries; passages are made known one by one."""
    queries, vectors = pickle.loads((work / _QUERIES).read_bytes())
    return Mapped(work, dict(zip(queries, vectors, strict=True)))


def build(work: Path, n: int) -> dict[str, Any]:
    """What adding n passages and the first refresh take."""
    known, root, spent = encoder(work), work / str(n), Spent()
    before = memory_mib()["peak_mib"]

    def passages() -> Any:
        with (work / _PASSAGES).open(encoding="utf-8") as file:
            for _, line in zip(range(n), file, strict=False):
                id_, text, title, metadata = json.loads(line)
                yield known.know(Passage(id_, text, title, metadata))

    with Flywheel.open(root, encoder=known, config=Config(encoder="")) as fw:
        spent.since()
        fw.add(passages())
        found: dict[str, Any] = {"add": spent.since(), "add_peak_mib": memory_mib()["peak_mib"]}
    found["database_bytes"] = (root / "flywheel.db").stat().st_size
    with Flywheel.open(root, encoder=known) as fw:
        spent.since()
        fw.refresh()
        found |= {"refresh": spent.since(), "peak_mib": memory_mib()["peak_mib"]}
    folder = _live(root)
    found["version_bytes"] = sum((folder / name).stat().st_size for name in files_below(folder))
    return found | {"peak_before_mib": before, "raw_bytes": _raw_bytes(folder, work, n)}


def _live(root: Path) -> Path:
    current = read_current(root)
    assert current is not None
    return version_folder(root, current.version)


def _raw_bytes(folder: Path, work: Path, n: int) -> int:
    """Of vectors, links of the graph, BM25 scores, and texts."""
    dense = DenseIndex.load(folder, dim=DIM)
    words = LexicalIndex.load(folder, n_texts=len(dense)).bm25
    links = 0 if dense.graph is None else dense.graph.neighbours.nbytes + dense.graph.levels.nbytes
    arrays = words.data.nbytes + words.texts.nbytes + words.starts.nbytes
    with (work / _PASSAGES).open(encoding="utf-8") as file:
        rows = (json.loads(line) for _, line in zip(range(n), file, strict=False))
        texts = sum(len(f"{title} {text}".encode()) for _, text, title, _ in rows)
    return len(dense) * DIM * 4 + links + arrays + texts


def ask(work: Path, n: int, n_queries: int) -> dict[str, Any]:
    """What one process sees that opens the index and asks."""
    import scipy.sparse  # noqa: F401

    from rag_flywheel.index.faiss_door import faiss_library

    faiss_library()
    known, spent = encoder(work), Spent()
    queries = list(known._vectors)[:n_queries]
    imports = memory_mib()["resident_mib"]
    with Flywheel.open(work / str(n), encoder=known) as fw:
        fw.retrieve("what is asked first", K, record=False)
        first = spent.since()
        new = timed(lambda i: fw.retrieve(queries[i], K, record=False), len(queries))
        again = timed(lambda i: fw.retrieve(queries[i], K, record=False), len(queries))
        held = memory_mib()["resident_mib"] - imports
    return {
        "first": first,
        "new": percentiles([new]),
        "again": percentiles([again]),
        "above_imports_mib": held,
    }


def _median(rounds: list[Any]) -> Any:
    """The medians of equal nestings of numbers."""
    if isinstance(rounds[0], dict):
        return {name: _median([each[name] for each in rounds]) for name in rounds[0]}
    return round(float(np.median(rounds)), 3)


def _slope(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Of the straight line through the logarithms."""
    return round(float(np.polyfit(np.log(sizes), np.log(costs), 1)[0]), 3)


def main() -> None:
    """Build, measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="aws_docs")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="keep the data and the indexes in this folder")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_growth.json"))
    parser.add_argument("--child", nargs=2, metavar=("KIND", "N"), help="for its own use")
    asked = parser.parse_args()
    if asked.child:
        kind, n = asked.child[0], int(asked.child[1])
        one = build(asked.work, n) if kind == "build" else ask(asked.work, n, asked.queries)
        print(json.dumps(one))
        return
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if not (work / _QUERIES).exists():
            prepare(work, asked.collection)

        def child(kind: str, n: int) -> dict[str, Any]:
            print(f"{time.strftime('%H:%M:%S')} {kind} {n}", file=sys.stderr, flush=True)
            own = [sys.executable, __file__, "--child", kind, str(n), "--work", str(work)]
            said = subprocess.run(
                [*own, "--queries", str(asked.queries)], check=True, capture_output=True, text=True
            )
            found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
            return found

        sizes: dict[str, Any] = {}
        for n in asked.sizes:
            said = work / f"{n}.json"  # of an index that an earlier run left in --work
            if not said.exists():
                shutil.rmtree(work / str(n), ignore_errors=True)
                said.write_text(json.dumps(child("build", n)), encoding="utf-8")
            sizes[str(n)] = json.loads(said.read_text(encoding="utf-8"))
        rounds: dict[str, list[Any]] = {str(n): [] for n in asked.sizes}
        for _ in range(asked.rounds):
            for n in asked.sizes:
                rounds[str(n)].append(child("ask", n))
    for name, found in sizes.items():
        found |= _median(rounds[name])
        found["memory_times_raw"] = round(
            found["above_imports_mib"] / (found["raw_bytes"] / MIB), 3
        )
        for part in ("database", "version", "raw"):
            found[f"{part}_bytes_each"] = math.ceil(found[f"{part}_bytes"] / int(name))
    costs = [found["new"]["cpu_p50_ms"] for found in sizes.values()]
    result = {
        "commit": commit(),
        "seed": SEED,
        "machine": machine(*LIBRARIES),
        "collection": asked.collection,
        "k": K,
        "n_queries": asked.queries,
        "rounds": asked.rounds,
        "sizes": sizes,
        "slope_of_a_new_question": _slope(asked.sizes, costs),
        "seconds": round(time.perf_counter() - began, 1),
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
