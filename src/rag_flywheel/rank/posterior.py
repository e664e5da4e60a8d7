"""Computes the posterior chance that each passage answers a past query, given the votes.

A vote on a passage is wrong with one of two rates (`Rates`). So a "helpful" multiplies the odds of a
passage by (1 − false_harmful) / false_helpful, and a "harmful" by false_harmful / (1 −
false_helpful) (Bayes' rule). Either exactly one passage is the answer, or any number of passages
may be, each on its own.

An answer is written from passages that somebody chose, which is evidence too where users call it good:
the part c of the answer that is a passage's multiplies its odds by exp(choice · c). Under a bad answer
it does not count, for a "harmful" must never raise what it is cast on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from rag_flywheel.records import Judgment, Support

CORRECTION_WEIGHT = (
    2.0  # naming the answer counts as two votes: it was picked from all, not from eight hits
)
NAMED = 0.05  # the least chance, before the votes, of a passage that a user named
NAMED_BY = 0.5  # the least weight of those who named it, a quarter of what one ordinary user has
NOISE_LIMIT = 0.45  # votes that are wrong more often are no evidence
LEAST_CHANCE = 0.01  # smaller chances of passages without votes say nothing
_FARTHEST = 50.0  # log-odds
_Rate = Annotated[float, Meta(ge=1e-6, le=1 - 1e-6)]


@dataclass(frozen=True)
class Rates:
    """How often votes are wrong.

    false_helpful: the share of votes on wrong passages that call them helpful; false_harmful: the
    share of votes on right passages that call them harmful.
    """

    false_helpful: _Rate = 0.2
    false_harmful: _Rate = 0.2

    @property
    def noise(self) -> float:
        """The mean of the two rates: 0.5 for votes that do not depend on what they are cast on."""
        return 0.5 * (self.false_helpful + self.false_harmful)

    @property
    def log_odds(self) -> tuple[float, float]:
        """What one "helpful" and one "harmful" add to the log-odds of a passage."""
        return (
            math.log((1.0 - self.false_harmful) / self.false_helpful),
            math.log(self.false_harmful / (1.0 - self.false_helpful)),
        )

    def of_votes(self, helpful: float, harmful: float) -> float:
        """What so many votes add to the log-odds of a passage, at most 50 either way; 0 where so many
        votes are wrong that they are no evidence."""
        if self.noise > NOISE_LIMIT:
            return 0.0
        by_helpful, by_harmful = self.log_odds
        power = helpful * by_helpful + harmful * by_harmful
        return min(max(power, -_FARTHEST), _FARTHEST)


def log_odds_of(judgment: Judgment, rates: Rates, choice: float) -> float:
    """What a judgment adds to the log-odds of its passage: its votes, and up to choice · chosen where
    "helpful" outweighs "harmful", all of it from a difference of `chosen` on; at most 50 either way."""
    if rates.noise > NOISE_LIMIT:
        return 0.0
    called_good = min(judgment.chosen, max(judgment.helpful - judgment.harmful, 0.0))
    power = rates.of_votes(judgment.helpful, judgment.harmful) + choice * called_good
    return min(power, _FARTHEST)


def credited(
    before: Mapping[int, float],
    judgments: Sequence[Judgment],
    rates: Rates,
    *,
    choice: float = 0.0,
    several: bool = False,
) -> tuple[Support, ...]:
    """Chances after the votes, by passage text, the likeliest first, with the log-odds of the votes.

    A chance below 0.01 is left out, or 0 where there are votes. Kept are chances of passages that votes
    call helpful, and with several answers of all that have votes.

    before: chances before the votes, by lineage. With one answer, what they lack to 1 is the chance of
    any other passage.
    choice: as in `Parameters`. several: whether any number of passages may answer a query.
    """
    odds, powers, named = dict(before), dict[int, float](), set[int]()
    kept = {j.lineage for j in judgments if several or j.helpful > j.harmful}
    for judgment in judgments:
        p = judgment.lineage
        powers[p] = powers.get(p, 0.0) + log_odds_of(judgment, rates, choice)
        odds.setdefault(p, 0.0)
        if judgment.named >= NAMED_BY:
            named.add(p)
    for p, power in powers.items():
        odds[p] *= math.exp(power)
    total = sum(odds.values()) + max(0.0, 1.0 - sum(before.values()))
    found = []
    for p, odd in odds.items():
        power = powers.get(p, 0.0)
        every = odd + max(0.0, 1.0 - before.get(p, 0.0)) if several else total
        likely = every > 0.0 and (odd >= LEAST_CHANCE * every or (p in kept and odd > 0.0))
        if likely or power != 0.0:
            found.append(Support(p, odd / every if likely else 0.0, power, p in named))
    return tuple(sorted(found, key=lambda s: (-s.chance, s.lineage)))
