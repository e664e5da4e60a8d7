"""Everything that ranking can be told: the weights of the prior and the kernel of the evidence.

It knows how parameters are written down (parameters.json); not how they are chosen.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.rank.features import FEATURES

FORMAT_VERSION = 1
FILE_NAME = "parameters.json"
SHIPPED, FITTED = "shipped", "fitted"
NOISE_LIMIT = 0.45  # votes that are wrong so often say nothing
_LARGEST = sys.float_info.max
_LARGEST_WEIGHT, _LARGEST_SHARPNESS, _LARGEST_CHOICE = 1e6, 1e3, 1e2


@dataclass(frozen=True)
class Kernel:
    """How the answers of past queries count for a query.

    theta: cosine below which a past query does not count; gamma: how fast its weight falls from 1
    (the same query) to 0 (at theta); n0: how many past queries the prior is worth; neighbours: at
    most so many count, 0: none, the memory is off. theta is set at a refresh so that theta_quantile
    of random pairs of past queries are less similar: it means the same under another encoder, and
    in a narrow domain.
    """

    theta: float = 0.5
    theta_quantile: float = 0.98
    gamma: float = 4.0
    n0: float = 4.0
    neighbours: int = 32


def _shipped_weights() -> dict[str, float]:
    return {**dict.fromkeys(FEATURES, 0.0), "dense": 6.8, "bm25": 2.4}


@dataclass(frozen=True)
class Parameters:
    """The prior, exp(sharpness · weights · features) shared out over the candidates, and the kernel.

    The shipped weights are a plain hybrid, dense + 0.35 · BM25 / best BM25. sharpness: how sure the
    prior is; it changes no order of it. noise: the share of votes that are wrong. choice: by how much
    in log-odds the passage that a judged answer was written from is likelier right than the prior
    says, which only learning needs, and older versions lack. candidate_spread:
    log-odds between the best and the worst of an application's own candidates, whose scores have no
    known scale.
    """

    weights: dict[str, float] = field(default_factory=_shipped_weights)
    kernel: Kernel = Kernel()
    sharpness: float = 1.0
    noise: float = 0.2
    choice: float = 0.0
    candidate_spread: float = 3.0
    source: str = SHIPPED

    @property
    def memory(self) -> Kernel:
        """The kernel, switched off where votes are too often wrong to be heard."""
        if self.noise <= NOISE_LIMIT:
            return self.kernel
        return dataclasses.replace(self.kernel, neighbours=0)

    @cached_property
    def vector(self) -> npt.NDArray[np.float64]:
        """float64 (d,): sharpness · weights, in the order of FEATURES."""
        return self.sharpness * np.array([self.weights[name] for name in FEATURES])


def parameters_text(parameters: Parameters) -> str:
    """JSON of the parameters; `parse_parameters` of it gives equal parameters."""
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(parameters)}
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def parse_parameters(text: str, *, name: str) -> Parameters:
    """Parameters from JSON text; `name` is what errors call it. Raises CorruptFileError."""
    try:
        values = json.loads(text)
        if not isinstance(values, dict) or values.pop("format_version", None) != FORMAT_VERSION:
            raise ValueError(f"format_version is not {FORMAT_VERSION}")
        values.setdefault("choice", 0.0)
        _require_fields(values, Parameters)
        _require_fields(values["kernel"], Kernel)
        if not isinstance(values["source"], str):
            raise ValueError("source is not a string")
        if not isinstance(values["weights"], dict) or set(values["weights"]) != set(FEATURES):
            raise ValueError(f"weights are not for exactly {', '.join(FEATURES)}")
        kernel = values.pop("kernel")
        _require_numbers({**values, **values["weights"], **kernel})
        return Parameters(kernel=_checked(Kernel(**kernel)), **values)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(
            f"{name} holds no usable parameters ({error}); run `rag-flywheel refresh` to build a new "
            "version, or `rag-flywheel rollback` to an earlier one"
        ) from error


def _require_fields(values: object, kind: type[Parameters] | type[Kernel]) -> None:
    expected = {field.name for field in dataclasses.fields(kind)}
    found = set(values) if isinstance(values, dict) else set()
    if found != expected:
        wrong = sorted(map(str, found ^ expected))
        raise ValueError(f"{wrong[0]!r} is missing or not known in {kind.__name__}")


def _require_numbers(values: dict[str, Any]) -> None:
    for key, value in values.items():
        if key in {"source", "weights"}:
            continue
        if type(value) not in {int, float} or not abs(value) <= _LARGEST:
            raise ValueError(f"{key} is no finite number")
    if not 0 <= values["candidate_spread"] <= _LARGEST_WEIGHT:
        raise ValueError(f"candidate_spread is not from 0 to {_LARGEST_WEIGHT:g}")
    if not 0 < values["sharpness"] <= _LARGEST_SHARPNESS:
        raise ValueError(f"sharpness is not above 0 and up to {_LARGEST_SHARPNESS:g}")
    if not 1e-6 <= values["noise"] <= 0.5:
        raise ValueError("noise is not from 1e-6 to 0.5")
    if not 0 <= values["choice"] <= _LARGEST_CHOICE:
        raise ValueError(f"choice is not from 0 to {_LARGEST_CHOICE:g}")
    if max(abs(w) for w in values["weights"].values()) > _LARGEST_WEIGHT:
        raise ValueError(f"a weight is beyond {_LARGEST_WEIGHT:g}")


def _checked(kernel: Kernel) -> Kernel:
    if not (-1 <= kernel.theta < 1 and 0 < kernel.theta_quantile < 1):
        raise ValueError("the kernel needs -1 <= theta < 1 and 0 < theta_quantile < 1")
    if not (0 < kernel.gamma <= 1e3 and 1e-9 <= kernel.n0 <= 1e9):
        raise ValueError("the kernel needs 0 < gamma <= 1e3 and 1e-9 <= n0 <= 1e9")
    if type(kernel.neighbours) is not int or kernel.neighbours < 0:
        raise ValueError("the kernel needs a whole number of neighbours >= 0")
    return kernel
