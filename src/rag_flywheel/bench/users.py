"""Simulated users: who look at hits, judge them, and are sometimes wrong.

They see what a real user sees, and know which passages answer their query.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rag_flywheel.records import Retrieval, Verdict, Vote


@dataclass(frozen=True)
class Users:
    """eta: the hit at rank r is looked at with probability r^-eta; eps: share of wrong verdicts.

    The attention model is the position bias of Joachims, Swaminathan and Schnabel (WSDM 2017).
    """

    eta: float = 1.0
    eps: float = 0.2

    def votes(
        self, seen: Retrieval, answers: Mapping[str, int], user_id: str, rng: np.random.Generator
    ) -> list[Vote]:
        """The votes of one user on one recorded retrieval; answers: {passage id: grade}."""
        votes = []
        for hit in seen.hits:
            looks, errs = rng.random(2)
            if looks >= hit.rank**-self.eta:
                continue
            good = (answers.get(hit.passage_id, 0) > 0) != (errs < self.eps)
            verdict: Verdict = "helpful" if good else "harmful"
            votes.append(Vote(str(seen.id), hit.passage_id, verdict, user_id))
        return votes
