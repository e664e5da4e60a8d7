"""The encoder of an index is changed: votes stay, the gate decides, each version is served with its own."""

import json
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import changing
from changing import (
    ASKED,
    NEW,
    Deaf,
    Knowing,
    N,
    Watched,
    contents,
    follow,
    live,
    opened,
    order,
    passage,
    rows,
    share_right,
    vectors,
    vote,
)
from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage, restore
from rag_flywheel.errors import (
    DiskFullError,
    EncoderError,
    EncoderMismatchError,
    EncoderNotFoundError,
    LockedError,
    StorageError,
)
from rag_flywheel.records import RefreshReport

BETTER, WORSE = "changing:knowing", "changing:deaf"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changing.made(tmp_path_factory.mktemp("made") / "kb")


@pytest.fixture
def kb(template: Path, tmp_path: Path) -> Path:
    """A closed index with votes."""
    return Path(shutil.copytree(template, tmp_path / "kb"))


def toml(root: Path) -> str:
    return (root / "flywheel.toml").read_text()


def change(fw: Flywheel, encoder: Any = BETTER, **more: Any) -> RefreshReport:
    return fw.change_encoder(encoder, **more)


def manifest(root: Path, version: str) -> Any:
    return json.loads((root / "versions" / version / "manifest.json").read_text())


def test_a_better_encoder_goes_live_and_nothing_that_users_said_is_lost(kb: Path) -> None:
    before = contents(kb)
    with opened(kb) as fw:
        judged, right = fw.judgments(), share_right(fw, NEW)
        report = change(fw)
        assert (report.outcome, report.encoder, report.parameters) == ("promoted", "new", "new")
        assert "encoder changed from words: held-out votes gain" in report.reason
        assert report.scores["n_embedded"] == N
        assert report.scores["gain"] > 0
        assert contents(kb) == before
        assert fw.judgments() == judged
        assert share_right(fw, NEW) == 1.0
        assert right < 0.9
        assert fw.status().encoder == "knowing"
        assert fw.status().encoder_change is None
        assert fw.config.encoder == BETTER
        assert fw.verify() == []
        assert fw.health().state == "ok"
        assert fw.retrieve(ASKED[7]).hits[0].explanation.votes  # memory acts at once
        assert (manifest(kb, live(fw))["encoder"], manifest(kb, live(fw))["dim"]) == ("knowing", 96)
    assert f'encoder = "{BETTER}"' in toml(kb)
    with opened(kb) as fw:  # as any other process finds it
        assert share_right(fw, NEW) == 1.0
        assert change(fw).outcome == "unchanged"


def test_its_story_and_the_history_tell_what_was_weighed(kb: Path) -> None:
    with opened(kb) as fw:
        report = change(fw)
        told = fw.explain_version(live(fw))
        assert any(s.startswith("encoder changed from words: held-out") for s in told.sentences)
        assert any("log-likelihood of held-out votes: +" in s and "±" in s for s in told.sentences)
        assert told.scores["change_gain"] == report.scores["gain"]
        assert any("the change of the encoder" in entry.text for entry in fw.history())
        assert fw.refreshes(1)[0].reason == report.reason


def test_a_worse_encoder_is_refused_and_changes_nothing(kb: Path) -> None:
    before, settings = contents(kb), toml(kb)
    with opened(kb) as fw:
        found, version = order(fw), live(fw)
        report = change(fw, WORSE)
        assert (report.outcome, report.version, report.encoder) == ("rejected", version, "kept")
        assert "deaf is not live: held-out votes do not clearly gain" in report.reason
        assert (order(fw), live(fw), toml(kb)) == (found, version, settings)
        assert contents(kb) == before
        assert fw.verify() == []
        assert fw.health().state == "ok"
        assert "300 of 300 passages embedded; not live: held-out" in str(fw.status().encoder_change)
        assert fw.status().encoder == "words"


