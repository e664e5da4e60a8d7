"""The MCP server: in memory, in a process of its own, and over HTTP."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from starlette.testclient import TestClient

from fakes import WordEncoder
from rag_flywheel import Config, ConfigError, Flywheel, Passage
from rag_flywheel.cli.app import main
from rag_flywheel.integrations.mcp import Caller, knowledge_server
from rag_flywheel.integrations.mcp_http import check_address, http_app
from rag_flywheel.integrations.tools import VoteBudget
from rag_flywheel.store.service.keys import make_key, revoke_key
from rag_flywheel.store.service.state import open_state
from served import environment

QUERY = "new password of the account"
RESET = "To get a new password open the settings of your account and then choose reset."
PASSAGES = [
    Passage("reset", RESET, "Passwords", {"lang": "en"}),
    Passage(
        "secret",
        RESET.replace("settings", "profile").replace("reset", "change"),
        "Passwords",
        {"lang": "en"},
    ),
    Passage("refund", "Refunds are paid within a month.", metadata={"lang": "de"}),
]
NAMES = ["explain_ranking", "give_feedback", "report_missing", "search_knowledge"]
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
Steps = Callable[[Client], Awaitable[Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "kb")


def made(folder: Path, passages: list[Passage] = PASSAGES, **settings: Any) -> Path:
    config = Config(encoder="fakes:word_encoder", **settings)
    with Flywheel.open(folder, encoder=WordEncoder(), config=config) as fw:
        fw.add(passages)
    return folder


def talk(server: Any, steps: Steps, **how: Any) -> Any:
    """Run the steps of a client with a server."""

    async def run() -> Any:
        async with Client(server, **how) as client:
            return await steps(client)

    return asyncio.run(run())


async def called(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    """The structured content of a call that is no error; its text says the same."""
    found = await client.call_tool(name, arguments)
    assert not found.is_error, found.content
    assert json.loads(found.content[0].text) == found.structured_content  # type: ignore[union-attr]
    return dict(found.structured_content or {})


async def refused(client: Client, name: str, **arguments: Any) -> str:
    """What is said of a call that is an error."""
    found = await client.call_tool(name, arguments)
    assert found.is_error
    said: str = found.content[0].text  # type: ignore[union-attr]
    assert "Traceback" not in said and "File " not in said
    return said


async def learn(client: Client) -> tuple[list[str], list[str]]:
    """The order before and after a few votes on the second passage."""
    before = await called(client, "search_knowledge", query=QUERY)
    ids = [hit["passage_id"] for hit in before["hits"]]
    for verdict in ("helpful", "helpful", "helpful"):
        said = await called(
            client,
            "give_feedback",
            retrieval_id=before["retrieval_id"],
            passage_id=ids[1],
            verdict=verdict,
        )
        assert said["recorded"]
    await called(
        client,
        "give_feedback",
        retrieval_id=before["retrieval_id"],
        passage_id=ids[0],
        verdict="harmful",
        reason="it misled",
    )
    after = await called(client, "search_knowledge", query=QUERY)
    assert (await called(client, "report_missing", retrieval_id=after["retrieval_id"]))["recorded"]
    why = await called(
        client, "explain_ranking", retrieval_id=after["retrieval_id"], passage_id=ids[1]
    )
    assert (why["helpful"], why["harmful"]) == (1, 0)  # one voice, whatever it repeats
    return ids, [hit["passage_id"] for hit in after["hits"]]


async def learns(client: Client) -> None:
    before, after = await learn(client)
    assert after[0] == before[1] != before[0]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_session_in_memory_learns(folder: Path, mode: str) -> None:
    with Flywheel.open(folder) as fw:
        talk(knowledge_server(fw, caller=Caller("ann")), learns, mode=mode)
        (vote, *_) = fw.votes(1)
        assert vote.user == fw.hashed_user("ann")


def test_what_the_server_says_of_itself(folder: Path) -> None:
    async def look(client: Client) -> Any:
        return client.instructions, (await client.list_tools()).tools

    with Flywheel.open(folder) as fw:
        instructions, tools = talk(knowledge_server(fw), look)
        _, more = talk(knowledge_server(fw, submit_answer=True), look)
    assert sorted(tool.name for tool in tools) == NAMES
    assert {t.name for t in more} - {t.name for t in tools} == {"submit_answer"}
    for each in [*NAMES]:
        assert each in instructions
    for tool in more:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", tool.name)
        assert tool.output_schema["type"] == "object" and "result" not in tool.output_schema
        assert tool.title and tool.description and "Args:" not in tool.description
        properties = tool.input_schema["properties"]
        assert all(each["description"] for each in properties.values())
        assert not set(properties) & {"user_id", "session_id", "tenant", "context"}
        reads = tool.name in ("search_knowledge", "explain_ranking")
        assert tool.annotations.read_only_hint is reads
        assert reads or tool.annotations.idempotent_hint
        assert not tool.annotations.destructive_hint and not tool.annotations.open_world_hint


def test_wrong_calls_are_said_in_words(folder: Path) -> None:
    async def steps(client: Client) -> None:
        shown = (await called(client, "search_knowledge", query=QUERY, k="2"))["retrieval_id"]
        found = await called(client, "search_knowledge", query=QUERY, filters='{"lang": "de"}')
        assert [hit["passage_id"] for hit in found["hits"]] == ["refund"]
        assert "20000 characters" in await refused(client, "search_knowledge", query="x" * 20_000)
        assert "expected a value" in await refused(
            client, "search_knowledge", query="x", filters={"lang": ["de"]}
        )
        for wrong in (
            {"k": 0},
            {"k": 1_000},
            {"filters": [1]},
            {"filters": "x=1"},
            {"query": None},
        ):
            assert "validation error" in await refused(
                client, "search_knowledge", **{"query": "x", **wrong}
            )
        said = await refused(
            client, "give_feedback", retrieval_id="r", passage_id="p", verdict="helpful"
        )
        assert "no retrieval 'r'" in said and "search_knowledge returned" in said
        said = await refused(
            client, "give_feedback", retrieval_id=shown, passage_id="x", verdict="helpful"
        )
        assert "did not show passage 'x'" in said
        assert "Unknown tool" in await refused(client, "drop_tables")

    with Flywheel.open(folder) as fw:
        talk(knowledge_server(fw), steps)


def test_too_many_votes_are_refused_in_words(folder: Path) -> None:
    async def steps(client: Client) -> list[bool]:
        shown = (await called(client, "search_knowledge", query=QUERY))["retrieval_id"]
        vote = {"retrieval_id": shown, "passage_id": "reset", "verdict": "helpful"}
        found = [await client.call_tool("give_feedback", vote) for _ in range(50)]
        assert "limit of 5 votes" in await refused(client, "give_feedback", **vote)
        return [each.is_error for each in found]

    with Flywheel.open(folder) as fw:
        errors = talk(knowledge_server(fw, budget=VoteBudget(5)), steps)
        assert errors == [False] * 5 + [True] * 45
        assert len(fw.votes(1_000)) == 5


def test_calls_at_once(folder: Path) -> None:
    async def steps(client: Client) -> None:
        async def one(n: int) -> None:
            shown = await called(client, "search_knowledge", query=f"{QUERY} {n}")
            vote = {"retrieval_id": shown["retrieval_id"], "passage_id": "reset"}
            await called(client, "give_feedback", verdict="helpful", **vote)

        await asyncio.gather(*(one(n) for n in range(30)))

    with Flywheel.open(folder) as fw:
        talk(knowledge_server(fw), steps)
        assert len(fw.votes(1_000)) == 30


def test_an_answer_that_is_handed_in_is_adopted(folder: Path) -> None:
    async def steps(client: Client) -> Any:
        shown = (await called(client, "search_knowledge", query=QUERY))["retrieval_id"]
        return shown, await called(
            client, "submit_answer", answer=f"Easy! {RESET}", retrieval_id=shown, question="how?"
        )

    with Flywheel.open(folder) as fw:
        shown, found = talk(knowledge_server(fw, submit_answer=True), steps)
        assert found["recorded"]
        assert [(q["retrieval_id"], q["passage_id"]) for q in found["quoted"]] == [(shown, "reset")]
        assert [vote.kind for vote in fw.votes()] == ["adopted"]


def test_in_front_of_a_service(folder: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra `service` is not installed")
    from in_process import client_of

    with client_of(folder) as client:
        talk(knowledge_server(client, caller=Caller("ann")), learns)


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "rag_flywheel", "mcp", "--index", str(folder), *options]


def parameters(folder: Path, *options: str) -> StdioServerParameters:
    own, *words = command(folder, *options)
    return StdioServerParameters(command=own, args=words, env=environment())


def test_a_session_with_a_process_learns(folder: Path) -> None:
    talk(stdio_client(parameters(folder, "--user", "ann")), learns)
    with Flywheel.open(folder) as fw:
        assert {vote.user for vote in fw.votes()} == {fw.hashed_user("ann")}
        assert {r.session for r in fw.retrievals()} == {None}
        assert {vote.kind for vote in fw.votes()} == {"vote"}


class Process:
    """`rag-flywheel mcp` with pipes."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.of = subprocess.Popen(
            command(folder, *options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )

    def write(self, *lines: bytes) -> None:
        assert self.of.stdin is not None
        self.of.stdin.write(b"".join(line + b"\n" for line in lines))
        self.of.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.of.stdout is not None
        found: dict[str, Any] = json.loads(self.of.stdout.readline())
        return found

    def end(self) -> tuple[int, str]:
        """The exit code, and what it said on standard error."""
        _, errors = self.of.communicate(timeout=60)
        return self.of.returncode, errors.decode()


