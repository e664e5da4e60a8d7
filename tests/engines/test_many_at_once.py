"""An index in Milvus is asked by many threads, from forked processes, and after a change of the encoder."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes import WordEncoder
from lite import MilvusLite
from rag_flywheel import Config, Flywheel, Passage

pytest.importorskip("milvus_lite", reason="needs the package milvus-lite: make test-engines")
pytest.importorskip("pymilvus", reason="needs the extra milvus: make test-engines")
PASSAGES = [Passage(f"p{i}", f"how to reset number{i} of the plum tree") for i in range(60)]


def opened(folder: Path, address: str, encoder: WordEncoder | None = None) -> Flywheel:
    config = Config(encoder="", engine=address, n_lookups=0)
    return Flywheel.open(folder, encoder=encoder or WordEncoder(), config=config)


def best(fw: Flywheel, i: int) -> str:
    return fw.retrieve(f"reset number{i}", k=3, record=False).hits[0].passage_id


def test_threads_get_what_one_gets_while_passages_come_and_a_version_swaps(
    tmp_path: Path, address: str
) -> None:
    with opened(tmp_path / "kb", address) as fw, ThreadPoolExecutor(6) as pool:
        fw.add(PASSAGES)
        fw.refresh()
        found = pool.map(lambda i: best(fw, i % 60), range(90))
        fw.add([Passage(f"q{i}", f"another text about fig{i}") for i in range(30)])
        fw.refresh()
        assert list(found) == [f"p{i % 60}" for i in range(90)]
        assert list(pool.map(lambda i: best(fw, i), range(60))) == [f"p{i}" for i in range(60)]


def test_a_forked_process_has_a_connection_of_its_own(
    tmp_path: Path, address: str, server: MilvusLite
) -> None:
    with opened(tmp_path / "kb", address) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        assert best(fw, 3) == "p3"
        child = os.fork()
        if child == 0:
            said = 1
            try:
                said = 0 if best(fw, 7) == "p7" else 2
            finally:
                os._exit(said)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert best(fw, 11) == "p11"


def test_another_encoder_makes_collections_of_its_own(tmp_path: Path, address: str) -> None:
    with opened(tmp_path / "kb", address) as fw:
        fw.add(PASSAGES)
        first = fw.refresh().version
        other = WordEncoder(dim=32, name="narrow", revision="2")
        assert fw.change_encoder(other, force=True).outcome == "promoted"
        assert best(fw, 3) == "p3"
        assert fw.verify() == []
        fw.rollback(first)
        assert best(fw, 5) == "p5"