def test_a_refused_encoder_goes_live_by_force_without_embedding_again(kb: Path) -> None:
    encoder = Deaf()
    with opened(kb) as fw:
        judged = fw.judgments()
        assert change(fw, encoder).outcome == "rejected"
        assert len(encoder.passages) == N
        report = change(fw, encoder, force=True)
        assert report.outcome == "promoted"
        assert (
            "encoder changed by force from words: held-out votes do not clearly gain"
            in report.reason
        )
        assert len(encoder.passages) == N
        assert fw.judgments() == judged
        assert fw.status().encoder_change is None
        told = fw.explain_version(live(fw)).sentences
        assert any("by force" in sentence for sentence in told)


def test_a_refused_encoder_is_dropped_by_command(kb: Path) -> None:
    with opened(kb) as fw:
        found = order(fw)
        change(fw, WORSE)
        n = vectors(kb)["d1"]
        with pytest.raises(StorageError, match="a change to the encoder 'deaf' is under way"):
            change(fw, BETTER)
        fw.refresh()
        assert vectors(kb)["d1"] == n  # a refresh does not take them for dead
        assert fw.drop_encoder_change() == n
        assert fw.drop_encoder_change() == 0
        assert set(vectors(kb)) == {"1"}
        assert fw.status().encoder_change is None
        assert order(fw) == found
        assert change(fw, BETTER).outcome == "promoted"


def test_each_try_spends_less_of_what_the_gate_may_err(kb: Path) -> None:
    with opened(kb) as fw:
        first = change(fw, WORSE).scores
        second = change(fw, WORSE).scores
        assert second["gate_alpha"] == first["gate_alpha"] / 2
        fw.drop_encoder_change()
        assert change(fw, BETTER).scores["gate_alpha"] == first["gate_alpha"] / 3


def test_a_rollback_goes_back_to_the_old_encoder_and_forth_again(kb: Path) -> None:
    with opened(kb) as fw, opened(kb) as other:
        old, found = live(fw), order(fw)
        assert order(other) == found
        change(fw)
        new, better = live(fw), order(fw)
        assert better != found
        assert order(follow(other)) == better  # of a process that was open before
        assert fw.compare(old, new).changed
        for version, expected, name in ((old, found, "words"), (new, better, "knowing")) * 2:
            other.rollback(version)
            assert order(fw) == order(other) == expected
            assert fw.status().encoder == name
            assert fw.verify() == []
        other.rollback(old)
        assert 'encoder = "fakes:word_encoder"' in toml(kb)
        with opened(kb) as third:
            assert order(third) == found
        other.release()
        fw.add([Passage("late", "topic999 item999 of course")])
        vote(other, NEW[:10])
        assert fw.refresh().outcome == "promoted"
        assert manifest(kb, live(fw))["encoder"] == "words"
        assert other.rank_many(["topic999 item999"], 1) == [["late"]]
        assert fw.verify() == []
        other.rollback(new)
        assert fw.rank_many(["topic999 slang999"], 1) == [["late"]]  # embedded by the other encoder
        assert fw.verify() == []


def test_a_rollback_to_an_encoder_that_cannot_be_had_changes_nothing(kb: Path) -> None:
    (kb / "flywheel.toml").write_text(toml(kb).replace("fakes:word_encoder", ""))
    with opened(kb, WordEncoder()) as fw:
        old = live(fw)
        change(fw)
        better = order(fw)
    with opened(kb) as fw:
        with pytest.raises(EncoderMismatchError, match="encoder 'words'"):
            fw.rollback(old)
        assert order(fw) == better
        assert fw.status().encoder == "knowing"
        assert fw.verify() == []


def test_it_is_refused_while_a_rollback_holds_votes_back(kb: Path) -> None:
    with opened(kb) as fw:
        fw.rollback()
        with pytest.raises(StorageError, match=r"was rolled back to.*`rag-flywheel release` first"):
            change(fw)
        fw.release()
        assert change(fw).outcome == "promoted"


