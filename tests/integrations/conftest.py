import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder, word_encoder
from in_process import client_of
from rag_flywheel import Flywheel, Passage

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # it would call home

DESK = [
    Passage("reset", "press reset for a new password", metadata={"lang": "en", "year": 2024}),
    Passage("mail", "write a mail for the password", "By mail", {"lang": "en", "year": 2020}),
    Passage("dogs", "dogs bark at every password", metadata={"lang": "de"}),
    Passage("cats", "cats sleep most of the day", metadata={"lang": "de"}),
]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Flywheel]:
    """An index of four passages, three of them on passwords."""
    with Flywheel.open(tmp_path / "kb", encoder="fakes:word_encoder") as fw:
        fw.add(DESK)
        yield fw


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Flywheel]:
    with Flywheel.open(tmp_path / "empty", encoder=WordEncoder()) as fw:
        yield fw


@pytest.fixture(params=["flywheel", "client"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The same, as a Flywheel and behind a service."""
    with Flywheel.open(tmp_path / "both", encoder="fakes:word_encoder") as fw:
        fw.add(DESK)
        if request.param == "flywheel":
            yield fw
            return
    assert word_encoder().dim
    with client_of(tmp_path / "both") as client:
        yield client
