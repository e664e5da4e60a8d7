"""Everything else on a folder whose live version is tuned: forgetting, folding, feedback, tenants."""

import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from forgetting import learned, traces
from rag_flywheel import Candidate, Config, Flywheel, Passage, StorageError, Vote
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.improve import teach
from teachable import RATE, SENSES, TeachableEncoder, answer, questions, share_right
from tuned import ASKED, NEW, N, ids, live, manifest_of, opened, order, revisions, rows, weights_of

pytestmark = pytest.mark.slow  # torch alone takes seconds to load


def ask_as(fw: Flywheel, user: str, asked: Sequence[str], wrong: bool) -> None:
    votes = []
    for query in asked:
        shown = fw.retrieve(query, 2, user_id=user)
        for hit in shown.hits:
            right = (hit.passage_id == answer(query)) != wrong
            votes.append(Vote(shown.id, hit.passage_id, "helpful" if right else "harmful", user))
    fw.feedback_many(votes)


@pytest.mark.slow
def test_after_forgetting_nothing_of_the_weights_is_left(voted: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(voted, tmp_path / "twin"))
    with opened(voted) as fw, opened(twin) as replayed:
        fw.refresh()
        before = ids(fw)
        ask_as(fw, "ann", questions(70, 80), wrong=False)
        assert fw.refresh(tune=True).encoder == "new"
        fw.add([Passage("new", "one more")])
        fw.refresh()
        revision, path = manifest_of(fw)["tuned"], weights_of(fw)
        taught = [value[0].tobytes() for value in load_file(path).values()]
        taught += [value[-1, 8:16].tobytes() for value in load_file(path).values()]
        assert traces(voted, [revision, *taught])
        (voted / "tuning").mkdir()
        (voted / "tuning" / "checkpoint.safetensors").write_bytes(path.read_bytes())
        report = fw.forget("ann")
        assert report.n_votes == 120
        assert live(fw) == report.version
        assert ids(fw) == [*before, report.version]
        assert manifest_of(fw)["tuned"] is None
        assert set(revisions(voted)) == {TeachableEncoder().revision}
        assert traces(voted, [revision, *taught]) == []
        assert list(voted.rglob("*.safetensors*")) == []
        assert not (voted / "tuning").exists()
        assert fw.verify() == []
        replayed.add([Passage("new", "one more")])
        replayed.refresh()
        ours, theirs = learned(voted, fw), learned(twin, replayed)
        assert ours.judged == theirs.judged
        assert ours.parameters == theirs.parameters
        assert ours.memory.chances == pytest.approx(theirs.memory.chances, abs=1e-6)
        assert order(fw) == order(replayed)
        assert fw.refresh(tune=True).encoder == replayed.refresh(tune=True).encoder == "new"
        assert manifest_of(fw)["tuned"] == manifest_of(replayed)["tuned"]  # taught by the same


@pytest.mark.slow
def test_something_else_in_the_place_of_the_checkpoint_goes_too(voted: Path) -> None:
    (voted / "tuning").write_text("in the way")
    with opened(voted) as fw:
        ask_as(fw, "ann", questions(70, 72), wrong=False)
        assert fw.refresh(tune=True).encoder == "new"
        assert not (voted / "tuning").exists()
        outside = voted.parent / "outside"
        outside.mkdir()
        (outside / "file").touch()
        (voted / "tuning").symlink_to(outside)
        with pytest.raises(StorageError, match="tuning is a link"):
            fw.forget("ann")
    assert (voted / "tuning").is_symlink()
    assert (outside / "file").exists()


@pytest.mark.slow
def test_forgetting_does_not_tune_by_itself(voted: Path) -> None:
    (voted / "flywheel.toml").write_text('format_version = 1\nencoder = ""\ntune = "auto"\n')
    with opened(voted) as fw:
        ask_as(fw, "ann", questions(70, 75), wrong=False)
        assert fw.refresh().encoder == "new"
        fw.forget("ann")
        assert manifest_of(fw)["tuned"] is None
        fw.add([Passage("new", "one more")])
        assert fw.refresh().encoder == "new"  # which waits for no more votes
        looks = rows(voted, "SELECT outcome FROM looks WHERE arm = 'encoder'")
        assert [outcome for (outcome,) in looks] == ["better", "withdrawn", "better"]
        alphas = rows(voted, "SELECT alpha FROM looks WHERE outcome = 'better' AND arm = 'encoder'")
        assert alphas == [(0.025,), (0.0125,)]  # the look before still counts


