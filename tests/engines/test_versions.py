"""Versions in Milvus: written, shared, rolled back to, and deleted with the last that has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from lite import Both, MilvusLite
from rag_flywheel import Config, ConfigError, EngineError, Flywheel, Passage
from rag_flywheel.index.in_memory import InMemory
from rag_flywheel.index.remote import InDatabase

pytest.importorskip("milvus_lite", reason="needs the package milvus-lite: make test-engines")
pymilvus = pytest.importorskip("pymilvus", reason="needs the extra milvus: make test-engines")
MilvusClient = Any
Open = Callable[..., Both]
DESK = [
    Passage("reset", "press reset for a new password"),
    Passage("mail", "write a mail for the password", "By mail"),
    Passage("dogs", "dogs bark at every password"),
    Passage("cats", "cats sleep most of the day"),
]
QUERY = "a new password"


@pytest.fixture
def client(server: MilvusLite) -> MilvusClient:
    return pymilvus.MilvusClient(uri=server.uri)


@pytest.fixture
def fw(tmp_path: Path, address: str) -> Any:
    config = Config(encoder="", engine=address, keep_versions=2, n_lookups=0)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as found:
        found.add(DESK)
        yield found


def engine_of(fw: Flywheel) -> object:
    return fw._serving()._live.state().version.engine


def collections(client: MilvusClient, prefix: str) -> set[str]:
    return {name for name in client.list_collections() if name.startswith(f"{prefix}_")}


def test_before_the_first_refresh_passages_are_found_in_memory(fw: Flywheel) -> None:
    assert fw.retrieve(QUERY, k=1).hits[0].passage_id == "reset"
    assert isinstance(engine_of(fw), InMemory)
    fw.refresh()
    assert fw.retrieve(QUERY, k=1).hits[0].passage_id == "reset"
    assert isinstance(engine_of(fw), InDatabase)


def test_versions_with_the_same_passages_share_a_collection(
    fw: Flywheel, client: MilvusClient, prefix: str
) -> None:
    fw.refresh()
    (first,) = collections(client, prefix)
    answer = fw.retrieve(QUERY, user_id="ann")
    fw.feedback(answer.id, "mail", "helpful", user_id="ann")
    assert fw.refresh().outcome == "promoted"
    assert collections(client, prefix) == {first}
    fw.add([Passage("more", "more passwords")])
    assert fw.refresh().outcome == "promoted"
    assert len(collections(client, prefix)) == 2
    assert client.list_aliases(first)["aliases"] == []


def test_collections_are_deleted_with_the_last_version_that_has_them(
    fw: Flywheel, client: MilvusClient, prefix: str
) -> None:
    other = "other_index_0123456789"
    client.create_collection(f"{prefix}_{other}", dimension=4)
    seen = []
    for n in range(5):
        fw.add([Passage(f"more{n}", f"more passwords {n}")])
        fw.refresh()
        seen.append(collections(client, prefix))
        assert len(fw.versions()) == min(n + 1, 2) == len(seen[-1]) - 1
        (live,) = {name for name in seen[-1] if client.list_aliases(name)["aliases"] == [prefix]}
        assert n == 0 or live not in seen[-2]
    assert f"{prefix}_{other}" in seen[-1]  # another's


def test_a_rollback_moves_the_alias(fw: Flywheel, client: MilvusClient, prefix: str) -> None:
    fw.refresh()
    (first,) = collections(client, prefix)
    fw.add([Passage("pw", "a new password by post")])
    fw.refresh()
    assert client.list_aliases(first)["aliases"] == []
    fw.rollback()
    assert client.list_aliases(first)["aliases"] == [prefix]


def test_a_rollback_answers_as_memory_does(both: Open) -> None:
    found = both(n_lookups=0)
    found.do(lambda fw: fw.add(DESK))
    found.do(lambda fw: fw.refresh())
    found.do(lambda fw: fw.add([Passage("pw", "a new password by post")], remove=["mail"]))
    found.do(lambda fw: fw.refresh())
    assert found.same(QUERY)[0] == "pw"
    found.do(lambda fw: fw.rollback())
    assert found.same(QUERY)
    found.do(lambda fw: fw.release())
    found.do(lambda fw: fw.refresh())
    assert found.same(QUERY)


def test_what_a_build_that_died_left_is_no_hindrance(
    fw: Flywheel, client: MilvusClient, prefix: str
) -> None:
    fw.refresh()
    (name,) = collections(client, prefix)
    client.drop_collection(name)
    client.create_collection(f"{name}_building", dimension=4)
    assert fw.refresh().outcome == "promoted"
    assert collections(client, prefix) >= {name}
    assert fw.retrieve(QUERY, k=1).hits[0].passage_id == "reset"
    client.delete(name, filter="pid in [1]")  # and as a database that lost a part of one
    found = fw.verify()  # of both versions, which share it
    assert len(found) == 2
    assert all("does not hold the 4 passages" in said and name in said for said in found)
    assert fw.refresh().outcome == "promoted"
    assert fw.verify() == []
    assert fw.retrieve(QUERY, k=1).hits[0].passage_id == "reset"


def test_a_collection_that_is_gone_is_an_error_until_a_refresh(
    fw: Flywheel, client: MilvusClient, prefix: str, server: MilvusLite
) -> None:
    fw.refresh()
    fw.retrieve(QUERY)
    (name,) = collections(client, prefix)
    client.drop_collection(name)
    with pytest.raises(EngineError, match=server.uri):
        fw.retrieve("another question")
    with (
        Flywheel.open(fw.status().path, encoder=WordEncoder()) as late,
        pytest.raises(EngineError, match=f"{name} of 4 passages.*refresh"),
    ):
        late.retrieve(QUERY)
    assert fw.health().state == "broken"
    fw.refresh()
    assert len(fw.retrieve("another question").hits) == 4
    assert fw.health().state == "ok"


def test_a_version_of_before_the_setting_is_answered_from_memory(
    tmp_path: Path, address: str
) -> None:
    folder = tmp_path / "kb"
    with Flywheel.open(folder, encoder=WordEncoder()) as plain:
        plain.add(DESK)
        plain.refresh()
    settings = folder / "flywheel.toml"
    settings.write_text(settings.read_text() + f'engine = "{address}"\n')
    with Flywheel.open(folder, encoder=WordEncoder()) as found:
        assert len(found.retrieve(QUERY).hits) == 4
        assert isinstance(engine_of(found), InMemory)
        (check,) = [c for c in found.health().checks if c.name == "engine"]
        assert check.state == "degraded"
        assert found.refresh().outcome == "promoted"
        assert len(found.retrieve(QUERY).hits) == 4
        assert isinstance(engine_of(found), InDatabase)
        assert found.refresh().outcome == "unchanged"
        assert found.verify() == []
        assert found.status().engine == address
    settings.write_text(settings.read_text().replace(f'engine = "{address}"\n', ""))
    with Flywheel.open(folder, encoder=WordEncoder()) as plain:
        assert len(plain.retrieve(QUERY).hits) == 4
        assert isinstance(engine_of(plain), InMemory)


@pytest.mark.parametrize(
    "engine",
    ["milvus", "faiss:x", "milvus:localhost:19530/kb", "milvus:http://a:1", "milvus:http://a/b c",
     "milvus:http://root:secret@a:1/kb"],
)  # fmt: skip
def test_a_setting_that_names_no_server_is_refused(tmp_path: Path, engine: str) -> None:
    with pytest.raises(ConfigError, match="http://HOST:PORT/PREFIX"):
        Flywheel.open(tmp_path / "kb", config=Config(encoder="", engine=engine))
