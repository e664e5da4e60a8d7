"""Query engines of LlamaIndex: their responses take votes, and prompts hold none of our ids."""

import asyncio
import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")

from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.instrumentation.dispatcher import instrument_tags
from llama_index.core.llms import ChatMessage, ChatResponse, MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from rag_flywheel import Flywheel
from rag_flywheel.errors import InputError
from rag_flywheel.integrations.llama_index import (
    FlywheelReranker,
    FlywheelRetriever,
    FrameworkEncoder,
)

QUERY = "password"


def query(engine: RetrieverQueryEngine) -> Any:
    return engine.query(QUERY)


def aquery(engine: RetrieverQueryEngine) -> Any:
    return asyncio.run(engine.aquery(QUERY))


def engine_of(retriever: Any, **more: Any) -> RetrieverQueryEngine:
    return RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), **more)


def streamed(engine: RetrieverQueryEngine) -> Any:
    engine = engine_of(engine.retriever, streaming=True)
    response = engine.query(QUERY)
    assert "".join(response.response_gen)
    return response


@pytest.mark.parametrize("ask", [query, aquery, streamed])
def test_votes_on_a_response_change_the_next_one(
    index: Any, ask: Callable[[RetrieverQueryEngine], Any]
) -> None:
    engine = engine_of(FlywheelRetriever(index, k=3))
    first = ask(engine).source_nodes
    for user in ("ann", "bob", "cid", "dan"):
        with instrument_tags({"user_id": user, "session_id": "s", "run_id": f"run of {user}"}):
            response = ask(engine)
        retrieval = response.source_nodes[0].metadata["retrieval_id"]
        assert index.feedback(retrieval, first[-1].node_id, "helpful", user_id=user)
        assert index.answer_feedback(run=f"run of {user}", verdict="helpful", answer=str(response))
    assert ask(engine).source_nodes[0].node_id == first[-1].node_id
    assert index.retrievals(2)[1].user is not None and index.retrievals(2)[1].session is not None


SAID = (
    'Thought: I need a tool.\nAction: desk\nAction Input: {"input": "password"}',
    "Thought: I can answer without using any more tools.\nAnswer: Press reset.",
)


class Scripted(MockLLM):
    """Calls the tool, then answers."""

    n_said: int = 0

    async def astream_chat(self, messages: Any, **_: Any) -> Any:
        text = SAID[self.n_said]
        self.n_said += 1

        async def parts() -> Any:
            message = ChatMessage(role="assistant", content=text)
            yield ChatResponse(message=message, delta=text)

        return parts()


@pytest.mark.filterwarnings("ignore")  # of LlamaIndex's own code
def test_an_agent_s_tool_is_of_the_run_that_the_application_names(desk: Flywheel) -> None:
    tool = QueryEngineTool.from_defaults(
        engine_of(FlywheelRetriever(desk)), name="desk", description="Answers of the desk."
    )

    async def run() -> str:
        with instrument_tags({"user_id": "ann", "run_id": ["agent", 7, " ", None]}):
            return str(await ReActAgent(tools=[tool], llm=Scripted()).run("I forgot it"))

    assert asyncio.run(run()) == "Press reset."
    assert desk.answer_feedback(run="agent", verdict="helpful", answer="Press reset.")
    assert desk.retrievals(1)[0].user == desk.hashed_user("ann")


def test_nodes_have_a_score_from_0_to_1_that_falls_and_no_id_in_the_prompt(desk: Flywheel) -> None:
    nodes = FlywheelRetriever(desk, k=4).retrieve(QUERY)
    scores = [node.score or 0.0 for node in nodes]
    assert scores == sorted(scores, reverse=True) and 0 <= min(scores) <= max(scores) <= 1
    found = desk.retrieve(QUERY, 4, record=False).hits
    assert [n.node_id for n in nodes] == [h.passage_id for h in found]
    for node, hit in zip(nodes, found, strict=True):
        assert node.metadata.items() >= {**hit.metadata, "rank": hit.rank}.items()
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            content = node.node.get_content(mode)
            assert hit.text in content
            assert not any(key in content for key in ("retrieval_id", "passage_id", "rank"))
    said = str(engine_of(FlywheelRetriever(desk)).query(QUERY))  # the model repeats its prompt
    assert "press reset" in said and "retrieval_id" not in said


def nodes_of(*texts: str, **metadata: Any) -> list[NodeWithScore]:
    return [
        NodeWithScore(
            node=TextNode(id_=f"n{i}", text=text, metadata=dict(metadata)), score=1 - i / 10
        )
        for i, text in enumerate(texts)
    ]


def test_votes_on_reranked_nodes_change_the_next_order(index: Any) -> None:
    given = nodes_of("a mail for a password", "reset the password", "dogs", page=3, x=np.float32(1))
    given[0].node.excluded_llm_metadata_keys = ["page"]
    reranker = FlywheelReranker(flywheel=index, top_n=2)
    for user in ("ann", "bob", "cid"):
        ranked = reranker.postprocess_nodes(given, query_str=QUERY)
        if user == "ann":
            assert [n.node_id for n in ranked] == ["n0", "n1"]
            assert ranked[0].node.excluded_llm_metadata_keys[0] == "page"
            assert "retrieval_id" in ranked[0].node.excluded_llm_metadata_keys
        retrieval = ranked[0].metadata["retrieval_id"]
        index.relevance(retrieval, {"n0": False, "n1": True}, user_id=user)
    assert reranker.postprocess_nodes(given, query_str=QUERY)[0].node_id == "n1"
    assert asyncio.run(reranker.apostprocess_nodes(given, query_str=QUERY))[0].node_id == "n1"
    assert all(set(each.metadata) == {"page", "x"} for each in given)