def test_passages_and_votes_that_come_meanwhile_are_in_the_new_version(kb: Path) -> None:
    encoder = Knowing()
    with opened(kb) as fw, opened(kb) as other:
        before = order(other)

        def meanwhile() -> None:
            assert order(other) == before
            other.add([Passage("late", "topic777 item777 of course")], remove=["p299"])
            shown = other.retrieve("topic777 of course", 8, user_id="late")
            other.feedback(shown.id, "late", "helpful", user_id="late")
            assert other.refresh().outcome == "promoted"  # by the old encoder
            with pytest.raises(LockedError, match="another process is changing the encoder"):
                change(other, WORSE)

        encoder.meanwhile.append(meanwhile)
        assert change(fw, encoder).outcome == "promoted"
        assert encoder.passages.count("topic777 item777 of course") == 1
        assert len(encoder.passages) == N + 1
        gone, new = fw.rank_many([changing.question(299), "topic777 slang777"], 8)
        assert new[0] == "late"
        assert "p299" not in gone
        shown = fw.retrieve("topic777 of course", record=False)
        assert shown.hits[0].passage_id == "late"
        assert shown.hits[0].explanation.votes
        assert fw.status().n_indexed == N


def test_a_change_that_is_interrupted_embeds_nothing_twice(kb: Path, tmp_path: Path) -> None:
    """Ended at each step that it tells, it changes nothing; then it comes to the same end."""
    twin = Path(shutil.copytree(kb, tmp_path / "twin"))
    with opened(twin) as fw:
        steps: list[str] = []
        change(fw, progress=lambda step, done, total: steps.append(f"{step} {done}"))
        expected, stored = order(fw), vectors(twin)
    assert len({step.split()[0] for step in steps}) >= 4
    encoder = Knowing()
    with opened(kb) as fw:
        found, version, before = order(fw), live(fw), contents(kb)
        for at in range(0, len(steps), 3):
            told = list[str]()

            def stop(step: str, done: int, _: int, at: int = at, told: list[str] = told) -> None:
                told.append(step)
                if len(told) > at:
                    raise KeyboardInterrupt

            try:
                change(fw, encoder, progress=stop)
            except KeyboardInterrupt:
                assert (order(fw), live(fw)) == (found, version)
                assert contents(kb) == before
                assert fw.verify() == []
            else:
                break  # so much was done before that there were fewer steps
        change(fw, encoder)
        assert order(fw) == expected
        assert fw.verify() == []
        assert len(encoder.passages) == len(set(encoder.passages)) == N
    assert vectors(kb) == stored


