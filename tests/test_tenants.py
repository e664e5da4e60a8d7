"""No public call shows a tenant, or lets it change, what belongs to another."""

import inspect
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import (
    Candidate,
    Config,
    Flywheel,
    ImportedHit,
    ImportedRetrieval,
    ImportedVote,
    Passage,
    Vote,
)
from rag_flywheel.curate.golden_set import GoldenSet
from rag_flywheel.curate.review import Review
from rag_flywheel.errors import FlywheelError, InputError, UnknownIdError
from rag_flywheel.export.export import Export
from rag_flywheel.records import Hit

SECRET = "zebrafish"  # in everything that belongs to tenant a, and in nothing that a test asks for
QUERY = "reset the password"
OF_RETRIEVALS = "votes", "answer_votes", "corrections", "notes", "runs"
WRONG = ["b", "c", 7, "A", "a ", '"a"']


@dataclass
class World:
    """An index with the data of tenants a and b; of tenant a: a retrieval, a hit with evidence, what
    waits for review, and what was decided."""

    fw: Flywheel
    folder: Path
    asked: str
    hit: Hit
    waits: str
    decided: str

    def rows(self) -> list[Any]:
        """Everything that is stored of tenant a."""
        own = "rid IN (SELECT rid FROM retrievals WHERE tenant = '\"a\"')"
        queries = [
            "SELECT * FROM retrievals WHERE tenant = '\"a\"'",
            "SELECT * FROM passages WHERE id LIKE 'a-%' AND origin = 'index'",
            *(f"SELECT * FROM {t} WHERE tenant = '\"a\"'" for t in ("golden", "reviews")),
            *(f"SELECT * FROM {t} WHERE {own}" for t in OF_RETRIEVALS),
            f"SELECT * FROM note_reviews WHERE note IN (SELECT seq FROM notes WHERE {own})",
        ]  # fmt: skip
        with closing(sqlite3.connect(self.folder / "kb" / "flywheel.db")) as conn:
            return [conn.execute(sql).fetchall() for sql in queries]

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def new(self, ending: str = "") -> Path:
        """A file or folder that is not there yet."""
        return self.folder / f"out{len(list(self.folder.iterdir()))}{ending}"


def make(folder: Path) -> World:
    config = Config(encoder="", tenant_key="team")
    fw = Flywheel.open(folder / "kb", encoder=WordEncoder(), config=config)
    for team, more in (("a", SECRET), ("b", "b")):
        fw.add(
            [
                Passage(f"{team}-reset", f"press reset for a password {more}", more, {"team": team, more: 1}),
                Passage(f"{team}-mail", f"write a mail for the password {more}", "", {"team": team}),
                Passage(f"{team}-cats", f"cats sleep {more}", "", {"team": team}),
            ]
        )  # fmt: skip
        asked = [fw.retrieve(f"{QUERY} {more}", user_id=u, tenant=team) for u in "uvwxyz"]
        for user, answer in zip("uvwxyz", asked, strict=True):
            for name in ("reset", "mail"):
                fw.feedback(
                    answer.id,
                    f"{team}-{name}",
                    "harmful" if user in "xyz" else "helpful",
                    reason=more,
                    user_id=user,
                    tenant=team,
                )
        fw.correct(asked[2].id, f"{team}-mail", user_id="z", tenant=team)
        fw.correct(asked[0].id, text=f"written by hand {more}", user_id="x", tenant=team)
        fw.missing(asked[1].id, f"missing {more}", user_id="y", tenant=team)
        fw.pin(f"where are cats {more}", f"{team}-cats", tenant=team)
        for user in "xyz":
            asked_in_vain = fw.retrieve(f"bananas {more}", user_id=user, tenant=team)
            fw.missing(asked_in_vain.id, more, user_id=user, tenant=team)
    fw.retrieve("how do cats sleep", tenant="a")
    items = [item for item in fw.review.items(tenant="a") if item.passage_id]
    fw.review.accept(items[0].id, tenant="a")
    waits = fw.review.items(tenant="a")[0].id
    hit = fw.retrieve(f"{QUERY} {SECRET}", tenant="a", record=False).hits[0]
    assert hit.explanation.votes
    assert asked[0].id is not None
    of_a = next(r for r in _retrievals(folder) if r[1] == '"a"')[0]
    return World(fw, folder, of_a, hit, waits, items[0].id)


