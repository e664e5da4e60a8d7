"""Chains and agents of LangChain: what they retrieve takes votes by the id of their root run."""

import asyncio
import copy
import datetime
import pickle
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

pytest.importorskip("langchain_core", reason="langchain-core is not installed")
pytest.importorskip("langchain_classic", reason="langchain-classic is not installed")
pytest.importorskip("langgraph", reason="langgraph is not installed")

from langchain_classic.retrievers import (
    ContextualCompressionRetriever,
    EnsembleRetriever,
    MultiQueryRetriever,
)
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.structured_query import Comparator, Comparison, Operation, Operator
from langchain_core.tools import create_retriever_tool
from langchain_core.tracers.context import collect_runs

from rag_flywheel import Flywheel
from rag_flywheel.client import AsyncClient
from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.integrations.langchain import (
    FlywheelCallbackHandler,
    FlywheelReranker,
    FlywheelRetriever,
    FrameworkEncoder,
)

QUERY = "password"
Config = dict[str, Any]


def chain_of(retriever: Any) -> Runnable[str, str]:
    """Retrieve, then answer by a model that says what it was told."""
    prompt = ChatPromptTemplate.from_template("{context} {question}")
    model = FakeListChatModel(responses=["Press reset."])
    return (
        {"context": retriever | _texts, "question": RunnablePassthrough()}
        | prompt
        | model
        | StrOutputParser()
    )


def _texts(documents: list[Document]) -> str:
    return "\n".join(each.page_content for each in documents)


def invoke(chain: Runnable[str, str], config: Config) -> None:
    assert chain.invoke(QUERY, config) == "Press reset."


def stream(chain: Runnable[str, str], config: Config) -> None:
    assert "".join(chain.stream(QUERY, config)) == "Press reset."


def batch(chain: Runnable[str, str], config: Config) -> None:
    other = {**config, "run_id": uuid4()}
    assert chain.batch([QUERY, "cats"], [config, other]) == ["Press reset."] * 2


def ainvoke(chain: Runnable[str, str], config: Config) -> None:
    assert asyncio.run(chain.ainvoke(QUERY, config)) == "Press reset."


def astream(chain: Runnable[str, str], config: Config) -> None:
    async def run() -> str:
        return "".join([part async for part in chain.astream(QUERY, config)])

    assert asyncio.run(run()) == "Press reset."


def abatch(chain: Runnable[str, str], config: Config) -> None:
    other = {**config, "run_id": uuid4()}
    assert asyncio.run(chain.abatch([QUERY, "cats"], [config, other])) == ["Press reset."] * 2


def astream_events(chain: Runnable[str, str], config: Config) -> None:
    async def run() -> int:
        return len([event async for event in chain.astream_events(QUERY, config, version="v2")])

    assert asyncio.run(run())


WAYS = [invoke, stream, batch, ainvoke, astream, abatch, astream_events]


@pytest.mark.parametrize("way", WAYS)
def test_votes_by_the_root_run_change_the_next_answer(
    index: Any, way: Callable[[Runnable[str, str], Config], None]
) -> None:
    chain = chain_of(FlywheelRetriever(flywheel=index, k=3))
    handler = FlywheelCallbackHandler()
    shown = index.retrieve(QUERY, 3, record=False).hits
    last = shown[-1].passage_id
    for user in ("ann", "bob", "cid", "dan"):
        run = uuid4()
        way(chain, {"run_id": run, "callbacks": [handler], "metadata": {"user_id": user}})
        assert index.feedback(run=str(run), passage_id=last, verdict="helpful", user_id=user)
        assert index.answer_feedback(run=str(run), verdict="harmful", cited=[shown[0].passage_id])
    assert index.retrieve(QUERY, 3).hits[0].passage_id == last
    assert not handler._roots


def test_five_lines_to_a_vote(desk: Flywheel) -> None:
    retriever = FlywheelRetriever(flywheel=desk, k=2)
    documents = retriever.invoke(QUERY, {"metadata": {"user_id": "ann"}})
    first = documents[0]
    desk.feedback(first.metadata["retrieval_id"], first.id, "helpful", user_id="ann")
    (vote,) = desk.votes()
    assert (vote.passage_id, vote.user) == (first.id, desk.hashed_user("ann"))


