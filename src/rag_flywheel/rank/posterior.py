"""Computes the posterior chance that each passage is the answer of a past query, given the votes.

Exactly one passage is assumed to be the answer. A vote is right with probability 1 − noise, on the
answer and on the others alike, so a "helpful" multiplies a passage's odds by (1 − noise) / noise
and a "harmful" divides them (Bayes' rule).
"""

import math
from collections.abc import Mapping, Sequence

from rag_flywheel.records import Judgment, Support

CORRECTION_WEIGHT = (
    2.0  # naming the answer counts as two votes: it was picked from all, not from eight hits
)
NAMED = 0.05  # the least chance, before the votes, of a passage that a user named
NOISE_LIMIT = 0.45  # votes that are wrong more often are no evidence
_LEAST = 0.01  # smaller chances are left out
_FARTHEST = 50.0  # log-odds


def vote_log_odds(noise: float) -> float:
    """What one "helpful" adds to the log-odds of a passage: log((1 − noise) / noise); 0 where so many
    votes are wrong that they are no evidence."""
    if noise > NOISE_LIMIT:
        return 0.0
    return math.log((1.0 - noise) / noise)


def credited(
    before: Mapping[int, float], judgments: Sequence[Judgment], noise: float
) -> tuple[Support, ...]:
    """Chances after the votes, by passage text, the likeliest first, with the log-odds of the votes.
    Chances below 0.01 are 0, unless votes call the passage helpful; a passage with neither a chance
    nor votes is left out.

    before: chances before the votes, by lineage; what they lack to 1 is the chance of any other.
    """
    per_vote = vote_log_odds(noise)
    odds, powers, named = dict(before), dict[int, float](), set[int]()
    helped = {j.lineage for j in judgments if j.helpful > j.harmful}
    for judgment in judgments:
        power = per_vote * (judgment.helpful - judgment.harmful)
        power = min(max(power, -_FARTHEST), _FARTHEST)
        p = judgment.lineage
        powers[p] = powers.get(p, 0.0) + power
        odds[p] = odds.get(p, 0.0) * math.exp(power)
        if judgment.named > 0:
            named.add(p)
    total = sum(odds.values()) + max(0.0, 1.0 - sum(before.values()))
    found = []
    for p, odd in odds.items():
        power = powers.get(p, 0.0)
        likely = total > 0.0 and (odd >= _LEAST * total or (p in helped and odd > 0.0))
        if likely or power != 0.0:
            found.append(Support(p, odd / total if likely else 0.0, power, p in named))
    return tuple(sorted(found, key=lambda s: (-s.chance, s.lineage)))
