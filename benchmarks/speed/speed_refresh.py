"""What refreshes take, and the room that versions take on the disk.

    python benchmarks/speed/speed_refresh.py --out benchmarks/results/speed_refresh.json

Each round refreshes an index after nothing, after one vote in the process that answers, after one vote in
a process that has loaded nothing, and after one passage in a hundred was edited. Then the index has ten
versions, whose files are counted once however many versions have them. `speed.py` takes from here what is
measured beside the raw libraries.
"""

import argparse
import json
import shutil
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Config, Flywheel
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.deploy.versions import list_versions, version_folder
from rag_flywheel.index.bm25 import K1, B
from rag_flywheel.index.faiss_door import faiss_library
from rag_flywheel.index.graph import EF_CONSTRUCTION, LINKS
from rag_flywheel.records import Passage, Vectors
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.passages import encoded_text
from speed_data import Data, read_data
from speed_times import Spent

Figures = dict[str, Any]
PART = 100  # one passage in so many is changed
K, VERSIONS = 8, 10
CHANGES = "nothing", "one_vote", "one_vote_in_a_new_process", "1_percent"


def refreshes(fw: Flywheel, root: Path, data: Data, k: int) -> Figures:
    """Seconds, as they passed and of the processor, and texts encoded, adding included: nothing new;
    one vote; one passage in a hundred changed; all built from stored vectors. Then the raw builds."""
    encoder, found = data.encoder, Figures()

    def measured(name: str, change: Callable[[], object]) -> None:
        before = encoder.n_passages
        change()
        spent = Spent()
        report = fw.refresh()
        found[name] = {
            **spent.since(),
            "outcome": report.outcome,
            "texts_encoded": encoder.n_passages - before,
            "recall@10": fw.status().dense_recall,
        }

    changed = edited(data, 0)
    fw.refresh()
    measured("nothing", lambda: None)
    measured("one_vote", lambda: vote(fw, data, 0, k))
    measured("1_percent", lambda: fw.add(changed))
    measured("from_stored_vectors", lambda: forget_versions(root))
    present = [*changed, *(p for i, p in enumerate(data.passages) if i % PART)]
    found["raw"] = raw = raw_builds(
        present, encoder.encode_queries(list(map(encoded_text, present)))
    )
    for name in ("1_percent", "from_stored_vectors"):
        for unit in ("s", "cpu_s"):
            both = raw["hnsw"][unit] + raw["bm25s"][unit]
            found[name][f"times_raw_{unit}"] = round(found[name][unit] / both, 3)
    return found


def vote(fw: Flywheel, data: Data, number: int, k: int = K) -> None:
    """Vote for the first hit of a query of the collection."""
    shown = fw.retrieve(data.queries[number], k)
    fw.feedback(shown.id, shown.hits[0].passage_id, "helpful")


def edited(data: Data, number: int) -> list[Passage]:
    """One passage in a hundred with another text, others for each number; the encoder knows them."""
    part = data.passages[number % PART :: PART]
    changed = [replace(p, text=f"{p.text} (edit {number} of {time.time():.0f})") for p in part]
    texts, new = ([encoded_text(p) for p in some] for some in (part, changed))
    data.encoder.also(new, data.encoder.encode_queries(texts))
    return changed


def one_round(root: Path, data: Data, number: int) -> dict[str, dict[str, float]]:
    """Seconds of a refresh after each kind of change."""
    found = {}
    with Flywheel.open(root, encoder=data.encoder) as fw:
        vote(fw, data, 3 * number)
        fw.refresh()
        for name, change in (
            ("nothing", lambda: None),
            ("one_vote", lambda: vote(fw, data, 3 * number + 1)),
            ("1_percent", lambda: fw.add(edited(data, number))),
        ):
            change()
            spent = Spent()
            report = fw.refresh()
            found[name] = spent.since()
            if (report.outcome == "unchanged") is not (name == "nothing"):
                raise SystemExit(f"after {name} the refresh was {report.outcome}: {report.reason}")
        vote(fw, data, 3 * number + 2)
    with Flywheel.open(root, encoder=data.encoder) as fw:
        spent = Spent()
        fw.refresh()
        found["one_vote_in_a_new_process"] = spent.since()
    return found


