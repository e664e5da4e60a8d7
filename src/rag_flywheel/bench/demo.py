"""The demo: a help desk for the Python standard library learns from simulated users.

Two phrasings of each need are asked and voted on; the third is held out and scored.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag_flywheel.bench import measures as m
from rag_flywheel.bench.chart import draw_cycles
from rag_flywheel.bench.cycles import Cycle, asking, measured, run_cycles
from rag_flywheel.bench.stdlib import load_needs, missing_answers, stdlib_passages
from rag_flywheel.bench.users import Users
from rag_flywheel.errors import InputError
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.formats.beir import Collection, Qrels, Split
from rag_flywheel.report.progress import Bars

MEASURES = {"nDCG@10": m.ndcg_at_10, "recall@8": m.recall_at_8, "harmful@8": m.harmful_at_8}
_MARK = "made-by-rag-flywheel-demo"


@dataclass(frozen=True)
class DemoResult:
    """Measures by cycle (0: the static index), and sentences that explain them."""

    measures: tuple[str, ...]
    cycles: tuple[Cycle, ...]
    chart: Path
    index: Path
    n_passages: int
    n_needs: int
    seconds: float
    remarks: tuple[str, ...]


def help_desk() -> Collection:
    """The demo collection: phrasings 1 and 2 of each need to train on, phrasing 3 to test."""
    passages = stdlib_passages()
    needs = load_needs()
    missing = missing_answers(needs, passages)
    queries: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    qrels: dict[str, Qrels] = {"train": {}, "test": {}}
    for need in needs:
        answers = {a: 1 for a in need.answers if a not in missing.get(need.id, ())}
        if not answers:
            continue  # this Python version has no passage that answers it
        for number, phrasing in enumerate(need.phrasings, 1):
            split = "test" if number == len(need.phrasings) else "train"
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


def learn(fw: Flywheel, collection: Collection, *, seed: int, n_cycles: int) -> list[Cycle]:
    """Run cycles in which each train phrasing is asked once, by a different user, and voted on."""
    train, test = collection.splits["train"], collection.splits["test"]
    queries, users = sorted(train.queries), Users()
    rng = np.random.default_rng(seed)
    with Bars() as bars:
        steps = [
            asking(fw, train, rng.permutation(queries).tolist(), users, rng, progress=bars)
            for _ in range(n_cycles)
        ]
        return measured(list(run_cycles(fw, test, steps, depth=10)), test.qrels, MEASURES)


def run_demo(out: Path, *, seed: int, n_cycles: int) -> DemoResult:
    """Run the demo below `out`: the index goes to out/demo, the chart to out/demo-chart.png."""
    began = time.monotonic()
    index, chart = out / "demo", out / "demo-chart.png"
    _clear(index)
    collection = help_desk()
    n_asked, n_test = (len(collection.splits[name].queries) for name in ("train", "test"))
    with Bars() as bars:
        prepare(index, collection, bars)
    with Flywheel.open(index) as fw:
        cycles = learn(fw, collection, seed=seed, n_cycles=n_cycles)
    title = f"Python help desk: {len(collection.passages)} passages, {n_test} held-out queries"
    draw_cycles(cycles, list(MEASURES), chart, title=title)
    seconds = time.monotonic() - began
    gain = cycles[-1].values["nDCG@10"] - cycles[0].values["nDCG@10"]
    remarks = (
        f"{n_test} held-out phrasings, never voted on; in each cycle {n_asked} users asked the "
        "other phrasings, looked at rank r with probability 1/r, and gave 20 % wrong votes.",
        f"nDCG@10 {gain:+.3f} against the static index, in {seconds:.0f} s.",
        f"chart: {chart}",
        f'try: rag-flywheel retrieve --index {index} --explain "how slow is my function"',
    )
    n_passages = len(collection.passages)
    return DemoResult(
        tuple(MEASURES), tuple(cycles), chart, index, n_passages, n_test, seconds, remarks
    )


def _clear(index: Path) -> None:
    """Remove the index of an earlier demo. Raises InputError for any other folder with files."""
    if not index.exists() or not any(index.iterdir()):
        return
    if not (index / _MARK).exists():
        raise InputError(
            f"{index} was not made by the demo and is not replaced; give another --out"
        )
    shutil.rmtree(index)
