"""Decides whether new parameters replace the live ones, from scores of both on the same queries.

The gate is given numbers by query; it must not know what was ranked, nor where parameters come from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from rag_flywheel.errors import counted
from rag_flywheel.evaluate.paired import ByQuery, better_test

Mask = npt.NDArray[np.bool_]
Outcome = Literal["better", "again", "no better", "vetoed", "too few", "too soon"]

ALPHA = 0.025  # chance that the first look lets in parameters that are no better
LEAST_JUDGED = 50  # queries that can decide, or veto
GROWTH = 1.5  # a look needs this many times the votes of the look before
VETO_ALPHA = 0.05
MARGIN = 0.005  # loss in a slice that is tolerated: nDCG, or log-likelihood a query
LARGE_CHANGE = 0.5  # share of the best 8 hits that stay; below, golden queries must gain
_ROUNDS = 10_000
_TINY = 1e-9  # gains that cancel leave a rounding error


@dataclass(frozen=True)
class Pair:
    """One measure of both sides on the same n queries, (n,) each, higher is better."""

    candidate: ByQuery
    incumbent: ByQuery

    def __len__(self) -> int:
        return len(self.candidate)

    @property
    def differences(self) -> ByQuery:
        """Candidate less incumbent, (n,)."""
        return self.candidate - self.incumbent


_NOTHING = Pair(np.empty(0), np.empty(0))


@dataclass(frozen=True)
class Looks:
    """How many looks there were since the last replacement, and the votes at the last of them."""

    n: int = 0
    n_votes: int = 0


@dataclass(frozen=True)
class TrialResults:
    """The scores of both sides, on queries that neither was fitted to.

    votes: log-likelihood of the votes on each group of near-duplicate held-out queries; slices: masks
    of such groups by name, (n,); condensed: nDCG of the judged hits alone, where it is defined;
    golden: nDCG@10 of queries with known answers; shared_hits: the share of the best 8 hits of
    held-out queries that both sides have.
    """

    votes: Pair = _NOTHING
    slices: Mapping[str, Mask] = field(default_factory=dict)
    condensed: Pair = _NOTHING
    golden: Pair = _NOTHING
    shared_hits: float = 1.0


@dataclass(frozen=True)
class Decision:
    """The outcome and the reason, decided by `measure` on n_judged queries.

    n_votes: all votes so far; look: the number of this look since parameters were last replaced, 0:
    none was taken; alpha: the significance level spent on it; p: the p value of the candidate being
    no better; mean, error: its mean gain a query and the standard error.
    """

    outcome: Outcome
    why: str
    measure: str
    n_judged: int
    n_votes: int = 0
    look: int = 0
    alpha: float = 0.0
    p: float | None = None
    mean: float | None = None
    error: float | None = None

    @property
    def replaces(self) -> bool:
        """Whether the candidate's parameters become the live ones."""
        return self.outcome in ("better", "again")


def alpha_of(look: int) -> float:
    """What look k = 1, 2, … since the last replacement may spend: ALPHA / k.

    A spending rule in the sense of Lan and DeMets (Biometrika 1983) with the number of looks left
    open: each look has GROWTH times the votes of the one before, so looks are much alike, and the
    chance that any of the first 10 errs is below 0.05, of the first 20 below 0.06 (normal
    differences, by simulation).
    """
    return ALPHA / look


def too_soon(n_votes: int, before: Looks) -> str:
    """Why n_votes are too few for another look; empty when one is due."""
    enough = math.ceil(GROWTH * before.n_votes)
    return (
        f"{counted(n_votes, 'vote')} so far, the next look is at {enough}"
        if n_votes < enough
        else ""
    )


def decide(results: TrialResults, n_votes: int, before: Looks, *, seed: int = 0) -> Decision:
    """Decide whether the candidate is better, and no veto applies.

    Held-out votes decide, or golden queries where too few have votes: better is a one-sided paired
    randomisation test of the mean gain at what this look may spend. A veto: a slice of the votes,
    the order of judged hits, or golden queries are worse by more than MARGIN at p < 0.05; or most
    of the best hits change, which votes on the incumbent's hits cannot judge, and golden queries do
    not gain.
    """
    return _decided(*_deciding(results), results, n_votes, before, seed)


