"""A blank id of a user, a session or a tenant is refused wherever one is taken; None is nobody known."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage, Vote
from rag_flywheel.errors import InputError

GIVEN = [Candidate("a", "alpha", 1.0)]
CALLS: dict[str, Callable[[Flywheel, str, str], object]] = {
    "retrieve": lambda fw, _, x: fw.retrieve("alpha", user_id=x),
    "session": lambda fw, _, x: fw.retrieve("alpha", session_id=x),
    "rerank": lambda fw, _, x: fw.rerank("alpha", GIVEN, user_id=x),
    "rerank session": lambda fw, _, x: fw.rerank("alpha", GIVEN, session_id=x),
    "feedback": lambda fw, id_, x: fw.feedback(id_, "a", "helpful", user_id=x),
    "feedback_many": lambda fw, id_, x: fw.feedback_many([Vote(id_, "a", "helpful", x)]),
    "answer_feedback": lambda fw, id_, x: fw.answer_feedback(id_, "helpful", user_id=x),
    "relevance": lambda fw, id_, x: fw.relevance(id_, {"a": True}, user_id=x),
    "adopted": lambda fw, id_, x: fw.adopted(id_, used=True, user_id=x),
    "signal": lambda fw, id_, x: fw.signal(id_, "copied", user_id=x),
    "correct": lambda fw, id_, x: fw.correct(id_, "a", user_id=x),
    "correct text": lambda fw, id_, x: fw.correct(id_, text="words", user_id=x),
    "missing": lambda fw, id_, x: fw.missing(id_, user_id=x),
    "mute": lambda fw, _, x: fw.mute(x),
    "unmute": lambda fw, _, x: fw.unmute(x),
    "opt_out": lambda fw, _, x: fw.opt_out(x),
    "forget": lambda fw, _, x: fw.forget(x),
    "raters": lambda fw, _, x: fw.raters([x]),
    "accept": lambda fw, _, x: fw.review.accept("0123456789", user_id=x),
    "reject": lambda fw, _, x: fw.review.reject("0123456789", user_id=x),
    "undo": lambda fw, _, x: fw.review.undo(user_id=x),
    "tenant": lambda fw, _, x: fw.retrieve("alpha", where={"team": x}),
    "tenant of many": lambda fw, _, x: fw.retrieve_many(["alpha"], where={"team": x}),
    "tenant of rerank": lambda fw, _, x: fw.rerank("alpha", GIVEN, where={"team": x}),
    "tenant of a pin": lambda fw, _, x: fw.pin("alpha", "a", where={"team": x}),
    "tenant of unpin": lambda fw, _, x: fw.unpin("alpha", "a", where={"team": x}),
}


@pytest.fixture
def teams(tmp_path: Path) -> Flywheel:
    config = Config(encoder="", tenant_key="team", tenant_required=False)
    fw = Flywheel.open(tmp_path / "teams", encoder=WordEncoder(), config=config)
    fw.add([Passage("a", "alpha", "", {"team": "x"}), Passage("b", "beta", "", {"team": "y"})])
    return fw


@pytest.mark.parametrize("name", CALLS)
def test_a_blank_id_is_refused(teams: Flywheel, name: str) -> None:
    shown = teams.retrieve("alpha").id
    before = teams.status()
    for blank in ("", " ", "\t\n", "\u3000"):
        with pytest.raises(InputError, match=r"expected a string that is not blank"):
            CALLS[name](teams, str(shown), blank)
    assert teams.status() == before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("known.csv", 'query,passage_id,tenant\nalpha,a,""""""\n'),
        ("known.csv", 'query,passage_id,tenant\nalpha,a,""" """\n'),
        ("queries.jsonl", '{"_id": "q", "text": "alpha", "metadata": {"tenant": ""}}\n'),
    ],
)
def test_a_blank_tenant_in_a_file_is_refused(
    teams: Flywheel, tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / "in" / "qrels").mkdir(parents=True)
    (tmp_path / "in" / "qrels" / "test.tsv").write_text("q\ta\t1\n")
    (tmp_path / "in" / file).write_text(text)
    path = tmp_path / "in" / file if file.endswith(".csv") else tmp_path / "in"
    with pytest.raises(InputError, match="tenant is"):
        teams.golden.add(path)
