"""Brings new parameters and the live ones before the gate, with what held-out queries say of both.

It must not know how parameters were fitted, nor what becomes of the decision.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rag_flywheel.evaluate.gate import Decision, Heard, Looks, Pair, decide
from rag_flywheel.improve.examples import Examples, Floats, Ints
from rag_flywheel.improve.held_out import (
    HeldOut,
    golden_ndcg,
    held_out_says,
    kept_hits,
    slices,
)
from rag_flywheel.rank.parameters import Parameters

FILE_NAME = "gate.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Golden:
    """Queries with known answers, which have no votes: {lineage: grade} of each."""

    queries: Examples
    answers: Sequence[Mapping[int, float]]


def no_golden(like: Examples) -> Golden:
    """No golden query at all."""
    return Golden(like.at(np.empty(0, dtype=np.int64)), [])


@dataclass(frozen=True)
class Judges:
    """Who judges: held-out queries by their votes, a group of near-duplicates as one; golden
    queries; others: whom both sides know. groups int64 (m,): of the held-out queries.
    """

    held_out: Examples
    groups: Ints
    golden: Golden
    others: Examples


@dataclass(frozen=True)
class Gate:
    """A decision, the numbers beside it, the parameters it is on, and the scores by query."""

    decision: Decision
    scores: Mapping[str, float]
    candidate: Parameters
    by_query: Mapping[str, Any]

    @property
    def text(self) -> str:
        """As it is kept in a version: JSON."""
        found = {
            "format_version": FORMAT_VERSION,
            "decision": asdict(self.decision),
            "scores": self.scores,
            "candidate": asdict(self.candidate),
            **self.by_query,
        }
        return json.dumps(found, indent=1) + "\n"


def undecided_text(why: str) -> str:
    """What is kept in a version when nothing came before the gate: why; JSON."""
    return json.dumps({"format_version": FORMAT_VERSION, "why": why}, indent=1) + "\n"


def gated(
    judges: Judges, candidate: Parameters, kept: Parameters, n_votes: int, looks: Looks
) -> Gate:
    """Whether the candidate replaces the kept parameters; neither was fitted to the judges.

    n_votes: how many votes there are in all, judges' and others'.
    """
    both = {"candidate": candidate, "incumbent": kept}
    said = {name: held_out_says(judges.held_out, judges.others, p) for name, p in both.items()}
    new, old = said["candidate"], said["incumbent"]
    first, group = np.unique(judges.groups, return_index=True, return_inverse=True)[1:]

    def of_groups(values: Mapping[str, Floats]) -> dict[str, Floats]:
        return {name: _means(given, group, len(first)) for name, given in values.items()}

    likely = of_groups({name: s.log_likelihood for name, s in said.items()})
    ordered = of_groups({name: s.condensed for name, s in said.items()})
    golden = _golden(judges, candidate, kept)
    masks = {n: mask[first] for n, mask in slices(judges.held_out, judges.others).items()}
    known = ~np.isnan(ordered["candidate"])
    condensed = Pair(ordered["candidate"][known], ordered["incumbent"][known])
    stay = kept_hits(new, old)
    decision = decide(Heard(Pair(**likely), masks, condensed, golden, stay), n_votes, looks)
    by_query = {
        "queries": [key[0].hex() for key in judges.held_out.keys],
        "groups": group.tolist(),
        "log_likelihood": _rounded(likely),
        "condensed_ndcg": _rounded(ordered),
        "slices": {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()},
        "golden_queries": [key[0].hex() for key in judges.golden.queries.keys],
        "golden_ndcg@10": _rounded(asdict(golden)),
    }
    return Gate(decision, _scores(decision, new, old, condensed, golden, stay), candidate, by_query)


def _golden(judges: Judges, candidate: Parameters, kept: Parameters) -> Pair:
    queries, answers = judges.golden.queries, judges.golden.answers
    return Pair(*(golden_ndcg(queries, answers, judges.others, side) for side in (candidate, kept)))


def _scores(
    decision: Decision,
    new: HeldOut,
    old: HeldOut,
    condensed: Pair,
    golden: Pair,
    stay: float,
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
