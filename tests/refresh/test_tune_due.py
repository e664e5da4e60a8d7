"""When a refresh tunes: asked to, by itself, not yet, not again, and never what cannot be taught."""

from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Encoder, Flywheel, Passage
from rag_flywheel.config import read_config
from rag_flywheel.errors import ConfigError, EncoderError
from rag_flywheel.refresh.unrelated import UNRELATED
from rag_flywheel.store import journal
from rag_flywheel.store.journal import Look
from rag_flywheel.store.migrations import migrate
from rag_flywheel.store.place import open_database
from teachable import TeachableEncoder, passages, questions, vote
from tuned import ASKED, ids, live, manifest_of, opened, order, revisions, rows

pytestmark = pytest.mark.slow  # torch alone takes seconds to load

LOOKS = "SELECT n_votes, outcome FROM looks WHERE arm = 'encoder' ORDER BY id"
TEACHABLE: list[Encoder | str] = [TeachableEncoder(), "teachable:TeachableEncoder"]
WORDS: list[Encoder | str] = [WordEncoder(), "fakes:word_encoder"]
both = pytest.mark.parametrize("encoder", WORDS, ids=["object", "name"])


def auto(root: Path) -> Path:
    """From now on it tunes by itself."""
    (root / "flywheel.toml").write_text('format_version = 1\nencoder = ""\ntune = "auto"\n')
    return root


def state(root: Path) -> tuple[Any, ...]:
    """What a refresh changes."""
    tables = ("looks", "moves", "refreshes", "vectors", "meta")
    counts = [rows(root, f"SELECT count(*) FROM {table}") for table in tables]
    names = sorted(p.relative_to(root).as_posix() for p in (root / "versions").rglob("*"))
    return (root / "CURRENT").read_text(), names, counts, list((root / "staging").iterdir())


@pytest.mark.slow
@both
def test_an_encoder_that_cannot_be_taught_is_refused_and_nothing_changes(
    encoder: Encoder | str, voted: Path
) -> None:
    with Flywheel.open(voted, encoder=encoder) as fw:
        expected, before = order(fw), state(voted)
        for _ in range(2):
            with pytest.raises(EncoderError, match=r"'words' cannot be tuned: it has no tower\(\)"):
                fw.refresh(tune=True)
        assert state(voted) == before
        assert order(fw) == expected
        assert fw.refresh().outcome == "promoted"
        fw.add([Passage("new", "one more")])
        with pytest.raises(EncoderError, match="cannot be tuned"):
            fw.refresh(tune=True)


@pytest.mark.slow
@both
def test_by_itself_a_refresh_leaves_it_as_it_is(encoder: Encoder | str, voted: Path) -> None:
    with Flywheel.open(auto(voted), encoder=encoder) as fw:
        report = fw.refresh()
        assert (report.outcome, report.encoder, report.parameters) == ("promoted", "kept", "new")
        assert fw.refresh().outcome == "unchanged"
        fw.add([Passage("new", "one more")])
        assert fw.refresh().encoder == "kept"
        assert rows(voted, LOOKS) == []
        assert fw.verify() == []