def test_other_postprocessors_stand_before_and_after(desk: Flywheel) -> None:
    engine = engine_of(
        FlywheelRetriever(desk, k=4),
        node_postprocessors=[
            FlywheelReranker(flywheel=desk, top_n=3),
            SimilarityPostprocessor(similarity_cutoff=0.01),
        ],
    )
    response = engine.query(QUERY)
    retrieval = {node.metadata["retrieval_id"] for node in response.source_nodes}
    assert len(retrieval) == 1
    assert desk.retrieval(retrieval.pop()).kind == "rerank"


def test_a_fusion_of_retrievers_keeps_our_order(desk: Flywheel) -> None:
    retrievers = [FlywheelRetriever(desk, k=2), FlywheelRetriever(desk, k=4)]
    fused = QueryFusionRetriever(
        retrievers,
        llm=MockLLM(),
        num_queries=1,
        mode="reciprocal_rerank",
        similarity_top_k=9,
        use_async=False,
    )
    best = [hit.passage_id for hit in desk.retrieve(QUERY, 4, record=False).hits]
    assert [n.node_id for n in fused.retrieve(QUERY)] == best


def test_nothing_to_rerank_and_no_query(desk: Flywheel, empty: Flywheel) -> None:
    reranker = FlywheelReranker(flywheel=desk)
    assert reranker.postprocess_nodes([], query_str=QUERY) == []
    assert reranker.postprocess_nodes(nodes_of(" "), query_str=QUERY) == []
    assert FlywheelRetriever(empty).retrieve(QUERY) == []
    with pytest.raises(InputError, match="found no query"):
        reranker.postprocess_nodes(nodes_of("a"))


def test_nodes_of_a_vector_index_are_added_and_found_again(desk: Flywheel) -> None:
    documents = [Document(text="bananas are yellow. " * 30, metadata={"file_path": "fruit.md"})]
    splitter = SentenceSplitter(chunk_size=64, chunk_overlap=0)
    retriever = FlywheelRetriever(desk, k=1)
    added = retriever.add_nodes(splitter.get_nodes_from_documents(documents), ids="content")
    assert len(added) > 1 and all(each.startswith("fruit.md#") for each in added)
    again = retriever.add_nodes(splitter.get_nodes_from_documents(documents), ids="content")
    assert again == added
    assert retriever.retrieve("bananas yellow")[0].node_id in added
    index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(embed_dim=4))
    found = index.as_retriever().retrieve(QUERY)
    ranked = FlywheelReranker(flywheel=desk).postprocess_nodes(found, query_str=QUERY)
    assert {n.node_id for n in ranked} == {n.node_id for n in found}


def of(key: str, value: Any, operator: FilterOperator = FilterOperator.EQ) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=operator)


FILTERS: dict[str, tuple[MetadataFilters, set[str]]] = {
    "and": (MetadataFilters(filters=[of("lang", "en"), of("year", 2020, FilterOperator.GT)]), {"reset"}),
    "or": (
        MetadataFilters(
            filters=[of("year", [2020], FilterOperator.IN), of("lang", "de")],
            condition=FilterCondition.OR,
        ),
        {"mail", "dogs", "cats"},
    ),
    "not": (
        MetadataFilters(
            filters=[MetadataFilters(filters=[of("lang", "en")], condition=FilterCondition.NOT)]
        ),
        {"dogs", "cats"},
    ),
    "empty": (MetadataFilters(filters=[of("year", None, FilterOperator.IS_EMPTY)]), {"dogs", "cats"}),
    "none": (MetadataFilters(filters=[]), {"reset", "mail", "dogs", "cats"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_translated(index: Any, name: str) -> None:
    filters, expected = FILTERS[name]
    found = FlywheelRetriever(index, filters=filters).retrieve(QUERY)
    assert {node.node_id for node in found} == expected


def test_a_filter_without_a_counterpart_is_refused(desk: Flywheel) -> None:
    filters = MetadataFilters(filters=[of("lang", "e", FilterOperator.TEXT_MATCH)])
    with pytest.raises(InputError, match="operator 'text_match', which filter expressions lack"):
        FlywheelRetriever(desk, filters=filters)


def test_hundred_threads_share_an_engine(desk: Flywheel) -> None:
    engine = engine_of(FlywheelRetriever(desk, k=2))

    def ask(i: int) -> bool:
        with instrument_tags({"user_id": f"u{i}", "run_id": f"r{i}"}):
            engine.query(QUERY)
        return desk.answer_feedback(run=f"r{i}", verdict="helpful", user_id=f"u{i}")

    with ThreadPoolExecutor(100) as pool:
        assert all(pool.map(ask, range(100)))
    assert len({vote.retrieval_id for vote in desk.votes(200)}) == 100


def test_copies_share_the_index_and_pickles_are_refused(desk: Flywheel) -> None:
    for each in (FlywheelRetriever(desk), FlywheelReranker(flywheel=desk)):
        for other in (copy.copy(each), copy.deepcopy(each)):
            assert other is not each and other.flywheel is desk
        with pytest.raises(TypeError, match="holds an open index"):
            pickle.dumps(each)
    assert "flywheel" not in FlywheelReranker(flywheel=desk).to_dict()


def test_an_embedding_model_is_an_encoder(tmp_path: Any) -> None:
    encoder = FrameworkEncoder(MockEmbedding(embed_dim=5))
    assert (encoder.name, encoder.dim) == ("MockEmbedding:unknown", 5)
    assert np.linalg.norm(encoder.encode_queries(["a"]), axis=1) == pytest.approx([1])
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        fw.add_documents([Document(text="press reset", doc_id="reset")])
        assert fw.retrieve("reset").hits[0].passage_id == "reset"
