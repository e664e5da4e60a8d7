"""Haystack: components that retrieve and rank, and that pipelines write and read as YAML.

    pipeline.add_component("retriever", FlywheelRetriever("indexes/kb", top_k=8))
    found = pipeline.run({"retriever": {"query": "I forgot my password", "user_id": "ann"}})
    fw.answer_feedback(found["retriever"]["retrieval_id"], "helpful", user_id="ann")

The classes have their place in `haystack_integrations.components`, which Haystack trusts when it reads a
pipeline. This module needs the extra `haystack`.
"""

import asyncio
import os
import threading
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.types import FilterPolicy
from haystack.utils import Secret

from rag_flywheel.flywheel import Flywheel
from rag_flywheel.integrations.answers import (
    check_index,
    falling_relevance,
    given,
    metadata_of,
    of_hit,
)
from rag_flywheel.integrations.filters import both, from_haystack
from rag_flywheel.records import Retrieval

_API_KEY = Secret.from_env_var("RAG_FLYWHEEL_API_KEY", strict=False)


class _OnIndex:
    """Opens an index when it is first needed, and closes it.

    index: its folder, or the address of a service; or an open `Flywheel` or `Client`, which the component
        does not close, and which is written to YAML as the folder that it is of.
    encoder: of a folder whose settings name none, as "module:factory".
    api_key: of the service. service_index: the name of the index there, None: the first.
    """

    def __init__(
        self, index: Any, encoder: str | None, api_key: Secret | None, service_index: str | None
    ) -> None:
        index = os.fspath(index) if isinstance(index, os.PathLike) else index
        self.index = index if not isinstance(index, Flywheel) else str(index._root)
        self.encoder = encoder
        self.api_key = api_key
        self.service_index = service_index
        self._opened = None if isinstance(index, str) else check_index(index)
        self._is_ours = isinstance(index, str)
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Open the index and load what the first question needs. Raises as `Flywheel.open` does."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
                self._opened.warm()

    def _open(self) -> Any:
        if not self.index.startswith(("http://", "https://")):
            return Flywheel.open(self.index, encoder=self.encoder, create=False)
        from rag_flywheel.client import Client

        key = None if self.api_key is None else self.api_key.resolve_value()
        return Client(self.index, key=key, index=self.service_index)

    def close(self) -> None:
        """Close the index; the next call opens it again."""
        with self._lock:
            opened, self._opened = self._opened, (None if self._is_ours else self._opened)
        if self._is_ours and opened is not None:
            opened.close()

    def _answering(self) -> Any:
        opened = self._opened
        if opened is None:
            self.warm_up()
            opened = self._opened
        return opened

    def _own(self) -> dict[str, Any]:
        """The arguments of the base, for YAML."""
        return {
            "index": self.index,
            "encoder": self.encoder,
            "api_key": self.api_key,
            "service_index": self.service_index,
        }

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack writes it."""
        raise NotImplementedError

    def __deepcopy__(self, memo: object) -> Any:
        """A component that opens the index anew, or answers from the same open one."""
        found = default_from_dict(type(self), self.to_dict())
        if not self._is_ours:
            found._opened, found._is_ours = self._opened, False
        return found

    def __reduce__(self) -> Any:
        return default_from_dict, (type(self), self.to_dict())


@component
class FlywheelRetriever(_OnIndex):
    """Retrieves from an index, and records what it showed.

    Documents have the passage's id, text and metadata, and as their score its relevance, from 0 to 1,
    raised to that of the best one below it, since Haystack sorts by scores. `retrieval_id`, `passage_id`
    and `rank` are in their meta.
    """

    __module__ = "haystack_integrations.components.retrievers.rag_flywheel"

    def __init__(
        self,
        index: Any,
        top_k: int = 8,
        filters: dict[str, Any] | None = None,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
        min_relevance: float | None = None,
        record: bool = True,
        tenant: str | int | None = None,
        all_tenants: bool = False,
        encoder: str | None = None,
        api_key: Secret | None = _API_KEY,
        service_index: str | None = None,
    ) -> None:
        """index: a folder, the address of a service, or an open `Flywheel` or `Client`.

        filters: Haystack's; filter_policy: whether those of a call replace them or are asked for as well.
        min_relevance, record, tenant, all_tenants: as in `Flywheel.retrieve`. encoder: "module:factory", of a
        folder whose settings name no encoder. api_key, service_index: of a service.
        """
        _OnIndex.__init__(self, index, encoder, api_key, service_index)
        self.top_k = top_k
        self.filters = filters
        self.filter_policy = (
            filter_policy
            if isinstance(filter_policy, FilterPolicy)
            else FilterPolicy.from_str(filter_policy)
        )
        self.min_relevance = min_relevance
        self.record = record
        self.tenant = tenant
        self.all_tenants = all_tenants

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack writes it."""
        found: dict[str, Any] = default_to_dict(
            self,
            **self._own(),
            top_k=self.top_k,
            filters=self.filters,
            filter_policy=self.filter_policy.value,
            min_relevance=self.min_relevance,
            record=self.record,
            tenant=self.tenant,
            all_tenants=self.all_tenants,
        )
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The component that was written so."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document], retrieval_id=str | None)
    def run(
        self,
        query: str,
        top_k: int | None = None,
        filters: dict[str, Any] | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | list[str] | None = None,
    ) -> dict[str, Any]:
        """The best documents for a query, and the id that feedback names. Raises InputError.

        run_id: an id of the application's own, or a list of them, which feedback may name instead:
        `fw.feedback(run=...)`.
        """
        wanted = from_haystack(filters)
        if not filters or self.filter_policy is FilterPolicy.MERGE:
            wanted = both(from_haystack(self.filters), wanted)
        found: Retrieval = self._answering().retrieve(
            query,
            self.top_k if top_k is None else top_k,
            where=wanted,
            user_id=user_id,
            session_id=session_id,
            run_id=run_id,
            record=self.record,
            min_relevance=self.min_relevance,
            tenant=self.tenant,
            all_tenants=self.all_tenants,
        )
        documents = [
            Document(id=hit.passage_id, content=hit.text, meta=metadata_of(found, hit), score=score)
            for hit, score in zip(found.hits, falling_relevance(found.hits), strict=True)
        ]
        return {"documents": documents, "retrieval_id": found.id}

    @component.output_types(documents=list[Document], retrieval_id=str | None)
    async def run_async(
        self,
        query: str,
        top_k: int | None = None,
        filters: dict[str, Any] | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | list[str] | None = None,
    ) -> dict[str, Any]:
        """As `run`, in a thread."""
        return await asyncio.to_thread(self.run, query, top_k, filters, user_id, session_id, run_id)


