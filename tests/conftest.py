import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from rag_flywheel import Flywheel, Passage
from rag_flywheel.store.place import is_linked
from sqlite_alone import why_skipped
from thorough import register_profiles

register_profiles()

os.environ.setdefault("HF_HUB_OFFLINE", "1")


WHOLLY_SLOW = re.compile(r"^pytestmark = .*\bmark\.(slow|model)\b", flags=re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The fast tests do not import files in which all tests are slow: torch takes seconds."""
    if collection_path.suffix != ".py" or "not slow and not model" not in config.option.markexpr:
        return None
    return WHOLLY_SLOW.search(collection_path.read_text(encoding="utf-8")) is not None or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where every index is on a server, the tests of SQLite itself are skipped, and so are those of
    passages in memory where they are in a database of vectors."""
    alone = []
    if os.environ.get("RAG_FLYWHEEL_TEST_STORE") == "postgresql":
        alone.append(why_skipped)
    if os.environ.get("RAG_FLYWHEEL_TEST_ENGINE"):
        import on_engine

        alone.append(on_engine.why_skipped)
    for item in items:
        for why_not in alone:
            if (why := why_not(item.nodeid)) is not None:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session", autouse=True)
def every_index_on_a_server() -> Iterator[None]:
    """Where RAG_FLYWHEEL_TEST_STORE is "postgresql"."""
    if os.environ.get("RAG_FLYWHEEL_TEST_STORE") != "postgresql":
        yield
        return
    import sqlite3

    from on_postgres import connect_to_server, open_on_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_to_server(sqlite3.connect))
        patch.setattr(Flywheel, "open", open_on_server(Flywheel.__dict__["open"].__func__))
        yield


@pytest.fixture(autouse=True)
def schemas_of_this_test(every_index_on_a_server: None) -> Iterator[None]:
    """On a server, their tables are for later tests."""
    if os.environ.get("RAG_FLYWHEEL_TEST_STORE") != "postgresql":
        yield
        return
    from on_postgres import schemas_given_back

    with schemas_given_back():
        yield


@pytest.fixture
def own_server() -> Iterator[Any]:
    """A PostgreSQL server of this test alone, which it may stop."""
    from on_postgres import started

    data = Path(os.environ.get("TMPDIR", "/tmp")) / f"pg-{os.getpid()}"
    server = started(data)
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def every_index_in_an_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where RAG_FLYWHEEL_TEST_ENGINE names one."""
    if not os.environ.get("RAG_FLYWHEEL_TEST_ENGINE"):
        yield
        return
    from on_engine import every_index_there

    with every_index_there(tmp_path_factory.mktemp("engine")):
        yield


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def fw(tmp_path: Path, encoder: WordEncoder) -> Iterator[Flywheel]:
    """An empty index with the word encoder."""
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as flywheel:
        yield flywheel


@pytest.fixture
def help_desk() -> list[Passage]:
    return [
        Passage("reset", "open settings and press reset to get a new password"),
        Passage("secret", "the account page changes the login secret", metadata={"lang": "en"}),
        Passage("refund", "refunds are paid within thirty days", "Refund policy", {"lang": "en"}),
        Passage("cats", "kittens sleep most of the day", metadata={"lang": "de", "year": 2021}),
    ]


@pytest.fixture
def data_folder() -> Path:
    """The folder of real collections; tests that need it skip, visibly, without it."""
    folder = os.environ.get("RAG_FLYWHEEL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RAG_FLYWHEEL_DATA names no folder of collections")
    return Path(folder)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed index with two versions, 30 passages and one vote; copied, never changed."""
    root = tmp_path_factory.mktemp("sound") / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add(PASSAGES[:20])
        assert fw.refresh().outcome == "promoted"
        fw.add(PASSAGES[20:])
        assert fw.refresh().outcome == "promoted"
        fw.feedback(fw.retrieve(QUERY).id, "p3", "helpful", user_id="u")
        assert fw.verify() == []
    return root


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return copied(sound, tmp_path / "kb")


@pytest.fixture(scope="session")
def voted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copied, never changed."""
    from tuned import make_voted  # imports torch

    return made_once(tmp_path_factory, "voted", make_voted)


@pytest.fixture(scope="session")
def tuned_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copied, never changed."""
    from tuned import make_tuned

    with pytest.MonkeyPatch.context() as patch:
        teach_fast(patch)
        return made_once(tmp_path_factory, "tuned", make_tuned)


def copied(source: Path, dest: Path) -> Path:
    """A copy of an index folder that nobody uses, with a store of its own."""
    shutil.copytree(source, dest)
    if is_linked(dest):
        from on_postgres import part

        part(dest)
    return dest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Path]) -> Path:
    """A folder that one process of the test run makes for all of them."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    shared = factory.getbasetemp() if alone else factory.getbasetemp().parent
    root = shared / name / "kb"
    root.parent.mkdir(exist_ok=True)
    with FileLock(root.parent / "lock"):
        if not (root.parent / "made").exists():
            shutil.rmtree(root, ignore_errors=True)  # of one that failed
            make(root)
            (root.parent / "made").touch()
    return root


def teach_fast(patch: pytest.MonkeyPatch) -> None:
    """At the rate that suits the small encoder."""
    from rag_flywheel.improve import teach
    from teachable import RATE

    patch.setattr(teach, "RATE", RATE)


@pytest.fixture
def voted(voted_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed index with past queries that can teach its encoder."""
    teach_fast(monkeypatch)
    return copied(voted_once, tmp_path / "kb")


@pytest.fixture
def tuned(tuned_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed index whose second version is tuned."""
    teach_fast(monkeypatch)
    return copied(tuned_once, tmp_path / "kb")
