"""Tuning the encoder of queries: what it lifts, what is kept of it, who serves it, when it is due."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rag_flywheel import Flywheel, Passage
from rag_flywheel.deploy.loaded import load_parameters
from rag_flywheel.encode.tower import FILE_NAME, Tower
from rag_flywheel.evaluate.gate import alpha_of
from rag_flywheel.improve import teach
from rag_flywheel.refresh.unrelated import UNRELATED as PROBES
from teachable import RATE, TeachableEncoder, answer, passages, questions, share_right, vote
from tuned import (
    ASKED,
    NEW,
    N,
    folder_of,
    ids,
    live,
    manifest_of,
    opened,
    order,
    revisions,
    rows,
    weights_of,
)

pytestmark = pytest.mark.slow  # torch alone takes seconds to load


def test_questions_nobody_voted_on_are_lifted_and_all_of_it_is_kept(voted: Path) -> None:
    with opened(voted) as fw:
        before = share_right(fw, NEW)
        report = fw.refresh(tune=True)
        assert (report.outcome, report.encoder, report.parameters) == ("promoted", "new", "new")
        assert before < 0.6 < 0.9 < share_right(fw, NEW)
        manifest, gate = manifest_of(fw), json.loads((folder_of(fw) / "gate.json").read_text())
        assert manifest["id"] == report.version == live(fw)
        tower = TeachableEncoder().tower()
        assert (manifest["revision"], tower.base) == ("1", "1")
        tower.load(weights_of(fw))
        assert manifest["tuned"] == tower.revision != TeachableEncoder().tower().revision
        assert manifest["files"][FILE_NAME][1] == weights_of(fw).stat().st_size
        encoder = gate["encoder"]
        decision, scores = encoder["decision"], report.scores
        assert decision["outcome"] == "better"
        assert decision["why"] in report.reason
        assert (decision["look"], decision["alpha"]) == (1, alpha_of(1))
        assert encoder["queries"] == gate["queries"]  # who judges is the same
        assert encoder["groups"] == gate["groups"]
        for name, value in encoder["scores"].items():
            assert scores[f"tuned_{name}"] == value
        assert scores["n_taught"] + 0 < len(ASKED) - scores["n_held_out"]
        assert scores["tuning_loss"] < scores["tuning_loss_before"]
        looked = rows(voted, "SELECT version, n_votes, p, outcome, arm FROM looks ORDER BY id")
        n_votes = 2 * len(ASKED)
        assert looked == [
            (report.version, n_votes, gate["decision"]["p"], "better", "weights"),
            (report.version, n_votes, decision["p"], "better", "encoder"),
        ]
        assert fw.verify() == []
    assert not (voted / "tuning").exists()
    assert list((voted / "staging").iterdir()) == []


@pytest.mark.slow
def test_what_became_of_it_is_told(tuned: Path) -> None:
    with opened(tuned) as fw:
        story = fw.explain_version(live(fw))
        decision = json.loads((folder_of(fw) / "gate.json").read_text())["encoder"]["decision"]
        revision = manifest_of(fw)["tuned"]
        told = [s for s in story.sentences if s.startswith("encoder of queries tuned: better: ")]
        assert [s.removeprefix("encoder of queries tuned: better: ") for s in told] == [
            decision["why"]
        ]
        assert (
            story.sentences[-1] == f"queries are encoded by weights {revision}, which votes taught"
        )
        assert story.scores["tuned_gain"] == decision["mean"]
        assert story.scores["gain"] != decision["mean"]
        (looked,) = (e.text for e in fw.history() if e.text.startswith("tuned encoder of"))
        assert looked.startswith(f"tuned encoder of {live(fw)}: better, {2 * len(ASKED)} votes")
        first = fw.explain_version(ids(fw)[0])
        assert not [s for s in first.sentences if "encode" in s]
        fw.add([Passage("new", "one more")])
        after = fw.explain_version(str(fw.refresh().version)).sentences
        assert after[-1] == story.sentences[-1]
        assert not [
            s for s in after if s.startswith("encoder of queries")
        ]  # it was not to be tuned


def test_past_queries_are_stored_as_the_tuned_encoder_has_them(tuned: Path) -> None:
    with opened(tuned) as fw:
        revision = manifest_of(fw)["tuned"]
        assert revisions(tuned)[revision] == len(ASKED) + len(PROBES)
        tower = TeachableEncoder().tower()
        tower.load(weights_of(fw))
        stored = rows(
            tuned,
            "SELECT DISTINCT r.query, v.vector FROM vectors v JOIN retrievals r "
            f"ON r.query_hash = v.text_hash WHERE v.revision = '{revision}'",
        )
        made = tower.vectors([query for query, _ in stored]).detach().numpy()
        kept = np.stack([np.frombuffer(vector, np.float32) for _, vector in stored])
        np.testing.assert_allclose(kept, made, atol=1e-6)
        shown = fw.retrieve("thing3 never asked")
        assert revisions(tuned)[revision] == len(ASKED) + len(PROBES) + 1
        fw.feedback(shown.id, shown.hits[1].passage_id, "helpful")
        again = fw.retrieve("thing3 never asked", record=False)
        moved = {h.passage_id: h.explanation.evidence for h in again.hits}
        assert moved[shown.hits[1].passage_id] > 0


def test_questions_with_known_answers_are_stored_as_the_tuned_encoder_has_them(
    voted: Path,
) -> None:
    with opened(voted) as fw:
        fw.pin("thing3 never asked", "fruit7")
        assert fw.refresh(tune=True).encoder == "new"
        stored = rows(
            voted,
            "SELECT g.query FROM vectors v JOIN golden g ON g.query_hash = v.text_hash "
            f"WHERE v.revision = '{manifest_of(fw)['tuned']}'",
        )
        assert stored == [("thing3 never asked",)]
        assert fw.rank_many(["thing3 never asked"], 1) == [["fruit7"]]


@pytest.mark.slow
def test_another_process_serves_the_same_and_loads_the_weights_when_asked(tuned: Path) -> None:
    encoder = TeachableEncoder()
    with opened(tuned) as fw, Flywheel.open(tuned, encoder=encoder) as other:
        expected = order(fw)
        assert (other.status().version, other.verify(), encoder.n_towers) == (live(fw), [], 0)
        other.feedback(
            fw.retrieve(ASKED[0]).id, answer(ASKED[0]), "helpful"
        )  # known already: nothing to encode
        assert encoder.n_towers == 0
        assert order(other) == expected
        assert encoder.n_towers == 1
    code = "import sys; from pathlib import Path; from tuned import *; import json\n"
    code += "with opened(Path(sys.argv[1])) as fw: print(json.dumps(order(fw)))"
    path = [str(Path(__file__).parents[1] / "support"), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tuned)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(path), "OMP_NUM_THREADS": "1"},
    )
    assert json.loads(done.stdout) == expected


@pytest.mark.slow
def test_the_weights_stay_loaded_while_they_are_live(tuned: Path) -> None:
    encoder = TeachableEncoder()
    with Flywheel.open(tuned, encoder=encoder) as fw, opened(tuned) as other:
        order(fw)
        for n in range(3):
            other.add([Passage(f"new{n}", f"word{n}")])
            other.refresh()
            assert fw.refresh().outcome == "unchanged"  # what the other made is loaded
            assert fw.retrieve("thing1 sweet", record=False).version == live(other)
        assert encoder.n_towers == 1
        fw.rollback(ids(fw)[0])
        order(fw)
        assert encoder.n_towers == 1


@pytest.mark.slow
def test_a_rollback_brings_the_old_order_back_and_forward_the_new_one(voted: Path) -> None:
    with opened(voted) as fw, opened(voted) as other:
        fw.refresh()
        before = order(fw)
        first = live(fw)
        fw.refresh(tune=True)
        after = order(fw)
        second = live(fw)
        assert before != after
        for version, expected in ((first, before), (second, after), (first, before)):
            fw.rollback(version)
            assert order(fw) == order(other) == expected
        assert manifest_of(fw)["tuned"] is None
        fw.release()
        assert (live(fw), order(other)) == (first, before)
        fw.rollback(second)
        fw.release()
        assert order(fw) == order(other) == after


@pytest.mark.slow
def test_after_a_rollback_a_refresh_carries_what_is_live(tuned: Path) -> None:
    with opened(tuned) as fw:
        first, second = ids(fw)
        fw.rollback(first)
        fw.add([Passage("new", "one more")])
        report = fw.refresh(tune=True)  # votes are held back: nothing can be taught
        assert (report.outcome, report.encoder) == ("promoted", "kept")
        assert manifest_of(fw)["tuned"] is None
        fw.rollback(second)
        fw.add([Passage("newer", "another one")])
        fw.refresh()
        assert manifest_of(fw)["tuned"] == manifest_of(fw, second)["tuned"]


@pytest.mark.slow
def test_a_refresh_without_tuning_carries_the_weights_on(tuned: Path) -> None:
    with opened(tuned) as fw:
        expected, before, revision = order(fw), weights_of(fw), manifest_of(fw)["tuned"]
        fw.add([Passage("new", "one more")])
        vote(fw, questions(70, 72))
        report = fw.refresh()
        assert (report.outcome, report.encoder) == ("promoted", "kept")
        assert manifest_of(fw)["tuned"] == revision
        assert weights_of(fw).stat().st_ino == before.stat().st_ino
        assert share_right(fw, questions(72, N)) > 0.9
        assert len(order(fw)) == len(expected)
        assert fw.verify() == []


class Watched(TeachableEncoder):
    """Keeps its towers."""

    def __init__(self) -> None:
        super().__init__()
        self.towers: list[Tower] = []

    def tower(self) -> Tower:
        self.towers.append(super().tower())
        return self.towers[-1]


@pytest.mark.slow
def test_later_votes_are_learned_from_as_the_tuned_encoder_sees_them(tuned: Path) -> None:
    with opened(tuned) as fw:
        before = load_parameters(folder_of(fw))
        fw.add([Passage("new", "one more")])
        fw.refresh()
        after = load_parameters(folder_of(fw))
        assert after.weights == before.weights
        assert after.kernel.theta == pytest.approx(before.kernel.theta, abs=0.005)
        assert after.rates.noise == pytest.approx(before.rates.noise, abs=0.01)
        assert after.sharpness == pytest.approx(before.sharpness, rel=0.1)


@pytest.mark.slow
def test_tuning_again_starts_from_the_encoder_as_it_was_made(tuned: Path) -> None:
    encoder, seen = Watched(), dict[int, str]()

    def see(step: str, done: int, _: int) -> None:
        if step == "tuning the query encoder":
            seen[done] = encoder.towers[-1].revision

    with Flywheel.open(tuned, encoder=encoder) as fw:
        revision = manifest_of(fw)["tuned"]
        vote(fw, questions(70, 110))
        report = fw.refresh(tune=True, progress=see)
        assert report.scores["n_taught"] > 300
        assert seen[0] == TeachableEncoder().tower().revision != revision
        assert len(set(seen.values())) == len(seen) > 5
        assert (manifest_of(fw)["tuned"] == revision) == (report.encoder == "kept")


@pytest.mark.slow
def test_a_tuned_encoder_gives_way_to_one_that_knows_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teach, "LEAST_QUERIES", 80)
    monkeypatch.setattr(teach, "RATE", RATE)
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(passages(N))
        fw.refresh()
        vote(fw, [q for q in questions(0, 110) if q.split()[1] in {"sweet", "fast"}])
        assert fw.refresh(tune=True).encoder == "new"
        first, before = manifest_of(fw)["tuned"], share_right(fw, questions(110, N))
        vote(fw, questions(0, 100), seed=4)
        report = fw.refresh(tune=True)
        assert (report.outcome, report.encoder) == ("promoted", "new")
        second = manifest_of(fw)["tuned"]
        assert first != second
        assert before < 0.8 < 0.9 < share_right(fw, questions(110, N))
        assert {first, second} <= revisions(root).keys()  # each of a version that is kept
        assert fw.verify() == []