@component
class FlywheelRanker(_OnIndex):
    """Reranks the documents of another retriever by votes.

    Without votes on similar questions the order stays as it was. Documents keep their meta, and get the score
    and meta of `FlywheelRetriever`; documents without text, and copies, are left out.
    """

    __module__ = "haystack_integrations.components.rankers.rag_flywheel"

    def __init__(
        self,
        index: Any,
        top_k: int = 8,
        min_relevance: float | None = None,
        record: bool = True,
        tenant: str | int | None = None,
        all_tenants: bool = False,
        encoder: str | None = None,
        api_key: Secret | None = _API_KEY,
        service_index: str | None = None,
    ) -> None:
        """As `FlywheelRetriever`."""
        _OnIndex.__init__(self, index, encoder, api_key, service_index)
        self.top_k = top_k
        self.min_relevance = min_relevance
        self.record = record
        self.tenant = tenant
        self.all_tenants = all_tenants

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack writes it."""
        found: dict[str, Any] = default_to_dict(
            self,
            **self._own(),
            top_k=self.top_k,
            min_relevance=self.min_relevance,
            record=self.record,
            tenant=self.tenant,
            all_tenants=self.all_tenants,
        )
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The component that was written so."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document], retrieval_id=str | None)
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | list[str] | None = None,
    ) -> dict[str, Any]:
        """The best of the documents, the best first, and the id that feedback names. Raises InputError."""
        candidates, places = given(documents, (each.score for each in documents))
        if not candidates:
            return {"documents": [], "retrieval_id": None}
        found: Retrieval = self._answering().rerank(
            query,
            candidates,
            self.top_k if top_k is None else top_k,
            user_id=user_id,
            session_id=session_id,
            run_id=run_id,
            record=self.record,
            min_relevance=self.min_relevance,
            tenant=self.tenant,
            all_tenants=self.all_tenants,
        )
        ranked = []
        for hit, score in zip(found.hits, falling_relevance(found.hits), strict=True):
            document = documents[places[hit.passage_id]]
            meta = {**document.meta, **of_hit(found, hit)}
            ranked.append(replace(document, meta=meta, score=score))
        return {"documents": ranked, "retrieval_id": found.id}

    @component.output_types(documents=list[Document], retrieval_id=str | None)
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | list[str] | None = None,
    ) -> dict[str, Any]:
        """As `run`, in a thread."""
        return await asyncio.to_thread(
            self.run, query, documents, top_k, user_id, session_id, run_id
        )
