"""Brings new and live parameters before the gate, with the scores of both on held-out queries."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rag_flywheel.evaluate.gate import (
    Decision,
    Looks,
    Pair,
    TrialResults,
    decide,
    decide_again,
    decide_encoder,
)
from rag_flywheel.evaluate.held_out import (
    HeldOut,
    Judges,
    chances_of,
    golden_ndcg,
    judge_held_out,
    neighbour_chances,
    shared_hits,
    slices,
)
from rag_flywheel.improve.examples import Examples, Floats, Ints
from rag_flywheel.index.nearest import Nearest
from rag_flywheel.rank.parameters import Parameters


@dataclass(frozen=True)
class Side:
    """One side of a trial: parameters, and the queries that judge them."""

    parameters: Parameters
    judges: Judges

    @cached_property
    def held_out(self) -> HeldOut:
        """The scores on held-out queries."""
        test = self.judges.held_out
        return judge_held_out(test, self._chances(test, self.judges.near), self.parameters)

    @cached_property
    def golden(self) -> Floats:
        """nDCG@10 of golden queries."""
        golden = self.judges.golden
        return golden_ndcg(golden.queries, golden.answers, self._chances(golden.queries))

    @cached_property
    def _memory(self) -> Floats:
        return neighbour_chances(self.judges.others, self.parameters)

    def _chances(self, test: Examples, near: Nearest | None = None) -> Floats:
        others = self.judges.others
        return chances_of(test, others, self.parameters, memory=self._memory, near=near)


@dataclass(frozen=True)
class Gate:
    """A decision with its numbers, the candidate parameters, and the scores by query."""

    decision: Decision
    scores: Mapping[str, float]
    candidate: Parameters
    by_query: Mapping[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        """The gate as plain data, to be stored in a version."""
        return {
            "decision": asdict(self.decision),
            "scores": self.scores,
            "candidate": asdict(self.candidate),
            **self.by_query,
        }


def gated(
    candidate: Side,
    incumbent: Side,
    groups: Ints,
    n_votes: int,
    looks: Looks | None,
    *,
    other_encoder: bool = False,
) -> Gate:
    """Decide whether the candidate replaces the incumbent; neither was fitted to the judges.

    Both have the same judges, by their keys. groups int64 (m,): of near-duplicates among the held-out
    queries; n_votes: all votes, on judges and others; looks: the earlier looks, None: the candidate is
    learned again, which is no look; other_encoder: the candidate is one.
    """
    new, old = candidate.held_out, incumbent.held_out
    sides = {"candidate": new, "incumbent": old}
    first, group = np.unique(groups, return_index=True, return_inverse=True)[1:]

    def of_groups(values: Mapping[str, Floats]) -> dict[str, Floats]:
        return {name: _means(given, group, len(first)) for name, given in values.items()}

    likely = of_groups({name: side.log_likelihood for name, side in sides.items()})
    ordered = of_groups({name: side.condensed for name, side in sides.items()})
    golden = Pair(candidate.golden, incumbent.golden)
    judges = incumbent.judges
    parts = slices(judges.held_out, judges.others, judges.near)
    masks = {name: mask[first] for name, mask in parts.items()}
    known = ~np.isnan(ordered["candidate"])
    condensed = Pair(ordered["candidate"][known], ordered["incumbent"][known])
    stay = shared_hits(new, old)
    results = TrialResults(Pair(**likely), masks, condensed, golden, stay)
    if looks is None:
        decision = decide_again(results)
    else:
        decision = (decide_encoder if other_encoder else decide)(results, n_votes, looks)
    by_query = {
        "queries": [key.query_hash.hex() for key in judges.held_out.keys],
        "groups": group.tolist(),
        "log_likelihood": _rounded(likely),
        "condensed_ndcg": _rounded(ordered),
        "slices": {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()},
        "golden_queries": [key.query_hash.hex() for key in judges.golden.queries.keys],
        "golden_ndcg@10": _rounded(asdict(golden)),
    }
    scores = _scores(decision, new, old, condensed, golden, stay)
    return Gate(decision, scores, candidate.parameters, by_query)


def _scores(
    decision: Decision, new: HeldOut, old: HeldOut, condensed: Pair, golden: Pair, stay: float
) -> dict[str, float]:
    found = {
        "n_held_out": float(len(new.judged)),
        "n_golden": float(len(golden)),
        "gate_look": float(decision.look),
        "gate_alpha": decision.alpha,
        "kept_hits": stay,
        "judged@8": _mean(new.judged),
        "judged@8_before": _mean(old.judged),
        "condensed_gain": _mean(condensed.differences),
        "golden_gain": _mean(golden.differences),
    }
    for name, pair in (("condensed_ndcg", condensed), ("golden_ndcg@10", golden)):
        if len(pair):
            found |= {name: _mean(pair.candidate), f"{name}_before": _mean(pair.incumbent)}
    if decision.p is not None and decision.mean is not None and decision.error is not None:
        found |= {"gate_p": decision.p, "gain": decision.mean, "gain_error": decision.error}
    return found


def _means(values: Floats, group: Ints, n: int) -> Floats:
    """The mean of each of n groups, nan left out; nan where nothing else is."""
    there = ~np.isnan(values)
    total = np.bincount(group[there], values[there], minlength=n)
    count = np.bincount(group[there], minlength=n)
    means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def _rounded(sides: Mapping[str, Floats]) -> dict[str, list[float | None]]:
    return {
        name: [None if np.isnan(v) else round(v, 6) for v in values.tolist()]
        for name, values in sides.items()
    }
