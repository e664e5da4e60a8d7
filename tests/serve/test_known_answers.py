"""Known answers act: first for their question whatever votes say, and as evidence for similar ones."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from forgetting import query_name
from known import QUERY, TURNED, imported, said, table
from plain_model import topics, vote_on
from rag_flywheel import Candidate, Config, Flywheel, Hit, KnownAnswer, Passage
from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.rank.posterior import Rates
from reopened import CONFIG, DIM, Opened

CHINESE = "怎么 重置 密码"  # how do I reset the password
PINNED = (KnownAnswer(True, ("pinned",), 1),)


@pytest.fixture
def desk(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


def ids(fw: Flywheel, query: str, where: Mapping[str, Any] | None = None) -> list[str]:
    """The order, which is the same by every way to ask."""
    shown = fw.retrieve(query, where=where, record=False)
    found = [hit.passage_id for hit in shown.hits]
    for hit in shown.hits:
        why = hit.explanation
        parts = why.intercept + sum(why.terms.values()) + why.evidence
        assert parts == pytest.approx(hit.score, abs=1e-6)
    (many,) = fw.retrieve_many([query], where=where, record=False)
    assert [hit.passage_id for hit in many.hits] == found
    assert fw.rank_many([query], where=where) == [found]
    return found


def hit(fw: Flywheel, query: str, passage: str) -> Hit:
    hits = fw.retrieve(query, k=100, record=False).hits
    return next(each for each in hits if each.passage_id == passage)


def chances(fw: Flywheel, query: str) -> dict[str, float]:
    return {h.passage_id: h.score for h in fw.retrieve(query, k=100, record=False).hits}


def accepted(fw: Flywheel, query: str, passage: str) -> str:
    """Users disagree on a passage, and a reviewer accepts it; returns the item's id."""
    said(fw, query, passage, "helpful", "h1", "h2")
    said(fw, query, passage, "harmful", "n1", "n2", "n3")
    item = next(i for i in fw.review.items() if i.passage_id == passage)
    fw.review.accept(item.id)
    return item.id


@pytest.mark.parametrize("refreshed", [False, True])
@pytest.mark.parametrize("source", ["imported", "pinned", "review"])
def test_a_known_answer_comes_first_whatever_votes_say(
    desk: Flywheel, tmp_path: Path, source: str, refreshed: bool
) -> None:
    said(desk, QUERY, "reset", "helpful", *(f"u{i}" for i in range(20)))
    said(desk, QUERY, "cats", "harmful", *(f"u{i}" for i in range(20)))
    assert ids(desk, QUERY)[0] == "reset"
    if refreshed:
        desk.refresh()
    if source == "imported":
        imported(desk, tmp_path, table({(QUERY, "cats"): 1}))
    elif source == "pinned":
        assert desk.pin(QUERY, "cats")
    else:
        accepted(desk, QUERY, "cats")
    for query in (QUERY, f"  {QUERY.upper()}?"):
        assert ids(desk, query)[0] == "cats"
        best = hit(desk, query, "cats").explanation
        assert best.known == (KnownAnswer(True, (source,), 1),)
        assert len(best.votes) >= 40  # of all votes on the question
    assert hit(desk, QUERY, "reset").explanation.known == ()
    votes = desk.votes_behind(hit(desk, QUERY, "cats"))
    assert sum(v.harmful for v in votes if v.passage_id == "cats") >= 20
    desk.refresh()
    assert ids(desk, QUERY)[0] == "cats"


def test_of_several_known_answers_the_higher_grade_comes_first_then_the_score(
    desk: Flywheel,
) -> None:
    plain = [p for p in ids(desk, QUERY) if p != "refund"]
    for passage in plain:
        desk.pin(QUERY, passage, grade=2)
    assert ids(desk, QUERY) == [*plain, "refund"]
    desk.pin(QUERY, "refund", grade=3)
    assert ids(desk, QUERY) == ["refund", *plain]
    desk.pin(QUERY, "refund", grade=1)  # another grade replaces the first
    assert ids(desk, QUERY) == [*plain, "refund"]
    scores = list(chances(desk, QUERY).values())
    assert scores == sorted(scores, reverse=True)


