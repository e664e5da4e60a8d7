"""Filter expressions wherever they act: every way to ask, tenants, corrections, refreshes, older folders."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlite_utils

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage, Vote
from rag_flywheel.errors import CorruptFileError, InputError, UnknownIdError
from rag_flywheel.privacy.ids import hashed
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.migrations import migrate, migrations
from rag_flywheel.store.passages import query_digest
from rag_flywheel.store.place import open_database

DOCS = [
    Passage("a", "badge office opens at nine", "", {"roles": ["hr", "it"], "org": {"id": 7}}),
    Passage("b", "badge office is on floor two", "", {"roles": ["it"], "at": date(2031, 2, 3)}),
    Passage("c", "badge office closes at five", "", {"roles": [], "org": {"id": 8}, "n": None}),
    Passage("d", "badge office has a bell", "", {"at": datetime(2031, 5, 1, tzinfo=UTC)}),
]
EXPRESSIONS: list[tuple[dict[str, Any], str]] = [
    ({"roles": {"contains": "hr"}}, "a"),
    ({"roles": {"all": ["it"]}}, "ab"),
    ({"not": {"roles": {"any": ["hr", "x"]}}}, "bcd"),
    ({"org.id": {"in": [7, 9]}}, "a"),
    ({"org.id": {"nin": [7]}}, "bcd"),
    ({"or": [{"org.id": 8}, {"at": {"gte": date(2031, 3, 1)}}]}, "cd"),
    ({"and": [{"at": {"exists": True}}, {"at": {"lt": "2031-05-01T02:00:00+01:00"}}]}, "bd"),
    ({"n": {"exists": True}}, "c"),
    ({"at": datetime(2031, 5, 1, tzinfo=UTC)}, "d"),
    ({"roles": {"any": []}}, ""),
]


@pytest.fixture
def office(fw: Flywheel) -> Flywheel:
    fw.add(DOCS)
    return fw


def asked(fw: Flywheel, where: dict[str, Any]) -> str:
    """The ids that every way to ask gives for a filter, in the order of the alphabet."""
    one = sorted(h.passage_id for h in fw.retrieve("badge office", where=where).hits)
    (many,) = fw.retrieve_many(["badge office"], where=where, record=False)
    (ranked,) = fw.rank_many(["badge office"], where=where)
    assert sorted(h.passage_id for h in many.hits) == sorted(ranked) == one
    assert sorted(p.id for p in fw.passages(where)) == one
    return "".join(one)


def test_every_way_to_ask_keeps_to_the_filter(office: Flywheel) -> None:
    office.add([Passage("later", "another office", "", {"roles": "hr"})])
    for _ in range(2):  # of fresh texts, then of those of a version
        for where, expected in EXPRESSIONS:
            wanted = expected + ("e" if "nin" in str(where) or "not" in where else "")
            assert asked(office, where).replace("later", "e") == wanted
        office.refresh()
    office.add([Passage("a", DOCS[0].text, "", {"roles": ["it"]})])  # new metadata of an old text
    office.add([Passage("new", "badge desk", "", {"roles": ["hr"]})])
    assert asked(office, {"roles": {"contains": "hr"}}) == "new"
    office.remove(["new"])
    assert asked(office, {"roles": {"contains": "hr"}}) == ""


def test_a_stored_filter_means_the_same_at_a_refresh(office: Flywheel) -> None:
    for where, expected in EXPRESSIONS:
        for n, passage in enumerate(expected):
            shown = office.retrieve(f"badge office {n}", where=where, user_id="ann")
            office.feedback(shown.id, passage, "helpful", user_id="ann")
    assert office.refresh().outcome == "promoted"
    assert office.verify() == []


def test_corrections_keep_to_the_filter_of_the_question(office: Flywheel) -> None:
    shown = office.retrieve("when?", 1, where={"or": [{"org.id": 7}, {"org.id": 8}]})
    office.correct(shown.id, "c", user_id="ann")
    for passage in ("b", "d"):
        with pytest.raises(UnknownIdError, match="passes the filter"):
            office.correct(shown.id, passage, user_id="ann")


def test_an_accepted_text_gets_what_the_filter_demands(office: Flywheel) -> None:
    where = {
        "and": [{"lang": "en"}, {"org.id": {"eq": 7}}],
        "year": {"gte": 2020},
        "or": [{"x": 1}, {"y": 2}],
        "not": {"z": 3},
    }
    shown = office.retrieve("badge office", where=where)
    office.correct(shown.id, text="it opens at ten")
    office.review.accept(office.review.items()[0].id)
    (added,) = office.passages({"source": "correction"})
    assert {k: added.metadata.get(k) for k in ("lang", "org.id", "x", "y", "z", "year")} == {
        "lang": "en", "org.id": 7, "x": None, "y": None, "z": None, "year": None,
    }  # fmt: skip
    assert [p.id for p in office.passages({"org.id": 7, "lang": "en"})] == [added.id]


# ---- Tenants ---------------------------------------------------------------------------------------


@pytest.fixture
def tenants(tmp_path: Path) -> Iterator[Flywheel]:
    config = Config(encoder="", tenant_key="team.id", tenant_required=False)
    with Flywheel.open(tmp_path / "tenants", encoder=WordEncoder(), config=config) as fw:
        fw.add(
            [Passage(f"p{i}", f"badge {i}", "", {"team": {"id": t}}) for i, t in enumerate("xxyy")]
        )
        fw.add([Passage("one", "badge one", "", {"team": {"id": 1}})])
        fw.add([Passage("true", "badge true", "", {"team": {"id": True}})])
        fw.add(
            [Passage("none", "badge none"), Passage("list", "badge", "", {"team": {"id": ["x"]}})]
        )
        yield fw


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"team.id": "x"}, ["p0", "p1"]),
        ({"team.id": {"eq": "x"}}, ["p0", "p1"]),
        ({"and": [{"team.id": "x"}, {"lang": None}]}, ["p0", "p1"]),
        ({"team.id": np.int64(1)}, ["one"]),
        ({"team.id": "z"}, []),
    ],
)
def test_a_tenant_sees_its_own_passages(
    tenants: Flywheel, where: dict[str, Any], expected: list[str]
) -> None:
    assert sorted(h.passage_id for h in tenants.retrieve("badge", where=where).hits) == expected


@pytest.mark.parametrize(
    "where",
    [
        {"team.id": {"ne": "x"}},
        {"team.id": {"in": ["x"]}},
        {"team.id": {"nin": ["y"]}},
        {"team.id": {"prefix": "x"}},
        {"team.id": {"exists": True}},
        {"team.id": {"gte": "x"}},
        {"team.id": {"eq": "x", "exists": True}},
        {"team.id": None},
        {"team.id": True},
        {"team.id": 1.0},
        {"not": {"team.id": "y"}},
        {"or": [{"team.id": "x"}, {"team.id": "y"}]},
        {"team.id": "x", "or": [{"team.id": "y"}, {"lang": "en"}]},
        {"and": [{"team.id": "x"}, {"team.id": "y"}]},
        {"and": [{"not": {"or": [{"team.id": "y"}]}}]},
        {"team.id": {}},
        {},
    ],
)
def test_a_filter_that_is_not_of_one_tenant_is_refused(
    tenants: Flywheel, where: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"expected|string or whole number"):
        tenants.retrieve("badge", where=where)
    with pytest.raises(InputError):
        tenants.pin("badge", "p0", where=where)


def test_votes_under_either_spelling_of_a_tenant_are_one(tenants: Flywheel) -> None:
    shown = tenants.retrieve("badge", where={"and": [{"team.id": {"eq": "x"}}]})
    tenants.feedback(shown.id, "p1", "helpful", user_id="ann")

    def evidence(where: dict[str, Any]) -> float:
        hits = tenants.retrieve("badge", where=where, record=False).hits
        return max(abs(h.explanation.evidence) for h in hits)

    assert evidence({"team.id": "x"}) > 0 == evidence({"team.id": "y"})


# ---- Scalars of numpy ------------------------------------------------------------------------------


def test_numbers_of_numpy_are_numbers_everywhere(fw: Flywheel, tmp_path: Path) -> None:
    fw.add(DOCS)
    shown = fw.retrieve("badge office", np.int64(2), min_relevance=np.float32(0.0), user_id="ann")
    assert len(shown.hits) == 2
    assert len(fw.rank_many(["badge"], np.uint8(1))[0]) == 1
    given = [Candidate(n, f"text {n}", np.float32(s)) for n, s in (("x", 2.5), ("y", 1.5))]
    other = fw.rerank("badge", given, np.int32(1), user_id="ann")
    first = shown.hits[0].passage_id
    fw.feedback_many([Vote(other.id, "x", "helpful", "bob", trust=np.float64(0.5))])
    assert fw.relevance(shown.id, {first: np.bool_(True)}, user_id="ann") == 1  # type: ignore[dict-item]
    fw.signal(shown.id, "rating", np.int64(5), user_id="eve")
    fw.signal(shown.id, "task_done", np.bool_(False), user_id="eve")
    fw.adopted(shown.id, used=np.bool_(True), user_id="dan")  # type: ignore[arg-type]
    assert fw.pin("badge", "a", grade=np.int64(3))
    assert fw.gaps(np.float32(7.0), min_relevance=np.float64(0.2)) is not None
    assert len(fw.history(np.int64(1))) == 1
    assert fw.refresh(if_votes=np.int64(1), max_age_s=np.float64(60.0)).outcome == "promoted"
    assert fw.verify() == []
    with closing(sqlite3.connect(Path(fw.status().path) / FILE_NAME)) as conn:
        kinds = conn.execute("SELECT DISTINCT typeof(k) FROM retrievals").fetchall()
        assert kinds == [("integer",)]
        assert conn.execute("SELECT DISTINCT typeof(grade) FROM golden").fetchall() == [
            ("integer",)
        ]
    config = Config(encoder="", n_candidates=np.int64(40), explore=np.float32(0.25))
    with Flywheel.open(
        tmp_path / "b", encoder=WordEncoder(), config=config, trust=np.float64(2)
    ) as b:
        assert (b.config.n_candidates, b.config.explore) == (40, 0.25)


@pytest.mark.parametrize("k", [np.bool_(True), np.float64(2.0), np.int64(0), np.array([2]), "2"])
def test_other_things_of_numpy_are_no_numbers_of_hits(office: Flywheel, k: Any) -> None:
    with pytest.raises(InputError, match="k is"):
        office.retrieve("badge", k)


# ---- Folders of before, and damaged ones -------------------------------------------------------------


def test_empty_conditions_of_stored_filters_are_dropped(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    with database.transaction() as conn:
        migrations.apply(sqlite_utils.Database(conn), stop_before="m003_hashed_users")
    old = ['{"lang": {}}', '{"lang": {}, "n": 3, "y": {"gte": 1}}', '{"n": "{}"}', "{}{", None]
    with database.transaction() as conn:
        for n, where in enumerate(old):
            conn.execute(
                "INSERT INTO retrievals (id, kind, at, query, query_hash, k, seen, filter, "
                "latency_ms, hits) VALUES (?, 'retrieve', 0, 'q', ?, 8, 0, ?, 1, '[]')",
                (str(n), query_digest("q"), where),
            )
    migrate(database, hashed)
    with database.reading() as conn:
        rows = [row[0] for row in conn.execute("SELECT filter FROM retrievals ORDER BY rid")]
    assert rows == [None, '{"n": 3, "y": {"gte": 1}}', '{"n": "{}"}', "{}{", None]
    database.close()


@pytest.mark.parametrize("damaged", ['{"or": []}', '{"x": {"like": 1}}', "[1]", '{"x": [1]}', "3"])
def test_verify_and_refresh_name_a_stored_filter_that_is_none(
    office: Flywheel, damaged: str
) -> None:
    shown = office.retrieve("badge", where={"roles": {"contains": "it"}})
    office.feedback(shown.id, "a", "helpful")
    with closing(sqlite3.connect(Path(office.status().path) / FILE_NAME)) as conn, conn:
        conn.execute("UPDATE retrievals SET filter = ?", (damaged,))
    (problem,) = office.verify()
    assert "retrievals.filter" in problem and "expected a filter expression" in problem
    with pytest.raises(CorruptFileError, match=r"retrievals.filter holds .*no filter"):
        office.refresh()


def test_metadata_goes_out_and_in_again(office: Flywheel, tmp_path: Path) -> None:
    office.export.beir(tmp_path / "out")
    lines = (tmp_path / "out" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    written = {row["_id"]: row["metadata"] for row in map(json.loads, lines)}
    assert written == {p.id: dict(p.metadata) for p in office.passages()}
    assert written["b"] == {"roles": ["it"], "at": "2031-02-03"}
    assert office.add(DOCS).unchanged == len(DOCS)
    assert office.metadata_keys() == {
        "at": ["string"], "n": ["null"], "org": ["object"], "org.id": ["number"], "roles": ["list"],
    }  # fmt: skip


def test_filters_pass_after_every_change_what_they_pass_in_an_index_opened_anew(
    fw: Flywheel,
) -> None:
    def text(id_: str, team: str) -> Passage:
        return Passage(id_, f"the {id_} page of the desk", "", {"team": team})

    def answers(index: Flywheel) -> list[list[tuple[str, float]]]:
        found = [
            index.retrieve("page of the desk", 4, where=where, record=False)
            for where in (None, {"team": "a"}, {"team": "b"})
        ]
        return [[(h.passage_id, round(h.score, 5)) for h in each.hits] for each in found]

    fw.add([text(f"p{i}", "ab"[i % 2]) for i in range(12)])
    fw.refresh()
    for change in (
        lambda: fw.add([text("fresh", "a"), text("other", "b")]),
        lambda: fw.remove(["p2"]),
        lambda: fw.add([text("p4", "b")]),
        lambda: fw.remove(["fresh"]),
        lambda: fw.add([text("other", "a")]),
    ):
        before = answers(fw)
        change()
        after = answers(fw)
        with Flywheel.open(fw.status().path, encoder=WordEncoder()) as anew:
            assert after == answers(anew) != before