def test_a_rephrased_question_is_noted(tuned: Path) -> None:
    with opened(tuned) as fw:
        for question in ("thing5 ripe please", "please thing5 ripe now"):
            fw.retrieve(question, session_id="s", user_id="ann")
        kinds = rows(tuned, "SELECT kind, verdict FROM answer_votes")
        assert kinds == [("rephrased", "harmful")]
        fw.retrieve("thing77 loud", session_id="s", user_id="ann")
        assert len(rows(tuned, "SELECT * FROM answer_votes")) == 1


@pytest.mark.slow
def test_folding_what_is_old_keeps_the_tuned_order(tuned: Path) -> None:
    text = (tuned / "flywheel.toml").read_text()
    (tuned / "flywheel.toml").write_text(text + "retention_days = 30\n")
    with opened(tuned) as fw:
        for query in ASKED[:9]:
            fw.retrieve(f"{query} in vain", user_id="ann")  # nothing is said of it
        expected, revision = order(fw), manifest_of(fw)["tuned"]
        n = revisions(tuned)[revision]
    with closing(sqlite3.connect(tuned / "flywheel.db")) as conn, conn:
        conn.execute("UPDATE retrievals SET at = at - 60 * 86400")
        conn.execute("UPDATE votes SET at = at - 60 * 86400")
    with opened(tuned) as fw:
        fw.refresh(if_votes=1)
        assert rows(tuned, "SELECT count(*) FROM retrievals WHERE folded IS NULL") == [(0,)]
        assert revisions(tuned)[revision] == n - 9
        assert order(fw) == expected
        fw.add([Passage("new", "one more")])
        fw.refresh()
        assert manifest_of(fw)["tuned"] == revision
        assert share_right(fw, NEW) > 0.9
        assert fw.verify() == []


@pytest.mark.slow
def test_all_kinds_of_feedback_are_taken_and_all_is_exported(tuned: Path, tmp_path: Path) -> None:
    with opened(tuned) as fw:
        shown = fw.retrieve("thing5 ripe please", user_id="ann")
        first = shown.hits[0].passage_id
        fw.answer(str(shown.id), f"it is {shown.hits[0].text}")
        fw.answer_feedback(shown.id, "helpful", user_id="ann")
        fw.signal(shown.id, "copied", user_id="ann")
        fw.adopted(shown.id, used=True, why="good", user_id="ann")
        fw.missing(shown.id, "what of pears?", user_id="ann")
        fw.correct(shown.id, first, user_id="ann")
        other = fw.retrieve("thing6 quite loud", user_id="bob")
        fw.correct(other.id, text="thing6 machines are of course loud", user_id="bob")
        assert [gap.examples for gap in fw.gaps()]
        golden = tmp_path / "golden.csv"
        lines = [f"{q},{answer(q)},1" for q in NEW[:60]]
        golden.write_text("\n".join(["query,passage_id,grade", *lines]))
        assert fw.golden.add(golden).added == 60
        assert len(fw.golden.items()) >= 60
        reviewed = fw.review.next()
        assert reviewed is not None
        fw.review.accept(reviewed.id)
        before = manifest_of(fw)["tuned"]
        assert fw.refresh().outcome == "promoted"
        assert manifest_of(fw)["tuned"] == before
        assert fw.export.beir(tmp_path / "out").written["passages"] >= 2 * N
        assert len(read_beir(tmp_path / "out").passages) >= 2 * N
        assert fw.verify() == []


@pytest.mark.slow
def test_golden_questions_judge_the_tuned_encoder_too(voted: Path, tmp_path: Path) -> None:
    golden = tmp_path / "golden.csv"
    lines = [f"{q},{answer(q)},1" for q in NEW]
    golden.write_text("\n".join(["query,passage_id,grade", *lines]))
    settings = voted / "flywheel.toml"  # acting, they would come first by themselves
    settings.write_text(
        settings.read_text().replace("known_answers = true", "known_answers = false")
    )
    with opened(voted) as fw:
        fw.golden.add(golden)
        before = share_right(fw, NEW)
        report = fw.refresh(tune=True)
        assert report.encoder == "new"
        scores = report.scores
        assert scores["tuned_n_golden"] == scores["n_golden"] > 100
        assert scores["tuned_golden_gain"] > 0.1 > abs(scores["golden_gain"])
        assert share_right(fw, NEW) - before > 0.3
        before = fw.refresh(tune=True)
        assert before.outcome == "unchanged"


