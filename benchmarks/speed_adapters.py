"""The stores that `speed_peers.py` measures: how each is built, opened and asked.

Each imports its library when it is used. Vectors are given: where a store insists on making them
itself, it is handed a function that looks them up. All get the same texts, k and threads.
"""

import json
import shutil
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

K, NEAREST = 8, 10
LINKS, EF_CONSTRUCTION = 32, 40
_AT_ONCE = 5_000


class Given:
    """Passages, queries and their vectors, as `speed_peers.py` has written them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def passages(self) -> list[dict[str, str]]:
        """id, title, text."""
        lines = (self.folder / "passages.jsonl").read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    @cached_property
    def texts(self) -> list[str]:
        """Title and text of each passage."""
        return [f"{p['title']} {p['text']}".strip() for p in self.passages]

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 (n, dim)."""
        return np.load(self.folder / "vectors.npy")

    @cached_property
    def queries(self) -> list[str]:
        """Their texts."""
        found: list[str] = json.loads((self.folder / "queries.json").read_text(encoding="utf-8"))
        return found

    @cached_property
    def query_vectors(self) -> np.ndarray:
        """float32 (n, dim)."""
        return np.load(self.folder / "query-vectors.npy")

    def forget(self) -> None:
        """Keep only the queries; a store that needs the rest has its own."""
        for name in ("passages", "texts", "vectors"):
            self.__dict__.pop(name, None)


class Peer:
    """A store of passages. hybrid: answers come from words and vectors; widths: how widely dense
    search may look, the quickest first (none: it cannot be set)."""

    packages: tuple[str, ...] = ()
    hybrid = False
    persistent = True  # else it is built in the process that serves
    setting = ""
    widths: tuple[int, ...] = (48, 64, 96, 128, 200, 256, 320, 400, 512, 800)
    k = K

    def __init__(self, given: Given, folder: Path) -> None:
        self.given = given
        self.folder = folder
        self.width = 0

    def build(self) -> None:
        raise NotImplementedError

    def open(self) -> None:
        raise NotImplementedError

    def ask(self, i: int) -> list[str]:
        """The texts of the k hits for a query."""
        raise NotImplementedError

    def dense(self, i: int) -> list[int]:
        """Which 10 passages dense search alone finds."""
        raise NotImplementedError

    def set_width(self, width: int) -> None:
        self.width = width

    def said(self) -> dict[str, Any]:
        return {
            "version": {name: version(name) for name in self.packages},
            "hybrid": self.hybrid,
            "setting": self.setting,
            "widths": self.widths,
            "built_where_it_serves": not self.persistent,
        }

    def close(self) -> None:
        pass


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


