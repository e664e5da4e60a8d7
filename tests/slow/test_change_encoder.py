"""A change of the encoder where queries are tuned, with a graph, in any order, and of a real model."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import changing
from changing import OF_TOPIC, Knowing, contents, opened, passage
from fakes import Vectors, WordEncoder
from rag_flywheel import Flywheel, Passage, Vote
from rag_flywheel.bench.stdlib import load_needs, stdlib_passages
from rag_flywheel.encode.make import make_encoder
from rag_flywheel.encoder import Encoder
from rag_flywheel.index import dense

pytestmark = pytest.mark.slow
MINILM = "sentence-transformers:all-MiniLM-L6-v2"


def manifest(root: Path, version: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        (root / "versions" / version / "manifest.json").read_text()
    )
    return found


@pytest.mark.slow
def test_what_was_tuned_on_the_old_encoder_is_not_applied_to_the_new_one(tuned: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: nothing can be tuned")
    from teachable import TeachableEncoder
    from tuned import live, order
    from tuned import opened as opened_taught

    class Other(TeachableEncoder):
        """Another teachable encoder, of another width."""

        def __init__(self) -> None:
            super().__init__(48)
            self.name, self.revision = "other", "o1"

    root = tuned
    with opened_taught(root) as fw:
        old, expected = live(fw), order(fw)
        assert manifest(root, old)["tuned"] is not None
        report = fw.change_encoder(Other(), force=True)
        assert report.outcome == "promoted"
        assert manifest(root, live(fw))["tuned"] is None
        assert fw.verify() == []
        plain = order(fw)
        assert plain != expected
        assert fw.refresh(tune=True).encoder == "new"  # a look at encoders waits for no votes
        assert fw.verify() == []
        fw.rollback(old)
        assert order(fw) == expected
        assert fw.verify() == []
        assert fw.repair() == []


def test_so_many_passages_that_a_graph_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "GRAPH_FROM", 2_000)
    with opened(tmp_path / "kb", n_candidates=30) as fw:
        fw.add([passage(i) for i in range(2_500)])
        fw.refresh()
        changing.vote(fw, changing.ASKED)
        assert fw.status().dense_search == "a graph"
        assert fw.change_encoder("changing:knowing").outcome == "promoted"
        assert fw.status().dense_search == "a graph"
        assert changing.share_right(fw, changing.NEW) > 0.95
        fw.rollback()
        assert fw.status().dense_search == "a graph"
        assert fw.verify() == []


@pytest.mark.parametrize("seed", range(6))
def test_whatever_users_said_is_the_same_after_any_changes_and_rollbacks(
    seed: int, tmp_path: Path
) -> None:
    """Judgments, votes, corrections, pins, reviews and records, whatever came in which order."""
    rng = random.Random(seed)
    specs = ["fakes:word_encoder", "changing:knowing", "changing:deaf"]
    with opened(tmp_path / "kb", n_candidates=20) as fw:
        fw.add([passage(i) for i in range(60)])
        for step in range(10):
            what = rng.choice(("vote", "pin", "correct", "missing", "refresh", "add", "change"))
            asked = changing.question(rng.randrange(60))
            shown = fw.retrieve(asked, OF_TOPIC, user_id=f"u{step % 3}", session_id=f"s{step % 2}")
            if what == "vote":
                verdicts = [rng.choice(("helpful", "harmful")) for _ in shown.hits]
                hits = zip(shown.hits, verdicts, strict=True)
                fw.feedback_many(Vote(shown.id, h.passage_id, v, f"u{step}") for h, v in hits)
            elif what == "pin":
                fw.pin(asked, f"p{rng.randrange(60)}")
            elif what == "correct":
                fw.correct(shown.id, f"p{rng.randrange(60)}", user_id="ann")
            elif what == "missing":
                fw.missing(shown.id, "not there", user_id="bob")
            elif what == "refresh":
                fw.refresh()
            elif what == "add":
                fw.add([Passage(f"new{step}", f"topic{step} item{900 + step}")])
            else:
                before, judged = contents(tmp_path / "kb"), fw.judgments()
                report = fw.change_encoder(rng.choice(specs), force=True)
                assert report.outcome in ("promoted", "unchanged")
                assert contents(tmp_path / "kb") == before
                assert fw.judgments() == judged
                assert fw.verify() == []
        before, judged = contents(tmp_path / "kb"), fw.judgments()
        fw.change_encoder(rng.choice(specs), force=True)
        for version in rng.sample([v.id for v in fw.versions()], min(3, len(fw.versions()))):
            fw.rollback(version)
            assert contents(tmp_path / "kb") == before
            assert fw.verify() == []
        fw.release()
        assert fw.judgments() == judged


class Narrow:
    """The first numbers of a real model's vectors, of unit length again."""

    name, revision, dim = "narrow", "n1", 24

    def __init__(self, model: Encoder) -> None:
        self._model = model

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._cut(self._model.encode_queries(texts))

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._cut(self._model.encode_passages(texts))

    def _cut(self, rows: Vectors) -> Vectors:
        some = rows[:, : self.dim]
        return (some / np.linalg.norm(some, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.model
def test_a_real_model_takes_the_place_of_words_and_a_cut_one_does_not_take_its(
    tmp_path: Path,
) -> None:
    needs = load_needs()
    answers = {each for need in needs for each in need.answers}
    passages = [p for i, p in enumerate(stdlib_passages()) if p.id in answers or i % 8 == 0]
    known = {p.id for p in passages}
    golden = [
        (need.phrasings[0], each, 1) for need in needs for each in need.answers if each in known
    ]
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add(passages)
        fw.golden.add_answers(golden)
        fw.refresh()
        assert fw.change_encoder(MINILM).outcome == "promoted"
        assert "all-MiniLM-L6-v2" in fw.status().encoder
        report = fw.change_encoder(Narrow(make_encoder(MINILM)))
        assert report.outcome == "rejected"
        assert "golden queries do not clearly gain" in report.reason
    twin = Path(shutil.copytree(tmp_path / "kb", tmp_path / "twin"))
    with Flywheel.open(twin) as fw:  # by the spec, as any other process
        assert fw.verify() == []
        assert fw.retrieve("run usage samples found in docstrings", 3).hits
        assert isinstance(Knowing(), Encoder)