def decide_encoder(
    results: TrialResults, n_votes: int, before: Looks, *, seed: int = 0
) -> Decision:
    """Decide whether another encoder is better, and no veto applies.

    As `decide`, but where both held-out votes and golden queries are enough, either may tell, at half of what
    this look may spend: votes were cast on what the live encoder found, so that they say little of what the
    other one finds instead. Where golden queries tell, a loss of all held-out votes is a veto as well.
    """
    if min(len(results.votes), len(results.golden)) < LEAST_JUDGED:
        return decide(results, n_votes, before, seed=seed)
    votes, golden = results.votes.differences, results.golden.differences
    by_votes = _decided("held-out votes", votes, results, n_votes, before, seed, share=0.5)
    if by_votes.outcome in ("better", "vetoed"):
        return by_votes
    every = {**results.slices, "all held-out": np.ones(len(votes), dtype=bool)}
    results = replace(results, slices=every)
    by_golden = _decided("golden queries", golden, results, n_votes, before, seed, share=0.5)
    if by_golden.outcome in ("better", "vetoed"):
        return by_golden
    return replace(by_votes, why=f"{by_votes.why}, and {by_golden.why}")


def _decided(
    measure: str,
    gains: ByQuery,
    results: TrialResults,
    n_votes: int,
    before: Looks,
    seed: int,
    share: float = 1.0,
) -> Decision:
    """The decision by the gains in this measure; share: of what the look may spend."""
    n = len(gains)
    if undecided := _undecided(measure, gains):
        return undecided
    if why := too_soon(n_votes, before):
        return Decision("too soon", why, measure, n, n_votes)
    look = before.n + 1
    alpha = share * alpha_of(look)
    rounds = max(_ROUNDS, math.ceil(4 / alpha))
    p = better_test(gains, n_rounds=rounds, seed=seed)
    mean, error = float(gains.mean()), float(gains.std(ddof=1)) / n**0.5

    def decided(outcome: Outcome, why: str) -> Decision:
        return Decision(outcome, why, measure, n, n_votes, look, alpha, p, mean, error)

    spent = f"{mean:+.4f} a query, p {p:.4f}, look {look} may spend {alpha:.4f}"
    if p > alpha:
        return decided("no better", f"{measure} do not clearly gain ({spent})")
    if against := _veto(results, seed):
        return decided("vetoed", f"{measure} gain ({spent}), but {against}")
    return decided("better", f"{measure} gain ({spent})")


def decide_again(results: TrialResults, *, seed: int = 0) -> Decision:
    """Decide whether weights learned again, from the votes of weights that the gate let in less those
    deleted since, stay in the place of the shipped ones: where they gain, however little, and no veto
    applies.

    No look is taken and nothing is spent: only what a look let in can be learned again, so the chance
    that anything is let in that is no better is at most what it was.
    """
    measure, gains = _deciding(results)
    if undecided := _undecided(measure, gains):
        return undecided
    n, mean = len(gains), float(gains.mean())
    error = float(gains.std(ddof=1)) / n**0.5

    def decided(outcome: Outcome, why: str) -> Decision:
        return Decision(outcome, why, measure, n, mean=mean, error=error)

    gain = f"{mean:+.4f} a query"
    if mean <= 0.0:
        return decided("no better", f"without the deleted votes, {measure} do not gain ({gain})")
    if against := _veto(results, seed):
        return decided("vetoed", f"{measure} gain ({gain}), but {against}")
    return decided("again", f"{measure} gain ({gain}), which took no look")


def _deciding(results: TrialResults) -> tuple[str, ByQuery]:
    """(the measure that decides, its gains by query)."""
    if len(results.votes) < LEAST_JUDGED <= len(results.golden):
        return "golden queries", results.golden.differences
    return "held-out votes", results.votes.differences


def _undecided(measure: str, gains: ByQuery) -> Decision | None:
    """The decision where these gains cannot tell anything; None where they can."""
    n = len(gains)
    if n < LEAST_JUDGED:
        judged = counted(n, "held-out query has", "held-out queries have")
        why = f"{judged} votes, fewer than the {LEAST_JUDGED} that can decide"
        return Decision("too few", why, measure, n)
    if not np.isfinite(gains).all():
        return Decision("no better", f"{measure} give a gain that is no number", measure, n)
    if not np.any(gains):
        return Decision("no better", f"{measure} are as before", measure, n)
    return None


def _veto(results: TrialResults, seed: int) -> str:
    """The reason to veto the candidate; empty without one."""
    gains, golden = results.votes.differences, results.golden.differences
    parts = {f"votes on {name} queries": gains[mask] for name, mask in results.slices.items()}
    parts["the order of judged hits"] = results.condensed.differences
    parts["golden queries"] = golden
    for name, part in parts.items():
        worse = -part - MARGIN
        if len(part) >= LEAST_JUDGED and better_test(worse, seed=seed) < VETO_ALPHA:
            return f"{name} lose {-part.mean():.4f} (n {len(part)})"
    if results.shared_hits < LARGE_CHANGE and len(golden) >= LEAST_JUDGED and golden.mean() < _TINY:
        return (
            f"only {results.shared_hits:.0%} of the best hits stay and golden queries gain nothing"
        )
    return ""
