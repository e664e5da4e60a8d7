"""The stream of questions of cycles-v2: needs by Zipf's law, repeats, rephrasings, and who asks.

It depends on the collection, the protocol's traffic and its seed alone, so it is the same for every
run and every ranking; it must not know what users are shown, nor how they vote.
"""

from collections import defaultdict

import numpy as np

from rag_flywheel.bench.protocol import Traffic
from rag_flywheel.formats.beir import Split
from rag_flywheel.store.passages import normalised

Need = frozenset[str]
"""The ids of all passages that answer a question; questions that have the same ask for the same."""


def stream(train: Split, traffic: Traffic, rng: np.random.Generator) -> list[tuple[str, int]]:
    """The questions in the order they are asked: (query id, number of the user who asks).

    Needs are ordered by chance; the last `unasked` of them are asked by nobody, and the others as
    often as `zipf_counts` says. What falls to a need is shared out in the same way among its
    phrasings, in an order of their own, so that a popular need is asked in many words and in the same
    words many times. All users have asked a question before one asks it again.
    """
    found = list(needs_of(train).values())
    asked = rng.permutation(len(found))[: max(1, round((1.0 - traffic.unasked) * len(found)))]
    n_asked = len(train.queries) if traffic.n_asked is None else traffic.n_asked
    askings: list[tuple[str, int]] = []
    for place, n in zip(
        asked.tolist(), zipf_counts(n_asked, len(asked), traffic.exponent), strict=True
    ):
        phrasings = rng.permutation(found[place]).tolist()
        counts = zipf_counts(n, len(phrasings), traffic.exponent)
        for query, times in zip(phrasings, counts, strict=True):
            askings += [(query, user) for user in _in_turn(traffic.n_users, times, rng)]
    return [askings[i] for i in rng.permutation(len(askings)).tolist()]


def zipf_counts(n: int, n_ranks: int, exponent: float) -> list[int]:
    """n shared out among the ranks 1 to n_ranks in proportion to rank^-exponent, as whole numbers.

    Each rank gets its quota rounded down, and what is left goes to the largest remainders, of equal
    ones to the first (Hamilton's apportionment): the counts add up to n and never rise with the rank.
    Zipf (1949), Human Behavior and the Principle of Least Effort.
    """
    shares = np.arange(1, n_ranks + 1, dtype=np.float64) ** -exponent
    quotas = n * shares / shares.sum()
    counts = np.floor(quotas).astype(np.int64)
    left = np.argsort(-(quotas - counts), kind="stable")[: n - int(counts.sum())]
    counts[left] += 1
    return [int(count) for count in counts]


def _in_turn(n_users: int, times: int, rng: np.random.Generator) -> list[int]:
    """Numbers of the users who ask one question: everybody in a random order, then all anew."""
    found: list[int] = []
    while len(found) < times:
        found += rng.permutation(n_users).tolist()
    return found[:times]


def needs_of(split: Split) -> dict[Need, list[str]]:
    """Query ids by need, in the order of their ids.

    Of queries in the same words only the first is there, and none without a relevant passage. Where
    passages answer questions on many matters, as encyclopaedic paragraphs do, questions of "one need"
    share no more than the passage.
    """
    found: dict[Need, list[str]] = defaultdict(list)
    words = set[str]()
    for query in sorted(split.queries):
        need, plain = need_of(split, query), normalised(split.queries[query])
        if need and plain not in words:
            words.add(plain)
            found[need].append(query)
    return dict(found)


def need_of(split: Split, query: str) -> Need:
    """The ids of the passages that answer a query."""
    return frozenset(p for p, grade in split.qrels[query].items() if grade > 0)
