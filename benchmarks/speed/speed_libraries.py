"""LangChain and LlamaIndex under measurement by `speed_peers.py`: what they hold is in memory.

Each is handed an embedding that looks vectors up.
"""

from speed_store import EF_CONSTRUCTION, LINKS, NEAREST, Given, K, Peer


def as_lists(given: Given) -> dict[str, list[float]]:
    """The vectors of queries, as these libraries hand them around."""
    return {q: v.tolist() for q, v in zip(given.queries, given.query_vectors, strict=True)}


class _LangChain(Peer):
    packages: tuple[str, ...] = ("langchain-community", "faiss-cpu")
    persistent = False

    def build(self) -> None:
        import faiss
        from langchain_community.docstore.in_memory import InMemoryDocstore
        from langchain_community.vectorstores import FAISS
        from langchain_core.documents import Document
        from langchain_core.embeddings import Embeddings

        given = self.given
        known = as_lists(given)

        class Looked(Embeddings):  # type: ignore[misc]
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

    setting = "FAISS over IndexHNSWFlat(32), in-memory docstore; dense only"


class LangChainEnsemble(_LangChain):
    """LangChain's EnsembleRetriever of BM25Retriever and the FAISS store."""

    packages = ("langchain-community", "langchain-classic", "faiss-cpu", "rank-bm25")
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
    each = K
    setting = f"QueryFusionRetriever(reciprocal_rerank) of BM25 and FAISS HNSW, {each} of each"

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
        known = as_lists(given)

        class Looked(BaseEmbedding):  # type: ignore[misc]
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
            nodes=nodes,
            similarity_top_k=self.each,
            stemmer=Stemmer.Stemmer("english"),
            verbose=False,
        )
        self.near = whole.as_retriever(similarity_top_k=NEAREST)
        self.both = QueryFusionRetriever(
            [words, whole.as_retriever(similarity_top_k=self.each)],
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


class LlamaIndexDeep(LlamaIndex):
    """The same with as many candidates as ours looks at."""

    each = 100
    setting = f"QueryFusionRetriever(reciprocal_rerank) of BM25 and FAISS HNSW, {each} of each"
