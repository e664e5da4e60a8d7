"""The least that `speed.py` compares with: raw libraries on the same data, without what we add."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from rag_flywheel.index.bm25 import K1, B, WordScores
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.faiss_door import faiss_library
from rag_flywheel.index.graph import LINKS, build_graph
from rag_flywheel.index.in_memory import highest
from rag_flywheel.index.lexical import LexicalIndex, tokenize
from rag_flywheel.records import Vectors
from speed_times import Times, timed

TOP = 100  # of dense search, and of BM25


class Floor:
    """faiss HNSW and bm25s over the files of a version, the TOP of each; nothing is put together.

    bm25s scores every text and the best are taken of those that match, which is quicker than its
    own `retrieve`.
    """

    def __init__(self, version: Path, *, dim: int) -> None:
        faiss = faiss_library()
        dense = DenseIndex.load(version, dim=dim)
        flat, vectors = faiss.IndexFlatIP(dim), dense.vectors(dense.pids)
        graph = dense.graph
        if graph is None:
            graph = build_graph(flat, [vectors])
        else:
            flat.add(vectors)
        if graph is None:
            raise SystemExit("no graph of these vectors finds enough; nothing to compare with")
        self._flat = flat  # must live as long as what searches it
        self._hnsw = graph.over(flat)
        self.ef_search = max(graph.ef_search, 2 * TOP)
        self._search = faiss.SearchParametersHNSW(efSearch=self.ef_search)
        self._lexical = LexicalIndex.load(version, n_texts=len(dense))
        self._bm25 = bm25s_of(self._lexical.bm25)

    def __call__(self, query: str, vector: Vectors) -> None:
        """Search for one query."""
        self.dense(vector)
        self.bm25(query)

    def dense(self, vector: Vectors) -> None:
        """The nearest by faiss."""
        self._hnsw.search(vector[None, :], TOP, params=self._search)

    def bm25(self, query: str) -> None:
        """The best by bm25s, from the query's text."""
        scores = self._scores(query)
        found = np.flatnonzero(scores > 0)
        if len(found) > TOP:
            found = found[np.argpartition(scores[found], -TOP)[-TOP:]]
        found[np.argsort(-scores[found])]

    def least(self, query: str, vector: Vectors) -> None:
        """Both, the best of BM25 picked as we do."""
        self.dense(vector)
        highest(self._scores(query), TOP)

    def _scores(self, query: str) -> Any:
        ids = [
            self._lexical.vocabulary[w] for w in tokenize(query) if w in self._lexical.vocabulary
        ]
        return self._bm25.get_scores_from_ids(ids) if ids else np.zeros(0, dtype=np.float32)

    def said(self, queries: Vectors) -> dict[str, float]:
        """How the graph is made and searched, and how many of the 10 nearest to these it finds."""
        _, exact = self._flat.search(queries, 10)
        _, found = self._hnsw.search(queries, TOP, params=self._search)
        shares = [np.isin(a, b[:10]).mean() for a, b in zip(exact, found, strict=True)]
        recall = round(float(np.mean(shares)), 4)
        return {"links": LINKS, "efSearch": self.ef_search, "recall@10": recall}


def bm25s_of(ours: WordScores) -> Any:
    """bm25s with these scores."""
    bm25 = bm25s.BM25(k1=K1, b=B, method="lucene", csc_backend="scipy")
    bm25.nonoccurrence_array = None
    bm25.vocab_dict = {}
    bm25.scores = {
        "data": ours.data,
        "indices": ours.texts,
        "indptr": ours.starts,
        "num_docs": ours.n_texts,
    }
    return bm25


def raw_commits_ms(folder: Path, n: int) -> Times:
    """Milliseconds of n commits of one small row each, synchronous=FULL, by sqlite3 alone."""
    path = folder / "raw.db"
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute("PRAGMA synchronous=FULL")
    conn.execute("CREATE TABLE IF NOT EXISTS votes (seq INTEGER PRIMARY KEY, what TEXT)")

    def commit(i: int) -> None:
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("INSERT INTO votes (what) VALUES (?)", (json.dumps([i, "helpful"]),))
        conn.execute("COMMIT")

    spent = timed(commit, n)
    conn.close()
    path.unlink()
    return spent