def test_documents_carry_what_a_vote_and_a_threshold_need(desk: Flywheel) -> None:
    found = desk.retrieve(QUERY, 3, record=False)
    documents = FlywheelRetriever(flywheel=desk, k=3).invoke(QUERY)
    recorded = desk.retrievals(1)[0]
    assert [d.id for d in documents] == [h.passage_id for h in found.hits]
    assert [d.metadata for d in documents] == [
        {
            **({"title": hit.title} if hit.title else {}),
            **hit.metadata,
            "retrieval_id": recorded.id,
            "passage_id": hit.passage_id,
            "rank": hit.rank,
            "relevance_score": hit.relevance,
        }
        for hit in found.hits
    ]
    assert all(0 <= d.metadata["relevance_score"] <= 1 for d in documents)


@pytest.mark.parametrize("session", ["session_id", "thread_id", "conversation_id"])
def test_the_user_and_the_session_come_from_the_metadata_of_the_config(
    desk: Flywheel, session: str
) -> None:
    retriever = FlywheelRetriever(flywheel=desk)
    desk.retrieve(QUERY, user_id="7", session_id="s")
    chain_of(retriever).invoke(QUERY, {"metadata": {"user_id": 7, session: "s"}})
    retriever.invoke(QUERY, user_id="7", session_id="s")
    ContextualCompressionRetriever(
        base_compressor=FlywheelReranker(flywheel=desk), base_retriever=retriever
    ).invoke(QUERY, {"metadata": {"user_id": 7, session: "s"}})
    every = desk.retrievals()
    assert [each.kind for each in every] == ["rerank"] + ["retrieve"] * 4
    assert {(each.user, each.session) for each in every} == {(every[0].user, every[0].session)}
    assert None not in (every[0].user, every[0].session)


def test_the_root_is_known_without_a_handler_where_a_tracer_is_on(desk: Flywheel) -> None:
    with collect_runs() as traced:
        chain_of(FlywheelRetriever(flywheel=desk)).invoke(QUERY)
    root: UUID = traced.traced_runs[0].id
    assert desk.feedback(run=str(root), passage_id="reset", verdict="helpful")


def test_a_run_of_the_application_s_own_may_be_named_in_the_metadata(index: Any) -> None:
    chain = chain_of(FlywheelRetriever(flywheel=index))
    root = uuid4()
    config = {"metadata": {"run_id": "mine"}, "run_id": root}
    chain.invoke(QUERY, {**config, "callbacks": [FlywheelCallbackHandler()]})
    for run in ("mine", str(root)):
        assert index.feedback(run=run, passage_id="reset", verdict="helpful", user_id=run)


def invoke_retriever(retriever: Any, config: Config) -> None:
    assert retriever.invoke(QUERY, config)


def ainvoke_retriever(retriever: Any, config: Config) -> None:
    assert asyncio.run(retriever.ainvoke(QUERY, config))


def test_without_handler_and_tracer_the_retriever_s_own_run_is_known(desk: Flywheel) -> None:
    run = uuid4()
    FlywheelRetriever(flywheel=desk).invoke(QUERY, run_id=run)
    assert desk.missing(run=str(run), note="not there")
    for ask in (invoke_retriever, ainvoke_retriever):
        own = uuid4()
        ask(FlywheelRetriever(flywheel=desk).with_config(run_name="x"), {"run_id": own})
        assert desk.missing(run=str(own), note="not there")
    other = uuid4()
    chain_of(FlywheelRetriever(flywheel=desk)).invoke(QUERY, {"run_id": other})
    with pytest.raises(UnknownIdError, match=str(other)):
        desk.missing(run=str(other))


