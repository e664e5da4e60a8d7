"""A backup is restored over an index that hosts share, from one of their folders."""

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from fakes import WordEncoder
from folders import QUERY
from hosts import Shared, come_to
from rag_flywheel import Flywheel, InputError, Passage, StorageError, restore
from rag_flywheel.config import config_text, read_config
from rag_flywheel.store import copies
from rag_flywheel.store.connection import Connection


def ids(fw: Flywheel) -> list[str]:
    return [hit.passage_id for hit in fw.retrieve(QUERY, k=8, record=False).hits]


def test_every_host_answers_from_the_backup_whichever_it_was_restored_on(
    shared: Shared, tmp_path: Path
) -> None:
    one, two = shared.begun("one", "two")
    voted = two.retrieve(QUERY, k=3)
    assert voted.id is not None
    two.feedback(voted.id, voted.hits[2].passage_id, "helpful", user_id="ann")
    one.backup(tmp_path / "saved")
    saved, version = ids(two), one.status().version
    one.add([Passage("late", "common word3 that came after the backup")])
    one.refresh()
    come_to(two, one.status().version)
    assert one.status().version != version
    restore(tmp_path / "saved", shared.root("two"))
    for host in (one, two, shared.open("three")):
        come_to(host, version)
        assert ids(host) == saved
        assert host.verify() == []
    two.add([Passage("next", "common word3 after all")])
    after = two.refresh().version
    come_to(one, after)
    assert "next" in ids(one) and "late" not in ids(one)


def test_a_restore_that_dies_with_all_rows_exchanged_leaves_the_index_usable(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = shared.begun("one")
    one.backup(tmp_path / "saved")
    for n in range(3):
        one.add([Passage(f"late{n}", "common word3 that came after the backup")])
        found = one.retrieve(QUERY, k=3, user_id="ann")
        one.feedback(found.id, found.hits[2].passage_id, "helpful", user_id="ann")
        one.refresh()
    before = ids(one)
    counted = copies._count_on

    def dies(source: sqlite3.Connection, conn: Connection) -> None:
        counted(source, conn)
        raise OSError("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr(copies, "_count_on", dies)
        with pytest.raises(StorageError, match="ends here"):
            restore(tmp_path / "saved", shared.root("one"))
    assert ids(one) == before
    one.add([Passage("next", "common word3 after it")])  # with numbers that no row has
    found = one.retrieve(QUERY, k=3, user_id="bob")
    one.feedback(found.id, found.hits[0].passage_id, "helpful", user_id="bob")
    assert one.refresh().outcome == "promoted"
    assert one.forget("ann").version is not None
    assert one.verify() == []
    restore(tmp_path / "saved", shared.root("one"))
    assert "next" not in ids(one) and "late0" not in ids(one)
    one.add([Passage("last", "common word3 after all")])
    assert one.refresh().outcome == "promoted"
    assert one.verify() == []


def test_hosts_get_the_settings_of_the_backup_and_its_state_without_a_version(
    shared: Shared, tmp_path: Path
) -> None:
    one = shared.open("one")
    one.add([Passage("a", "common word3")])
    one.backup(tmp_path / "saved")
    one.close()
    path = shared.root("one") / "flywheel.toml"
    before = read_config(path)
    path.write_text(config_text(dataclasses.replace(before, votes_per_day=5)))
    again = shared.open("one")
    again.refresh()
    two = shared.open("two")
    assert two.config.votes_per_day == 5
    restore(tmp_path / "saved", shared.root("one"))
    come_to(two, None)
    assert ids(two) == ["a"]
    three = shared.open("three")
    assert three.config == before
    come_to(two, three.refresh().version)


def test_the_backup_of_another_index_is_refused(shared: Shared, tmp_path: Path) -> None:
    one, _two = shared.begun("one", "two")
    with Flywheel.open(tmp_path / "other", encoder=WordEncoder()) as other:
        other.add([Passage("a", "common word3")])
        other.backup(tmp_path / "saved")
    before = ids(one)
    with pytest.raises(InputError, match="another index"):
        restore(tmp_path / "saved", shared.root("one"))
    assert ids(one) == before
