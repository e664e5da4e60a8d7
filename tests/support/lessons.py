"""Lessons for a small encoder, without an index."""

import numpy as np

from fakes import WordEncoder
from rag_flywheel.encode.tower import Tower
from rag_flywheel.improve.examples import Examples, Floats, Ints
from rag_flywheel.improve.teach import Lessons
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.records import QueryKey
from teachable import TeachableEncoder, answer, passages, questions

DIM = 32


def tower() -> Tower:
    return TeachableEncoder(DIM).tower()


def lessons(n: int = 40, seed: int = 0, sense: bool = True) -> Lessons:
    """Each question has both passages of its thing and up to two others, in no order; the questions
    of every sixth thing are kept apart. sense: whether the answer is the likeliest, or any is."""
    rng = np.random.default_rng(seed)
    texts = questions(0, n)
    known = {p.id: i for i, p in enumerate(passages(n))}
    lineages = np.full((len(texts), 5), -1, dtype=np.int64)
    chances = np.zeros(lineages.shape)
    for row, text in enumerate(texts):
        right = known[answer(text)]
        others = rng.choice(len(known), int(rng.integers(1, 3)), replace=False)
        found = np.unique([right, right ^ 1, *others])
        found = rng.permutation(found)
        lineages[row, : len(found)] = found
        likely = right if sense else rng.choice(found)
        chances[row, : len(found)] = np.where(found == likely, 0.9, 0.1 / (len(found) - 1))
    validation = np.arange(len(texts)) // 6 % 6 == 0
    return Lessons(texts, examples(texts, lineages), validation, chances, vectors_of(n))


def examples(texts: list[str], lineages: Ints) -> Examples:
    n, width = lineages.shape
    return Examples(
        [QueryKey(f"{i:016d}".encode(), None) for i in range(n)],
        WordEncoder(DIM).encode_queries(texts),
        lineages,
        np.zeros((n, width, len(FEATURES)), dtype=np.float32),
        np.zeros((n, width)),
        np.zeros((n, width)),
        np.zeros(n, dtype=np.int64),
    )


class vectors_of:  # noqa: N801 - used as a function
    """Vectors of passages, by their place in `passages`; `asked`: those it was called with."""

    def __init__(self, n: int) -> None:
        self.all = WordEncoder(DIM).encode_passages([p.text for p in passages(n)])
        self.asked: list[list[int]] = []

    def __call__(self, lineages: Ints) -> Floats:
        self.asked.append(lineages.tolist())
        assert lineages.min() >= 0
        found: Floats = self.all[lineages]
        return found


def plain_loss(found: Lessons, rows: list[int], queries: Floats, temperature: float) -> float:
    """The documented loss of one batch, query by query: queries float (n, dim), unit rows."""
    vectors = found.vectors
    assert isinstance(vectors, vectors_of)
    likeliest = [max((c, -i, p) for i, (p, c) in enumerate(pairs(found, row)))[2] for row in rows]
    listwise, in_batch = [], []
    for row, query in zip(rows, queries, strict=True):
        logits = {p: float(query @ vectors.all[p]) / temperature for p, _ in pairs(found, row)}
        total = np.log(sum(np.exp(v) for v in logits.values()))
        listwise.append(-sum(c * (logits[p] - total) for p, c in pairs(found, row)))
        chance, own = max((c, p) for p, c in pairs(found, row))
        among = [float(query @ vectors.all[p]) / temperature for p in likeliest]
        same = [v for v, p in zip(among, likeliest, strict=True) if p == own]
        gap = np.log(np.exp(same).sum()) - np.log(np.exp(among).sum())
        in_batch.append(-chance * gap)
    return float(np.mean(listwise) + np.mean(in_batch))


def pairs(found: Lessons, row: int) -> list[tuple[int, float]]:
    """(passage, chance) of a query's candidates."""
    both = zip(found.examples.lineages[row].tolist(), found.chances[row].tolist(), strict=True)
    return [(p, c) for p, c in both if p >= 0]
