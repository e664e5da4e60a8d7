"""The public API: an application's own candidates, in its order until votes move them."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fakes import WordEncoder
from plain_model import KERNEL, ids, scored, scores, shared_out, spellings
from rag_flywheel import Candidate, Flywheel, Passage, Vote
from rag_flywheel.errors import CorruptFileError, InputError

QUERY, UNRELATED = "reset password", "kittens sleep"


def test_rerank_keeps_the_given_order_until_votes_move_it(
    tmp_path: Path, encoder: WordEncoder
) -> None:
    given = [
        Candidate("x", "first text", 9.0),
        Candidate("y", "second text", 3.0),
        Candidate("z", "third text", 6.0),
    ]
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        before = fw.rerank(QUERY, given)
        prior = shared_out({"x": 0.0, "z": -1.5, "y": -3.0})
        assert scores(before) == pytest.approx(scored(prior, [], KERNEL.n0))
        assert ids(before) == ["x", "z", "y"]
        assert ids(fw.rerank(QUERY, given, k=2)) == ["x", "z"]
        assert fw.rerank(QUERY, []).hits == ()
        fw.feedback_many([Vote(before.id, "y", "helpful", f"user {i}") for i in range(3)])
        after = fw.rerank(QUERY, given)
        assert ids(after) == ["y", "x", "z"]  # three who agree, at once
        fw.refresh()
        after = fw.rerank(QUERY, given)
        assert ids(after) == ["y", "x", "z"]
        expected = scored(prior, [], KERNEL.n0, {"y": 3})
        assert scores(after) == pytest.approx(expected, abs=1e-6)
        assert [(h.passage_id, h.score) for h in fw.rerank(UNRELATED, given).hits] == [
            (h.passage_id, h.score) for h in before.hits
        ]
        other = [*given[:1], Candidate("y", "quite another text", 3.0), *given[2:]]
        assert ids(fw.rerank(QUERY, other, record=False)) == ["x", "z", "y"]
        assert fw.retrieve(QUERY).hits == ()  # own candidates are no passages of the index
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        assert scores(fw.rerank(QUERY, given, record=False)) == scores(after)
        assert ids(fw.rerank(QUERY, given[::-1], record=False)) == ["y", "x", "z"]


def test_votes_on_a_passage_of_the_index_move_it_among_own_candidates(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    given = [Candidate(p.id, p.text, float(-i)) for i, p in enumerate(help_desk)]
    fw.rerank(QUERY, given)  # known as own candidates first
    fw.add(help_desk)
    for shown in fw.retrieve_many(spellings(QUERY, 8)):
        fw.feedback_many(Vote(shown.id, "cats", "helpful", f"user {i}") for i in range(20))
    assert ids(fw.rerank(QUERY, given)) == ["cats", "reset", "secret", "refund"]


def test_title_and_metadata_come_back_as_they_were_given(fw: Flywheel) -> None:
    given = [
        Candidate("x", "first text", 2.0, "A title", {"lang": "en", "page": 7}),
        Candidate("y", "second text", 1.0),
    ]
    first, second = fw.rerank(QUERY, given).hits
    assert (first.title, dict(first.metadata)) == ("A title", {"lang": "en", "page": 7})
    assert (second.title, dict(second.metadata)) == ("", {})
    for wrong, message in (
        (Candidate("x", "text", 1.0, title=3), "title is int"),  # type: ignore[arg-type]
        (Candidate("x", "text", 1.0, metadata=[]), "metadata is list"),  # type: ignore[arg-type]
        (Candidate("x", "text", 1.0, metadata={"a": [[]]}), "item 1 is list"),  # type: ignore[dict-item]
    ):
        with pytest.raises(InputError, match=message):
            fw.rerank(QUERY, [wrong])


def test_distances_given_as_scores_are_noticed_once(
    fw: Flywheel, caplog: pytest.LogCaptureFixture
) -> None:
    def ask(*scores: float) -> int:
        caplog.clear()
        fw.rerank(QUERY, [Candidate(f"c{i}", f"text {i}", s) for i, s in enumerate(scores)])
        return sum("Give -distance" in record.message for record in caplog.records)

    assert ask(0.9, 0.7, 0.5, 0.3, 0.1) == 0
    assert ask(0.1, 0.2, 0.3, 0.4) == 0  # four may rise by chance
    assert ask(0.1, 0.2, 0.3, 0.3, 0.5) == 0
    assert ask(0.1, 0.2, 0.3, 0.4, 0.5) == 1
    assert ask(0.1, 0.2, 0.3, 0.4, 0.5) == 0  # said already


COSINES = (0.71, 0.69, 0.64, 0.31)
SCALES = {
    "cosines": COSINES,
    "negated distances": tuple(-((2.0 - 2.0 * c) ** 0.5) for c in COSINES),
    "reciprocal ranks": (1 / 61 + 1 / 63, 1 / 62 + 1 / 64, 1 / 63 + 1 / 90, 1 / 70),
    "bm25": (38.2, 21.5, 7.25, 0.0),
    "huge": (1.7e308, 3.0, -2.5, -1.7e308),
    "tiny": (3e-300, 2e-300, 1e-300, 0.0),
    "all the same": (5.0, 5.0, 5.0, 5.0),
}
GERMAN = [
    "Ein neues Kennwort gibt es in den Einstellungen unter Zurücksetzen.",
    "Auf der Kontoseite ändern Sie Ihr Anmeldegeheimnis.",
    "Der Link in der E-Mail gilt eine Stunde, danach ist ein neuer nötig.",
    "Erstattungen kommen binnen dreißig Tagen nach der Bestellung.",
]


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
def test_scores_of_any_scale_keep_their_order_until_three_users_agree(
    fw: Flywheel, scale: tuple[float, ...]
) -> None:
    given = [
        Candidate(f"c{i}", text, score, "Titel" if i else "")
        for i, (text, score) in enumerate(zip(GERMAN, scale, strict=True))
    ]
    query = "Wie ändere ich mein Kennwort?"
    shown = fw.rerank(query, given)
    assert ids(shown) == ["c0", "c1", "c2", "c3"]
    fw.refresh()
    assert scores(fw.rerank(query, given, record=False)) == scores(shown)
    fw.feedback_many([Vote(shown.id, "c1", "helpful", f"user {i}") for i in range(3)])
    assert ids(fw.rerank(query, given, record=False))[0] == "c1"
    fw.refresh()
    assert ids(fw.rerank(query, given, record=False))[0] == "c1"
    assert fw.verify() == []


def test_the_fifty_best_candidates_are_kept_with_the_retrieval(
    tmp_path: Path, fw: Flywheel
) -> None:
    given = [Candidate(f"c{i}", f"text {i}", float(i % 60)) for i in range(60)]
    fw.rerank(QUERY, given, 3, record=False)
    assert kept(tmp_path / "kb") == []
    fw.rerank(QUERY, given, 3)
    (found,) = kept(tmp_path / "kb")
    assert found == {f"c{i}": float(i) for i in [*range(59, 9, -1), 0]}
    assert list(found) == sorted(found, key=lambda name: -found[name])
    fw.rerank(QUERY, given[:2])
    fw.retrieve(QUERY)
    with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn:
        assert conn.execute("SELECT count(*) FROM passages").fetchone() == (52,)
        wanted = "SELECT kind FROM retrievals WHERE candidates IS NULL"
        assert conn.execute(wanted).fetchall() == [("retrieve",)]


def kept(root: Path) -> list[dict[str, float]]:
    """{passage id: score} of the candidates of each retrieval."""
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        names = dict(conn.execute("SELECT pid, id FROM passages"))
        rows = conn.execute("SELECT candidates FROM retrievals").fetchall()
    return [{names[pid]: score for pid, score in json.loads(row[0])} for row in rows if row[0]]


def test_verify_names_stored_candidates_that_cannot_be_read(tmp_path: Path, fw: Flywheel) -> None:
    shown = fw.rerank(QUERY, [Candidate("x", "first", 2.0), Candidate("y", "second", 1.0)])
    fw.feedback(shown.id, "x", "helpful")
    for wrong in ("{}", "[3]", "[[1, 2, 3]]", '[["a", 1]]', "[[1, NaN]]", "no JSON", 7):
        with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn, conn:
            conn.execute("UPDATE retrievals SET candidates = ?", (wrong,))
        (problem,) = fw.verify()
        assert "retrievals.candidates" in problem
        with pytest.raises(CorruptFileError, match=r"retrievals\.candidates"):
            fw.refresh()
