"""Simulated users: who look at hits, judge them, and are sometimes wrong, or mean harm.

They see what a real user sees, and know which passages answer their query.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rag_flywheel.records import Retrieval, Verdict, Vote

Attack = Literal["random", "inverted", "collude"]
ATTACKS: tuple[Attack, ...] = ("random", "inverted", "collude")
_READ = 3  # hits that an answer is taken to rest on


@dataclass(frozen=True)
class Users:
    """How users look and judge.

    eta: the hit at rank r is looked at with probability r^-eta (position bias: Joachims,
    Swaminathan and Schnabel, WSDM 2017). eps: share of wrong verdicts. trust: probability that a
    hit at rank 1 that does not help is called helpful for its rank alone, falling as 1/rank (trust
    bias: Agarwal et al., WWW 2019). malicious: share of users whose verdicts are an attack:
    "random", "inverted", or "collude": helpful on the one passage they push (the first in
    alphabetical order that they see), harmful on all others; they look at every hit.
    answer_level: users judge only the answer: helpful if one of its first 3 hits is, and that
    verdict falls on each of the 3.
    """

    eta: float = 1.0
    eps: float = 0.2
    trust: float = 0.0
    malicious: float = 0.0
    attack: Attack = "inverted"
    answer_level: bool = False

    def votes(
        self, seen: Retrieval, answers: Mapping[str, int], user_id: str, rng: np.random.Generator
    ) -> list[Vote]:
        """The votes of one user on one recorded retrieval; answers: {passage id: grade}."""
        helps = {h.passage_id: answers.get(h.passage_id, 0) > 0 for h in seen.hits}
        if self.malicious and rng.random() < self.malicious:
            verdicts = self._attack(helps, rng)
        elif self.answer_level:
            first = [h.passage_id for h in seen.hits[:_READ]]
            good = any(helps[p] for p in first) != (rng.random() < self.eps)
            verdicts = dict.fromkeys(first, good)
        else:
            verdicts = self._honest(seen, helps, rng)
        return [
            Vote(seen.id, passage, _verdict(good), user_id) for passage, good in verdicts.items()
        ]

    def _honest(
        self, seen: Retrieval, helps: Mapping[str, bool], rng: np.random.Generator
    ) -> dict[str, bool]:
        verdicts = {}
        for hit in seen.hits:
            looks, errs, trusts = rng.random(3)
            if looks < hit.rank**-self.eta:
                good = helps[hit.passage_id] or trusts < self.trust / hit.rank
                verdicts[hit.passage_id] = good != (errs < self.eps)
        return verdicts

    def _attack(self, helps: Mapping[str, bool], rng: np.random.Generator) -> dict[str, bool]:
        if self.attack == "random":
            return {p: bool(rng.random() < 0.5) for p in helps}
        if self.attack == "inverted":
            return {p: not good for p, good in helps.items()}
        pushed = min(helps, default="")
        return {p: p == pushed for p in helps}


def _verdict(good: bool) -> Verdict:
    return "helpful" if good else "harmful"
