"""The coefficients of relevance: the chance that a passage answers a question, before any vote.

They are part of the parameters of a version; it must not know how they are fitted.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from rag_flywheel.disk import exactly

OF_INDEX = ("one", "dense", "cover", "missing", "length", "share")
"""cover, missing and length are MEASURES of `rank/features.py`."""
OF_GIVEN = ("one", "cover", "length")
OF_ANSWER = ("one", "reach", "farther", "any", "known", "said", "asked")
SHOWN = 8  # hits of an answer, of which `any` is one: the best
HALF_ASKED = 0.05  # the sum of K at which `asked` is a half
MOST_REACH = 2.0  # in `reach`; with 4 the errors before votes were larger
MOST_FARTHER = 4.0  # beyond it, in `farther`
USUALLY_SAID = 1.5  # the `said` of a usual question, whose term is 0
_Coefficient: TypeAlias = Annotated[float, Meta(ge=-1e4, le=1e4)]


def _of_index() -> dict[str, float]:
    return {
        "one": 1.413,
        "dense": 2.14,
        "cover": 2.572,
        "missing": 0.586,
        "length": -0.412,
        "share": 1.531,
    }


def _of_given() -> dict[str, float]:
    return {"one": -1.11, "cover": 5.772, "length": -0.8}


def _of_answer() -> dict[str, float]:
    return {
        "one": -4.447,
        "reach": 1.214,
        "farther": 0.298,
        "any": 0.678,
        "known": 2.926,
        "said": 1.346,
        "asked": 0.0,
    }


@dataclass(frozen=True)
class Calibration:
    """The log-odds of a passage to be right, and of an answer to hold a right one, as sums.

    index: coefficients for passages of the index; `share` is the logarithm of the share in the prior
    of all candidates. given: for an application's own candidates, of which no cosine is known and whose
    words all weigh the same. answer: for all hits of an answer together: `reach` is (dense −
    unrelated) / spread of the nearest, at most 2, and `farther` what it is beyond that, at most 4; `any`
    the log-odds that any is right, if each is on its own; `known` the share of the question's words that
    any passage of the index has; `said` is how much the question says, as in MEASURES, less 1.5, which is
    usual; `asked` is w / (0.05 + w), w being the sum of K of the similar past queries that have a say on
    a hit, the most of any: what is like nothing that was ever asked is more often about something else.
    unrelated, spread: mean and standard deviation of the best `dense` of questions that have nothing to
    do with the passages; a refresh measures them (see `refresh/relevance.py`).
    n0: as that of the kernel, for relevance; None: the same. agreement: by how much similar past queries
    that agree are surer together than on average, a factor on log-odds that rest on them alone.
    The shipped values are measured by benchmarks/learning/relevance.py.
    """

    index: dict[str, _Coefficient] = field(default_factory=_of_index)
    given: dict[str, _Coefficient] = field(default_factory=_of_given)
    answer: dict[str, _Coefficient] = field(default_factory=_of_answer)
    unrelated: Annotated[float, Meta(ge=-10, le=1)] = 0.06
    spread: Annotated[float, Meta(ge=1e-3, le=10)] = 0.08
    n0: Annotated[float, Meta(ge=1e-9, le=1e9)] | None = None
    agreement: Annotated[float, Meta(ge=1e-2, le=100)] = 1.0

    @cached_property
    def of_index(self) -> npt.NDArray[np.float64]:
        """float64 (6,): the coefficients OF_INDEX."""
        return np.array([self.index[name] for name in OF_INDEX])

    @cached_property
    def of_given(self) -> npt.NDArray[np.float64]:
        """float64 (3,): the coefficients OF_GIVEN."""
        return np.array([self.given[name] for name in OF_GIVEN])

    @cached_property
    def of_answer(self) -> npt.NDArray[np.float64]:
        """float64 (7,): the coefficients OF_ANSWER."""
        return np.array([self.answer[name] for name in OF_ANSWER])


def check_calibration(values: Any) -> None:
    """Raises ValueError unless these values of JSON are those of a Calibration."""
    found = exactly(Calibration, values)
    for name, wanted in (("index", OF_INDEX), ("given", OF_GIVEN), ("answer", OF_ANSWER)):
        if set(getattr(found, name)) != set(wanted):
            raise ValueError(f"relevance.{name} is not for exactly {', '.join(wanted)}")
