"""LangChain: a retriever, a reranker, a callback handler, and embeddings as an Encoder.

    retriever = FlywheelRetriever(flywheel=fw, k=8)
    documents = retriever.invoke("I forgot my password", {"metadata": {"user_id": "ann"}})
    fw.feedback(documents[0].metadata["retrieval_id"], documents[0].id, "helpful", user_id="ann")

Each works with a `Flywheel` and with a `Client` of the service. This module needs the extra `langchain`.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from langchain_core.callbacks import (
    BaseCallbackHandler,
    CallbackManagerForRetrieverRun,
    Callbacks,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.structured_query import FilterDirective
from langchain_core.tracers.base import BaseTracer
from pydantic import AfterValidator, ConfigDict

from rag_flywheel.formats.framework_documents import RELEVANCE, passages_of
from rag_flywheel.integrations.answers import (
    Asker,
    OnIndex,
    check_index,
    given,
    metadata_of,
    of_hit,
)
from rag_flywheel.integrations.encoder import EmbeddingEncoder
from rag_flywheel.integrations.filters import both, from_mongo, from_structured_query
from rag_flywheel.records import Filter, Retrieval
from rag_flywheel.store.tenants import Tenant

_MOST_RUNS = 100_000  # that a handler knows of at once, so that those that never end do not add up


class FlywheelCallbackHandler(BaseCallbackHandler):
    """Tells retrievers and rerankers of this module which root run they are part of.

    Given to a chain or an agent in config["callbacks"], it makes `fw.feedback(run=...)` know the id of the
    root run: config["run_id"], where the application chose one. One handler may serve all calls, of any
    threads, sync and async. Where LangSmith or another tracer is on, none is needed.
    """

    run_inline = True
    ignore_llm = True
    ignore_chat_model = True
    ignore_custom_event = True

    def __init__(self) -> None:
        self._roots: OrderedDict[UUID, UUID] = OrderedDict()
        self._lock = threading.Lock()

    def root_of(self, run_id: UUID | None) -> UUID | None:
        """The root of a run that is under way; None: it is not known."""
        with self._lock:
            return None if run_id is None else self._roots.get(run_id)

    def __deepcopy__(self, memo: object) -> "FlywheelCallbackHandler":
        return self

    def _begin(self, run_id: UUID, parent_run_id: UUID | None) -> None:
        with self._lock:
            above = run_id if parent_run_id is None else parent_run_id
            self._roots[run_id] = self._roots.get(above, above)
            while len(self._roots) > _MOST_RUNS:
                self._roots.popitem(last=False)

    def _end(self, run_id: UUID) -> None:
        with self._lock:
            self._roots.pop(run_id, None)

    def on_chain_start(
        self, *_: Any, run_id: UUID, parent_run_id: UUID | None = None, **__: Any
    ) -> None:
        """Note the root of a run that begins."""
        self._begin(run_id, parent_run_id)

    def on_chain_end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """Forget a run that ends."""
        self._end(run_id)

    on_tool_start = on_retriever_start = on_chain_start
    on_chain_error = on_tool_end = on_tool_error = on_chain_end
    on_retriever_end = on_retriever_error = on_chain_end


class _OfRuns(OnIndex):
    """Finds the runs that a retrieval is part of."""

    def _runs(
        self, handlers: Iterable[object], run_id: UUID | None, above: UUID | None, asker: Asker
    ) -> list[str]:
        """The ids that feedback may name a run by: those in the metadata, and the root, or else `above`."""
        ours_first = sorted(
            handlers, key=lambda each: not isinstance(each, FlywheelCallbackHandler)
        )
        roots = (_root(handler, run_id) for handler in ours_first)
        root = next((found for found in roots if found is not None), above)
        return list(dict.fromkeys([*asker.run_id, *([] if root is None else [str(root)])]))


def _root(handler: object, run_id: UUID | None) -> UUID | None:
    """The root run that a handler knows for a run."""
    if isinstance(handler, FlywheelCallbackHandler):
        return handler.root_of(run_id)
    if isinstance(handler, BaseTracer) and run_id is not None:
        found = handler.run_map.get(str(run_id))
        root = None if found is None else found.trace_id
        return root if isinstance(root, UUID) else None
    parents = getattr(handler, "parent_map", None)  # that of astream_events
    if isinstance(parents, dict) and run_id in parents:
        while (above := parents.get(run_id)) is not None:
            run_id = above
        return run_id
    return None


class FlywheelRetriever(_OfRuns, BaseRetriever):
    """A retriever of LangChain that answers from an index, and records what it showed.

    flywheel: a `Flywheel`, or a `Client` of the service.
    k, where, min_relevance, record, tenant, all_tenants: as in `Flywheel.retrieve`.
    filter: as vector stores of LangChain take it, {"year": {"$gte": 2020}}, or a Comparison or Operation.

    k, where, filter, min_relevance, user_id, session_id and tenant may also be given with a call:
    `invoke(query, k=3)`. The user and the session are those in config["metadata"]: user_id, and session_id,
    thread_id or conversation_id. Documents have the passage's id and metadata, with `retrieval_id`,
    `passage_id`, `rank` and `relevance_score`, from 0 to 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    flywheel: Annotated[Any, AfterValidator(check_index)]
    k: int = 8
    where: Mapping[str, Any] | None = None
    filter: Any = None
    min_relevance: float | None = None
    record: bool = True
    tenant: str | int | None = None
    all_tenants: bool = False

    def invoke(
        self, input: str, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """The documents for a query; config["run_id"] is the id of the run, which LangChain passes over."""
        found: list[Document] = super().invoke(input, config, **_with_run_id(config, kwargs))
        return found

    async def ainvoke(
        self, input: str, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """As `invoke`."""
        found: list[Document] = await super().ainvoke(input, config, **_with_run_id(config, kwargs))
        return found

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        where: Filter | None = None,
        filter: Any = None,
        min_relevance: float | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        tenant: Tenant | None = None,
    ) -> list[Document]:
        asker = Asker.of(run_manager.metadata)
        own = run_manager.run_id
        above = run_manager.parent_run_id or own
        runs = self._runs(run_manager.handlers, own, above, asker)
        found: Retrieval = self.flywheel.retrieve(
            query,
            self.k if k is None else k,
            where=both(self.where, _where(self.filter), where, _where(filter)),
            user_id=asker.user_id if user_id is None else user_id,
            session_id=asker.session_id if session_id is None else session_id,
            run_id=runs,
            record=self.record,
            min_relevance=self.min_relevance if min_relevance is None else min_relevance,
            tenant=self.tenant if tenant is None else tenant,
            all_tenants=self.all_tenants and tenant is None,
        )
        return [
            Document(
                id=hit.passage_id,
                page_content=hit.text,
                metadata={**metadata_of(found, hit), RELEVANCE: hit.relevance},
            )
            for hit in found.hits
        ]

    def add_documents(
        self, documents: Sequence[Document], *, ids: Literal["given", "content"] = "given"
    ) -> list[str]:
        """Add documents to the index, or update those with the same id; returns the ids of the passages.

        ids: as in `Flywheel.add_documents`. Raises InputError.
        """
        passages = passages_of(documents, ids=ids)
        self.flywheel.add(passages, tenant=self.tenant)
        return [passage.id for passage in passages]


def _with_run_id(config: RunnableConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    run_id = (config or {}).get("run_id")
    return kwargs if run_id is None else {"run_id": run_id, **kwargs}


def _where(given: object) -> Filter | None:
    return from_structured_query(given) if isinstance(given, FilterDirective) else from_mongo(given)


class FlywheelReranker(_OfRuns, BaseDocumentCompressor):
    """Reranks the documents of another retriever by votes, as a document compressor of LangChain.

    For `ContextualCompressionRetriever(base_compressor=..., base_retriever=...)`. Without votes on similar
    questions the order stays as it was. The documents keep their metadata, and get those of
    `FlywheelRetriever`; documents without text, and copies, are left out.
    flywheel, record, min_relevance, tenant, all_tenants: as in `FlywheelRetriever`; top_n: how many stay.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    flywheel: Annotated[Any, AfterValidator(check_index)]
    top_n: int = 8
    min_relevance: float | None = None
    record: bool = True
    tenant: str | int | None = None
    all_tenants: bool = False

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
    ) -> list[Document]:
        """The best of the documents, the best first. Raises InputError."""
        candidates, places = given(documents, (_score(each) for each in documents))
        if not candidates:
            return []
        parent = getattr(callbacks, "parent_run_id", None)
        asker = Asker.of(getattr(callbacks, "metadata", None))
        handlers = callbacks if isinstance(callbacks, list) else getattr(callbacks, "handlers", ())
        runs = self._runs(handlers, parent, parent, asker)
        found: Retrieval = self.flywheel.rerank(
            query,
            candidates,
            self.top_n,
            user_id=asker.user_id,
            session_id=asker.session_id,
            run_id=runs,
            record=self.record,
            min_relevance=self.min_relevance,
            tenant=self.tenant,
            all_tenants=self.all_tenants,
        )
        ranked = []
        for hit in found.hits:
            document = documents[places[hit.passage_id]]
            metadata = {**document.metadata, **of_hit(found, hit), RELEVANCE: hit.relevance}
            id_ = document.id or hit.passage_id
            ranked.append(document.model_copy(update={"id": id_, "metadata": metadata}))
        return ranked


def _score(document: Document) -> object:
    """The score that the document's retriever gave it, if any."""
    metadata = document.metadata
    return metadata.get(RELEVANCE, metadata.get("score"))


class FrameworkEncoder(EmbeddingEncoder):
    """Embeddings of LangChain as an Encoder, for `Flywheel.open(path, encoder=...)`."""

    def __init__(
        self, embeddings: Embeddings, *, name: str | None = None, revision: str = "1"
    ) -> None:
        """name: None: that of the class and its model. revision: change it whenever the vectors change.

        One short text is embedded, to learn the width. Raises EncoderError, InputError.
        """
        model = getattr(embeddings, "model", None) or getattr(embeddings, "model_name", None)
        words = [type(embeddings).__name__, *([model] if isinstance(model, str) else [])]
        super().__init__(
            lambda texts: [embeddings.embed_query(text) for text in texts],
            lambda texts: embeddings.embed_documents(list(texts)),
            name=name or ":".join(words),
            revision=revision,
        )
