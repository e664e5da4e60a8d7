"""The score of candidates against the formulas worked in 60-digit decimals, and parameters.json."""

import json
import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.rank.features import static_features
from rag_flywheel.rank.parameters import Kernel, Parameters, parameters_text, parse_parameters
from rag_flywheel.rank.score import order, score, score_given

Array = npt.NDArray[np.float64]


def logit(p: float) -> float:
    return math.log(p / (1.0 - p))


def decimal_score(z: float, n0: float, helpful: float, harmful: float) -> float:
    """logit((n0 · sigmoid(z) + H) / (n0 + H + N)), with room for sigmoids near 0 and 1."""
    with localcontext() as context:
        context.prec = 60 + int(abs(z))
        prior = 1 / (1 + (-Decimal(z)).exp())
        total = Decimal(n0) + Decimal(helpful) + Decimal(harmful)
        yes = (Decimal(n0) * prior + Decimal(helpful)) / total
        context.prec = 60
        return float(yes.ln() - (1 - yes).ln())


def with_prior(z: list[float], helpful: list[float], harmful: list[float], n0: float) -> Array:
    """Scores of candidates with these prior log-odds."""
    parameters = Parameters(
        intercept=0.0, weights={"dense": 1.0, "bm25": 1.0}, kernel=Kernel(n0=n0)
    )
    features = {"dense": np.array(z), "bm25": np.zeros(len(z))}
    return score(parameters, features, np.array(helpful), np.array(harmful)).scores


@pytest.mark.parametrize(
    ("prior", "n0", "helpful", "harmful", "expected"),
    [
        (0.5, 3.0, 1.0, 0.0, 5 / 8),  # (1.5 + 1) / 4
        (0.5, 3.0, 0.0, 1.0, 3 / 8),
        (0.5, 3.0, 1.0, 1.0, 1 / 2),
        (0.5, 3.0, 2.0, 0.0, 7 / 10),  # 3.5 / 5
        (0.2, 5.0, 1.0, 0.0, 1 / 3),  # 2 / 6
        (0.2, 5.0, 0.0, 4.0, 1 / 9),
        (0.9, 10.0, 0.0, 10.0, 9 / 20),
        (0.9, 10.0, 0.5, 0.0, 19 / 21),  # 9.5 / 10.5
    ],
)
def test_hand_worked_table(
    prior: float, n0: float, helpful: float, harmful: float, expected: float
) -> None:
    found = with_prior([logit(prior)], [helpful], [harmful], n0)
    assert found[0] == pytest.approx(logit(expected), abs=1e-12)


def test_prior_is_intercept_plus_weighted_features() -> None:
    parameters = Parameters(intercept=-5.5, weights={"dense": 8.0, "bm25": 2.4})
    features = {"dense": np.array([0.5, 0.75, 0.0]), "bm25": np.array([1.0, 0.0, 0.5])}
    found = score(parameters, features, np.zeros(3), np.zeros(3))
    assert found.scores == pytest.approx([-5.5 + 4.0 + 2.4, -5.5 + 6.0, -5.5 + 1.2], abs=1e-12)


def test_static_features_divide_bm25_by_the_best() -> None:
    cosines = np.array([0.25, 0.5], dtype=np.float32)
    bm25 = np.array([3.0, 1.5], dtype=np.float32)
    found = static_features(cosines, bm25, 6.0)
    assert found["dense"].tolist() == [0.25, 0.5]
    assert found["bm25"].tolist() == [0.5, 0.25]


def test_static_features_without_any_matching_word() -> None:
    nothing = np.zeros(2, dtype=np.float32)
    assert static_features(nothing, nothing, 0.0)["bm25"].tolist() == [0.0, 0.0]


unit = st.floats(-1.0, 1.0, width=32)
share = st.floats(0.0, 1.0, width=32)
amount = st.one_of(st.just(0.0), st.floats(1e-6, 50.0))
weights = st.floats(1e-6, 10.0)
strengths = st.floats(0.01, 1000.0)
candidate = st.tuples(unit, share, amount, amount)


@given(st.lists(candidate, min_size=1, max_size=20), strengths, st.floats(-8, 8))
def test_scores_equal_the_formula(
    rows: list[tuple[float, float, float, float]], n0: float, intercept: float
) -> None:
    parameters = Parameters(
        intercept=intercept, weights={"dense": 8.0, "bm25": 2.4}, kernel=Kernel(n0=n0)
    )
    dense, bm25, helpful, harmful = (np.array(column) for column in zip(*rows, strict=True))
    found = score(parameters, {"dense": dense, "bm25": bm25}, helpful, harmful)
    for i, (d, b, h, n) in enumerate(rows):
        expected = decimal_score(intercept + 8.0 * d + 2.4 * b, n0, h, n)
        assert found.scores[i] == pytest.approx(expected, abs=1e-9)
        why = found.explanation(i, (7, 9))
        assert why.votes == (7, 9)
        assert why.terms == pytest.approx({"dense": 8.0 * d, "bm25": 2.4 * b}, abs=1e-12)
        parts = why.intercept + sum(why.terms.values()) + why.evidence
        assert parts == pytest.approx(found.scores[i], abs=1e-6)