def test_grade_0_does_not_act(desk: Flywheel, tmp_path: Path) -> None:
    before = chances(desk, QUERY)
    imported(desk, tmp_path, table({(QUERY, "cats"): 0}))
    assert chances(desk, QUERY) == before
    imported(desk, tmp_path, table({(QUERY, "cats"): 2}))
    assert ids(desk, QUERY)[0] == "cats"
    imported(desk, tmp_path, table({(QUERY, "cats"): 0}))
    assert chances(desk, QUERY) == before


def test_a_setting_turns_it_off(tmp_path: Path, help_desk: list[Passage]) -> None:
    config = Config(encoder="", known_answers=False)
    encoder = WordEncoder()
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=config) as fw:
        fw.add(help_desk)
        before = chances(fw, QUERY)
        n = encoder.n_encoded
        imported(fw, tmp_path, table({(QUERY, "cats"): 2, ("never asked", "cats"): 1}))
        fw.pin(QUERY, "cats")
        assert encoder.n_encoded == n  # nothing is encoded that no ranking needs
        assert chances(fw, QUERY) == before
        assert hit(fw, QUERY, "cats").explanation.known == ()
        assert {i.sources for i in fw.golden.items()} == {("imported", "pinned"), ("imported",)}


@pytest.mark.parametrize("answers", [None, 2.0])
@pytest.mark.parametrize("kernel", [Kernel(), Kernel(same=0.0), Kernel(neighbours=0)])
def test_near_duplicates_share_nearly_as_much_and_far_questions_nothing(
    tmp_path: Path, help_desk: list[Passage], answers: float | None, kernel: Kernel
) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(DIM), config=CONFIG) as fw:
        fw.add(help_desk)
        fw.refresh()
    opened = Opened(tmp_path / "kb")
    version = replace(opened.version, parameters=Parameters(kernel=kernel, answers=answers))
    before = {q: scores_under(opened, version, q) for q in (QUERY, TURNED, "refunds paid days")}
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(DIM)) as fw:
        fw.pin(QUERY, "cats")
    after = {q: scores_under(opened, version, q) for q in before}
    opened.database.close()
    assert first_of(before[QUERY]) == "reset" == first_of(before[TURNED])
    assert first_of(after[QUERY]) == "cats" == first_of(after[TURNED])
    assert after["refunds paid days"] == before["refunds paid days"]
    # unlike the very question, near-duplicates can be outvoted: the voice is strong, but bounded
    assert after[TURNED]["cats"] - before[TURNED]["cats"] > 4.0


def scores_under(opened: Opened, version: LoadedVersion, query: str) -> dict[str, float]:
    """Scores of a folder as a process finds it, under another version."""
    from rag_flywheel.serve.answers import Request
    from rag_flywheel.serve.live import LiveState
    from rag_flywheel.serve.live_version import current_of
    from rag_flywheel.serve.lookups import Lookups
    from rag_flywheel.serve.server import Server

    live = LiveState(
        opened.database,
        opened.source,
        lambda: current_of(opened.root),
        lambda: (version, opened.frozen_at),
        opened.root / "CURRENT",
    )
    server = Server(opened.database, opened.config, opened.source, live, Lookups(10))
    (found,) = server.retrieve([query], Request(100, record=False))
    for each in found.hits:
        why = each.explanation
        parts = why.intercept + sum(why.terms.values()) + why.evidence
        assert parts == pytest.approx(each.score, abs=1e-6)
    return {each.passage_id: each.score for each in found.hits}


def first_of(scores: Mapping[str, float]) -> str:
    return max(scores, key=lambda p: scores[p])


def test_a_similar_question_counts_as_one_whose_answer_is_certain(desk: Flywheel) -> None:
    other = f"{QUERY} please now thanks"
    before, plain = chances(desk, other), ids(desk, other)
    desk.pin(QUERY, "cats")
    after = chances(desk, other)
    assert after["cats"] > before["cats"]
    gaps = {p: after[p] - before[p] for p in before if p != "cats"}
    assert max(gaps.values()) - min(gaps.values()) < 1e-9  # no other moves against another
    assert plain[0] == "reset"
    found = hit(desk, other, "cats").explanation
    assert found.known == (KnownAnswer(False, ("pinned",), 1),)
    assert found.votes == ()
    assert found.by_known == 0.0


