"""What refreshes take, for `speed.py`, beside the raw libraries building the same from the same data."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag_flywheel import Flywheel
from rag_flywheel.index.bm25 import K1, B
from rag_flywheel.index.faiss_door import faiss_library
from rag_flywheel.index.graph import EF_CONSTRUCTION, LINKS
from rag_flywheel.records import Passage, Vectors
from rag_flywheel.store.passages import encoded_text
from speed_data import Data
from speed_times import Spent

Figures = dict[str, Any]
PART = 100  # one passage in so many is changed


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

    def vote() -> None:
        shown = fw.retrieve(data.queries[0], k)
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful")

    part = data.passages[::PART]
    changed = [replace(p, text=f"{p.text} (as of {time.time():.0f})") for p in part]
    texts, new = ([encoded_text(p) for p in some] for some in (part, changed))
    encoder.also(new, encoder.encode_queries(texts))
    fw.refresh()
    measured("nothing", lambda: None)
    measured("one_vote", vote)
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