@given(st.lists(st.tuples(unit, share), max_size=30), st.floats(-10, 10), st.integers(0, 2**32))
def test_without_evidence_scores_and_order_are_the_priors_to_the_last_bit(
    rows: list[tuple[float, float]], intercept: float, seed: int
) -> None:
    parameters = Parameters(intercept=intercept, weights={"dense": 7.3, "bm25": 0.7})
    features = {
        "dense": np.array([d for d, _ in rows], dtype=np.float32),
        "bm25": np.array([b for _, b in rows], dtype=np.float32),
    }
    none = np.zeros(len(rows))
    found = score(parameters, features, none, none)
    prior = [intercept + 7.3 * d + 0.7 * b for d, b in rows]
    assert found.scores.tolist() == prior
    assert found.evidence.tolist() == [0.0] * len(rows)
    pids = np.random.default_rng(seed).permutation(len(rows)) + 1
    expected = sorted(range(len(rows)), key=lambda i: (-prior[i], pids[i]))
    assert order(found.scores, pids).tolist() == expected


@given(st.lists(candidate, min_size=1, max_size=8), st.data(), weights, strengths)
def test_a_vote_moves_only_its_passage_and_only_its_way(
    rows: list[tuple[float, float, float, float]], data: st.DataObject, weight: float, n0: float
) -> None:
    z = [-5.5 + 8.0 * d + 2.4 * b for d, b, _, _ in rows]
    helpful, harmful = [h for *_, h, _ in rows], [n for *_, n in rows]
    at = data.draw(st.integers(0, len(rows) - 1))
    before = with_prior(z, helpful, harmful, n0)
    up = with_prior(z, [h + weight * (i == at) for i, h in enumerate(helpful)], harmful, n0)
    down = with_prior(z, helpful, [n + weight * (i == at) for i, n in enumerate(harmful)], n0)
    assert down[at] <= before[at] <= up[at]
    assert down[at] < up[at]
    others = [i for i in range(len(rows)) if i != at]
    assert up[others].tolist() == down[others].tolist() == before[others].tolist()


@given(st.floats(-9, 9), st.floats(0, 100), st.floats(0, 100))
def test_the_effect_of_votes_vanishes_as_n0_grows(z: float, helpful: float, harmful: float) -> None:
    yes = 1.0 / (1.0 + math.exp(-z))
    for n0 in (1.0, 1e3, 1e6, 1e9, 1e12):
        shift = with_prior([z], [helpful], [harmful], n0)[0] - z
        bound = max(math.log1p(helpful / (n0 * yes)), math.log1p(harmful / (n0 * (1.0 - yes))))
        assert abs(shift) <= bound + 1e-9
    assert abs(shift) < 1e-5


@pytest.mark.parametrize("z", [-1000.0, -750.0, -700.0, -40.0, 0.0, 40.0, 700.0, 750.0, 1000.0])
@pytest.mark.parametrize(
    ("helpful", "harmful"), [(1.0, 0.0), (0.0, 1.0), (1e9, 1e9), (1e-9, 0.0), (0.0, 1e200)]
)
def test_extreme_inputs_keep_the_posterior_between_0_and_1(
    z: float, helpful: float, harmful: float
) -> None:
    found = with_prior([z], [helpful], [harmful], 3.0)[0]
    assert math.isfinite(found)  # log-odds of 0 and of 1 are infinite
    assert found == pytest.approx(decimal_score(z, 3.0, helpful, harmful), rel=1e-9, abs=1e-9)


@given(st.lists(st.integers(-5, 5).map(float), max_size=30), st.lists(st.integers(), unique=True))
def test_order_is_by_score_then_pid(scores: list[float], pids: list[int]) -> None:
    n = min(len(scores), len(pids))
    numbers = [p % 2**62 for p in pids[:n]]
    expected = sorted(range(n), key=lambda i: (-scores[i], numbers[i]))
    assert order(np.array(scores[:n]), np.array(numbers, dtype=np.int64)).tolist() == expected


def given_scores(scores: list[float], helpful: list[float] | None = None) -> list[float]:
    nothing = np.zeros(len(scores))
    votes = nothing if helpful is None else np.array(helpful)
    parameters = Parameters(candidate_spread=3.0, kernel=Kernel(n0=3.0))
    found: list[float] = score_given(parameters, np.array(scores), votes, nothing).scores.tolist()
    return found


def test_own_candidates_are_laid_between_even_odds_and_the_spread() -> None:
    assert given_scores([10.0, 4.0, 7.0]) == pytest.approx([0.0, -3.0, -1.5], abs=1e-12)
    assert given_scores([-1.0, -1.5, -3.0]) == pytest.approx([0.0, -0.75, -3.0], abs=1e-12)


