"""While the server of an index is gone, questions are answered from what was loaded, whole or not at all, and
votes are a clear error; afterwards nothing that was acknowledged is missing."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from rag_flywheel import Flywheel, Passage, Retrieval, UnknownIdError
from rag_flywheel.errors import NotRecordedWarning, UnreachableError
from rag_flywheel.serve import postponed
from rag_flywheel.store.text_copy import FILE_NAME

AT_ONCE_S = 2.0
KILLED = pytest.mark.parametrize("killed", [False, True], ids=["shut down", "killed"])


def opened(server: Any, root: Path, **more: Any) -> Flywheel:
    """An index on this server, as a process has it."""
    url = f"{server.get_uri()}&schema=kb"
    return Flywheel.open(url, cache=root, encoder=WordEncoder(), **more)


def stop(server: Any, *, killed: bool) -> None:
    """Shut the server down, or kill it without a chance to write anything."""
    pid = server.get_pid()
    os.kill(pid, signal.SIGKILL if killed else signal.SIGINT)
    until = time.monotonic() + 30
    path = Path(server.get_uri().rpartition("host=")[2]) / ".s.PGSQL.5432"
    while time.monotonic() < until and (_runs(pid) or _answers(path)):
        time.sleep(0.02)


def start(server: Any) -> None:
    """Start it again; what a killed one left is no sign that it runs."""
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        left = Path(server.pgdata) / name
        if left.exists() and not _runs(int(left.read_text().split()[0])):
            left.unlink()
    server.ensure_postgres_running()


def _runs(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.connect(str(path))
        return True
    return False


def shown(found: Retrieval) -> list[tuple[str, str, str]]:
    """What a user sees of an answer."""
    return [(hit.passage_id, hit.title, hit.text) for hit in found.hits]


def at_once(call: Callable[[], Any]) -> Any:
    """What the call returns, which must not take long."""
    began = time.monotonic()
    try:
        return call()
    finally:
        assert time.monotonic() - began < AT_ONCE_S


@KILLED
def test_answers_go_on_votes_say_why_not_and_nothing_is_lost(
    own_server: Any, tmp_path: Path, killed: bool
) -> None:
    with opened(own_server, tmp_path / "kb") as fw:
        fw.add([*PASSAGES, Passage("gone", f"{QUERY} and more")])
        fw.refresh()
        fw.add([Passage("new", f"new {QUERY}", metadata={"lang": "en"})], remove=["gone"])
        before = fw.retrieve(QUERY, k=5, user_id="u")
        fw.feedback(before.id, before.hits[1].passage_id, "helpful", user_id="u")
        expected = shown(fw.retrieve(QUERY, k=5, record=False))
        filtered = shown(fw.retrieve(QUERY, k=5, where={"lang": "en"}, record=False))
        assert len(expected) == 5
        assert [id_ for id_, *_ in filtered] == ["new"]
        stop(own_server, killed=killed)
        given = [at_once(lambda: fw.retrieve(QUERY, k=5, user_id="v")) for _ in range(20)]
        assert all(shown(each) == expected for each in given)
        last = fw.retrieve(f"{QUERY} in other words", k=8)
        assert len(last.hits) == 8
        where = {"lang": "en"}
        assert shown(at_once(lambda: fw.retrieve(QUERY, 5, where=where, record=False))) == filtered
        for id_ in (before.id, given[0].id):
            with pytest.raises(UnreachableError, match="cannot be reached"):
                at_once(lambda id_=id_: fw.feedback(id_, expected[0][0], "harmful", user_id="v"))
        with pytest.raises(UnreachableError):
            at_once(lambda: fw.add(PASSAGES[:1]))
        start(own_server)
        wait_until(lambda: fw.feedback(given[0].id, expected[0][0], "harmful", user_id="v"))
        assert [vote.verdict for vote in fw.votes()] == ["harmful", "helpful"]
        assert fw.retrieval(str(last.id)).query == last.query
        assert len(fw.retrievals(100)) == 22
        assert fw.verify() == []
        after = fw.retrieve(QUERY, k=5, record=False)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        again = fw.retrieve(QUERY, k=5, record=False)
        assert shown(again) == shown(after)
        assert [hit.score for hit in again.hits] == pytest.approx([h.score for h in after.hits])


def wait_until(call: Callable[[], Any]) -> Any:
    """What the call returns as soon as the server is back."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with suppress(UnreachableError):
            return call()
        time.sleep(0.05)
    return call()


