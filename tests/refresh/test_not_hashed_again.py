"""A refresh does not hash what did not change, and trusts no file for that which is another one."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.verify import checked_before, note_checked
from rag_flywheel.deploy.versions import read_manifest
from rag_flywheel.store.database import Database
from rag_flywheel.store.place import open_database

QUERY = "word3 common"
OTHER = "0" * 64


@pytest.fixture
def fw(tmp_path: Path) -> Iterator[Flywheel]:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add(Passage(f"p{i}", f"common word{i} and word{i + 1}") for i in range(12))
        fw.refresh()
        yield fw


@pytest.fixture
def database(fw: Flywheel) -> Iterator[Database]:
    database = open_database(Path(fw.status().path))
    yield database
    database.close()


def root_of(fw: Flywheel) -> Path:
    return Path(fw.status().path)


def live(fw: Flywheel) -> str:
    return str(fw.status().version)


def manifest(fw: Flywheel) -> Manifest:
    return read_manifest(root_of(fw), live(fw))


def vote(fw: Flywheel) -> None:
    shown = fw.retrieve(QUERY)
    fw.feedback(shown.id, shown.hits[0].passage_id, "helpful")


def pretend(fw: Flywheel, name: str) -> None:
    """Another hash of a file in the live manifest."""
    path = root_of(fw) / "versions" / live(fw) / "manifest.json"
    values = json.loads(path.read_text())
    values["files"][name][0] = OTHER
    path.write_text(json.dumps(values))


def test_a_version_that_was_just_built_is_not_read_again(fw: Flywheel, database: Database) -> None:
    for _ in range(8):  # enough that older versions, with links to the same files, are deleted
        vote(fw)
        assert fw.refresh().outcome == "promoted"
        assert checked_before(root_of(fw), database, live(fw))
    assert fw.refresh().outcome == "unchanged"
    assert fw.verify() == []


def test_files_of_the_parent_are_linked_and_not_hashed_again(
    fw: Flywheel, database: Database
) -> None:
    before = manifest(fw)
    pretend(fw, "vectors/0000000000000000001.npy")
    note_checked(root_of(fw), database, live(fw))
    vote(fw)
    fw.refresh()
    after = manifest(fw)
    assert after.id != before.id
    assert after.files["vectors/0000000000000000001.npy"][0] == OTHER
    assert after.files["tokens/ids-1.npy"] == before.files["tokens/ids-1.npy"]
    assert [p for p in fw.verify() if after.id in p] == [
        f"{after.id}/vectors/0000000000000000001.npy is not what its manifest says (sha256 differs)"
    ]


def test_a_file_whose_name_is_the_same_but_not_its_contents_is_hashed(
    fw: Flywheel, database: Database
) -> None:
    vote(fw)
    fw.refresh()
    first = manifest(fw)
    pretend(fw, "memory/queries.npy")
    note_checked(root_of(fw), database, live(fw))
    vote(fw)
    fw.refresh()
    assert manifest(fw).files["memory/queries.npy"] == first.files["memory/queries.npy"]
    fw.add([Passage("more", "quite other things")])
    fw.refresh()
    assert fw.verify() == [p for p in fw.verify() if first.id in p]


@pytest.mark.parametrize("name", ["vectors/0000000000000000001.npy", "tokens/ids-1.npy"])
def test_a_file_that_was_changed_and_given_its_old_time_is_built_anew(
    fw: Flywheel, database: Database, name: str
) -> None:
    vote(fw)
    fw.refresh()
    before, path = manifest(fw), root_of(fw) / "versions" / live(fw) / name
    state, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not checked_before(root_of(fw), database, live(fw))
    vote(fw)
    assert fw.refresh().outcome == "promoted"
    assert manifest(fw).id != before.id
    assert [p for p in fw.verify() if live(fw) in p] == []