@pytest.mark.slow
def test_golden_questions_that_lose_veto_it(voted: Path, tmp_path: Path) -> None:
    """What votes call right, golden questions call wrong."""
    golden = tmp_path / "golden.csv"
    wrong = {"fruit": "machine", "machine": "fruit"}

    def other(query: str) -> str:
        right = answer(query)
        sense = next(s for s in SENSES if right.startswith(s))
        return right.replace(sense, wrong[sense])

    lines = [f"{q},{other(q)},1" for q in NEW]
    golden.write_text("\n".join(["query,passage_id,grade", *lines]))
    with opened(voted) as fw:
        fw.golden.add(golden)
        before = order(fw)
        report = fw.refresh(tune=True)
        assert report.encoder == "kept"
        assert "but golden queries lose" in report.reason
        assert manifest_of(fw)["tuned"] is None
        assert len(order(fw)) == len(before)


def test_an_applications_own_candidates_are_ranked_by_tuned_questions(tuned: Path) -> None:
    """Evidence of past questions is as far from a new one as the live weights say."""
    with opened(tuned) as fw:
        given = [Candidate(f"{s}5", f"thing5 {s} of course", 1.0) for s in SENSES]
        shown = fw.rerank("thing5 never heard", given)
        assert {h.passage_id for h in shown.hits} == {"fruit5", "machine5"}
        revision = manifest_of(fw)["tuned"]
        (stored,) = rows(
            tuned,
            "SELECT v.revision FROM retrievals r JOIN vectors v ON v.text_hash = r.query_hash "
            "WHERE r.kind = 'rerank'",
        )
        assert stored == (revision,)
        fw.feedback(shown.id, "machine5", "helpful")
        again = fw.rerank("thing5 never heard", given, record=False)
        assert again.hits[0].passage_id == "machine5"


@pytest.fixture
def tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flywheel:
    """Two tenants with the same questions, and passages of their own that read the same; a quarter of
    the questions are asked with a filter besides."""
    monkeypatch.setattr(teach, "RATE", RATE)
    rng = random.Random(1)
    fw = opened(tmp_path / "kb", Config(encoder="", tenant_key="team", tenant_required=False))
    fw.add(
        Passage(
            f"{team}-{sense}{i}", f"thing{i} {sense} of course", metadata={"team": team, "year": i}
        )
        for team in ("a", "b")
        for i in range(80)
        for sense in SENSES
    )
    fw.refresh()
    votes = []
    for team in ("a", "b"):
        for query in questions(0, 50):
            where: dict[str, object] = {"team": team}
            if rng.random() < 0.25:
                where["year"] = {"lt": 60}
            shown = fw.retrieve(query, 2, where=where)  # type: ignore[arg-type]
            for hit in shown.hits:
                assert hit.passage_id.startswith(team)
                right = hit.passage_id.removeprefix(f"{team}-") == answer(query)
                votes.append(Vote(shown.id, hit.passage_id, "helpful" if right else "harmful"))
    fw.feedback_many(votes)
    return fw


@pytest.mark.slow
def test_past_questions_of_tenants_are_taught_by_their_own_passages(
    tenants: Flywheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag_flywheel.refresh import tune

    seen: list[teach.Lessons] = []

    def watched(*given: object) -> teach.TeachingResult:
        seen.extend(each for each in given if isinstance(each, teach.Lessons))
        return teach.teach(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(tune, "teach", watched)
    with tenants as fw:

        def right(team: str) -> float:
            found = [fw.rank_many([q], 1, where={"team": team})[0][0] for q in questions(50, 60)]
            return float(
                np.mean([f == f"{team}-{answer(q)}" for f, q in zip(found, questions(50, 60))])  # noqa: B905
            )

        before = right("a"), right("b")
        assert fw.refresh(tune=True).encoder == "new"
        assert min(right("a"), right("b")) > 0.8 > 0.6 > max(before)
        root = Path(fw.status().path)
        (lessons,) = seen
        team_of = dict(rows(root, "SELECT pid, substr(id, 1, 1) FROM passages"))
        examples = lessons.examples
        tenants_seen = set()
        for key, candidates in zip(examples.keys, examples.lineages.tolist(), strict=True):
            teams = {team_of[pid] for pid in candidates if pid >= 0}
            assert teams == {str(key[1]).strip('"')}
            tenants_seen |= teams
        assert tenants_seen == {"a", "b"}
        assert fw.verify() == []