def _retrievals(folder: Path) -> list[Any]:
    with closing(sqlite3.connect(folder / "kb" / "flywheel.db")) as conn:
        return conn.execute("SELECT id, tenant FROM retrievals ORDER BY rid").fetchall()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.fw.close()


Call = Callable[..., Any]
GIVEN = [Candidate("a-reset", "some text", 2.0), Candidate("own", "other text", 1.0)]


def written(path: Path) -> str:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return "".join(f.read_text(encoding="utf-8") for f in files if f.is_file())


def exported(export: Call, path: Path, **named: Any) -> str:
    export(path, **named)
    return written(path)


def export_of(what: str, ending: str, world: "World", named: dict[str, Any]) -> str:
    return exported(getattr(world.fw.export, what), world.new(ending), **named)


# What each call does to, or shows of, tenant a. Those that return something return what is a's.
READS: dict[str, Callable[[World, dict[str, Any]], Any]] = {
    "retrieve": lambda w, t: w.fw.retrieve(QUERY, **t),
    "retrieve_many": lambda w, t: w.fw.retrieve_many([QUERY], **t),
    "rank_many": lambda w, t: [
        SECRET if id_.startswith("a-") else id_ for id_ in w.fw.rank_many([QUERY], **t)[0]
    ],
    "retrieval": lambda w, t: w.fw.retrieval(w.asked, **t),
    "retrievals": lambda w, t: w.fw.retrievals(**t),
    "votes": lambda w, t: w.fw.votes(**t),
    "judgments": lambda w, t: w.fw.judgments(**t),
    "votes_behind": lambda w, t: w.fw.votes_behind(w.hit, **t),
    "gaps": lambda w, t: w.fw.gaps(**t),
    "passage": lambda w, t: w.fw.passage("a-reset", **t),
    "questions": lambda w, t: w.fw.questions(**t),
    # b has its own activity: tests/report/test_questions.py counts both
    "activity": lambda w, t: SECRET if w.fw.activity(**t) and t["tenant"] != "b" else "",
    "coverage": lambda w, t: SECRET if w.fw.coverage(**t).n_asked > 9 else "",  # of a alone 10
    "passages": lambda w, t: w.fw.passages(**t),
    "metadata_keys": lambda w, t: w.fw.metadata_keys(**t),
    "history": lambda w, t: w.fw.history(**t),
    "dp_counts": lambda w, t: w.fw.dp_counts(
        "questions", epsilon=10.0, delta=1e-3, most_keys=1, **t
    ),
    **{
        f"export.{what}": partial(export_of, what, ending)
        for what, ending in {
            "votes": ".jsonl",
            "judgments": ".csv",
            "retrievals": ".jsonl",
            "beir": "",
            "trec": "",
            "ubi": "",
        }.items()
    },
    "export.training_set": lambda w, t: exported(
        partial(w.fw.export.training_set, "labeled-pairs"), w.new(), **t
    ),
    "golden.items": lambda w, t: w.fw.golden.items(**t),
    "golden.export": lambda w, t: exported(w.fw.golden.export, w.new(), **t),
    "review.items": lambda w, t: w.fw.review.items(**t),
    "review.next": lambda w, t: w.fw.review.next(**t),
}
WRITES: dict[str, Callable[[World, dict[str, Any]], Any]] = {
    "rerank": lambda w, t: w.fw.rerank(QUERY, GIVEN, **t),
    "feedback": lambda w, t: w.fw.feedback(w.asked, "a-reset", "harmful", **t),
    "feedback_many": lambda w, t: w.fw.feedback_many([Vote(w.asked, "a-reset", "harmful")], **t),
    "answer_feedback": lambda w, t: w.fw.answer_feedback(w.asked, "harmful", **t),
    "relevance": lambda w, t: w.fw.relevance(w.asked, {"a-reset": False}, **t),
    "adopted": lambda w, t: w.fw.adopted(w.asked, used=False, **t),
    "signal": lambda w, t: w.fw.signal(w.asked, "abandoned", **t),
    "correct": lambda w, t: w.fw.correct(w.asked, "a-mail", **t),
    "missing": lambda w, t: w.fw.missing(w.asked, "not there", **t),
    "link_run": lambda w, t: w.fw.link_run(w.asked, "another run", **t),
    "answer": lambda w, t: w.fw.answer(w.asked, "an answer", **t),
    "pin": lambda w, t: w.fw.pin(QUERY, "a-mail", **t),
    "unpin": lambda w, t: w.fw.unpin(f"where are cats {SECRET}", "a-cats", **t),
    "golden.add": lambda w, t: w.fw.golden.add(
        w.file("known.csv", f"query,passage_id\n{QUERY},a-mail\n"), **t
    ),
    "golden.add_answers": lambda w, t: w.fw.golden.add_answers([("new one", "a-reset", 1)], **t),
    "review.accept": lambda w, t: w.fw.review.accept(w.waits, **t),
    "review.reject": lambda w, t: w.fw.review.reject(w.waits, **t),
    "review.undo": lambda w, t: w.fw.review.undo(w.decided, **t),
    "import_votes": lambda w, t: w.fw.import_votes(
        [
            ImportedRetrieval("r1", QUERY, [ImportedHit("a-reset")]),
            ImportedVote("v1", "r1", "harmful", "a-reset"),
            ImportedVote("v2", w.asked, "harmful", "a-reset"),
        ],
        **t,
    ),
    "import_files": lambda w, t: w.fw.import_files(
        "csv",
        w.file("v.csv", f"retrieval_id,query,passage_id,verdict\n{w.asked},,a-reset,harmful\n"),
        **t,
    ),
    "add": lambda w, t: w.fw.add(
        [Passage("a-reset", "new words", "", {"team": t["tenant"]})], tenant=t["tenant"]
    ),
    "remove": lambda w, t: w.fw.remove(["a-reset"], **t),
}
# Calls of whoever runs the index, which are on the whole folder; none of them returns texts, but an
# audit that is asked to show what it found, and a comparison of versions.
OPERATORS = {
    "open", "close", "warm", "add_files", "add_documents", "raters", "mute", "unmute", "opt_out", "forget",
    "hashed_user",
    "backup", "refresh", "versions", "explain_version", "rollback", "release", "status", "health",
    "verify", "repair", "audit", "refreshes", "compare", "change_encoder", "drop_encoder_change",
}  # fmt: skip
CALLS = {**READS, **WRITES}


