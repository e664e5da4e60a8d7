"""Folding lets no answer become known: what is old loses its users, and with them their voices."""

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from fakes import WordEncoder
from forgetting import log_of, query_name, rows
from known import QUERY, TURNED, corrected, known, said
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.config import config_text
from thorough import thorough

PASSAGES = [Passage(f"p{i}", f"reset word{i} text{i}") for i in range(3)]
QUERIES = [QUERY, TURNED, "another question"]


def opened(root: Path, days: int | None = 30) -> Flywheel:
    config = Config(encoder="", retention_days=days)
    return Flywheel.open(root, encoder=WordEncoder(dim=32), config=config)


def age(root: Path, days: float = 31) -> None:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        for table in ("retrievals", "votes", "answer_votes", "corrections"):
            conn.execute(f"UPDATE {table} SET at = at - ?", (days * 86_400,))


def fold(fw: Flywheel) -> None:
    fw.add([Passage("more", f"so that there is something to do after {fw.status().version}")])
    assert fw.refresh().outcome == "promoted"


def accept_after_a_dispute(fw: Flywheel) -> None:
    said(fw, QUERY, "p0", "helpful", "ann", "bob")
    said(fw, QUERY, "p0", "harmful", "cid", "dan")
    (item,) = fw.review.items()
    fw.review.accept(item.id)


def pairs(fw: Flywheel) -> set[tuple[str, str, int]]:
    """(words of the query, passage, grade) of everything known."""
    return {
        (" ".join(sorted(query.split())), passage, grade)
        for query, (answers, _) in known(fw).items()
        for passage, grade in answers.items()
    }


users = st.sampled_from(["ann", "bob", "cid", "dan", None])
votes = st.tuples(
    st.just("vote"),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from(["helpful", "helpful", "helpful", "harmful", "retract"]),
    users,
)
corrections = st.tuples(st.just("correct"), st.integers(0, 2), st.integers(0, 2), users)
histories = st.lists(st.one_of(votes, votes, votes, votes, corrections), min_size=3, max_size=25)


@thorough(20, few=4, phases=(Phase.reuse, Phase.generate))
@given(histories)
def test_what_is_known_after_folding_was_known_before(history: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as folder, opened(Path(folder) / "kb") as fw:
        fw.add(PASSAGES)
        for kind, query, hit, *more in history:
            if kind == "vote":
                said(fw, QUERIES[query], f"p{hit}", *more)
            else:
                corrected(fw, QUERIES[query], f"p{hit}", *more)
        before = pairs(fw)
        age(Path(folder) / "kb")
        fold(fw)
        after = pairs(fw)
        assert after <= before
        assert [i for i in fw.golden.items() if "agreement" in i.sources] == []
        age(Path(folder) / "kb")
        fold(fw)
        assert pairs(fw) == after


@pytest.mark.parametrize("user", ["ann", None])
def test_votes_of_one_user_or_of_nobody_agree_no_more_when_they_are_old(
    tmp_path: Path, user: str | None
) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        said(fw, QUERY, "p0", "helpful", *[user] * 6)
        said(fw, QUERY, "p1", "harmful", *[user] * 6)
        said(fw, QUERY, "p1", "helpful", *[user] * 6)
        age(root)
        fold(fw)
        ids = [v["user_id"] for v in log_of(root).votes]
        assert len(ids) == (2 if user else 18)  # of a user the last word, on each passage
        assert (set(ids) == {None}) == (user is None)
        assert (known(fw), fw.review.items()) == ({}, [])
        said(fw, QUERY, "p0", "helpful", "bob", "cid")  # two who are known
        assert known(fw) == {}


def test_nor_do_those_whose_votes_are_old_weigh_in_a_review(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        accept_after_a_dispute(fw)
        said(fw, QUERY, "p0", "harmful", "eve", "eve", "eve")
        age(root)
        fold(fw)
        assert fw.review.items() == []
        assert known(fw) == {QUERY: ({"p0": 1}, ("review",))}


def test_two_old_correctors_stay_two_voices_and_nobody_stays_nobody(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        corrected(fw, QUERY, "p0", "ann")
        corrected(fw, QUERY, "p1", "bob")
        corrected(fw, "another question", "p2", None)
        before = {(i.passage_id, i.why) for i in fw.review.items()}
        age(root)
        fold(fw)
        one, two, nobody = [
            r["user_id"] for r in rows(root, "SELECT * FROM corrections ORDER BY seq")
        ]
        assert one.startswith("once:") and two.startswith("once:") and one != two
        assert nobody is None
        assert known(fw) == {}
        assert {(i.passage_id, i.why) for i in fw.review.items()} == before


def test_old_votes_against_an_answer_still_speak_against_it(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        said(fw, QUERY, "p0", "harmful", "dan", "eve")
        age(root)
        said(fw, QUERY, "p0", "helpful", "ann", "bob", "cid")
        assert known(fw) == {}
        fold(fw)
        assert known(fw) == {}


def test_a_correction_that_its_author_took_back_stays_taken_back(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        shown = corrected(fw, QUERY, "p0", "ann")
        fw.correct(shown, "p1", user_id="ann")
        said(fw, QUERY, "p1", "harmful", "bob", "cid")
        (item,) = fw.review.items()
        fw.review.reject(item.id)
        assert known(fw) == {}
        age(root)
        fold(fw)
        assert known(fw) == {}


def test_a_question_that_a_review_stands_on_keeps_its_vector_when_its_askings_are_gone(
    tmp_path: Path,
) -> None:
    """It cannot be made again where the words of questions are not stored."""
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        accept_after_a_dispute(fw)
        said(fw, QUERY, "p0", "retract", "ann", "bob", "cid", "dan")
    hashed = Config(encoder="", retention_days=30, store_queries="hash")
    (root / "flywheel.toml").write_text(config_text(hashed))
    with Flywheel.open(root, encoder=WordEncoder(dim=32)) as fw:
        of_query = "SELECT revision, vector FROM vectors WHERE text_hash = ?"
        before = rows(root, of_query, query_name(root, QUERY))
        age(root)
        fold(fw)
        assert (len(before), log_of(root).retrievals) == (1, [])
        assert rows(root, of_query, query_name(root, QUERY)) == before
