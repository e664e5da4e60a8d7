"""How hosts come to share an index: the first one, those that join, and their settings."""

import shutil
from pathlib import Path

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from hosts import Shared, come_to
from on_postgres import url_of
from rag_flywheel import Config, ConfigError, Flywheel, InputError, Passage, StorageError, copy
from rag_flywheel.cli import main
from rag_flywheel.config import config_text, read_config
from rag_flywheel.errors import ObjectStoreError

ENCODER = "fakes:word_encoder"


def ids(fw: Flywheel) -> list[str]:
    return [hit.passage_id for hit in fw.retrieve(QUERY, k=8, record=False).hits]


def edit(index: Shared, host: str, **settings: object) -> None:
    """Edit the settings in the folder of a host."""
    path = index.root(host) / "flywheel.toml"
    values = {**vars(read_config(path)), **settings}
    path.write_text(config_text(Config(**values)))  # type: ignore[arg-type]


def test_a_folder_that_joins_needs_no_object_store_no_settings_and_no_encoder(
    shared: Shared,
) -> None:
    one = shared.open("one", encoder=None, config=Config(encoder=ENCODER, votes_per_day=7))
    one.add(PASSAGES)
    one.refresh()
    two = shared.open("two", encoder=None, objects=None)
    assert two.config == one.config
    assert ids(two) == ids(one)
    with Flywheel.open(shared.root("two")) as again:  # as commands and the service do
        assert ids(again) == ids(one)
        assert again.status().objects == shared.objects


def test_an_index_of_one_folder_becomes_one_of_many_hosts_with_its_versions(
    shared: Shared,
) -> None:
    alone = shared.open("one", objects=None)
    alone.add(PASSAGES)
    first = alone.refresh().version
    alone.add([Passage("more", "common word3 of another kind")])
    second = alone.refresh().version
    with pytest.raises(StorageError, match="objects=URL"):
        shared.open("two", objects=None)
    with pytest.raises(StorageError, match="lie in another folder"):
        shared.open("two")
    alone.close()
    shutil.rmtree(shared.root("two"), ignore_errors=True)
    one = shared.open("one")
    assert shared.store().versions() == [first, second]
    two = shared.open("two", objects=None)
    assert two.retrieve(QUERY, record=False).version == second
    assert two.rollback() == first
    assert one.retrieve(QUERY, record=False).version == first


def test_another_place_than_that_of_the_index_is_refused(shared: Shared, tmp_path: Path) -> None:
    shared.begun("one")
    with pytest.raises(InputError, match="are at file://"):
        shared.open("one", objects=f"file://{tmp_path}/other")
    with pytest.raises(InputError, match="expected the URL of an index on PostgreSQL"):
        Flywheel.open(tmp_path / "lite", objects=shared.objects)
    assert not (tmp_path / "lite").exists()
    with pytest.raises(InputError, match="perhaps a secret"):
        shared.open("two", objects="s3://key:secret@bucket/kb")
    assert not shared.root("two").exists()


