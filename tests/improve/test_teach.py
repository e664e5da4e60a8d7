"""Teaching queries: the loss by hand, what is taken, what is refused, and that it can be repeated."""

import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lessons import DIM, examples, lessons, plain_loss, tower, vectors_of
from rag_flywheel.improve import teach as teaching
from rag_flywheel.improve.likelihood import after_votes
from rag_flywheel.improve.propagate import before_votes
from rag_flywheel.improve.teach import Lessons, soft_targets, teach
from teachable import RATE
from voted import of_net, with_noise

pytestmark = pytest.mark.slow  # torch alone takes seconds to load


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teaching, "RATE", RATE)


def exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, also where the processor has a faster arithmetic."""
    monkeypatch.setattr(teaching, "_half_precision", lambda: nullcontext)


def by_hand() -> Lessons:
    """Three queries kept apart, as one batch: two with the same likeliest passage (0), and
    candidates that are missing, the first among them; and three others to teach by."""
    texts = [f"thing{i} {word}" for i in range(3) for word in ("sweet", "loud")]
    lineages = [[0, 1, -1], [-1, 0, 2], [4, 5, 1], [0, 1, 2], [2, 3, 4], [5, 4, -1]]
    chances = [[0.7, 0.3, 0], [0, 0.8, 0.2], [0.1, 0.5, 0.4], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    found = examples(texts, np.array(lineages))
    validation = np.array([True, True, True, False, False, False])
    return Lessons(texts, found, validation, np.array(chances), vectors_of(3))


def shifted(seed: int) -> Any:
    """A tower with other weights than those it was made with."""
    found, rng = tower(), np.random.default_rng(seed)
    found.take(
        {n: w + rng.normal(0, 0.3, w.shape).astype(np.float32) for n, w in found.weights.items()}
    )
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_is_the_one_that_is_written_down(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exactly(monkeypatch)
    given, found = by_hand(), shifted(seed)
    queries = found.vectors(given.texts[:3]).detach().numpy()
    expected = plain_loss(given, [0, 1, 2], queries, teaching.TEMPERATURE)
    before = teach(found, given, tmp_path / "checkpoint").scores["tuning_loss_before"]
    assert before == pytest.approx(expected, rel=1e-4)
    words = tower().vectors(given.texts[:3]).detach().numpy()  # what it is called on matters
    assert plain_loss(given, [0, 1, 2], words, teaching.TEMPERATURE) != pytest.approx(
        before, rel=0.01
    )


def test_the_loss_of_one_query_by_pencil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines 0.6 and 0.8 over 0.05 are logits 12 and 16; alone in its batch it has no others."""
    exactly(monkeypatch)
    given = by_hand()
    query = tower().vectors(given.texts[:1]).detach().numpy()[0]
    aside = np.eye(DIM, dtype=np.float32)[3] - query * query[3]
    aside /= np.linalg.norm(aside)
    known = {0: 0.6 * query + 0.8 * aside, 1: 0.8 * query - 0.6 * aside}
    rest = given.vectors
    one = replace(
        given,
        validation=np.array([True] + [False] * 5),
        vectors=lambda p: np.stack([known.get(i, rest(np.array([i]))[0]) for i in p.tolist()]),
    )
    found = teach(tower(), one, tmp_path / "checkpoint").scores["tuning_loss_before"]
    right = np.log(1 + np.exp(4.0))  # of the first: -log(e^12 / (e^12 + e^16))
    wrong = np.log(1 + np.exp(-4.0))
    assert found == pytest.approx(0.7 * right + 0.3 * wrong, rel=1e-4)


def test_more_queries_kept_apart_than_a_batch_count_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exactly(monkeypatch)
    monkeypatch.setattr(teaching, "BATCH", 2)
    given, found = by_hand(), shifted(2)
    queries = found.vectors(given.texts[:3]).detach().numpy()
    first = plain_loss(given, [0, 1], queries[:2], teaching.TEMPERATURE)
    last = plain_loss(given, [2], queries[2:], teaching.TEMPERATURE)
    before = teach(found, given, tmp_path / "checkpoint").scores["tuning_loss_before"]
    assert before == pytest.approx((2 * first + last) / 3, rel=1e-4)


