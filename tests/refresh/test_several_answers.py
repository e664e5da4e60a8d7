"""An index whose questions have several right passages: votes on one are not taken for wrong because
others are right too, and all of them come before the rest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage, Vote

TOPICS, RIGHT, WRONG_VOTES = 50, 3, 0.15


def passages(topics: int) -> list[Passage]:
    """Six passages a topic that look alike to its questions; the last three of them are right."""
    return [
        Passage(
            f"{'right' if i >= RIGHT else 'other'}-{t}-{i}", f"subject{t} matter{t} text{t}x{i}"
        )
        for t in range(topics)
        for i in range(2 * RIGHT)
    ]


def question(topic: int, phrasing: int) -> str:
    return f"subject{topic} matter{topic} ask{topic}y{phrasing} please"


def is_right(query: str, passage_id: str) -> bool:
    return passage_id.startswith(f"right-{query.split()[0].removeprefix('subject')}-")


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(dim=1024), config=Config(encoder=""))


def vote_on_all(fw: Flywheel, phrasings: range, rng: np.random.Generator) -> None:
    for phrasing in phrasings:
        shown = fw.retrieve_many([question(t, phrasing) for t in range(TOPICS)], 2 * RIGHT)
        fw.feedback_many(
            Vote(
                one.id,
                hit.passage_id,
                "helpful"
                if is_right(one.query, hit.passage_id) != (rng.random() < WRONG_VOTES)
                else "harmful",
                f"user {phrasing} {one.query}",
            )
            for one in shown
            for hit in one.hits
        )


def right_among_three(fw: Flywheel, phrasing: int) -> float:
    """The share of right passages among the first three hits of questions that nobody asked."""
    shown = fw.retrieve_many([question(t, phrasing) for t in range(TOPICS)], RIGHT, record=False)
    return float(
        np.mean([is_right(one.query, hit.passage_id) for one in shown for hit in one.hits])
    )


def parameters(fw: Flywheel) -> dict[str, Any]:
    version = Path(fw.status().path) / "versions" / str(fw.status().version)
    found: dict[str, Any] = json.loads((version / "parameters.json").read_text())
    return found


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several") / "kb"
    with opened(root) as fw:
        fw.add(passages(TOPICS))
        vote_on_all(fw, range(3), np.random.default_rng(1))
        fw.refresh()
    return root


def test_several_right_passages_are_all_put_first(learned: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "static") as static:
        static.add(passages(TOPICS))
        before = right_among_three(static, 7)
    with opened(learned) as fw:
        found = parameters(fw)
        assert found["answers"] is not None
        assert found["rates"]["false_helpful"] == pytest.approx(WRONG_VOTES, abs=0.08)
        assert found["rates"]["false_harmful"] == pytest.approx(WRONG_VOTES, abs=0.08)
        after = right_among_three(fw, 7)
    assert before < 0.65
    assert after > 0.9


def test_a_vote_after_the_refresh_moves_its_passage_alone(learned: Path) -> None:
    query = question(3, 11)
    with opened(learned) as fw:
        before = fw.retrieve(query, 6, user_id="ann")
        last = before.hits[-1].passage_id
        fw.feedback(before.id, last, "helpful", user_id="ann")
        after = fw.retrieve(query, 6, record=False)
    old = {hit.passage_id: hit.score for hit in before.hits}
    new = {hit.passage_id: hit.score for hit in after.hits}
    assert new[last] > old[last]
    assert {p: s for p, s in new.items() if p != last} == pytest.approx(
        {p: s for p, s in old.items() if p != last}, abs=1e-6
    )
    for hit in after.hits:
        parts = hit.explanation
        total = parts.intercept + sum(parts.terms.values()) + parts.evidence
        assert total == pytest.approx(hit.score, abs=1e-6)


def test_what_nobody_spoke_of_keeps_its_score(learned: Path) -> None:
    """A topic that nobody asked about is ranked by the prior alone, whatever others say."""
    with opened(learned) as fw:
        fw.add(Passage(f"new-{i}", f"kettle boils water{' slowly' * i} text{i}") for i in range(4))
        shown = fw.retrieve("why does the kettle boil water", 4, record=False)
    assert {hit.passage_id for hit in shown.hits} == {f"new-{i}" for i in range(4)}
    assert all(hit.explanation.evidence == 0.0 for hit in shown.hits)
