"""The demo: a help desk for the Python standard library learns from simulated users.

Two phrasings of most needs are asked and voted on. Three groups of questions are scored: those asked
again; the same needs in other words, which nobody asked; and needs that nobody asked about.
"""

import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag_flywheel.bench import measures as m
from rag_flywheel.bench.chart import draw_curves
from rag_flywheel.bench.cycles import Curve, asking, measured, run_cycles
from rag_flywheel.bench.measures import Run
from rag_flywheel.bench.stdlib import load_needs, missing_answers, stdlib_passages
from rag_flywheel.bench.users import Users
from rag_flywheel.errors import InputError, counted
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.formats.beir import Collection, Qrels, Split
from rag_flywheel.records import Retrieval
from rag_flywheel.report.progress import Bars

MEASURES = {"nDCG@10": m.ndcg_at_10, "recall@8": m.recall_at_8, "harmful@8": m.harmful_at_8}
CURVES = {
    "asked again": "the questions that users asked and voted on",
    "other words": "the same needs in words that nobody used",
    "unrelated": "needs that nobody asked about",
}
N_CYCLES = 6
N_USERS = 3  # who ask each question in each cycle
_UNASKED = 6  # one need in so many is never asked about
_DEPTH = 10
_MARK = "made-by-rag-flywheel-demo"


@dataclass(frozen=True)
class DemoResult:
    """The measures of each group of questions, and sentences that explain them."""

    measures: tuple[str, ...]
    curves: tuple[Curve, ...]
    chart: Path
    index: Path
    n_passages: int
    n_needs: int
    seconds: float
    remarks: tuple[str, ...]


def help_desk() -> Collection:
    """The demo collection: phrasings 1 and 2 of five needs in six to train on, phrasing 3 of them to
    test; the split "unrelated" has all phrasings of the other needs."""
    passages = stdlib_passages()
    needs = load_needs()
    missing = missing_answers(needs, passages)
    queries: dict[str, dict[str, str]] = {"train": {}, "test": {}, "unrelated": {}}
    qrels: dict[str, Qrels] = {"train": {}, "test": {}, "unrelated": {}}
    for place, need in enumerate(needs):
        answers = {a: 1 for a in need.answers if a not in missing.get(need.id, ())}
        if not answers:
            continue  # this Python version has no passage that answers it
        for number, phrasing in enumerate(need.phrasings, 1):
            split = "test" if number == len(need.phrasings) else "train"
            if place % _UNASKED == 0:
                split = "unrelated"
            queries[split][f"{need.id}-{number}"] = phrasing
            qrels[split][f"{need.id}-{number}"] = answers
    splits = {name: Split(queries[name], qrels[name]) for name in queries}
    return Collection("python-help-desk", passages, splits)


def prepare(folder: Path, collection: Collection, bars: Bars) -> None:
    """Index the collection's passages, without votes, in a new folder."""
    with Flywheel.open(folder) as fw:
        (folder / _MARK).touch()
        fw.add(collection.passages, progress=bars)
        fw.refresh(progress=bars)


def learn(fw: Flywheel, collection: Collection, *, seed: int, n_cycles: int) -> tuple[Curve, ...]:
    """Run cycles in which three users ask each train phrasing and vote on it, in any order."""
    train = collection.splits["train"]
    queries, users = sorted(train.queries), Users()
    rng = np.random.default_rng(seed)
    shown: dict[str, set[str]] = defaultdict(set)

    def note(seen: Retrieval) -> None:
        shown[seen.query].update(hit.passage_id for hit in seen.hits)

    with Bars() as bars:
        steps = [
            asking(
                fw,
                train,
                rng.permutation(queries * N_USERS).tolist(),
                users,
                rng,
                shown=note,
                progress=bars,
            )
            for _ in range(n_cycles)
        ]
        runs = list(run_cycles(fw, _every_query(collection), steps, depth=_DEPTH))
    bound = _bound(train, runs[-1][1], shown)
    groups = zip(CURVES.items(), ("train", "test", "unrelated"), (bound, None, None), strict=True)
    return tuple(
        _curve(name, what, collection.splits[split], runs, bound)
        for (name, what), split, bound in groups
    )


def _every_query(collection: Collection) -> Split:
    splits = collection.splits.values()
    return Split(
        {q: text for split in splits for q, text in split.queries.items()},
        {q: answers for split in splits for q, answers in split.qrels.items()},
    )


def _curve(
    name: str, what: str, split: Split, runs: Sequence[tuple[int, Run]], bound: float | None
) -> Curve:
    own = [(n_votes, {q: run[q] for q in split.queries}) for n_votes, run in runs]
    cycles = measured(own, split.qrels, MEASURES)
    return Curve(name, what, len(split.queries), tuple(cycles), bound)


def _bound(train: Split, run: Run, shown: Mapping[str, set[str]]) -> float:
    """nDCG@10 if every right passage that was shown for a question came before all others."""
    best = {}
    for query, text in train.queries.items():
        right = sorted(p for p in shown[text] if train.qrels[query].get(p, 0) > 0)
        best[query] = [*right, *(p for p in run[query] if p not in right)]
    return m.mean(m.ndcg_at_10(train.qrels, best))


def run_demo(out: Path, *, seed: int, n_cycles: int) -> DemoResult:
    """Run the demo below `out`: the index goes to out/demo, the chart to out/demo-chart.png."""
    began = time.monotonic()
    index, chart = out / "demo", out / "demo-chart.png"
    _clear(index)
    collection = help_desk()
    with Bars() as bars:
        prepare(index, collection, bars)
    with Flywheel.open(index) as fw:
        curves = learn(fw, collection, seed=seed, n_cycles=n_cycles)
    draw_curves(
        curves, chart, title=f"Python help desk: {counted(len(collection.passages), 'passage')}"
    )
    seconds = time.monotonic() - began
    again, other, unrelated = curves
    remarks = (
        f"In each cycle {N_USERS} users ask each of {again.n_queries} questions, look at rank r with "
        "probability 1/r, and give 20 % wrong votes.",
        *(f"{c.name}: {c.what}, {c.n_queries} questions, nDCG@10 {c.gain():+.3f}" for c in curves),
        f"With every right passage that was shown at the top, asked again would have {again.bound:.3f}.",
        f"{seconds:.0f} s. chart: {chart}",
        f'try: rag-flywheel retrieve --index {index} --explain "how slow is my function"',
    )
    n_needs = other.n_queries + unrelated.n_queries // 3
    n_passages = len(collection.passages)
    return DemoResult(tuple(MEASURES), curves, chart, index, n_passages, n_needs, seconds, remarks)


def _clear(index: Path) -> None:
    """Remove the index of an earlier demo. Raises InputError for any other folder with files."""
    if not index.exists() or not any(index.iterdir()):
        return
    if not (index / _MARK).exists():
        raise InputError(
            f"{index} was not made by the demo and is not replaced; give another --out"
        )
    shutil.rmtree(index)