class _LangChain(Peer):
    packages = ("langchain-community", "langchain-classic", "faiss-cpu", "rank-bm25")
    persistent = False

    def build(self) -> None:
        import faiss
        from langchain_community.docstore.in_memory import InMemoryDocstore
        from langchain_community.vectorstores import FAISS
        from langchain_core.documents import Document
        from langchain_core.embeddings import Embeddings

        given = self.given
        known = {q: v.tolist() for q, v in zip(given.queries, given.query_vectors, strict=True)}

        class Looked(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                raise NotImplementedError

            def embed_query(self, text: str) -> list[float]:
                return known[text]

        self.index = faiss.IndexHNSWFlat(given.vectors.shape[1], LINKS)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.add(given.vectors)
        documents = {
            str(i): Document(page_content=text, metadata={"row": i})
            for i, text in enumerate(given.texts)
        }
        ids = dict(enumerate(documents))
        self.store = FAISS(Looked(), self.index, InMemoryDocstore(documents), ids)

    def ask(self, i: int) -> list[str]:
        return [d.page_content for d in self.store.similarity_search(self.given.queries[i], k=K)]

    def dense(self, i: int) -> list[int]:
        found = self.store.similarity_search(self.given.queries[i], k=NEAREST)
        return [d.metadata["row"] for d in found]

    def set_width(self, width: int) -> None:
        self.index.hnsw.efSearch = width


class LangChainFaiss(_LangChain):
    """LangChain's FAISS store over a graph of the same links."""

    packages = ("langchain-community", "faiss-cpu")
    setting = "FAISS over IndexHNSWFlat(32), in-memory docstore; dense only"


class LangChainEnsemble(_LangChain):
    """LangChain's EnsembleRetriever of BM25Retriever and the FAISS store."""

    hybrid = True
    setting = "EnsembleRetriever of BM25Retriever and FAISS, k = 8 of each"

    def build(self) -> None:
        super().build()
        from langchain_classic.retrievers import EnsembleRetriever
        from langchain_community.retrievers import BM25Retriever

        words = BM25Retriever.from_texts(self.given.texts, k=K)
        near = self.store.as_retriever(search_kwargs={"k": K})
        self.both = EnsembleRetriever(retrievers=[words, near], weights=[0.5, 0.5])

    def ask(self, i: int) -> list[str]:
        return [d.page_content for d in self.both.invoke(self.given.queries[i])[:K]]


class Txtai(Peer):
    """txtai with sparse and dense index and the texts in SQLite."""

    packages = ("txtai", "faiss-cpu")
    hybrid = True
    setting = "hybrid, content=True, faiss IDMap,HNSW32"

    def _embeddings(self, known: dict[str, np.ndarray]) -> Any:
        from txtai import Embeddings

        def looked(texts: Any) -> np.ndarray:
            one = isinstance(texts, str)
            rows = np.stack([known[text] for text in ([texts] if one else texts)])
            return rows[0] if one else rows

        return Embeddings(
            method="external",
            transform=looked,
            content=True,
            hybrid=True,
            backend="faiss",
            faiss={"components": f"IDMap,HNSW{LINKS}"},
        )

    def build(self) -> None:
        given = self.given
        made = self._embeddings(dict(zip(given.texts, given.vectors, strict=True)))
        made.index((i, text, None) for i, text in enumerate(given.texts))
        made.save(str(self.folder))

    def open(self) -> None:
        given = self.given
        self.store = self._embeddings(dict(zip(given.queries, given.query_vectors, strict=True)))
        self.store.load(str(self.folder))

    def ask(self, i: int) -> list[str]:
        return [row["text"] for row in self.store.search(self.given.queries[i], K)]

    def dense(self, i: int) -> list[int]:
        found = self.store.search(self.given.queries[i], NEAREST, weights=1.0)
        return [int(row["id"]) for row in found]

    def set_width(self, width: int) -> None:
        import faiss

        index = self.store.ann.backend
        faiss.downcast_index(
            index.index if hasattr(index, "index") else index
        ).hnsw.efSearch = width


class LlamaIndex(Peer):
    """LlamaIndex: QueryFusionRetriever of its BM25Retriever and a FAISS store."""

    packages = (
        "llama-index-core",
        "llama-index-vector-stores-faiss",
        "llama-index-retrievers-bm25",
        "bm25s",
    )
    hybrid = True
    persistent = False
    setting = "QueryFusionRetriever(reciprocal_rerank) of BM25 and FAISS HNSW, 8 of each"

    def build(self) -> None:
        import faiss
        import Stemmer
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.embeddings import BaseEmbedding
        from llama_index.core.llms import MockLLM
        from llama_index.core.retrievers import QueryFusionRetriever
        from llama_index.core.schema import TextNode
        from llama_index.retrievers.bm25 import BM25Retriever
        from llama_index.vector_stores.faiss import FaissVectorStore

        given = self.given
        known = {q: v.tolist() for q, v in zip(given.queries, given.query_vectors, strict=True)}

        class Looked(BaseEmbedding):
            def _get_query_embedding(self, query: str) -> list[float]:
                return known[query]

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return known[query]

            def _get_text_embedding(self, text: str) -> list[float]:
                raise NotImplementedError

        self.index = faiss.IndexHNSWFlat(given.vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        nodes = [TextNode(id_=str(i), text=text) for i, text in enumerate(given.texts)]
        for node, vector in zip(nodes, given.vectors, strict=True):
            node.embedding = vector.tolist()
        context = StorageContext.from_defaults(
            vector_store=FaissVectorStore(faiss_index=self.index)
        )
        whole = VectorStoreIndex(nodes, storage_context=context, embed_model=Looked())
        for node in nodes:
            node.embedding = None
        words = BM25Retriever.from_defaults(
            nodes=nodes, similarity_top_k=K, stemmer=Stemmer.Stemmer("english"), verbose=False
        )
        self.near = whole.as_retriever(similarity_top_k=NEAREST)
        self.both = QueryFusionRetriever(
            [words, whole.as_retriever(similarity_top_k=K)],
            llm=MockLLM(),
            similarity_top_k=K,
            num_queries=1,
            mode="reciprocal_rerank",
            use_async=False,
        )

    def ask(self, i: int) -> list[str]:
        return [found.node.get_content() for found in self.both.retrieve(self.given.queries[i])]

    def dense(self, i: int) -> list[int]:
        return [int(found.node.node_id) for found in self.near.retrieve(self.given.queries[i])]

    def set_width(self, width: int) -> None:
        self.index.hnsw.efSearch = width


class Chroma(Peer):
    """Chroma, persistent, with documents; it has no hybrid search of its own in one process."""

    packages = ("chromadb",)
    setting = "PersistentClient, HNSW of 32 links, documents; dense only"

    def _client(self) -> Any:
        import chromadb
        from chromadb.config import Settings

        return chromadb.PersistentClient(str(self.folder), Settings(anonymized_telemetry=False))

    def build(self) -> None:
        hnsw = {"space": "ip", "max_neighbors": LINKS, "ef_construction": 100, "num_threads": 1}
        made = self._client().create_collection(
            "passages", configuration={"hnsw": hnsw}, embedding_function=None
        )
        given = self.given
        for start in range(0, len(given.texts), _AT_ONCE):
            end = min(start + _AT_ONCE, len(given.texts))
            made.add(
                ids=[str(i) for i in range(start, end)],
                embeddings=given.vectors[start:end],
                documents=given.texts[start:end],
            )

    def open(self) -> None:
        self.client = self._client()
        self.store = self.client.get_collection("passages", embedding_function=None)

    def _found(self, i: int, n: int, what: list[str]) -> Any:
        vector = self.given.query_vectors[i : i + 1]
        return self.store.query(query_embeddings=vector, n_results=n, include=what)

    def ask(self, i: int) -> list[str]:
        found: list[str] = self._found(i, K, ["documents"])["documents"][0]
        return found

    def dense(self, i: int) -> list[int]:
        return [int(id_) for id_ in self._found(i, NEAREST, [])["ids"][0]]

    def set_width(self, width: int) -> None:
        self.store.modify(configuration={"hnsw": {"ef_search": width}})
        self.store = self.client.get_collection("passages", embedding_function=None)


class Lance(Peer):
    """LanceDB: a graph of 8-bit vectors, refined, and its full-text search, by its RRF."""

    packages = ("lancedb",)
    hybrid = True
    setting = "hybrid (RRF), IVF_HNSW_SQ of one partition, 32 links, refine_factor 2; native FTS"

    def build(self) -> None:
        import lancedb
        import pyarrow as pa

        given = self.given
        width = given.vectors.shape[1]
        flat = pa.array(given.vectors.reshape(-1), pa.float32())
        rows = pa.table(
            {
                "row": pa.array(range(len(given.texts)), pa.int64()),
                "text": given.texts,
                "vector": pa.FixedSizeListArray.from_arrays(flat, width),
            }
        )
        made = lancedb.connect(str(self.folder)).create_table("passages", rows)
        made.create_index(
            metric="dot",
            num_partitions=1,
            index_type="IVF_HNSW_SQ",
            m=LINKS,
            ef_construction=100,
            vector_column_name="vector",
        )
        made.create_fts_index("text")
        made.wait_for_index(["vector_idx", "text_idx"])

    def open(self) -> None:
        import lancedb

        self.store = lancedb.connect(str(self.folder)).open_table("passages")

    def ask(self, i: int) -> list[str]:
        found = (
            self.store.search(query_type="hybrid", vector_column_name="vector", fts_columns="text")
            .vector(self.given.query_vectors[i])
            .text(self.given.queries[i])
            .ef(max(self.width, K))
            .refine_factor(2)
            .select(["row", "text"])
            .limit(K)
            .to_arrow()
        )
        texts: list[str] = found["text"].to_pylist()
        return texts

    def dense(self, i: int) -> list[int]:
        found = (
            self.store.search(self.given.query_vectors[i], vector_column_name="vector")
            .distance_type("dot")
            .ef(max(self.width, NEAREST))
            .refine_factor(2)
            .select(["row"])
            .limit(NEAREST)
            .to_arrow()
        )
        rows: list[int] = found["row"].to_pylist()
        return rows


class Milvus(Peer):
    """Milvus Lite: a graph and its BM25 function, by its RRF."""

    packages = ("pymilvus", "milvus-lite")
    hybrid = True
    setting = "hybrid_search (RRF) of HNSW, 32 links, and the BM25 function"

    def _client(self) -> Any:
        from pymilvus import MilvusClient

        self.folder.mkdir(exist_ok=True)
        return MilvusClient(str(self.folder / "milvus.db"))

    def build(self) -> None:
        from pymilvus import DataType, Function, FunctionType, MilvusClient

        given, client = self.given, self._client()
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("text", DataType.VARCHAR, max_length=65_535, enable_analyzer=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=given.vectors.shape[1])
        schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(
                name="bm25",
                function_type=FunctionType.BM25,
                input_field_names=["text"],
                output_field_names=["words"],
            )
        )
        index = client.prepare_index_params()
        graph = {"M": LINKS, "efConstruction": EF_CONSTRUCTION}
        index.add_index("vector", index_type="HNSW", metric_type="IP", params=graph)
        index.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        client.create_collection("passages", schema=schema, index_params=index)
        for start in range(0, len(given.texts), _AT_ONCE):
            end = min(start + _AT_ONCE, len(given.texts))
            client.insert(
                "passages",
                [
                    {"id": i, "text": given.texts[i], "vector": given.vectors[i].tolist()}
                    for i in range(start, end)
                ],
            )
        client.flush("passages")
        client.load_collection("passages")
        client.close()

    def open(self) -> None:
        self.store = self._client()
        self.store.load_collection("passages")

    def _near(self) -> dict[str, Any]:
        return {"metric_type": "IP", "params": {"ef": max(self.width, NEAREST)}}

    def ask(self, i: int) -> list[str]:
        from pymilvus import AnnSearchRequest, RRFRanker

        vector = self.given.query_vectors[i].tolist()
        asked = [
            AnnSearchRequest([vector], "vector", self._near(), K),
            AnnSearchRequest([self.given.queries[i]], "words", {"metric_type": "BM25"}, K),
        ]
        (found,) = self.store.hybrid_search(
            "passages", asked, RRFRanker(), limit=K, output_fields=["text"]
        )
        return [hit["entity"]["text"] for hit in found]

    def dense(self, i: int) -> list[int]:
        (found,) = self.store.search(
            "passages",
            [self.given.query_vectors[i].tolist()],
            anns_field="vector",
            limit=NEAREST,
            search_params=self._near(),
        )
        return [hit["id"] for hit in found]

    def close(self) -> None:
        self.store.close()


ADAPTERS: dict[str, type[Peer]] = {
    "rag-flywheel": Ours,
    "langchain-faiss": LangChainFaiss,
    "langchain-ensemble": LangChainEnsemble,
    "txtai": Txtai,
    "llama-index": LlamaIndex,
    "chroma": Chroma,
    "lancedb": Lance,
    "milvus-lite": Milvus,
}
