"""The grid of kernels, against the likelihood of votes computed query by query."""

import math
from dataclasses import replace

import numpy as np
import pytest

from rag_flywheel.improve import kernel
from rag_flywheel.improve.examples import Examples, kernel_weights
from rag_flywheel.improve.kernel import CrossFitted, likeliest_kernel, of_other_needs
from rag_flywheel.improve.likelihood import as_chosen, log_likelihoods, vote_odds, with_support
from rag_flywheel.improve.propagate import support_of
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.rank.posterior import Rates
from rag_flywheel.records import QueryKey

KERNELS = [Kernel(0.1, 0.9, 1.0), Kernel(0.4, 0.95, 2.0), Kernel(0.8, 0.99, 8.0)]
N0 = np.array([5.0, 0.3, 0.01])


def past(seed: int, n: int, *, chosen: bool) -> Examples:
    """Alike queries on one set of passages each, with votes on some."""
    rng = np.random.default_rng(seed)
    width, group = 6, np.arange(n) // 5
    vectors = rng.normal(size=(n, 16))[group * 5] + 0.4 * rng.normal(size=(n, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    passages = group[:, None] * 4 + rng.permuted(np.tile(np.arange(9), (n, 1)), axis=1)
    lineages = passages[:, :width].astype(np.int64)
    lineages[::7, -1] = lineages[::7, 0]  # twice the same passage
    lineages[rng.random(lineages.shape) < 0.1] = -1
    there = lineages >= 0
    votes = (rng.random((2, n, width)) < 0.25) * there
    return Examples(
        [QueryKey(i.to_bytes(16, "big"), None) for i in range(n)],
        vectors.astype(np.float32),
        lineages,
        rng.random((n, width, len(FEATURES))).astype(np.float32),
        votes[0].astype(np.float64),
        votes[1].astype(np.float64),
        np.zeros(n, np.int64),
        chosen=rng.random((n, width)) * there if chosen else None,
    )


def plain_gains(examples: Examples, found: Parameters, known: CrossFitted) -> list[list[float]]:
    """The same sums, from the chances of all candidates with the memory and without."""
    rows = []
    for each in KERNELS:
        row = []
        for n0 in N0.tolist():
            shares = {1.0 - kernel.NEW_NEEDS: known.near}
            shares[kernel.NEW_NEEDS] = of_other_needs(known.near, examples)
            total = 0.0
            for share, near in shares.items():
                weights = kernel_weights(near, each)
                sums = support_of(near, examples, examples, known.chances, weights, found)
                chances = with_support(known.prior, *sums, n0)
                total += share * gain_of(examples, found, known.prior, chances)
            row.append(total)
        rows.append(row)
    return rows


def gain_of(examples: Examples, found: Parameters, prior: np.ndarray, chances: np.ndarray) -> float:
    if found.answers is None:
        with_it = log_likelihoods(examples, chances, found)
        return float((with_it - log_likelihoods(examples, prior, found)).sum())
    voted, odds = examples.voted, vote_odds(examples, found.rates)
    total = 0.0
    for sign, given in ((1.0, chances), (-1.0, prior)):
        before = np.where(voted, given, prior)
        by_votes = np.log1p(as_chosen(examples, before, found) * (odds - 1.0))[voted]
        total += sign * float(by_votes.sum())
        for p, now in zip(
            prior[~voted & examples.present], given[~voted & examples.present], strict=True
        ):
            now = min(max(now, 1e-9), 1.0 - 1e-9)
            paid = p * math.log(now) + (1.0 - p) * math.log1p(-now)
            total += sign * kernel.UNSHOWN * paid
    return total


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("answers", [None, 1.7])
def test_gains_are_those_of_the_chances_with_the_memory(
    answers: float | None, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_AT_ONCE", 16)  # queries: several parts
    monkeypatch.setattr(kernel, "_NOTHING", math.inf)  # every gain is computed to the end
    examples = past(3, 60, chosen=chosen)
    found = replace(Parameters(), rates=Rates(0.15, 0.1), answers=answers, choice=0.8)
    known = CrossFitted.of(examples, found)
    gains = kernel._gains(examples, found, known, KERNELS, N0, np.zeros(len(N0)))
    assert gains == pytest.approx(np.array(plain_gains(examples, found, known)), abs=1e-8)


def test_what_is_left_out_of_the_grid_weighs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_AT_ONCE", 16)
    examples = past(4, 400, chosen=False)
    found = replace(Parameters(), rates=Rates(0.05, 0.05), answers=1.2)
    known = CrossFitted.of(examples, found)
    monkeypatch.setattr(kernel, "_NOTHING", 3.0)
    some = kernel._gains(examples, found, known, KERNELS, N0, np.zeros(len(N0)))
    assert np.isneginf(some).any()
    monkeypatch.setattr(kernel, "_NOTHING", math.inf)
    every = kernel._gains(examples, found, known, KERNELS, N0, np.zeros(len(N0)))
    left = np.isneginf(some)
    assert (every[left] < every.max() - 3.0).all()
    assert some[~left] == pytest.approx(every[~left])
    whole = likeliest_kernel(examples, found)
    monkeypatch.setattr(kernel, "_NOTHING", 50.0)
    assert likeliest_kernel(examples, found) == whole
