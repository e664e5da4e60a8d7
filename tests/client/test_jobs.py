"""Long work: a client begins it, watches it, and gets what it came to."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from in_process import URL, async_client_of, client_of
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.client import Client
from rag_flywheel.errors import EncoderError, FlywheelError, ServiceError
from rag_flywheel.records import ForgetReport, RefreshReport

SUPPORT = Path(__file__).parents[1] / "support"
Served = Callable[[Path], AbstractContextManager[Any]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{SUPPORT}{os.pathsep}{known}")
    made = tmp_path / "kb"
    with Flywheel.open(made, config=Config(encoder="fakes:word_encoder")) as fw:
        fw.add([Passage("a", "reset a password"), Passage("b", "cats sleep all day")])
        asked = fw.retrieve("reset my password", user_id="ann")
        fw.feedback(asked.id, "a", "helpful", user_id="ann")
    return made


@pytest.fixture(params=[client_of, async_client_of], ids=["sync", "async"])
def client(request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    served: Served = request.param
    with served(folder) as made:
        yield made


@pytest.mark.slow
def test_a_refresh_is_waited_for_and_its_progress_told(client: Any) -> None:
    told: list[tuple[str, int, int]] = []
    report = client.refresh(progress=lambda *now: told.append(now))
    assert isinstance(report, RefreshReport)
    assert (report.outcome, report.version) == ("promoted", client.versions()[0].id)
    assert all(done <= total for _, done, total in told)
    assert client.refresh(if_votes=1).outcome == "unchanged"
    assert client.retrieve("cats").version == report.version


@pytest.mark.slow
def test_a_user_is_forgotten(client: Any) -> None:
    report = client.forget("ann")
    assert isinstance(report, ForgetReport)
    assert (report.n_retrievals, report.n_votes) == (1, 1)
    assert client.retrievals() == []


@pytest.mark.slow
def test_what_a_job_fails_with_is_raised(client: Any, folder: Path) -> None:
    with pytest.raises(EncoderError) as theirs:
        client.refresh(tune=True)
    with Flywheel.open(folder) as fw, pytest.raises(EncoderError) as ours:
        fw.refresh(tune=True)
    assert (type(theirs.value), str(theirs.value)) == (type(ours.value), str(ours.value))


JOB = {
    "id": "j", "index": "kb", "kind": "refresh", "state": "waiting", "step": "", "done": 0,
    "total": 0, "created": 1.0, "started": None, "ended": None, "result": None, "error": None,
}  # fmt: skip
ENDS = [
    ({"state": "cancelled"}, "job j was cancelled"),
    ({"state": "failed", "error": {"type": "Died", "message": "it is gone"}}, "Died: it is gone"),
    ({"state": "failed", "error": None}, "Failed"),
    ({"state": "done", "result": ["odd"]}, "of which no RefreshReport can be made"),
]


@pytest.mark.parametrize(("end", "message"), ENDS)
def test_other_ends_of_a_job_are_errors_of_the_service(
    end: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [JOB, {**JOB, "step": "fit", "done": 1, "total": 2}, {**JOB, **end, "ended": 2.0}]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(202 if request.method == "POST" else 200, json=states.pop(0))

    monkeypatch.setattr("time.sleep", lambda _: None)
    told: list[tuple[str, int, int]] = []
    http = httpx.Client(transport=httpx.MockTransport(answer))
    with Client(URL, http=http) as client, pytest.raises(ServiceError, match=message):
        client.refresh(progress=lambda *now: told.append(now))
    assert told == [("fit", 1, 2)]


def test_arguments_are_checked_before_a_job_begins(folder: Path) -> None:
    with client_of(folder) as client:
        for named in ({"if_votes": 0}, {"max_age_s": -1}, {"max_age_s": "1"}):
            with pytest.raises(FlywheelError):
                client.refresh(**named)
        with pytest.raises(FlywheelError):
            client.forget(" ")
