"""Coverage and drift, on histories of which the right values are known."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Coverage, Flywheel, InputError, Passage
from rag_flywheel.report.coverage import MOST_ASKED, findings_of
from rag_flywheel.store import retrievals, vectors, wall_clock
from rag_flywheel.store.database import Database
from rag_flywheel.store.questions import query_hash, question_key
from rag_flywheel.store.retrievals import LoggedHit, RetrievalRecord

DAY_S = 86_400.0
NOW = 1_700_000_000.0
WORDS = [f"word{i}" for i in range(40)]


class History:
    """An index whose log is written row by row."""

    def __init__(self, folder: Path, config: Config | None = None) -> None:
        self.encoder = WordEncoder()
        self.fw = Flywheel.open(folder, encoder=self.encoder, config=config)
        self.db: Database = self.fw._database
        self.n = 0

    def asked(
        self,
        query: str,
        *,
        days_ago: float = 1.0,
        answerable: float | None = 0.9,
        relevance: float | None = 0.9,
        shows: tuple[str, ...] = ("p0",),
        tenant: str | None = None,
        stored: bool = True,
        vector: bool = True,
    ) -> str:
        """Record a retrieval; returns its id."""
        self.n += 1
        parts = {} if relevance is None else {"relevance": relevance}
        with self.db.transaction() as conn:
            pids = dict(conn.execute("SELECT id, pid FROM passages WHERE ended IS NULL"))
            name = query_hash(question_key(conn), query)
            hits = [LoggedHit(pids[each], each, -1.0, dict(parts)) for each in shows]
            record = RetrievalRecord(
                f"r{self.n}", "retrieve", NOW - days_ago * DAY_S, query if stored else "", name,
                8, None, tenant, None, 0, None, None, 1.0, hits, None, answerable,
            )  # fmt: skip
            if vector:
                made = self.encoder.encode_queries([query])
                vectors.put_vectors(conn, [name], made, self.encoder.revision)
            retrievals.record_retrievals(conn, [record])
        return record.id


@pytest.fixture
def at_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall_clock, "now", lambda: NOW)


@pytest.fixture
def history(tmp_path: Path, at_now: None) -> Iterator[History]:
    made = History(tmp_path / "kb")
    made.fw.add([Passage(f"p{i}", f"{word} passage") for i, word in enumerate(WORDS[:4])])
    yield made
    made.fw.close()


def test_an_index_without_any_question_has_no_shares(history: History) -> None:
    found = history.fw.coverage()
    assert (found.n_asked, found.n_questions, found.n_votes, found.n_passages) == (0, 0, 0, 4)
    assert found.near_share is found.easy_asked_share is found.drift is found.drift_p is None
    assert found.unanswered_share is found.easy_votes_share is found.exposure_gini is None
    assert (found.unshown_share, found.unvoted_share) == (1.0, 1.0)
    assert sum(week.asked for week in found.weeks) == 0
    assert found.findings == ("0 questions in the period: too few to say more",)


def test_an_index_without_passages_has_none_either(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        found = fw.coverage()
    assert found.n_passages == 0
    assert found.unshown_share is found.unvoted_share is None


def test_one_question(history: History) -> None:
    history.asked("word0 what", answerable=0.2, relevance=0.1)
    found = history.fw.coverage()
    assert (found.n_asked, found.n_questions, found.n_compared, found.n_before) == (1, 1, 1, 0)
    assert (found.near_share, found.same_share) == (0.0, 0.0)
    assert (found.unanswered_share, found.easy_asked_share) == (1.0, 0.0)
    assert found.easy_votes_share is None
    assert (found.unshown_share, found.exposure_gini) == (0.75, 0.75)
    assert found.drift is None
    assert [week.asked for week in found.weeks] == [0, 0, 0, 0, 1]


def test_votes_on_easy_questions_are_told_from_easy_questions(history: History) -> None:
    """27 of 30 votes are on questions that were answered well at first, as 10 of the 50 asked are."""
    easy = [history.asked(f"word{i} easy", relevance=0.85) for i in range(10)]
    hard = [history.asked(f"word{i} hard", relevance=0.3) for i in range(40)]
    for user in "abc":
        for id_ in easy[:9]:
            history.fw.feedback(id_, "p0", "helpful", user_id=user)
        history.fw.feedback(hard[0], "p0", "harmful", user_id=user)
    found = history.fw.coverage()
    assert (found.easy_asked_share, found.easy_votes_share) == (0.2, 0.9)
    assert found.n_votes == 30
    assert (
        "nine in ten votes fall on questions that were answered well already, though only two in ten "
        "asked are such: what is learned is learned on easy questions"
    ) in found.findings


def test_the_first_answer_ever_tells_whether_a_question_was_easy(history: History) -> None:
    history.asked("word0", relevance=0.2, days_ago=300)
    history.asked("word0", relevance=0.95)  # as votes have made it
    history.asked("word1", relevance=0.95, days_ago=300)
    history.asked("word1", relevance=0.95)
    history.asked("word2", relevance=None)  # an earlier release recorded it
    history.asked("word3", shows=())  # nothing was found
    found = history.fw.coverage()
    assert found.n_asked == 4
    assert found.easy_asked_share == pytest.approx(1 / 3, abs=1e-4)


def test_only_what_the_gaps_call_unlikely_has_no_good_answer(history: History) -> None:
    for i, answerable in enumerate((0.1, 0.39, 0.61, 0.9, None)):
        history.asked(f"word{i}", answerable=answerable)
    assert history.fw.coverage().unanswered_share == 0.5


def test_votes_reach_questions_that_are_near(history: History) -> None:
    """theta is 0.5: of the same words 1, of half of them about 0.7, of others about 0."""
    voted = history.asked("word0 word1")
    history.asked("word1 word0")
    history.asked("word0 word9")
    history.asked("word20 word21")
    assert history.fw.coverage().near_share == 0.0
    history.fw.feedback(voted, "p0", "helpful", user_id="ann")
    found = history.fw.coverage()
    assert (found.near_share, found.same_share) == (0.75, 0.5)
    history.fw.feedback(voted, "p0", "retract", user_id="ann")
    found = history.fw.coverage()
    assert (found.near_share, found.same_share, found.n_votes) == (0.0, 0.0, 1)


def test_votes_of_one_tenant_reach_no_question_of_another(tmp_path: Path, at_now: None) -> None:
    history = History(tmp_path / "kb", Config(encoder="", tenant_key="team"))
    fw = history.fw
    fw.add(
        [Passage(f"{team}{i}", f"{team} {i}", "", {"team": team}) for team in "ab" for i in "01"]
    )
    voted = history.asked("word0", tenant='"a"', shows=("a0",))
    history.asked("word0", tenant='"b"', shows=("b0", "b1"), answerable=0.1)
    fw.feedback(voted, "a0", "helpful", user_id="ann", tenant="a")
    of_a, of_b, of_all = (
        fw.coverage(tenant="a"),
        fw.coverage(tenant="b"),
        fw.coverage(all_tenants=True),
    )
    assert [each.near_share for each in (of_a, of_b, of_all)] == [1.0, 0.0, 0.5]
    assert [each.n_votes for each in (of_a, of_b, of_all)] == [1, 0, 1]
    assert [each.n_asked for each in (of_a, of_b, of_all)] == [1, 1, 2]
    assert [each.unanswered_share for each in (of_a, of_b, of_all)] == [0.0, 1.0, 0.5]
    assert [each.n_passages for each in (of_a, of_b, of_all)] == [2, 2, 4]
    assert [each.unshown_share for each in (of_a, of_b, of_all)] == [0.5, 0.0, 0.25]
    assert [each.unvoted_share for each in (of_a, of_b, of_all)] == [0.5, 1.0, 0.75]
    with pytest.raises(InputError, match="no tenant is named"):
        fw.coverage()
    fw.close()


def test_passages_count_by_the_text_that_was_shown_and_voted_on(history: History) -> None:
    first = history.asked("word0", shows=("p0", "p1"))
    history.asked("word0", shows=("p0",), days_ago=200)
    history.fw.feedback(first, "p1", "helpful", user_id="ann")
    history.fw.remove(["p1"])
    history.fw.add([Passage("renamed", "word1 passage")])  # which inherits what was said of it
    found = history.fw.coverage()
    assert (found.n_passages, found.unshown_share, found.unvoted_share) == (4, 0.5, 0.75)
    assert found.exposure_gini == 0.5  # of 0, 0, 1, 1


def test_verdicts_on_answers_are_votes_and_signals_are_none(history: History) -> None:
    id_ = history.asked("word0")
    history.fw.answer_feedback(id_, "helpful", answer="word0 passage", user_id="ann")
    history.fw.correct(id_, "p2", user_id="bob")
    history.fw.signal(id_, "copied", passage_id="p0", user_id="cem")
    found = history.fw.coverage()
    assert found.n_votes == 2
    assert found.unvoted_share == 0.5


def test_weeks_count_back_from_now(history: History) -> None:
    ids = [history.asked(f"word{i}", days_ago=days) for i, days in enumerate((0.5, 1, 8, 13.9, 20))]
    history.fw.feedback(ids[0], "p0", "helpful", user_id="ann")
    history.fw.feedback(ids[4], "p0", "helpful", user_id="ann")  # on an old question, today
    weeks = history.fw.coverage(days=21).weeks
    assert [(w.asked, w.votes, w.votes_per_question) for w in weeks] == [
        (1, 0, 0.0), (2, 0, 0.0), (2, 2, 1.0),
    ]  # fmt: skip
    assert [w.begins[:10] for w in weeks] == ["2023-10-24", "2023-10-31", "2023-11-07"]
    assert history.fw.coverage(days=0.75).weeks[0].asked == 1


def test_users_who_ask_something_new_are_seen_and_the_same_ones_are_not(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = wall_clock.now()
    monkeypatch.setattr(wall_clock, "now", lambda: moment)  # two reports are compared, with times
    for i in range(120):
        history.asked(f"word{i % 20} word{i % 7}", days_ago=40 + i / 10)
        history.asked(f"word{i % 19} word{(i + 3) % 7}", days_ago=1 + i / 10)
    same = history.fw.coverage()
    assert same.drift is not None and same.drift_p is not None
    assert same.drift < 0.2
    assert not any("unlike" in each for each in same.findings)
    for i in range(240):
        history.asked(f"word{20 + i % 20} word{30 + i % 7}", days_ago=0.5)
    other = history.fw.coverage()
    assert other.drift is not None and other.drift_p is not None
    assert other.drift == pytest.approx(2 / 3, abs=0.15)  # 240 of 360
    assert other.drift_p == 0.001
    assert any("questions are unlike those of the time before" in each for each in other.findings)
    assert history.fw.coverage() == other  # the samples are drawn the same way each time


def test_hashed_questions_and_those_without_vectors(history: History) -> None:
    for i in range(6):
        history.asked(f"word{i}", stored=False)
    for i in range(6, 9):
        history.asked(f"word{i}", stored=False, vector=False)
    voted = history.asked("word0", stored=False)
    n_encoded = history.encoder.n_encoded
    history.fw.feedback(voted, "p0", "helpful", user_id="ann")
    found = history.fw.coverage()
    assert (found.n_asked, found.n_questions, found.n_compared) == (10, 9, 7)
    assert found.near_share == pytest.approx(2 / 7, abs=1e-4)
    assert history.encoder.n_encoded == n_encoded


def test_rerank_and_passages_that_are_gone_do_no_harm(history: History) -> None:
    from rag_flywheel import Candidate

    given = [Candidate("mine", "my own text", 2.0), Candidate("p1", "word1 passage", 1.0)]
    history.fw.rerank("word1", given)
    history.asked("word2", shows=("p2",))
    history.fw.remove(["p2"])
    found = history.fw.coverage()
    assert (found.n_asked, found.n_passages) == (2, 3)
    assert 0.0 < (found.unshown_share or 0.0) <= 1.0


def test_a_period_is_shortened_to_the_newest_questions(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_flywheel.report.coverage.MOST_ASKED", 3)
    for days in (9, 8, 7, 3, 2, 1):
        history.asked(f"word{days}", days_ago=days)
    found = history.fw.coverage()
    assert (found.n_asked, found.since) == (3, "2023-11-11T22:13:20Z")
    assert found.n_before == 0  # none came in the three days before these
    assert MOST_ASKED == 10_000


@pytest.mark.parametrize("days", [0, -1, math.nan, math.inf, 1e6, "30", None])
def test_days_have_to_be_a_number_above_0(history: History, days: object) -> None:
    with pytest.raises(InputError, match="days is"):
        history.fw.coverage(days)  # type: ignore[arg-type]


GOOD = Coverage(
    "2023-11-01T00:00:00Z", 1000, 800, 300, 0.8, 0.5, 0.05, 0.6, 0.6, 100, 0.1, 0.5, 0.4, 500, 500, 0.0,
    0.5, (),
)  # fmt: skip


def test_what_is_well_needs_no_sentence() -> None:
    assert list(findings_of(GOOD)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_asked": 1}, "1 question in the period: too few to say more"),
        ({"n_votes": 3}, "3 votes on 1000 questions: there is little to learn from"),
        (
            {"easy_votes_share": 1.0, "easy_asked_share": 1.0},
            "all votes fall on questions that were answered well already: what is learned is learned on "
            "easy questions",
        ),
        (
            {"easy_votes_share": 0.6, "easy_asked_share": 0.3},
            "six in ten votes fall on questions that were answered well already, but only three in ten "
            "asked are such: hard questions get fewer votes than their share",
        ),
        (
            {"near_share": 0.3},
            "seven in ten questions are near none that anybody voted on: votes do not reach them",
        ),
        (
            {"unanswered_share": 0.25},
            "two in ten questions most likely got no good answer: `gaps` lists their topics",
        ),
        (
            {"drift": 0.3, "drift_p": 0.001},
            "three in ten questions are unlike those of the time before (p 0.001): what was learned before "
            "says less about them",
        ),
        (
            {"unshown_share": 0.96},
            "nearly all passages were shown to nobody: no vote can be on them",
        ),
    ],
)
def test_what_is_not_well_is_said(change: dict[str, float], said: str) -> None:
    assert list(findings_of(replace(GOOD, **change))) == [said]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("easy", "said"),
    [
        (0.0, "though hardly any asked are such"),
        (0.049, "though hardly any asked are such"),
        (0.05, "though only one in ten asked are such"),
        (0.55, "though only six in ten asked are such"),
        (0.8, "though only eight in ten asked are such"),
        (0.81, "already: what is learned"),
    ],
)
def test_shares_in_words(easy: float, said: str) -> None:
    (found,) = findings_of(replace(GOOD, easy_votes_share=0.9, easy_asked_share=easy))
    assert found.startswith("nine in ten votes")
    assert said in found
    (found,) = findings_of(replace(GOOD, easy_votes_share=0.94, easy_asked_share=easy))
    assert found.startswith("nine in ten votes")
    (found,) = findings_of(replace(GOOD, easy_votes_share=0.96, easy_asked_share=easy))
    assert found.startswith("nearly all votes")


def test_what_is_too_little_to_tell_is_not_said() -> None:
    small = replace(GOOD, drift=0.5, drift_p=0.2)
    few = replace(GOOD, drift=0.5, drift_p=0.001, n_before=8)
    many_passages = replace(GOOD, unshown_share=0.9, n_passages=100_000)
    assert [list(findings_of(each)) for each in (small, few, many_passages)] == [[], [], []]
