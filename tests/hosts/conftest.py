import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cut_line import Line
from hosts import Shared
from on_postgres import schema_of, url_of
from s3 import BUCKET, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of a server of S3 that all tests share, each with a prefix of its own."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server() as url:
        yield url


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    """An index on the server that nobody has opened, and a folder as its object store."""
    pytest.importorskip("obstore", reason="needs the extra objects")
    made = Shared(tmp_path, url_of(schema_of(tmp_path)), f"file://{tmp_path}/store")
    yield made
    made.close()


@pytest.fixture
def line(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """A line to the server of S3, which can be cut."""
    made = Line(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    made.close()


@pytest.fixture
def on_s3(tmp_path: Path, line: Line) -> Iterator[Shared]:
    """An index on the server that nobody has opened, and a bucket behind that line."""
    pytest.importorskip("obstore", reason="needs the extra objects")
    made = Shared(tmp_path, url_of(schema_of(tmp_path)), f"s3://{BUCKET}/{tmp_path.name}")
    yield made
    made.close()
