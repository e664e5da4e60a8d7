"""parameters.json: what is written is what is read, and nothing else is taken."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.rank.calibration import OF_ANSWER, OF_GIVEN, OF_INDEX, Calibration
from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.parameters import Kernel, Parameters, parameters_text, parse_parameters
from rag_flywheel.rank.posterior import Rates
from thorough import thorough

finite = st.floats(-1e6, 1e6)
parameters_strategy = st.builds(
    Parameters,
    weights=st.fixed_dictionaries(dict.fromkeys(FEATURES, finite)),
    kernel=st.builds(
        Kernel,
        theta=st.floats(-1, 1, exclude_max=True),
        theta_quantile=st.floats(0, 1, exclude_min=True, exclude_max=True),
        gamma=st.floats(0, 1e3, exclude_min=True),
        n0=st.floats(1e-9, 1e9),
        same=st.floats(0.0, 0.999),
        neighbours=st.integers(0, 1000),
    ),
    sharpness=st.floats(0, 1e3, exclude_min=True),
    answers=st.none() | st.floats(1e-3, 1e3),
    rates=st.builds(Rates, st.floats(1e-6, 0.999), st.floats(1e-6, 0.999)),
    choice=st.floats(0, 100),
    candidate_spread=st.floats(0, 1e6),
    given=st.fixed_dictionaries({**dict.fromkeys(GIVEN[2:], finite), "score": st.floats(0, 1e40)}),
    given_sharpness=st.floats(0, 1e3, exclude_min=True),
    relevance=st.builds(
        Calibration,
        index=st.fixed_dictionaries(dict.fromkeys(OF_INDEX, st.floats(-1e4, 1e4))),
        given=st.fixed_dictionaries(dict.fromkeys(OF_GIVEN, st.floats(-1e4, 1e4))),
        answer=st.fixed_dictionaries(dict.fromkeys(OF_ANSWER, st.floats(-1e4, 1e4))),
        unrelated=st.floats(-10, 1),
        spread=st.floats(1e-3, 10),
        n0=st.none() | st.floats(1e-9, 1e9),
        agreement=st.floats(1e-2, 100),
    ),
    source=st.text(st.characters(exclude_categories=["Cs"])),
)


@thorough(50, few=12)
@given(parameters_strategy)
def test_parameters_survive_writing_and_reading(parameters: Parameters) -> None:
    text = parameters_text(parameters)
    read = parse_parameters(text, name="p.json")
    assert read == parameters
    assert parameters_text(read) == text


def test_the_written_form_is_plain_json() -> None:
    shipped = Parameters()
    assert json.loads(parameters_text(shipped)) == {
        "format_version": 2,
        "weights": {
            "dense": 6.8,
            "bm25": 2.4,
            "bigram": 0.0,
            "title": 0.0,
            "rarest": 0.0,
            "window": 0.0,
            "pairs": 0.0,
            "length": 0.0,
            "pieces": 0.0,
        },
        "kernel": {
            "theta": 0.5,
            "theta_quantile": shipped.kernel.theta_quantile,
            "gamma": shipped.kernel.gamma,
            "n0": shipped.kernel.n0,
            "same": shipped.kernel.same,
            "neighbours": 32,
        },
        "sharpness": 1.0,
        "answers": None,
        "rates": {"false_helpful": 0.2, "false_harmful": 0.2},
        "choice": 0.0,
        "candidate_spread": 3.0,
        "given": {
            "score": 0.0,
            "bm25": 0.0,
            "bigram": 0.0,
            "title": 0.0,
            "rarest": 0.0,
            "window": 0.0,
            "pairs": 0.0,
            "length": 0.0,
            "pieces": 0.0,
        },
        "given_sharpness": 1.0,
        "relevance": {
            "index": Calibration().index,
            "given": Calibration().given,
            "answer": Calibration().answer,
            "unrelated": 0.06,
            "spread": 0.08,
            "n0": None,
            "agreement": 1.0,
        },
        "trust": 1.0,
        "source": "shipped",
    }


@pytest.mark.parametrize(("noise", "heard"), [(1e-3, True), (0.45, True), (0.4501, False)])
def test_the_memory_is_off_where_votes_are_too_often_wrong(noise: float, heard: bool) -> None:
    kernel = Kernel(0.3, 0.9, 2.0, 0.5, 7)
    parameters = Parameters(kernel=kernel, rates=Rates(noise + 1e-4, noise - 1e-4))
    assert parameters.memory == (kernel if heard else Kernel(0.3, 0.9, 2.0, 0.5, 0))
    assert parameters.kernel == kernel  # what is written down does not change
    off = dataclasses.replace(parameters, kernel=dataclasses.replace(kernel, neighbours=0))
    assert off.memory.neighbours == 0


def test_shipped_parameters_are_a_plain_hybrid() -> None:
    weights = Parameters().weights
    assert weights["bm25"] / weights["dense"] == pytest.approx(0.35, abs=0.005)
    assert [name for name, weight in weights.items() if weight] == ["dense", "bm25"]


def test_sharpness_scales_the_weights() -> None:
    plain, sharp = Parameters(), Parameters(sharpness=2.5)
    n = len(FEATURES)
    assert plain.vector[:n].tolist() == [plain.weights[name] for name in FEATURES]
    assert sharp.vector[:n] == pytest.approx(2.5 * plain.vector[:n])
    assert plain.vector[n:].tolist() == [3.0, *[0.0] * (len(GIVEN) - 1)]
    assert sharp.vector[n:].tolist() == plain.vector[n:].tolist()  # they have one of their own
    assert Parameters(given_sharpness=2.5).vector[n:].tolist() == [7.5, *[0.0] * (len(GIVEN) - 1)]
    assert sharp.weights == plain.weights


def test_parameters_of_before_weights_of_given_candidates_are_read() -> None:
    values = json.loads(parameters_text(Parameters(candidate_spread=2.0)))
    for name in ("given", "given_sharpness"):
        del values[name]
    assert parse_parameters(json.dumps(values), name="old") == Parameters(candidate_spread=2.0)


def test_two_parameters_share_no_weights() -> None:
    Parameters().weights["dense"] = 1.0
    assert Parameters().weights["dense"] == 6.8


EDGES: list[dict[str, Any]] = [
    {"rates": Rates(1e-6, 1 - 1e-6)},
    {"answers": 1000},
    {"answers": 1e-9},
    {"sharpness": 1e-9},
    {"sharpness": 1000},
    {"candidate_spread": 0},
    {"given": {**Parameters().given, "score": 1e40, "length": -1e6}},
    {"source": ""},
    {"kernel": {"theta": -1, "gamma": 1e-9, "n0": 1e-9, "neighbours": 0}},
    {"kernel": {"gamma": 1000, "n0": 1e9}},
    {"weights": {name: (-1) ** i * 1e6 for i, name in enumerate(FEATURES)}},
]


@pytest.mark.parametrize("changes", EDGES, ids=str)
def test_values_at_the_edge_of_what_is_allowed_are_taken(changes: dict[str, Any]) -> None:
    good = json.loads(parameters_text(Parameters()))
    kernel = good["kernel"] | changes.get("kernel", {})
    written = json.dumps(good | changes | {"kernel": kernel}, default=dataclasses.asdict)
    read = parse_parameters(written, name="p.json")
    for key, value in {**changes, **changes.get("kernel", {})}.items():
        if key != "kernel":
            assert value == getattr(read.kernel if hasattr(read.kernel, key) else read, key)


NOT_NUMBERS: tuple[Any, ...] = (None, "1", [], math.nan, math.inf, -math.inf, True, 10**400)


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
        "nested too deep": "[" * 200_000,
    }
    for key in sorted(set(good) - {"given", "given_sharpness", "relevance"}):
        found[f"no {key}"] = json.dumps({k: v for k, v in good.items() if k != key})
    for key in ("index", "given", "answer"):
        rest = {k: v for k, v in good["relevance"][key].items() if k != "one"}
        relevance = good["relevance"] | {key: rest}
        found[f"relevance.{key} without one"] = json.dumps(good | {"relevance": relevance})
    for key in good["kernel"]:
        rest = {k: v for k, v in good["kernel"].items() if k != key}
        found[f"kernel without {key}"] = json.dumps(good | {"kernel": rest})
    found["unknown key"] = json.dumps(good | {"alpha": 1})
    found["a former key"] = json.dumps(good | {"intercept": -5.5})
    found["unknown kernel key"] = json.dumps(good | {"kernel": good["kernel"] | {"x": 1}})
    for value in (0, 1, 3, "2", None, 2.5):
        found[f"format {value!r}"] = json.dumps(good | {"format_version": value})
    for key in ("answers", "choice", "candidate_spread", "sharpness", "given_sharpness"):
        for value in (*NOT_NUMBERS[key == "answers" :], -1.0):  # None: one answer
            found[f"{key} {str(value)[:8]}"] = json.dumps(good | {key: value})
    for value in (0, 0.0, 1000.1):
        found[f"sharpness {value!r}"] = json.dumps(good | {"sharpness": value})
    found["candidate_spread too large"] = json.dumps(good | {"candidate_spread": 1.1e6})
    for value in (*NOT_NUMBERS, 0, 0.0, 9e-7, 1.0, -0.1):
        for key in good["rates"]:
            rates = good["rates"] | {key: value}
            found[f"{key} {str(value)[:8]}"] = json.dumps(good | {"rates": rates})
    for value in (0.2, None, {}, good["rates"] | {"x": 0.1}):
        found[f"rates {value!r}"] = json.dumps(good | {"rates": value})
    for value in (0, 1000.1):
        found[f"answers {value!r}"] = json.dumps(good | {"answers": value})
    found["choice 100.1"] = json.dumps(good | {"choice": 100.1})
    found["source 5"] = json.dumps(good | {"source": 5})
    weights = good["weights"]
    short = {k: v for k, v in weights.items() if k != "rarest"}
    for value in (None, [], 3, {}, sorted(weights), short, weights | {"x": 1.0}):
        found[f"weights {value!r}"] = json.dumps(good | {"weights": value})
    for value in (*NOT_NUMBERS, 1.1e6, -1.1e6):
        changed = weights | {"title": value}
        found[f"weight {str(value)[:8]}"] = json.dumps(good | {"weights": changed})
    given = good["given"]
    for value in (None, [], 3, {}, sorted(given), given | {"candidate": 3.0}):
        found[f"given {value!r}"] = json.dumps(good | {"given": value})
    for name, value in (("title", 1.1e6), ("title", -1.1e6), ("score", -1.0), ("score", 1.1e40)):
        found[f"given {name} {value}"] = json.dumps(good | {"given": given | {name: value}})
    for value in (3, None, []):
        found[f"kernel {value!r}"] = json.dumps(good | {"kernel": value})
    for key, values in {
        "theta": (1.0, -1.1, *NOT_NUMBERS),
        "theta_quantile": (0.0, 1.0, 1, -0.1, *NOT_NUMBERS),
        "gamma": (0.0, -1.0, 1000.1, *NOT_NUMBERS),
        "n0": (0.0, -3.0, 9e-10, 1.1e9, *NOT_NUMBERS),
        "same": (-0.1, 1.0, 2.0, *NOT_NUMBERS),
        "neighbours": (-1, 32.0, 1.5, *NOT_NUMBERS),
    }.items():
        for value in values:
            kernel = good["kernel"] | {key: value}
            found[f"kernel {key} {str(value)[:8]}"] = json.dumps(good | {"kernel": kernel})
    return found


@pytest.mark.parametrize("text", [pytest.param(t, id=name) for name, t in malformed().items()])
def test_malformed_parameters_are_refused_by_name(text: str) -> None:
    with pytest.raises(CorruptFileError, match=r"versions/x/parameters\.json"):
        parse_parameters(text, name="versions/x/parameters.json")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rates": {}}, "'false_harmful' is missing or not known in Rates"),
        ({"noise": 0.2}, "'noise' is missing or not known in Parameters"),
        ({"candidate_spread": -2}, "Expected `float` >= 0.0 - at `$.candidate_spread`"),
        ({"format_version": 1}, "format_version is not 2"),
        ({"alpha": 1}, "'alpha' is missing or not known in Parameters"),
        ({"kernel": {}}, "'gamma' is missing or not known in Kernel"),
        ({"weights": {}}, "weights are not for exactly dense, bm25"),
        ({"given": {}}, "given is not for exactly score, bm25"),
        ({"given": {**Parameters().given, "score": -0.5}}, "application's scores is below 0"),
        ({"given": {**Parameters().given, "title": 2e6}}, "a weight in given is above 1e+06"),
        (
            {"weights": dict.fromkeys(FEATURES, 2e6)},
            "Expected `float` <= 1000000.0 - at `$.weights",
        ),
    ],
)
def test_the_message_says_what_is_wrong(changes: dict[str, Any], reason: str) -> None:
    good = json.loads(parameters_text(Parameters()))
    with pytest.raises(CorruptFileError) as caught:
        parse_parameters(json.dumps(good | changes), name="p.json")
    assert reason in str(caught.value)
    assert "rag-flywheel refresh" in str(caught.value)
