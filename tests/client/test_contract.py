"""A client answers what a Flywheel answers, call for call: records, values and errors."""

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from in_process import URL, async_client_of, client_of, http_of
from rag_flywheel import Candidate, Config, Flywheel, Passage, Retrieval, Vote
from rag_flywheel.client import Client, RetrievalWithToken
from rag_flywheel.errors import FlywheelError
from rag_flywheel.store import wall_clock

ODD_IDS = ["a/b", "..", ".", "a b", "ü#1?x=2&y", "x:accept", "100%", "a\\b", '"', "日本"]
MADE = re.compile(
    r"[0-9a-f]{32}|[0-9a-f]{23}|\d{8}T\d{6}Z-[0-9a-f]{5}|[0-9a-f]{16}|\b[0-9a-f]{10}\b"
)
DIFFERENT = {"at", "latency_ms", "seconds", "created", "bytes_on_disk", "path", "last_refresh"}

GIVEN = [Candidate("own", "a password", 2.0, "T", {"n": 1}), Candidate("b", "x", np.int64(1))]
Served = Callable[[Path], AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with passages, questions, votes, what waits for review, and a version."""
    made = tmp_path_factory.mktemp("contract") / "kb"
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(made, config=config) as fw:
        fw.add(
            [
                Passage("reset", "open the settings to reset a password", "Reset", {"lang": "en"}),
                Passage("refund", "refunds are paid within thirty days", "", {"year": 2024}),
                Passage("cats", "cats sleep most of the day", "", {"a": {"b": [1, "x", None]}}),
                *(Passage(id_, f"words about number {n}") for n, id_ in enumerate(ODD_IDS)),
            ]
        )
        for user in "abcd":
            asked = fw.retrieve("reset my password", 3, user_id=user, session_id=f"s{user}")
            verdict = "helpful" if user in "ab" else "harmful"
            fw.feedback(asked.id, "refund", verdict, user_id=user, reason=f"by {user}")
            fw.missing(asked.id, "where is it", user_id=user)
        fw.golden.add_answers([("how do I reset", "reset", 2)])
        fw.refresh()
    return made


@pytest.fixture(params=[client_of, async_client_of], ids=["sync", "async"])
def served(request: pytest.FixtureRequest) -> Served:
    found: Served = request.param
    return found


@pytest.fixture
def both(folder: Path, tmp_path: Path, served: Served) -> Iterator[tuple[Flywheel, Any]]:
    """A Flywheel and a client, each of a copy of its own."""
    for name in ("one", "two"):
        shutil.copytree(folder, tmp_path / name / "kb")
    with Flywheel.open(tmp_path / "one" / "kb") as fw, served(tmp_path / "two" / "kb") as client:
        yield fw, client


READS: dict[str, Callable[[Any], Any]] = {
    "passage": lambda x: [x.passage(id_) for id_ in ("cats", *ODD_IDS)],
    "passages": lambda x: sorted(x.passages(), key=lambda p: p.id),
    "passages in order": lambda x: [x.passages(n=2), x.passages(n=3, after="cats"), x.passages(after="r")],
    "passages that pass": lambda x: x.passages({"year": {"gte": np.int64(2020)}}, n=np.int64(5)),
    "metadata_keys": lambda x: x.metadata_keys(),
    "retrieve": lambda x: x.retrieve("reset my password", record=False),
    "retrieve filtered": lambda x: x.retrieve("pass", 2, where={"lang": "en"}, record=False),
    "a date in a filter": lambda x: x.retrieve("a", where={"day": date(2024, 1, 2)}, record=False),
    "numpy": lambda x: x.retrieve("a", np.int64(2), record=False, min_relevance=np.float32(0)),
    "retrieve_many": lambda x: x.retrieve_many(["password", "cats asleep"], 2, record=False),
    "rank_many": lambda x: x.rank_many(["password", "cats asleep"], 2),
    "rerank": lambda x: x.rerank("password", GIVEN, record=False),
    "retrieval": lambda x: [x.retrieval(each.id) for each in x.retrievals()],
    "retrievals": lambda x: [x.retrievals(), x.retrievals(2), x.retrievals(9, before=x.retrievals(2)[1].id)],
    "votes": lambda x: [x.votes(), x.votes(2), x.votes(9, before=x.votes(2)[1].number)],
    "judgments": lambda x: x.judgments(),
    "votes_behind": lambda x: [x.votes_behind(h) for h in x.retrieve("reset my password", record=False).hits],
    "coverage": lambda x: [x.coverage(), x.coverage(7)],
    "gaps": lambda x: [x.gaps(), x.gaps(7, min_relevance=0.5)],
    "questions": lambda x: [x.questions(), x.questions(1, order="disputed"), x.questions(order="worst")],
    "activity": lambda x: [x.activity(), x.activity(1.5)],
    "refreshes": lambda x: x.refreshes(2),
    "compare": lambda x: x.compare(*[v.id for v in x.versions() * 2][:2], n=5, k=2),
    "golden": lambda x: x.golden.items(),
    "review": lambda x: [x.review.items(), x.review.next()],
    "raters": lambda x: [x.raters(), x.raters(["a", "nobody"])],
    "versions": lambda x: x.versions(),
    "explain_version": lambda x: x.explain_version(x.versions()[0].id),
    "history": lambda x: [x.history(), x.history(1), x.history(5_000)],
    "status": lambda x: x.status(),
    "health": lambda x: [(c.name, c.state) for c in x.health(max_age_s=1e6).checks],
    "verify": lambda x: x.verify(),
    "audit": lambda x: [x.audit(), x.audit(regions=["DE"], passages=True, show=True)],
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_what_is_read_is_the_same(
    folder: Path, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment, read = wall_clock.now(), READS[name]
    monkeypatch.setattr(wall_clock, "now", lambda: moment)  # both are asked at the same time
    with Flywheel.open(folder) as fw, served(folder) as client:
        assert plain(read(client)) == plain(read(fw))


def test_records_are_of_the_same_classes(folder: Path, served: Served) -> None:
    with Flywheel.open(folder) as fw, served(folder) as client:
        for name, read in READS.items():
            assert kinds(read(client)) == kinds(read(fw)), name


def scenario(x: Any) -> Iterator[Any]:
    """What an application does, step by step."""
    yield x.add([Passage("new", "shipping takes two days", metadata={"lang": "de"})])
    yield x.add([Passage("new", "shipping takes three days")], remove=["cats"])
    yield x.add([], remove=["refund"])
    yield x.add([])
    yield x.add_documents(
        [Document("parcels are sent on mondays", {"source": "faq"})], ids="content"
    )
    yield x.passages(n=100)
    asked = x.retrieve("how long does shipping take", 3, user_id="ann", session_id="s")
    yield asked
    yield x.feedback(asked.id, "new", "helpful", user_id="ann", reason="short")
    yield x.feedback(asked.id, "new", "retract", user_id="ann")
    yield x.feedback_many(
        [Vote(asked.id, h.passage_id, "harmful", u) for h in asked.hits for u in "xy"]
    )
    yield x.relevance(asked.id, {"new": np.bool_(True)}, user_id="bob")
    yield x.answer(asked.id, "Three days.")
    yield x.answer_feedback(asked.id, "helpful", answer="three days", cited=["new"], user_id="cid")
    yield x.adopted(asked.id, used=False, why="too long", user_id="dan")
    yield x.adopted(asked.id, used=True, cited=["new"], user_id="don")
    yield x.signal(asked.id, "copied", passage_id="new", user_id="eve")
    yield x.signal(asked.id, "rating", 4, user_id="fay")
    yield x.correct(asked.id, "reset", user_id="gus")
    yield x.correct(asked.id, text="It depends on the parcel.", user_id="hal")
    yield x.missing(asked.id, "for islands", user_id="ida")
    first = x.retrieve("how long does shipping take", 1, run_id="run")
    second = x.rerank("shipping", GIVEN, run_id=("run", "another run"))
    yield len(x.retrieve_many(["shipping", "password"], 1, run_id=["one", ("two", "three")]))
    yield len(x.retrieve_many(["shipping", "password"], 1, run_id="many"))
    yield x.feedback_many(
        [
            Vote(None, second.hits[0].passage_id, "helpful", run="another run"),
            Vote(None, "reset", "harmful", "pat", run="three"),
        ]
    )
    x.link_run(asked.id, "run")
    yield x.feedback(run="run", passage_id=first.hits[0].passage_id, verdict="helpful")
    yield x.relevance(run="run", helpful={second.hits[0].passage_id: False}, user_id="ann")
    yield x.answer_feedback(run="run", verdict="helpful", cited=["new"], user_id="jon")
    yield x.adopted(run="run", used=True, user_id="kim")
    yield x.signal(run="run", kind="copied", user_id="lea")
    yield x.signal(run="run", kind="copied", passage_id="new", user_id="max")
    yield x.correct(run="run", passage_id="reset", user_id="noa")
    yield x.missing(run="run", note="for pets", user_id="ole")
    yield x.retrieval(asked.id)
    yield x.votes()
    yield x.retrieve_many(["shipping", "parcels"], 2)
    yield x.rerank("shipping", [Candidate("own", "shipping is free", 1.0)], user_id="ann")
    yield x.retrieve("how long does shipping take", 3)
    yield x.golden.add_answers([("who sleeps", "reset", 1), ("shipping time", "new", np.int64(3))])
    yield x.golden.items()
    yield x.pin("free shipping", "new", grade=7)
    yield x.pin("free shipping", "new", grade=7)
    yield x.unpin("free shipping", "new")
    items = x.review.items()
    yield items
    written = next(i for i in items if i.text == "It depends on the parcel.")
    yield x.review.accept(written.id, user_id="rev")
    yield x.review.undo(user_id="rev")
    yield x.review.accept(written.id, text="It depends on where the parcel goes.")
    yield x.passages(n=100)
    yield x.review.undo()
    yield x.review.reject(written.id, user_id="rev")
    yield x.review.undo(written.id)
    yield x.mute("ann")
    yield x.unmute(raters=[next(r.user for r in x.raters(["ann"]) if r.name == "ann")])
    yield x.opt_out("ann")
    yield x.feedback(asked.id, "new", "helpful", user_id="ann")
    yield x.opt_out("ann", out=False)
    yield x.rollback(x.versions()[0].id, hold=True)
    yield x.release()
    yield x.release()
    yield x.remove(["new"])
    yield x.passages(n=100)
    yield x.history()
    yield x.status()
    yield x.warm()


def test_an_application_gets_the_same_from_both(both: tuple[Flywheel, Any]) -> None:
    fw, client = both
    for number, (ours, theirs) in enumerate(zip(scenario(fw), scenario(client), strict=True), 1):
        assert plain(theirs) == plain(ours), f"step {number}"


BAD: dict[str, Callable[[Any, str], Any]] = {
    "blank query": lambda x, _: x.retrieve(" "),
    "query that is a number": lambda x, _: x.retrieve(7),
    "k of 0": lambda x, _: x.retrieve("a", 0),
    "k that is text": lambda x, _: x.retrieve("a", "8"),
    "k that is True": lambda x, _: x.retrieve("a", True),
    "no filter": lambda x, _: x.retrieve("a", where=["x"]),
    "an unknown operator": lambda x, _: x.retrieve("a", where={"x": {"near": 1}}),
    "relevance above 1": lambda x, _: x.retrieve("a", min_relevance=1.5),
    "relevance that is text": lambda x, _: x.retrieve("a", min_relevance="0.5"),
    "a tenant where there are none": lambda x, _: x.retrieve("a", tenant="t"),
    "a tenant in an address": lambda x, _: x.passages(tenant="t"),
    "half a surrogate pair": lambda x, _: x.retrieve("\ud800"),
    "queries that are text": lambda x, _: x.retrieve_many("abc"),
    "no retrieval": lambda x, _: x.feedback("nothing", "reset", "helpful"),
    "a retrieval that was not recorded": lambda x, _: x.feedback(None, "reset", "helpful"),
    "a passage that was not shown": lambda x, asked: x.feedback(asked, "nothing", "helpful"),
    "an unknown run": lambda x, _: x.answer_feedback(run="nothing", verdict="helpful"),
    "a run and a retrieval": lambda x, asked: x.missing(asked, run="run"),
    "no passage": lambda x, asked: x.feedback(asked, verdict="helpful"),
    "a run of no retrieval": lambda x, _: x.link_run("nothing", "run"),
    "no run": lambda x, asked: x.link_run(asked, None),
    "no verdict": lambda x, asked: x.feedback(asked, "reset", "good"),
    "a blank user": lambda x, asked: x.feedback(asked, "reset", "helpful", user_id=""),
    "a list of users": lambda x, asked: x.feedback(asked, "reset", "helpful", user_id=["ann"]),
    "no votes": lambda x, _: x.feedback_many([("a", "b", "helpful")]),
    "no mapping": lambda x, asked: x.relevance(asked, ["reset"]),
    "no rating": lambda x, asked: x.signal(asked, "rating", 9),
    "no signal": lambda x, asked: x.signal(asked, "liked"),
    "two corrections": lambda x, asked: x.correct(asked, "reset", "text"),
    "blank text": lambda x, _: x.add([Passage("p", " ")]),
    "a passage twice": lambda x, _: x.add([Passage("p", "a"), Passage("p", "b")]),
    "metadata that JSON has not": lambda x, _: x.add([Passage("p", "a", "", {"x": object()})]),
    "no number": lambda x, _: x.add([Passage("p", "a", metadata={"x": float("nan")})]),
    "no passages": lambda x, _: x.add(["p"]),
    "what is not there to be removed": lambda x, _: x.add([Passage("p", "a")], remove=["nothing"]),
    "an unknown passage": lambda x, _: x.passage("nothing"),
    "an unknown passage to remove": lambda x, _: x.remove(["reset", "nothing"]),
    "ids that are text": lambda x, _: x.remove("reset"),
    "no number of passages": lambda x, _: x.passages(n=0),
    "an unknown retrieval": lambda x, _: x.retrieval("nothing"),
    "an unknown retrieval with a slash": lambda x, _: x.retrieval("no/thing"),
    "retrievals before an unknown one": lambda x, _: x.retrievals(before="nothing"),
    "votes before 0": lambda x, _: x.votes(before=0),
    "gaps of no days": lambda x, _: x.gaps(0),
    "a golden answer of no passage": lambda x, _: x.golden.add_answers([("a", "nothing", 1)]),
    "a grade of 101": lambda x, _: x.golden.add_answers([("a", "reset", 101)]),
    "rows that are none": lambda x, _: x.golden.add_answers(["ab"]),
    "a pin of no passage": lambda x, _: x.pin("a", "nothing"),
    "a pin under a filter": lambda x, _: x.pin("a", "reset", where={"lang": "en"}),
    "an unknown item": lambda x, _: x.review.accept("nothing"),
    "nothing to undo": lambda x, _: x.review.undo("nothing"),
    "nobody to mute": lambda x, _: x.mute(),
    "nobody to opt out": lambda x, _: x.opt_out(" "),
    "no order": lambda x, _: x.questions(order="best"),
    "versions to compare that are not there": lambda x, _: x.compare("one", "two"),
    "days that are text": lambda x, _: x.activity("x"),
    "an unknown version": lambda x, _: x.rollback("nothing"),
    "the story of an unknown version": lambda x, _: x.explain_version("20250101T000000Z-00000"),
    "no age": lambda x, _: x.health(max_age_s=0),
    "no count": lambda x, _: x.dp_counts("nothing"),
    "no region": lambda x, _: x.audit(regions="DE"),
    "no history": lambda x, _: x.history(0),
    "blank candidates": lambda x, _: x.rerank("a", [Candidate("c", "", 1.0)]),
    "documents that are none": lambda x, _: x.add_documents(["text"]),
    "an answer to no retrieval": lambda x, _: x.answer("nothing", "text"),
}  # fmt: skip
LOOSE = {
    "query that is a number", "k that is text", "k that is True", "relevance that is text",
    "no verdict", "a list of users", "no signal", "gaps of no days",
    "a grade of 101", "no count", "no age", "no order",
    "days that are text", "rows that are none", "ids that are text", "no filter",
    "half a surrogate pair", "a blank user", "no passage", "no run",
}  # fmt: skip
"""What the service itself refuses, in words of its own."""


@pytest.mark.parametrize("name", BAD)
def test_errors_are_of_the_same_class_with_the_same_words(
    folder: Path, served: Served, name: str
) -> None:
    with Flywheel.open(folder) as fw, served(folder) as client:
        asked = fw.retrievals()[0].id
        with pytest.raises(FlywheelError) as ours:
            BAD[name](fw, asked)
        with pytest.raises(FlywheelError) as theirs:
            BAD[name](client, asked)
        assert type(theirs.value) is type(ours.value)
        if name not in LOOSE:
            assert str(theirs.value) == str(ours.value)


def test_an_id_with_an_escape_in_it_is_an_id(folder: Path) -> None:
    with async_client_of(folder) as client:  # starlette's TestClient resolves escapes twice
        client.add([Passage("%2e%2F?", "words")])
        assert client.passage("%2e%2F?").text == "words"
        client.remove(["%2e%2F?"])


def test_answers_come_with_tokens_where_they_are_wanted(folder: Path) -> None:
    with http_of(folder) as http, Client(URL, http=http, feedback_tokens=True) as client:
        for asked in (client.retrieve("reset"), client.rerank("reset", GIVEN)):
            assert isinstance(asked, RetrievalWithToken)
            body = {"token": asked.feedback_token, "verdict": "helpful"}
            assert http.post("/v1/browser/answer-feedback", json=body).json() == {"recorded": 1}
        unrecorded = client.retrieve("reset", record=False)
        assert isinstance(unrecorded, RetrievalWithToken)
        assert unrecorded.feedback_token is None
        assert type(client.retrieve_many(["reset"])[0]) is Retrieval


def test_files_of_known_answers_are_sent(both: tuple[Flywheel, Any], tmp_path: Path) -> None:
    table = tmp_path / "known.csv"
    table.write_text("query,passage_id,grade\nwho pays,refund,2\nwho sleeps,gone,1\n")
    fw, client = both
    for each in both:
        with pytest.raises(FlywheelError, match=r"known\.csv, line 3 names the passage 'gone'"):
            each.golden.add(table)
    assert client.golden.add(table, lenient=True) == fw.golden.add(table, lenient=True)
    assert client.golden.items() == fw.golden.items()
    for name in ("out.tsv", "beir"):
        assert client.golden.export(tmp_path / f"client-{name}") == 2
        assert fw.golden.export(tmp_path / f"library-{name}") == 2
    assert (tmp_path / "client-out.tsv").read_text() == (tmp_path / "library-out.tsv").read_text()
    more = tmp_path / "client-beir"
    assert client.golden.add(more, split="all") == fw.golden.add(more, split="all")
    for bad in (tmp_path / "nothing.csv", tmp_path / "two"):
        with pytest.raises(FlywheelError):
            client.golden.add(bad)
        with pytest.raises(FlywheelError):
            fw.golden.add(bad)


@dataclasses.dataclass
class Document:
    """As LangChain's."""

    page_content: str
    metadata: dict[str, Any]


def plain(value: Any) -> Any:
    """A value without what differs between two indexes, with ids by the order in which they come."""
    seen: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        return seen.setdefault(match[0], f"id{len(seen)}")

    return MADE.sub(named, repr(_plain(value)))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {n: _plain(v) for n, v in fields.items() if n not in DIFFERENT}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def kinds(value: Any) -> Any:
    """The classes of a value and of all that it holds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), [kinds(getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        return type(value), [kinds(each) for each in value]
    if isinstance(value, dict):
        return dict, [(type(key), kinds(each)) for key, each in value.items()]
    return type(value)
