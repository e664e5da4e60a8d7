"""Pipelines of Haystack: they take votes, and survive being written as YAML and read by another process."""

import asyncio
import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("haystack", reason="haystack-ai is not installed")

from haystack import Document, Pipeline, component
from haystack.components.builders import PromptBuilder
from haystack.components.joiners import DocumentJoiner
from haystack.components.rankers import LostInTheMiddleRanker
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import FilterPolicy

from haystack_integrations.components.rankers.rag_flywheel import FlywheelRanker
from haystack_integrations.components.retrievers.rag_flywheel import FlywheelRetriever
from rag_flywheel import Flywheel
from rag_flywheel.errors import ClosedError, InputError, NotAFlywheelError

QUERY = "password"
SUPPORT = Path(__file__).parents[1] / "support"


@component
class Model:
    """Says what it was told."""

    @component.output_types(replies=list[str])
    def run(self, prompt: str) -> dict[str, list[str]]:
        return {"replies": [prompt]}


def pipeline_on(index: Any, *, k: int = 3) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("retriever", FlywheelRetriever(index, top_k=k))
    pipeline.add_component(
        "prompt", PromptBuilder("{% for d in documents %}{{d.content}}\n{% endfor %}")
    )
    pipeline.add_component("model", Model())
    pipeline.connect("retriever.documents", "prompt.documents")
    pipeline.connect("prompt", "model")
    return pipeline


def ask(pipeline: Pipeline, **more: Any) -> Any:
    return pipeline.run({"retriever": {"query": QUERY, **more}}, include_outputs_from={"retriever"})


def ask_async(pipeline: Pipeline, **more: Any) -> Any:
    return asyncio.run(
        pipeline.run_async(
            {"retriever": {"query": QUERY, **more}}, include_outputs_from={"retriever"}
        )
    )


@pytest.mark.parametrize("way", [ask, ask_async])
def test_votes_on_a_pipeline_s_output_change_the_next_one(index: Any, way: Any) -> None:
    pipeline = pipeline_on(index)
    last = way(pipeline)["retriever"]["documents"][-1].id
    for user in ("ann", "bob", "cid", "dan"):
        found = way(pipeline, user_id=user, session_id="s", run_id=[f"run of {user}", "all"])
        assert index.feedback(found["retriever"]["retrieval_id"], last, "helpful", user_id=user)
        answer = found["model"]["replies"][0]
        assert index.answer_feedback(run=f"run of {user}", verdict="helpful", answer=answer)
    assert index.feedback(run="all", passage_id=last, verdict="helpful", user_id="eve")
    found = way(pipeline)
    assert found["retriever"]["documents"][0].id == last
    assert found["model"]["replies"][0].startswith(found["retriever"]["documents"][0].content)


