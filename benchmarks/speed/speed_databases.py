"""Stores that keep an index on disk, under measurement by `speed_peers.py`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from speed_store import EF_CONSTRUCTION, LINKS, NEAREST, K, Peer

_AT_ONCE = 5_000


def looked_up(known: dict[str, np.ndarray]) -> Callable[[list[str]], np.ndarray]:
    """What stands for a model: it returns stored vectors."""

    def transform(texts: list[str]) -> np.ndarray:
        return np.stack([known[text] for text in texts])

    return transform


class Txtai(Peer):
    """txtai with sparse and dense index and the texts in SQLite."""

    packages = ("txtai", "faiss-cpu")
    hybrid = True
    setting = "hybrid, content=True, faiss IDMap,HNSW32"

    def build(self) -> None:
        from txtai import Embeddings

        given = self.given
        made = Embeddings(
            method="external",
            transform=looked_up(dict(zip(given.texts, given.vectors, strict=True))),
            content=True,
            hybrid=True,
            backend="faiss",
            faiss={"components": f"IDMap,HNSW{LINKS}"},
        )
        made.index((i, text, None) for i, text in enumerate(given.texts))
        made.save(str(self.folder))

    def open(self) -> None:
        from txtai import Embeddings

        given = self.given
        known = dict(zip(given.queries, given.query_vectors, strict=True))
        self.store = Embeddings()
        self.store.load(str(self.folder), config={"transform": looked_up(known)})

    def ask(self, i: int) -> list[str]:
        return [row["text"] for row in self.store.search(self.given.queries[i], K)]

    def dense(self, i: int) -> list[int]:
        found = self.store.search(self.given.queries[i], NEAREST, weights=1.0)
        return [int(row["id"]) for row in found]

    def set_width(self, width: int) -> None:
        import faiss

        graph: Any = faiss.downcast_index(self.store.ann.backend.index)
        graph.hnsw.efSearch = width


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