@contextmanager
def process(folder: Path, *options: str) -> Iterator[Process]:
    found = Process(folder, *options)
    try:
        yield found
    finally:
        if found.of.poll() is None:
            found.of.kill()
        found.of.wait()
        for pipe in (found.of.stdin, found.of.stdout, found.of.stderr):
            if pipe is not None:
                pipe.close()


def test_garbage_on_standard_input_does_no_harm(folder: Path) -> None:
    garbage = [
        b"garbage", b"\xff\xfe\x00", b"{}", b"[]", b"[" * 100_000, b"x" * 1_000_000, b"null", b"",
        b'{"jsonrpc":"2.0","id":7,"method":"nope"}', b'{"jsonrpc":"2.0","id":8,"method":3}',
    ]  # fmt: skip
    with process(folder) as server:
        server.write(*garbage, json.dumps(HELLO).encode())
        while (found := server.read()).get("id") != 1:
            assert "error" in found
        assert found["result"]["serverInfo"]["name"] == "rag-flywheel"
        assert server.end() == (0, "")


SURROGATE = (
    '{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"search_knowledge","arguments":\
{"query":"a %s b"}}}'
)
NO_MESSAGES: list[tuple[str, int, Any]] = [
    (SURROGATE % ("2", "\\ud800"), -32700, 2),
    (SURROGATE % ("2", "\\udc00\\ud800"), -32700, 2),
    (SURROGATE % ('"two"', "\\uDBFF"), -32700, "two"),
    (SURROGATE % ('"\\ud83d"', "words"), -32700, None),
    (SURROGATE.replace("query", "\\ude00") % ("2", "words"), -32700, 2),
    ("no JSON", -32700, None),
    ('{"jsonrpc":"2.0","id":3,', -32700, None),
    ("[" * 100_000, -32700, None),
    ("[]", -32600, None),
    ("7", -32600, None),
    ("null", -32600, None),
    ('[{"jsonrpc":"2.0","id":3,"method":"ping"}]', -32600, None),
    ("{}", -32600, None),
    ('{"jsonrpc":"2.0","id":3}', -32600, 3),
    ('{"jsonrpc":"1.0","id":3,"method":"ping"}', -32600, 3),
    ('{"id":"three","method":"ping"}', -32600, "three"),
    ('{"jsonrpc":"2.0","id":3,"method":7}', -32600, 3),
    ('{"jsonrpc":"2.0","id":3,"method":"ping","params":[1]}', -32600, 3),
    ('{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, None),
    ('{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600, None),
    ('{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, None),
    ('{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}', -32600, None),
]
"""(line, code of the error, id of the error)."""
WITHOUT_ANSWER = [
    "",
    "  ",
    '{"jsonrpc":"2.0","method":"notifications/x","params":{"a":"\\ud800"}}',
    '{"jsonrpc":"2.0","method":7}',
    '{"jsonrpc":"2.0","id":9,"result":{"a":"\\ud800"}}',
    '{"jsonrpc":"2.0","id":9,"error":"none"}',
]
PING = b'{"jsonrpc":"2.0","id":"last","method":"ping"}'


def test_each_line_that_is_no_message_is_answered_and_nothing_else_is(folder: Path) -> None:
    with process(folder) as server:
        server.write(json.dumps(HELLO).encode())
        assert server.read()["id"] == 1
        for line, code, id_ in NO_MESSAGES:
            server.write(*(each.encode() for each in WITHOUT_ANSWER), line.encode())
            found = server.read()
            assert (found["error"]["code"], found["id"]) == (code, id_), line
            assert "expected one JSON-RPC 2.0 message a line" in found["error"]["message"]
            assert ("surrogate" in found["error"]["message"]) == ("\\u" in line)
        server.write(PING)
        assert server.read() == {"jsonrpc": "2.0", "id": "last", "result": {}}
        assert server.end() == (0, "")


def test_a_pair_of_surrogates_and_what_a_search_takes_are_no_error(folder: Path) -> None:
    from rag_flywheel.integrations.mcp_stdio import refusal

    for words in ("\\ud83d\\ude00", "\\\\ud800", "\\u00e9", "'"):
        assert refusal(SURROGATE % ("2", words)) is None
    assert refusal(PING.decode()) is None
    assert refusal('{"jsonrpc":"2.0","method":"notifications/x","params":{"id":3}}') is None


@pytest.mark.parametrize("how", ["end of input", "SIGTERM", "SIGINT", "nobody reads"])
def test_it_ends_cleanly(folder: Path, how: str) -> None:
    with process(folder) as server:
        server.write(json.dumps(HELLO).encode())
        assert server.read()["id"] == 1
        if how.startswith("SIG"):
            server.of.send_signal(getattr(signal, how))
        if how == "nobody reads":
            assert server.of.stdout is not None
            server.of.stdout.close()
            server.write(b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}')
            assert server.of.stdin is not None and server.of.stderr is not None
            server.of.stdin.close()
            assert server.of.wait(60) == 0
            assert server.of.stderr.read() in (
                b"",
                b"warning: nobody reads what is answered any more\n",
            )
        else:
            assert server.end() == (0, "")


def test_a_call_through_a_process_prints_the_protocol_alone(folder: Path) -> None:
    initialized = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    call = {"name": "search_knowledge", "arguments": {"query": QUERY}}
    with process(folder) as server:
        server.write(json.dumps(HELLO).encode())
        server.read()
        request = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
        server.write(initialized, json.dumps(request).encode())
        found = server.read()
        assert found["result"]["structuredContent"]["hits"][0]["rank"] == 1
        assert server.end() == (0, "")


def failed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as done:
        main(["mcp", *words])
    said = capsys.readouterr()
    assert said.out == ""
    return int(done.value.code or 0), said.err


def test_an_index_with_tenants_wants_one_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passages = [Passage(org, RESET, metadata={"org": org}) for org in ("a", "b")]
    folder = made(tmp_path / "kb", passages, tenant_key="org")
    code, said = failed(capsys, "--index", str(folder))
    assert code == 1 and "name one with --tenant" in said

    async def steps(client: Client) -> None:
        found = await called(client, "search_knowledge", query="password")
        assert [hit["passage_id"] for hit in found["hits"]] == ["a"]
        said = await refused(client, "search_knowledge", query="password", filters={"org": "b"})
        assert "expected one tenant" in said

    talk(stdio_client(parameters(folder, "--tenant", "a")), steps)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--http", "8000"], 2, "'8000' is no address"),
        (["--http", "127.0.0.1:x"], 2, "is no address"),
        (["--http", "127.0.0.1:99999"], 2, "is no address"),
        (["--tenant", "a", "--all-tenants"], 2, "exclude each other"),
        (["--tenant", "a"], 1, "the index has no tenants"),
        (["--http", "0.0.0.0:0"], 1, "there is no key; make one"),
        (["--http", "[::]:0"], 1, "there is no key; make one"),
        (["--http", "example.org:0"], 1, "there is no key; make one"),
        (["--http", "0.0.0.0:0", "--service", "http://127.0.0.1:1"], 1, "has no keys of its own"),
        (["--service", "nonsense"], 1, "url is 'nonsense'"),
    ],
)
def test_what_would_be_unsafe_or_wrong_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    found, said = failed(capsys, "--index", str(folder), *words)
    assert (found, says in said) == (code, True), said


@contextmanager
def over_http(folder: Path, *options: str, errors: Path) -> Iterator[str]:
    """The address of a server over HTTP."""
    with errors.open("wb") as log:
        running = subprocess.Popen(
            command(folder, "--http", "127.0.0.1:0", *options),
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(),
        )
    try:
        until = time.monotonic() + 90
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", errors.read_text())):
            assert running.poll() is None and time.monotonic() < until, errors.read_text()
            time.sleep(0.1)
        yield f"{found[0]}/mcp"
    finally:
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=60)
    assert (running.returncode, out) == (0, b"")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_session_over_http_learns(folder: Path, tmp_path: Path, mode: str) -> None:
    with over_http(folder, errors=tmp_path / "errors") as url:
        talk(url, learns, mode=mode)


