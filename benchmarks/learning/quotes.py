"""How many words in a row make a quote, on pairs of real texts.

    python benchmarks/learning/quotes.py --out benchmarks/results/quotes.json

RAG_FLYWHEEL_DATA holds the BEIR folders with their vectors. A passage stands for an answer that people
wrote on the same subject, and the eight nearest others, by their vectors, for what an agent was shown;
near-identical ones (half of the runs of five words are the same) are left out. Whatever of those counts as
quoted is a false quote: once with the words of a quote in one of the eight alone, once in one of all passages
alone. Against that stands a sentence of a shown passage, taken word for word: how often it counts as a quote
of its passage, of all sentences of at least four words.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gain import Json, surroundings
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.prepared import FILE_NAME
from rag_flywheel.capture.answer_credit import _SENTENCE
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.integrations.quotes import _readable, _tokens, _windows, quotes

NAMES = ("stackfaq", "feedbackqa", "squad11_dev", "scifact", "xquad_de", "xquad_zh")
LEAST = (4, 6, 8, 10, 12)
N_ANSWERS, SHOWN, SEED, ALIKE = 300, 8, 1, 0.5


def runs(text: str, n_words: int) -> set[tuple[str, ...]]:
    """All runs of so many words."""
    return set(_windows(_tokens(_readable(text)), n_words))


def alike(one: str, other: str) -> bool:
    """Whether half of the runs of five words of the shorter text are in the other."""
    a, b = runs(one, 5), runs(other, 5)
    return len(a & b) > ALIKE * min(len(a), len(b)) if a and b else one == other


def measured(name: str) -> list[Json]:
    """A row for each number of words."""
    folder = find_collection(name)
    passages = list(read_beir(folder).passages)
    texts = [each.text for each in passages]
    vectors = np.load(folder / FILE_NAME)["passages"].astype(np.float32)
    rng = np.random.default_rng(SEED)
    chosen = rng.permutation(len(texts))[:N_ANSWERS].tolist()
    nearest = {
        at: [
            other
            for other in np.argsort(-vectors @ vectors[at])[: 3 * SHOWN].tolist()
            if other != at and not alike(texts[at], texts[other])
        ][:SHOWN]
        for at in chosen
    }
    sentences = {}
    for at, shown in nearest.items():
        source = shown[int(rng.integers(len(shown)))]
        parts = _SENTENCE.split(" ".join(texts[source].split()))  # lines may end within sentences
        parts = [part for part in parts if len(_tokens(part)) >= 4]
        if parts:
            sentences[at] = (source, parts[int(rng.integers(len(parts)))])
    found = [row(name, texts, nearest, sentences, least) for least in LEAST]
    for each in found:
        print(each, flush=True)
    return found


def row(
    name: str,
    texts: Sequence[str],
    nearest: dict[int, list[int]],
    sentences: dict[int, tuple[int, str]],
    least: int,
) -> Json:
    """The shares of false and of right quotes."""
    n_with = Counter(run for text in texts for run in runs(text, least))
    n_pairs, false, false_in_all, right = 0, 0, 0, 0
    for at, shown in nearest.items():
        given = {str(other): texts[other] for other in shown}
        n_pairs += len(given)
        own = runs(texts[at], least)
        for quote in quotes(texts[at], given, least_words=least):
            false += 1
            # the run is in the answer, which is one of the passages here, and in the one that is quoted
            of_two = [run for run in runs(quote.text, least) if n_with[run] == 1 + (run in own)]
            false_in_all += bool(of_two)
    for at, (source, text) in sentences.items():
        given = {str(other): texts[other] for other in nearest[at]}
        found = quotes(text, given, least_words=least)
        right += any(
            quote.passage_id == str(source)
            and any(n_with[run] == 1 for run in runs(quote.text, least))
            for quote in found
        )
    return {
        "collection": name,
        "least_words": least,
        "n_pairs": n_pairs,
        "false": round(false / n_pairs, 5),
        "false_in_all": round(false_in_all / n_pairs, 5),
        "n_sentences": len(sentences),
        "right": round(right / len(sentences), 3),
    }


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quotes.json"))
    asked = parser.parse_args()
    rows = [each for name in NAMES for each in measured(name)]
    totals = []
    for least in LEAST:
        some = [each for each in rows if each["least_words"] == least]
        pairs, n = sum(r["n_pairs"] for r in some), sum(r["n_sentences"] for r in some)
        totals.append(
            {
                "least_words": least,
                "n_pairs": pairs,
                "false": round(sum(r["false"] * r["n_pairs"] for r in some) / pairs, 5),
                "false_in_all": round(
                    sum(r["false_in_all"] * r["n_pairs"] for r in some) / pairs, 5
                ),
                "right": round(sum(r["right"] * r["n_sentences"] for r in some) / n, 3),
            }
        )
        print(totals[-1])
    result = {"commit": commit(), **surroundings(), "all": totals, "collections": rows}
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