def public_calls() -> dict[str, inspect.Signature]:
    found = {}
    for prefix, cls in (
        ("", Flywheel),
        ("golden.", GoldenSet),
        ("review.", Review),
        ("export.", Export),
    ):
        for name, member in inspect.getmembers(cls, callable):
            if not name.startswith("_"):
                found[prefix + name] = inspect.signature(member)
    return found


def test_every_public_call_is_of_a_tenant_or_of_the_operator() -> None:
    calls = public_calls()
    assert set(calls) == set(CALLS) | OPERATORS
    for name in CALLS:
        assert "tenant" in calls[name].parameters, name
        assert name == "add" or "all_tenants" in calls[name].parameters, name


@pytest.mark.parametrize("name", CALLS)
def test_another_tenant_learns_and_changes_nothing(world: World, name: str) -> None:
    before = world.rows()
    for wrong in WRONG:
        try:
            found = CALLS[name](world, {"tenant": wrong})
        except (UnknownIdError, InputError) as error:
            found = str(error).replace(f"where are cats {SECRET}", "")
            found = found.replace("no passage 'a-reset'", "")  # the id that was asked for
        assert SECRET not in repr(found), (name, wrong)
        assert "a-reset" not in repr(found) or name not in READS, (name, wrong)
        assert world.rows() == before, (name, wrong)


@pytest.mark.parametrize("name", READS)
def test_the_tenant_itself_is_shown_what_is_its_own(world: World, name: str) -> None:
    assert SECRET in repr(READS[name](world, {"tenant": "a"}))


@pytest.mark.parametrize("name", WRITES)
def test_the_tenant_itself_changes_what_is_its_own(world: World, name: str) -> None:
    before = world.rows()
    WRITES[name](world, {"tenant": "a"})
    assert world.rows() != before


@pytest.mark.parametrize("name", [name for name in CALLS if name != "add"])
def test_a_call_names_a_tenant_or_asks_for_all(world: World, name: str) -> None:
    before = world.rows()
    with pytest.raises(InputError, match="no tenant is named, and the index has tenants"):
        CALLS[name](world, {"tenant": None})
    with pytest.raises(InputError, match="found tenant='a' and all_tenants=True"):
        CALLS[name](world, {"tenant": "a", "all_tenants": True})
    with pytest.raises(InputError, match="all_tenants is 'yes'"):
        CALLS[name](world, {"tenant": None, "all_tenants": "yes"})
    assert world.rows() == before


