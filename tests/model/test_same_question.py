"""The example of the README: people who agree on a question decide it, at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rag_flywheel import Candidate, Flywheel, Passage, Retrieval
from rag_flywheel.encode.sentence_encoder import SentenceEncoder

pytestmark = pytest.mark.model
PASSAGES = [
    Passage("reset", "To get a new password, open Settings and choose Reset."),
    Passage("secret", "The account page lets you change your login secret."),
    Passage("refund", "Refunds are paid within 30 days."),
]
QUESTION = "I forgot my password"
SPELLINGS = [
    QUESTION,
    QUESTION.lower(),
    f"  {QUESTION}?",
    QUESTION.replace(" ", "  "),
    QUESTION.upper(),
]
Ask = Callable[[str], Retrieval]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.load("all-MiniLM-L6-v2")


@pytest.fixture
def fw(tmp_path: Path, encoder: SentenceEncoder) -> Flywheel:
    fw = Flywheel.open(tmp_path / "kb", encoder=encoder)
    fw.add(PASSAGES)
    return fw


@pytest.fixture(params=["retrieve", "rerank"])
def ask(request: pytest.FixtureRequest, fw: Flywheel) -> Ask:
    """The question to the index, or an application's own hits, whose scores hardly differ."""
    given = [Candidate(p.id, p.text, 0.7001 - i / 10_000) for i, p in enumerate(PASSAGES)]
    return fw.retrieve if request.param == "retrieve" else lambda q: fw.rerank(q, given)


def first(found: Retrieval) -> str:
    return found.hits[0].passage_id


def test_three_who_agree_decide_at_once(fw: Flywheel, ask: Ask) -> None:
    assert first(ask(QUESTION)) == "reset"
    for n in range(3):
        fw.feedback(ask(QUESTION).id, "secret", "helpful", user_id=f"user {n}")
    assert first(ask(QUESTION)) == "secret"


def test_two_corrections_suffice(fw: Flywheel, ask: Ask) -> None:
    for n in range(2):
        fw.correct(ask(QUESTION).id, passage_id="refund", user_id=f"user {n}")
    assert first(ask(QUESTION)) == "refund"


def test_twenty_harmful_votes_take_a_first_hit_away(fw: Flywheel, ask: Ask) -> None:
    for n in range(20):
        fw.feedback(ask(QUESTION).id, "reset", "harmful", user_id=f"user {n}")
    found = ask(QUESTION)
    assert [hit.passage_id for hit in found.hits][-1] == "reset"
    assert found.hits[-1].explanation.evidence < 0


def test_one_user_is_one_voice_however_the_question_is_written(fw: Flywheel, ask: Ask) -> None:
    fw.feedback(ask(QUESTION).id, "refund", "helpful", user_id="ann")
    once = [(hit.passage_id, round(hit.score, 6)) for hit in ask(QUESTION).hits]
    for n in range(50):
        found = ask(SPELLINGS[n % len(SPELLINGS)])
        fw.feedback(found.id, "refund", "helpful", user_id="ann")
    assert [(hit.passage_id, round(hit.score, 6)) for hit in ask(QUESTION).hits] == once
    for n in range(3):
        fw.feedback(ask(SPELLINGS[n]).id, "secret", "helpful", user_id=f"user {n}")
    assert first(ask(QUESTION)) == "secret"
    fw.feedback(ask(SPELLINGS[1]).id, "refund", "retract", user_id="ann")
    votes = {vote for hit in ask(QUESTION).hits for vote in hit.explanation.votes}
    assert len(votes) == 3  # the explanation names those that count


def test_words_of_anonymous_users_weigh_as_those_of_a_few(fw: Flywheel, ask: Ask) -> None:
    for _ in range(30):
        fw.feedback(ask(QUESTION).id, "refund", "helpful")
    few = {hit.passage_id: hit.score for hit in ask(QUESTION).hits}
    for _ in range(30):
        fw.feedback(ask(QUESTION).id, "refund", "helpful")
    assert {hit.passage_id: hit.score for hit in ask(QUESTION).hits} == pytest.approx(few)
    for n in range(8):
        fw.feedback(ask(QUESTION).id, "secret", "helpful", user_id=f"user {n}")
    assert first(ask(QUESTION)) == "secret"
