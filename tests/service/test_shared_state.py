"""The service's own records on a server: where they are, who makes them, and what a lost answer leaves."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import access
from on_postgres import url_of
from rag_flywheel import CorruptFileError, Flywheel, InputError
from rag_flywheel.errors import NewerFormatError, UnreachableError
from rag_flywheel.service.settings import Settings
from rag_flywheel.service.signed import signed
from rag_flywheel.store.service import jobs, requests
from rag_flywheel.store.service.counts import ServerCounts
from rag_flywheel.store.service.state import SCHEMA, named, now, open_state, secret

URL = "postgresql://ann@db.example.org/app"


def test_a_url_is_the_state_and_anything_else_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"kb": Path("indexes/kb")}
    given = Settings(indexes=folders, state=f"{URL}?schema=service")
    assert given.records == f"{URL}?schema=service"
    assert given.local_file.name == "service.db"
    assert Settings.model_validate_json(given.model_dump_json()).records == given.records
    assert Settings(indexes=folders, state=URL).records == f"{URL}?schema={SCHEMA}"
    assert Settings(indexes=folders, state="a/b.db").records == Path("a/b.db")
    assert Settings(indexes=folders).records == Path("indexes/service.db").resolve()
    monkeypatch.setenv("RAG_FLYWHEEL_SERVICE_STATE", f"{URL}?schema=other")
    assert Settings(indexes=folders).records == f"{URL}?schema=other"
    with pytest.raises(ValidationError, match="PGPASSWORD"):
        Settings(indexes=folders, state="postgresql://ann:secret@db/app")


def test_processes_that_make_the_records_at_once_share_one_secret() -> None:
    url, found = url_of("state_at_once"), list[bytes]()
    begin = threading.Barrier(6)

    def run() -> None:
        begin.wait()
        database = open_state(url)
        found.append(secret(database, "a"))
        database.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_the_schema_of_an_index_is_refused_and_the_reverse(tmp_path: Path) -> None:
    of_index, of_state = url_of("state_index"), url_of("state_state")
    with Flywheel.open(of_index, cache=tmp_path / "kb", encoder="fakes:word_encoder"):
        pass
    with pytest.raises(InputError, match="is the schema of an index"):
        open_state(of_index)
    open_state(of_state).close()
    with pytest.raises(CorruptFileError):
        Flywheel.open(of_state, cache=tmp_path / "other", encoder="fakes:word_encoder")


def test_records_of_a_newer_release_are_refused() -> None:
    url = url_of("state_newer")
    database = open_state(url)
    open_state(named(database)).close()
    with database.transaction() as conn:
        conn.execute("INSERT INTO applied (n) VALUES (99)")
    database.close()
    with pytest.raises(NewerFormatError, match="found 99"):
        open_state(url)


def test_the_clock_is_that_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    database = open_state(url_of("state_clock"))
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: real + 86_400)
    assert abs(now(database) - real) < 30
    counts = ServerCounts(database)  # type: ignore[arg-type]
    first = counts.add("a", 1, 60)
    monkeypatch.setattr(time, "time", lambda: real - 86_400)
    second = counts.add("a", 2, 60)
    assert (first[0], second[0]) == (1, 3)
    assert 0 < second[1] <= first[1] <= 60
    clock = signed(b"s", "test", lambda: now(database))
    assert clock.loads(clock.dumps("x"), max_age=30) == "x"
    database.close()


def test_a_counter_of_the_server_ends() -> None:
    database = open_state(url_of("state_counts"))
    counts = ServerCounts(database)  # type: ignore[arg-type]
    assert [counts.add("a", 1, 0.2)[0], counts.add("a", 1, 0.2)[0]] == [1, 2]
    time.sleep(0.25)
    assert counts.add("a", 1, 9)[0] == 1
    database.close()


@pytest.mark.parametrize("written", [True, False])
def test_a_vote_whose_outcome_the_server_did_not_tell_is_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """It goes away after a commit, before it has said so, or before: the caller cannot know which."""
    with access.serve({"kb": access.make_index(tmp_path)}) as service:
        fw = service.app.state.service.indexes["kb"]
        feedback = fw.feedback_many

        def lost(*given: Any, **named: Any) -> None:
            if written:
                feedback(*given, **named)
            raise UnreachableError("the server cannot be reached")

        shown = service.client.post("/v1/retrieve", json={"query": access.QUERY}).json()["id"]
        body = {"retrieval_id": shown, "passage_id": "reset", "verdict": "helpful"}

        def send() -> Any:
            return service.client.post(
                "/v1/feedback", json=body, headers={"idempotency-key": "lost"}
            )

        monkeypatch.setattr(fw, "feedback_many", lost)
        answer = send()
        assert answer.status_code == 503, answer.text
        assert answer.json()["title"] == "UnreachableError"
        assert answer.headers["retry-after"] == "2"
        assert len(fw.votes()) == written
        monkeypatch.setattr(fw, "feedback_many", feedback)
        again = send()
        assert (again.status_code, again.json()) == (200, {"recorded": 1})
        assert "idempotent-replayed" not in again.headers
        assert send().headers["idempotent-replayed"] == "true"
        assert len(fw.votes()) == 1


def test_an_attempt_ends_no_other_one(tmp_path: Path) -> None:
    database = open_state(tmp_path / "service.db")
    first, second = (requests.Attempt("ann", "key", name) for name in ("first", "second"))
    assert requests.begin(database, first, b"d", {"kb": 7}) == requests.Begun(None)
    requests.leave(database, second)
    requests.drop(database, second)
    under_way = requests.begin(database, second, b"d", {"kb": 8})
    assert isinstance(under_way, requests.StoredAnswer)
    assert under_way.status is None
    requests.leave(database, first)  # its host lost the server
    assert requests.begin(database, second, b"d", {"kb": 8}) == requests.Begun({"kb": 7})
    requests.drop(database, first)  # which it notes late
    requests.end(database, first, requests.StoredAnswer(b"d", 200, {}, b"of the first"))
    requests.end(database, second, requests.StoredAnswer(b"d", 200, {}, b"of the second"))
    found = requests.begin(database, first, b"d", {})
    assert isinstance(found, requests.StoredAnswer)
    assert found.body == b"of the second"
    database.close()


def test_a_key_is_known_for_a_day_and_then_a_new_one(tmp_path: Path) -> None:
    for state in (tmp_path / "service.db", url_of("state_day")):
        database = open_state(state)
        first, second = (requests.Attempt("ann", "key", name) for name in ("first", "00second"))
        assert requests.begin(database, first, b"d", {"kb": 7}) == requests.Begun(None)
        requests.end(database, first, requests.StoredAnswer(b"d", 200, {"a": "b"}, b"c"))
        for ago_s, begun in ((requests.KNOWN_FOR_S - 60, False), (61.0, True)):
            with database.transaction() as conn:
                conn.execute("UPDATE requests SET at = at - ?", (ago_s,))
            found = requests.begin(database, second, b"other", {"kb": 9})
            assert (found == requests.Begun(None)) == begun
        assert requests.begin(database, first, b"other", {}) != requests.Begun(None)
        database.close()


def test_many_hosts_at_once_begin_a_request_once(tmp_path: Path) -> None:
    """Also one that is taken over, since its first host died."""
    url = url_of("state_race")
    begin, found = threading.Barrier(8), list[Any]()

    def run(name: int) -> None:
        database = open_state(url)
        for n in range(20):
            begin.wait()
            attempt = requests.Attempt("ann", f"key {n}", f"{name}")
            found.append((n, "first", requests.begin(database, attempt, b"d", {})))
            begin.wait()
            if name == 0:
                with database.transaction() as conn:
                    conn.execute("UPDATE requests SET at = at - ?", (requests.UNDER_WAY_S + 1,))
            begin.wait()
            found.append((n, "again", requests.begin(database, attempt, b"d", {})))
        database.close()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun = [(n, when, each.tried) for n, when, each in found if isinstance(each, requests.Begun)]
    expected = [(n, w, t) for n in range(20) for w, t in (("again", {}), ("first", None))]
    assert sorted(begun, key=str) == sorted(expected, key=str)


def test_a_job_of_another_host_lives_as_long_as_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_state(tmp_path / "service.db")
    monkeypatch.setattr(jobs, "this_host", lambda: "one")
    id_ = jobs.add(database, "kb", "refresh", lambda *_: False)
    jobs.set_process(database, id_, 4_000_000)
    assert not jobs.beat(database, id_)
    monkeypatch.setattr(jobs, "this_host", lambda: "two")
    assert jobs.process_of(database, id_) is None
    assert jobs.find(database, id_, lambda *_: False).state == "waiting"
    jobs.note_cancelled(database, id_)
    assert jobs.beat(database, id_)
    with database.transaction() as conn:
        conn.execute("UPDATE jobs SET beat = beat - ?, cancelled = 0", (jobs.SILENT_S,))
    assert jobs.find(database, id_, lambda *_: True).state == "failed"
    jobs.end(database, id_, "done", result={"a": 1})  # it only slept
    assert jobs.find(database, id_, lambda *_: True).result == {"a": 1}
    jobs.end(database, id_, "failed")
    assert jobs.find(database, id_, lambda *_: True).state == "done"
    database.close()
