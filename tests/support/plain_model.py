"""The documented ranking model in plain Python, passage by passage, to compare with what is served;
and a collection in which votes help."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from rag_flywheel import Flywheel, Passage, Retrieval, Vote
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.posterior import Rates

Chances = dict[str, float]
# below 64 past queries a refresh keeps them
RATES, KERNEL = Parameters().rates, Parameters().kernel
TOPICS = 150


def shared_out(values: Mapping[str, float]) -> Chances:
    """Chances in proportion to exp(value), those of the best 50 adding up to one."""
    best = max(values.values())
    total = sum(math.exp(v - best) for v in sorted(values.values())[-50:])
    return {p: math.exp(v - best) / total for p, v in values.items()}


def odds_of(votes: float | tuple[float, float], rates: Rates) -> float:
    """Bayes: what votes multiply the odds of a passage by; votes: "helpful" less "harmful" ones, or both."""
    helpful, harmful = votes if isinstance(votes, tuple) else (max(votes, 0), max(-votes, 0))
    says_so = (1 - rates.false_harmful) / rates.false_helpful
    denies = rates.false_harmful / (1 - rates.false_helpful)
    found: float = says_so**helpful * denies**harmful
    return found


def after_votes(before: Mapping[str, float], net: Mapping[str, float], rates: Rates) -> Chances:
    """The chances after votes, by Bayes' rule.

    What the chances before lack to 1 is that of passages not named; below 0.01 says nothing,
    unless votes call the passage helpful.
    """
    odds = {p: chance * odds_of(net.get(p, 0), rates) for p, chance in before.items()}
    total = sum(odds.values()) + max(0.0, 1.0 - sum(before.values()))
    return {p: odd / total for p, odd in odds.items() if odd >= 0.01 * total or net.get(p, 0) > 0}


def scored(
    prior: Mapping[str, float],
    heard: Iterable[tuple[float, Chances]],
    n0: float,
    own: Mapping[str, float | tuple[float, float]] | None = None,
    rates: Rates = RATES,
) -> Chances:
    """log of (n0 prior + S) / (n0 + sum of S), after the votes on the question itself.

    heard: the weight K and the chances of each similar past query; own: votes on the question itself.
    """
    heard = list(heard)
    support = {p: sum(k * past_query.get(p, 0.0) for k, past_query in heard) for p in prior}
    total = sum(support.values())
    before = {p: (n0 * prior[p] + support[p]) / (n0 + total) for p in prior}
    odds = {p: b * odds_of((own or {}).get(p, 0), rates) for p, b in before.items()}
    every = sum(odds.values()) + max(0.0, 1.0 - sum(before.values()))
    return {p: math.log(odd / every) for p, odd in odds.items()}


def spellings(query: str, n: int) -> list[str]:
    """n past queries of their own that look the same to the word encoder."""
    return [query + " -" * i for i in range(n)]


def ids(found: Retrieval) -> list[str]:
    """Passage ids, the best first."""
    return [hit.passage_id for hit in found.hits]


def scores(found: Retrieval) -> dict[str, float]:
    """What was served, by passage id."""
    return {hit.passage_id: hit.score for hit in found.hits}


def topics(n: int = TOPICS) -> list[Passage]:
    """For each topic an answer and a decoy that look alike to every phrasing of its question, but
    for two words of it that stand together in the answer alone."""
    return [
        Passage(f"{kind}{t}", words.format(t=t))
        for t in range(n)
        for kind, words in (
            ("answer", "topic{t} problem{t} fix{t} solution"),
            ("decoy", "problem{t} story{t} topic{t} tale"),
        )
    ]


def phrasings(start: int, stop: int, n: int = TOPICS) -> list[str]:
    """These phrasings of each topic's question; votes on one help the others by the memory, votes
    on other topics help by weights alone."""
    return [f"topic{t} problem{t} word{t}x{i} please" for t in range(n) for i in range(start, stop)]


def is_answer(query: str, passage_id: str) -> bool:
    return passage_id == query.split()[0].replace("topic", "answer")


def vote_on(
    fw: Flywheel, queries: Sequence[str], says: Callable[[str, str], bool], user: str = "ann"
) -> None:
    """One vote on each of the best three hits; says: whether a hit is helpful for a query."""
    votes = []
    for shown in fw.retrieve_many(queries):
        for hit in shown.hits[:3]:
            verdict = "helpful" if says(shown.query, hit.passage_id) else "harmful"
            votes.append(Vote(shown.id, hit.passage_id, verdict, user))  # type: ignore[arg-type]
    fw.feedback_many(votes)
