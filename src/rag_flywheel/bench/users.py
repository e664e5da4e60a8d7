"""Simulated users, who look at hits, judge them, and are sometimes wrong or malicious.

They see what a real user sees, and know which passages answer their query.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rag_flywheel.bench.reader import CAREFUL, write
from rag_flywheel.records import Retrieval, Verdict, Vote

Attack = Literal["random", "inverted", "collude"]
ATTACKS: tuple[Attack, ...] = ("random", "inverted", "collude")
Told = Literal["text", "cited", "nothing"]
TOLD: tuple[Told, ...] = ("text", "cited", "nothing")
_COIN = 0.5  # share of wrong verdicts
_ALIKE = 5.0  # how alike people are: the sum of the two parameters of a Beta distribution


@dataclass(frozen=True)
class OnAnswer:
    """A verdict on an answer.

    passage_id: the hit that the answer was written from. Rules that learn from votes on passages
        alone use it; the flywheel gets it only as `cited`.
    """

    retrieval_id: str | None
    passage_id: str
    verdict: Verdict
    user_id: str
    answer: str | None
    cited: tuple[str, ...] | None


@dataclass(frozen=True)
class Users:
    """How users look at hits and judge them.

    eta: the hit at rank r is looked at with probability r^-eta (position bias: Joachims,
    Swaminathan and Schnabel, WSDM 2017). eps: share of wrong verdicts. trust: probability that a
    hit at rank 1 that does not help is called helpful for its rank alone, falling as 1/rank (trust
    bias: Agarwal et al., WWW 2019). malicious: share of users whose verdicts are an attack:
    "random", "inverted", or "collude": helpful on the one passage they push (the first in
    alphabetical order that they see), harmful on all others; they look at every hit.
    answer_level: users judge only the answer, which a simulated reader writes from one hit (see
    `reader.write`, for `careful`): helpful if that hit is. Neither eta nor trust matters then. told:
    what the flywheel receives of the answer: its "text"; the hit that it "cited"; or "nothing".
    """

    eta: float = 1.0
    eps: float = 0.2
    trust: float = 0.0
    malicious: float = 0.0
    attack: Attack = "inverted"
    answer_level: bool = False
    told: Told = "text"
    careful: float = CAREFUL

    def feedback(
        self, seen: Retrieval, answers: Mapping[str, int], user_id: str, rng: np.random.Generator
    ) -> Sequence[Vote | OnAnswer]:
        """The feedback of one user on one recorded retrieval; answers: {passage id: grade}."""
        if self.answer_level:
            return self._on_answer(seen, answers, user_id, rng)
        return self.votes(seen, answers, user_id, rng)

    def votes(
        self, seen: Retrieval, answers: Mapping[str, int], user_id: str, rng: np.random.Generator
    ) -> list[Vote]:
        """The votes of one user on the hits of one recorded retrieval, whatever answer_level is."""
        helps = _helps(seen, answers)
        if self.malicious and rng.random() < self.malicious:
            verdicts = self._attack(helps, rng)
        else:
            verdicts = {}
            for hit in seen.hits:
                looks, errs, trusts = rng.random(3)
                if looks < hit.rank**-self.eta:
                    good = helps[hit.passage_id] or trusts < self.trust / hit.rank
                    verdicts[hit.passage_id] = good != (errs < self.eps)
        return [
            Vote(seen.id, passage, _verdict(good), user_id) for passage, good in verdicts.items()
        ]

    def _on_answer(
        self, seen: Retrieval, answers: Mapping[str, int], user_id: str, rng: np.random.Generator
    ) -> list[OnAnswer]:
        if not seen.hits:
            return []
        helps = _helps(seen, answers)
        source, text = write(seen, helps, self.careful, rng)
        if self.malicious and rng.random() < self.malicious:
            good = self._attack(helps, rng)[source]
        else:
            good = helps[source] != (rng.random() < self.eps)
        answer = text if self.told == "text" else None
        cited = (source,) if self.told == "cited" else None
        return [OnAnswer(seen.id, source, _verdict(good), user_id, answer, cited)]

    def _attack(self, helps: Mapping[str, bool], rng: np.random.Generator) -> dict[str, bool]:
        if self.attack == "random":
            return {p: bool(rng.random() < 0.5) for p in helps}
        if self.attack == "inverted":
            return {p: not good for p, good in helps.items()}
        pushed = min(helps, default="")
        return {p: p == pushed for p in helps}


@dataclass(frozen=True)
class Person:
    """A user with a name, who has habits of their own and votes after a share of their questions."""

    name: str
    habits: Users
    willingness: float

    def feedback(
        self, seen: Retrieval, answers: Mapping[str, int], rng: np.random.Generator
    ) -> Sequence[Vote | OnAnswer]:
        """The feedback of this person on one recorded retrieval; answers: {passage id: grade}."""
        if rng.random() >= self.willingness:
            return []
        return self.habits.feedback(seen, answers, self.name, rng)


def people(
    users: Users, n: int, willingness: float, rng: np.random.Generator
) -> tuple[Person, ...]:
    """n people whose habits are spread around those of `users`, who is their average.

    eps: between 0 (never wrong) and 1/2 (a coin), half of a draw from a Beta distribution; willingness:
    a draw from one too. eta: uniform within a half of the average, from those who read on to those who
    stop at once. An average at the end of its range is everybody's. malicious: the share of the
    people, rounded, who always attack.
    """
    attackers = set(rng.permutation(n)[: round(users.malicious * n)].tolist())
    found = []
    for number in range(n):
        eps = users.eps if users.eps > _COIN else _COIN * _around(users.eps / _COIN, rng)
        eta = users.eta * rng.uniform(0.5, 1.5)
        habits = replace(users, eps=eps, eta=eta, malicious=float(number in attackers))
        found.append(Person(f"user-{number + 1}", habits, _around(willingness, rng)))
    return tuple(found)


def _around(mean: float, rng: np.random.Generator) -> float:
    """A draw between 0 and 1 from the Beta distribution of this mean; an end of the range itself."""
    if not 0.0 < mean < 1.0:
        return mean
    return float(rng.beta(_ALIKE * mean, _ALIKE * (1.0 - mean)))


def _helps(seen: Retrieval, answers: Mapping[str, int]) -> dict[str, bool]:
    return {h.passage_id: answers.get(h.passage_id, 0) > 0 for h in seen.hits}


def _verdict(good: bool) -> Verdict:
    return "helpful" if good else "harmful"