KEYED = {"host": "127.0.0.1:8000", "accept": "application/json, text/event-stream"}


@pytest.fixture
def guarded(folder: Path) -> Iterator[Any]:
    """(the server as an application on loopback, the file of its keys, the index)."""
    keys = open_state(folder.parent / "service.db")
    with Flywheel.open(folder) as fw:
        app: Any = http_app(knowledge_server(fw), "127.0.0.1", keys, "kb")
        with TestClient(app, base_url="http://127.0.0.1:8000") as http:
            yield http, keys, fw
    keys.close()


def post(http: TestClient, key: str = "", message: Any = None, **headers: str) -> Any:
    given = {**KEYED, **({"authorization": f"Bearer {key}"} if key else {}), **headers}
    return http.post("/mcp", json=message or HELLO, headers=given)


def test_keys_that_cannot_be_read_are_a_refusal_that_says_so(guarded: Any, folder: Path) -> None:
    http, keys, _ = guarded
    assert post(http).status_code == 200
    keys.close_connections()
    (folder.parent / "service.db").unlink()
    for key in ("", "fw_any"):
        answer = post(http, key)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "service.db is missing" in answer.json()["error"]


def test_another_hosts_name_and_another_sites_page_are_refused(guarded: Any) -> None:
    http, _, _ = guarded
    assert post(http).status_code == 200
    assert post(http, host="localhost:8000").status_code == 200
    assert post(http, host="evil.example:8000").status_code == 421
    assert post(http, origin="http://evil.example").status_code == 403
    assert post(http, origin="null").status_code == 403
    assert post(http, origin="http://127.0.0.1:8000").status_code == 200
    assert post(http, **{"content-type": "text/plain"}).status_code == 400
    assert post(http, message={**HELLO, "more": "x" * 2**20}).status_code == 413


