"""A service in this process, with a fake encoder, and a client that calls it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.service.app import create_app
from rag_flywheel.service.settings import Settings
from shared_state import state_of

LOCAL = "http://127.0.0.1:8000"
PASSAGES = [
    Passage("reset", "to get a new password open the settings", metadata={"lang": "en"}),
    Passage("refund", "refunds are paid within a month", "Refund policy"),
    Passage("hours", "the desk is open from eight to six"),
]


def make_index(folder: Path, passages: list[Passage] = PASSAGES, **settings: Any) -> Path:
    """An index with a fake encoder that its settings name."""
    config = Config(encoder="fakes:WordEncoder", **settings)
    with Flywheel.open(folder, config=config) as fw:
        fw.add(passages)
    return folder


@contextmanager
def client_of(folder: Path, **settings: Any) -> Iterator[TestClient]:
    """Calls on a service of this index alone, under the name kb."""
    # nothing beside the calls, unless it is asked for: what runs there loads versions at its own time
    settings = {
        "warm": False,
        "numbers_s": 3_600.0,
        "coverage_s": 0.0,
        "state": state_of(folder),
        **settings,
    }
    app = create_app(Settings(indexes={"kb": folder}, **settings))
    with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as client:
        yield client
