"""Milvus gone: a clear error at once, no thinner answer, and all as before once it is back."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fakes import WordEncoder
from lite import MilvusLite, milvus_lite
from rag_flywheel import Config, EngineError, Flywheel, Passage
from rag_flywheel.client import Client
from served import environment, served

pytest.importorskip("milvus_lite", reason="needs the package milvus-lite: make test-engines")
pytest.importorskip("pymilvus", reason="needs the extra milvus: make test-engines")
PASSAGES = [Passage(f"p{i}", f"how to reset number{i} of the plum tree") for i in range(30)]
QUERY = "reset number7"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[MilvusLite]:
    """A server that the test may kill."""
    with milvus_lite(tmp_path / "milvus") as running:
        yield running


@pytest.fixture
def fw(tmp_path: Path, own: MilvusLite) -> Iterator[Flywheel]:
    config = Config(encoder="fakes:word_encoder", engine=f"milvus:{own.uri}/kb")
    with Flywheel.open(tmp_path / "kb", config=config) as found:
        found.add(PASSAGES)
        found.refresh()
        yield found


def test_nothing_thin_is_answered_while_it_is_gone(fw: Flywheel, own: MilvusLite) -> None:
    known, asked = "what is plum", fw.retrieve(QUERY, user_id="ann")
    before = [hit.passage_id for hit in fw.retrieve(known, record=False).hits]
    fw.feedback(asked.id, "p7", "helpful", user_id="ann")
    fw.add([Passage("fresh", "reset number7 is fresh")])  # it is found here, without Milvus
    own.kill()
    for query in (QUERY, "number9", known):
        began = time.monotonic()
        with pytest.raises(EngineError, match=f"{own.uri}.*start it.*verify"):
            fw.retrieve(query)
        assert time.monotonic() - began < 15.0
    fw.feedback(
        asked.id, asked.hits[-1].passage_id, "harmful", user_id="bob"
    )  # votes need no passages to be found
    with Flywheel.open(fw.status().path, encoder=WordEncoder()) as late:
        with pytest.raises(EngineError, match=own.uri):
            late.retrieve(QUERY)
        with pytest.raises(EngineError, match=own.uri):
            late.refresh()
        assert [own.uri in said for said in late.verify()] == [True]
        (broken,) = late.health().problems[:1]
        assert (broken.name, broken.state) == ("engine", "broken")
    live = fw.status().version
    own.start()
    assert fw.retrieve(QUERY, k=3).hits[0].passage_id in {"fresh", "p7"}
    assert [hit.passage_id for hit in fw.retrieve(known, record=False).hits][:3] == before[:3]
    assert fw.refresh().outcome == "promoted"
    assert fw.status().version != live
    assert fw.verify() == []


def test_an_answer_that_is_cached_whole_needs_no_engine(fw: Flywheel, own: MilvusLite) -> None:
    before = fw.retrieve(QUERY, record=False)
    own.kill()
    after = fw.retrieve(QUERY, record=False)
    assert [hit.passage_id for hit in after.hits] == [hit.passage_id for hit in before.hits]


def test_a_server_that_hangs_is_an_error_too(fw: Flywheel, own: MilvusLite) -> None:
    fw.retrieve(QUERY)
    assert own.pid is not None
    os.kill(own.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(EngineError, match=own.uri):
            fw.retrieve("number11")
        assert time.monotonic() - began < 30.0
    finally:
        os.kill(own.pid, signal.SIGCONT)
    assert fw.retrieve("number11").hits[0].passage_id == "p11"


def test_a_refresh_that_loses_it_in_the_middle_leaves_the_live_version(
    fw: Flywheel, own: MilvusLite
) -> None:
    live = fw.status().version
    fw.add([Passage("more", "number99 is new")])

    def die(step: str, done: int, total: int) -> None:
        own.kill()

    with pytest.raises(EngineError, match=own.uri):
        fw.refresh(progress=die)
    assert fw.status().version == live
    assert len(fw.versions()) == 1
    own.start()
    assert fw.retrieve("number99", k=1).hits[0].passage_id == "more"
    assert fw.refresh().outcome == "promoted"
    assert fw.retrieve("number99", k=1).hits[0].passage_id == "more"


def test_commands_tell_what_is_there(fw: Flywheel, own: MilvusLite) -> None:
    folder = fw.status().path
    assert json.loads(run("status", folder, "--json")[1])["engine"] == f"milvus:{own.uri}/kb"
    assert f"milvus:{own.uri}/kb" in run("status", folder)[1]
    assert run("verify", folder)[0] == 0
    _, found, _ = run("retrieve", folder, "--json", "-k", "1", QUERY)
    assert json.loads(found)["hits"][0]["passage_id"] == "p7"
    own.kill()
    status, _, said = run("retrieve", folder, QUERY)
    assert status == 1 and own.uri in said and "Traceback" not in said
    assert run("verify", folder)[0] == 1


def run(command: str, folder: str, *words: str) -> tuple[int, str, str]:
    """A command in a process of its own: its exit status, and what it wrote to both streams."""
    called = [sys.executable, "-m", "rag_flywheel", command, "--index", folder, *words]
    done = subprocess.run(called, capture_output=True, text=True, env=environment())
    return done.returncode, done.stdout, done.stderr


def test_a_service_answers_from_it_and_says_when_it_cannot(fw: Flywheel, own: MilvusLite) -> None:
    folder = Path(fw.status().path)
    with served(folder, options=["--workers", "2"]) as service, Client(service.url) as client:
        assert client.retrieve(QUERY, k=1).hits[0].passage_id == "p7"
        own.kill()
        with pytest.raises(EngineError, match=own.uri):
            client.retrieve("number12")
        until = time.monotonic() + 20.0
        while httpx.get(f"{service.url}/readyz").status_code == 200 and time.monotonic() < until:
            time.sleep(0.2)
        assert "database of vectors" in httpx.get(f"{service.url}/readyz").text
        own.start()
        assert client.retrieve("number12", k=1).hits[0].passage_id == "p12"
