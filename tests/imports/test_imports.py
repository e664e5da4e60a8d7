"""What was imported counts, ages, and is deleted as what was recorded here, and comes in once."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import (
    Config,
    Flywheel,
    ImportedHit,
    ImportedRetrieval,
    ImportedVote,
    InputError,
    Passage,
)
from rag_flywheel.capture import imported_records
from rag_flywheel.store import imports
from rag_flywheel.store import votes as vote_store

QUESTION = "how do I get a new password"
DAY = 86_400.0
SHOWN = [ImportedHit("secret"), ImportedHit("reset"), ImportedHit("gone"), ImportedHit("refund")]


@pytest.fixture
def fw(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


def asked(id_: str = "r", query: str = QUESTION, **more: Any) -> ImportedRetrieval:
    return ImportedRetrieval(id_, query, SHOWN, **more)


def voted(
    id_: str, verdict: Any = "helpful", passage: str | None = "reset", on: str = "r", **more: Any
) -> ImportedVote:
    return ImportedVote(id_, on, verdict, passage, **more)


def ago(days: float) -> float:
    return time.time() - days * DAY


def sums(fw: Flywheel) -> dict[str, tuple[float, float]]:
    return {j.passage_id: (round(j.helpful, 3), round(j.harmful, 3)) for j in fw.judgments()}


@contextmanager
def opened(path: Path, passages: list[Passage], **config: Any) -> Iterator[Flywheel]:
    mask = config.pop("mask", None)
    settings = Config(encoder="", **config)
    with Flywheel.open(path, encoder=WordEncoder(), config=settings, mask=mask) as fw:
        fw.add(passages)
        yield fw


def test_an_imported_vote_moves_the_next_answer(fw: Flywheel) -> None:
    query = "sleep settings"
    before = [hit.passage_id for hit in fw.retrieve(query, record=False).hits]
    worst = before[-1]
    records = [ImportedRetrieval("r", query, [ImportedHit(id_) for id_ in before])]
    votes = [voted(f"v{user}", passage=worst, user_id=user) for user in "abcd"]
    fw.import_votes([*votes, *records])
    found = fw.retrieve(query, record=False).hits
    assert found[0].passage_id == worst
    assert len(fw.votes_behind(found[0])) == 1
    assert fw.refresh().outcome == "promoted"
    assert fw.retrieve(query, record=False).hits[0].passage_id == worst


def test_hits_keep_their_ranks_and_the_time_is_their_own(fw: Flywheel) -> None:
    report = fw.import_votes([asked(at="2024-02-29T12:00:00+02:00", answer="Press it.")])
    (found,) = fw.retrievals()
    assert [(h.passage_id, h.rank) for h in found.hits] == [
        ("secret", 1),
        ("reset", 2),
        ("refund", 4),
    ]
    assert (found.at, found.version, found.answer) == ("2024-02-29T10:00:00Z", None, "Press it.")
    assert (found.source, found.external_id) == ("own", "r")
    assert report.left_out == {"passages shown that are not in the index": 1}
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True), "what was shown first was the likeliest"
    assert fw.verify() == []


def test_a_verdict_on_the_answer_is_shared_by_the_ranks(fw: Flywheel) -> None:
    fw.import_votes([asked(), voted("v", passage=None, user_id="ann")])
    assert sums(fw) == {"secret": (0.5, 0), "reset": (0.167, 0), "refund": (0.05, 0)}
    fw.import_votes([voted("w", passage=None, shares={"reset": 0.9}, user_id="bob")])
    assert sums(fw)["reset"] == (1.067, 0)


def test_every_kind_comes_in(fw: Flywheel) -> None:
    report = fw.import_votes(
        [
            asked(),
            voted("1", "helpful", user_id="a"),
            voted("2", "harmful", None, user_id="b"),
            ImportedVote("3", "r", passage_id="cats", kind="correction", user_id="c"),
            ImportedVote("4", "r", kind="text", text="Press reset.", user_id="d"),
            ImportedVote("5", "r", kind="missing", user_id="e"),
            ImportedVote("6", "r", "helpful", kind="adopted", user_id="f"),
            ImportedVote("7", "r", "helpful", "reset", kind="judge", user_id="model"),
            ImportedVote("8", "r", passage_id="reset", kind="copied", user_id="g"),
            ImportedVote("9", "r", kind="rating", value=1, user_id="h"),
            ImportedVote("10", "r", "helpful", rank=2, user_id="i"),
        ]
    )
    wanted = dict.fromkeys(
        ["answer", "correction", "text", "missing", "adopted", "judge", "copied", "rating"], 1
    )
    assert report.votes == {"vote": 2, **wanted}
    assert sums(fw)["cats"] == (2.0, 0), "a correction names any passage"
    assert {v.kind for v in fw.votes()} == {
        "vote", "answer", "correction", "adopted", "judge", "copied", "rating"
    }  # fmt: skip
    assert {v.source for v in fw.votes()} == {"own"}
    assert len([item for item in fw.review.items() if not item.passage_id]) == 2
    assert fw.verify() == []


def test_a_language_model_weighs_less_and_is_nobody(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    with opened(tmp_path / "kb", help_desk, memory_min_users=2) as fw:
        judged = [
            ImportedVote(f"j{n}", f"r{n}", "helpful", "reset", kind="judge", user_id="the model")
            for n in range(5)
        ]
        fw.import_votes([*(asked(f"r{n}") for n in range(5)), *judged])
        assert sums(fw) == {"reset": (0.4, 0)}, "one voice, however many traces it judged"
        assert fw.retrieve(QUESTION, record=False).hits[0].explanation.votes == ()
        fw.import_votes([voted("a", on="r0", user_id="ann"), voted("b", on="r1", user_id="bob")])
        assert sums(fw) == {"reset": (2.4, 0)}
        assert all(not item.passage_id or item.helpful < 3 for item in fw.review.items())


def test_the_trust_in_a_language_model_is_estimated_from_what_people_say(fw: Flywheel) -> None:
    records: list[Any] = []
    for n in range(40):
        records += [asked(f"r{n}", f"question {n}"), voted(f"p{n}", on=f"r{n}", user_id=f"u{n}")]
        records.append(
            ImportedVote(f"j{n}", f"r{n}", "harmful", "reset", kind="judge", user_id="model")
        )
    fw.import_votes(records)
    fw.refresh()
    with fw._database.reading() as conn:
        assert vote_store.stored_trusts(conn)["judge"] < 0.1, "people say the opposite"


def test_the_last_word_is_the_latest_whatever_came_in_first(fw: Flywheel) -> None:
    fw.import_votes([asked(), voted("new", "harmful", at=ago(1), user_id="ann")])
    fw.import_votes([voted("old", "helpful", at=ago(9), user_id="ann")])
    assert sums(fw) == {"reset": (0, 1)}
    own = fw.retrieve(QUESTION, user_id="ann")
    fw.feedback(own.id, "reset", "helpful", user_id="ann")
    fw.import_votes([voted("older", "harmful", at=ago(20), user_id="ann")])
    assert sums(fw) == {"reset": (1, 0)}, "a vote of last month does not outrank that of today"


def test_a_score_that_changed_in_the_tool_is_the_new_word(fw: Flywheel) -> None:
    fw.import_votes([asked(), voted("v", "helpful", at=ago(2), user_id="ann")])
    report = fw.import_votes([asked(), voted("v", "harmful", at=ago(1), user_id="ann")])
    assert report.votes == {"vote": 1}
    assert sums(fw) == {"reset": (0, 1)}
    assert fw.import_votes([voted("v", "helpful", at=ago(2), user_id="ann")]).votes == {}
    assert sums(fw) == {"reset": (0, 1)}


def test_old_votes_have_their_age(tmp_path: Path, help_desk: list[Passage]) -> None:
    with opened(tmp_path / "kb", help_desk, vote_half_life_days=10.0) as fw:
        fw.import_votes([asked(at=ago(31)), voted("v", at=ago(30), user_id="ann")])
        aged = {h.passage_id: h.explanation.evidence for h in fw.retrieve(QUESTION).hits}["reset"]
        own = fw.retrieve(QUESTION)
        fw.feedback(own.id, "reset", "helpful", user_id="ann")  # her last word, of today
        fresh = {h.passage_id: h.explanation.evidence for h in fw.retrieve(QUESTION).hits}["reset"]
        assert 0.0 < aged < 0.3 * fresh
        days = fw.activity(365.0)
        assert [(d.retrievals, d.helpful) for d in days] == [(1, 0), (0, 1), (3, 1)]


def test_overlapping_files_in_any_order_make_the_same(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    one = [asked("r1"), voted("a", on="r1", user_id="u")]
    two = [replace(asked("r1"), hits=[*SHOWN, ImportedHit("cats")]), asked("r2"), *one[1:]]
    two += [voted("b", "harmful", "cats", on="r1", user_id="v"), voted("c", on="r2", user_id="w")]
    found = []
    for n, parts in enumerate([(one, two), (two, one), (two[::-1], one[::-1], two), (one + two,)]):
        with opened(tmp_path / f"kb{n}", help_desk) as fw:
            reports = [fw.import_votes(part) for part in parts]
            assert sum(r.retrievals for r in reports) == 2
            hits = {r.external_id: [h.passage_id for h in r.hits] for r in fw.retrievals()}
            found.append((hits, sums(fw)))
            assert fw.verify() == []
    assert all(each == found[0] for each in found)
    assert found[0][0]["r1"] == ["secret", "reset", "refund", "cats"]


def test_votes_before_their_retrievals_come_in_once_these_are_there(fw: Flywheel) -> None:
    first = fw.import_votes([voted("v", user_id="ann")])
    assert first.left_out == {"votes whose retrieval is neither here nor in these files": 1}
    fw.import_votes([asked(inside=["trace"])])
    assert fw.import_votes([voted("v", user_id="ann")]).votes == {"vote": 1}
    assert fw.import_votes([voted("t", passage=None, on="trace")]).votes == {"answer": 1}
    assert fw.answer_feedback(run="trace", verdict="helpful", user_id="bob"), "and by run here"


def test_votes_on_retrievals_of_our_own(fw: Flywheel) -> None:
    own = fw.retrieve(QUESTION, k=2, user_id="ann", run_id="run-1")
    first = own.hits[0].passage_id
    last = ({"reset", "secret", "refund", "cats"} - {hit.passage_id for hit in own.hits}).pop()
    assert own.id is not None
    elsewhere = ImportedRetrieval("span", QUESTION, [ImportedHit(first)], recorded_as=own.id)
    report = fw.import_votes(
        [
            elsewhere,
            voted("1", passage=first, on=own.id, user_id="bob"),
            voted("2", passage=None, on="run-1", user_id="cid"),
            voted("3", "harmful", passage=first, on="span", user_id="eve"),
            voted("4", passage=last, on=own.id, user_id="bob"),
        ]
    )
    assert report.retrievals == 0 and len(fw.retrievals()) == 1
    assert report.votes == {"vote": 2, "answer": 1}
    assert report.left_out == {"votes on passages that the retrieval did not show": 1}


def test_votes_of_several_people_without_a_time_come_in_with_one_file_or_several(
    fw: Flywheel,
) -> None:
    id_ = str(fw.retrieve(QUESTION).id)
    for user in ("ann", "bob", "eve"):
        for passage, kind in (("reset", "vote"), (None, "answer")):
            given = voted(f"{user} {kind}", passage=passage, on=id_, user_id=user)
            assert fw.import_votes([given]).votes == {kind: 1}
            assert fw.import_votes([given]).unchanged == 1
    assert len(fw.votes()) == 6


def test_what_was_exported_from_here_does_not_come_in_again(fw: Flywheel) -> None:
    own = fw.retrieve(QUESTION, user_id="ann")
    fw.feedback(own.id, "reset", "helpful", user_id="ann")
    fw.answer_feedback(own.id, "harmful", user_id="bob")
    votes = [
        ImportedVote(str(v.number), v.retrieval_id, v.verdict, v.passage_id, kind=v.kind,  # type: ignore[arg-type]
                     user_id=v.user, at=v.at)
        for v in fw.votes()
    ]  # fmt: skip
    before = sums(fw)
    report = fw.import_votes(votes)
    assert (dict(report.votes), report.unchanged) == ({}, 2)
    assert sums(fw) == before


def test_passages_are_found_by_what_only_they_have(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    more = [
        Passage("copy1", "the same words twice", "Copies"),
        Passage("copy2", "The same words  twice!", "Copies"),
        Passage("web", "a page", "Page", {"url": "https://a.example/p", "source": "p.md"}),
    ]
    with opened(tmp_path / "kb", [*help_desk, *more]) as fw:
        hits = [
            ImportedHit(["unknown", "cats"]),
            ImportedHit(text="  open settings and press\nreset to get a new password "),
            ImportedHit(title="Refund policy"),
            ImportedHit(url="https://a.example/p"),
            ImportedHit(title="Copies"),  # two have it
            ImportedHit(text="the same words, twice"),  # nearly
            ImportedHit(text="other words", title="Refund policy"),  # the text was edited since
            ImportedHit(),
        ]
        report = fw.import_votes([ImportedRetrieval("r", "q", hits)])
        (found,) = fw.retrievals()
        assert [h.passage_id for h in found.hits] == ["cats", "reset", "refund", "web"]
        assert report.left_out == {
            "passages shown that are not in the index": 2,
            "passages shown whose title several passages of the index have": 1,
            "passages shown without an id, a text, a title or an address": 1,
        }


def test_users_who_opted_out_and_who_are_muted(fw: Flywheel) -> None:
    fw.opt_out("ann")
    fw.mute("bob")
    report = fw.import_votes(
        [asked("a", user_id="ann"), asked("b"), voted("1", on="a", user_id="cid"),
         voted("2", on="b", user_id="ann"), voted("3", on="b", user_id="bob"),
         voted("4", on="b", user_id="cid")]
    )  # fmt: skip
    assert report.left_out == {
        "passages shown that are not in the index": 2,
        "retrievals of users who opted out": 1,
        "votes of users who opted out": 1,
        "votes on retrievals of users who opted out": 1,
    }
    assert sums(fw) == {"reset": (1, 0)}


def test_what_was_imported_and_exported_does_not_come_in_again(
    fw: Flywheel, tmp_path: Path
) -> None:
    fw.import_votes([asked(user_id="ann"), voted("1", user_id="ann"), voted("2", user_id="bob")])
    fw.import_votes([asked("s", at=ago(3)), voted("3", passage=None, on="s", at=ago(2))])
    before = sums(fw)
    for ending in ("jsonl", "csv"):
        paths = [tmp_path / f"{name}.{ending}" for name in ("retrievals", "votes")]
        fw.export.retrievals(paths[0])
        fw.export.votes(paths[1])
        report = fw.import_files("csv", paths)
        assert (report.retrievals, dict(report.votes), dict(report.left_out)) == (0, {}, {})
    assert sums(fw) == before and len(fw.votes()) == 3


def test_a_forgotten_user_does_not_come_back_with_the_next_import(fw: Flywheel) -> None:
    records = [
        asked("a", user_id="ann@x.example"),
        asked("b", inside=["ann-trace"]),
        voted("ann-1", on="b", user_id="ann@x.example"),
        voted("2", on="a", user_id="bob"),
        voted("3", "harmful", on="b", user_id="bob"),
    ]
    fw.import_votes(records)
    report = fw.forget("ann@x.example")
    assert (report.n_retrievals, report.n_votes, report.n_votes_of_others) == (1, 1, 1)
    again = fw.import_votes(records)
    assert (again.retrievals, dict(again.votes)) == (0, {})
    of_ann = "of people who were forgotten"
    assert dict(again.left_out) == {
        "passages shown that are not in the index": 2,
        f"retrievals {of_ann}": 1,
        f"votes on retrievals {of_ann}": 1,
        f"votes {of_ann}": 1,
    }
    assert sums(fw) == {"reset": (0, 1)}
    with fw._database.reading() as conn:
        dump = "\n".join(conn.iterdump())
    assert "ann-1" not in dump and "ann@" not in dump
    assert fw.verify() == []


def test_retention_makes_old_imports_anonymous(tmp_path: Path, help_desk: list[Passage]) -> None:
    with opened(tmp_path / "kb", help_desk, retention_days=30.0) as fw:
        records = [asked("the-id", at=ago(100), user_id="ann", answer="Press it.")]
        votes = [voted("the-vote", on="the-id", at=ago(99), user_id="bob", reason="because")]
        fw.import_votes([*records, *votes])
        before = sums(fw)
        fw.refresh()
        fw.refresh()
        (found,) = fw.retrievals()
        assert (found.user, found.answer, found.external_id) == (None, None, None)
        assert sums(fw) == before == {"reset": (1, 0)}
        again = fw.import_votes([*records, *votes])
        assert (again.retrievals, dict(again.votes)) == (0, {})
        (found,) = fw.retrievals()
        assert (found.user, found.answer) == (None, None)
        with fw._database.reading() as conn:
            dump = "\n".join(conn.iterdump())
        assert "the-id" not in dump and "the-vote" not in dump and "because" not in dump


def test_the_words_of_questions_are_not_stored_where_the_settings_say_so(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    config = {"store_queries": "hash"}
    with opened(tmp_path / "kb", help_desk, **config) as fw:
        query = "zebra settings"
        shown = [h.passage_id for h in fw.retrieve(query, record=False).hits]
        hits = [ImportedHit(id_) for id_ in shown]
        votes = [voted(f"v{u}", passage=shown[-1], user_id=u) for u in "abcd"]
        fw.import_votes([ImportedRetrieval("r", query, hits), *votes])
        assert fw.retrieve(query, record=False).hits[0].passage_id == shown[-1]
        with fw._database.reading() as conn:
            assert "zebra" not in "\n".join(conn.iterdump())


def test_texts_are_masked(tmp_path: Path, help_desk: list[Passage]) -> None:
    def mask(text: str) -> str:
        return text.replace("4711", "***")

    with opened(tmp_path / "kb", help_desk, mask=mask) as fw:
        fw.import_votes(
            [
                asked(query="my number 4711", answer="yours is 4711"),
                voted("v", user_id="u", reason="4711"),
                ImportedVote("t", "r", kind="text", text="4711"),
            ]
        )
        with fw._database.reading() as conn:
            assert "4711" not in "\n".join(conn.iterdump())
        assert fw.retrievals()[0].query == "my number ***"


def test_budgets_are_of_the_day_on_which_votes_were_cast(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    with opened(tmp_path / "kb", help_desk, votes_per_day=2) as fw:
        questions = [asked(f"r{n}", f"question {n}") for n in range(6)]
        votes = [
            voted(f"v{n}", on=f"r{n}", at=ago(10 - n // 3 * 5), user_id="ann") for n in range(6)
        ]
        judged = [
            ImportedVote(f"j{n}", f"r{n}", "helpful", "refund", kind="judge", user_id="m")
            for n in range(6)
        ]
        fw.import_votes([*questions, *votes, *judged])
        trusts = [v.trust for v in reversed(fw.votes()) if v.kind == "vote"]
        assert trusts == [1, 1, 0, 1, 1, 0], "two on each of the two days"
        assert all(v.trust == 1 for v in fw.votes() if v.kind == "judge")


def test_trust_of_the_application_and_of_the_record(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    config = Config(encoder="")
    trust = {"ann": 2.0, "bob": 0.5}
    with Flywheel.open(
        tmp_path / "kb", encoder=WordEncoder(), config=config, trust=lambda user: trust.get(user or "", 1.0)
    ) as fw:  # fmt: skip
        fw.add(help_desk)
        votes = [voted("a", user_id="ann"), voted("b", user_id="bob", trust=0.5)]
        fw.import_votes([asked(), *votes])
        assert sums(fw) == {"reset": (2.25, 0)}


def test_tenants_keep_apart(tmp_path: Path) -> None:
    passages = [
        Passage("a1", "words of one", "Same", {"team": "a"}),
        Passage("b1", "words of one", "Same", {"team": "b"}),
    ]
    with opened(tmp_path / "kb", passages, tenant_key="team") as fw:
        records = [
            ImportedRetrieval("r", "q", [ImportedHit(title="Same"), ImportedHit("b1")]),
            ImportedVote("v", "r", "helpful", rank=1, user_id="u"),
        ]
        report = fw.import_votes(records, tenant="a")
        assert [h.passage_id for h in fw.retrievals(all_tenants=True)[0].hits] == ["a1"]
        assert report.left_out == {"passages shown that are not in the index": 1}
        assert fw.import_votes(records, tenant="b").retrievals == 1, "the ids of others are unknown"
        assert {v.tenant for v in fw.votes(all_tenants=True)} == {'"a"', '"b"'}
        of_a = replace(records[0], id="x", tenant="a")
        assert fw.import_votes([of_a], tenant="b").left_out == {"of another tenant": 1}
        assert fw.import_votes([of_a], all_tenants=True).retrievals == 1
        assert fw.retrievals(1, tenant="a")[0].external_id == "x"
        own = fw.retrieve("words", tenant="a")
        on_it = ImportedVote("w", str(own.id), "helpful", "a1")
        assert fw.import_votes([on_it], tenant="b").votes == {}
        assert fw.import_votes([on_it], tenant="a").votes == {"vote": 1}


def test_an_interrupted_import_goes_on(
    fw: Flywheel, tmp_path: Path, help_desk: list[Passage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported_records, "AT_ONCE", 3)
    records: list[Any] = []
    for n in range(10):
        records += [asked(f"r{n}", f"question {n}"), voted(f"v{n}", on=f"r{n}", user_id="u")]
    with opened(tmp_path / "whole", help_desk) as whole:
        whole.import_votes(records)
        wanted = whole.judgments()
    for after in range(1, 9):
        left = [after]
        real = imports.append_entries

        def dying(conn: Any, entries: Any, left: list[int] = left, real: Any = real) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            real(conn, entries)

        with opened(tmp_path / f"kb{after}", help_desk) as each:
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(imports, "append_entries", dying)
                each.import_votes(records)
            assert each.verify() == []
            each.import_votes(records)
            assert [replace(j, votes=()) for j in each.judgments()] == [
                replace(j, votes=()) for j in wanted
            ]
            assert len(each.retrievals()) == 10


class Meanwhile(WordEncoder):
    """Does something else while it encodes a question, once."""

    def __init__(self) -> None:
        super().__init__()
        self.does: list[Callable[[], object]] = []

    def encode_queries(self, texts: Sequence[str]) -> Any:
        if self.does:
            self.does.pop()()
        return super().encode_queries(texts)


@pytest.mark.parametrize("store_queries", ["text", "hash"])
@pytest.mark.parametrize("happens", ["imported", "opted out", "forgotten"])
def test_a_report_counts_what_came_in_and_not_what_happened_meanwhile(
    tmp_path: Path, help_desk: list[Passage], store_queries: Any, happens: str
) -> None:
    """An import embeds questions between its look at what is there and its writing."""
    records = [
        asked(user_id="ann"),
        voted("v", user_id="ann"),
        voted("w", passage=None, user_id="bob"),
    ]
    encoder, config = Meanwhile(), Config(encoder="", store_queries=store_queries)
    with (
        Flywheel.open(tmp_path / "kb", encoder=encoder, config=config) as fw,
        Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as other,
    ):
        fw.add(help_desk)
        encoder.does = [
            {
                "imported": lambda: other.import_votes(records),
                "opted out": lambda: other.opt_out("ann"),
                "forgotten": lambda: other.forget("ann"),
            }[happens]
        ]
        report = fw.import_votes(records)
        assert not encoder.does
        n_out = sum(n for why, n in report.left_out.items() if not why.startswith("passages"))
        n_votes = sum(report.votes.values())
        assert report.retrievals + n_votes + report.unchanged + n_out == len(records)
        if happens == "imported":
            n_first = int(store_queries == "text")  # questions are embedded with the first votes
            assert (report.retrievals, report.votes) == (n_first, {})
        else:
            n_deleted = int(happens == "forgotten" and store_queries == "text")
            there = len(fw.retrievals()), len(fw.votes())
            assert (report.retrievals - n_deleted, n_votes) == there


def test_nothing_comes_in_where_reading_fails(fw: Flywheel) -> None:
    def records() -> Iterator[Any]:
        yield asked()
        yield voted("v")
        raise ValueError("the end of the world")

    with pytest.raises(ValueError, match="the end"):
        fw.import_votes(records())
    with pytest.raises(
        InputError, match=r"record of dict; expected an ImportedRetrieval or an ImportedVote"
    ):
        fw.import_votes([asked(), {"id": "v"}])  # type: ignore[list-item]
    assert fw.retrievals() == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (asked(at="yesterday"), "with a bad time"),
        (asked(at=time.time() + 3 * DAY), "with a time that is still to come"),
        (asked(at=5.0), "with a time before the year 2000"),
        (asked(query=" "), "with a bad query"),
        (asked(user_id=""), "with a bad user_id"),
        (voted("v", None), "votes without a verdict"),
        (voted("v", "great"), "with a bad verdict"),
        (voted("v", trust=9.0), "with a bad trust"),
        (
            ImportedVote("v", "r", "helpful", kind="vote"),
            "votes of the kind 'vote' that name no passage",
        ),
        (ImportedVote("v", "r", kind="text", text=" "), "votes of the kind 'text' without a text"),
        (ImportedVote("v", "r", kind="rating", value=9), "with a bad rating"),
        (ImportedVote("v", "r", kind="rating", value=3), "scores that are neither for nor against"),
        (voted("v", passage="cats"), "votes on passages that the retrieval did not show"),
        (voted("v", passage="nothing"), "votes on passages that are not in the index"),
        (voted("v", passage=None, rank=9), "votes on passages that the retrieval did not show"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_why_a_record_cannot_be_used_is_counted(fw: Flywheel, record: Any, reason: str) -> None:
    fw.import_votes([asked()])
    report = fw.import_votes([record])
    assert any(found.startswith(reason) for found in report.left_out), report.left_out
    assert (report.retrievals, dict(report.votes)) == (0, {})


class Id(StrEnum):
    R = "r"


@pytest.mark.parametrize("text", [np.str_, lambda _: Id.R], ids=["numpy", "enum"])
def test_texts_and_numbers_of_other_types_come_in_as_plain_ones(fw: Flywheel, text: Any) -> None:
    r = text("r")
    hits = [ImportedHit("secret", rank=np.int64(1)), ImportedHit("reset", rank=np.int64(2))]
    shown = ImportedRetrieval(
        r, r, hits, user_id=r, session_id=r, answer=r, inside=[r], recorded_as=r
    )
    votes = [
        ImportedVote(r, r, "helpful", rank=np.int64(2), user_id=r, reason=r, trust=np.float64(1)),
        ImportedVote("2", r, "helpful", "secret", user_id="eve"),
        ImportedVote("3", r, kind="text", text=r),
        ImportedVote("4", r, "helpful", kind="answer", shares={"reset": np.float32(1)}),
    ]
    report = fw.import_votes([shown, *votes])
    assert (report.retrievals, sum(report.votes.values()), report.left_out) == (1, 4, {})
    (found,) = fw.retrievals()
    assert (found.query, found.answer) == ("r", "r")
    plain = [ImportedRetrieval("r", "r", hits), *votes]
    assert fw.import_votes(plain).unchanged == 5


TEAMS = [Passage(f"{team}1", f"words of {team}", metadata={"team": team}) for team in "ab"]
BOTH = [ImportedHit("a1"), ImportedHit("b1")]
OF_A = ImportedRetrieval("r", "words", BOTH, tenant="a", user_id="ann", answer="a secret of a")
OF_B = ImportedRetrieval("r", "words", BOTH, tenant="b", answer="a secret of b")
WHOSE = "of an id that several tenants have, without saying whose: name the tenant"


def of_team(fw: Flywheel, team: str) -> tuple[list[str], str | None, list[tuple[str, str | None]]]:
    """(passages shown, answer) of the one retrieval of a team, and (kind, passage) of each vote on it."""
    (found,) = fw.retrievals(tenant=team)
    votes = sorted((v.kind, v.passage_id) for v in fw.votes(tenant=team))
    return [hit.passage_id for hit in found.hits], found.answer, votes


@pytest.mark.parametrize("order", ["at once", "later", "not said first", "of each alone"])
def test_an_id_that_two_tenants_have_is_a_retrieval_of_each(tmp_path: Path, order: str) -> None:
    """A verdict is on that of the tenant it names, or of the only one that showed its passage."""
    of_none = ImportedRetrieval("r", "words", BOTH)
    on_passages = [ImportedVote("1", "r", "helpful", "a1"), ImportedVote("2", "r", "helpful", "b1")]
    on_answers = [
        ImportedVote("3", "r", "harmful", user_id="ann", tenant="a"),
        ImportedVote("4", "r", "helpful", user_id="ann", tenant="b"),
    ]
    unclear = ImportedVote("5", "r", "harmful", user_id="eve")
    every = [*on_passages, *on_answers, unclear]
    calls: list[tuple[list[Any], dict[str, Any]]] = {
        "at once": [([OF_A, OF_B, of_none, *every], {})],
        "later": [([OF_A], {}), ([OF_B, *on_passages], {}), ([of_none, *on_answers, unclear], {})],
        "not said first": [([of_none, *every, OF_B, OF_A], {})],
        "of each alone": [
            ([OF_A], {"tenant": "a"}), ([OF_B], {"tenant": "b"}), ([of_none, *every], {})
        ],
    }[order]  # fmt: skip
    with opened(tmp_path / "kb", TEAMS, tenant_key="team") as fw:
        for _ in range(2):
            left_out: Counter[str] = Counter()
            for records, whose in calls:
                dry = fw.import_votes(records, dry_run=True, **(whose or {"all_tenants": True}))
                report = fw.import_votes(records, **(whose or {"all_tenants": True}))
                assert dict(dry.left_out) == dict(report.left_out)
                left_out += Counter(report.left_out)
            assert left_out[f"votes {WHOSE}"] == 1, left_out
            assert left_out[f"records {WHOSE}"] == 1
            assert of_team(fw, "a") == (["a1"], "a secret of a", [("answer", None), ("vote", "a1")])
            assert of_team(fw, "b") == (["b1"], "a secret of b", [("answer", None), ("vote", "b1")])
            assert [v.verdict for v in fw.votes(tenant="a") if v.kind == "answer"] == ["harmful"]


def test_the_tenant_of_the_caller_says_whose_retrieval_a_verdict_is_on(tmp_path: Path) -> None:
    with opened(tmp_path / "kb", TEAMS, tenant_key="team") as fw:
        fw.import_votes([OF_A, OF_B], all_tenants=True)
        for team in "ba":
            vote = ImportedVote("1", "r", "helpful", user_id="ann")
            assert fw.import_votes([vote], tenant=team).votes == {"answer": 1}
            assert fw.import_votes([vote], tenant=team).unchanged == 1
            assert fw.import_votes([replace(vote, tenant=team)], all_tenants=True).unchanged == 1
            assert of_team(fw, team)[2] == [("answer", None)]
        wrong = fw.import_votes([replace(vote, tenant="b")], tenant="a")
        assert (dict(wrong.votes), wrong.left_out) == ({}, {"of another tenant": 1})


def test_a_trace_that_two_tenants_have_takes_no_verdict_that_does_not_say_whose(
    tmp_path: Path,
) -> None:
    inside = [replace(each, id=f"r{each.tenant}", inside=["trace"]) for each in (OF_A, OF_B)]
    votes = [
        ImportedVote("1", "trace", "helpful", user_id="ann"),
        ImportedVote("2", "trace", "helpful", user_id="ann", tenant="b"),
    ]
    for name, calls in {"at once": [[*inside, *votes]], "later": [inside, votes]}.items():
        with opened(tmp_path / name, TEAMS, tenant_key="team") as fw:
            for call in calls:
                report = fw.import_votes(call, all_tenants=True)
            assert (dict(report.votes), report.left_out[f"votes {WHOSE}"]) == ({"answer": 1}, 1)
            assert (of_team(fw, "a")[2], of_team(fw, "b")[2]) == ([], [("answer", None)])


@pytest.mark.parametrize("again", [False, True])
def test_an_id_of_very_many_records_takes_no_longer_than_they_are(
    tmp_path: Path, again: bool
) -> None:
    """As ids that count from 1 in each tenant, and the steps of one trace."""
    n = 12_000
    teams = [Passage(f"p{i}", "words", metadata={"team": f"t{i}"}) for i in range(20)]
    of_many = [
        ImportedRetrieval("1", "words", [ImportedHit(f"p{i}")], tenant=f"t{i}") for i in range(n)
    ]
    parts = [
        ImportedRetrieval("2", "words", [ImportedHit("p0")], tenant="t0", inside=[f"step{i}"])
        for i in range(n)
    ]
    votes = [ImportedVote(f"{i}", "1", "helpful", tenant=f"t{i}") for i in range(0, n, 20)]
    with opened(tmp_path / "kb", teams, tenant_key="team") as fw:
        if again:
            fw.import_votes([*of_many, *parts, *votes], all_tenants=True)
        began = time.process_time()
        report = fw.import_votes([*of_many, *parts, *votes], all_tenants=True)
        assert time.process_time() - began < 8.0  # comparing each with each took 15 s and more
        assert (report.retrievals, report.unchanged) == ((0, 22) if again else (21, 0))


@pytest.mark.parametrize("imported", [True, False])
def test_a_tenant_does_not_crowd_another_out_of_a_trace(tmp_path: Path, imported: bool) -> None:
    """A verdict is on the newest retrievals of whoever it is of, though another has many more."""
    with opened(tmp_path / "kb", TEAMS, tenant_key="team") as fw:
        if imported:
            for team, n in (("a", 1), ("b", 120)):
                some = [
                    ImportedRetrieval(f"{team}-{i}", "words", BOTH, inside=["trace"])
                    for i in range(n)
                ]
                fw.import_votes(some, tenant=team)
        else:
            fw.retrieve("words", run_id="trace", tenant="a")
            fw.retrieve_many(["words"] * 120, run_id="trace", tenant="b")
        vote = ImportedVote("1", "trace", "helpful")
        assert fw.import_votes([vote], tenant="a").votes == {"answer": 1}
        named = replace(vote, id="2", tenant="a", verdict="harmful")
        assert fw.import_votes([named], all_tenants=True).votes == {"answer": 1}
        assert not fw.votes(tenant="b")


@pytest.mark.parametrize("named", [True, False])
def test_rows_of_a_table_name_the_tenant_of_a_verdict(tmp_path: Path, named: bool) -> None:
    path = tmp_path / "votes.csv"
    lines = ["retrieval_id,query,verdict,user,tenant"]
    lines += [f"7,words,{said},{user},{team if named else ''}" for team, user, said in
              (("a", "ann", "helpful"), ("b", "bob", "harmful"))]  # fmt: skip
    path.write_text("\n".join(lines))
    with opened(tmp_path / "kb", TEAMS, tenant_key="team") as fw:
        for team in "ab":
            shown = ImportedRetrieval("7", "words", BOTH, tenant=team)
            fw.import_votes([shown], source="csv", all_tenants=True)
        report = fw.import_files("csv", path, all_tenants=True)
        if named:
            assert (dict(report.votes), dict(report.left_out)) == ({"answer": 2}, {})
            verdicts = {v.tenant: v.verdict for v in fw.votes(all_tenants=True)}
            assert verdicts == {'"a"': "helpful", '"b"': "harmful"}
        else:
            assert dict(report.votes) == {}
            assert dict(report.left_out) == {f"records {WHOSE}": 1, f"votes {WHOSE}": 2}


def test_rows_of_two_tenants_are_two_retrievals(tmp_path: Path) -> None:
    passages = [Passage(f"{team}1", f"words of {team}", metadata={"team": team}) for team in "ab"]
    path = tmp_path / "votes.csv"
    path.write_text("query,passage_id,verdict,user,tenant\nq,a1,1,ann,a\nq,b1,1,ann,b\n")
    with opened(tmp_path / "kb", passages, tenant_key="team") as fw:
        report = fw.import_files("csv", path, all_tenants=True)
        assert (report.retrievals, dict(report.left_out)) == (2, {})
        for team in "ab":
            (found,) = fw.retrievals(tenant=team)
            assert [hit.passage_id for hit in found.hits] == [f"{team}1"]
            assert [vote.passage_id for vote in fw.votes(tenant=team)] == [f"{team}1"]
