"""The stream of questions of cycles-v2: needs by Zipf's law, repeats, rephrasings, and who asks.

It depends on the collection, the protocol's traffic and its seed alone, so it is the same for every
run and every ranking; it must not know what users are shown, nor how they vote.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from rag_flywheel.bench.protocol import Protocol, Traffic
from rag_flywheel.bench.setup import Bench, only
from rag_flywheel.errors import InputError
from rag_flywheel.formats.beir import Split
from rag_flywheel.store.passages import normalised

_SEED = 3
Need = frozenset[str]
"""The ids of all passages that answer a question; questions that have the same ask for the same."""


def open_stream(bench: Bench, protocol: Protocol) -> Bench:
    """The bench with the stream in place of its train queries, as `protocol.traffic` says.

    parts, askers: the question and the user of each asking, in order, by cycle; questions come again.
    train: the questions of the stream alone, each once.
    again: the same, at most max_test of them by seed; they are scored as questions asked again.
    test: without questions that the stream has word for word.
    Raises InputError when no test query, or fewer questions than cycles, are left.
    """
    traffic = protocol.traffic or Traffic()
    rng = np.random.default_rng([protocol.seed, _SEED])
    askings = stream(bench.train, traffic, rng)
    if len(askings) < protocol.n_cycles:
        raise InputError(
            f"the stream of {bench.collection.name} has {len(askings)} questions; expected at least "
            f"{protocol.n_cycles}, one a cycle"
        )
    train = only(bench.train, sorted({query for query, _ in askings}))
    words = {normalised(text) for text in train.queries.values()}
    other = [q for q, text in bench.test.queries.items() if normalised(text) not in words]
    if not other:
        raise InputError(
            f"every test query of {bench.collection.name} is a train query word for word; expected "
            "some in other words"
        )
    again = rng.permutation(list(train.queries))[: protocol.max_test].tolist()
    cuts = np.array_split(np.arange(len(askings)), protocol.n_cycles)
    return replace(
        bench,
        train=train,
        test=only(bench.test, sorted(other)),
        again=only(train, sorted(again)),
        parts=tuple(tuple(askings[i][0] for i in cut.tolist()) for cut in cuts),
        askers=tuple(tuple(askings[i][1] for i in cut.tolist()) for cut in cuts),
    )


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