def bytes_of_versions(root: Path, versions: Sequence[str]) -> dict[str, int]:
    """Bytes of the files of versions by the folder that they are in, each file once."""
    seen, found = set[int](), defaultdict[str, int](int)
    for version in versions:
        folder = version_folder(root, version)
        for path in folder.rglob("*"):
            state = path.stat()
            if path.is_file() and state.st_ino not in seen:
                seen.add(state.st_ino)
                within = path.relative_to(folder).parts
                found[within[0] if len(within) > 1 else "other"] += state.st_size
    return {**found, "all": sum(found.values())}


def bytes_of_database(root: Path) -> dict[str, int]:
    """Bytes of the tables and indexes of the database."""
    conn = sqlite3.connect(root / FILE_NAME)
    try:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = conn.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name").fetchall()
        unused, page = (
            conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size")
        )
    finally:
        conn.close()
    found = {name: n for name, n in rows if n > 2**16}
    return {**found, "unused": unused * page, "all": (root / FILE_NAME).stat().st_size}


def forget_versions(root: Path) -> None:
    """Leave nothing but the database and settings: all is built anew from these."""
    shutil.rmtree(root / "versions")
    (root / "CURRENT").unlink()


def raw_builds(passages: Sequence[Passage], vectors: Vectors) -> Figures:
    """What faiss takes for a graph with the same settings, and bm25s to tokenise and index."""
    import bm25s
    import Stemmer

    faiss = faiss_library()

    def hnsw() -> None:
        index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        index.add(vectors)

    def lexical() -> None:
        texts, stemmer = list(map(encoded_text, passages)), Stemmer.Stemmer("english")
        tokens = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
        bm25s.BM25(k1=K1, b=B, method="lucene").index(tokens, show_progress=False)

    found: Figures = {"threads": faiss.omp_get_max_threads()}
    for name, build in (("hnsw", hnsw), ("bm25s", lexical)):
        spent = Spent()
        build()
        found[name] = spent.since()
    return found


def main() -> None:
    """Build the index, measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="aws_docs")
    parser.add_argument("--passages", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    data = read_data(asked.collection, asked.passages)
    with tempfile.TemporaryDirectory() as work:
        root = Path(work) / "kb"
        with Flywheel.open(root, encoder=data.encoder, config=Config(keep_versions=VERSIONS)) as fw:
            fw.add(data.passages)
            fw.refresh()
        found = measured(root, data, asked.rounds)
    found |= {"collection": asked.collection}
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def measured(root: Path, data: Data, n_rounds: int) -> Figures:
    """What the rounds took, and the room that versions take, in an index that keeps ten."""
    first = list_versions(root)[-1]
    database = bytes_of_database(root)
    one = bytes_of_versions(root, [first])
    rounds = []
    for number in range(n_rounds):
        rounds.append(one_round(root, data, number))
        print(time.strftime("%H:%M:%S"), rounds[-1], flush=True)
    with Flywheel.open(root, encoder=data.encoder) as fw:
        fw.add(edited(data, n_rounds))
        fw.refresh()
        changed = [fw.status().version]
        for number in range(VERSIONS - 1):
            fw.add(edited(data, n_rounds + 1 + number))
            fw.refresh()
            changed.append(fw.status().version)
    kept = list_versions(root)
    assert kept[-VERSIONS:] == changed
    medians = {
        name: {unit: float(np.median([r[name][unit] for r in rounds])) for unit in ("s", "cpu_s")}
        for name in CHANGES
    }
    ten, last = bytes_of_versions(root, kept[-VERSIONS:]), bytes_of_versions(root, kept[-1:])
    return {
        "commit": commit(),
        "machine": machine("faiss-cpu", "numpy", "scipy"),
        "n_passages": len(data.passages),
        "rounds": n_rounds,
        "refresh": medians,
        "bytes": {
            "database": database,
            "first_version": one,
            "ten_versions": ten,
            "last_version": last,
        },
        "ten_versions_times_one": {
            part: round(ten[part] / last[part], 3) for part in ("vectors", "all")
        },
        "bytes_a_passage": {
            "database": round(database["all"] / len(data.passages)),
            "version": round(one["all"] / len(data.passages)),
        },
    }


if __name__ == "__main__":
    main()