def test_an_error_or_an_abandoned_stream_leaves_nothing_in_the_handler(desk: Flywheel) -> None:
    handler = FlywheelCallbackHandler()

    def fail(_: object) -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        (FlywheelRetriever(flywheel=desk) | fail).invoke(QUERY, {"callbacks": [handler]})
    with pytest.raises(InputError):
        chain_of(FlywheelRetriever(flywheel=desk)).invoke(" ", {"callbacks": [handler]})
    stream = chain_of(FlywheelRetriever(flywheel=desk)).stream(QUERY, {"callbacks": [handler]})
    next(stream)
    stream.close()
    assert not handler._roots


def test_several_retrievers_in_one_chain_are_one_run(desk: Flywheel) -> None:
    ensemble = EnsembleRetriever(
        retrievers=[
            FlywheelRetriever(flywheel=desk, k=1, where={"lang": "en"}),
            FlywheelRetriever(flywheel=desk, k=1, filter={"lang": "de"}),
        ]
    )
    run = uuid4()
    config = {"run_id": run, "callbacks": [FlywheelCallbackHandler()]}
    documents = (RunnablePassthrough() | ensemble).invoke(QUERY, config)
    assert len({d.metadata["retrieval_id"] for d in documents}) == 2
    for document in documents:
        desk.feedback(run=str(run), passage_id=document.id or "", verdict="helpful")
    voted = {(v.retrieval_id, v.passage_id) for v in desk.votes()}
    assert voted == {(d.metadata["retrieval_id"], d.id) for d in documents}
    assert desk.answer_feedback(run=str(run), verdict="helpful", user_id="ann")
    assert len([v for v in desk.votes() if v.kind == "answer"]) == 2


class ToolModel(GenericFakeChatModel):
    """Calls the tool, then answers."""

    def bind_tools(self, tools: Any, **_: Any) -> "ToolModel":
        return self


@pytest.mark.filterwarnings("ignore")  # of langgraph, that its agent moves to another package
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_agent_s_tool_is_of_the_agent_s_run(desk: Flywheel, asynchronous: bool) -> None:
    from langgraph.prebuilt import create_react_agent

    tool = create_retriever_tool(FlywheelRetriever(flywheel=desk), "search", "Searches the desk.")
    call = ToolCall(name="search", args={"query": QUERY}, id="1")
    model = ToolModel(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("Press reset.")]))
    agent = create_react_agent(model, [tool])
    run, ask = uuid4(), {"messages": [("user", "I forgot it")]}
    config: Any = {
        "run_id": run,
        "callbacks": [FlywheelCallbackHandler()],
        "configurable": {"thread_id": "t"},
        "metadata": {"user_id": "ann"},
    }
    said = asyncio.run(agent.ainvoke(ask, config)) if asynchronous else agent.invoke(ask, config)
    assert said["messages"][-1].content == "Press reset."
    assert desk.answer_feedback(run=str(run), verdict="helpful", answer="press reset")
    assert desk.retrievals(1)[0].user == desk.hashed_user("ann")
    assert desk.retrievals(1)[0].session is not None


