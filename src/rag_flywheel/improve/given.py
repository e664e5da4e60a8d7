"""Tells examples with an application's own candidates from others, and writes what is fitted to them."""

from dataclasses import replace

import numpy as np

from rag_flywheel.improve.examples import Examples, Floats
from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.parameters import Parameters

_SCORE = len(FEATURES) + GIVEN.index("score")
_LEAST_UNIT = 1e-25


def of_index(examples: Examples) -> Examples:
    """The examples whose candidates are passages of the index."""
    given = examples.given
    return examples if given is None else examples.at(np.flatnonzero(~given))


def own_given(examples: Examples) -> Examples:
    """The examples whose candidates are an application's own."""
    given = examples.given
    return examples.at(np.flatnonzero(given) if given is not None else np.empty(0, np.int64))


def given_scale(examples: Examples) -> Floats:
    """The unit of each feature that a search for weights takes small steps in, float64 (d,).

    That of an application's scores is the median span of those of a query, the others' is 1.
    """
    scale = np.ones(examples.features.shape[2])
    spans = -own_given(examples).features[:, :, _SCORE].min(axis=1, initial=0.0).astype(np.float64)
    if spans.any():
        scale[_SCORE] = max(float(np.median(spans[spans > 0])), _LEAST_UNIT)
    return scale


def with_given(parameters: Parameters, weights: Floats) -> Parameters:
    """With these weights, float64 (10,), of an application's own candidates, in the order of GIVEN."""
    spread, score, *others = weights.tolist()
    named = {"score": float(f"{score:.6g}")}  # of any size, since its unit is the application's
    named |= {name: round(w, 4) for name, w in zip(GIVEN[2:], others, strict=True)}
    return replace(parameters, candidate_spread=round(spread, 4), given=named, given_sharpness=1.0)