def call(name: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}


def test_with_a_key_only_who_has_one_may_ask(guarded: Any) -> None:
    http, keys, fw = guarded
    text, key = make_key(keys, "agent", ["read", "vote"])
    assert post(http).status_code == 401
    assert post(http).headers["www-authenticate"] == "Bearer"
    assert post(http, "fw_wrong").status_code == 401
    assert post(http, text).status_code == 200
    assert post(http, **{"x-api-key": text}).status_code == 200
    public, _ = make_key(keys, "page", ["vote"], public=True)
    admin, _ = make_key(keys, "admin", ["admin"])
    other, _ = make_key(keys, "other", ["read"], indexes=["other"])
    assert [post(http, each).status_code for each in (public, admin, other)] == [403] * 3
    shown = post(http, text, call("search_knowledge", query=QUERY)).json()["result"]
    id_ = shown["structuredContent"]["retrieval_id"]
    vote = call("give_feedback", retrieval_id=id_, passage_id="reset", verdict="helpful")
    reader, _ = make_key(keys, "reader", ["read"])
    said = post(http, reader, vote).json()["result"]
    assert said["isError"] and "lacks the scope vote" in said["content"][0]["text"]
    assert not post(http, text, vote).json()["result"].get("isError")
    assert fw.votes()[0].user == fw.hashed_user(f"key {key.id}")
    revoke_key(keys, key.id)
    assert post(http, text).status_code == 401
    assert post(http).status_code == 401


