"""How fast the default encoder is, beside sentence-transformers' own `encode` of the same model.

    RAG_FLYWHEEL_DATA=... python benchmarks/speed/encoding.py --out benchmarks/results/encoding.json

Queries are real ones of three collections, one at a time, with one thread and with two; passages are
scifact's, embedded in the order and portions of `add`, beside one `encode` of all of them with its
defaults. Both take turns, and who begins changes from round to round; figures are medians over the
rounds. At the end whole calls of `retrieve` stand beside the encoding of their queries alone.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from rag_flywheel import Config, Flywheel
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.encode.model_folder import find_model
from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.records import Vectors
from rag_flywheel.store.passages import encoded_text
from speed_times import Times, percentiles, timed

COLLECTIONS, MODEL = ("scifact", "feedbackqa", "metatool"), "all-MiniLM-L6-v2"
PORTION, BATCH = 256, 32  # texts that `add` encodes at once; queries together
Figures = dict[str, Any]
Calls = dict[str, Callable[[int], object]]


def some_queries(data: Path, n: int) -> list[str]:
    """Real queries, evenly from the collections."""
    found: list[str] = []
    for number, name in enumerate(COLLECTIONS, 1):
        texts = [t for s in read_beir(data / name).splits.values() for t in s.queries.values()]
        picked = np.random.default_rng(0).permutation(len(texts))[: n * number // 3 - len(found)]
        found += [texts[i] for i in picked]
    return found


def taking_turns(calls: Calls, n: int, rounds: int) -> dict[str, list[Times]]:
    """The times of every call(0) ... call(n - 1), round by round, after one that warms up."""
    spent: dict[str, list[Times]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name in sorted(calls, reverse=turn % 2 == 1):
            one = timed(calls[name], n)
            if turn:
                spent[name].append(one)
    return spent


def beside(spent: dict[str, list[Times]], ours: str = "ours", theirs: str = "default") -> Figures:
    """How many times as long ours took as theirs: medians of rounds of the ratio of their medians."""
    found: Figures = {}
    for i, kind in enumerate(("", "cpu_")):
        ratios = [
            statistics.median(t[i] for t in a) / statistics.median(t[i] for t in b)
            for a, b in zip(spent[ours], spent[theirs], strict=True)
        ]
        found[f"{kind}ratio"] = round(statistics.median(ratios), 3)
        found[f"{kind}ratios"] = [round(ratio, 3) for ratio in ratios]
    return found


def one_query(
    model: SentenceTransformer,
    ours: SentenceEncoder,
    queries: Sequence[str],
    rounds: int,
    threads: int,
) -> Figures:
    """One query at a time. With two threads, time of the processor is that of the first one."""
    calls: Calls = {
        "default": lambda i: model.encode([queries[i]]),
        "ours": lambda i: ours.encode_queries([queries[i]]),
    }
    torch.set_num_threads(threads)
    spent = taking_turns(calls, len(queries), rounds)
    torch.set_num_threads(1)
    rows = {name: percentiles(each) for name, each in spent.items()}
    return {"n": len(queries), **rows, **beside(spent)}


def some_passages(
    model: SentenceTransformer,
    ours: SentenceEncoder,
    texts: Sequence[str],
    rounds: int,
    threads: int,
) -> Figures:
    """Passages a second: ours as `add` asks for them, longest first, 256 at once."""
    ordered = sorted(texts, key=lambda text: -len(text))

    def as_added(_: int) -> None:
        for start in range(0, len(ordered), PORTION):
            ours.encode_passages(ordered[start : start + PORTION])

    calls: Calls = {"default": lambda _: model.encode(list(texts)), "ours": as_added}
    torch.set_num_threads(threads)
    spent = taking_turns(calls, 1, rounds)
    torch.set_num_threads(1)
    found: Figures = {"n": len(texts)}
    for name, each in spent.items():
        wall, busy = (statistics.median(one[0][i] for one in each) for i in (0, 1))
        found[f"{name}_per_s"] = round(len(texts) * 1000 / wall, 1)
        found[f"{name}_per_cpu_s"] = round(len(texts) * 1000 / busy, 1)
    return {**found, "times_as_fast": faster(spent, 0), "cpu_times_as_fast": faster(spent, 1)}


def faster(spent: dict[str, list[Times]], kind: int) -> float:
    """How many times as fast ours was, median of rounds."""
    pairs = zip(spent["default"], spent["ours"], strict=True)
    return round(statistics.median(a[0][kind] / b[0][kind] for a, b in pairs), 2)


def alike(found: Vectors, wanted: Vectors) -> Figures:
    """Cosines of rows, both of unit length, and the largest difference of a number."""
    cosines = (found.astype(np.float64) * wanted.astype(np.float64)).sum(axis=1)
    return {
        "cosine_min": round(float(cosines.min()), 7),
        "cosine_mean": round(float(cosines.mean()), 7),
        "largest_difference": float(np.abs(found - wanted).max()),
    }


def same_numbers(
    model: SentenceTransformer, ours: SentenceEncoder, queries: list[str], texts: list[str]
) -> Figures:
    """Ours beside the default; and a query alone beside the same in a batch, by its scores too."""
    passages = ours.encode_passages(texts)
    alone = np.concatenate([ours.encode_queries([query]) for query in queries])
    parts = [queries[start : start + BATCH] for start in range(0, len(queries), BATCH)]
    together = np.concatenate([ours.encode_queries(part) for part in parts])
    return {
        "queries": alike(alone, model.encode(queries)),
        "passages": alike(passages, model.encode(texts)),
        "alone_and_in_a_batch": {
            "batch": BATCH,
            "largest_difference": float(np.abs(alone - together).max()),
            "largest_difference_of_scores": float(np.abs((alone - together) @ passages.T).max()),
        },
    }


def whole_calls(
    ours: SentenceEncoder, data: Path, queries: list[str], n: int, rounds: int
) -> Figures:
    """`retrieve` of a text over scifact, that of a text asked before, and the encoding alone."""
    with tempfile.TemporaryDirectory() as scratch:
        config = Config(encoder="")
        with Flywheel.open(Path(scratch) / "kb", encoder=ours, config=config) as fw:
            fw.add(read_beir(data / "scifact").passages[:n])
            fw.refresh()

            def first(i: int) -> object:
                fw.lookups.clear()
                return fw.retrieve(queries[i], record=False)

            calls: Calls = {
                "encoding": lambda i: ours.encode_queries([queries[i]]),
                "retrieve": first,
                "retrieve_again": lambda i: fw.retrieve(queries[-1], record=False),
            }
            spent = taking_turns(calls, len(queries), rounds)
    return {
        "n_passages": n,
        **{name: percentiles(each) for name, each in spent.items()},
        "of_encoding": beside(spent, "retrieve", "encoding"),
        "again_of_first": beside(spent, "retrieve_again", "retrieve"),
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--passages", type=int, default=512)
    parser.add_argument("--indexed", type=int, default=2_000)
    parser.add_argument(
        "--two", type=int, default=200, help="queries, and passages, by two threads"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/encoding.json"))
    asked = parser.parse_args()
    began = time.perf_counter()
    data = Path(os.environ["RAG_FLYWHEEL_DATA"])
    torch.set_num_threads(1)
    model = SentenceTransformer(str(find_model(MODEL) or MODEL), device="cpu")
    ours = SentenceEncoder.load(MODEL)
    queries = some_queries(data, asked.queries)
    texts = [encoded_text(p) for p in read_beir(data / "scifact").passages[: asked.passages]]
    load = os.getloadavg()[0]

    def two(given: list[str]) -> list[str]:
        return given[:: max(1, len(given) // asked.two)]

    libraries = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
    found: Figures = {
        "commit": commit(),
        "model": MODEL,
        "rounds": asked.rounds,
        "n_queries": len(queries),
        "machine": machine(*libraries)
        | {
            "capability": torch.backends.cpu.get_cpu_capability(),
            "bfloat16": ours.bf16,
            "load": load,
        },
        "one_query": one_query(model, ours, queries, asked.rounds, 1),
        "one_query_by_two_threads": one_query(model, ours, two(queries), asked.rounds, 2),
        "passages": some_passages(model, ours, texts, asked.rounds, 1),
        "passages_by_two_threads": some_passages(model, ours, two(texts), asked.rounds, 2),
        "same_numbers": same_numbers(model, ours, queries, texts),
        "retrieve": whole_calls(ours, data, queries, asked.indexed, asked.rounds),
    }
    found["seconds"] = round(time.perf_counter() - began, 1)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
