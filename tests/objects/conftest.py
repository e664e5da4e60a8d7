import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from rag_flywheel import Flywheel, Passage
from rag_flywheel.deploy.objects import Objects
from s3 import BUCKET, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of a server of S3 that all tests share, each with a prefix of its own."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server() as url:
        yield url


@pytest.fixture(params=["file", "memory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty store of each kind."""
    pytest.importorskip("obstore", reason="needs the extra objects: make test-objects")
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Objects.at(f"s3://{BUCKET}/{tmp_path.name}")
    return Objects.at({"file": f"file://{tmp_path}/a store", "memory": "memory:///"}[request.param])


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with three versions: some passages, one more and a vote, and one less. Never changed."""
    root = tmp_path_factory.mktemp("built") / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        fw.add([Passage("more", "quite other things")])
        fw.feedback(fw.retrieve(QUERY, user_id="u").id, "p3", "helpful", user_id="u")
        fw.refresh()
        fw.remove(["p7"])
        fw.refresh()
    return root


@pytest.fixture
def host(tmp_path: Path) -> Callable[[str], Path]:
    """Makes an empty index folder by its name."""

    def new(name: str) -> Path:
        with Flywheel.open(tmp_path / name, encoder=WordEncoder()):
            pass
        return tmp_path / name

    return new
