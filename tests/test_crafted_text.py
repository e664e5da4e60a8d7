"""Text that is made to cost much: every public call answers or refuses it in a time that anyone can spare.

The calls are found by introspection, so a new method, or a new argument of one, fails here until it says
what is tried on it.
"""

import contextlib
import inspect
import json
import random
import shutil
import string
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import (
    Candidate,
    Config,
    Flywheel,
    FlywheelError,
    GoldenSet,
    ImportedHit,
    ImportedRetrieval,
    ImportedVote,
    InputError,
    Passage,
    Review,
    Vote,
)
from rag_flywheel.checks import MOST_ANSWER_CHARS, MOST_ID_CHARS, MOST_NOTE_CHARS
from rag_flywheel.export.export import Export

BUDGET_S = (
    4.0  # of processor time, for each call: twice the 2 s that it may take, for a busy machine
)
MB = 1_000_000
MANY = 100_000


def _deep(make: Callable[[Any], Any]) -> Any:
    found: Any = "a"
    for _ in range(MANY):
        found = make(found)
    return found


def _unbroken() -> str:
    return "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=MB))


TEXTS = {
    "one letter": "a" * MB,
    "no blanks": _unbroken(),
    "deep nesting": "[" * (MB // 2) + "]" * (MB // 2),
    "repeated keys": "{" + ", ".join(['"a": 1'] * MANY) + "}",
    "short words": "a " * (MB // 2),
    "short sentences": "Ab c. " * (MB // 6),
}
OBJECTS = {"a deep list": _deep(lambda x: [x]), "a deep object": _deep(lambda x: {"a": x})}
ANYTHING: dict[str, Any] = {**TEXTS, **OBJECTS}


def _filters() -> dict[str, Any]:
    """Filters made of a crafted text or shape."""
    many = {f"k{i}": 1 for i in range(MANY)}
    return {
        **{f"key of {name}": {text: 1} for name, text in TEXTS.items()},
        **{f"value of {name}": {"lang": text} for name, text in TEXTS.items()},
        "one key many times": {"and": [{"lang": "en"}] * MANY},
        "any of one key": {"or": [{"lang": "en"}] * MANY},
        "many keys": many,
        "many dots": {".".join("a" * 400): 1},
        "many keys with many dots": {f"{i}" + ".a" * 400: 1 for i in range(1_000)},
        "many options": {"lang": {"in": ["a"] * MANY}},
        "deep logic": _deep(lambda x: {"not": {"lang": x} if isinstance(x, str) else x}),
        **OBJECTS,
    }


Call = Callable[[Flywheel, str, Any], object]
"""A call on an index with the id of a retrieval, and what is tried."""
FREE = {  # arguments that take no text: numbers, booleans, and paths of the caller's own machine
    "k", "record", "min_relevance", "progress", "days", "grade", "used", "hold", "tune", "if_votes",
    "max_age_s", "dry_run", "prune", "strict", "chunk_tokens", "chunk_overlap", "out", "n", "lenient",
    "splitter", "create", "config", "trust", "encoder", "all_tenants", "read_only",
    "passages", "show", "epsilon", "delta", "most_keys", "overwrite",
    "min_people", "most_negatives", "unreviewed", "force",
    "tenant",  # which every call checks in one place: below
}  # fmt: skip
WITHOUT_TEXT = {
    "Flywheel.open", "Flywheel.close", "Flywheel.refresh", "Flywheel.versions", "Flywheel.release",
    "Flywheel.status", "Flywheel.health", "Flywheel.verify", "Flywheel.repair",
    "Flywheel.activity", "Flywheel.refreshes", "Flywheel.metadata_keys", "Flywheel.gaps", "Flywheel.warm",
    "Flywheel.coverage", "Flywheel.change_encoder", "Flywheel.drop_encoder_change",
    "Flywheel.history", "Flywheel.judgments", "GoldenSet.items", "Review.items", "Review.next",
}  # fmt: skip


def _metadata(x: Any) -> Passage:
    return Passage("m", "words", metadata=x)


def _exported(what: str, argument: str, fw: Flywheel, _: str, given: Any) -> object:
    """An export that is given this for one of its arguments."""
    to = "out.csv" if what in ("votes", "judgments", "retrievals") else "out"
    kind = {"kind": "pairs"} if what == "training_set" else {}
    return getattr(fw.export, what)(**{"to": to, **kind, argument: given})


CALLS: dict[str, tuple[Call, dict[str, Any]]] = {
    "Flywheel.add passages": (lambda fw, _, x: fw.add([Passage("new", x)]), ANYTHING),
    "Flywheel.add passages id": (lambda fw, _, x: fw.add([Passage(x, "text")]), ANYTHING),
    "Flywheel.add passages title": (lambda fw, _, x: fw.add([Passage("t", "b", x)]), ANYTHING),
    "Flywheel.add passages metadata": (
        lambda fw, _, x: fw.add([_metadata(x)]),
        {
            **_filters(),
            "many keys with many dots": {f"{i}" + ".a" * 400: 1 for i in range(1_000)},
            "a list of many": {"tags": ["a"] * MANY},
        },
    ),
    "Flywheel.add edited": (
        lambda fw, _, x: (fw.add([Passage("p1", x)]), fw.add([Passage("p1", f"b {x}"[:MB])])),
        {name: text[: MB // 4] for name, text in TEXTS.items()},
    ),
    "Flywheel.add remove": (lambda fw, _, x: fw.add([], remove=[x]), ANYTHING),
    "Flywheel.add_files paths": (lambda fw, _, x: fw.add_files(x), ANYTHING),
    "Flywheel.add_files root": (lambda fw, _, x: fw.add_files(__file__, root=x), ANYTHING),
    "Flywheel.add_files name": (lambda fw, _, x: fw.add_files(__file__, name=x), ANYTHING),
    "Flywheel.add_files include": (lambda fw, _, x: fw.add_files("docs", include=[x]), TEXTS),
    "Flywheel.add_files exclude": (lambda fw, _, x: fw.add_files("docs", exclude=[x]), TEXTS),
    "Flywheel.add_files base_url": (lambda fw, _, x: fw.add_files("d.md", base_url=x), ANYTHING),
    "Flywheel.add_files anchors": (lambda fw, _, x: fw.add_files("d.md", anchors=x), ANYTHING),
    "Flywheel.add_documents documents": (lambda fw, _, x: fw.add_documents([_Document(x)]), TEXTS),
    "Flywheel.add_documents ids": (lambda fw, _, x: fw.add_documents([], ids=x), ANYTHING),
    "Flywheel.remove ids": (lambda fw, _, x: fw.remove([x]), ANYTHING),
    "Flywheel.passages where": (lambda fw, _, x: fw.passages(x), _filters()),
    "Flywheel.questions order": (lambda fw, _, x: fw.questions(order=x), ANYTHING),
    "Flywheel.compare before": (lambda fw, _, x: fw.compare(x, "a"), ANYTHING),
    "Flywheel.compare after": (lambda fw, _, x: fw.compare("a", x), ANYTHING),
    "Flywheel.retrieve query": (lambda fw, _, x: fw.retrieve(x), ANYTHING),
    "Flywheel.retrieve where": (lambda fw, _, x: fw.retrieve("open", where=x), _filters()),
    "Flywheel.retrieve user_id": (lambda fw, _, x: fw.retrieve("open", user_id=x), ANYTHING),
    "Flywheel.retrieve session_id": (lambda fw, _, x: fw.retrieve("open", session_id=x), ANYTHING),
    "Flywheel.retrieve run_id": (lambda fw, _, x: fw.retrieve("open", run_id=x), ANYTHING),
    "Flywheel.link_run retrieval_id": (lambda fw, _, x: fw.link_run(x, "run"), ANYTHING),
    "Flywheel.link_run run_id": (lambda fw, r, x: fw.link_run(r, x), ANYTHING),
    "Flywheel.retrieve_many queries": (lambda fw, _, x: fw.retrieve_many([x]), ANYTHING),
    "Flywheel.retrieve_many run_id": (
        lambda fw, _, x: fw.retrieve_many(["a"], run_id=[x]),
        ANYTHING,
    ),
    "Flywheel.retrieve_many where": (lambda fw, _, x: fw.retrieve_many(["a"], where=x), _filters()),
    "Flywheel.rank_many queries": (lambda fw, _, x: fw.rank_many([x]), ANYTHING),
    "Flywheel.rank_many where": (lambda fw, _, x: fw.rank_many(["a"], where=x), _filters()),
    "Flywheel.rerank query": (lambda fw, _, x: fw.rerank(x, [_candidate()]), ANYTHING),
    "Flywheel.rerank candidates": (
        lambda fw, _, x: fw.rerank("open", [_candidate(text=x)]),
        ANYTHING,
    ),
    "Flywheel.rerank candidates id": (
        lambda fw, _, x: fw.rerank("open", [_candidate(passage_id=x)]),
        ANYTHING,
    ),
    "Flywheel.rerank candidates title": (
        lambda fw, _, x: fw.rerank("open", [_candidate(title=x)]),
        ANYTHING,
    ),
    "Flywheel.rerank candidates metadata": (
        lambda fw, _, x: fw.rerank("open", [_candidate(metadata=x)]),
        _filters(),
    ),
    "Flywheel.rerank where": (lambda fw, _, x: fw.rerank("a", [_candidate()], where=x), _filters()),
    "Flywheel.rerank user_id": (
        lambda fw, _, x: fw.rerank("a", [_candidate()], user_id=x),
        ANYTHING,
    ),
    "Flywheel.rerank session_id": (
        lambda fw, _, x: fw.rerank("a", [_candidate()], session_id=x),
        ANYTHING,
    ),
    "Flywheel.rerank run_id": (lambda fw, _, x: fw.rerank("a", [_candidate()], run_id=x), ANYTHING),
    "Flywheel.retrieval retrieval_id": (lambda fw, _, x: fw.retrieval(x), ANYTHING),
    "Flywheel.retrievals before": (lambda fw, _, x: fw.retrievals(before=x), ANYTHING),
    "Flywheel.votes before": (lambda fw, _, x: fw.votes(before=x), ANYTHING),
    "Flywheel.feedback retrieval_id": (lambda fw, _, x: fw.feedback(x, "p1", "helpful"), ANYTHING),
    "Flywheel.feedback passage_id": (lambda fw, r, x: fw.feedback(r, x, "helpful"), ANYTHING),
    "Flywheel.feedback verdict": (lambda fw, r, x: fw.feedback(r, "p1", x), ANYTHING),
    "Flywheel.feedback run": (
        lambda fw, _, x: fw.feedback(run=x, passage_id="p1", verdict="helpful"),
        ANYTHING,
    ),
    "Flywheel.feedback user_id": (
        lambda fw, r, x: fw.feedback(r, "p1", "helpful", user_id=x),
        ANYTHING,
    ),
    "Flywheel.feedback reason": (
        lambda fw, r, x: fw.feedback(r, "p1", "helpful", reason=x),
        ANYTHING,
    ),
    "Flywheel.feedback_many votes": (
        lambda fw, r, x: fw.feedback_many([Vote(r, "p1", "helpful", reason=x)]),
        ANYTHING,
    ),
    "Flywheel.answer_feedback retrieval_id": (
        lambda fw, _, x: fw.answer_feedback(x, "helpful"),
        ANYTHING,
    ),
    "Flywheel.answer_feedback verdict": (lambda fw, r, x: fw.answer_feedback(r, x), ANYTHING),
    "Flywheel.answer_feedback run": (
        lambda fw, _, x: fw.answer_feedback(run=x, verdict="helpful"),
        ANYTHING,
    ),
    "Flywheel.answer_feedback answer": (
        lambda fw, r, x: fw.answer_feedback(r, "helpful", answer=x),
        ANYTHING,
    ),
    "Flywheel.answer_feedback cited": (
        lambda fw, r, x: fw.answer_feedback(r, "helpful", cited=[x]),
        ANYTHING,
    ),
    "Flywheel.answer_feedback user_id": (
        lambda fw, r, x: fw.answer_feedback(r, "helpful", user_id=x),
        ANYTHING,
    ),
    "Flywheel.relevance retrieval_id": (lambda fw, _, x: fw.relevance(x, {"p1": True}), ANYTHING),
    "Flywheel.relevance helpful": (
        lambda fw, r, x: fw.relevance(r, x if isinstance(x, dict) else {x: True}),
        {**TEXTS, "a deep object": OBJECTS["a deep object"], "a deep value": {"p1": OBJECTS}},
    ),
    "Flywheel.relevance run": (
        lambda fw, _, x: fw.relevance(run=x, helpful={"p1": True}),
        ANYTHING,
    ),
    "Flywheel.relevance user_id": (
        lambda fw, r, x: fw.relevance(r, {"p1": True}, user_id=x),
        ANYTHING,
    ),
    "Flywheel.adopted retrieval_id": (lambda fw, _, x: fw.adopted(x, used=True), ANYTHING),
    "Flywheel.adopted run": (lambda fw, _, x: fw.adopted(run=x, used=True), ANYTHING),
    "Flywheel.adopted why": (lambda fw, r, x: fw.adopted(r, used=True, why=x), ANYTHING),
    "Flywheel.adopted cited": (lambda fw, r, x: fw.adopted(r, used=True, cited=[x]), ANYTHING),
    "Flywheel.adopted user_id": (lambda fw, r, x: fw.adopted(r, used=True, user_id=x), ANYTHING),
    "Flywheel.signal retrieval_id": (lambda fw, _, x: fw.signal(x, "copied"), ANYTHING),
    "Flywheel.signal run": (lambda fw, _, x: fw.signal(run=x, kind="copied"), ANYTHING),
    "Flywheel.signal kind": (lambda fw, r, x: fw.signal(r, x), ANYTHING),
    "Flywheel.signal value": (lambda fw, r, x: fw.signal(r, "edited", x), ANYTHING),
    "Flywheel.signal value rating": (lambda fw, r, x: fw.signal(r, "rating", x), ANYTHING),
    "Flywheel.signal value copied": (lambda fw, r, x: fw.signal(r, "copied", x), ANYTHING),
    "Flywheel.signal passage_id": (
        lambda fw, r, x: fw.signal(r, "copied", passage_id=x),
        ANYTHING,
    ),
    "Flywheel.signal user_id": (lambda fw, r, x: fw.signal(r, "copied", user_id=x), ANYTHING),
    "Flywheel.correct retrieval_id": (lambda fw, _, x: fw.correct(x, "p1"), ANYTHING),
    "Flywheel.correct run": (lambda fw, _, x: fw.correct(None, "p1", run=x), ANYTHING),
    "Flywheel.correct passage_id": (lambda fw, r, x: fw.correct(r, x), ANYTHING),
    "Flywheel.correct text": (lambda fw, r, x: fw.correct(r, text=x), ANYTHING),
    "Flywheel.correct user_id": (lambda fw, r, x: fw.correct(r, "p1", user_id=x), ANYTHING),
    "Flywheel.missing retrieval_id": (lambda fw, _, x: fw.missing(x), ANYTHING),
    "Flywheel.missing run": (lambda fw, _, x: fw.missing(run=x), ANYTHING),
    "Flywheel.missing note": (lambda fw, r, x: fw.missing(r, x), ANYTHING),
    "Flywheel.missing user_id": (lambda fw, r, x: fw.missing(r, user_id=x), ANYTHING),
    "Flywheel.votes_behind hit": (
        lambda fw, _, x: [fw.votes_behind(h) for h in fw.retrieve(x).hits],
        {"a question": "open settings"},
    ),
    "Flywheel.pin query": (lambda fw, _, x: fw.pin(x, "p1"), ANYTHING),
    "Flywheel.pin passage_id": (lambda fw, _, x: fw.pin("open", x), ANYTHING),
    "Flywheel.pin where": (lambda fw, _, x: fw.pin("open", "p1", where=x), _filters()),
    "Flywheel.unpin query": (lambda fw, _, x: fw.unpin(x, "p1"), ANYTHING),
    "Flywheel.unpin passage_id": (lambda fw, _, x: fw.unpin("open", x), ANYTHING),
    "Flywheel.unpin where": (lambda fw, _, x: fw.unpin("open", "p1", where=x), _filters()),
    "Flywheel.answer retrieval_id": (lambda fw, _, x: fw.answer(x, "text"), ANYTHING),
    "Flywheel.answer text": (lambda fw, r, x: fw.answer(r, x), ANYTHING),
    "Flywheel.raters names": (lambda fw, _, x: fw.raters([x]), ANYTHING),
    "Flywheel.mute user_id": (lambda fw, _, x: fw.mute(x), ANYTHING),
    "Flywheel.mute raters": (lambda fw, _, x: fw.mute(raters=[x]), ANYTHING),
    "Flywheel.unmute user_id": (lambda fw, _, x: fw.unmute(x), ANYTHING),
    "Flywheel.unmute raters": (lambda fw, _, x: fw.unmute(raters=[x]), ANYTHING),
    "Flywheel.passage passage_id": (lambda fw, _, x: fw.passage(x), ANYTHING),
    "Flywheel.passages after": (lambda fw, _, x: fw.passages(n=1, after=x), ANYTHING),
    "Flywheel.hashed_user user_id": (lambda fw, _, x: fw.hashed_user(x), ANYTHING),
    "Flywheel.opt_out user_id": (lambda fw, _, x: fw.opt_out(x), ANYTHING),
    "Flywheel.forget user_id": (lambda fw, _, x: fw.forget(x), ANYTHING),
    "Flywheel.explain_version version": (lambda fw, _, x: fw.explain_version(x), ANYTHING),
    "Flywheel.rollback version": (lambda fw, _, x: fw.rollback(x), ANYTHING),
    "Flywheel.audit regions": (lambda fw, _, x: fw.audit(regions=[x]), ANYTHING),
    "Flywheel.dp_counts what": (lambda fw, _, x: fw.dp_counts(x), ANYTHING),
    "Flywheel.import_votes records": (lambda fw, _, x: fw.import_votes(x), ANYTHING),
    "Flywheel.import_votes records query": (
        lambda fw, _, x: fw.import_votes([ImportedRetrieval("r", x, [ImportedHit("p1")])]),
        ANYTHING,
    ),
    "Flywheel.import_votes records hit": (
        lambda fw, _, x: fw.import_votes(
            [ImportedRetrieval("r", "open", [ImportedHit(x, text=x, title=x, url=x)])]
        ),
        ANYTHING,
    ),
    "Flywheel.import_votes records vote": (
        lambda fw, id_, x: fw.import_votes(
            [ImportedVote(x, id_, x, x, kind=x, user_id=x, at=x, reason=x, value=x, text=x)]
        ),
        ANYTHING,
    ),
    "Flywheel.import_votes source": (lambda fw, _, x: fw.import_votes([], source=x), ANYTHING),
    "Flywheel.import_files tool": (lambda fw, _, x: fw.import_files(x, "d.md"), ANYTHING),
    "Flywheel.import_files paths": (lambda fw, _, x: fw.import_files("csv", x), ANYTHING),
    "Flywheel.import_files scores": (
        lambda fw, _, x: fw.import_files("langfuse", "d.md", scores=[x]),
        ANYTHING,
    ),
    "Flywheel.import_files judges": (
        lambda fw, _, x: fw.import_files("langfuse", "d.md", judges=[x]),
        ANYTHING,
    ),
    "Flywheel.import_files id_key": (
        lambda fw, _, x: fw.import_files("langfuse", "d.md", id_key=x),
        ANYTHING,
    ),
    **{
        f"Export.{what} {argument}": (partial(_exported, what, argument), ANYTHING)
        for what in ("votes", "judgments", "retrievals", "beir", "trec", "ubi", "training_set")
        for argument in ("to", "since", "until")
    },
    "Export.training_set kind": (lambda fw, _, x: fw.export.training_set(x, "set"), ANYTHING),
    "Export.training_set file_format": (
        lambda fw, _, x: fw.export.training_set("pairs", "set", file_format=x),
        ANYTHING,
    ),
    "Flywheel.backup dest": (lambda fw, _, x: fw.backup(x), ANYTHING),
    "GoldenSet.add path": (lambda fw, _, x: fw.golden.add(x), ANYTHING),
    "GoldenSet.add_answers answers": (
        lambda fw, _, x: fw.golden.add_answers([(x, "p1", 1)]),
        ANYTHING,
    ),
    "GoldenSet.add split": (lambda fw, _, x: fw.golden.add("there", split=x), ANYTHING),
    "GoldenSet.export path": (lambda fw, _, x: fw.golden.export(x), ANYTHING),
    "Review.accept item_id": (lambda fw, _, x: fw.review.accept(x), ANYTHING),
    "Review.accept text": (lambda fw, _, x: fw.review.accept("no", text=x), ANYTHING),
    "Review.accept user_id": (lambda fw, _, x: fw.review.accept("no", user_id=x), ANYTHING),
    "Review.reject item_id": (lambda fw, _, x: fw.review.reject(x), ANYTHING),
    "Review.reject user_id": (lambda fw, _, x: fw.review.reject("no", user_id=x), ANYTHING),
    "Review.undo item_id": (lambda fw, _, x: fw.review.undo(x), ANYTHING),
    "Review.undo user_id": (lambda fw, _, x: fw.review.undo("no", user_id=x), ANYTHING),
}


class _Document:
    """As LangChain has them."""

    def __init__(self, text: str) -> None:
        self.page_content = text
        self.metadata = {"source": text, text: text}
        self.id = None


def _candidate(**fields: Any) -> Candidate:
    return Candidate(**{"passage_id": "c", "text": "open the settings", "score": 1.0, **fields})


def _public() -> Iterator[tuple[str, inspect.Signature]]:
    for cls in (Flywheel, GoldenSet, Review, Export):
        for name, member in inspect.getmembers(cls, callable):
            if not name.startswith("_"):
                yield f"{cls.__name__}.{name}", inspect.signature(member)


def test_every_argument_of_every_public_call_is_tried() -> None:
    tried = {" ".join(name.split()[:2]) for name in CALLS}
    wanted = {
        f"{call} {argument}"
        for call, signature in _public()
        if call not in WITHOUT_TEXT
        for argument in signature.parameters
        if argument != "self" and argument not in FREE
    }
    assert wanted - tried == set()
    assert {name.split()[0] for name in CALLS} | WITHOUT_TEXT == {name for name, _ in _public()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with an answer, votes and a version; copied, never changed."""
    root = tmp_path_factory.mktemp("crafted") / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add(
            [
                Passage(f"p{i}", f"open settings number{i}", metadata={"lang": "en"})
                for i in range(9)
            ]
        )
        shown = fw.retrieve("open settings", user_id="ann")
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="ann")
        fw.refresh()
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_crafted_text_is_answered_or_refused_in_time(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _tree(tmp_path)
    call, inputs = CALLS[name]
    slow = {}
    with Flywheel.open(shutil.copytree(made, tmp_path / "kb"), encoder=WordEncoder()) as fw:
        shown = fw.retrieve("open settings")
        assert shown.id is not None
        fw.answer(shown.id, _longest("Open the settings. "))
        for kind, crafted in inputs.items():
            began = time.process_time()
            with contextlib.suppress(FlywheelError):
                call(fw, shown.id, crafted)
            took = time.process_time() - began
            if took > BUDGET_S:
                slow[kind] = round(took, 1)
    assert slow == {}


@pytest.mark.slow
def test_a_crafted_tenant_is_refused_in_time(tmp_path: Path) -> None:
    config = Config(encoder="", tenant_key="team")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage("a", "open settings", metadata={"team": "one"})])
        for crafted in (*ANYTHING.values(), *TEXTS.values()):
            began = time.process_time()
            for call in (fw.passages, fw.gaps, fw.review.items, partial(fw.retrieve, "open")):
                with contextlib.suppress(FlywheelError):
                    assert not call(tenant=crafted)
            assert time.process_time() - began < BUDGET_S


def _longest(text: str) -> str:
    """The longest answer that is stored, of this text."""
    return (text * (MOST_ANSWER_CHARS // len(text) + 1))[:MOST_ANSWER_CHARS]


def _tree(folder: Path) -> None:
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text("# A\n\nWords.\n")
    (folder / "d.md").write_text("# D\n\nWords.\n")
    (folder / "there").mkdir()


@pytest.mark.slow
@pytest.mark.parametrize("kind", TEXTS)
def test_calls_on_an_index_that_holds_crafted_text_end_in_time(
    kind: str, made: Path, tmp_path: Path
) -> None:
    text = TEXTS[kind]
    with Flywheel.open(shutil.copytree(made, tmp_path / "kb"), encoder=WordEncoder()) as fw:
        fw.add([Passage(f"crafted{i}", f"open settings {i} {text[: MB // 5]}") for i in range(5)])
        query = f"open settings {text}"[:10_000]
        for user in "abcd":
            shown = fw.retrieve(query, user_id=user)
            assert shown.id is not None
            fw.answer(shown.id, text[:MOST_ANSWER_CHARS])
            fw.feedback(shown.id, shown.hits[0].passage_id, "harmful", user_id=user)
            fw.missing(shown.id, text[:MOST_NOTE_CHARS], user_id=user)
            fw.retrieve("open settings", user_id=text[:MOST_ID_CHARS])
        last = str(shown.id)
        calls: dict[str, Callable[[], object]] = {
            "retrieve": lambda: fw.retrieve(query),
            "answer_feedback": lambda: fw.answer_feedback(last, "helpful", user_id="e"),
            "edited": lambda: fw.signal(last, "edited", text[-MOST_ANSWER_CHARS:], user_id="e"),
            "refresh": fw.refresh,
            "retrieve after it": lambda: fw.retrieve(f"b {query}"[:10_000]),
            "gaps": fw.gaps,
            "review": fw.review.items,
            "golden": fw.golden.items,
            "raters": fw.raters,
            "export": lambda: fw.export.beir(tmp_path / "out"),
            "verify": fw.verify,
            "status": fw.status,
            "passages": fw.passages,
            "metadata_keys": fw.metadata_keys,
        }
        slow = {}
        for name, call in calls.items():
            began = time.process_time()
            call()
            if (took := time.process_time() - began) > BUDGET_S:
                slow[name] = round(took, 1)
    assert slow == {}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_files_of_crafted_text_are_read_or_skipped_in_time(ending: str, tmp_path: Path) -> None:
    lines = {**TEXTS, "an id": json.dumps({"id": "a" * MB, "text": "b"})}
    lines["metadata"] = '{"id": "a", "text": "b", "metadata": ' + TEXTS["repeated keys"] + "}"
    slow = {}
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        for kind, line in lines.items():
            file = tmp_path / f"{kind.replace(' ', '-')}.{ending}"
            file.write_text(line if ending == "jsonl" else line[: MB // 2])
            began = time.process_time()
            with contextlib.suppress(FlywheelError):
                fw.add_files(file)
            if (took := time.process_time() - began) > BUDGET_S:
                slow[kind] = round(took, 1)
    assert slow == {}


LENGTHS: dict[str, tuple[int, Call]] = {
    "user ids": (MOST_ID_CHARS, lambda fw, r, x: fw.retrieve("open", user_id=x)),
    "session ids": (MOST_ID_CHARS, lambda fw, r, x: fw.retrieve("open", session_id=x)),
    "ids of runs": (MOST_ID_CHARS, lambda fw, r, x: fw.retrieve("open", run_id=x)),
    "ids of several runs": (MOST_ID_CHARS, lambda fw, r, x: fw.retrieve("open", run_id=["a", x])),
    "ids of further runs": (MOST_ID_CHARS, lambda fw, r, x: fw.link_run(r, x)),
    "passage ids": (MOST_ID_CHARS, lambda fw, r, x: fw.add([Passage(x, "text")])),
    "reasons": (MOST_NOTE_CHARS, lambda fw, r, x: fw.feedback(r, "p1", "helpful", reason=x)),
    "why": (MOST_NOTE_CHARS, lambda fw, r, x: fw.adopted(r, used=True, why=x)),
    "notes": (MOST_NOTE_CHARS, lambda fw, r, x: fw.missing(r, x)),
    "corrections": (MOST_NOTE_CHARS, lambda fw, r, x: fw.correct(r, text=x)),
    "answers": (MOST_ANSWER_CHARS, lambda fw, r, x: fw.answer(r, x)),
    "answers in votes": (
        MOST_ANSWER_CHARS,
        lambda fw, r, x: fw.answer_feedback(r, "helpful", answer=x),
    ),
    "edited answers": (MOST_ANSWER_CHARS, lambda fw, r, x: fw.signal(r, "edited", x)),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_are_limited_and_the_message_says_to_what(
    name: str, made: Path, tmp_path: Path
) -> None:
    most, call = LENGTHS[name]
    limit = rf"{most + 1} characters; expected at most {most}$"
    with Flywheel.open(shutil.copytree(made, tmp_path / "kb"), encoder=WordEncoder()) as fw:
        shown = fw.retrieve("open settings")
        assert shown.id is not None
        fw.answer(shown.id, "Open the settings.")
        call(fw, shown.id, "a" * most)
        with pytest.raises(InputError, match=limit) as error:
            call(fw, shown.id, "a" * (most + 1))
    assert len(str(error.value)) < 1_000


def test_an_edited_answer_is_compared_in_whole_and_fast(made: Path, tmp_path: Path) -> None:
    with Flywheel.open(shutil.copytree(made, tmp_path / "kb"), encoder=WordEncoder()) as fw:
        shown = fw.retrieve("open settings")
        assert shown.id is not None
        fw.answer(shown.id, "a " * 5_000)
        began = time.process_time()
        fw.signal(shown.id, "edited", "a " * 2_500 + "b " * 2_500)
        assert time.process_time() - began < BUDGET_S


def test_a_line_of_repeated_keys_is_refused_at_once(fw: Flywheel, tmp_path: Path) -> None:
    keys = [f'"k{i}": 1' for i in range(30_000)]
    (tmp_path / "a.jsonl").write_text("{" + ", ".join([*keys, '"k29999": 1']) + "}")
    began = time.process_time()
    with pytest.raises(InputError, match="'k29999' comes twice"):
        fw.add_files(tmp_path / "a.jsonl")
    assert time.process_time() - began < BUDGET_S
