"""store_queries = "hash": the words of questions are nowhere, and votes on them act all the same."""

import json
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from forgetting import forms, log_of, query_name, rows
from gates import QUERIES, live
from plain_model import is_answer, topics, vote_on
from rag_flywheel import Candidate, Config, Flywheel, Passage
from rag_flywheel.errors import ConfigError, EncoderError
from rag_flywheel.privacy import question_texts
from rag_flywheel.store import journal
from rag_flywheel.store.passages import query_digest
from rag_flywheel.store.sqlite import SqliteDatabase
from stored_bytes import stored_bytes

PASSAGES = [Passage(f"p{i}", f"reset word{i} text{i}") for i in range(6)]
WORDS = [f"zebra{i}quokka" for i in range(30)]
ASKED = "reset word1 of the page"
AGAIN = "  Reset  word1 of the PAGE?"  # one question with it
SIMILAR = "reset word1 of a page"


def opened(root: Path, how: str | None = "hash", dim: int = 32, **more: Any) -> Flywheel:
    """how: the setting; None: as it is."""
    settings = root / "flywheel.toml"
    if not settings.exists():
        config = Config(encoder="", store_queries=how or "text", **more)
        return Flywheel.open(root, encoder=WordEncoder(dim=dim), config=config)
    if how is not None:
        lines = settings.read_text().splitlines()
        lines = [f'store_queries = "{how}"' if "store_queries" in x else x for x in lines]
        settings.write_text("\n".join(lines) + "\n")
    return Flywheel.open(root, encoder=WordEncoder(dim=dim))


def say(fw: Flywheel, query: str = ASKED, passage: str = "p5", n: int = 4) -> str:
    shown = fw.retrieve(query, user_id="ann")
    for i in range(n):
        fw.feedback(shown.id, passage, "helpful", user_id=f"user {i}")
    return str(shown.id)


def acting(fw: Flywheel, query: str, passage: str = "p5") -> int:
    hits = fw.retrieve(query, record=False).hits
    return next((len(h.explanation.votes) for h in hits if h.passage_id == passage), 0)


def found_in(folders: Sequence[Path], words: Sequence[str | bytes]) -> set[str | bytes]:
    files = [data for folder in folders for _, data in stored_bytes(folder)]
    return {word for word in words if any(form in file for form in forms(word) for file in files)}


def test_no_word_of_a_question_is_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, out = tmp_path / "kb", tmp_path / "out"
    with caplog.at_level(logging.DEBUG), opened(root, explore=0.5) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        queries = [f"reset the {word} please" for word in WORDS]
        for i, query in enumerate(queries):
            asked = fw.retrieve(query, user_id=f"user {i}", session_id="one")
            assert asked.query == query  # the caller has it
            fw.feedback(asked.id, asked.hits[i % 6].passage_id, "helpful", user_id="ann")
            fw.feedback(asked.id, asked.hits[i % 6].passage_id, "harmful", user_id="bob")
            fw.correct(asked.id, "p3", user_id="cy")
            fw.missing(asked.id, "not there", user_id="cy")
            fw.signal(asked.id, "copied", user_id="cy")
            given = fw.rerank(query, [Candidate("x", "a text of it", 1.0)], user_id="ann")
            fw.feedback(given.id, "x", "helpful", user_id="ann")
        fw.retrieve_many(queries)
        fw.refresh()
        assert [fw.review.accept(item.id) for item in fw.review.items()[:3]]
        fw.gaps()
        fw.golden.items()
        fw.golden.export(out / "known.csv")
        fw.export.beir(out / "beir")
        fw.backup(out / "backup")
        folders = [root, out]
        assert found_in(folders, WORDS) == set()  # while its log is there
        digests: list[str | bytes] = [query_digest(query) for query in queries]
        assert found_in(folders, digests) == set()
        fw.add([Passage("more", "something to do")])
        fw.refresh()
        assert fw.verify() == []
    assert found_in(folders, WORDS) == set()
    assert not [word for word in WORDS if word in caplog.text]
    with opened(root) as fw:
        fw.retrieve(ASKED, record=False)
    names: list[str | bytes] = [query_name(root, query) for query in queries]
    assert found_in([root], names) == set(names)  # else the test could not fail


