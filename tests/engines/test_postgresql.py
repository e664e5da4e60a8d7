"""Tables of PostgreSQL: those of versions alone, a view of the live one, and errors when it is gone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from on_postgres import started
from rag_flywheel import Config, ConfigError, EngineError, Flywheel, Passage, restore
from rag_flywheel.index.remote import InDatabase

psycopg = pytest.importorskip("psycopg", reason="needs the extra pgvector: make test-engines")
PASSAGES = [Passage(f"p{i}", f"how to reset number{i} of the plum tree") for i in range(30)]


class Postgres:
    """A server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()

    def start(self) -> None:
        self._server = started(self._folder, cleanup_mode="stop")

    @property
    def url(self) -> str:
        return str(self._server.get_uri())

    def stop(self) -> None:
        self._server.cleanup()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "pg")
    yield server
    server.stop()


def opened(folder: Path, engine: str, **settings: Any) -> Flywheel:
    config = Config(encoder="", engine=engine, n_lookups=0, **settings)
    return Flywheel.open(folder, encoder=WordEncoder(), config=config)


def tables(url: str) -> set[str]:
    sql = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v') AND relname LIKE 'kb%'"
    with psycopg.connect(url, autocommit=True) as conn:
        return {name for (name,) in conn.execute(sql)}


def test_tables_are_those_of_versions_and_a_view_of_the_live_one(
    tmp_path: Path, own: Postgres
) -> None:
    with opened(tmp_path / "kb", f"pgvector:{own.url}#kb", keep_versions=2) as fw:
        for n in range(4):
            fw.add([Passage(f"more{n}", f"more plums {n}")])
            fw.refresh()
        versions = [name for name in tables(own.url) if not name.endswith("_words")]
        assert len(versions) == len(tables(own.url)) - 2 == 3  # and the view, of one name
        with psycopg.connect(own.url) as conn:
            assert conn.execute("SELECT count(*) FROM kb").fetchone() == (4,)
        fw.rollback()
        with psycopg.connect(own.url) as conn:
            assert conn.execute("SELECT count(*) FROM kb").fetchone() == (3,)
        assert fw.verify() == []
        with psycopg.connect(own.url, autocommit=True) as conn:
            for name in tables(own.url) - {"kb"}:
                conn.execute(f"DROP TABLE {name} CASCADE")
        assert ["does not hold" in said for said in fw.verify()] == [True, True]
        fw.release()
        assert fw.refresh().outcome == "promoted"
        assert len(fw.retrieve("more plums 3").hits) == 4


def test_a_restored_index_wants_a_refresh_where_its_tables_are_gone(
    tmp_path: Path, own: Postgres
) -> None:
    folder = tmp_path / "kb"
    with opened(folder, f"pgvector:{own.url}#kb", keep_versions=2) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        before = [hit.passage_id for hit in fw.retrieve("number7", record=False).hits]
        fw.backup(tmp_path / "saved")
        for n in range(3):  # until the version of the backup is deleted
            fw.add([Passage(f"more{n}", f"more plums {n}")])
            fw.refresh()
    restore(tmp_path / "saved", folder)
    with Flywheel.open(folder, encoder=WordEncoder()) as fw:
        with pytest.raises(EngineError, match="run `rag-flywheel refresh`"):
            fw.retrieve("number7")
        assert fw.refresh().outcome == "promoted"
        assert [h.passage_id for h in fw.retrieve("number7", record=False).hits] == before
        assert fw.verify() == []


def test_nothing_thin_is_answered_while_it_is_stopped(tmp_path: Path, own: Postgres) -> None:
    engine = f"pgvector:{own.url}#kb"
    with opened(tmp_path / "kb", engine) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        assert fw.retrieve("number7").hits[0].passage_id == "p7"
        assert isinstance(fw._serving()._live.state().version.engine, InDatabase)
        fw.add([Passage("fresh", "number8 is fresh")])
        own.stop()
        for query in ("number7", "number8"):
            with pytest.raises(EngineError, match=r"PostgreSQL at .*start it.*verify"):
                fw.retrieve(query)
        with pytest.raises(EngineError, match="PostgreSQL at"):
            fw.refresh()
        (problem,) = fw.verify()
        assert "PostgreSQL at" in problem
        assert fw.health().state == "broken"
        own.start()
        assert fw.retrieve("number8").hits[0].passage_id in {"fresh", "p8"}
        assert fw.refresh().outcome == "promoted"


@pytest.mark.parametrize(
    "engine",
    ["pgvector:postgresql://ann@db/kb", "pgvector:postgresql://ann:secret@db/kb#kb",
     "pgvector:postgresql://ann@db/kb?password=secret#kb", "pgvector:db#kb",
     "pgvector:postgresql://ann@db/kb#Kb", "pgvector:postgresql://ann@db/kb#kb;drop"],
)  # fmt: skip
def test_a_setting_that_names_no_database_or_has_a_password_is_refused(
    tmp_path: Path, engine: str
) -> None:
    with pytest.raises(ConfigError, match="DATABASE#PREFIX") as refused:
        opened(tmp_path / "kb", engine)
    assert "secret" not in str(refused.value)