@pytest.mark.slow
@pytest.mark.parametrize("encoder", TEACHABLE, ids=["object", "name"])
def test_by_itself_it_tunes_at_the_first_refresh_with_enough_votes(
    encoder: Encoder | str, voted: Path
) -> None:
    with Flywheel.open(auto(voted), encoder=encoder) as fw:
        assert fw.refresh(if_votes=100_000).outcome == "unchanged"
        report = fw.refresh()
        assert (report.outcome, report.encoder) == ("promoted", "new")
        n = 2 * len(ASKED)
        assert rows(voted, LOOKS) == [(n, "better")]
        more = questions(70, 120)
        due = n // 2  # half as many again
        first, rest = more[: due // 2 - 1], more[due // 2 - 1 : due // 2]
        vote(fw, first)
        report = fw.refresh()
        assert report.encoder == "kept"
        assert (
            f"not tuned: {n + due - 2} votes so far, the next look is at {n + due}" in report.reason
        )
        assert rows(voted, LOOKS) == [(n, "better")]
        vote(fw, rest)
        report = fw.refresh()
        assert "taught by" in report.reason
        assert [row[0] for row in rows(voted, LOOKS)] == [n, n + due]


def test_with_few_past_queries_it_says_how_many_it_takes(tmp_path: Path) -> None:
    with opened(tmp_path / "kb", Config(encoder="", tune="auto")) as fw:
        fw.add(passages(30))
        assert "not tuned: 0 held-out queries have votes, fewer than the 50" in fw.refresh().reason
        vote(fw, questions(0, 30))
        report = fw.refresh()
        assert report.encoder == "kept"
        assert "of the 200 past queries it takes" in report.reason
        sentences = fw.explain_version(live(fw)).sentences
        assert sentences[-1].startswith("encoder of queries kept: not tuned: ")
        assert fw.refresh(tune=True).outcome == "unchanged"  # it was tried, and nothing is new
        assert rows(tmp_path / "kb", LOOKS) == []


def test_settings_know_when_to_tune(tmp_path: Path) -> None:
    for word in ("sometimes", "", True, None):
        with pytest.raises(ConfigError, match=r"config tune is .*; expected 'auto' or 'off'"):
            Config(tune=word)  # type: ignore[arg-type]
    path = tmp_path / "flywheel.toml"
    path.write_text('format_version = 1\ntune = "sometimes"\n')
    with pytest.raises(ConfigError, match="'sometimes'; expected 'auto' or 'off'"):
        read_config(path)
    path.write_text("format_version = 1\n")
    assert read_config(path).tune == "off"


@pytest.mark.slow
def test_an_idle_folder_is_tuned_once(voted: Path) -> None:
    with opened(voted) as fw:
        fw.refresh()
        assert fw.refresh().outcome == "unchanged"
        assert fw.refresh(if_votes=1).outcome == "unchanged"
        report = fw.refresh(tune=True)
        assert (report.outcome, report.encoder) == ("promoted", "new")
        before = state(voted)[0]
        for _ in range(2):
            report = fw.refresh(tune=True)
            assert (report.outcome, report.encoder) == ("unchanged", "kept")
        assert state(voted)[0] == before
        fw.add([Passage("new", "one more")])
        fw.refresh()  # not to be tuned, so the next one may be
        assert "not tuned" in fw.refresh(tune=True).reason
        assert fw.refresh(tune=True).outcome == "unchanged"


@pytest.mark.slow
def test_a_held_version_stays(voted: Path) -> None:
    with opened(auto(voted)) as fw:
        first = live(fw)
        fw.refresh()
        fw.rollback(first, hold=True)
        expected = order(fw)
        for tune in (True, False):
            report = fw.refresh(tune=tune)
            assert (report.outcome, report.version) == ("unchanged", first)
            assert "is held live until release" in report.reason
        assert order(fw) == expected
        fw.release()
        assert fw.refresh(tune=True).outcome == "promoted"


@pytest.mark.slow
def test_while_votes_are_held_back_nothing_is_taught(voted: Path) -> None:
    with opened(voted) as fw:
        fw.refresh()
        fw.rollback(ids(fw)[0])
        expected = order(fw)
        for n in range(2):
            fw.add([Passage(f"new{n}", "words that no question has")])
            report = fw.refresh(tune=True)
            assert report.outcome == "promoted"
            assert (report.encoder, report.parameters) == ("kept", "kept")
            assert [hits[0] for hits in order(fw)] == [hits[0] for hits in expected]
            assert fw.refresh(tune=True).outcome == "unchanged"
        assert rows(voted, LOOKS) == []
        fw.release()
        assert fw.refresh(tune=True).encoder == "new"


@pytest.mark.slow
def test_encoders_that_no_version_has_any_more_leave_nothing(tmp_path: Path, tuned: Path) -> None:
    text = (tuned / "flywheel.toml").read_text()
    (tuned / "flywheel.toml").write_text(text.replace("keep_versions = 10", "keep_versions = 2"))
    with opened(tuned) as fw:
        assert fw.config.keep_versions == 2
        base, tuned_once = TeachableEncoder().revision, manifest_of(fw)["tuned"]
        first = ids(fw)[0]
        fw.rollback(first)
        fw.release()
        kept = list[bool]()
        for n in range(3):
            fw.add([Passage(f"new{n}", f"word{n}")])
            fw.refresh()
            kept.append(any(manifest_of(fw, v)["tuned"] for v in ids(fw)))
            assert revisions(tuned)[tuned_once] == (len(ASKED) + len(UNRELATED) if kept[-1] else 0)
        assert kept == [True, False, False]
        assert all(manifest_of(fw, v)["tuned"] is None for v in ids(fw))
        assert set(revisions(tuned)) == {base}
        assert list((tuned / "versions").rglob("*.safetensors")) == []
        assert fw.verify() == []


def test_each_arm_counts_its_own_looks(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    migrate(database, str)
    with database.transaction() as conn:

        def seen() -> tuple[tuple[int, int], ...]:
            return tuple(journal.looks(conn, arm) for arm in ("weights", "encoder"))

        def look(arm: str, n_votes: int, outcome: str) -> None:
            spent = 0.0 if outcome == "reset" else 0.01
            journal.record_look(conn, Look("v", n_votes, spent, 0.5, outcome, arm))

        assert seen() == ((0, 0), (0, 0))
        look("weights", 100, "no better")
        assert seen() == ((1, 100), (0, 0))
        look("encoder", 120, "vetoed")
        assert seen() == ((1, 100), (1, 120))
        look("weights", 150, "no better")
        look("weights", 230, "better")
        assert seen() == ((0, 230), (1, 120))
        look("encoder", 240, "no better")
        assert seen() == ((0, 230), (2, 240))
        look("weights", 345, "no better")
        look("encoder", 360, "better")
        assert seen() == ((1, 345), (0, 360))
        look("weights", 0, "reset")
        assert seen() == ((0, 0), (0, 0))
        look("encoder", 10, "no better")
        assert seen() == ((0, 0), (1, 10))
        journal.record_look(conn, Look("v", 20, 0.0, None, "no better", "encoder"))
        assert seen() == ((0, 0), (1, 20))
    database.close()


def test_a_look_from_before_there_were_arms_is_one_at_weights(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    migrate(database, str)
    with database.transaction() as conn:
        conn.execute(
            "INSERT INTO looks (at, version, n_votes, alpha, p, outcome) "
            "VALUES (1, 'v', 90, 0.01, 0.5, 'no better')"
        )
        assert journal.looks(conn) == journal.looks(conn, "weights") == (1, 90)
        assert journal.looks(conn, "encoder") == (0, 0)
    database.close()
