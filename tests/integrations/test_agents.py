"""The tools in agents of three frameworks: fake models search, vote and answer; the next order differs."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.integrations.tools import KnowledgeTools, VoteBudget

QUERY = "new password of the account"
RESET = "To get a new password open the settings of your account and then choose reset."
CHANGE = "To get a new password open the profile of your account and then choose change."


@pytest.fixture
def fw(tmp_path: Path) -> Iterator[Flywheel]:
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as found:
        found.add(
            [Passage("reset", RESET), Passage("change", CHANGE), Passage("cats", "Cats sleep.")]
        )
        yield found


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """An event loop that is closed: `run_sync` of Pydantic-AI leaves its own open."""
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    yield
    own.close()
    asyncio.set_event_loop(None)


def order(fw: Flywheel) -> list[str]:
    return [hit.passage_id for hit in fw.retrieve(QUERY, record=False).hits]


def votes_of(seen: dict[str, Any]) -> list[dict[str, str]]:
    """What the fake models vote, after they have seen the result of a search."""
    ids = [hit["passage_id"] for hit in seen["hits"]]
    verdicts = {ids[1]: "helpful", ids[0]: "harmful"}
    return [
        {"retrieval_id": seen["retrieval_id"], "passage_id": id_, "verdict": verdict}
        for id_, verdict in verdicts.items()
    ]


def assert_learned(fw: Flywheel, before: list[str]) -> None:
    assert order(fw)[0] == before[1]
    assert {vote.user for vote in fw.votes()} == {fw.hashed_user("ann")}


# ---- Pydantic-AI


def test_a_pydantic_ai_agent_learns(fw: Flywheel) -> None:
    pytest.importorskip("pydantic_ai", reason="pydantic-ai-slim is not installed")
    from pydantic_ai import Agent, FunctionToolset
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    answers: list[Any] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        assert {tool.name for tool in info.function_tools} >= {"search_knowledge", "give_feedback"}
        returned = [p for p in messages[-1].parts if p.part_kind == "tool-return"]
        answers.extend(json.loads(part.model_response_str()) for part in returned)
        if not returned:
            return ModelResponse([ToolCallPart("search_knowledge", {"query": QUERY, "k": "3"})])
        if "hits" in answers[-1]:
            calls = [ToolCallPart("give_feedback", each) for each in votes_of(answers[-1])]
            return ModelResponse(calls)
        return ModelResponse([TextPart(f"So: {CHANGE if answers[0]['hits'] else ''}")])

    before, tools = order(fw), KnowledgeTools(fw, user_id="ann")
    agent = Agent(FunctionModel(model), toolsets=[FunctionToolset(tools.functions)])
    answer = agent.run_sync("How do I get a new password?").output
    assert [each["recorded"] for each in answers[1:]] == [True, True]
    assert_learned(fw, before)
    assert [q.passage_id for q in tools.record_answer(answer).quoted] == ["change"]


def test_pydantic_ai_knows_the_arguments(fw: Flywheel) -> None:
    pytest.importorskip("pydantic_ai", reason="pydantic-ai-slim is not installed")
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    model = TestModel()
    tools = KnowledgeTools(fw)
    Agent(model, tools=[*tools.functions, tools.submit_answer]).run_sync("anything")
    assert model.last_model_request_parameters is not None
    for tool in model.last_model_request_parameters.function_tools:
        properties = tool.parameters_json_schema["properties"]
        assert tool.description and all(each["description"] for each in properties.values())
        assert not set(properties) & {"self", "user_id", "tenant"}


def test_a_problem_comes_back_to_a_pydantic_ai_model(fw: Flywheel) -> None:
    pytest.importorskip("pydantic_ai", reason="pydantic-ai-slim is not installed")
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    def model(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        returned = [p for p in messages[-1].parts if p.part_kind == "tool-return"]
        if returned:
            return ModelResponse([TextPart(returned[0].model_response_str())])
        vote = {"retrieval_id": "no", "passage_id": "no", "verdict": "helpful"}
        return ModelResponse([ToolCallPart("give_feedback", vote)])

    said = Agent(FunctionModel(model), tools=KnowledgeTools(fw).functions).run_sync("x").output
    assert "no retrieval 'no'" in json.loads(said)["problem"]


# ---- OpenAI Agents


def fake_openai_model(turns: Any) -> Any:
    """A model that answers each turn as turns(the input so far) says: texts, or (tool, arguments)."""
    from agents import Model, ModelResponse, Usage
    from openai.types.responses import (
        ResponseFunctionToolCall,
        ResponseOutputMessage,
        ResponseOutputText,
    )

    class Fake(Model):
        def __init__(self) -> None:
            self.n = 0

        async def get_response(
            self, system_instructions: Any, input: Any, *_: Any, **__: Any
        ) -> Any:
            output: list[Any] = []
            for each in turns(input):
                self.n += 1
                if isinstance(each, str):
                    text = ResponseOutputText(text=each, type="output_text", annotations=[])
                    output.append(
                        ResponseOutputMessage(
                            id=f"m{self.n}",
                            content=[text],
                            role="assistant",
                            status="completed",
                            type="message",
                        )
                    )
                else:
                    name, arguments = each
                    output.append(
                        ResponseFunctionToolCall(
                            call_id=f"c{self.n}",
                            name=name,
                            arguments=json.dumps(arguments),
                            type="function_call",
                        )
                    )
            return ModelResponse(output=output, usage=Usage(), response_id=None)

        def stream_response(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    return Fake()


def test_an_openai_agent_learns(fw: Flywheel) -> None:
    pytest.importorskip("agents", reason="openai-agents is not installed")
    from agents import Agent, RunConfig, Runner, function_tool

    results: list[Any] = []

    def turns(given: Any) -> list[Any]:
        returned = [] if isinstance(given, str) else given
        outputs = [
            each["output"] for each in returned if each.get("type") == "function_call_output"
        ]
        results[:] = [json.loads(each) for each in outputs]
        if not results:
            return [("search_knowledge", {"query": QUERY, "filters": None})]
        if len(results) == 1:
            return [("give_feedback", each) for each in votes_of(results[0])]
        if len(results) == 3:
            return [("give_feedback", {**votes_of(results[0])[0], "passage_id": "gone"})]
        return [f"So: {CHANGE}"]

    before, tools = order(fw), KnowledgeTools(fw, user_id="ann")
    agent = Agent(
        name="desk",
        tools=[function_tool(each, strict_mode=False) for each in tools.functions],
        model=fake_openai_model(turns),
    )
    run = asyncio.run(
        Runner.run(
            agent, "How do I get a new password?", run_config=RunConfig(tracing_disabled=True)
        )
    )
    assert [each["recorded"] for each in results[1:3]] == [True, True]
    assert "did not show passage 'gone'" in results[3]["problem"]
    assert_learned(fw, before)
    assert [q.passage_id for q in tools.record_answer(run.final_output).quoted] == ["change"]


def test_openai_agents_know_the_arguments(fw: Flywheel) -> None:
    pytest.importorskip("agents", reason="openai-agents is not installed")
    from agents import function_tool

    tools = KnowledgeTools(fw)
    for each in [*tools.functions, tools.submit_answer]:
        tool = function_tool(each, strict_mode=False)
        properties = tool.params_json_schema["properties"]
        assert tool.description and all(p["description"] for p in properties.values())
        assert not set(properties) & {"self", "user_id", "tenant"}


# ---- DSPy


def test_a_dspy_module_retrieves_and_its_prediction_takes_votes(fw: Flywheel) -> None:
    dspy = pytest.importorskip("dspy", reason="dspy is not installed")

    class Answer(dspy.Module):  # type: ignore[misc, name-defined]
        def __init__(self, tools: KnowledgeTools) -> None:
            super().__init__()
            self.tools = tools
            self.respond = dspy.Predict("context: list[str], question -> answer")

        def forward(self, question: str) -> Any:
            found = self.tools.search_knowledge(question)
            context = [hit.text for hit in found.hits]
            answer = self.respond(context=context, question=question).answer
            return dspy.Prediction(
                answer=answer,
                passages=context,
                passage_ids=[hit.passage_id for hit in found.hits],
                retrieval_id=found.retrieval_id,
            )

    before = order(fw)
    with dspy.context(lm=dspy.utils.DummyLM([{"answer": f"So: {CHANGE}"}])):
        tools = KnowledgeTools(fw, user_id="ann")
        found = Answer(tools)(question=QUERY)
    assert found.passage_ids == before
    tools.give_feedback(found.retrieval_id, found.passage_ids[1], "helpful")
    tools.give_feedback(found.retrieval_id, found.passage_ids[0], "harmful")
    assert_learned(fw, before)
    assert [q.passage_id for q in tools.record_answer(found.answer).quoted] == ["change"]


def test_a_dspy_agent_votes_through_its_tools(fw: Flywheel) -> None:
    dspy = pytest.importorskip("dspy", reason="dspy is not installed")

    class Steps(list[dict[str, Any]]):
        """What the model says, which knows the search from its second step on."""

        def __iter__(self) -> Iterator[dict[str, Any]]:
            yield step("search_knowledge", {"query": QUERY})
            (shown,) = fw.retrievals(1)
            seen = {"retrieval_id": shown.id, "hits": [vars(hit) for hit in shown.hits]}
            for vote in votes_of(seen):
                yield step("give_feedback", vote)
            yield step("give_feedback", {**votes_of(seen)[0], "passage_id": "gone"})
            yield step("finish", {})
            yield {"reasoning": "read", "answer": "done"}

    def step(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"next_thought": "t", "next_tool_name": name, "next_tool_args": arguments}

    before, tools = order(fw), KnowledgeTools(fw, user_id="ann", budget=VoteBudget(10))
    with dspy.context(lm=dspy.utils.DummyLM(Steps())):
        react = dspy.ReAct("question -> answer", tools=tools.functions, max_iters=6)
        found = react(question="How do I get a new password?")
    assert found.answer == "done"
    said = [json.loads(str(found.trajectory[f"observation_{n}"])) for n in range(4)]
    assert [hit["passage_id"] for hit in said[0]["hits"]] == before
    assert [each["recorded"] for each in said[1:3]] == [True, True]
    assert "did not show passage 'gone'" in said[3]["problem"]
    assert_learned(fw, before)
