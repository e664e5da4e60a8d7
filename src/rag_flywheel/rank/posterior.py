"""Credit: the chance that each passage is the answer of a past query, after the votes on it.

One of the passages is taken to be the answer. A vote on it is right with probability 1 − noise, a
vote on another one too, so a "helpful" multiplies its odds by (1 − noise) / noise and a "harmful"
divides them (Bayes' rule).
"""

import math
from collections.abc import Mapping, Sequence

from rag_flywheel.records import Judgment, Support

NAMING = 2.0  # votes that it counts as to name one passage out of all, not one of eight ticked
_LEAST = 0.01  # chances below say nothing
_FARTHEST = 50.0  # log-odds


def vote_log_odds(noise: float) -> float:
    """What one "helpful" adds to the log-odds of a passage: log((1 − noise) / noise)."""
    return math.log((1.0 - noise) / noise)


def credited(
    before: Mapping[int, float], judgments: Sequence[Judgment], noise: float
) -> tuple[Support, ...]:
    """Chances after the votes, by passage text, the likeliest first; those below 0.01 are left out,
    unless votes call them helpful.

    before: chances before the votes, by lineage; what they lack to 1 is the chance of any other.
    """
    per_vote = vote_log_odds(noise)
    odds = dict(before)
    for judgment in judgments:
        power = per_vote * (judgment.helpful - judgment.harmful)
        moved = math.exp(min(max(power, -_FARTHEST), _FARTHEST))
        odds[judgment.lineage] = odds.get(judgment.lineage, 0.0) * moved
    total = sum(odds.values()) + max(0.0, 1.0 - sum(before.values()))
    if total <= 0.0:
        return ()
    helped = {j.lineage for j in judgments if j.helpful > j.harmful}
    found = [
        Support(p, odd / total)
        for p, odd in odds.items()
        if odd >= _LEAST * total or (p in helped and odd > 0.0)
    ]
    return tuple(sorted(found, key=lambda s: (-s.chance, s.lineage)))