def test_votes_are_found_by_the_same_question_and_by_similar_ones(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        say(fw)
        for query in (ASKED, AGAIN, SIMILAR):
            assert acting(fw, query) == 4
        assert fw.retrieve(AGAIN, record=False).hits[0].passage_id == "p5"
        before = [h.score for h in fw.retrieve(ASKED, record=False).hits]
        with opened(root, None) as other:
            assert [h.score for h in other.retrieve(ASKED, record=False).hits] == before
        report = fw.refresh()
        assert "1 past query is stored as a hash: the votes act, but nothing" in report.reason
        assert report.scores["n_without_words"] == 1.0
        assert [h.score for h in fw.retrieve(ASKED, record=False).hits] == before
        with opened(root, None) as other:
            assert [acting(other, query) for query in (ASKED, AGAIN, SIMILAR)] == [4, 4, 4]
        assert fw.refresh().outcome == "unchanged"


def test_what_features_added_to_a_score_is_not_logged(tmp_path: Path) -> None:
    """They tell which of its words a passage has."""
    for how in ("text", "hash"):
        with opened(tmp_path / how, how) as fw:
            fw.add(PASSAGES)
            fw.refresh()
            fw.retrieve(ASKED)
            logged = [
                parts for *_, parts in json.loads(log_of(tmp_path / how).retrievals[0]["hits"])
            ]
            left = {"evidence", "relevance"}
            assert all(parts.keys() == left for parts in logged) == (how == "hash")


def test_what_cannot_be_without_words_is_left_out_and_said(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        asked = say(fw)
        fw.missing(asked, "it is not there", user_id="ann")
        fw.retrieve("nothing of all this")
        (note,) = fw.review.items()
        assert (note.query, note.text) == ("", "it is not there")
        assert fw.golden.items() == []  # four users agree, on nobody knows what
        report = fw.export.beir(tmp_path / "out")
        assert report.written["questions"] == 0
        assert report.left_out == {"questions whose words are not stored": 1}
        assert "1 past queries with votes are left out" in (tmp_path / "out/README.md").read_text()
        gaps = fw.gaps()
        assert sum(gap.n for gap in gaps) == 2 and {gap.examples for gap in gaps} == {()}
        (hit,) = (h for h in fw.retrieve(ASKED, record=False).hits if h.passage_id == "p5")
        behind = fw.votes_behind(hit)
        assert [(v.query, v.helpful) for v in behind] == [("", 4)]
        with pytest.raises(EncoderError, match="store_queries is 'hash'"):
            fw.refresh(tune=True)


def test_no_weights_are_fitted_and_the_reason_says_so(tmp_path: Path) -> None:
    config = Config(encoder="", store_queries="hash")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(topics())
        fw.refresh()
        shipped = live(fw)
        vote_on(fw, QUERIES, is_answer)
        report = fw.refresh()
        assert report.parameters == "kept" and live(fw) == shipped
        assert "0 of the 64" in report.reason
        assert f"{len(QUERIES)} past queries are stored as a hash" in report.reason


def test_changing_the_setting_takes_the_words_at_the_next_refresh(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root, "text") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        say(fw)
        say(fw, f"where is {WORDS[0]}", "p4")
        fw.correct(say(fw, f"{WORDS[1]} of reset", "p4", 1), text="ask them", user_id="ann")
        fw.feedback(say(fw, f"{WORDS[2]} reset", n=2), "p5", "harmful", user_id="eve")
        for item in fw.review.items():
            if item.passage_id:
                fw.review.accept(item.id)
        fw.pin(f"{WORDS[3]} known", "p1")
        fw.refresh()
        before = [acting(fw, query) for query in (ASKED, AGAIN, SIMILAR)]
        assert before[:2] == [4, 4] and before[2] >= 4
    words: list[str | bytes] = [*WORDS[:3], "of the page"]
    assert found_in([root], words) == set(words)
    with opened(root, "hash") as fw:
        assert acting(fw, AGAIN) == 4
        assert fw.refresh().outcome == "unchanged"
        assert found_in([root], words) == set()
        assert [acting(fw, query) for query in (ASKED, AGAIN, SIMILAR)] == before
        assert fw.verify() == []
        fw.add([Passage("more", "something to do")])
        assert "past queries are stored as a hash" in fw.refresh().reason
        assert [acting(fw, query) for query in (ASKED, AGAIN, SIMILAR)] == before
        assert fw.retrieve(f"{WORDS[3]} known", record=False).hits[0].passage_id == "p1"
    assert found_in([root], words) == set()
    assert found_in([root], [WORDS[3]]) == {WORDS[3]}  # who runs the index wrote it
    with opened(root, "text") as fw:
        assert acting(fw, AGAIN) == 4
        say(fw, AGAIN, n=5)
        assert acting(fw, ASKED) == 5
        fw.refresh()
        assert fw.golden.items()[0].query == AGAIN  # it has words again
    assert {r["query"] for r in log_of(root).retrievals} == {"", AGAIN}


def test_a_refresh_that_dies_before_the_file_is_written_anew_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, asked = tmp_path / "kb", [f"where is {word}" for word in (WORDS[0], *"abcd")]
    with opened(root, "text") as fw:
        fw.add(PASSAGES)
        for query in asked:
            say(fw, query)
        fw.refresh()

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with closing(sqlite3.connect(root / "flywheel.db")) as conn:  # so that the log stays
        with opened(root, "hash") as fw, monkeypatch.context() as patch:
            patch.setattr(question_texts, "_AT_ONCE", 2)
            patch.setattr(SqliteDatabase, "compact", dies)
            conn.execute("SELECT count(*) FROM retrievals").fetchone()
            with pytest.raises(KeyboardInterrupt):
                fw.refresh()
            assert {r["query"] for r in log_of(root).retrievals} == {""}
            assert found_in([root], [WORDS[0]])  # in the log
        with opened(root, "hash") as fw:
            fw.refresh()
            assert found_in([root], [WORDS[0]]) == set()
            with fw._database.reading() as reader:
                assert journal.read_meta(reader, "question words deleted") == "no"


def test_forgetting_and_retention_need_no_words(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root, retention_days=30) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        say(fw)
        asked = fw.retrieve("only of bob", user_id="bob")
        fw.feedback(asked.id, "p2", "helpful", user_id="bob")
        fw.refresh()
        fw.forget("bob")
        assert found_in([root], [query_name(root, "only of bob")]) == set()
        assert acting(fw, AGAIN) == 4
        with fw._database.transaction() as conn:
            for table in ("retrievals", "votes"):
                conn.execute(f"UPDATE {table} SET at = at - 31 * 86400")
        fw.refresh()
        assert {r["user_id"] for r in log_of(root).retrievals} == {None}
        assert acting(fw, AGAIN) == 4
        fw.forget("ann")
        assert fw.verify() == []


def test_without_a_vector_the_very_question_alone_finds_its_votes(tmp_path: Path) -> None:
    """After another encoder revision, under which its words would have to be encoded."""
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        say(fw)
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        name = query_name(root, ASKED)
        assert conn.execute("DELETE FROM vectors WHERE text_hash = ?", (name,)).rowcount == 1
    with opened(root) as fw:
        assert acting(fw, AGAIN) == 4
        assert acting(fw, "reset word5 text5") == 0
        fw.refresh()
        assert acting(fw, AGAIN) == 4
        assert fw.verify() == []
        (row,) = rows(root, "SELECT count(*) AS n FROM vectors WHERE text_hash = ?", name)
        assert row["n"] == 0


@pytest.mark.parametrize("how", ["", "Hash", "none", 1, None])
def test_settings_that_cannot_be(how: Any) -> None:
    with pytest.raises(ConfigError, match="store_queries"):
        Config(store_queries=how)
