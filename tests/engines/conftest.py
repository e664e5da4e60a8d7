from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from lite import Both, MilvusLite, milvus_lite
from rag_flywheel import Config, Flywheel


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    """A server that all tests share, each with a prefix of its own."""
    with milvus_lite(tmp_path_factory.mktemp("milvus")) as running:
        yield running


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return "t_" + "".join(c if c.isalnum() else "_" for c in request.node.name)[:80]


@pytest.fixture
def address(server: MilvusLite, prefix: str) -> str:
    return f"milvus:{server.uri}/{prefix}"


@pytest.fixture
def both(tmp_path: Path, address: str) -> Iterator[Callable[..., Both]]:
    """Opens both, with the same settings."""
    opened: list[Flywheel] = []

    def open_both(encoder: Any = None, **settings: Any) -> Both:
        for name, engine in (("memory", None), ("milvus", address)):
            config = Config(encoder="", engine=engine, **settings)
            own = WordEncoder() if encoder is None else encoder
            opened.append(Flywheel.open(tmp_path / name, encoder=own, config=config))
        return Both(*opened)

    yield open_both
    for fw in opened:
        fw.close()
