"""Queries and the evidence of votes as ranking takes them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fakes import Vectors
from rag_flywheel.improve.examples import Examples, Floats
from rag_flywheel.improve.likelihood import calibrated
from rag_flywheel.rank.evidence import Asked
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.posterior import Rates
from rag_flywheel.rank.score import Votes


def asked(vectors: Vectors) -> list[Asked]:
    """Queries of these vectors, whose words nobody asked before."""
    return [Asked(vector) for vector in vectors]


def supported(support: Sequence[float]) -> Votes:
    """Votes on similar questions alone, which give candidates this S."""
    nothing = np.zeros(len(support))
    return Votes(np.array(support, dtype=np.float64), nothing, nothing, nothing)


def of_net(net: Floats) -> dict[str, Floats]:
    """Votes of examples, by field: "helpful" where net is above 0, "harmful" where it is below."""
    values = np.asarray(net, dtype=np.float64)
    return {"helpful": np.maximum(values, 0.0), "harmful": np.maximum(-values, 0.0)}


def even(noise: float) -> Rates:
    """Votes that are wrong as often on right passages as on wrong ones."""
    return Rates(noise, noise)


def with_noise(noise: float, *, answers: float | None = None) -> Parameters:
    """The shipped parameters but for these."""
    return replace(Parameters(), rates=even(noise), answers=answers)


def calibrated_by(examples: Examples, weights: Floats, noise: float) -> tuple[float, float]:
    """(sharpness, choice) fitted to examples with three features, under a prior of these weights."""
    n_others = len(FEATURES) - 3
    zeros = np.zeros((*examples.lineages.shape, n_others), np.float32)
    padded = replace(examples, features=np.concatenate([examples.features, zeros], axis=2))
    named = dict(zip(FEATURES, [*weights.tolist(), *[0.0] * n_others], strict=True))
    return calibrated(padded, replace(with_noise(noise), weights=named))[:2]