@pytest.mark.parametrize("scores", [[], [5.0], [2.0, 2.0, 2.0], [0.0, 0.0]])
def test_own_candidates_with_one_score_have_even_odds(scores: list[float]) -> None:
    assert given_scores(scores) == [0.0] * len(scores)


def test_own_candidates_with_votes() -> None:
    found = given_scores([10.0, 4.0, 7.0], [0.0, 2.0, 0.0])
    assert found[1] == pytest.approx(decimal_score(-3.0, 3.0, 2.0, 0.0), abs=1e-9)
    assert (found[0], found[2]) == (0.0, given_scores([10.0, 4.0, 7.0])[2])


@given(st.lists(st.integers(-(10**6), 10**6).map(float), min_size=2, unique=True))
def test_own_candidates_keep_the_order_of_their_scores(scores: list[float]) -> None:
    found = given_scores(scores)
    assert np.argsort(found).tolist() == np.argsort(scores).tolist()
    assert (min(found), max(found)) == pytest.approx((-3.0, 0.0), abs=1e-12)


def test_own_candidates_with_huge_finite_scores_get_finite_ones() -> None:
    assert given_scores([1.7e308, -1.7e308, 0.0]) == pytest.approx([0.0, -3.0, -1.5])


finite = st.floats(-1e6, 1e6)
parameters_strategy = st.builds(
    Parameters,
    intercept=finite,
    weights=st.fixed_dictionaries({"dense": finite, "bm25": finite}),
    kernel=st.builds(
        Kernel,
        theta=st.floats(-1, 1, exclude_max=True),
        gamma=st.floats(0, 100, exclude_min=True),
        n0=st.floats(0, 1e6, exclude_min=True),
        neighbours=st.integers(0, 1000),
    ),
    candidate_spread=st.floats(0, 1e6),
    source=st.text(st.characters(exclude_categories=["Cs"])),
)


@given(parameters_strategy)
def test_parameters_survive_writing_and_reading(parameters: Parameters) -> None:
    assert parse_parameters(parameters_text(parameters), name="p.json") == parameters


def test_shipped_parameters_are_a_plain_hybrid() -> None:
    values = json.loads(parameters_text(Parameters()))
    assert values["weights"]["bm25"] / values["weights"]["dense"] == pytest.approx(0.3)
    assert values["kernel"]["neighbours"] == 32


def malformed() -> dict[str, str]:
    """parameters.json gone wrong, by what is wrong."""
    value: Any
    good: dict[str, Any] = json.loads(parameters_text(Parameters()))
    found = {
        "nothing": "",
        "cut short": parameters_text(Parameters())[:60],
        "a list": "[1, 2]",
        "a string": '"x"',
        "null": "null",
        "a number": "7",
    }
    for key in good:
        found[f"no {key}"] = json.dumps({k: v for k, v in good.items() if k != key})
    for key in good["kernel"]:
        rest = {k: v for k, v in good["kernel"].items() if k != key}
        found[f"kernel without {key}"] = json.dumps(good | {"kernel": rest})
    found["unknown key"] = json.dumps(good | {"alpha": 1})
    found["unknown kernel key"] = json.dumps(good | {"kernel": good["kernel"] | {"x": 1}})
    for value in (0, 2, "1", None, 1.5):
        found[f"format {value!r}"] = json.dumps(good | {"format_version": value})
    for key in ("intercept", "candidate_spread"):
        for value in (None, "1", [], math.nan, math.inf, True, 10**400):
            found[f"{key} {str(value)[:8]}"] = json.dumps(good | {key: value})
    found["candidate_spread -1"] = json.dumps(good | {"candidate_spread": -1.0})
    found["source 5"] = json.dumps(good | {"source": 5})
    for value in (None, [], 3, {}, {"dense": 1.0}, {"dense": 1.0, "bm25": 1.0, "x": 1.0}):
        found[f"weights {value!r}"] = json.dumps(good | {"weights": value})
    for value in (None, "1", math.nan, -math.inf):
        found[f"weight {value!r}"] = json.dumps(good | {"weights": {"dense": 8.0, "bm25": value}})
    found["kernel 3"] = json.dumps(good | {"kernel": 3})
    for key, values in {
        "theta": (1.0, -1.1, None, "0.4", math.nan),
        "gamma": (0.0, -1.0, math.inf, None, True),
        "n0": (0.0, -3.0, math.nan, "3", True),
        "neighbours": (-1, 32.0, 1.5, "32", None, True),
    }.items():
        for value in values:
            kernel = good["kernel"] | {key: value}
            found[f"kernel {key} {value!r}"] = json.dumps(good | {"kernel": kernel})
    return found


@pytest.mark.parametrize("text", [pytest.param(t, id=name) for name, t in malformed().items()])
def test_malformed_parameters_are_refused_by_name(text: str) -> None:
    with pytest.raises(CorruptFileError, match=r"versions/x/parameters\.json"):
        parse_parameters(text, name="versions/x/parameters.json")