def test_a_known_answer_is_not_crowded_out_by_nearer_questions(desk: Flywheel) -> None:
    words = "reset the password for my account"
    desk.pin(words, "cats")
    near = [f"{words} today again please number{i}" for i in range(40)]
    for shown in desk.retrieve_many(near):
        desk.feedback(shown.id, "reset", "helpful", user_id="ann")
    known = hit(desk, f"{words} today again please number99", "cats").explanation.known
    assert known == (KnownAnswer(False, ("pinned",), 1),)


def test_votes_on_a_question_with_a_known_answer_count_for_no_other_passage_elsewhere(
    desk: Flywheel,
) -> None:
    """One passage is the answer: what is certain leaves nothing to the others."""
    other = f"{QUERY} please now thanks"
    said(desk, QUERY, "refund", "helpful", "ann", "bob", "cid")
    before = hit(desk, other, "refund").explanation
    assert before.evidence > 0.0
    assert len(before.votes) == 3
    desk.pin(QUERY, "cats")
    after = hit(desk, other, "refund").explanation
    assert (after.evidence, after.votes) == (0.0, ())
    assert len(hit(desk, QUERY, "refund").explanation.votes) == 3
    desk.unpin(QUERY, "cats")
    assert hit(desk, other, "refund").explanation == before


def test_chinese_text_is_one_question_in_full_and_half_width(fw: Flywheel) -> None:
    fw.add([Passage("重置", "打开 设置 然后 重置 密码"), Passage("退款", "三十 天 之内 退款")])
    assert ids(fw, CHINESE) == ["重置", "退款"]
    fw.pin(CHINESE, "退款")
    for query in (CHINESE, f" {CHINESE}?", f"{CHINESE}\uff1f", "怎么\u3000重置\u3000密码\u3002"):
        assert ids(fw, query) == ["退款", "重置"]
    assert ids(fw, "密码 重置 怎么")[0] == "退款"  # a near-duplicate
    fw.unpin(f"{CHINESE}\uff1f", "退款")
    assert ids(fw, CHINESE) == ["重置", "退款"]


def test_rerank_puts_known_answers_first(desk: Flywheel, help_desk: list[Passage]) -> None:
    given = [Candidate(p.id, p.text, 1.0 - 0.1 * i, p.title) for i, p in enumerate(help_desk)]
    assert desk.rerank(QUERY, given, record=False).hits[0].passage_id == "reset"
    desk.pin(QUERY, "cats")
    for query, same in ((QUERY, True), (TURNED, False)):
        found = desk.rerank(query, given)
        assert found.hits[0].passage_id == "cats"
        assert found.hits[0].explanation.known == (KnownAnswer(same, ("pinned",), 1),)
        for each in found.hits:
            why = each.explanation
            parts = why.intercept + sum(why.terms.values()) + why.evidence
            assert parts == pytest.approx(each.score, abs=1e-6)
    changed = [replace(c, text=f"{c.text} changed") for c in given]
    assert desk.rerank(QUERY, changed, record=False).hits[0].passage_id == "reset"


def test_a_filter_goes_before(desk: Flywheel) -> None:
    desk.pin(QUERY, "cats")
    assert ids(desk, QUERY, {"lang": "en"}) == ["secret", "refund"]
    assert ids(desk, QUERY, {"lang": "de"}) == ["cats"]


def test_removed_and_edited_passages(desk: Flywheel, help_desk: list[Passage]) -> None:
    text = "one two three four five six seven eight nine ten " * 4
    desk.add([Passage("long", text)])
    desk.pin(QUERY, "long")
    desk.pin(QUERY, "cats")
    assert set(ids(desk, QUERY)[:2]) == {"cats", "long"}
    desk.remove(["cats"])
    assert ids(desk, QUERY)[0] == "long"
    assert {h.passage_id for h in desk.retrieve(QUERY).hits if h.explanation.known} == {"long"}
    desk.add([help_desk[3]])  # the same text again
    assert set(ids(desk, QUERY)[:2]) == {"cats", "long"}
    desk.add([Passage("long", text + "eleven")])  # an edit that keeps votes
    assert set(ids(desk, QUERY)[:2]) == {"cats", "long"}
    desk.add([Passage("long", "something else"), Passage("cats", "dogs bark at night")])
    assert ids(desk, QUERY)[0] == "reset"
    assert not any(h.explanation.known for h in desk.retrieve(QUERY).hits)
    assert desk.unpin(QUERY, "cats")  # the pin is on the text of before
    desk.add([help_desk[3]])
    assert ids(desk, QUERY)[0] == "reset"


