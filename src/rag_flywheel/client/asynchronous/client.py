"""The client of a service: the methods of a Flywheel, for one of its indexes."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx

from rag_flywheel.checks import (
    NOT_GIVEN,
    as_python,
    check_candidates,
    check_k,
    check_optional_text,
    check_passages,
    check_text,
    check_whole,
    items,
)
from rag_flywheel.client.asynchronous.connection import AsyncConnection
from rag_flywheel.client.asynchronous.golden import AsyncGolden
from rag_flywheel.client.asynchronous.review import AsyncReview
from rag_flywheel.client.decoding import decoded
from rag_flywheel.client.not_served import not_served
from rag_flywheel.client.problems import Retries, error_named
from rag_flywheel.client.sending import (
    PAGE_ROWS,
    Named,
    as_json,
    filter_json,
    in_path,
    listed,
    params_of,
    parts_of,
    passage_json,
    ranked,
    recorded_id,
    retrieval_or_run,
    summed,
    tenant_body,
    tenant_query,
)
from rag_flywheel.client.tokens import RetrievalWithToken
from rag_flywheel.client.uploads import chosen_files
from rag_flywheel.errors import InputError, ServiceError
from rag_flywheel.formats.framework_documents import passages_of
from rag_flywheel.records import (
    AddFilesReport,
    AddReport,
    AuditReport,
    Candidate,
    Comparison,
    DayActivity,
    DpCounts,
    Filter,
    ForgetReport,
    Health,
    HistoryEntry,
    Hit,
    Passage,
    PassageJudgment,
    PastRefresh,
    PastVotes,
    Progress,
    QuestionSummary,
    RecordedRetrieval,
    RecordedVote,
    RefreshReport,
    Retrieval,
    Signal,
    Splitter,
    Status,
    Verdict,
    VersionInfo,
    VersionStory,
    Vote,
)
from rag_flywheel.report.progress import Bars, as_progress

if TYPE_CHECKING:
    from rag_flywheel.report.coverage import Coverage
    from rag_flywheel.report.gaps import Gap
    from rag_flywheel.report.questions import QuestionOrder
    from rag_flywheel.report.raters import Rater
    from rag_flywheel.store.tenants import Tenant

_POLL_S, _MOST_POLL_S = 0.1, 2.0
_NDJSON = "application/x-ndjson"


class AsyncClient:
    """An index that a service answers for, with the methods, records and errors of a `Flywheel`.

    What the service cannot do, because it is about files of the machine that it runs on, is not there:
    `open`, `config`, `lookups`, `export`, `backup` and `repair`.
    Besides the errors of a Flywheel, every method raises ServiceError when the service cannot be reached,
    AccessError when it does not know the key or the key may not do this, and RateLimitedError. What the
    service cannot take as an argument is an InputError.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        index: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 4,
        feedback_tokens: bool = False,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """A client of the service at `url`, such as http://127.0.0.1:8000; nothing is sent yet.

        key: an API key; None: for a service that asks for none.
        index: the name of the index; None: the service's first one.
        timeout_s: how long one attempt waits for its answer.
        retries: how often a request is sent again when the service is not reached, is busy, or has had too
            many calls; a vote that was sent again counts once.
        feedback_tokens: whether `retrieve` and `rerank` return a `RetrievalWithToken`, whose token a page
            sends with the votes of its reader.
        http: a client of httpx to use instead of an own one, as for a proxy or certificates; it is not
            closed. Raises InputError.
        """
        if not isinstance(retries, int) or retries < 0:
            raise InputError(f"retries is {retries!r}; expected a whole number, 0 or more")
        self._kind = RetrievalWithToken if feedback_tokens else Retrieval
        self._to = AsyncConnection(
            url,
            key=key,
            index=index,
            timeout_s=timeout_s,
            retries=Retries(retries),
            http=http,
        )

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(not_served(type(self).__name__, name))

    async def close(self) -> None:
        """Close the connection; every later call raises ClosedError."""
        await self._to.close()

    async def warm(self) -> None:
        """Connect to the service, so that the first question takes no longer than others.

        Raises ServiceError.
        """
        await self._to.reach()

    async def add(
        self,
        passages: Iterable[Passage],
        *,
        remove: Collection[str] = (),
        progress: bool | Progress = False,
        tenant: "Tenant | None" = None,
    ) -> AddReport:
        """Add passages, or update those with the same id, and remove others.

        Many are sent in parts of at most 500, and each part is added whole or not at all; what is to be
        removed goes with the first one. Otherwise as `Flywheel.add`; the step of `progress` is
        "add passages".
        """
        given = check_passages(passages).values()
        removed, named = items("remove", remove, str), tenant_query(tenant)
        reports: list[AddReport] = []
        done = 0
        with Bars() as bars:
            told = as_progress(progress, bars)
            for part, lines in parts_of(given):
                if removed and not reports:
                    reports.append(await self._add_and_remove(part, removed, tenant))
                else:
                    reports.append(
                        await self._to.send(
                            AddReport,
                            "/passages.ndjson",
                            params=named,
                            content=lines,
                            content_type=_NDJSON,
                        )
                    )
                done += len(part)
                if told is not None:
                    told("add passages", done, len(given))
        if not reports:
            reports.append(await self._add_and_remove([], removed, tenant))
        return summed(reports)

    async def _add_and_remove(
        self, part: Sequence[Passage], remove: Sequence[str], tenant: "Tenant | None"
    ) -> AddReport:
        body = {
            "passages": [passage_json(each) for each in part],
            "remove": list(remove),
            "tenant": as_python(tenant),
        }
        found: AddReport = await self._to.send(AddReport, "/passages", body)
        return found

    async def add_files(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        root: str | Path | None = None,
        name: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        prune: bool = False,
        strict: bool = False,
        chunk_tokens: int | None = None,
        chunk_overlap: int | None = None,
        base_url: str | None = None,
        anchors: Literal["github", "mkdocs", "vitepress"] = "github",
        splitter: Splitter | None = None,
        dry_run: bool = False,
        progress: bool | Progress = False,
    ) -> AddFilesReport:
        """Send files of this machine, and of folders at any depth, to be cut and added by the service.

        root: the folder that files are named from; None: the nearest one that holds all of them.
        name: put before these names; None: "documents".
        prune, splitter: refused; the service cannot know which files are gone, and runs no code of others.
        strict: raise when a file cannot be read, before any of the same part is added.
        Otherwise as `Flywheel.add_files`.
        """
        if prune or splitter is not None:
            what = "prune" if prune else "splitter"
            raise InputError(
                f"{what} cannot be sent to a service; use Flywheel.add_files on its machine, or `add` "
                "and `remove`"
            )
        chosen = chosen_files(paths, root=root, include=include, exclude=exclude)
        given = params_of(
            name=name,
            strict=as_json(strict).decode(),
            chunk_tokens=as_python(chunk_tokens),
            chunk_overlap=as_python(chunk_overlap),
            base_url=base_url,
            anchors=anchors,
            dry_run=as_json(dry_run).decode(),
        )
        done = 0
        with Bars() as bars:
            told = as_progress(progress, bars)
            for part in chosen.parts():
                try:
                    found = await self._to.upload(AddFilesReport, "/documents", part, given)
                except InputError as error:
                    if strict or len(part) == len(chosen.files):
                        raise
                    chosen.failed(part, error)
                else:
                    chosen.reports.append(found)
                done += len(part)
                if told is not None:
                    told("add files", done, len(chosen.files))
        return chosen.together()

    async def add_documents(
        self,
        documents: Iterable[object],
        *,
        ids: Literal["given", "content"] = "given",
        progress: bool | Progress = False,
    ) -> AddReport:
        """`add` for the documents of LangChain and LlamaIndex, as `Flywheel.add_documents`."""
        return await self.add(passages_of(documents, ids=ids), progress=progress)

    async def remove(
        self, ids: Sequence[str], *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> int:
        """Remove passages, all or none, as `Flywheel.remove`."""
        body = {"ids": items("ids", ids, str), **tenant_body(tenant, all_tenants)}
        found = await self._to.send(dict[str, int], "/passages:remove", body)
        return int(found["removed"])

    async def passage(
        self, passage_id: str, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> Passage:
        """The passage with this id, as `Flywheel.passage`."""
        path = f"/passages/{in_path('passage_id', passage_id)}"
        found: Passage = await self._to.get(Passage, path, tenant_query(tenant, all_tenants))
        return found

    async def passages(
        self,
        where: Filter | None = None,
        *,
        n: int | None = None,
        after: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> list[Passage]:
        """The passages that pass a metadata filter, in the order of their ids, as `Flywheel.passages`."""
        check_optional_text("after", after)
        filtered = None if where is None else as_json(filter_json(where)).decode()
        named = {**tenant_query(tenant, all_tenants), **params_of(where=filtered)}
        wanted = None if n is None else check_whole("n", n)
        found: list[Passage] = []
        while wanted is None or len(found) < wanted:
            limit = PAGE_ROWS if wanted is None else min(PAGE_ROWS, wanted - len(found))
            begin = params_of(after=found[-1].id if found else after)
            page = await self._page(Passage, "/passages", {**named, **begin, "limit": limit})
            found += page
            if len(page) < limit:
                break
        return found

    async def _page(self, kind: Any, path: str, params: Named) -> list[Any]:
        found = await self._to.get(dict[str, Any], path, params)
        return list(decoded(list[kind], found.get("items")))

    async def metadata_keys(
        self, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> dict[str, list[str]]:
        """The metadata keys of the passages, as `Flywheel.metadata_keys`."""
        named = tenant_query(tenant, all_tenants)
        found: dict[str, list[str]] = await self._to.get(
            dict[str, list[str]], "/metadata-keys", named
        )
        return found

    async def retrieve(
        self,
        query: str,
        k: int = 8,
        *,
        where: Filter | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | Sequence[str] | None = None,
        record: bool = True,
        min_relevance: float | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> Retrieval:
        """The k best passages for a query, the best first, as `Flywheel.retrieve`."""
        body = {
            "query": query,
            **ranked(k, where, min_relevance),
            "record": record,
            "user_id": user_id,
            "session_id": session_id,
            "run_id": listed(run_id),
            **tenant_body(tenant, all_tenants),
        }
        return await self._answered("/retrieve", body)

    async def _answered(self, path: str, body: Named) -> Retrieval:
        if self._kind is RetrievalWithToken:
            body["feedback_token"] = True
        found: Retrieval = await self._to.send(self._kind, path, body)
        return found

    async def retrieve_many(
        self,
        queries: Sequence[str],
        k: int = 8,
        *,
        where: Filter | None = None,
        run_id: str | Sequence[str | Sequence[str] | None] | None = None,
        record: bool = True,
        min_relevance: float | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> list[Retrieval]:
        """`retrieve` for many queries at once, as `Flywheel.retrieve_many`."""
        body = {
            "queries": items("queries", queries, str),
            **ranked(k, where, min_relevance),
            "run_id": listed(run_id),
            "record": record,
            **tenant_body(tenant, all_tenants),
        }
        found: list[Retrieval] = await self._to.send(list[Retrieval], "/retrieve-many", body)
        return found

    async def rank_many(
        self,
        queries: Sequence[str],
        k: int = 8,
        *,
        where: Filter | None = None,
        min_relevance: float | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> list[list[str]]:
        """The ids of the k best passages for each query, as `Flywheel.rank_many`."""
        body = {
            "queries": items("queries", queries, str),
            **ranked(k, where, min_relevance),
            **tenant_body(tenant, all_tenants),
        }
        found: list[list[str]] = await self._to.send(list[list[str]], "/rank-many", body)
        return found

    async def rerank(
        self,
        query: str,
        candidates: Sequence[Candidate],
        k: int = 8,
        *,
        where: Filter | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | Sequence[str] | None = None,
        record: bool = True,
        min_relevance: float | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> Retrieval:
        """The k best of an application's own candidates, reranked by votes, as `Flywheel.rerank`."""
        given = [
            {
                "passage_id": each.passage_id,
                "text": each.text,
                "score": as_python(each.score),
                "title": each.title,
                "metadata": each.metadata,
            }
            for each in check_candidates(candidates)
        ]
        body = {
            "query": query,
            "candidates": given,
            **ranked(k, where, min_relevance),
            "record": record,
            "user_id": user_id,
            "session_id": session_id,
            "run_id": listed(run_id),
            **tenant_body(tenant, all_tenants),
        }
        return await self._answered("/rerank", body)

    async def feedback(
        self,
        retrieval_id: str | None = None,
        passage_id: str = NOT_GIVEN,
        verdict: Verdict = NOT_GIVEN,
        *,
        run: str | None = None,
        user_id: str | None = None,
        reason: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record one vote, as `Flywheel.feedback`."""
        body = {
            **retrieval_or_run(retrieval_id, run),
            "passage_id": passage_id,
            "verdict": verdict,
            "user_id": user_id,
            "reason": reason,
            **tenant_body(tenant, all_tenants),
        }
        return bool(await self._record("/feedback", body))

    async def feedback_many(
        self,
        votes: Iterable[Vote],
        *,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> int:
        """Record votes in one commit, all or none, as `Flywheel.feedback_many`."""
        given = [
            {
                **retrieval_or_run(vote.retrieval_id, vote.run),
                "passage_id": vote.passage_id,
                "verdict": vote.verdict,
                "user_id": vote.user_id,
                "reason": vote.reason,
            }
            for vote in items("votes", votes, Vote)
        ]
        body = {"votes": given, **tenant_body(tenant, all_tenants)}
        return await self._record("/feedback-many", body)

    async def answer_feedback(
        self,
        retrieval_id: str | None = None,
        verdict: Verdict = NOT_GIVEN,
        *,
        run: str | None = None,
        answer: str | None = None,
        cited: Sequence[str] | None = None,
        user_id: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record a verdict on a whole answer, as `Flywheel.answer_feedback`."""
        body = {
            **retrieval_or_run(retrieval_id, run),
            "verdict": verdict,
            "answer": answer,
            "cited": None if cited is None else items("cited", cited, str),
            "user_id": user_id,
            **tenant_body(tenant, all_tenants),
        }
        return bool(await self._record("/answer-feedback", body))

    async def relevance(
        self,
        retrieval_id: str | None = None,
        helpful: Mapping[str, bool] = NOT_GIVEN,
        *,
        run: str | None = None,
        user_id: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> int:
        """Record a vote on each of these hits, as `Flywheel.relevance`."""
        if not isinstance(helpful, Mapping):
            raise InputError(
                f"relevance is {type(helpful).__name__}; expected {{passage id: True or False}}"
            )
        body = {
            **retrieval_or_run(retrieval_id, run),
            "helpful": {id_: as_python(value) for id_, value in helpful.items()},
            "user_id": user_id,
            **tenant_body(tenant, all_tenants),
        }
        return await self._record("/relevance", body)

    async def adopted(
        self,
        retrieval_id: str | None = None,
        *,
        run: str | None = None,
        used: bool,
        why: str = "",
        cited: Sequence[str] | None = None,
        user_id: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record whether an answer was used, and why, as `Flywheel.adopted`."""
        body = {
            **retrieval_or_run(retrieval_id, run),
            "used": used,
            "why": why,
            "cited": None if cited is None else items("cited", cited, str),
            "user_id": user_id,
            **tenant_body(tenant, all_tenants),
        }
        return bool(await self._record("/adopted", body))

    async def signal(
        self,
        retrieval_id: str | None = None,
        kind: Signal = NOT_GIVEN,
        value: object = None,
        *,
        run: str | None = None,
        passage_id: str | None = None,
        user_id: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record what a user did with an answer, as `Flywheel.signal`."""
        body = {
            **retrieval_or_run(retrieval_id, run),
            "kind": kind,
            "value": as_python(value),
            "passage_id": passage_id,
            "user_id": user_id,
            **tenant_body(tenant, all_tenants),
        }
        return bool(await self._record("/signals", body))

    async def link_run(
        self,
        retrieval_id: str | None,
        run_id: str,
        *,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> None:
        """Store that a retrieval belongs to a run, as `Flywheel.link_run`."""
        body = {
            "retrieval_id": recorded_id(retrieval_id),
            "run_id": run_id,
            **tenant_body(tenant, all_tenants),
        }
        await self._to.send(None, "/runs", body)

    async def votes_behind(
        self, hit: Hit, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> list[PastVotes]:
        """The votes on similar past queries that a hit rests on, as `Flywheel.votes_behind`."""
        body = {"votes": list(hit.explanation.votes), **tenant_body(tenant, all_tenants)}
        found: list[PastVotes] = await self._to.send(list[PastVotes], "/votes-behind", body)
        return found

    async def correct(
        self,
        retrieval_id: str | None = None,
        passage_id: str | None = None,
        text: str | None = None,
        *,
        run: str | None = None,
        user_id: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record the passage that a user names, or the answer that a user writes, as `Flywheel.correct`."""
        body = {
            **retrieval_or_run(retrieval_id, run),
            "passage_id": passage_id,
            "text": text,
            "user_id": user_id,
            **tenant_body(tenant, all_tenants),
        }
        return bool(await self._record("/corrections", body))

    async def missing(
        self,
        retrieval_id: str | None = None,
        note: str = "",
        *,
        run: str | None = None,
        user_id: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record that a user reports a missing answer, as `Flywheel.missing`."""
        body = {
            **retrieval_or_run(retrieval_id, run),
            "note": note,
            "user_id": user_id,
            **tenant_body(tenant, all_tenants),
        }
        return bool(await self._record("/missing", body))

    async def _record(self, path: str, body: Named) -> int:
        found = await self._to.send(dict[str, int], path, body)
        return int(found["recorded"])

    async def retrieval(
        self, retrieval_id: str, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> RecordedRetrieval:
        """A recorded retrieval, as it was shown, as `Flywheel.retrieval`."""
        path = f"/retrievals/{in_path('retrieval_id', recorded_id(retrieval_id))}"
        named = tenant_query(tenant, all_tenants)
        found: RecordedRetrieval = await self._to.get(RecordedRetrieval, path, named)
        return found

    async def retrievals(
        self,
        n: int = 50,
        *,
        before: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> list[RecordedRetrieval]:
        """The n newest recorded retrievals, the newest first, as `Flywheel.retrievals`."""
        check_optional_text("before", before)
        n, named = check_whole("n", n), tenant_query(tenant, all_tenants)
        found: list[RecordedRetrieval] = []
        while len(found) < n:
            limit = min(PAGE_ROWS, n - len(found))
            begin = params_of(before=found[-1].id if found else before)
            page = await self._page(
                RecordedRetrieval, "/retrievals", {**named, **begin, "limit": limit}
            )
            found += page
            if len(page) < limit:
                break
        return found

    async def votes(
        self,
        n: int = 50,
        *,
        before: int | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> list[RecordedVote]:
        """The n newest votes, verdicts, signals and corrections, the newest first, as `Flywheel.votes`."""
        last = None if before is None else check_whole("before", before)
        n, named = check_whole("n", n), tenant_query(tenant, all_tenants)
        found: list[RecordedVote] = []
        while len(found) < n:
            limit = min(PAGE_ROWS, n - len(found))
            begin = params_of(before=found[-1].number if found else last)
            page = await self._page(RecordedVote, "/votes", {**named, **begin, "limit": limit})
            found += page
            if len(page) < limit:
                break
        return found

    async def judgments(
        self, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> list[PassageJudgment]:
        """What the votes on each passage add up to, as `Flywheel.judgments`."""
        named = tenant_query(tenant, all_tenants)
        found: list[PassageJudgment] = await self._to.get(
            list[PassageJudgment], "/judgments", named
        )
        return found

    async def gaps(
        self,
        days: float = 30.0,
        *,
        min_relevance: float | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> "list[Gap]":
        """Topics that users ask about without a good answer, as `Flywheel.gaps`."""
        from rag_flywheel.report.gaps import Gap  # which takes 90 ms to load

        named = tenant_query(tenant, all_tenants)
        given = params_of(days=as_python(days), min_relevance=as_python(min_relevance))
        found: list[Gap] = await self._to.get(list[Gap], "/gaps", {**named, **given})
        return found

    async def coverage(
        self,
        days: float = 30.0,
        *,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> "Coverage":
        """Whether votes fall where they help, as `Flywheel.coverage`."""
        from rag_flywheel.report.coverage import Coverage

        given = {**params_of(days=as_python(days)), **tenant_query(tenant, all_tenants)}
        found: Coverage = await self._to.get(Coverage, "/coverage", given)
        return found

    async def questions(
        self,
        n: int = 50,
        *,
        order: "QuestionOrder" = "asked",
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> list[QuestionSummary]:
        """The first n questions that users asked, and how they were served, as `Flywheel.questions`."""
        given = {"n": check_whole("n", n), "order": order, **tenant_query(tenant, all_tenants)}
        found: list[QuestionSummary] = await self._to.get(
            list[QuestionSummary], "/questions", given
        )
        return found

    async def activity(
        self, days: float = 30.0, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> list[DayActivity]:
        """How much was asked and voted on each of the last `days`, as `Flywheel.activity`."""
        given = {**params_of(days=as_python(days)), **tenant_query(tenant, all_tenants)}
        found: list[DayActivity] = await self._to.get(list[DayActivity], "/activity", given)
        return found

    @property
    def golden(self) -> AsyncGolden:
        """The queries whose answers are known, as `Flywheel.golden`."""
        return AsyncGolden(self._to)

    async def pin(
        self,
        query: str,
        passage_id: str,
        *,
        where: Filter | None = None,
        grade: int = 1,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> bool:
        """Put a passage first for a query, as `Flywheel.pin`."""
        body = {
            "query": query,
            "passage_id": passage_id,
            "where": filter_json(where),
            "grade": as_python(grade),
            **tenant_body(tenant, all_tenants),
        }
        found = await self._to.send(dict[str, bool], "/pins", body, method="PUT")
        return bool(found["changed"])

    async def unpin(
        self,
        query: str,
        passage_id: str,
        *,
        where: Filter | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> bool:
        """Take back a `pin`, as `Flywheel.unpin`."""
        body = {
            "query": query,
            "passage_id": passage_id,
            "where": filter_json(where),
            **tenant_body(tenant, all_tenants),
        }
        found = await self._to.send(dict[str, bool], "/pins:remove", body)
        return bool(found["changed"])

    @property
    def review(self) -> AsyncReview:
        """The answers that need a human decision, as `Flywheel.review`."""
        return AsyncReview(self._to)

    async def answer(
        self,
        retrieval_id: str,
        text: str,
        *,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> None:
        """Store the answer that the application gave from a retrieval, as `Flywheel.answer`."""
        path = f"/retrievals/{in_path('retrieval_id', recorded_id(retrieval_id))}/answer"
        body = {"text": text, **tenant_body(tenant, all_tenants)}
        await self._to.send(None, path, body, method="PUT")

    async def raters(self, names: Iterable[str] = ()) -> "list[Rater]":
        """The users who voted, how far each is trusted, as `Flywheel.raters`."""
        from rag_flywheel.report.raters import Rater

        given = items("names", names, str)
        if given:
            found: list[Rater] = await self._to.send(list[Rater], "/raters", {"names": given})
        else:
            found = await self._to.get(list[Rater], "/raters")
        return found

    async def mute(self, user_id: str | None = None, *, raters: Iterable[str] = ()) -> int:
        """Leave out all votes of a user, as `Flywheel.mute`."""
        return await self._set_muted("/raters:mute", user_id, raters)

    async def unmute(self, user_id: str | None = None, *, raters: Iterable[str] = ()) -> int:
        """Take back `mute`, as `Flywheel.unmute`."""
        return await self._set_muted("/raters:unmute", user_id, raters)

    async def _set_muted(self, path: str, user_id: str | None, raters: Iterable[str]) -> int:
        body = {"user_id": user_id, "raters": items("raters", raters, str)}
        found = await self._to.send(dict[str, int], path, body)
        return int(found["changed"])

    async def opt_out(self, user_id: str, *, out: bool = True) -> None:
        """Record nothing of a user from now on, or record them again, as `Flywheel.opt_out`."""
        await self._to.send(None, "/users:opt-out", {"user_id": user_id, "out": out})

    async def forget(self, user_id: str) -> ForgetReport:
        """Delete all data of a user and what was learned from them, as `Flywheel.forget`.

        It is a job of the service, which goes on when the caller stops to wait for it.
        """
        found: ForgetReport = await self._job(
            ForgetReport, "/users:forget", {"user_id": user_id}, None
        )
        return found

    async def refresh(
        self,
        *,
        if_votes: int | None = None,
        max_age_s: float | None = None,
        tune: bool = False,
        progress: bool | Progress = False,
    ) -> RefreshReport:
        """Build the next index version, check it, and make it live, as `Flywheel.refresh`.

        It is a job of the service, which goes on when the caller stops to wait for it. Raises
        ServiceError when it was cancelled, or its process ended.
        """
        body = {"if_votes": as_python(if_votes), "max_age_s": as_python(max_age_s), "tune": tune}
        with Bars() as bars:
            told = as_progress(progress, bars)
            found: RefreshReport = await self._job(RefreshReport, "/refresh", body, told)
        return found

    async def _job(self, kind: Any, path: str, body: Named, progress: Progress | None) -> Any:
        """The result of a job, as this type. Raises what it failed with."""
        job = await self._to.send(dict[str, Any], path, body)
        where = f"/jobs/{in_path('the id of a job', job.get('id'))}"
        wait_s, told = _POLL_S, None
        while job["ended"] is None:
            now = (job["step"], job["done"], job["total"])
            if progress is not None and job["step"] and now != told:
                progress(*now)
                told = now
            await asyncio.sleep(wait_s)
            wait_s = min(_MOST_POLL_S, wait_s * 1.3)
            job = await self._to.get(dict[str, Any], where)
        if job["state"] == "done":
            return decoded(kind, job["result"])
        if job["state"] == "cancelled":
            raise ServiceError(f"job {job['id']} was cancelled; begin it again")
        error = job["error"] or {}
        raise error_named(error.get("type", "Failed"), error.get("message", "it has no message"))

    async def versions(self) -> list[VersionInfo]:
        """The index versions on disk, the newest first, as `Flywheel.versions`."""
        found: list[VersionInfo] = await self._to.get(list[VersionInfo], "/versions")
        return found

    async def explain_version(self, version: str) -> VersionStory:
        """How a version got its parameters, as `Flywheel.explain_version`."""
        path = f"/versions/{in_path('version', version)}"
        found: VersionStory = await self._to.get(VersionStory, path)
        return found

    async def refreshes(self, n: int = 50) -> list[PastRefresh]:
        """The n newest refreshes that ended, the newest first, as `Flywheel.refreshes`."""
        given = {"n": check_whole("n", n)}
        found: list[PastRefresh] = await self._to.get(list[PastRefresh], "/refreshes", given)
        return found

    async def compare(self, before: str, after: str, *, n: int = 100, k: int = 8) -> Comparison:
        """The questions that two versions answer otherwise, as `Flywheel.compare`."""
        given = {
            "before": check_text("before", before),
            "after": check_text("after", after),
            "n": check_whole("n", n),
            "k": check_k(k),
        }
        found: Comparison = await self._to.get(Comparison, "/compare", given)
        return found

    async def rollback(self, version: str | None = None, *, hold: bool = False) -> str:
        """Make a version live again, as `Flywheel.rollback`; returns its id."""
        body = {"version": version, "hold": hold}
        found = await self._to.send(dict[str, str], "/rollback", body)
        return str(found["version"])

    async def release(self) -> bool:
        """End a rollback, as `Flywheel.release`; False when none was held."""
        found = await self._to.send(dict[str, bool], "/release", {})
        return bool(found["released"])

    async def status(self) -> Status:
        """The state of the index in numbers, as `Flywheel.status`."""
        found: Status = await self._to.get(Status, "/status")
        return found

    async def health(self, *, max_age_s: float | None = None) -> Health:
        """Whether the index can be served and is being refreshed, as `Flywheel.health`."""
        given = params_of(max_age_s=as_python(max_age_s))
        found: Health = await self._to.get(Health, "/health", given)
        return found

    async def audit(
        self, *, regions: Sequence[str] = (), passages: bool = False, show: bool = False
    ) -> AuditReport:
        """Look for personal data in every stored text, as `Flywheel.audit`."""
        body = {"regions": items("regions", regions, str), "passages": passages, "show": show}
        found: AuditReport = await self._to.send(AuditReport, "/audit", body)
        return found

    async def dp_counts(
        self,
        what: str = "votes",
        *,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        most_keys: int = 10,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> DpCounts:
        """Differentially private counts of users, as `Flywheel.dp_counts`."""
        body = {
            "what": what,
            "epsilon": as_python(epsilon),
            "delta": as_python(delta),
            "most_keys": as_python(most_keys),
            **tenant_body(tenant, all_tenants),
        }
        found: DpCounts = await self._to.send(DpCounts, "/dp-counts", body)
        return found

    async def history(
        self, n: int = 50, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> list[HistoryEntry]:
        """The n newest events in the history of the index, as `Flywheel.history`."""
        given = {"n": check_whole("n", n), **tenant_query(tenant, all_tenants)}
        found: list[HistoryEntry] = await self._to.get(list[HistoryEntry], "/history", given)
        return found

    async def verify(self) -> list[str]:
        """The problems of the folder, one sentence each, as `Flywheel.verify`."""
        found = await self._to.send(dict[str, list[str]], "/verify", {})
        return list(found["problems"])
