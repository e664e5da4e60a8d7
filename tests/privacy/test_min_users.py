"""memory_min_users: what fewer people say of a question moves no ranking of anybody, at once or learned."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from fakes import WordEncoder
from forgetting import learned, log_of
from gates import QUERIES, live
from plain_model import is_answer, topics
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.curate.people import people_of
from rag_flywheel.errors import ConfigError
from rag_flywheel.rank.raters import load_raters
from rag_flywheel.store.event_types import VoteEvent
from thorough import thorough

PASSAGES = [Passage(f"p{i}", f"reset word{i} text{i}", "", {"team": "a"}) for i in range(6)]
ASKED = "reset word1 of the page"
SIMILAR = ("reset word1 of a page", "the page reset word1", "word4 something else", ASKED)


def opened(root: Path, k: int = 3, **more: Any) -> Flywheel:
    settings = root / "flywheel.toml"
    if not settings.exists():
        config = Config(encoder="", memory_min_users=k, **more)
        return Flywheel.open(root, encoder=WordEncoder(dim=32), config=config)
    lines = settings.read_text().splitlines()
    lines = [f"memory_min_users = {k}" if "min_users" in line else line for line in lines]
    settings.write_text("\n".join(lines) + "\n")
    return Flywheel.open(root, encoder=WordEncoder(dim=32))


def made(root: Path, k: int = 3, **more: Any) -> Flywheel:
    fw = opened(root, k, **more)
    fw.add(PASSAGES)
    fw.refresh()
    return fw


def say(fw: Flywheel, user: str | None, passage: str = "p5", verdict: str = "helpful") -> str:
    shown = fw.retrieve(ASKED, user_id=user, session_id="session of all")
    fw.feedback(shown.id, passage, verdict, user_id=user)  # type: ignore[arg-type]
    return str(shown.id)


def answers(fw: Flywheel, user: str | None = None) -> list[Any]:
    """All that is answered, to the last bit."""
    return [
        (
            answer.answerable,
            [(h.passage_id, h.score, h.relevance, h.explanation) for h in answer.hits],
        )
        for query in SIMILAR
        for answer in [fw.retrieve(query, user_id=user, record=False)]
    ]


def acting(fw: Flywheel, passage: str = "p5", **more: Any) -> int:
    """How many votes act on a passage for the question."""
    hits = fw.retrieve(ASKED, record=False, **more).hits
    (hit,) = (h for h in hits if h.passage_id == passage)
    return len(hit.explanation.votes)


def change(fw: Flywheel) -> None:
    fw.add([Passage(f"new{fw.status().n_passages}", "so that there is something to do")])
    assert fw.refresh().outcome == "promoted"


def test_what_fewer_people_say_changes_nothing_to_the_last_bit(tmp_path: Path) -> None:
    with made(tmp_path / "kb") as fw:
        before = answers(fw)
        for user in ("ann", "bob"):
            first = say(fw, user)
            say(fw, user, "p3", "harmful")
            fw.adopted(first, used=True, why="it helped", user_id=user)
            fw.correct(first, "p4", user_id=user)
            fw.signal(first, "copied", user_id=user)
        for user in ("dan", "bob"):  # who are nobody on the question that they did not vote on
            fw.retrieve(ASKED, user_id=user)
        for _ in range(5):
            say(fw, None)  # without an id they are nobody, however many
        assert answers(fw) == before == answers(fw, "ann")
        with opened(tmp_path / "kb") as other:  # all is read anew
            assert answers(other) == before
        fw.refresh()
        assert answers(fw) == before
        change(fw)
        with made(tmp_path / "none") as none:
            change(none)
            assert answers(fw) == answers(none)


def test_the_third_person_makes_all_of_it_act(tmp_path: Path) -> None:
    with made(tmp_path / "kb") as fw:
        before = answers(fw)
        for user in ("ann", "bob"):
            say(fw, user)
        say(fw, None)
        assert answers(fw) == before
        say(fw, "cy", "p2", "harmful")  # whatever passage they speak of
        assert acting(fw) == acting(fw, "p2") == 4  # of the question
        after = answers(fw)
        assert after[0] != before[0]  # a similar question
        with opened(tmp_path / "kb") as other:
            assert answers(other) == after
        say(fw, "cy", "p2", "retract")
        assert answers(fw) == before
        say(fw, "cy", "p2", "harmful")
        fw.refresh()
        assert acting(fw) == 4
        fw.mute("bob")
        assert answers(fw)[-1] == before[-1]
        fw.refresh()
        assert answers(fw) == before
        fw.unmute("bob")
        assert acting(fw) == 4


def test_ten_ids_of_one_person_are_ten_people(tmp_path: Path) -> None:
    """They cannot be told apart; docs/how-to/privacy-requests.md says so."""
    with made(tmp_path / "kb", 10) as fw:
        before = answers(fw)
        for i in range(10):
            assert answers(fw) == before
            say(fw, f"ann under name {i}")
        assert answers(fw) != before


def test_forgetting_one_of_them_takes_it_back(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with made(root) as fw, made(tmp_path / "none") as none:
        for user in ("ann", "bob", "cy"):
            say(fw, user)
        fw.refresh()
        assert answers(fw) != answers(none)
        fw.forget("bob")
        assert answers(fw) == answers(none)
        assert learned(root, fw).memory.keys == ()
        say(fw, "eve")
        assert answers(fw) != answers(none)


def test_tenants_are_counted_apart(tmp_path: Path) -> None:
    with made(tmp_path / "kb", 2, tenant_key="team") as fw:
        fw.add([Passage(f"q{i}", f"reset word{i} text{i}", "", {"team": "b"}) for i in range(6)])

        def order(team: str) -> list[str]:
            return [h.passage_id for h in fw.retrieve(ASKED, tenant=team, record=False).hits]

        before = order("a"), order("b")
        for user, team, last in (("ann", "a", "p5"), ("bob", "b", "q5")):
            shown = fw.retrieve(ASKED, tenant=team, user_id=user)
            fw.feedback(shown.id, last, "helpful", user_id=user, tenant=team)
        assert (order("a"), order("b")) == before
        shown = fw.retrieve(ASKED, tenant="a", user_id="bob")
        fw.feedback(shown.id, "p5", "helpful", user_id="bob", tenant="a")
        assert acting(fw, tenant="a") == 2 and order("b") == before[1]


def aged(root: Path, days: int = 31) -> None:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        for table in ("retrievals", "votes", "answer_votes"):
            conn.execute(f"UPDATE {table} SET at = at - ?", (days * 86_400,))


def test_old_votes_count_as_many_people_as_there_were(tmp_path: Path) -> None:
    """Made anonymous, each has an id of its own, which must not make one person several."""
    for few, root in ((True, tmp_path / "few"), (False, tmp_path / "enough")):
        with made(root, retention_days=30) as fw:
            before = answers(fw)
            for user in ("ann", "bob") if few else ("ann", "bob", "cy"):
                for passage in ("p5", "p4", "p3"):
                    say(fw, user, passage)
            fw.refresh()
            after = answers(fw)
            assert (after == before) == few
            aged(root)
            fw.refresh()
            assert answers(fw) == after
            with opened(root) as other:
                assert answers(other) == after
            say(fw, "dan")  # who may be one of them
            assert (answers(fw)[-1] == before[-1]) == few
            assert fw.verify() == []


@pytest.mark.parametrize("forgotten", ["cy", "dan"])
def test_who_was_known_beside_old_votes_still_counts_until_forgotten(
    tmp_path: Path, forgotten: str
) -> None:
    root = tmp_path / "kb"
    with made(root, retention_days=30) as fw, made(tmp_path / "none") as none:
        for user in ("ann", "bob"):
            say(fw, user)
        fw.refresh()
        aged(root)
        say(fw, "cy")
        fw.refresh()  # makes two of the three anonymous
        assert {r["voters"] for r in log_of(root).retrievals} == {2, None}
        assert acting(fw) == 3
        with opened(root) as other:
            assert acting(other) == 3
        say(fw, "cy", "p3")  # a second word of one who was known
        assert acting(fw) == 4
        say(fw, "dan")  # who may be ann
        assert acting(fw) == 5
        fw.forget(forgotten)
        assert acting(fw) == (0 if forgotten == "cy" else 4)
        if forgotten == "cy":
            assert answers(fw)[-1] == answers(none)[-1]


@pytest.mark.slow
def test_one_person_fits_no_weights(tmp_path: Path) -> None:
    for k, users in ((2, ["ann"]), (2, ["ann", "bob"])):
        root = tmp_path / f"{k} {len(users)}"
        config = Config(encoder="", memory_min_users=k)
        with Flywheel.open(root, encoder=WordEncoder(), config=config) as fw:
            fw.add(topics())
            fw.refresh()
            shipped = live(fw)
            for query in QUERIES:
                for user in users:
                    shown = fw.retrieve(query, user_id=user)
                    for hit in shown.hits:
                        verdict = "helpful" if is_answer(query, hit.passage_id) else "harmful"
                        fw.feedback(shown.id, hit.passage_id, verdict, user_id=user)  # type: ignore[arg-type]
            report = fw.refresh()
            if len(users) < k:
                assert report.parameters == "kept" and "0 of the 64" in report.reason
                assert live(fw) == shipped
                assert load_raters(root / "versions" / str(report.version)) == {}
            else:
                assert report.parameters == "new"


def test_raising_the_number_learns_anew_and_deletes_what_was_learned_of_fewer(
    tmp_path: Path,
) -> None:
    root = tmp_path / "kb"
    with made(root, 1) as fw, made(tmp_path / "none") as none:
        say(fw, "ann")
        fw.refresh()
        assert answers(fw) != answers(none)
        looks = fw.status().version
    with opened(root, 3) as fw, made(tmp_path / "none2") as none:
        assert answers(fw)[-1] == answers(none)[-1]  # votes stop acting at once
        report = fw.refresh(if_votes=1000)
        assert report.outcome == "promoted"
        assert answers(fw) == answers(none)
        assert [v.id for v in fw.versions()] == [report.version] != [looks]
        assert fw.refresh(if_votes=1000).outcome == "unchanged"
    with opened(root, 1) as fw, made(tmp_path / "none3") as none:
        assert answers(fw) != answers(none)
        assert fw.refresh(if_votes=1000).outcome == "promoted"
        assert len(fw.versions()) == 2
        assert fw.refresh().outcome == "unchanged"


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", None, 10**6])
def test_numbers_that_cannot_be(k: Any) -> None:
    with pytest.raises(ConfigError, match="memory_min_users"):
        Config(memory_min_users=k)


spoken = st.lists(
    st.tuples(
        st.integers(0, 1),  # question
        st.integers(0, 2),  # passage
        st.sampled_from(["ann", "bob", "cy", "once:1", "once:2", None]),
        st.sampled_from(["helpful", "harmful", "retract"]),
    ),
    max_size=20,
)


@thorough(200, few=40, phases=(Phase.reuse, Phase.generate))
@given(spoken)
def test_people_are_those_with_a_word_that_stands(
    said: list[tuple[int, int, str | None, str]],
) -> None:
    events = [
        VoteEvent(seq, seq, bytes([q]), None, p, verdict, user, 0.0)  # type: ignore[arg-type]
        for seq, (q, p, user, verdict) in enumerate(said)
    ]
    last = {(q, p, user): verdict for q, p, user, verdict in said if user is not None}
    for q in (0, 1):
        users = {u for (of, _, u), verdict in last.items() if of == q and verdict != "retract"}
        expected = len({u for u in users if not u.startswith("once:")})
        found = {key.query_hash[0]: n for key, n in people_of(events).items()}
        assert found.get(q, 0) == expected