def test_a_key_is_bound_to_its_tenant(tmp_path: Path) -> None:
    passages = [Passage(org, RESET, metadata={"org": org}) for org in ("a", "b")]
    folder = made(tmp_path / "kb", passages, tenant_key="org")
    keys = open_state(tmp_path / "service.db")
    ours, theirs = (make_key(keys, org, ["read", "vote"], tenant=org)[0] for org in ("a", "b"))
    free, _ = make_key(keys, "free", ["read"])
    search = call("search_knowledge", query="password")
    with Flywheel.open(folder) as fw:
        app: Any = http_app(knowledge_server(fw), "127.0.0.1", keys, "kb")
        with TestClient(app, base_url="http://127.0.0.1:8000") as http:
            found = {key: post(http, key, search).json()["result"] for key in (ours, theirs, free)}
            id_ = found[ours]["structuredContent"]["retrieval_id"]
            vote = call("give_feedback", retrieval_id=id_, passage_id="a", verdict="helpful")
            said = post(http, theirs, vote).json()["result"]
            assert "no retrieval" in said["content"][0]["text"]
            why = call("explain_ranking", retrieval_id=id_, passage_id="a")
            assert "no retrieval" in post(http, theirs, why).json()["result"]["content"][0]["text"]
    for key, org in ((ours, "a"), (theirs, "b")):
        hits = found[key]["structuredContent"]["hits"]
        assert [hit["passage_id"] for hit in hits] == [org]
    assert "no tenant is named" in found[free]["content"][0]["text"]
    keys.close()