def test_answers_are_of_one_version_with_one_encoder_while_it_goes_live(kb: Path) -> None:
    asked, errors, done = NEW[:16], list[BaseException](), threading.Event()
    seen: list[tuple[str | None, str, list[str]]] = []
    with opened(kb) as fw, opened(kb) as other:
        old = live(fw)
        expected = {old: dict(zip(asked, order(fw, asked), strict=True))}

        def ask(start: int) -> None:
            n = start
            try:
                while not done.is_set() or n < start + 30:
                    found = fw.retrieve(asked[n % len(asked)], record=False)
                    seen.append((found.version, found.query, [h.passage_id for h in found.hits]))
                    n += 1
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=ask, args=(5 * i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        try:
            assert change(other).outcome == "promoted"
            expected[live(other)] = dict(zip(asked, order(other, asked), strict=True))
            other.rollback(old)
            other.rollback(max(expected))
        finally:
            done.set()
            for thread in threads:
                thread.join(60)
    assert errors == []
    assert {version for version, *_ in seen} == set(expected)
    assert all(found == expected[str(version)][query] for version, query, found in seen)


def test_an_application_that_gave_an_object_is_told(
    kb: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(kb, WordEncoder()) as fw, opened(kb) as other:
        found = order(fw)
        assert change(other, Knowing()).outcome == "promoted"  # an object too: no other can make it
        with caplog.at_level(logging.ERROR, logger="rag_flywheel"):
            until = time.monotonic() + changing.WAIT_S
            while "the new live version cannot be served; keeping the last" not in caplog.text:
                assert order(fw) == found  # the version before goes on serving
                assert time.monotonic() < until
        assert order(fw) == found
        with pytest.raises(EncoderMismatchError, match=r"encoder 'knowing'.*found 'words'"):
            fw.add([Passage("more", "more")])
        shown = fw.retrieve("topic1 of course", user_id="ann")  # what users say is kept
        before = other.status().n_votes
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="ann")
        answered = fw.retrieve("topic2 of course", user_id="ann")
        fw.answer_feedback(answered.id, "helpful", answer="topic2 item11 of course", user_id="ann")
        assert other.status().n_votes > before + 1
    with opened(kb, WordEncoder()) as fw, pytest.raises(EncoderMismatchError, match="'knowing'"):
        fw.retrieve("topic1")
    with opened(kb) as fw, pytest.raises(EncoderError):
        fw.retrieve("topic1")
    with opened(kb, Knowing()) as fw:
        assert share_right(fw, NEW) == 1.0
        old = fw.versions()[1].id
        fw.rollback(old)
        assert order(fw) == found  # its spec is known


def test_a_spec_of_the_encoder_before_is_an_error_of_who_gives_it(kb: Path) -> None:
    with opened(kb, "fakes:word_encoder") as fw, opened(kb) as late:
        order(fw)
        with opened(kb) as other:
            change(other)
            better = order(other)
        assert order(follow(fw)) == better  # it was right when it was given
        assert order(late) == better  # its settings were read before
    with (
        opened(kb, "fakes:word_encoder") as fw,
        pytest.raises(EncoderMismatchError, match=r"'knowing'.*found 'words'"),
    ):
        order(fw)


def test_two_encoders_of_one_revision_are_told_apart(kb: Path) -> None:
    with opened(kb) as fw:
        with pytest.raises(EncoderError, match="revision '1', under which vectors of 'words'"):
            change(fw, WordEncoder(32, "others", "1"))
        assert fw.status().encoder_change is None
        assert set(vectors(kb)) == {"1"}


@pytest.mark.parametrize("n_votes", [0, 12])
def test_an_index_with_few_votes(n_votes: int, tmp_path: Path) -> None:
    """Without any there is nothing to compare; with too few the gate cannot tell, and a person decides."""
    with opened(tmp_path / "kb", n_candidates=30) as fw:
        fw.add([passage(i) for i in range(40)])
        fw.refresh()
        if n_votes:
            vote(fw, ASKED[:n_votes])
        report = change(fw)
        if n_votes:
            assert report.outcome == "rejected"
            assert (
                "fewer than the 50 that can decide; 0 questions have known answers" in report.reason
            )
            report = change(fw, force=True)
        else:
            assert "there is nothing to compare" in report.reason
        assert report.outcome == "promoted"
        assert fw.status().encoder == "knowing"
        assert fw.rank_many([changing.question(7)], 1) == [["p7"]]
        assert fw.verify() == []
        assert fw.rollback() == fw.versions()[1].id
        assert fw.status().encoder == "words"


@pytest.mark.parametrize("n_passages", [0, 20])
def test_an_index_that_was_never_refreshed(n_passages: int, tmp_path: Path) -> None:
    with opened(tmp_path / "kb", n_candidates=30) as fw, opened(tmp_path / "kb") as other:
        fw.add([passage(i) for i in range(n_passages)])
        assert len(order(other, ["topic1"])[0]) == min(8, n_passages)
        assert change(fw).outcome == "promoted"
        other.add([Passage("more", "topic50 item50")])
        for each in (fw, other):
            assert each.rank_many(["topic50 slang50"], 1) == [["more"]]
        assert fw.verify() == []


def test_votes_of_an_index_that_was_never_refreshed_are_weighed(tmp_path: Path) -> None:
    with opened(tmp_path / "kb", n_candidates=30) as fw:
        fw.add([passage(i) for i in range(N)])
        vote(fw, ASKED)
        judged = fw.judgments()
        assert "held-out votes gain" in change(fw).reason
        assert fw.judgments() == judged
        assert share_right(fw, NEW) == 1.0
        assert [manifest(tmp_path / "kb", v.id)["encoder"] for v in fw.versions()] == [
            "knowing",
            "words",
        ]


def test_golden_questions_decide_where_few_questions_have_votes(tmp_path: Path) -> None:
    with opened(tmp_path / "kb", n_candidates=30) as fw:
        fw.add([passage(i) for i in range(N)])
        fw.refresh()
        fw.golden.add_answers([(changing.question(i), f"p{i}", 1) for i in range(100)])
        assert "golden queries do not clearly gain" in change(fw, WORSE).reason
        fw.drop_encoder_change()
        report = change(fw)
        assert report.outcome == "promoted"
        assert "golden queries gain" in report.reason


def test_questions_that_are_stored_as_hashes_need_a_person_to_decide(tmp_path: Path) -> None:
    with opened(tmp_path / "kb", n_candidates=30, store_queries="hash") as fw:
        fw.add([passage(i) for i in range(N)])
        fw.refresh()
        vote(fw, ASKED)
        report = change(fw)
        assert report.outcome == "rejected"
        assert (
            "240 past questions are stored as a hash, and cannot be encoded anew" in report.reason
        )
        assert change(fw, force=True).outcome == "promoted"
        assert fw.retrieve(ASKED[3]).hits[0].explanation.votes  # the very same question
        assert fw.verify() == []


def test_vectors_of_an_encoder_that_no_version_has_are_deleted(kb: Path) -> None:
    text = toml(kb).replace("keep_versions = 10", "keep_versions = 2")
    (kb / "flywheel.toml").write_text(text)
    with opened(kb) as fw:
        change(fw)
        assert set(vectors(kb)) == {"1", "k1"}
        for i in range(3):
            fw.add([Passage(f"more{i}", f"topic50{i} item50{i}")])
            fw.refresh()
        assert set(vectors(kb)) == {"k1"}
        assert rows(kb, "SELECT json_array_length(value) FROM meta WHERE key = 'encoders'") == [
            (1,)
        ]
        assert fw.verify() == []
        assert change(fw, "fakes:word_encoder", force=True).outcome == "promoted"


def test_room_on_the_disk_is_looked_at_first(kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_bavail, f_frsize = 40_000, 1_000

    before = contents(kb)
    with opened(kb) as fw:
        with monkeypatch.context() as patched:
            patched.setattr(os, "statvfs", lambda _: Full())
            with pytest.raises(DiskFullError, match=r"take about 5. MB; found 40 MB free"):
                change(fw)
        assert contents(kb) == before
        assert set(vectors(kb)) == {"1"}
        assert fw.status().encoder_change is None


class Broken(Watched):
    """Fails at the passage after so many."""

    def __init__(self, after: int) -> None:
        super().__init__(24, "broken", "b1")
        self.after = after

    def _encode(self, texts: Sequence[str]) -> Any:
        found = super()._encode(texts)
        if self.n_encoded > self.after:
            found[0, 0] = float("nan")
        return found


def test_an_encoder_that_fails_changes_nothing_and_may_be_mended(kb: Path) -> None:
    with opened(kb) as fw:
        found = order(fw)
        with pytest.raises(EncoderError, match="NaN"):
            change(fw, Broken(200))
        assert order(fw) == found
        assert fw.verify() == []
        assert change(fw, Broken(10_000)).outcome == "rejected"
        with pytest.raises(EncoderNotFoundError):
            change(fw, "no_such_module:encoder")


def test_a_backup_in_the_middle_is_restored_and_goes_on(kb: Path, tmp_path: Path) -> None:
    encoder = Knowing()
    with opened(kb) as fw:
        found = order(fw)

        def stop(step: str, done: int, _: int) -> None:
            if step == "embed" and done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            change(fw, encoder, progress=stop)
        fw.backup(tmp_path / "backup")
        assert change(fw, encoder).outcome == "promoted"
        better = order(fw)
        restore(tmp_path / "backup", tmp_path / "twin")
        restore(tmp_path / "backup", kb)  # over the index that has changed since
        assert order(fw) == found
        assert fw.status().encoder == "words"
        assert fw.verify() == []
    for root in (kb, tmp_path / "twin"):
        again = Knowing()
        with opened(root) as fw:
            assert order(fw) == found
            assert "256 of 300" in str(fw.status().encoder_change)
            assert change(fw, again).outcome == "promoted"
            assert order(fw) == better
            assert len(again.passages) == N - 256


def test_damaged_vectors_of_either_encoder_are_found_and_made_again(kb: Path) -> None:
    with opened(kb) as fw:
        change(fw)
        better = order(fw)
    for revision, dim in (("1", 64), ("k1", 96)):
        rowid = rows(kb, "SELECT min(rowid) FROM vectors WHERE revision = ?", revision)[0][0]
        with closing(sqlite3.connect(kb / "flywheel.db")) as conn:
            conn.execute("UPDATE vectors SET vector = ? WHERE rowid = ?", (b"x" * dim, rowid))
            conn.commit()
        with opened(kb) as fw:
            assert any("vectors: 1 cannot be used" in each for each in fw.verify())
            assert any("dropped 1 vector" in each for each in fw.repair())
            assert fw.verify() == []
            assert order(fw) == better


def test_settings_that_a_killed_change_left_behind_are_mended(
    kb: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = toml(kb)
    with opened(kb) as fw:
        change(fw)
        better = order(fw)
    (kb / "flywheel.toml").write_text(before)
    with opened(kb) as fw, caplog.at_level(logging.WARNING, logger="rag_flywheel"):
        assert order(fw) == better
        assert "the settings name encoder 'fakes:word_encoder'" in caplog.text
        (problem,) = fw.verify()
        assert "names the encoder 'fakes:word_encoder'" in problem
        fw.refresh()
        assert fw.verify() == []
    assert f'encoder = "{BETTER}"' in toml(kb)


def test_what_a_user_wrote_into_the_settings_stays(kb: Path) -> None:
    text = toml(kb)
    (kb / "flywheel.toml").write_text(f"# ours\n{text}# the end\n")
    with opened(kb) as fw:
        change(fw)
    expected = text.replace("fakes:word_encoder", BETTER)
    assert toml(kb) == f"# ours\n{expected}# the end\n"


def test_settings_without_a_line_for_the_encoder_get_one(kb: Path) -> None:
    with opened(kb) as fw:
        config = fw.config
    (kb / "flywheel.toml").write_text("format_version = 1\nn_candidates = 30")
    with opened(kb, "fakes:word_encoder") as fw:
        assert change(fw).outcome == "promoted"
    assert config.n_candidates == 30
    assert Config().encoder not in toml(kb)


def test_a_refresh_by_another_process_may_hold_the_lock_for_a_while(
    kb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_flywheel.refresh.change_encoder._WAIT_S", 0.1)
    encoder = Knowing()
    with opened(kb) as fw:
        with FileLock(kb / "refresh.lock"), pytest.raises(LockedError, match="is refreshing"):
            change(fw, encoder)
        assert len(encoder.passages) == N
        assert change(fw, encoder).outcome == "promoted"
        assert len(encoder.passages) == N


def test_forgetting_a_user_meanwhile_leaves_no_vector_of_their_questions(kb: Path) -> None:
    encoder, asked = Knowing(), "topic3 a question of my own"
    with opened(kb) as fw, opened(kb) as other:
        shown = other.retrieve(asked, user_id="zoe")
        other.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="zoe")
        (name,) = rows(kb, "SELECT query_hash FROM retrievals WHERE query = ?", asked)[0]
        encoder.meanwhile.append(lambda: other.forget("zoe"))
        assert change(fw, encoder).outcome == "promoted"
        assert rows(kb, "SELECT 1 FROM vectors WHERE text_hash = ?", name) == []
        assert fw.verify() == []