def test_what_was_asked_by_one_who_opted_out_is_not_recorded_afterwards(
    own_server: Any, tmp_path: Path
) -> None:
    with opened(own_server, tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.opt_out("v")
        assert fw.retrieve(QUERY, user_id="v").id is None
        stop(own_server, killed=False)
        given = fw.retrieve(QUERY, user_id="v")
        other = fw.retrieve(QUERY, user_id="w")
        start(own_server)
        wait_until(lambda: fw.retrieval(str(other.id)))
        with pytest.raises(UnknownIdError):
            fw.retrieval(str(given.id))


def test_of_very_many_answers_the_last_have_no_id(
    own_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postponed, "MOST", 3)
    with opened(own_server, tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.retrieve(QUERY, record=False)
        stop(own_server, killed=False)
        given = [fw.retrieve(f"{QUERY} {n}") for n in range(3)]
        with pytest.warns(NotRecordedWarning):
            assert fw.retrieve(QUERY).id is None
        start(own_server)
        wait_until(lambda: fw.retrieval(str(given[2].id)))


def test_without_the_texts_no_answer_is_given(own_server: Any, tmp_path: Path) -> None:
    """One that reads alone keeps no copy of them; and one whose copy is lost has none either."""
    root = tmp_path / "kb"
    with opened(own_server, root) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        with Flywheel.open(root, encoder=WordEncoder(), read_only=True) as reader:
            reader.retrieve("other", k=1)
            fw.retrieve("other", k=1)
            for beside in ("", "-wal", "-shm"):
                (root / (FILE_NAME + beside)).unlink(missing_ok=True)
            stop(own_server, killed=False)
            for each in (reader, fw):
                with pytest.raises(UnreachableError):
                    at_once(lambda each=each: each.retrieve(QUERY, k=8, record=False))
        start(own_server)
        assert len(wait_until(lambda: fw.retrieve(QUERY, k=8)).hits) == 8


def test_a_server_that_is_killed_under_load_costs_no_answer_and_no_acknowledged_vote(
    own_server: Any, tmp_path: Path
) -> None:
    """Threads ask and vote while it is killed and shut down in turns."""
    over, failed, kept = threading.Event(), list[BaseException](), list[tuple[str, str]]()
    with opened(own_server, tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        first = fw.retrieve(QUERY, k=5)
        passage = first.hits[0].passage_id

        def ask(name: int) -> None:
            n = 0
            while not over.is_set():
                n += 1
                assert len(fw.retrieve(f"{QUERY} {name} {n}", k=5, record=n % 4 == 0).hits) == 5
                time.sleep(0.005)

        def vote(name: int) -> None:
            n = 0
            while not over.is_set():
                n, user = n + 1, f"{name} {n}"
                with suppress(UnreachableError):
                    at_once(
                        lambda user=user: fw.feedback(first.id, passage, "helpful", user_id=user)
                    )
                    kept.append((passage, user))
                time.sleep(0.005)

        def guarded(work: Callable[[int], None], name: int) -> None:
            try:
                work(name)
            except BaseException as error:
                failed.append(error)

        threads = [
            threading.Thread(target=guarded, args=(work, name))
            for name in range(2)
            for work in (ask, vote)
        ]
        for thread in threads:
            thread.start()
        for killed in (True, False):
            n_before = len(kept)
            while len(kept) < n_before + 5 and not failed:
                time.sleep(0.01)
            stop(own_server, killed=killed)
            time.sleep(0.3)
            start(own_server)
        n_before = len(kept)
        while len(kept) < n_before + 5 and not failed:
            time.sleep(0.01)
        over.set()
        for thread in threads:
            thread.join()
        assert failed == []
        stored = fw.votes(10_000)
        assert len(stored) >= len(kept)  # of one whose answer was lost it is not known
        assert len({vote.user for vote in stored}) == len(stored)
        assert fw.verify() == []
        after = fw.retrieve(QUERY, k=5, record=False)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        again = fw.retrieve(QUERY, k=5, record=False)
        assert [(h.passage_id, sorted(h.explanation.votes)) for h in again.hits] == [
            (h.passage_id, sorted(h.explanation.votes)) for h in after.hits
        ]
