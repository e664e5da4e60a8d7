"""The stores that `speed_peers.py` measures, by name, and ours among them.

Each imports its library when it is used. Vectors are given: where a store insists on making them
itself, it is handed a function that looks them up. All get the same texts, k and threads.
"""

import shutil
from functools import cached_property
from typing import Any

import numpy as np

from speed_databases import Chroma, Lance, Milvus, Txtai
from speed_libraries import LangChainEnsemble, LangChainFaiss, LlamaIndex, LlamaIndexDeep
from speed_store import NEAREST, K, Peer


class Ours(Peer):
    """rag-flywheel; its graph is as wide as its own measure of recall says."""

    packages = ("rag-flywheel",)
    hybrid = True
    setting = "retrieve(record=False)"
    widths = ()

    def build(self) -> None:
        from rag_flywheel import Flywheel, Passage
        from speed_data import Stored

        given = self.given
        known = dict(zip(given.texts, given.vectors, strict=True))
        shutil.rmtree(self.folder, ignore_errors=True)
        with Flywheel.open(self.folder, encoder=Stored(known)) as fw:
            fw.add(Passage(str(i), p["text"], p["title"]) for i, p in enumerate(given.passages))
            fw.refresh()

    def open(self) -> None:
        from rag_flywheel import Flywheel
        from speed_data import Stored

        known = dict(zip(self.given.queries, self.given.query_vectors, strict=True))
        self.fw = Flywheel.open(self.folder, encoder=Stored(known))
        self.ask(0)

    def ask(self, i: int) -> list[str]:
        self.__dict__.pop("_dense", None)  # a second copy, of no call
        self.fw.lookups.clear()
        return [h.text for h in self.fw.retrieve(self.given.queries[i], K, record=False).hits]

    def dense(self, i: int) -> list[int]:
        dense = self._dense
        (found,) = dense.search(self.given.query_vectors[i : i + 1], NEAREST)
        return list(np.searchsorted(dense.pids, found))

    @cached_property
    def _dense(self) -> Any:
        from rag_flywheel.deploy.versions import version_folder
        from rag_flywheel.index.dense import DenseIndex

        live = self.fw.status().version
        assert live is not None
        width = self.given.query_vectors.shape[1]
        return DenseIndex.load(version_folder(self.folder, live), dim=width)

    def close(self) -> None:
        self.fw.close()


ADAPTERS: dict[str, type[Peer]] = {
    "rag-flywheel": Ours,
    "langchain-faiss": LangChainFaiss,
    "langchain-ensemble": LangChainEnsemble,
    "txtai": Txtai,
    "llama-index": LlamaIndex,
    "llama-index-deep": LlamaIndexDeep,
    "chroma": Chroma,
    "lancedb": Lance,
    "milvus-lite": Milvus,
}