def test_lessons_with_sense_make_queries_kept_apart_better_off(tmp_path: Path) -> None:
    given, found = lessons(), tower()
    untaught = found.weights
    done = teach(found, given, tmp_path / "checkpoint")
    assert done.better
    n = int((~given.validation).sum())
    assert done.why == f"taught by {n} past queries"
    scores = done.scores
    assert scores["n_taught"] == n
    assert 0 < scores["tuning_steps"] <= 2 * -(-n // 64)
    assert scores["tuning_loss"] < 0.7 * scores["tuning_loss_before"]
    rows = np.flatnonzero(given.validation).tolist()
    assert len(rows) <= teaching.BATCH
    after = plain_loss(given, rows, found.vectors(given.texts)[rows].detach().numpy(), 0.05)
    assert after == pytest.approx(scores["tuning_loss"], rel=0.02)  # the best weights are taken
    assert any((found.weights[n] != w).any() for n, w in untaught.items())
    assert not (tmp_path / "checkpoint").exists()  # too short to be worth one


def test_the_same_lessons_teach_the_same_and_others_something_else(tmp_path: Path) -> None:
    revisions = []
    for given in (lessons(12), lessons(12), lessons(12, seed=1)):
        found = tower()
        teach(found, given, tmp_path / "checkpoint")
        revisions.append(found.revision)
    assert revisions[0] == revisions[1] != revisions[2]


def against(given: Lessons) -> Lessons:
    """Where the queries kept apart say the opposite of the others."""
    chances, lineages = given.chances.copy(), given.examples.lineages
    for row in np.flatnonzero(given.validation).tolist():
        likely = chances[row].argmax()
        other = int(np.flatnonzero(lineages[row] == lineages[row, likely] ^ 1)[0])
        chances[row, [likely, other]] = chances[row, [other, likely]]
    return replace(given, chances=chances)


def test_queries_kept_apart_choose_between_weights_and_change_none(tmp_path: Path) -> None:
    given, ways = lessons(), []
    for each in (given, against(given)):
        found, way = tower(), list[str]()
        done = teach(found, each, tmp_path / "none", lambda *_: way.append(found.revision))  # noqa: B023
        ways.append(way)
    assert ways[0] == ways[1]
    assert len(set(ways[0])) == len(ways[0])
    assert not done.better
    assert done.why == "queries kept apart are no better off"
    assert done.scores["tuning_loss"] == done.scores["tuning_loss_before"]
    assert done.scores["tuning_steps"] == 0
    assert found.revision == tower().revision
    np.testing.assert_array_equal(
        found.vectors(given.texts).detach().numpy(), tower().vectors(given.texts).detach().numpy()
    )


def test_the_weights_that_are_taken_are_the_best_that_were_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At this rate the last are not the best."""
    exactly(monkeypatch)
    given, found = lessons(), tower()
    rows = np.flatnonzero(given.validation).tolist()
    revisions, losses = list[str](), list[float]()

    def look(_: str, done: int, total: int) -> None:
        queries = found.vectors(given.texts)[rows].detach().numpy()
        revisions.append(found.revision)
        losses.append(plain_loss(given, rows, queries, 0.05))
        assert total == 8

    done = teach(found, given, tmp_path / "checkpoint", look)
    best = min((0, 2, 4, 6, 8), key=losses.__getitem__)
    assert 0 < best < 8
    assert found.revision == revisions[best]
    assert done.scores["tuning_steps"] == best
    assert done.scores["tuning_loss"] == pytest.approx(losses[best], rel=1e-4)


def test_a_rate_that_breaks_every_weight_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "RATE", 1e30)
    found, last = tower(), dict[str, Any]()
    done = teach(found, lessons(12), tmp_path / "c", lambda *_: last.update(found.weights))
    assert not any(np.isfinite(value).all() for value in last.values())
    assert not done.better
    assert found.revision == tower().revision


def test_an_encoder_that_answers_nothing_sensible_is_not_tuned(tmp_path: Path) -> None:
    given = lessons(12)
    nowhere = replace(given, vectors=lambda p: np.full((len(p), DIM), np.nan, dtype=np.float32))
    assert not teach(tower(), nowhere, tmp_path / "checkpoint").better


def test_how_far_it_is_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    given = lessons(30)
    teach(tower(), given, tmp_path / "checkpoint", lambda *step: told.append(step))
    n = 2 * -(-int((~given.validation).sum()) // 64)
    assert told == [("tuning the query encoder", i, n) for i in range(n + 1)]


def test_too_few_lessons_say_so() -> None:
    given = lessons(40)
    n = int((~given.validation).sum())
    assert n == 198
    assert given.too_few == "198 of the 200 past queries it takes"
    assert lessons(42).too_few == ""
    assert replace(
        lessons(42), validation=np.zeros(252, dtype=bool)
    ).too_few  # no one says when to stop


def test_targets_are_the_chances_after_the_votes_and_missing_candidates_get_none() -> None:
    given = lessons(12).examples
    rng = np.random.default_rng(0)
    net = rng.integers(-2, 3, given.lineages.shape) * given.present
    voted = replace(given, **of_net(net))
    parameters = with_noise(0.1)
    found = soft_targets(voted, parameters)
    expected = after_votes(voted, before_votes(voted, parameters), parameters)
    np.testing.assert_allclose(found, expected)
    assert (found.sum(axis=1) <= 1.0 + 1e-9).all()  # the answer may be none of them
    assert (found[~given.present] == 0).all()
    best = np.where(given.present, net, -9).max(axis=1, keepdims=True)
    single = (net == best) & given.present & ((net == best).sum(axis=1, keepdims=True) == 1)
    rows = single.any(axis=1)
    assert (found.argmax(axis=1) == single.argmax(axis=1))[rows].mean() > 0.9


def test_lessons_are_named_by_all_that_is_taught() -> None:
    given = lessons(12)
    names = {given.name, lessons(12).name}
    assert len(names) == 1
    other = given.chances.copy()
    other[3, 0] += 0.01
    lineages = given.examples.lineages.copy()
    lineages[5] = np.roll(lineages[5], 1)
    names |= {
        replace(given, texts=[*given.texts[:-1], "another"]).name,
        replace(given, texts=["".join(given.texts[:2]), "", *given.texts[2:]]).name,
        replace(given, chances=other).name,
        replace(given, validation=~given.validation).name,
        replace(given, examples=replace(given.examples, lineages=lineages)).name,
    }
    assert len(names) == 6


def test_nothing_is_logged_when_nothing_is_amiss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="rag_flywheel"):
        teach(tower(), lessons(12), tmp_path / "checkpoint")
    assert caplog.messages == []
