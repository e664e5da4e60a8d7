"""What known answers do to scores, and to evidence, against rules worked out by hand."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.rank.evidence import Asked, EvidenceView, evidence_for
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.rank.score import Scored, Votes, chance_of, score, score_given
from rag_flywheel.rank.stored_evidence import (
    PastQuery,
    Provenance,
    Supports,
    load_stored_evidence,
    save_stored_evidence,
    stored_evidence_of,
)
from rag_flywheel.records import Known, KnownAnswer, QueryKey, Support, Vectors
from thorough import thorough

QUERY = np.array([1.0, 0.0, 0.0], dtype=np.float32)
KEY = QueryKey(b"k" * 16, None)
OTHER = QueryKey(b"o" * 16, None)
PINNED = Known(5, 2, ("pinned",))


def at_cosine(cosine: float) -> Vectors:
    return np.array([cosine, math.sqrt(1.0 - cosine * cosine), 0.0], dtype=np.float32)


def under(answers: float | None) -> Parameters:
    weights = dict.fromkeys(FEATURES, 0.0) | {"dense": 1.0}
    return Parameters(weights=weights, answers=answers)


def scored(z: Sequence[float], votes: Votes, answers: float | None, given: bool) -> Scored:
    if given:
        return score_given(under(answers), np.array(z), votes)
    features = np.zeros((len(z), len(FEATURES)), dtype=np.float32)
    features[:, 0] = z
    return score(under(answers), features, votes)


candidates = st.lists(
    st.tuples(
        st.floats(-20, 20, width=32),  # prior log-odds
        st.sampled_from([0.0, 0.5, 3.0]),  # S
        st.sampled_from([0.0, -40.0, -2.0, 6.0, 40.0]),  # log-odds of votes
        st.sampled_from([0.0, 0.0, 1.0, 2.0, 100.0]),  # grade
    ),
    min_size=1,
    max_size=60,
)


@thorough(100, few=25)
@given(candidates, st.sampled_from([None, 0.5, 4.0]), st.booleans())
def test_known_answers_come_first_by_grade_then_by_score(
    rows: list[tuple[float, float, float, float]], answers: float | None, given: bool
) -> None:
    z, support, odds, grades = (list(column) for column in zip(*rows, strict=True))
    every = np.array(support) + 0.5
    plain = Votes(np.array(support), every, np.array(odds), np.zeros(len(z)))
    before = scored(z, plain, answers, given)
    known = Votes(plain.support, every, plain.log_odds, plain.least, np.array(grades))
    after = scored(z, known, answers, given)
    order = sorted(range(len(z)), key=lambda i: -after.scores[i])
    assert [grades[i] for i in order] == sorted(grades, reverse=True)
    for grade in set(grades):
        own = [i for i in range(len(z)) if grades[i] == grade]
        by_score = sorted(own, key=lambda i: before.scores[i])
        values = after.scores[by_score]
        assert np.all(np.diff(values) >= -1e-9)
    for i, value in enumerate(after.scores.tolist()):
        why = after.explanation(i, ())
        total = why.intercept + sum(why.terms.values()) + why.evidence
        assert total == pytest.approx(value, abs=1e-6)
        assert value - why.by_known == pytest.approx(before.scores[i], abs=1e-6)
        assert 0.0 <= chance_of(value, answers) <= 1.0
    if answers is None and len(z) <= 50:
        assert np.exp(after.scores).sum() <= 1.0 + 1e-9
    if not any(grades):
        assert after.scores.tolist() == before.scores.tolist()
        assert after.by_known is None


def test_hand_worked_chances() -> None:
    nothing = np.zeros(3)
    votes = Votes(nothing, nothing, nothing, nothing, np.array([0.0, 0.0, 1.0]))
    # 1/2, 1/4, 1/4: the last is raised to 99 times the first
    z = [math.log(2.0), 0.0, 0.0]
    total = 0.5 + 0.25 + 99 * 0.5
    found = np.exp(scored(z, votes, None, False).scores)
    assert found.tolist() == pytest.approx([0.5 / total, 0.25 / total, 99 * 0.5 / total])
    several = scored(z, votes, 1.0, False).scores
    assert several[:2].tolist() == pytest.approx([math.log(0.5), math.log(0.25)])
    assert chance_of(float(several[2]), 1.0) == pytest.approx(0.99)


def view_of(past: PastQuery, cosine: float, key: QueryKey = OTHER) -> EvidenceView:
    return EvidenceView(3).updated({key: past}, {key.query_hash: at_cosine(cosine)})


@pytest.mark.parametrize("several", [False, True])
def test_a_past_query_with_known_answers_has_them_for_certain(several: bool) -> None:
    voted = (Support(5, 0.1, -2.0), Support(6, 0.8, 3.0), Support(7, 0.1))
    past = PastQuery(voted, (1, 2), (PINNED, Known(8, 1, ("review",))))
    view = view_of(past, 0.75)
    asked = [Asked(QUERY, KEY.query_hash, 0.0)]
    (found,) = evidence_for(view, asked, None, Kernel(theta=0.5, gamma=1.0), several=several)
    expected = {5: 0.5, 8: 0.5, 6: 0.4, 7: 0.05} if several else {5: 0.25, 8: 0.25}
    assert found.support == pytest.approx(expected)
    assert found.own == ()
    assert found.known == {
        5: (KnownAnswer(False, ("pinned",), 2),),
        8: (KnownAnswer(False, ("review",), 1),),
    }
    assert found.votes == ({6: (1, 2), 7: (1, 2)} if several else {})
    assert found.same.log_odds == {}


def test_the_very_question_keeps_its_votes_and_gives_the_grades() -> None:
    past = PastQuery((Support(5, 0.1, -2.0), Support(6, 0.8, 3.0)), (1, 2), (PINNED,))
    (found,) = evidence_for(view_of(past, 1.0, KEY), [Asked(QUERY, KEY[0], 0.0)], None, Kernel())
    assert found.same.log_odds == {5: -2.0, 6: 3.0}
    assert found.grades(np.array([4, 5, 6])).tolist() == [0.0, 2.0, 0.0]
    assert found.known == {5: (KnownAnswer(True, ("pinned",), 2),)}
    assert found.votes == {5: (1, 2), 6: (1, 2)}
    assert found.strongest(1) == [5]


@pytest.mark.parametrize("neighbours", [0, 32])
@pytest.mark.parametrize("same", [0.0, 0.97])  # a fitted kernel has 0
def test_a_near_duplicate_speaks_as_rho_allows(neighbours: int, same: float) -> None:
    """By the formula of `_same_need`: R takes 0.01 to 0.999, rho 0.97."""
    voted = (Support(5, 0.0, -9.0), Support(6, 0.5, 1.0))
    view = view_of(PastQuery(voted, (1,), (PINNED,)), 0.99)
    kernel = Kernel(neighbours=neighbours, same=same)
    (found,) = evidence_for(view, [Asked(QUERY, KEY.query_hash, 0.0)], None, kernel)
    assert (6 in found.same.log_odds) == (same > 0.0)
    weight = 0.03 * ((0.99 - 0.5) / 0.5) ** 4 if neighbours else 0.0
    assert found.each == pytest.approx([weight], rel=1e-4)
    ratio = (0.999 / 0.001) / (0.01 / 0.99)
    mixed = 0.01 * ratio + 0.99
    expected = math.log((0.97 * ratio + 0.03 * mixed) / (0.97 + 0.03 * mixed))
    assert found.same.log_odds[5] == pytest.approx(expected)
    assert 7.0 < expected < 9.0


def test_a_view_is_quiet_again_without_known_answers() -> None:
    view = view_of(PastQuery((), (), (PINNED,)), 1.0)
    again = view.updated({OTHER: PastQuery((), ())}, {})
    assert view.known.tolist() == [0]
    assert again.known.tolist() == []
    assert again.row_of(*OTHER) is None
    assert view.row_of(*OTHER) == 0
    assert again.of_queries([KEY]) == {}


def test_known_answers_are_not_stored_with_a_version(tmp_path: Path) -> None:
    past = PastQuery((Support(5, 0.5, 1.0),), (3,), (PINNED,))
    stored = stored_evidence_of(Provenance(3, 0, "x"), Supports.of({OTHER: past}))
    save_stored_evidence(stored, tmp_path)
    assert load_stored_evidence(tmp_path, dim=3).past_query(0).known == ()


def test_by_codes_known_answers_are_always_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from rag_flywheel.rank import evidence

    monkeypatch.setattr(evidence, "CODES_FROM", 500)
    monkeypatch.setattr(evidence, "_UNCODED", 50)
    monkeypatch.setattr(evidence, "_LIKELY", 1)
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(600, 16)).astype(np.float32)
    rows += 2.0 * rows[0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    view = EvidenceView(16)
    for start in range(0, 600, 100):
        part = range(start, start + 100)
        keys = {i: QueryKey(i.to_bytes(16, "big"), None) for i in part}
        known = {i: (Known(10_000 + i, 1, ("pinned",)),) if i % 60 == 7 else () for i in part}
        found = {keys[i]: PastQuery((Support(i, 0.9),), (i,), known[i]) for i in part}
        view = view.updated(found, {keys[i].query_hash: rows[i] for i in part})
    assert view.codes is not None
    (found,) = evidence_for(view, [Asked(rows[0])], None, Kernel(theta=0.0, neighbours=4))
    near = [i for i in range(600) if i % 60 == 7 and rows[i] @ rows[0] > 0.0]
    assert len(near) > 5
    assert {10_000 + i for i in near} <= found.support.keys()