def test_elsewhere_than_on_loopback_a_key_is_needed(folder: Path) -> None:
    keys = open_state(folder.parent / "service.db")
    with pytest.raises(ConfigError, match="there is no key"):
        check_address("192.0.2.1", keys)
    with pytest.raises(ConfigError, match="no keys of its own"):
        check_address("192.0.2.1", None)
    check_address("::1", None)
    text, _ = make_key(keys, "agent", ["read"])
    check_address("192.0.2.1", keys)
    with Flywheel.open(folder) as fw:
        app: Any = http_app(knowledge_server(fw), "192.0.2.1", keys, "kb")
        with TestClient(app, base_url="http://kb.example") as http:
            assert post(http, host="kb.example").status_code == 401
            assert post(http, text, host="kb.example").status_code == 200
    keys.close()


def test_the_environment_names_the_user_and_the_index(folder: Path) -> None:
    own, *words = command(folder)
    words = [word for word in words if word not in ("--index", str(folder))]
    more = {"RAG_FLYWHEEL_INDEX": str(folder), "RAG_FLYWHEEL_USER": "eve"}
    env = {**environment(), **more}
    talk(stdio_client(StdioServerParameters(command=own, args=words, env=env)), learns)
    with Flywheel.open(folder) as fw:
        assert {vote.user for vote in fw.votes()} == {fw.hashed_user("eve")}
    assert os.environ.get("RAG_FLYWHEEL_USER") is None
