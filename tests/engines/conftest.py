import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from lite import Both, MilvusLite, milvus_lite
from on_postgres import started
from rag_flywheel import Config, Flywheel


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    """A server of Milvus that all tests share, each with a prefix of its own."""
    pytest.importorskip("milvus_lite", reason="needs the package milvus-lite: make test-engines")
    pytest.importorskip("pymilvus", reason="needs the extra milvus: make test-engines")
    with milvus_lite(tmp_path_factory.mktemp("milvus")) as running:
        yield running


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of PostgreSQL, on no port, that all tests share."""
    running = started(tmp_path_factory.mktemp("pg"))
    yield str(running.get_uri())
    running.cleanup()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return "t" + hashlib.blake2b(request.node.nodeid.encode(), digest_size=6).hexdigest()


@pytest.fixture
def address(server: MilvusLite, prefix: str) -> str:
    return f"milvus:{server.uri}/{prefix}"


@pytest.fixture(params=["milvus", "pgvector"])
def any_address(request: pytest.FixtureRequest, prefix: str) -> str:
    """Of one of the databases of vectors."""
    if request.param == "milvus":
        return f"milvus:{request.getfixturevalue('server').uri}/{prefix}"
    return f"pgvector:{request.getfixturevalue('postgres')}#{prefix}"


@pytest.fixture
def both(tmp_path: Path, any_address: str) -> Iterator[Callable[..., Both]]:
    """Opens both, with the same settings."""
    opened: list[Flywheel] = []

    def open_both(encoder: Any = None, **settings: Any) -> Both:
        for name, engine in (("memory", None), ("elsewhere", any_address)):
            config = Config(encoder="", engine=engine, **settings)
            own = WordEncoder() if encoder is None else encoder
            opened.append(Flywheel.open(tmp_path / name, encoder=own, config=config))
        return Both(*opened)

    yield open_both
    for fw in opened:
        fw.close()
