"""The public API: whose votes count how far, and whose not at all."""

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage, Vote
from rag_flywheel.errors import InputError
from rag_flywheel.records import Verdict

QUERY, OTHER = "reset password", "refund of an order"
DAY_S = 86_400.0


def opened(root: Path, trust: Any = 1.0, **settings: Any) -> Flywheel:
    config = Config(encoder="", **settings)
    return Flywheel.open(root, encoder=WordEncoder(), config=config, trust=trust)


def order(fw: Flywheel, query: str = QUERY) -> list[tuple[str, float]]:
    found = fw.retrieve(query, k=100, record=False)
    return [(hit.passage_id, hit.score) for hit in found.hits]


def says(fw: Flywheel, passage: str, *users: str | None, verdict: str = "helpful") -> None:
    for user in users:
        shown = fw.retrieve(QUERY, k=100, user_id=user)
        fw.feedback(shown.id, passage, verdict, user_id=user)  # type: ignore[arg-type]


def names(n: int, kind: str = "user") -> list[str]:
    return [f"{kind} {i}" for i in range(n)]


# how many votes count


def test_votes_beyond_the_budget_of_a_day_are_stored_and_weigh_nothing(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    with opened(tmp_path / "kb", votes_per_day=2) as fw:
        fw.add(help_desk)
        for verdict in ("helpful", "retract"):
            says(fw, "secret", "ann", verdict=verdict)
        before = order(fw)
        says(fw, "secret", "ann")
        assert order(fw) == before
        says(fw, "secret", "bob")
        assert order(fw) != before
        (ann,) = (r for r in fw.raters(["ann"]) if r.name == "ann")
        assert (ann.n_votes, ann.n_over, ann.n_questions) == (3, 1, 1)


@pytest.mark.parametrize("table", ["votes", "answer_votes"])
def test_the_budget_is_of_the_last_day(
    tmp_path: Path, help_desk: list[Passage], table: str
) -> None:
    with opened(tmp_path / "kb", votes_per_day=1) as fw:
        fw.add(help_desk)
        if table == "votes":
            says(fw, "refund", "ann", verdict="harmful")
        else:
            fw.answer_feedback(fw.retrieve(OTHER).id, "harmful", user_id="ann")
        with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn, conn:
            conn.execute(f"UPDATE {table} SET at = at - ?", (1.01 * DAY_S,))
        before = order(fw)
        says(fw, "secret", "ann")
        assert order(fw) != before


def test_one_call_cannot_go_beyond_it(tmp_path: Path, help_desk: list[Passage]) -> None:
    with opened(tmp_path / "kb", votes_per_day=2) as fw:
        fw.add(help_desk)
        shown = fw.retrieve(QUERY, k=4)
        fw.feedback_many([Vote(shown.id, h.passage_id, "harmful", "ann") for h in shown.hits])
        assert fw.raters()[0].n_over == len(shown.hits) - 2


def test_named_passages_have_a_budget_of_their_own(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    with opened(tmp_path / "kb", corrections_per_day=1) as fw:
        fw.add(help_desk)
        fw.correct(fw.retrieve(OTHER).id, "refund", user_id="ann")
        before = order(fw)
        fw.correct(fw.retrieve(QUERY).id, "secret", user_id="ann")
        assert order(fw) == before
        fw.correct(fw.retrieve(QUERY).id, "secret", user_id="bob")
        assert order(fw) != before


def test_a_session_without_a_user_has_one_budget(tmp_path: Path, help_desk: list[Passage]) -> None:
    with opened(tmp_path / "kb", votes_per_day=1) as fw:
        fw.add(help_desk)
        first = fw.retrieve(OTHER, session_id="s")
        fw.feedback(first.id, first.hits[0].passage_id, "helpful")
        before = order(fw)
        fw.feedback(fw.retrieve(QUERY, k=9, session_id="s").id, "secret", "helpful")
        assert order(fw) == before
        fw.feedback(fw.retrieve(QUERY, k=9, session_id="t").id, "secret", "helpful")
        assert order(fw) != before


# what the application says


def test_the_application_says_how_far_a_user_is_trusted(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    def trust(user: str | None) -> float:
        return {"bot": 0.0, "editor": 3.0}.get(user or "", 1.0)

    scores: dict[str, float] = {}
    for user in ("bot", "ann", "editor"):
        with opened(tmp_path / user, trust=trust) as fw:
            fw.add(help_desk)
            scores["nobody"] = dict(order(fw))["secret"]
            says(fw, "secret", user)
            scores[user] = dict(order(fw))["secret"]
    assert scores["nobody"] == scores["bot"] < scores["ann"] < scores["editor"]


def test_a_vote_may_say_it_too(tmp_path: Path, help_desk: list[Passage]) -> None:
    with opened(tmp_path / "a", trust=0.5) as one, opened(tmp_path / "b") as other:
        for fw, own in ((one, 1.0), (other, 0.5)):
            fw.add(help_desk)
            fw.feedback_many([Vote(fw.retrieve(QUERY).id, "secret", "helpful", "ann", trust=own)])
        assert order(one) == order(other)


@pytest.mark.parametrize("trust", [-0.1, 3.1, float("nan"), True, "much", None])
def test_a_trust_that_is_none_is_refused_and_nothing_is_stored(
    tmp_path: Path, help_desk: list[Passage], trust: Any
) -> None:
    with opened(tmp_path / "kb", trust=lambda user: trust) as fw:
        fw.add(help_desk)
        shown = fw.retrieve(QUERY).id
        calls: Sequence[Callable[[], object]] = (
            lambda: fw.feedback(shown, "secret", "helpful", user_id="ann"),
            lambda: fw.correct(shown, "secret", user_id="ann"),
            lambda: fw.answer_feedback(shown, "helpful", user_id="ann"),
            lambda: fw.signal(shown, "copied", user_id="ann"),
            lambda: fw.adopted(shown, used=True, user_id="ann"),
        )
        for call in calls:
            with pytest.raises(InputError, match="trust"):
                call()
        assert fw.status().n_votes == 0


# who is not heard


def test_muting_takes_votes_away_at_once_and_bit_for_bit(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    with opened(tmp_path / "kb") as fw, opened(tmp_path / "kb") as elsewhere:
        fw.add(help_desk)
        says(fw, "reset", *names(5))
        before = order(fw), order(fw, "reset my password")
        says(fw, "refund", *names(40, "bot"))
        attacked = order(fw)
        assert attacked[0][0] == order(elsewhere)[0][0] == "refund"
        hashes = [r.user for r in fw.raters(names(40, "bot")) if r.name is not None]
        assert fw.mute(raters=hashes) == 40
        assert fw.mute(raters=hashes) == 0
        for each in (fw, elsewhere):
            assert (order(each), order(each, "reset my password")) == before
        says(fw, "refund", "bot 7")
        assert order(fw) == before[0]
        assert {r.muted for r in fw.raters(["bot 7"]) if r.name} == {True}
        for user in names(40, "bot"):
            assert fw.unmute(user) == 1
        assert order(elsewhere) == attacked


def test_muting_holds_for_every_kind_of_feedback(tmp_path: Path, help_desk: list[Passage]) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(help_desk)
        before = order(fw)
        shown = fw.retrieve(QUERY, k=9).id
        fw.feedback(shown, "refund", "helpful", user_id="ann")
        fw.correct(shown, "cats", user_id="ann")
        fw.answer_feedback(shown, "harmful", cited=["reset"], user_id="ann")
        fw.signal(shown, "copied", passage_id="refund", user_id="ann")
        fw.adopted(shown, used=True, user_id="ann")
        assert order(fw) != before
        fw.mute("ann")
        assert order(fw) == before
        fw.mute("nobody")
        assert order(fw) == before


@pytest.mark.parametrize("wrong", [{}, {"raters": ["a", 3]}, {"raters": "abc"}, {"user_id": 3}])
def test_muting_nobody_is_an_error(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with opened(tmp_path / "kb") as fw, pytest.raises(InputError):
        fw.mute(**wrong)


QUESTIONS = 80


def desk() -> list[Passage]:
    """Passages of which each two share their words but one."""
    return [Passage(f"p{i}", f"topic{i // 2} page word{i}") for i in range(2 * QUESTIONS)]


def asks(fw: Flywheel, *, attackers: bool) -> None:
    """Ten honest users vote on all questions; then two attackers, who call wrong passages helpful."""
    verdicts: tuple[Verdict, Verdict] = ("harmful", "helpful")
    for users in ([f"u{i}" for i in range(10)], ["eve", "mal"] if attackers else []):
        for i in range(QUESTIONS):
            shown = fw.retrieve(f"topic{i} page how", k=6)
            fw.feedback_many(
                Vote(shown.id, h.passage_id, verdicts[honest == (h.passage_id == right)], user)
                for user in (users if len(users) < 3 else (users[i % 10], users[(i + 3) % 10]))
                for h in shown.hits
                for honest, right in [(user[0] == "u", f"p{2 * i + 1}")]
            )


def learn_desk(fw: Flywheel) -> None:
    """The desk, and what its honest users taught it."""
    fw.add(desk())
    asks(fw, attackers=False)
    fw.refresh()


def learned(fw: Flywheel, root: Path) -> Any:
    version = root / "versions" / str(fw.status().version)
    parameters = json.loads((version / "parameters.json").read_text())
    found = fw.retrieve_many([f"topic{i} page how" for i in range(0, QUESTIONS, 7)], record=False)
    return parameters, [[(h.passage_id, h.score) for h in r.hits] for r in found]


def test_a_refresh_after_muting_learns_what_it_would_have_without_them(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with opened(one) as fw, opened(other) as without:
        for each in (fw, without):
            each.add(desk())
            each.refresh()
            asks(each, attackers=each is fw)
            each.refresh()
        assert learned(fw, one)[0] != learned(without, other)[0]
        fw.mute("eve")
        fw.mute("mal")
        assert fw.refresh().outcome == "promoted"
        assert learned(fw, one) == learned(without, other)
        assert fw.refresh().outcome == "unchanged"
        assert fw.verify() == []


def test_a_refresh_finds_who_inverts_and_says_so(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(desk())
        asks(fw, attackers=True)
        fw.refresh()
        weights = {
            r.name: r.weight for r in fw.raters(["eve", "mal", *(f"u{i}" for i in range(10))])
        }
        assert weights["eve"] == weights["mal"] == 0.0
        assert min(w for user, w in weights.items() if user not in ("eve", "mal")) > 0.5
        assert set(list(weights)[:2]) == {"eve", "mal"}
        before = order(fw, "topic3 page how")
        for user in ("eve", "mal"):
            shown = fw.retrieve("topic3 page how")
            fw.feedback(shown.id, shown.hits[1].passage_id, "helpful", user_id=user)
        assert order(fw, "topic3 page how") == before  # the weights hold for the next votes at once
    with opened(root) as again:
        assert order(again, "topic3 page how") == before


def votes_of_two_groups(
    fw: Flywheel, words: str, *, team: str | None, inverting: bool
) -> dict[str, float]:
    """The weights of the minority after fourteen users who want the one page of each topic, and six in a
    minority, who want the other one or, inverting, call all wrong ones helpful.

    words: that the minority adds to its questions, which point to what the others want; team: its tenant.
    """
    few = [f"few{i}" for i in range(6)]
    for i in range(QUESTIONS):
        for users, text, where in (
            ([f"u{(i + j) % 14}" for j in range(4)], f"topic{i} page word{2 * i + 1}", "main"),
            ([few[(i + j) % 6] for j in range(2)], f"topic{i} page word{2 * i + 1} {words}", team),
        ):
            shown = fw.retrieve(
                text, k=6 if inverting else 2, where=None if team is None else {"team": where}
            )
            right = f"p{2 * i + (users[0] not in few)}"
            fw.feedback_many(
                Vote(shown.id, h.passage_id, verdict, user)
                for user in users
                for h in shown.hits
                for own in [h.passage_id.removeprefix("few-") == right]
                for verdict in ["helpful" if own != (inverting and user in few) else "harmful"]
            )
    fw.refresh()
    return {r.name: r.weight for r in fw.raters(few) if r.name}


def test_a_minority_that_asks_in_its_own_words_is_believed(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(desk())
        weights = votes_of_two_groups(fw, "tonight", team=None, inverting=False)
        assert len(weights) == 6 and min(weights.values()) >= 0.5


def test_who_inverts_in_the_words_of_a_minority_is_not_believed_with_it(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(desk())
        for i in range(QUESTIONS):
            shown = fw.retrieve(f"topic{i} page word{2 * i + 1} tonight", k=4)
            fw.feedback_many(
                Vote(shown.id, h.passage_id, verdict, "eve")
                for h in shown.hits
                for own in [h.passage_id in (f"p{2 * i}", f"p{2 * i + 1}")]
                for verdict in ["harmful" if own else "helpful"]
            )
        weights = votes_of_two_groups(fw, "tonight", team=None, inverting=False)
        (eve,) = (r for r in fw.raters(["eve"]) if r.name == "eve")
        assert min(weights.values()) >= 0.5 and eve.weight < 0.3


def test_a_tenant_that_wants_other_answers_is_judged_by_its_own(tmp_path: Path) -> None:
    with opened(tmp_path / "kb", tenant_key="team", tenant_required=False) as fw:
        for team, mark in (("main", ""), ("side", "few-")):
            fw.add(replace(p, id=mark + p.id, metadata={"team": team}) for p in desk())
        weights = votes_of_two_groups(fw, "", team="side", inverting=False)
        assert weights == dict.fromkeys(weights, 1.0) and len(weights) == 6


def test_a_group_that_inverts_is_not_believed_though_it_agrees_with_itself(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(desk())
        weights = votes_of_two_groups(fw, "", team=None, inverting=True)
        assert len(weights) == 6 and max(weights.values()) < 0.3


def test_folding_keeps_what_votes_weigh_and_forgetting_what_is_known_of_a_user(
    tmp_path: Path,
) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(desk())
        asks(fw, attackers=True)
        fw.refresh()
        before = learned(fw, root)[1]
        with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
            for table in ("votes", "retrievals"):
                conn.execute(f"UPDATE {table} SET at = ?", (time.time() - 60 * DAY_S,))
    with (root / "flywheel.toml").open("a") as file:
        file.write("retention_days = 30\n")
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.refresh()  # folds
        assert fw.raters() == []
        shown = fw.retrieve("topic0 page how")
        for verdict in ("helpful", "retract"):  # all votes on the question are judged again
            hit = shown.hits[0].passage_id
            fw.feedback(shown.id, hit, verdict, user_id="new")  # type: ignore[arg-type]
        after = learned(fw, root)[1]
    for some, same in zip(before, after, strict=True):
        assert [p for p, _ in some] == [p for p, _ in same]
        assert np.allclose([s for _, s in some], [s for _, s in same], atol=1e-6)


def test_forgetting_leaves_no_trace_of_a_muted_user(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(desk())
        asks(fw, attackers=True)
        fw.refresh()
        (eve,) = (r.user for r in fw.raters(["eve"]) if r.name)
        fw.mute("eve")
        fw.forget("eve")
        assert eve not in {r.user for r in fw.raters()}
        files = [p for p in root.rglob("*") if p.is_file()]
        assert not [p for p in files if eve.encode() in p.read_bytes()]
        assert fw.verify() == []


# one person, few and many made-up ids


def junk_over(fw: Flywheel, right: str, junk: str) -> bool:
    places = [p for p, _ in order(fw)]
    return places.index(junk) < places.index(right)


def test_one_id_cannot_put_junk_above_what_three_others_called_helpful(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(help_desk)
        says(fw, "reset", *names(3))
        for i in range(30):
            shown = fw.retrieve(QUERY.upper() + " " * i + "?" * (i % 2), k=9, user_id="eve")
            fw.correct(shown.id, "cats", user_id="eve")
            fw.feedback(shown.id, "cats", "helpful", user_id="eve")
            fw.feedback(shown.id, "reset", "harmful", user_id="eve")
            fw.answer_feedback(shown.id, "helpful", cited=["cats"], user_id="eve")
            fw.signal(shown.id, "copied", passage_id="cats", user_id="eve")
        assert not junk_over(fw, "reset", "cats")
        fw.refresh()
        assert not junk_over(fw, "reset", "cats")


def test_ten_ids_cannot_against_fifty_users(tmp_path: Path, help_desk: list[Passage]) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(help_desk)
        says(fw, "reset", *names(50))
        says(fw, "cats", *names(10, "bot"))
        says(fw, "reset", *names(10, "bot"), verdict="harmful")
        assert not junk_over(fw, "reset", "cats")
        fw.refresh()
        assert not junk_over(fw, "reset", "cats")


def test_the_harm_of_a_thousand_ids_stays_on_their_question_and_they_are_named(
    tmp_path: Path,
) -> None:
    bots = names(1_000, "bot")
    with opened(tmp_path / "kb") as fw:
        learn_desk(fw)
        attacked, other = "topic3 page how", "topic9 page how"
        before = order(fw, attacked), order(fw, other)
        shown = fw.retrieve(attacked, k=6)
        junk = shown.hits[-1].passage_id
        votes = [Vote(shown.id, junk, "helpful", bot) for bot in bots]
        fw.feedback_many(votes)
        assert order(fw, attacked)[0][0] == junk
        assert order(fw, other) == before[1]
        fw.refresh()
        assert order(fw, attacked)[0][0] != junk  # the crowd is contradicted, and weighs as three
        named = fw.raters(bots)
        assert {r.name for r in named if r.crowd == 1} == set(bots)
        assert {r.weight for r in named if r.crowd == 1} == {3 / 1_000}
        assert not [r for r in named if r.crowd is not None and r.name is None]
        assert fw.mute(raters=[r.user for r in named if r.crowd == 1]) == 1_000
        assert fw.refresh().outcome == "promoted"
        again = order(fw, attacked), order(fw, other)
        assert [[p for p, _ in some] for some in again] == [[p for p, _ in some] for some in before]


def test_muting_a_crowd_before_any_refresh_restores_the_order_bit_for_bit(
    tmp_path: Path,
) -> None:
    bots = names(200, "bot")
    with opened(tmp_path / "kb") as fw:
        learn_desk(fw)
        before = order(fw, "topic3 page how")
        shown = fw.retrieve("topic3 page how", k=6)
        fw.feedback_many(Vote(shown.id, shown.hits[-1].passage_id, "helpful", b) for b in bots)
        assert order(fw, "topic3 page how") != before
        fw.mute(raters=[r.user for r in fw.raters(bots) if r.name])
        assert order(fw, "topic3 page how") == before