@pytest.mark.parametrize("name", READS)
def test_all_tenants_are_shown_to_who_asks_for_all(world: World, name: str) -> None:
    assert SECRET in repr(READS[name](world, {"tenant": None, "all_tenants": True}))


OF_A_RUN: dict[str, Callable[[Flywheel, dict[str, Any]], Any]] = {
    "feedback": lambda fw, t: fw.feedback(run="run", passage_id="a-reset", verdict="harmful", **t),
    "feedback_many": lambda fw, t: fw.feedback_many(
        [Vote(None, "a-reset", "harmful", run="run")], **t
    ),
    "answer_feedback": lambda fw, t: fw.answer_feedback(run="run", verdict="harmful", **t),
    "relevance": lambda fw, t: fw.relevance(run="run", helpful={"a-reset": False}, **t),
    "adopted": lambda fw, t: fw.adopted(run="run", used=False, **t),
    "signal": lambda fw, t: fw.signal(run="run", kind="abandoned", **t),
    "correct": lambda fw, t: fw.correct(None, "a-mail", run="run", **t),
    "missing": lambda fw, t: fw.missing(None, "not there", run="run", **t),
}


def test_every_call_that_takes_a_run_is_tried_as_another_tenant() -> None:
    takes = {name for name, call in public_calls().items() if "run" in call.parameters}
    assert takes | {"feedback_many"} == set(OF_A_RUN), "its votes may name runs"


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_run_that_two_tenants_have_wants_one_named(world: World, name: str) -> None:
    world.fw.link_run(world.asked, "run", tenant="a")
    of_b = world.fw.retrieve(QUERY, tenant="b", run_id="run")
    before = world.rows()
    with pytest.raises(InputError, match=r"of run 'run' are of 2 tenants; expected tenant="):
        OF_A_RUN[name](world.fw, {"all_tenants": True})
    assert world.rows() == before
    OF_A_RUN[name](world.fw, {"tenant": "a"})
    assert all(v.retrieval_id != of_b.id for v in world.fw.votes(all_tenants=True))


@pytest.mark.parametrize("name", OF_A_RUN)
def test_the_runs_of_a_tenant_are_unknown_to_others(world: World, name: str) -> None:
    world.fw.link_run(world.asked, "run", tenant="a")
    before = world.rows()
    for wrong in WRONG:
        with pytest.raises(UnknownIdError, match="no retrieval of run 'run'"):
            OF_A_RUN[name](world.fw, {"tenant": wrong})
    with pytest.raises(InputError, match="no tenant is named"):
        OF_A_RUN[name](world.fw, {})
    assert world.rows() == before
    OF_A_RUN[name](world.fw, {"tenant": "a"})
    assert world.rows() != before


@pytest.mark.parametrize("tenant", [True, 1.5, ["a"], "", " "])
def test_what_is_no_tenant(world: World, tenant: Any) -> None:
    with pytest.raises(InputError, match="tenant is "):
        world.fw.retrieve(QUERY, tenant=tenant)


def test_a_filter_that_asks_for_the_tenant_names_it(world: World) -> None:
    fw, own = world.fw, {"team": "a"}
    of_a = [hit.passage_id for hit in fw.retrieve(QUERY, tenant="a", record=False).hits]
    assert {id_[:2] for id_ in of_a} == {"a-"}
    for where, named in (
        (own, {}),
        (own, {"tenant": "a"}),
        (own, {"all_tenants": True}),
        ({"and": [own]}, {}),
    ):
        assert [h.passage_id for h in fw.retrieve(QUERY, where=where, **named).hits] == of_a  # type: ignore[arg-type]
    assert len(fw.passages({"team": "a"})) == 3
    with pytest.raises(InputError, match="expected one tenant"):
        fw.retrieve(QUERY, where=own, tenant="b")  # type: ignore[arg-type]
    for where in ({"not": own}, {"or": [own, {"team": "b"}]}, {"team": {"in": ["a", "b"]}}):
        with pytest.raises(InputError, match="does not ask for one 'team'"):
            fw.retrieve(QUERY, where=where, tenant="b")  # type: ignore[arg-type]