def test_a_removed_passage_takes_nothing_from_the_others(
    desk: Flywheel, help_desk: list[Passage]
) -> None:
    other = f"{QUERY} please now thanks"
    said(desk, QUERY, "refund", "helpful", "ann", "bob", "cid")
    desk.remove(["cats"])
    without = hit(desk, other, "refund").explanation
    assert without.evidence > 0.0
    desk.add([help_desk[3]])
    desk.pin(QUERY, "cats")
    assert hit(desk, other, "refund").explanation.evidence == 0.0
    desk.remove(["cats"])
    assert hit(desk, other, "refund").explanation == without
    desk.add([help_desk[3]])
    assert hit(desk, other, "refund").explanation.evidence == 0.0


def test_unpinning_leaves_nothing(desk: Flywheel) -> None:
    before = {q: chances(desk, q) for q in (QUERY, TURNED, "password")}
    desk.pin(QUERY, "cats")
    assert desk.unpin(QUERY, "cats")
    assert {q: chances(desk, q) for q in before} == before
    said(desk, QUERY, "cats", "helpful", "ann")
    with_vote = chances(desk, QUERY)
    desk.pin(QUERY, "cats")
    desk.unpin(QUERY, "cats")
    assert chances(desk, QUERY) == with_vote


def test_what_was_pinned_when_a_question_was_first_asked_leaves_nothing(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    """Chances before votes come from the first answer, without what the pin added to its scores."""
    found = []
    for pinned in (False, True):
        with Flywheel.open(tmp_path / str(pinned), encoder=WordEncoder()) as fw:
            fw.add(help_desk)
            if pinned:
                fw.pin(QUERY, "cats")
            said(fw, QUERY, "secret", "helpful", "ann")
            if pinned:
                fw.unpin(QUERY, "cats")
            found.append((chances(fw, QUERY), chances(fw, f"{QUERY} please now thanks")))
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-9)
    assert found[1][1] == pytest.approx(found[0][1], abs=1e-9)


def test_review_takes_known_answers_away_and_gives_them_back(
    desk: Flywheel, tmp_path: Path
) -> None:
    item = accepted(desk, QUERY, "cats")
    assert ids(desk, QUERY)[0] == "cats"
    desk.review.undo(item)
    assert ids(desk, QUERY)[0] == "reset"
    desk.review.accept(item)
    assert ids(desk, QUERY)[0] == "cats"
    desk.review.reject(item)
    assert ids(desk, QUERY)[0] == "reset"
    imported(desk, tmp_path, table({(QUERY, "cats"): 1}))
    assert ids(desk, QUERY)[0] == "reset"  # a rejected answer is not known, whatever the source
    assert desk.pin(QUERY, "cats")  # unless somebody pins it after that
    assert not desk.pin(QUERY, "cats")
    assert ids(desk, QUERY)[0] == "cats"
    assert [i.sources for i in desk.golden.items() if "cats" in i.answers] == [("pinned",)]


def test_a_rejection_counts_for_other_wordings(desk: Flywheel, tmp_path: Path) -> None:
    said(desk, QUERY, "cats", "harmful", "n1", "n2", "n3")  # the item is on this wording
    imported(desk, tmp_path, table({(TURNED, "cats"): 1, ("far away question", "cats"): 1}))
    assert ids(desk, TURNED)[0] == "cats"
    (item,) = desk.review.items()
    assert (item.query, item.passage_id) == (QUERY, "cats")
    desk.review.reject(item.id)
    assert ids(desk, TURNED)[0] == "reset"
    assert ids(desk, "far away question")[0] == "cats"
    desk.review.undo()
    assert ids(desk, TURNED)[0] == "cats"


