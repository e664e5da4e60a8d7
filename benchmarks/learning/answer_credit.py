"""How surely the passage that a sentence was written from is recognised, and the constants of that.

    python benchmarks/learning/answer_credit.py --out benchmarks/results/answer_credit.json

RAG_FLYWHEEL_DATA holds the BEIR folders. For 100 train queries of each collection, eight passages are
shown, and sentences made: one of a passage shown at a random rank, word for word; the same with words
left out at random and words of the question put in; and one of a passage that was not shown, from rank
9 to 40 or from anywhere. The constants of `capture.answer_credit` are the likeliest on all of them:
chance is the mean of what the truth gets, a passage or "from none of them".
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from gain import Json, surroundings
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import SHOWN
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.reader import sentences_for
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.capture import answer_credit
from rag_flywheel.capture.answer_credit import chances_of_source, sentences, supports
from rag_flywheel.config import DEFAULT_ENCODER
from rag_flywheel.encode.make import make_encoder
from rag_flywheel.records import EmbeddedText, Hit
from rag_flywheel.store.passages import encoded_text

NAMES = ("metatool", "scifact", "feedbackqa", "squad11_dev")
N_QUERIES, DEPTH, SEED = 100, 40, 1
CHANGED = {"word for word": (1.0, 0), "7 in 10 words": (0.7, 3), "5 in 10 words": (0.5, 5)}
"""The share of words that are kept, and how many of the question's are put in."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A sentence: the support of each passage shown (8,), and which it was written from, (8,)."""

    collection: str
    kind: str
    support: Floats
    source: npt.NDArray[np.bool_]


def cases(bench: Bench, name: str) -> list[Case]:
    """The sentences made for one collection."""
    rng, found = np.random.default_rng(SEED), list[Case]()
    passages = bench.collection.passages
    words_of = {p.id: encoded_text(p) for p in passages}
    encoder = bench.encoder or make_encoder(DEFAULT_ENCODER)
    with bench.copy("shown") as fw:
        queries = [query for part in bench.parts for query in part]
        seen = fw.retrieve_many([bench.train.queries[q] for q in queries], DEPTH)
    for each in seen:
        hits = each.hits[:SHOWN]
        words = [words_of[hit.passage_id] for hit in hits]
        texts = [
            EmbeddedText(text, vector)
            for text, vector in zip(words, encoder.encode_passages(words), strict=True)
        ]
        at = int(rng.integers(len(hits)))
        other = passages[int(rng.integers(len(passages)))]
        rest = each.hits[SHOWN + int(rng.integers(DEPTH - SHOWN))]
        made = {
            kind: changed(sentence(each.query, hits[at]), each.query, *how, rng)
            for kind, how in CHANGED.items()
        }
        made["of a passage near"] = sentence(each.query, rest)
        made["of any passage"] = sentence(each.query, replace(rest, text=other.text))
        for kind, text in made.items():
            given = sentences(text)[:1]
            own = np.array([kind in CHANGED and text == words[at] for text in words])
            also = np.array([bool(given) and given[0] in text for text in words])
            if given and (kind in CHANGED or not also.any()):
                (support,) = supports(given, texts, encoder.encode_passages)
                found.append(Case(name, kind, support, own | also))
    return found


def sentence(query: str, hit: Hit) -> str:
    """The sentence of a passage that has most words of the query."""
    return sentences_for(query, hit.text, 1)


def changed(text: str, query: str, kept: float, n: int, rng: np.random.Generator) -> str:
    """The text with this share of its words, and n of the query's."""
    words, asked = text.split(), query.split()
    left = [word for word in words if rng.random() < kept] or words[:1]
    return " ".join([*left, *(asked[i] for i in rng.integers(0, len(asked), n).tolist())])


def of_truth(case: Case, steepness: float, even: float) -> float:
    """The chance of what the sentence was written from."""
    (chances,) = chances_of_source(case.support[None], steepness, even)
    return float(chances[case.source].sum() if case.source.any() else 1.0 - chances.sum())


def log_loss(some: Sequence[Case], steepness: float, even: float) -> float:
    """The mean of -log of that, at least 1e-6."""
    return float(np.mean([-np.log(max(of_truth(c, steepness, even), 1e-6)) for c in some]))


def fitted(some: Sequence[Case]) -> tuple[float, float]:
    """The likeliest (steepness, even)."""
    found = minimize(lambda at: log_loss(some, at[0], at[1]), [15.0, 0.4], method="Nelder-Mead")
    return round(float(found.x[0]), 2), round(float(found.x[1]), 3)


def main() -> None:
    """Make the sentences, fit the constants, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/answer_credit.json"))
    asked, every = parser.parse_args(), list[Case]()
    for name in NAMES:
        protocol = Protocol(seed=SEED, max_train=N_QUERIES, max_test=N_QUERIES)
        with tempfile.TemporaryDirectory() as scratch:
            every += cases(prepare(find_collection(name), protocol, Path(scratch), None), name)
    used = answer_credit.STEEPNESS, answer_credit.EVEN
    rows = list[Json]()
    for name, kind in sorted({(c.collection, c.kind) for c in every}):
        some = [c for c in every if (c.collection, c.kind) == (name, kind)]
        chance = float(np.mean([of_truth(c, *used) for c in some]))
        row = {"collection": name, "kind": kind, "n": len(some), "chance": round(chance, 3)}
        rows.append({**row, "log_loss": round(log_loss(some, *used), 3)})
        print(rows[-1])
    result = {
        "commit": commit(),
        **surroundings(),
        "used": used,
        "log_loss": round(log_loss(every, *used), 4),
        "likeliest": fitted(every),
        "likeliest_by_collection": {
            name: fitted([c for c in every if c.collection == name]) for name in NAMES
        },
        "sentences": rows,
    }
    print({key: result[key] for key in ("log_loss", "likeliest", "likeliest_by_collection")})
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
