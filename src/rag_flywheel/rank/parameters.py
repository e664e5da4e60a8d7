"""The parameters of ranking: the weights of the prior and the kernel of the evidence.

It reads and writes parameters.json, and must not know how parameters are fitted.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from rag_flywheel.disk import exactly, parsed_json, version_file_errors
from rag_flywheel.rank.calibration import Calibration, check_calibration
from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.posterior import NOISE_LIMIT, Rates

FORMAT_VERSION = 2
FILE_NAME = "parameters.json"
SHIPPED, FITTED = "shipped", "fitted"
_MOST_WEIGHT = 1e6
_Weight: TypeAlias = Annotated[float, Meta(ge=-_MOST_WEIGHT, le=_MOST_WEIGHT)]
_InAnyUnit: TypeAlias = Annotated[float, Meta(ge=-_MOST_WEIGHT, le=1e40)]


@dataclass(frozen=True)
class Kernel:
    """How the answers of past queries count for a query.

    theta: cosine below which a past query does not count.
    gamma: how fast its weight falls from 1 (the same query) to 0 (at theta).
    n0: how many past queries the prior is worth.
    neighbours: at most so many count; 0: none, the memory is off.
    same: the largest chance that a past query in other words asks the same, so that its votes count as
        those on the query itself.
    theta is set at a refresh so that theta_quantile of random pairs of past queries are less similar:
    it means the same under another encoder, and in a narrow domain.
    """

    theta: Annotated[float, Meta(ge=-1, lt=1)] = 0.5
    theta_quantile: Annotated[float, Meta(gt=0, lt=1)] = 0.98
    gamma: Annotated[float, Meta(gt=0, le=1e3)] = 4.0
    n0: Annotated[float, Meta(ge=1e-9, le=1e9)] = 4.0
    neighbours: Annotated[int, Meta(ge=0, le=2**62)] = 32
    same: Annotated[float, Meta(ge=0, lt=1)] = 0.97


def _shipped_weights() -> dict[str, float]:
    return {**dict.fromkeys(FEATURES, 0.0), "dense": 6.8, "bm25": 2.4}


def _shipped_given() -> dict[str, float]:
    return dict.fromkeys(GIVEN[1:], 0.0)


@dataclass(frozen=True)
class Parameters:
    """The prior, exp(sharpness · weights · features) shared out over the candidates, and the kernel.

    The shipped weights are a plain hybrid, dense + 0.35 · BM25 / best BM25. sharpness: how sure the
    prior is; it changes no order of it. answers: the expected number of passages that answer a query,
    None: exactly one does. rates: how often votes are wrong. choice: by how much in log-odds the
    passage that a judged answer was written from is likelier right than the prior says, which counts
    where users call the answer good. candidate_spread: log-odds between the best and the worst of an
    application's own candidates, whose scores have no known scale before it is fitted. given: the
    weights of their other features, 0 before they are fitted; that of `score` is in log-odds for one
    unit of the application's scores. given_sharpness: as sharpness, for an application's own candidates.
    relevance: the coefficients of relevance, which changes no order.
    trust: how far cosines are trusted beside words before votes say more: the weight of `dense` starts
    at so much of the shipped one.
    """

    weights: dict[str, _Weight] = field(default_factory=_shipped_weights)
    kernel: Kernel = Kernel()
    sharpness: Annotated[float, Meta(gt=0, le=1e3)] = 1.0
    answers: Annotated[float, Meta(gt=0, le=1e3)] | None = None
    rates: Rates = field(default_factory=Rates)
    choice: Annotated[float, Meta(ge=0, le=100)] = 0.0
    candidate_spread: Annotated[float, Meta(ge=0, le=1e6)] = 3.0
    given: dict[str, _InAnyUnit] = field(default_factory=_shipped_given)
    given_sharpness: Annotated[float, Meta(gt=0, le=1e3)] = 1.0
    relevance: Calibration = field(default_factory=Calibration)
    source: str = SHIPPED
    trust: Annotated[float, Meta(ge=0, le=1)] = 1.0

    @classmethod
    def starting(cls, trust: float) -> "Parameters":
        """The parameters before any vote, where cosines are trusted so far."""
        weights = _shipped_weights()
        return cls(weights={**weights, "dense": trust * weights["dense"]}, trust=trust)

    @property
    def memory(self) -> Kernel:
        """The kernel, switched off where votes are wrong too often to be evidence."""
        if self.rates.noise <= NOISE_LIMIT:
            return self.kernel
        return dataclasses.replace(self.kernel, neighbours=0)

    @cached_property
    def reads_given(self) -> bool:
        """Whether the texts of an application's own candidates count, so that they must be read."""
        return any(self.given[name] for name in GIVEN[2:])

    @cached_property
    def vector(self) -> npt.NDArray[np.float64]:
        """float64 (d,): sharpness · weights, in the order of FEATURES and then of GIVEN."""
        own = [self.weights[name] for name in FEATURES]
        given = [self.candidate_spread, *(self.given[name] for name in GIVEN[1:])]
        return np.array(
            [self.sharpness * w for w in own] + [self.given_sharpness * w for w in given]
        )

    @property
    def prior_of_unrelated(self) -> float:
        """The logarithm of the prior, up to its constant, of a passage that is as near as what unrelated
        questions find, and nothing else."""
        return float(self.vector[FEATURES.index("dense")]) * self.relevance.unrelated


def parameters_text(parameters: Parameters) -> str:
    """JSON of the parameters; `parse_parameters` of it gives equal parameters."""
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(parameters)}
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def parse_parameters(text: str, *, name: str) -> Parameters:
    """Parameters from JSON text; `name` is what errors call it. Raises CorruptFileError."""
    with version_file_errors(name, "holds no usable parameters"):
        values = parsed_json(text, "it", dict[str, Any])
        if values.pop("format_version", None) != FORMAT_VERSION:
            raise ValueError(f"format_version is not {FORMAT_VERSION}")
        values.setdefault("given", _shipped_given())
        values.setdefault("given_sharpness", 1.0)
        values.setdefault("relevance", dataclasses.asdict(Calibration()))
        parameters = exactly(Parameters, values)
        exactly(Kernel, values["kernel"])
        exactly(Rates, values["rates"])
        check_calibration(values["relevance"])
        if set(parameters.weights) != set(FEATURES):
            raise ValueError(f"weights are not for exactly {', '.join(FEATURES)}")
        if set(parameters.given) != set(GIVEN[1:]):
            raise ValueError(f"given is not for exactly {', '.join(GIVEN[1:])}")
        if parameters.given["score"] < 0.0:
            raise ValueError("the weight of an application's scores is below 0")
        if max(parameters.given[name] for name in GIVEN[2:]) > _MOST_WEIGHT:
            raise ValueError(f"a weight in given is above {_MOST_WEIGHT:g}")
    return parameters
