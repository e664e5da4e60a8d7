"""Votes on very many questions that came in at once are judged when a question needs them, and say then
what they say when all are judged at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage, Vote
from rag_flywheel.rank.evidence import Unjudged
from rag_flywheel.serve import catch_up
from rag_flywheel.serve.catch_up import initial_state
from rag_flywheel.serve.state import RestoredError
from rag_flywheel.store.timeline import begin_timeline
from reopened import TEXTS, Opened, voted_index

WORDS = [f"word{i}" for i in range(10)]
CONFIG = Config(encoder="", tenant_key="team", tenant_required=False)
EVERY = 10**9


@contextmanager
def judged_at_once(n: int) -> Iterator[None]:
    """Votes on more than n questions wait."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(catch_up, "_AT_ONCE", n)
        yield


def answers(fw: Flywheel, queries: list[str]) -> tuple[list[Any], list[float]]:
    """What they hold besides numbers, and their numbers."""
    found = [
        fw.retrieve(query, 20, record=False, tenant=t) for query in queries for t in (None, "a")
    ]
    found += fw.retrieve_many(queries, 20, record=False)
    hits = [hit for one in found for hit in one.hits]
    rest = [(h.passage_id, sorted(h.explanation.votes), h.explanation.known) for h in hits]
    numbers = [n for h in hits for n in (h.score, h.relevance, h.explanation.evidence)]
    return rest, [*numbers, *(one.answerable for one in found)]


def same(some: tuple[list[Any], list[float]], others: tuple[list[Any], list[float]]) -> bool:
    assert some[0] == others[0]
    assert some[1] == pytest.approx(others[1], abs=1e-6)  # cosines are float32
    return True


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(), config=CONFIG)


@pytest.mark.parametrize("refreshed", [False, True])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_random_histories_say_the_same(tmp_path: Path, refreshed: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def some(n: int) -> str:
        return " ".join(rng.choice(WORDS, n).tolist())

    root, users = tmp_path / "kb", [None, "ann", "bob", "cem"]
    queries = list(dict.fromkeys(some(int(rng.integers(1, 4))) for _ in range(14)))
    with opened(root) as writer, opened(root) as waiting, opened(root) as prompt:
        teams = ("a", "b")
        writer.add(Passage(f"p{i}", some(6), "", {"team": teams[i % 2]}) for i in range(24))
        if refreshed:
            writer.refresh()
        for step in range(10):
            votes = []
            for query in rng.choice(queries, 6).tolist():
                tenant = [None, "a", "b"][int(rng.integers(3))]
                shown = writer.retrieve(query, 6, tenant=tenant)
                kind = str(rng.choice(["helpful", "harmful", "retract"]))
                hit, user = shown.hits[int(rng.integers(len(shown.hits)))], users[step % 4]
                votes.append(Vote(shown.id, hit.passage_id, kind, user))
            writer.feedback_many(votes)
            if step == 3:
                writer.pin(queries[0], "p3")
            if step == 5:
                writer.mute("ann")
                writer.remove(["p7"])
            if step == 7:
                writer.unmute("ann")
                writer.unpin(queries[0], "p3")
            with judged_at_once(0):
                found = answers(waiting, queries)
            with judged_at_once(EVERY):
                assert same(found, answers(prompt, queries))
        with opened(root) as later, judged_at_once(0):
            assert same(answers(later, queries), found)


def test_only_what_is_near_a_question_is_judged(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw, judged_at_once(0):
        fw.add(Passage(f"p{i}", f"{word} thing") for i, word in enumerate(WORDS))
        fw.retrieve("anything", record=False)
        shown = fw.retrieve_many(WORDS)
        fw.feedback_many([Vote(one.id, one.hits[0].passage_id, "helpful", "ann") for one in shown])
        found = fw.retrieve(WORDS[3], record=False)
        assert found.hits[0].explanation.votes
        view = fw._serving()._live.state().evidence
        parts = [past for part in view._changed for past in part.values()]
        judged = {key for past in parts if isinstance(past, Unjudged) for key in past._judged}
        assert 1 <= len(judged) < len(WORDS)


def test_what_was_restored_meanwhile_is_not_judged_by_the_votes_of_another_timeline(
    tmp_path: Path,
) -> None:
    voted_index(tmp_path / "kb")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(32)) as fw:
        shown = fw.retrieve(TEXTS[2], tenant=None)
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="eve")
    folder = Opened(tmp_path / "kb")
    with judged_at_once(0), folder.database.snapshot() as conn:
        state = initial_state(
            folder.version, folder.frozen_at, conn, folder.source, folder.database
        )
    row = state.evidence.n - 1
    with folder.database.transaction() as conn:
        begin_timeline(conn)
    with pytest.raises(RestoredError, match="repeat the call"):
        state.evidence.past_query(row)
    folder.database.close()
