"""What a client does when the service is gone, busy, or not what it should be."""

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from in_process import URL, Blocking
from rag_flywheel import Passage, errors
from rag_flywheel.client import AsyncClient, Client
from rag_flywheel.client.synchronous import connection
from rag_flywheel.errors import (
    AccessError,
    ClosedError,
    FlywheelError,
    InputError,
    RateLimitedError,
    ServiceError,
)

RECORDED = httpx.Response(201, json={"recorded": 1})


class Answers:
    """A service that answers with these, one after another, and remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.asked = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        kept = {n: v for n, v in answer.headers.items() if n != "content-length"}
        return httpx.Response(answer.status_code, headers=kept, content=answer.content)


Make = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def client_to(request: pytest.FixtureRequest) -> Iterator[Make]:
    """A function that makes a client of these answers."""
    loop = asyncio.new_event_loop()

    def make(answers: Answers, **named: Any) -> Any:
        transport = httpx.MockTransport(answers)
        if request.param == "sync":
            return Client(URL, http=httpx.Client(transport=transport), **named)
        http = httpx.AsyncClient(transport=transport)
        return Blocking(AsyncClient(URL, http=http, **named), loop)

    yield make
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients wait, without waiting for them."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(connection.time, "sleep", found.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


def problem(status: int, title: str, detail: str = "why", **headers: str) -> httpx.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return httpx.Response(status, json=body, headers=headers)


TRANSIENT = [
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    httpx.RemoteProtocolError("cut"),
    problem(503, "BusyError"),
    problem(503, "TimedOut"),
    problem(429, "TooManyRequests"),
    problem(409, "RequestUnderWay"),
    httpx.Response(502, text="<html>bad gateway</html>"),
]


@pytest.mark.parametrize("first", TRANSIENT, ids=repr)
def test_a_vote_is_sent_again_under_the_same_key(
    client_to: Make, waits: list[float], first: Any
) -> None:
    answers = Answers(first, first, RECORDED)
    assert client_to(answers).feedback("r", "p", "helpful") is True
    keys = {request.headers["idempotency-key"] for request in answers.asked}
    assert (len(answers.asked), len(keys), len(waits)) == (3, 1, 2)
    assert len({request.content for request in answers.asked}) == 1


def test_two_votes_have_two_keys(client_to: Make) -> None:
    answers = Answers(RECORDED)
    client = client_to(answers)
    for _ in range(2):
        client.feedback("r", "p", "helpful")
    assert len({request.headers["idempotency-key"] for request in answers.asked}) == 2


@pytest.mark.parametrize("first", TRANSIENT[:5], ids=repr)
def test_questions_are_asked_again_too(client_to: Make, waits: list[float], first: Any) -> None:
    answers = Answers(first, httpx.Response(200, json={"lang": ["string"]}))
    assert client_to(answers).metadata_keys() == {"lang": ["string"]}
    assert len(answers.asked) == 2


def test_it_is_waited_longer_each_time_and_not_for_ever(
    client_to: Make, waits: list[float]
) -> None:
    answers = Answers(httpx.ConnectError("refused"))
    with pytest.raises(ServiceError, match=r"cannot be reached .* after 5 attempts"):
        client_to(answers).status()
    assert len(answers.asked) == 5
    assert [0.05 * 2**i <= wait <= 0.1 * 2**i for i, wait in enumerate(waits)] == [True] * 4


def test_nothing_is_sent_again_where_that_is_not_wanted(
    client_to: Make, waits: list[float]
) -> None:
    answers = Answers(problem(503, "BusyError", "another program writes"))
    with pytest.raises(errors.BusyError, match="another program writes"):
        client_to(answers, retries=0).status()
    assert (len(answers.asked), waits) == (1, [])


def test_it_is_waited_as_long_as_the_service_says(client_to: Make, waits: list[float]) -> None:
    answers = Answers(problem(429, "TooManyRequests", **{"Retry-After": "2"}), RECORDED)
    assert client_to(answers).missing("r")
    assert waits == [2.0]


def test_a_long_wait_is_left_to_the_caller(client_to: Make, waits: list[float]) -> None:
    answers = Answers(problem(429, "TooManyRequests", "60 votes", **{"Retry-After": "60"}))
    with pytest.raises(RateLimitedError, match="60 votes") as found:
        client_to(answers).missing("r")
    assert (found.value.retry_after_s, len(answers.asked), waits) == (60.0, 1, [])
    assert pickle.loads(pickle.dumps(found.value)).retry_after_s == 60.0


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(401, "Unauthorized"), AccessError),
        (problem(403, "Forbidden"), AccessError),
        (problem(403, "ReadOnlyError"), errors.ReadOnlyError),
        (problem(404, "UnknownIdError"), errors.UnknownIdError),
        (problem(409, "LockedError"), errors.LockedError),
        (problem(413, "TooLarge"), InputError),
        (problem(422, "InvalidRequest"), InputError),
        (problem(422, "InputError"), InputError),
        (problem(422, "ConfigError"), errors.ConfigError),
        (problem(503, "CorruptFileError"), errors.CorruptFileError),
        (problem(503, "DiskFullError"), errors.DiskFullError),
        (problem(422, "IdempotencyKeyReused"), ServiceError),
        (problem(404, "HTTPError"), ServiceError),
        (problem(500, "InternalError"), ServiceError),
        (problem(503, "OfALaterRelease"), ServiceError),
        (problem(422, "quoted"), InputError),
    ],
)
def test_problems_become_the_errors_of_the_library(
    client_to: Make, waits: list[float], answer: Any, kind: type[FlywheelError]
) -> None:
    with pytest.raises(FlywheelError, match="why") as found:
        client_to(Answers(answer)).feedback("r", "p", "helpful")
    assert type(found.value) is kind


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>Sign in to the network</html>"),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(404, text="nginx"),
        httpx.Response(500, json=["title"]),
        httpx.Response(307, headers={"location": "http://elsewhere/"}),
        httpx.Response(200, json={"state": "odd"}),
    ],
)
def test_what_is_no_such_service_is_said(client_to: Make, answer: Any) -> None:
    with pytest.raises(ServiceError):
        client_to(Answers(answer)).status()


def test_a_closed_client_says_so(client_to: Make) -> None:
    answers = Answers(RECORDED)
    client = client_to(answers)
    client.close()
    with pytest.raises(ClosedError, match="make a new one"):
        client.feedback("r", "p", "helpful")
    assert answers.asked == []


@pytest.mark.parametrize(
    "url", ["localhost:8000", "", "ftp://x", "http://[x", "http://[x]/", None, 8000]
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_address_is_asked_for(kind: Any, url: Any) -> None:
    with pytest.raises(InputError, match="expected an address"):
        kind(url)


@pytest.mark.parametrize(
    "named", [{"key": "a\nb"}, {"key": "ü"}, {"key": ""}, {"index": 1}, {"retries": -1}]
)
def test_what_no_header_or_address_can_hold_is_refused(named: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Client(URL, **named)


def test_the_key_and_the_index_go_along(client_to: Make) -> None:
    answers = Answers(httpx.Response(200, json={}))
    client_to(answers, key="fw_1", index="a kb").metadata_keys(tenant=7)
    (asked,) = answers.asked
    assert asked.headers["authorization"] == "Bearer fw_1"
    assert asked.url.raw_path == b"/v1/indexes/a%20kb/metadata-keys?tenant=7"


def test_passages_go_in_parts_of_bounded_size(client_to: Make) -> None:
    report = {"added": 1, "updated": 0, "unchanged": 0}
    answers = Answers(httpx.Response(200, json=report))
    told: list[tuple[str, int, int]] = []
    many = [Passage(str(n), "x" * 3_000) for n in range(1_200)]
    found = client_to(answers).add(
        many, remove=["old"], progress=lambda *now: told.append(now), tenant="t"
    )
    sizes = [len(request.content) for request in answers.asked]
    assert found.added == len(sizes) == 3
    assert max(sizes) < 2.1 * 2**20
    assert told == [("add passages", n, 1_200) for n in (500, 1_000, 1_200)]
    assert [request.url.path for request in answers.asked] == [
        "/v1/passages", "/v1/passages.ndjson", "/v1/passages.ndjson",
    ]  # fmt: skip
    assert b'"remove": ["old"]' in answers.asked[0].content
    assert answers.asked[1].url.params["tenant"] == '"t"'


def test_all_pages_are_fetched(client_to: Make) -> None:
    def page(begin: int, n: int) -> httpx.Response:
        items = [{"id": f"p{i:05}", "text": "t"} for i in range(begin, begin + n)]
        return httpx.Response(200, json={"items": items, "next_cursor": None})

    answers = Answers(page(0, 1_000), page(1_000, 1_000), page(2_000, 7))
    found = client_to(answers).passages()
    assert [passage.id for passage in found] == [f"p{i:05}" for i in range(2_007)]
    assert [r.url.params.get("after") for r in answers.asked] == [None, "p00999", "p01999"]
