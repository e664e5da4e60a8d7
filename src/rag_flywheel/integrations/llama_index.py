"""LlamaIndex: a retriever, a node postprocessor that reranks, and an embedding model as an Encoder.

    engine = RetrieverQueryEngine.from_args(FlywheelRetriever(fw, k=8), llm=llm)
    response = engine.query("I forgot my password")
    fw.answer_feedback(response.source_nodes[0].metadata["retrieval_id"], "helpful", user_id="ann")

Each works with a `Flywheel` and with a `Client` of the service. Who asks is told by LlamaIndex's instrument
tags: `with instrument_tags({"user_id": "ann", "session_id": "s", "run_id": "r"})`. This module needs the
extra `llama-index`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.instrumentation.dispatcher import active_instrument_tags
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import MetadataFilters
from pydantic import AfterValidator, Field

from rag_flywheel.errors import InputError
from rag_flywheel.formats.framework_documents import PASSAGE_ID, RANK, RETRIEVAL_ID, passages_of
from rag_flywheel.integrations.answers import (
    Asker,
    OnIndex,
    check_index,
    falling_relevance,
    given,
    metadata_of,
    of_hit,
)
from rag_flywheel.integrations.encoder import EmbeddingEncoder
from rag_flywheel.integrations.filters import both, from_llama_index
from rag_flywheel.records import Filter, Retrieval
from rag_flywheel.store.tenants import Tenant

_FOR_US_ALONE = [RETRIEVAL_ID, PASSAGE_ID, RANK]
"""Metadata that neither a prompt nor an embedding is made of."""


class _Node(TextNode):
    """A node with the same hash in every answer, so that a fusion of retrievers finds its copies."""

    @property
    def hash(self) -> str:
        own = {key: value for key, value in self.metadata.items() if key not in _FOR_US_ALONE}
        return str(TextNode(text=self.text, metadata=own).hash)


class FlywheelRetriever(OnIndex, BaseRetriever):
    """A retriever of LlamaIndex that answers from an index, and records what it showed.

    Nodes have the passage's id and metadata, and as their score its relevance, from 0 to 1, raised to that
    of the best one below it, since LlamaIndex sorts by scores. `retrieval_id`, `passage_id` and `rank` are
    among the metadata, and left out of prompts and embeddings.
    """

    def __init__(
        self,
        flywheel: Any,
        k: int = 8,
        *,
        where: Filter | None = None,
        filters: MetadataFilters | None = None,
        min_relevance: float | None = None,
        record: bool = True,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
        **kwargs: Any,
    ) -> None:
        """flywheel: a `Flywheel`, or a `Client` of the service.

        k, where, min_relevance, record, tenant, all_tenants: as in `Flywheel.retrieve`. filters: those of
        LlamaIndex. kwargs: as of its BaseRetriever. Raises InputError for filters without a counterpart.
        """
        self.flywheel = check_index(flywheel)
        self._k = k
        self._asked = {
            "where": both(where, from_llama_index(filters)),
            "min_relevance": min_relevance,
            "record": record,
            "tenant": tenant,
            "all_tenants": all_tenants,
        }
        super().__init__(**kwargs)

    def __copy__(self) -> "FlywheelRetriever":
        found = object.__new__(type(self))
        found.__dict__.update(self.__dict__)
        return found

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asker = _asker()
        found: Retrieval = self.flywheel.retrieve(
            query_bundle.query_str, self._k, **asker._asdict(), **self._asked
        )
        return [
            NodeWithScore(
                node=_Node(
                    id_=hit.passage_id,
                    text=hit.text,
                    metadata=metadata_of(found, hit),
                    excluded_llm_metadata_keys=_FOR_US_ALONE,
                    excluded_embed_metadata_keys=_FOR_US_ALONE,
                ),
                score=score,
            )
            for hit, score in zip(found.hits, falling_relevance(found.hits), strict=True)
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def add_nodes(
        self, nodes: Sequence[BaseNode], *, ids: Literal["given", "content"] = "given"
    ) -> list[str]:
        """Add nodes to the index, or update those with the same id; returns the ids of the passages.

        ids: "content": made of source and text, since LlamaIndex gives nodes another id whenever they are
        loaded. Raises InputError.
        """
        passages = passages_of(nodes, ids=ids)
        self.flywheel.add(passages, tenant=self._asked["tenant"])
        return [passage.id for passage in passages]


def _asker() -> Asker:
    tags = active_instrument_tags.get()
    return Asker.of(tags if isinstance(tags, Mapping) else None)


class FlywheelReranker(OnIndex, BaseNodePostprocessor):
    """Reranks the nodes of another retriever by votes, as a node postprocessor of LlamaIndex.

    Without votes on similar questions the order stays as it was. Nodes keep their metadata, and get those of
    `FlywheelRetriever`; nodes without text, and copies, are left out.
    flywheel, record, min_relevance, tenant, all_tenants: as in `FlywheelRetriever`; top_n: how many stay.
    """

    flywheel: Annotated[Any, AfterValidator(check_index)] = Field(exclude=True)
    top_n: int = 8
    min_relevance: float | None = None
    record: bool = True
    tenant: str | int | None = None
    all_tenants: bool = False

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises it."""
        return "FlywheelReranker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError(
                "found no query; expected query_str or query_bundle, which it ranks for"
            )
        candidates, places = given([each.node for each in nodes], (each.score for each in nodes))
        if not candidates:
            return []
        asker = _asker()
        found: Retrieval = self.flywheel.rerank(
            query_bundle.query_str,
            candidates,
            self.top_n,
            **asker._asdict(),
            min_relevance=self.min_relevance,
            record=self.record,
            tenant=self.tenant,
            all_tenants=self.all_tenants,
        )
        ranked = []
        for hit, score in zip(found.hits, falling_relevance(found.hits), strict=True):
            node = nodes[places[hit.passage_id]].node
            own = {
                "metadata": {**node.metadata, **of_hit(found, hit)},
                "excluded_llm_metadata_keys": _also_ours(node.excluded_llm_metadata_keys),
                "excluded_embed_metadata_keys": _also_ours(node.excluded_embed_metadata_keys),
            }
            ranked.append(NodeWithScore(node=node.model_copy(update=own), score=score))
        return ranked


def _also_ours(keys: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*keys, *_FOR_US_ALONE]))


class FrameworkEncoder(EmbeddingEncoder):
    """An embedding model of LlamaIndex as an Encoder, for `Flywheel.open(path, encoder=...)`."""

    def __init__(
        self, embeddings: BaseEmbedding, *, name: str | None = None, revision: str = "1"
    ) -> None:
        """name: None: that of the class and its model. revision: change it whenever the vectors change.

        One short text is embedded, to learn the width. Raises EncoderError, InputError.
        """
        super().__init__(
            lambda texts: [embeddings.get_query_embedding(text) for text in texts],
            lambda texts: embeddings.get_text_embedding_batch(list(texts)),
            name=name or f"{embeddings.class_name()}:{embeddings.model_name}",
            revision=revision,
        )