def test_a_tenant_adds_and_removes_none_but_its_own(world: World) -> None:
    fw, before = world.fw, world.rows()
    mine = Passage("b-new", "some words", "", {"team": "b"})
    with pytest.raises(InputError, match=r"does not have the metadata \{'team': 'b'\}"):
        fw.add([mine, Passage("x", "words", "", {"team": "a"})], tenant="b")
    with pytest.raises(InputError, match="'a-cats' is taken"):
        fw.add([Passage("a-cats", "words", "", {"team": "b"})], tenant="b")
    with pytest.raises(UnknownIdError, match="no passage 'a-cats' is in this index"):
        fw.add([mine], remove=["a-cats"], tenant="b")
    assert world.rows() == before
    assert fw.add([mine], remove=["b-cats"], tenant="b").added == 1
    assert fw.remove(["b-new"], tenant="b") == 1


def test_the_last_decision_of_a_tenant_is_undone(world: World) -> None:
    review = world.fw.review
    for_b = review.items(tenant="b")[0].id
    review.accept(for_b, tenant="b")
    assert review.undo(tenant="a") == world.decided
    assert review.undo(tenant="b") == for_b


def test_known_answers_of_a_file_are_of_the_tenant_named(world: World) -> None:
    fw = world.fw
    theirs = 'query,passage_id,tenant\nhow,b-mail,"""b"""\nwhy,a-mail,"""a"""\n'
    path = world.file("t.csv", theirs)
    with pytest.raises(InputError, match='has the tenant "a"; expected "b"'):
        fw.golden.add(path, tenant="b")
    report = fw.golden.add(path, tenant="b", lenient=True)
    assert (report.added, report.left_out) == (1, {"the query is another tenant's": 1})
    fw.golden.add(world.file("own.csv", "query,passage_id\nwho,b-cats\n"), tenant="b")
    mine = {i.query: i.tenant for i in fw.golden.items(tenant="b")}
    assert {"how": '"b"', "who": '"b"'}.items() <= mine.items()
    assert not {"how", "who"} & {i.query for i in fw.golden.items(tenant="a")}


def test_records_name_their_tenant(world: World) -> None:
    fw, every = world.fw, {"all_tenants": True}
    kinds: list[Any] = [fw.gaps(**every), fw.golden.items(**every), fw.review.items(**every)]  # type: ignore[arg-type]
    for found in kinds:
        assert {item.tenant for item in found} == {'"a"', '"b"'}
    assert {v.tenant for v in fw.votes_behind(world.hit, tenant="a")} == {'"a"'}


def test_without_tenants_none_is_named(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add([Passage("p", "some words")])
        assert fw.retrieve("words").hits
        assert fw.retrieve("words", all_tenants=True).hits
        with pytest.raises(InputError, match="the index has no tenants"):
            fw.retrieve("words", tenant="a")
        with pytest.raises(InputError, match="the index has no tenants"):
            fw.add([Passage("p", "some words")], tenant="a")


def test_a_tenant_need_not_be_named_where_that_is_not_required(tmp_path: Path) -> None:
    config = Config(encoder="", tenant_key="team", tenant_required=False)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage(t, "some words", "", {"team": t}) for t in "ab"])
        assert {h.passage_id for h in fw.retrieve("words").hits} == {"a", "b"}
        asked = fw.retrieve("words", tenant="a")
        assert {h.passage_id for h in asked.hits} == {"a"}
        with pytest.raises(UnknownIdError):
            fw.feedback(asked.id, "a", "harmful", tenant="b")
        fw.feedback(asked.id, "a", "helpful")


def test_tenants_below_a_nested_key(tmp_path: Path) -> None:
    config = Config(encoder="", tenant_key="team.id")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage(f"p{i}", "the very same words", "", {"team": {"id": i}}) for i in (1, 2)])
        asked = fw.retrieve("words", tenant=1)
        assert [h.passage_id for h in asked.hits] == ["p1"]
        fw.feedback(asked.id, "p1", "harmful", user_id="ann", tenant=1)
        asked = fw.retrieve("words", tenant=2)
        assert [h.passage_id for h in asked.hits] == ["p2"]
        assert not asked.hits[0].explanation.votes
        with pytest.raises(FlywheelError):
            fw.votes_behind(asked.hits[0])
        assert fw.votes_behind(asked.hits[0], tenant=2) == []
        assert len({p.id for p in fw.passages(tenant=2)}) == 1
