"""Whatever becomes of a database of vectors, or of what is in it: a clear error, never a thinner answer."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from lite import milvus_lite
from on_postgres import started
from rag_flywheel import Config, EngineError, Flywheel, Passage
from rag_flywheel.index import remote
from rag_flywheel.index.milvus import MilvusCollection
from rag_flywheel.store.vector_tables import TableCollection, VectorTables

psycopg = pytest.importorskip("psycopg", reason="needs the extra pgvector: make test-engines")
PASSAGES = [Passage(f"p{i}", f"how to reset number{i} of the plum tree") for i in range(40)]


class Own:
    """A server that a test may stop and start again."""

    def __init__(self, engine: str, start: Callable[[], None], stop: Callable[[], None]) -> None:
        self.engine, self.start, self.stop = engine, start, stop


@pytest.fixture(params=["pgvector", "milvus"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Own]:
    if request.param == "milvus":
        pytest.importorskip("milvus_lite", reason="needs the package milvus-lite")
        with milvus_lite(tmp_path / "milvus") as server:
            yield Own(f"milvus:{server.uri}/kb", server.start, server.kill)
        return
    running = [started(tmp_path / "pg", cleanup_mode="stop")]
    engine = f"pgvector:{running[0].get_uri()}#kb"

    def stop() -> None:
        running.pop().cleanup()

    def start() -> None:
        running.append(started(tmp_path / "pg", cleanup_mode="stop"))

    yield Own(engine, start, stop)
    for server in running:
        server.cleanup()


def opened(folder: Path, engine: str, **settings: Any) -> Flywheel:
    config = Config(encoder="", engine=engine, n_lookups=0, **settings)
    return Flywheel.open(folder, encoder=WordEncoder(), config=config)


def best(fw: Flywheel, query: str) -> str:
    return fw.retrieve(query, k=3, record=False).hits[0].passage_id


def hits(fw: Flywheel, queries: Sequence[str]) -> list[list[str]]:
    answers = fw.retrieve_many(queries, record=False)
    return [[hit.passage_id for hit in answer.hits] for answer in answers]


def test_it_is_gone_when_a_version_made_elsewhere_has_to_be_loaded(
    tmp_path: Path, own: Own
) -> None:
    with opened(tmp_path / "kb", own.engine) as fw, opened(tmp_path / "kb", own.engine) as other:
        fw.add(PASSAGES)
        fw.refresh()
        assert best(other, "number7") == "p7"
        fw.add([Passage("new", "number99 and nothing else")])
        fw.refresh()
        own.stop()
        for _ in range(2):
            with pytest.raises(EngineError, match=r"does not answer.*start it.*verify"):
                other.retrieve("number99")
        own.start()
        assert best(other, "number99") == "new"
        assert best(other, "number8") == "p8"
        assert other.health().state == "ok"


def test_it_is_gone_between_two_parts_of_a_batch(
    tmp_path: Path, own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [f"number{i % 40} in words{i}" for i in range(300)]
    with opened(tmp_path / "kb", own.engine) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        expected = hits(fw, queries)
        asked = list[int]()

        def stopping(search: Callable[..., Any]) -> Callable[..., Any]:
            def searched(self: Any, field: str, queries: Sequence[Any], *more: Any) -> Any:
                found = search(self, field, queries, *more)
                asked.append(len(queries))
                if len(asked) == 1:
                    own.stop()
                return found

            return searched

        with monkeypatch.context() as patch:
            for kind in (MilvusCollection, TableCollection):
                patch.setattr(kind, "search", stopping(kind.search))
            recorded = fw.status().n_retrievals
            with pytest.raises(EngineError, match="does not answer"):
                fw.retrieve_many(queries)
        assert asked == [remote._QUERIES]  # the next part raised
        assert fw.status().n_retrievals == recorded
        own.start()
        assert hits(fw, queries) == expected


def test_a_server_of_postgresql_that_hangs_is_an_error_too(
    tmp_path: Path, postgres: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VectorTables, "answering", partialmethod(VectorTables.answering, 1.0))
    with opened(tmp_path / "kb", f"pgvector:{postgres}#{prefix}") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        assert best(fw, "number7") == "p7"
        stopped = backends(fw)
        assert stopped
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(EngineError, match="does not answer"):
                fw.retrieve("number11")
            assert time.monotonic() - began < 5.0
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert best(fw, "number11") == "p11"
        timers = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
        assert all(timer.finished.is_set() for timer in timers)


def backends(fw: Flywheel) -> list[int]:
    """The processes of the server that serve its idle connections."""
    server: Any = fw._published
    return [conn.info.backend_pid for conn in server.server._idle]


@pytest.mark.parametrize("what", ["both", "words", "rows of words", "a row"])
def test_tables_that_somebody_dropped_or_emptied(
    tmp_path: Path, postgres: str, prefix: str, what: str
) -> None:
    folder, engine = tmp_path / "kb", f"pgvector:{postgres}#{prefix}"
    with opened(folder, engine) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        assert best(fw, "number7") == "p7"
        with psycopg.connect(postgres, autocommit=True) as conn:
            sql = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE %s"
            main, words = sorted(n for (n,) in conn.execute(sql, (f"{prefix}\\_%",)).fetchall())
            conn.execute(
                {
                    "both": f"DROP TABLE {main}, {words} CASCADE",
                    "words": f"DROP TABLE {words} CASCADE",
                    "rows of words": f"DELETE FROM {words} WHERE pid = 8",
                    "a row": f"DELETE FROM {main} WHERE pid = 8",
                }[what]
            )
        (said,) = fw.verify()
        assert "does not hold the 40 passages" in said
        assert fw.health().state == "broken"
        with opened(folder, engine) as late, pytest.raises(EngineError, match="refresh"):
            late.retrieve("number7")
        assert fw.refresh().outcome == "promoted"
        assert fw.verify() == []
        assert best(fw, "number7") == "p7"
        with opened(folder, engine) as late:
            assert best(late, "number7") == "p7"