def test_pins_act_at_once_in_another_process_and_after_a_refresh(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    root = tmp_path / "kb"
    encoder = WordEncoder()
    with (
        Flywheel.open(root, encoder=WordEncoder()) as one,
        Flywheel.open(root, encoder=encoder) as other,
    ):
        one.add(help_desk)
        assert ids(other, QUERY)[0] == "reset"
        one.pin(QUERY, "cats")
        assert ids(other, QUERY)[0] == "cats"
        one.refresh()
        assert ids(other, QUERY)[0] == "cats"
        other.unpin(QUERY, "cats")
        assert ids(one, QUERY)[0] == "reset"
        one.pin("never asked before", "cats")
        n = encoder.n_encoded
        assert ids(other, "hello there")  # the pinned query has its vector in the database
        assert encoder.n_encoded == n + 1


def test_a_question_that_was_never_encoded_is_when_it_is_loaded(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add(help_desk)
        fw.pin(QUERY, "cats")
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        conn.execute("DELETE FROM vectors WHERE text_hash = ?", (query_name(root, QUERY),))
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        assert ids(fw, TURNED)[0] == "cats"
        assert ids(fw, QUERY)[0] == "cats"


def test_tenants_do_not_share_pins(tmp_path: Path) -> None:
    config = Config(encoder="", tenant_key="team", tenant_required=False)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        for team in ("a", "b"):
            fw.add(
                [
                    Passage(f"reset-{team}", "press reset to get a password", "", {"team": team}),
                    Passage(f"cats-{team}", "kittens sleep all day", "", {"team": team}),
                ]
            )
        a, b = {"team": "a"}, {"team": "b"}
        before = {q: fw.retrieve(q, where=b, record=False).hits for q in (QUERY, TURNED)}
        everywhere = fw.retrieve(QUERY, record=False).hits
        fw.pin(QUERY, "cats-a", where=a)
        assert ids(fw, QUERY, a) == ["cats-a", "reset-a"]
        assert ids(fw, TURNED, a) == ["cats-a", "reset-a"]
        assert {q: fw.retrieve(q, where=b, record=False).hits for q in before} == before
        assert fw.retrieve(QUERY, record=False).hits == everywhere
        with pytest.raises(UnknownIdError, match="no passage 'cats-a' is in the index"):
            fw.unpin(QUERY, "cats-a", where=b)
        assert not fw.unpin(QUERY, "cats-a")
        assert ids(fw, QUERY, a) == ["cats-a", "reset-a"]
        assert fw.unpin(QUERY, "cats-a", where=a)
        assert ids(fw, QUERY, a) == ["reset-a", "cats-a"]
        with pytest.raises(InputError, match="pin cannot filter on 'lang'"):
            fw.pin(QUERY, "cats-a", where={"lang": "en"})


@pytest.mark.parametrize("pin", [Flywheel.pin, Flywheel.unpin])
def test_errors(desk: Flywheel, pin: Callable[..., bool]) -> None:
    before = desk.status()
    with pytest.raises(UnknownIdError, match="no passage 'nope' is in the index"):
        pin(desk, QUERY, "nope")
    for query, message in ((" ", "empty or blank"), ("a" * 10_001, "at most 10000")):
        with pytest.raises(InputError, match=message):
            pin(desk, query, "cats")
    with pytest.raises(InputError, match="half a surrogate pair"):
        pin(desk, "\ud800", "cats")
    with pytest.raises(InputError, match="passage_id"):
        pin(desk, QUERY, 7)
    with pytest.raises(InputError, match="cannot filter on 'lang'"):
        pin(desk, QUERY, "cats", where={"lang": "en"})
    assert desk.golden.items() == []
    assert desk.status() == before


@pytest.mark.parametrize("grade", [0, 101, 1.0, True])
def test_grades_that_are_none(desk: Flywheel, grade: Any) -> None:
    with pytest.raises(InputError, match="expected a whole number from 1 to 100"):
        desk.pin(QUERY, "cats", grade=grade)


def test_pinning_twice_is_one_event(desk: Flywheel) -> None:
    assert desk.pin(QUERY, "cats")
    assert not desk.pin(f" {QUERY.upper()} ?", "cats")
    assert [e.text for e in desk.history()] == [f"pin: passage 'cats' for {QUERY!r}"]
    assert desk.unpin(QUERY, "cats")
    assert not desk.unpin(QUERY, "cats")
    assert [e.text.split(":")[0] for e in desk.history()] == ["unpin", "pin"]
    assert desk.verify() == []


def test_after_a_rollback_pins_go_on_acting(desk: Flywheel) -> None:
    desk.refresh()
    desk.add([Passage("more", "one more text")])
    desk.refresh()
    desk.pin(QUERY, "refund")
    desk.rollback()
    assert ids(desk, QUERY)[0] == "refund"
    desk.pin(TURNED, "cats")  # after the event that votes are frozen at
    said(desk, "password", "refund", "helpful", "ann", "bob", "cid")
    assert ids(desk, TURNED)[0] == "cats"
    assert hit(desk, "password", "refund").explanation.votes == ()
    desk.unpin(QUERY, "refund")
    assert ids(desk, QUERY)[0] != "refund"
    desk.release()
    assert ids(desk, TURNED)[0] == "cats"


def test_an_old_log_is_read_as_before(desk: Flywheel, tmp_path: Path) -> None:
    """Answers that an earlier release imported have no vector, and scores of hits no known part."""
    imported(desk, tmp_path, table({(QUERY, "cats"): 1}))
    root = Path(desk.status().path)
    said(desk, TURNED, "reset", "helpful", "ann")
    desk.close()
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        conn.execute("DELETE FROM vectors WHERE text_hash = ?", (query_name(root, QUERY),))
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        assert ids(fw, QUERY)[0] == "cats"
        assert fw.verify() == []


@pytest.mark.parametrize("seed", [11, 12])
def test_random_histories_equal_a_fresh_reading(
    tmp_path: Path, help_desk: list[Passage], seed: int
) -> None:
    """What a process that saw every event has is what a new process reads."""
    rng = np.random.default_rng(seed)
    decided = 0
    queries = [QUERY, TURNED, "kittens sleep", "money back", f"{QUERY} please now"]
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add(help_desk)
        for step in range(60):
            query, passage = rng.choice(queries), str(rng.choice([p.id for p in help_desk]))
            action = rng.choice(["pin", "unpin", "vote", "edit", "remove", "import", "review"])
            there = {p.id for p in fw.passages()}
            if action == "edit" or passage not in there:
                fw.add(
                    [p for p in help_desk if p.id == passage]
                    if rng.random() < 0.7
                    else [Passage(passage, f"another text {step}")]
                )
            elif action == "remove" and len(there) > 2:
                fw.remove([passage])
            elif action == "vote":
                verdict = str(rng.choice(["helpful", "harmful", "harmful"]))
                said(fw, str(query), passage, verdict, f"u{step}", f"v{step}")
            elif action == "review" and (waiting := fw.review.items()):
                decide = fw.review.accept if rng.random() < 0.4 else fw.review.reject
                decide(waiting[0].id)
                decided += 1
            elif action == "review" and decided:
                fw.review.undo()
                decided -= 1
            elif action == "pin":
                fw.pin(str(query), passage, grade=int(rng.integers(1, 4)))
            elif action == "unpin":
                fw.unpin(str(query), passage)
            else:
                imported(fw, tmp_path, table({(str(query), passage): int(rng.integers(0, 3))}))
            if step == 30:
                fw.refresh()
            if step % 6 == 0:
                with Flywheel.open(root, encoder=WordEncoder()) as new:
                    for each in queries:
                        one, two = (f.retrieve(each, record=False).hits for f in (fw, new))
                        assert [h.passage_id for h in one] == [h.passage_id for h in two]
                        assert [h.explanation.known for h in one] == [
                            h.explanation.known for h in two
                        ]
                        assert [h.score for h in one] == pytest.approx(
                            [h.score for h in two], abs=1e-6
                        )
        assert fw.verify() == []
        assert any(entry.kind == "review" for entry in fw.history(1_000))


def test_votes_that_are_no_evidence_do_not_switch_known_answers_off(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(DIM), config=CONFIG) as fw:
        fw.add(help_desk)
        fw.refresh()
        fw.pin(QUERY, "cats")
    opened = Opened(tmp_path / "kb")
    noisy = replace(opened.version, parameters=Parameters(rates=Rates(0.5, 0.5)))
    assert first_of(scores_under(opened, noisy, QUERY)) == "cats"
    assert first_of(scores_under(opened, noisy, TURNED)) == "cats"
    opened.database.close()


def test_many_known_answers_all_come_first(fw: Flywheel) -> None:
    fw.add(topics())
    every = [p.id for p in topics()]
    vote_on(fw, ["topic3 question"], lambda q, p: True)
    for passage in every[:60]:
        fw.pin("topic3 question", passage)
    best = fw.rank_many(["topic3 question"], 60)[0]
    assert set(best) == set(every[:60])