def test_a_pipeline_is_written_read_and_run_without_ceremony(
    desk: Flywheel, tmp_path: Path
) -> None:
    pipeline = Pipeline()
    folder = str(tmp_path / "kb")
    filters = {"field": "meta.lang", "operator": "==", "value": "en"}
    retriever = FlywheelRetriever(folder, top_k=3, filters=filters, min_relevance=0.0)
    pipeline.add_component("retriever", retriever)
    pipeline.add_component("ranker", FlywheelRanker(folder, top_k=2, tenant=None))
    pipeline.connect("retriever.documents", "ranker.documents")
    text = pipeline.dumps()
    assert "haystack_integrations.components.retrievers.rag_flywheel.FlywheelRetriever" in text
    again = Pipeline.loads(text)
    assert again.dumps() == text and again.to_dict() == pipeline.to_dict()
    data = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}
    expected = [d.id for d in pipeline.run(data)["ranker"]["documents"]]
    assert set(expected) == {"reset", "mail"}
    assert [d.id for d in again.run(data)["ranker"]["documents"]] == expected
    pipeline.close()
    again.close()
    (tmp_path / "pipeline.yaml").write_text(text)
    program = (
        f"import sys; sys.path.insert(0, {str(SUPPORT)!r}); from haystack import Pipeline; "
        "p = Pipeline.load(open(sys.argv[1])); "
        f"print([d.id for d in p.run({data})['ranker']['documents']]); p.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "pipeline.yaml"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(expected), done.stderr


def test_the_index_is_opened_when_needed_and_closed(tmp_path: Path, desk: Flywheel) -> None:
    retriever = FlywheelRetriever(str(tmp_path / "kb"))
    assert retriever._opened is None
    retriever.warm_up()
    opened = retriever._opened
    retriever.warm_up()
    assert retriever._opened is opened
    retriever.close()
    retriever.close()
    with pytest.raises(ClosedError):
        opened.retrieve(QUERY)
    assert retriever.run(QUERY)["documents"]  # it is opened again
    retriever.close()
    with pytest.raises(NotAFlywheelError):
        FlywheelRetriever(str(tmp_path / "none")).warm_up()
    assert not (tmp_path / "none").exists()
    given = FlywheelRetriever(desk)
    given.close()
    assert given.run(QUERY)["documents"]  # it is not the component's to close


def test_a_service_is_an_address(desk: Flywheel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_FLYWHEEL_API_KEY", "fw_secret")
    retriever = FlywheelRetriever("http://127.0.0.1:1", service_index="kb")
    text = str(retriever.to_dict())
    assert "fw_secret" not in text and "RAG_FLYWHEEL_API_KEY" in text
    client = retriever._open()
    assert client._to._headers["Authorization"] == "Bearer fw_secret"
    assert client._to._root == "http://127.0.0.1:1/v1/indexes/kb"
    client.close()


def test_documents_have_a_score_from_0_to_1_that_falls(desk: Flywheel) -> None:
    found = FlywheelRetriever(desk, top_k=4).run(QUERY)
    scores = [document.score for document in found["documents"]]
    assert scores == sorted(scores, reverse=True) and 0 <= min(scores) <= max(scores) <= 1
    hits = desk.retrieval(found["retrieval_id"]).hits
    assert [d.id for d in found["documents"]] == [h.passage_id for h in hits]
    for document, hit in zip(found["documents"], hits, strict=True):
        expected = {"retrieval_id": found["retrieval_id"], "rank": hit.rank}
        assert document.meta.items() >= expected.items()


def test_votes_on_ranked_documents_change_the_next_order(index: Any) -> None:
    store = InMemoryDocumentStore()
    given = [
        Document(content="password password of a mail", meta={"page": 3}),
        Document(content="reset a password"),
        Document(content=None, meta={"image": "x"}),
    ]
    store.write_documents(given)
    pipeline = Pipeline()
    pipeline.add_component("bm25", InMemoryBM25Retriever(store))
    pipeline.add_component("ranker", FlywheelRanker(index, top_k=2))
    pipeline.add_component("last", LostInTheMiddleRanker())
    pipeline.connect("bm25", "ranker.documents")
    pipeline.connect("ranker.documents", "last.documents")
    data = {"bm25": {"query": QUERY}, "ranker": {"query": QUERY}}
    first, second = (d.id for d in pipeline.run(data)["last"]["documents"])
    for user in ("ann", "bob", "cid"):
        retrieval = pipeline.run(data)["ranker"]["retrieval_id"]
        index.relevance(retrieval, {first: False, second: True}, user_id=user)
    documents = pipeline.run(data)["last"]["documents"]
    assert [d.id for d in documents] == [second, first]
    assert [set(d.meta) - {"page"} for d in documents] == [
        {"retrieval_id", "passage_id", "rank"}
    ] * 2
    assert [d.meta for d in given] == [{"page": 3}, {}, {"image": "x"}]


def test_a_joiner_that_sorts_by_scores_keeps_our_order(desk: Flywheel) -> None:
    pipeline = Pipeline()
    for name in ("one", "two"):
        pipeline.add_component(name, FlywheelRetriever(desk, top_k=4))
    pipeline.add_component("joiner", DocumentJoiner(sort_by_score=True))
    pipeline.connect("one.documents", "joiner.documents")
    pipeline.connect("two.documents", "joiner.documents")
    found = pipeline.run({"one": {"query": QUERY}, "two": {"query": QUERY}})["joiner"]["documents"]
    best = [hit.passage_id for hit in desk.retrieve(QUERY, 4, record=False).hits]
    assert [d.id for d in found] == best


EN = {"field": "meta.lang", "operator": "==", "value": "en"}
NEW = {"field": "meta.year", "operator": ">", "value": 2020}
FILTERS: dict[str, tuple[Any, set[str]]] = {
    "condition": (EN, {"reset", "mail"}),
    "without meta.": ({**EN, "field": "lang"}, {"reset", "mail"}),
    "and": ({"operator": "AND", "conditions": [EN, NEW]}, {"reset"}),
    "not": ({"operator": "NOT", "conditions": [EN, NEW]}, {"mail", "dogs", "cats"}),
    "or": (
        {
            "operator": "OR",
            "conditions": [NEW, {"field": "meta.lang", "operator": "in", "value": ["de"]}],
        },
        {"reset", "dogs", "cats"},
    ),
    "none": ({}, {"reset", "mail", "dogs", "cats"}),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_translated(index: Any, name: str) -> None:
    given, expected = FILTERS[name]
    for found in (
        FlywheelRetriever(index, filters=given).run(QUERY),
        FlywheelRetriever(index).run(QUERY, filters=given),
    ):
        assert {d.id for d in found["documents"]} == expected


def test_filters_of_a_call_replace_those_of_the_component_or_join_them(desk: Flywheel) -> None:
    de = {"field": "meta.lang", "operator": "==", "value": "de"}

    def found(policy: FilterPolicy) -> set[str]:
        retriever = FlywheelRetriever(desk, filters=EN, filter_policy=policy)
        return {d.id for d in retriever.run(QUERY, filters=de)["documents"]}

    assert found(FilterPolicy.REPLACE) == {"dogs", "cats"}
    assert found(FilterPolicy.MERGE) == set()
    assert FlywheelRetriever(desk, filter_policy="merge").filter_policy is FilterPolicy.MERGE


@pytest.mark.parametrize(
    "bad",
    [{"field": "a", "value": 1}, {"field": "a", "operator": "~", "value": 1}, ["a"],
     {"operator": "XOR", "conditions": [EN]}, {"operator": "AND", "conditions": "x"}],
)  # fmt: skip
def test_what_is_no_filter_is_refused(desk: Flywheel, bad: Any) -> None:
    with pytest.raises(InputError, match="filter"):
        FlywheelRetriever(desk).run(QUERY, filters=bad)


def test_nothing_to_rank_and_an_empty_index(desk: Flywheel, empty: Flywheel) -> None:
    assert FlywheelRanker(desk).run(QUERY, []) == {"documents": [], "retrieval_id": None}
    assert FlywheelRetriever(empty).run(QUERY)["documents"] == []


def test_hundred_threads_share_a_component(tmp_path: Path, desk: Flywheel) -> None:
    retriever = FlywheelRetriever(str(tmp_path / "kb"), top_k=1)
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda i: retriever.run(QUERY, run_id=f"r{i}"), range(100)))
    retriever.close()
    assert len({each["retrieval_id"] for each in found}) == 100
    assert desk.answer_feedback(run="r42", verdict="helpful")


def test_copies_and_pickles_open_the_index_anew(tmp_path: Path, desk: Flywheel) -> None:
    folder = str(tmp_path / "kb")
    for each in (FlywheelRetriever(folder, top_k=2), FlywheelRanker(folder, top_k=2)):
        each.warm_up()
        for other in (copy.deepcopy(each), pickle.loads(pickle.dumps(each))):
            assert other.to_dict() == each.to_dict()
            assert other._opened is None
        each.close()
    assert copy.deepcopy(FlywheelRetriever(desk))._opened is desk


def test_documents_of_haystack_are_added(desk: Flywheel) -> None:
    given = [
        Document(content="bananas are yellow", id="b", meta={"title": "Fruit", "size": object()}),
        Document(content=None),
    ]
    assert desk.add_documents(given).added == 1
    passage = desk.passage("b")
    assert (passage.title, passage.text) == ("Fruit", "bananas are yellow")
    (document,) = FlywheelRetriever(desk, top_k=1).run("bananas yellow")["documents"]
    assert (document.id, document.meta["title"]) == ("b", "Fruit")


def test_a_folder_may_be_a_path(tmp_path: Path, desk: Flywheel) -> None:
    retriever = FlywheelRetriever(tmp_path / "kb")
    assert retriever.to_dict()["init_parameters"]["index"] == str(tmp_path / "kb")
    assert len(retriever.run(QUERY)["documents"]) == 4
    retriever.close()