class Own(BaseRetriever):
    """An application's own retriever."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return self.documents


def reranking(index: Any, documents: list[Document], **more: Any) -> ContextualCompressionRetriever:
    return ContextualCompressionRetriever(
        base_compressor=FlywheelReranker(flywheel=index, **more),
        base_retriever=Own(documents=documents),
    )


def test_votes_on_reranked_documents_change_the_next_order(index: Any) -> None:
    given = [
        Document("a mail for a password", id="m", metadata={"source": "x"}),
        Document("reset the password", id="r", metadata={"source": "y", "page": 3}),
        Document("dogs and a password", id="d"),
    ]
    retriever = reranking(index, given, top_n=2)
    for user in ("ann", "bob", "cid"):
        run = uuid4()
        config = {"run_id": run, "callbacks": [FlywheelCallbackHandler()]}
        documents = (RunnablePassthrough() | retriever).invoke(QUERY, config)
        if user == "ann":
            assert [d.id for d in documents] == ["m", "r"]
            assert documents[1].metadata.items() >= {"source": "y", "page": 3, "rank": 2}.items()
        index.feedback(run=str(run), passage_id="r", verdict="helpful", user_id=user)
        index.feedback(run=str(run), passage_id="m", verdict="harmful", user_id=user)
    assert retriever.invoke(QUERY)[0].id == "r"
    assert asyncio.run(retriever.ainvoke(QUERY))[0].id == "r"
    assert [d.metadata for d in given] == [{"source": "x"}, {"source": "y", "page": 3}, {}]


def test_documents_of_all_kinds_are_reranked(desk: Flywheel) -> None:
    odd = {
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "vector": np.arange(3),
        "matrix": np.eye(2),
        "object": object(),
        "nan": float("nan"),
    }
    given = [
        Document("first password", metadata=odd),
        Document("second password"),
        Document("second password"),
        Document("   "),
        Document("third password", id="same"),
        Document("fourth password", id="same"),
        Document("fourth password", id="same"),
        Document("fifth password", id=" "),
    ]
    documents = list(reranking(desk, given).invoke(QUERY))
    names = [d.metadata["passage_id"] for d in documents]
    texts = "first", "second", "third", "fourth", "fifth"
    assert [d.page_content for d in documents] == [f"{each} password" for each in texts]
    assert len(set(names)) == 5
    assert names[2].startswith("same#") and documents[2].id == "same"
    assert all(d.id for d in documents)
    assert all(documents[0].metadata[key] is value for key, value in odd.items())
    for name in names:
        assert desk.feedback(documents[0].metadata["retrieval_id"], name, "helpful")
    again = list(reranking(desk, list(reversed(given))).invoke(QUERY))
    assert {d.metadata["passage_id"] for d in again} == set(names)


def test_scores_count_where_they_fall_with_the_order(desk: Flywheel) -> None:
    def scored(*scores: Any) -> list[float]:
        given = [
            Document(f"{i} password", id=str(i), metadata={} if s is None else {"score": s})
            for i, s in enumerate(scores)
        ]
        assert [d.id for d in reranking(desk, given).invoke(QUERY)] == [d.id for d in given]
        return [hit.score for hit in desk.retrieval(desk.retrievals(1)[0].id).hits]

    ranks = scored(None, None, None)
    none = ((0.1, 0.2, 0.3), (9.0, None, 1.0), (float("nan"),) * 3, (2.0, 2.0, 2.0), tuple("abc"))
    for other in none:
        assert scored(*other) == pytest.approx(ranks)
    assert scored(9.0, 8.9, 0.0) != pytest.approx(ranks)


def test_no_documents_and_an_empty_index(desk: Flywheel, empty: Flywheel) -> None:
    assert FlywheelRetriever(flywheel=empty).invoke(QUERY) == []
    assert reranking(desk, []).invoke(QUERY) == []
    assert reranking(desk, [Document(" ")]).invoke(QUERY) == []
    assert [d.id for d in reranking(empty, [Document("password", id="a")]).invoke(QUERY)] == ["a"]


def test_answers_that_are_reranked_again_keep_their_passages(desk: Flywheel) -> None:
    retriever = FlywheelRetriever(flywheel=desk, k=3)
    again = ContextualCompressionRetriever(
        base_compressor=FlywheelReranker(flywheel=desk), base_retriever=retriever
    )
    plain, reranked = retriever.invoke(QUERY), again.invoke(QUERY)
    assert [d.id for d in reranked] == [d.id for d in plain]
    assert {d.metadata["retrieval_id"] for d in reranked}.isdisjoint(
        d.metadata["retrieval_id"] for d in plain
    )
    desk.add_documents(plain)
    assert set(desk.metadata_keys()) == {"lang", "year", "title"}


FILTERS: dict[str, tuple[Any, set[str]]] = {
    "equal": ({"lang": "de"}, {"dogs", "cats"}),
    "operators": ({"year": {"$gte": 2020, "$lt": 2024}}, {"mail"}),
    "or": ({"$or": [{"year": 2024}, {"lang": {"$in": ["de"]}}]}, {"reset", "dogs", "cats"}),
    "comparison": (Comparison(Comparator.GT, "year", 2020), {"reset"}),
    "operation": (
        Operation(
            Operator.AND,
            [
                Comparison(Comparator.EQ, "lang", "en"),
                Operation(Operator.NOT, [Comparison(Comparator.EQ, "year", 2024)]),
            ],
        ),
        {"mail"},
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_translated(index: Any, name: str) -> None:
    given, expected = FILTERS[name]
    fixed = FlywheelRetriever(flywheel=index, filter=given)
    assert {d.id for d in fixed.invoke(QUERY)} == expected
    assert {d.id for d in FlywheelRetriever(flywheel=index).invoke(QUERY, filter=given)} == expected
    both = FlywheelRetriever(flywheel=index, where={"lang": "en"}).invoke(QUERY, filter=given)
    assert {d.id for d in both} == expected & {"reset", "mail"}


def test_hundred_threads_share_a_chain(desk: Flywheel) -> None:
    chain, handler = chain_of(FlywheelRetriever(flywheel=desk)), FlywheelCallbackHandler()
    runs = [uuid4() for _ in range(200)]

    def ask(run: UUID) -> bool:
        chain.invoke(QUERY, {"run_id": run, "callbacks": [handler]})
        return desk.feedback(run=str(run), passage_id="reset", verdict="helpful", user_id=str(run))

    with ThreadPoolExecutor(100) as pool:
        assert all(pool.map(ask, runs))
    assert len({v.retrieval_id for v in desk.votes(500)}) == len(runs)
    assert not handler._roots


def test_copies_share_the_index_and_pickles_are_refused(desk: Flywheel) -> None:
    for each in (FlywheelRetriever(flywheel=desk), FlywheelReranker(flywheel=desk)):
        for other in (copy.copy(each), copy.deepcopy(each), each.model_copy(deep=True)):
            assert other.flywheel is desk
        with pytest.raises(TypeError, match="holds an open index"):
            pickle.dumps(each)
    handler = FlywheelCallbackHandler()
    assert copy.deepcopy(handler) is handler


def test_documents_are_added_as_to_a_vector_store(index: Any) -> None:
    retriever = FlywheelRetriever(flywheel=index, k=1)
    given = [
        Document("bananas are yellow", metadata={"source": "fruit.md"}),
        Document("plums", id="p"),
    ]
    (made, named) = retriever.add_documents(given)
    assert made.startswith("fruit.md#") and named == "p"
    assert [d.id for d in retriever.invoke("bananas yellow")] == [made]
    assert retriever.add_documents(given) == [made, named]
    with pytest.raises(InputError, match="document 2 has the id 'p' of an earlier one"):
        retriever.add_documents([Document("one", id="p"), Document("two", id="p")])


def test_embeddings_are_an_encoder(tmp_path: Any) -> None:
    encoder = FrameworkEncoder(DeterministicFakeEmbedding(size=12))
    assert (encoder.name, encoder.revision, encoder.dim) == ("DeterministicFakeEmbedding", "1", 12)
    rows = encoder.encode_passages(["a", "b"])
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1])
    assert encoder.encode_passages([]).shape == (0, 12)
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        fw.add_documents([Document("press reset", id="reset"), Document("cats", id="cats")])
        assert fw.retrieve("press reset").hits[0].passage_id == "reset"
    other = FrameworkEncoder(DeterministicFakeEmbedding(size=12), revision="2")
    with (
        Flywheel.open(tmp_path / "kb", encoder=other) as fw,
        pytest.raises(Exception, match="revision"),
    ):
        fw.add_documents([Document("more")])


def test_a_tenant_s_retriever_shows_its_own(tmp_path: Any) -> None:
    from fakes import WordEncoder
    from rag_flywheel import Config as Settings
    from rag_flywheel import Passage

    settings = Settings(encoder="", tenant_key="team")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=settings) as fw:
        for team in "ab":
            fw.add([Passage(team, "reset the password", metadata={"team": team})])
        run = uuid4()
        found = FlywheelRetriever(flywheel=fw, tenant="a").invoke(QUERY, run_id=run)
        assert [d.id for d in found] == ["a"]
        assert [d.id for d in FlywheelRetriever(flywheel=fw).invoke(QUERY, tenant="b")] == ["b"]
        with pytest.raises(UnknownIdError):
            fw.feedback(run=str(run), passage_id="a", verdict="helpful", tenant="b")
        assert fw.feedback(run=str(run), passage_id="a", verdict="helpful", tenant="a")
        with pytest.raises(InputError, match="no tenant is named"):
            FlywheelRetriever(flywheel=fw).invoke(QUERY)


@pytest.mark.parametrize("kind", [FlywheelRetriever, FlywheelReranker])
@pytest.mark.parametrize("index", ["indexes/kb", None, AsyncClient("http://127.0.0.1:1")])
def test_what_is_no_open_index_is_refused(kind: Any, index: Any) -> None:
    with pytest.raises(ValueError, match="expected an open Flywheel, or a Client"):
        kind(flywheel=index)


def test_copies_that_several_questions_find_are_left_out_behind_a_reranker(desk: Flywheel) -> None:
    model = FakeListChatModel(responses=["a password\nthe password"])
    several = MultiQueryRetriever.from_llm(FlywheelRetriever(flywheel=desk, k=2), llm=model)
    reranking = ContextualCompressionRetriever(
        base_compressor=FlywheelReranker(flywheel=desk), base_retriever=several
    )
    config = {"metadata": {"run_id": "several", "user_id": "ann", "session_id": "s"}}
    found = reranking.invoke(QUERY, config)
    assert len({d.id for d in found}) == len(found)
    assert desk.answer_feedback(run="several", verdict="helpful")
    assert len(desk.votes()) == len(desk.retrievals()) == 3


@pytest.mark.parametrize("callbacks", [[], [FlywheelCallbackHandler()]])
def test_questions_that_a_chain_makes_of_one_are_not_rephrased_by_the_user(
    desk: Flywheel, callbacks: list[Any]
) -> None:
    model = FakeListChatModel(responses=["a new password\nthe new password"])
    several = MultiQueryRetriever.from_llm(FlywheelRetriever(flywheel=desk, k=2), llm=model)
    config = {"metadata": {"user_id": "ann", "session_id": "s"}, "callbacks": callbacks}
    (RunnablePassthrough() | several).invoke("new password", config)
    assert len(desk.retrievals()) == 2 and desk.votes() == []
    FlywheelRetriever(flywheel=desk).invoke("new password please", config)
    assert [vote.kind for vote in desk.votes()] == ["rephrased"]


def test_a_lambda_may_retrieve_by_itself(desk: Flywheel) -> None:
    """What a function of the application retrieves belongs to the run that it names."""
    run = str(uuid4())
    search = RunnableLambda(lambda query: desk.retrieve(query, run_id=run).hits[0].text)
    assert search.invoke(QUERY)
    assert desk.answer_feedback(run=run, verdict="helpful")


def test_a_lock_that_another_program_holds_delays_no_answer_of_several_runs(desk: Flywheel) -> None:
    """The record of the answer is written later, with all of its runs, and votes find them."""
    root, run, handler = uuid4(), str(uuid4()), FlywheelCallbackHandler()
    config = {
        "run_id": root,
        "callbacks": [handler],
        "metadata": {"run_id": [run, "mine"], "user_id": "ann", "session_id": "s"},
    }
    retriever = FlywheelRetriever(flywheel=desk, k=2)
    reranking = ContextualCompressionRetriever(
        base_compressor=FlywheelReranker(flywheel=desk), base_retriever=retriever
    )
    retriever.invoke(QUERY)
    with closing(sqlite3.connect(desk._root / "flywheel.db", check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert len((RunnablePassthrough() | retriever).invoke(QUERY, config)) == 2
        assert len((RunnablePassthrough() | reranking).invoke(QUERY, config)) == 2
        took = time.monotonic() - began
        assert len(desk._postponed) == 3
        other.rollback()
    assert (
        took < 3 * desk.config.record_wait_s + 1.0
    )  # beside 60 s for a write that is not postponed
    for each in (str(root), run, "mine"):
        assert desk.answer_feedback(run=each, verdict="helpful", user_id=each)
    assert len(desk.votes()) == 9