def test_a_setting_that_a_refresher_changed_reaches_the_others(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    one.close()
    edit(shared, "one", language="german", n_lookups=7)
    again = shared.open("one")
    assert (again.config.language, two.config.language) == ("german", "auto")
    report = again.refresh()
    assert report.outcome == "promoted"
    come_to(two, report.version)
    assert read_config(shared.root("two") / "flywheel.toml").language == "german"
    assert read_config(shared.root("two") / "flywheel.toml").n_lookups == Config().n_lookups
    two.add([Passage("more", "common word3 of another kind")])
    with pytest.raises(ConfigError, match="open it again"):
        two.refresh()  # it still goes by what it was opened with
    reopened = shared.open("two")
    assert reopened.config.language == "german"
    assert reopened.refresh().outcome == "promoted"
    assert shared.open("three").config.language == "german"


def test_an_edited_setting_is_told_and_one_that_others_changed_too_is_refused(
    shared: Shared, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = shared.begun("one", "two")
    edit(shared, "two", votes_per_day=7, record_wait_s=1.0)
    edited = shared.open("two")
    assert "votes_per_day = 7" in caplog.text
    assert edited.config.votes_per_day == 7
    one.close()
    edit(shared, "one", votes_per_day=9)
    shared.open("one").refresh()
    with pytest.raises(
        ConfigError, match="votes_per_day = 7, and another host made votes_per_day = 9"
    ):
        shared.open("two")
    assert two.retrieve(QUERY, record=False).hits  # what is open goes on
    edit(shared, "two", votes_per_day=9)
    assert shared.open("two").config.votes_per_day == 9
    edit(shared, "two", votes_per_day=11)
    last = shared.open("two")
    last.refresh()
    assert shared.open("one").config.votes_per_day == 11
    with pytest.raises(ConfigError, match="in the config given here"):
        shared.open("four", config=Config(encoder="", votes_per_day=1))


def test_a_host_may_have_its_own_encoder_path_and_cache(shared: Shared) -> None:
    shared.begun("one")
    config = Config(encoder=ENCODER, n_lookups=3, record_wait_s=1.0)
    two = shared.open("two", encoder=None, config=config)
    assert two.config == config
    assert len(ids(two)) == 8


def test_copies_go_to_many_hosts_and_back(shared: Shared, tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "lite", encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        found = fw.retrieve(QUERY, k=8, user_id="u")
        fw.feedback(found.id, found.hits[-1].passage_id, "helpful", user_id="u")
        fw.refresh()
        expected = ids(fw)
    (shared.folder / "hosts").mkdir()
    report = copy(tmp_path / "lite", shared.url, cache=shared.root("one"), objects=shared.objects)
    one, two = shared.open("one", objects=None), shared.open("two", objects=None)
    assert ids(one) == ids(two) == expected
    assert two.retrieve(QUERY, record=False).version == report.version
    one.add([Passage("more", "common word3 of another kind")])
    newest = one.refresh().version
    back = copy(shared.root("two"), tmp_path / "back")  # of a host that was behind
    assert back.version == newest
    with Flywheel.open(tmp_path / "back", encoder=WordEncoder()) as fw:
        assert ids(fw) == ids(one)
        assert fw.verify() == []
        assert fw.status().objects is None
    saved = two.backup(tmp_path / "saved")
    assert saved.version == newest
    url, used = url_of("joined"), tmp_path / "x"
    (tmp_path / "no folder").write_text("")
    for wrong in (shared.objects, f"file://{tmp_path}/no folder"):
        for _ in range(2):  # nothing of it is left
            with pytest.raises((InputError, StorageError), match=r"another index|no folder"):
                copy(shared.root("two"), url, cache=used, objects=wrong)
            assert not used.exists()
    with Flywheel.open(url, cache=tmp_path / "empty", encoder=WordEncoder()) as fw:
        assert (fw.status().n_passages, fw.status().version) == (0, None)
        assert fw.verify() == []
    url = url_of("joined_too")
    with pytest.raises(InputError, match="versions of another index"):
        copy(shared.root("two"), url, cache=used, objects=shared.objects)
    copied = copy(shared.root("two"), url, cache=used, objects=f"file://{tmp_path}/s")
    assert copied.version == newest
    with Flywheel.open(url, cache=tmp_path / "z", encoder=WordEncoder()) as fw:
        assert ids(fw) == ids(one)
        assert fw.verify() == []
    with pytest.raises(InputError, match='DROP SCHEMA "joined_too" CASCADE'):
        copy(shared.root("two"), url, cache=tmp_path / "w", objects=f"file://{tmp_path}/t")
    with Flywheel.open(url, cache=tmp_path / "z", encoder=WordEncoder()) as fw:
        assert ids(fw) == ids(one)


def test_the_same_tables_elsewhere_do_not_get_the_place_of_the_first(
    shared: Shared, tmp_path: Path
) -> None:
    """As a copy of the database for tests does, which another program made with all its rows."""
    (one,) = shared.begun("one")
    with shared.sql() as conn:
        (key,) = conn.execute("SELECT value FROM meta WHERE key = 'user_key'").fetchone()
    url = url_of("cloned")
    with Flywheel.open(url, cache=tmp_path / "clone", encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
    clone = Shared(tmp_path / "clones", url, shared.objects)
    with clone.sql() as conn:
        conn.execute("UPDATE meta SET value = %s WHERE key = 'user_key'", (key,))
        conn.execute("INSERT INTO meta VALUES ('objects', %s)", (shared.objects,))
    with Flywheel.open(tmp_path / "clone", encoder=WordEncoder()) as fw:
        with pytest.raises(InputError, match="copy of"):
            fw.refresh()
        assert fw.health().state != "broken"
    assert one.verify() == []


def test_a_reader_alone_serves_what_another_process_of_its_host_fetches(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    with Flywheel.open(shared.root("two"), encoder=WordEncoder(), read_only=True) as reader:
        assert ids(reader) == ids(one)
        one.add([Passage("more", "common word3 of another kind")])
        newest = one.refresh().version
        assert "more" in ids(reader)
        assert reader.status().behind_since is not None
        come_to(two, newest)
        come_to(reader, newest)


def test_a_reader_alone_in_a_folder_without_a_version_says_so(shared: Shared) -> None:
    (one,) = shared.begun("one")
    two = shared.open("two")
    two.close()
    shutil.rmtree(shared.root("two") / "versions")
    (shared.root("two") / "CURRENT").unlink()
    reader = Flywheel.open(shared.root("two"), encoder=WordEncoder(), read_only=True)
    with reader, pytest.raises(ObjectStoreError, match="without read_only"):
        reader.retrieve(QUERY, record=False)
    assert ids(shared.open("two")) == ids(one)


def test_commands_and_the_service_work_on_the_folder_of_a_host(
    shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    one = shared.open("one", encoder=None, config=Config(encoder=ENCODER))
    one.add(PASSAGES)
    newest = one.refresh().version
    shared.open("two", encoder=None).close()
    one.add([Passage("more", "common word3 of another kind")])
    newest = one.refresh().version

    def said(*words: str) -> str:
        with pytest.raises(SystemExit):
            main([*words, "--index", str(shared.root("two"))])
        return capsys.readouterr().out

    assert "behind since" in said("status")
    assert "more" in said("retrieve", QUERY)
    assert "behind since" not in said("status")
    assert str(newest) in said("versions")
    assert "object store" in said("health")
    assert said("verify") == "sound\n"


def test_a_shell_lets_a_host_join(
    shared: Shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = shared.open("one", encoder=None, config=Config(encoder=ENCODER))
    one.add(PASSAGES)
    version = one.refresh().version
    root = shared.root("two")
    for _ in range(2):  # it may be repeated
        with pytest.raises(SystemExit) as done:
            main(["join", shared.url, "--index", str(root)])
        assert done.value.code == 0
        assert str(version) in capsys.readouterr().out
    with Flywheel.open(root) as two:
        assert ids(two) == ids(one)


def test_what_nobody_shares_cannot_be_joined(
    shared: Shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = shared.open("one", objects=None)
    alone.add(PASSAGES)
    nothing = url_of("nobody_has_it")
    for url in (shared.url, nothing, str(tmp_path)):
        with pytest.raises(SystemExit) as done:
            main(["join", url, "--index", str(tmp_path / "new")])
        assert done.value.code == 1
        assert not (tmp_path / "new").exists()
    assert capsys.readouterr().err.count("holds no index that hosts share") == 2
    with shared.sql() as conn:
        sql = "SELECT count(*) FROM pg_namespace WHERE nspname = 'nobody_has_it'"
        assert conn.execute(sql).fetchone() == (0,)
