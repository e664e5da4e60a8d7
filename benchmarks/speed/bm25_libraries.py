"""Measure two BM25 libraries, bm25s and tantivy, in turn on the same passages.

taskset -c 1 python benchmarks/speed/bm25_libraries.py --data DIR --out FILE.json --rounds 5
DIR (or RAG_FLYWHEEL_DATA) holds the BEIR folders aws_docs and scifact.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from scipy import sparse

from bm25_wrappers import (
    EDGE_TEXTS,
    EDGES,
    FRESH,
    K1,
    LONG_WORDS,
    SEED,
    B,
    Bm25s,
    Hits,
    Tantivy,
    read,
    timed,
)
from rag_flywheel.bench.machine import commit


def probe(kind: str, folder: Path) -> dict[str, Any]:
    """Run in a fresh process: what opening an index costs, and what it answers."""

    def memory() -> np.ndarray:
        lines = Path("/proc/self/status").read_text().splitlines()
        kept = [line.split() for line in lines if line.startswith(("VmRSS", "RssAnon"))]
        return np.array([int(words[1]) / 1024 for words in kept])

    queries = json.loads((folder / "queries.json").read_text("utf-8"))
    before = memory()
    if kind == "tantivy":
        seconds, opened = timed(lambda: Tantivy(folder / "tantivy"))
    else:
        seconds, opened = timed(lambda: Bm25s().open(folder / "bm25s", "mmap" in kind))
    out: dict[str, Any] = {"open_s": seconds, "rss_open_mib": (memory() - before)[0]}
    found = [ids.tobytes() + scores.tobytes() for ids, scores in map(opened.search, queries)]
    out["answers"] = hashlib.sha256(b"".join(found)).hexdigest()
    out["rss_used_mib"], out["private_used_mib"] = memory() - before
    with ThreadPoolExecutor(4) as pool:
        again = [a.tobytes() + b.tobytes() for a, b in pool.map(opened.search, queries)]
    out["threads_agree"] = again == found
    files = (folder / kind.removesuffix("_mmap")).iterdir()
    out["index_mib"] = sum(item.stat().st_size for item in files) / 2**20
    return out


def latency(methods: dict[str, Callable[..., Any]], calls: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Milliseconds per call; the methods take turns on every call, in a rotating order."""
    names, spent = list(methods), [[0.0] * len(calls) for _ in methods]
    for turn in (0, *range(len(calls))):  # the first call warms up
        for step in range(len(names)):
            at = (turn + step) % len(names)
            spent[at][turn] = 1000 * timed(partial(methods[names[at]], *calls[turn]))[0]
    cuts = np.percentile(spent, [50, 95, 99], axis=1).T.tolist()
    points = ("p50_ms", "p95_ms", "p99_ms")
    return {names[at]: dict(zip(points, cut, strict=True)) for at, cut in enumerate(cuts)}


def flatten(ids: list[list[int]]) -> Hits:
    lengths = np.array([len(row) for row in ids])
    return np.concatenate([np.array(row, np.int32) for row in ids]), lengths


def count_matrix(flat: np.ndarray, lengths: np.ndarray, width: int) -> Any:
    parts = (np.ones(len(flat), np.float32), flat, np.concatenate([[0], np.cumsum(lengths)]))
    rows = sparse.csr_matrix(parts, (len(lengths), width))
    rows.sum_duplicates()
    return rows.tocsc()


def scipy_rebuild(flat: np.ndarray, lengths: np.ndarray, width: int) -> Any:
    """The same matrix from stored flat token ids, without the library's Python loops."""
    matrix = count_matrix(flat, lengths, width)
    held, times = np.diff(matrix.indptr), matrix.data
    norm = (K1 * (1 - B + B * lengths / lengths.mean())).astype(np.float32)[matrix.indices]
    idf = np.log(1 + (len(lengths) - held + 0.5) / (held + 0.5)).astype(np.float32)
    matrix.data = np.repeat(idf, held) * (times / (norm + times))
    return matrix


def side_scores(base: Bm25s, counts: Any, norm: np.ndarray, query: str) -> np.ndarray:
    """Scores of passages outside the index, with the index's own idf and mean length."""
    starts, total = base.model.scores["indptr"], base.model.scores["num_docs"]
    out = np.zeros(counts.shape[0], np.float32)
    for token in base.tokens([query])[0]:
        column = slice(counts.indptr[token], counts.indptr[token + 1])
        rows, times = counts.indices[column], counts.data[column]
        held = starts[token + 1] - starts[token] if token + 1 < len(starts) else 0
        out[rows] += (
            math.log(1 + (total - held + 0.5) / (held + 0.5)) * times / (norm[rows] + times)
        )
    return out


def add_tantivy(folder: Path, fresh: list[str], first: int, queries: list[str]) -> dict[str, Any]:
    shutil.copytree(folder / "tantivy", folder / "grown")
    old, new = Tantivy(folder / "tantivy"), Tantivy(folder / "grown")
    out = {"add_1000_s": timed(lambda: new.add(fresh, first, wait=False))[0]}
    out["add_1_s"] = timed(lambda: new.add(["newwordagain"], first + FRESH, wait=False))[0]
    assert [len(new.search(word)[0]) for word in ("newword7x", "newwordagain")] == [1, 1]
    speeds = latency({"before": old.search, "after": new.search}, [(text,) for text in queries])
    return out | {f"query_{name}": found for name, found in speeds.items()}


def add_bm25s(base: Bm25s, stored: Hits, fresh: list[str], queries: list[str]) -> dict[str, Any]:
    """What stands in for adding: a side array scored by hand, or a rebuild (see index_s)."""
    tokenise, extra = timed(lambda: base.tokens(fresh, grow=True))
    (flat, lengths), width = flatten(extra), len(base.tokenizer.stem_to_sid)
    side, counts = timed(lambda: count_matrix(flat, lengths, width))
    norm = (K1 * (1 - B + B * lengths / stored[1].mean())).astype(np.float32)
    score = partial(side_scores, base, counts, norm)
    assert np.flatnonzero(score("newword7x")).tolist() == [7]
    out: dict[str, Any] = latency({"side_query": score}, [(text,) for text in queries])
    out |= {"tokenise_1000_s": tokenise, "side_array_s": side, "add_1000_s": tokenise + side}
    width, held = len(base.model.scores["indptr"]) - 1, base.model.scores
    out["scipy_rebuild_s"], matrix = timed(lambda: scipy_rebuild(*stored, width))
    assert np.array_equal(matrix.indices, held["indices"])
    return out | {"scipy_rebuild_max_difference": float(np.abs(matrix.data - held["data"]).max())}


def write_bm25s(texts: list[str], path: Path) -> tuple[Bm25s, Hits, dict[str, Any]]:
    made = Bm25s()
    tokenise, ids = timed(lambda: made.tokens(texts, grow=True))
    index = timed(lambda: made.index(ids))[0]
    save = timed(lambda: made.model.save(path, show_progress=False))[0]
    out: dict[str, Any] = {
        "build_s": tokenise + index + save,
        "tokenise_s": tokenise,
        "index_s": index,
    }
    files = sorted(path.iterdir())
    out["files"] = [item.name for item in files]
    out["pickled_files"] = [item.name for item in files if item.read_bytes()[:1] == b"\x80"]
    return made, flatten(ids), out


def one_round(turn: int, texts: list[str], queries: dict[str, list[str]], folder: Path) -> Any:
    out: dict[str, dict[str, Any]] = {}
    every = [text for group in queries.values() for text in group]
    (folder / "queries.json").write_text(json.dumps(every), "utf-8")
    for kind in ("bm25s", "tantivy") if turn % 2 == 0 else ("tantivy", "bm25s"):
        if kind == "bm25s":
            mine, stored, out["bm25s"] = write_bm25s(texts, folder / "bm25s")
        else:
            spent, other = timed(lambda: Tantivy(folder / "tantivy").add(texts))
            out["tantivy"] = {"build_s": spent}
    for kind in ("bm25s", "tantivy", "bm25s_mmap") * 2:
        command = [sys.executable, __file__, "--probe", kind, "--out", str(folder)]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        found["processes_agree"] = found["answers"] == out.get(kind, {}).get("answers")
        out.setdefault(kind, {}).update(found)
    top = {"bm25s": mine.search, "tantivy": other.search, "bm25s_retrieve": mine.retrieve}
    given = {"bm25s": mine.given, "tantivy": other.given}
    given["bm25s_all_scores"] = lambda query, rows: mine.scores(query)[rows]
    rng = np.random.default_rng([SEED, 1])
    for name, group in queries.items():
        pairs = []
        for query in group:
            rows = np.r_[mine.search(query)[0][:50], rng.choice(len(texts), 50)]
            pairs.append((query, np.unique(rows).astype(np.int32)))
            assert np.array_equal(mine.given(*pairs[-1]), mine.scores(query)[pairs[-1][1]])
        tops = latency(top, [(query,) for query in group])
        for field, found in (("top_100", tops), ("given_100", latency(given, pairs))):
            for kind, took in found.items():
                out.setdefault(kind, {})[f"{field}_{name}"] = took
    picks = np.random.default_rng([SEED, 2]).choice(len(texts), FRESH, replace=False)
    fresh = [f"{texts[pick]} newword{at}x" for at, pick in enumerate(picks)]
    out["tantivy"]["fresh"] = add_tantivy(folder, fresh, len(texts), queries["real"])
    out["bm25s"]["fresh"] = add_bm25s(mine, stored, fresh, queries["real"])
    return out


def quality(folder: Path, spare: Path) -> dict[str, float]:
    passages, queries = read(folder / "corpus.jsonl.gz"), read(folder / "queries.jsonl.gz")
    rows = [line.split("\t") for line in (folder / "qrels/test.tsv").read_text().splitlines()[1:]]
    judged = [ir_measures.Qrel(query, passage, int(grade)) for query, passage, grade in rows]
    names, measure, out = list(passages), ir_measures.nDCG @ 10, {}
    for english, label in ((True, "stop words and stemming"), (False, "plain")):
        made: dict[str, Any] = {f"bm25s k1={k1} {label}": Bm25s(english, k1) for k1 in (1.2, 1.5)}
        made[f"tantivy k1=1.2 {label}"] = Tantivy(spare / label, english)
        for name, library in made.items():
            search, run = library.add(list(passages.values())).search, {}
            for query in sorted({row[0] for row in rows}):
                found = zip(*search(queries[query]), strict=True)
                run[query] = {names[at]: float(score) for at, score in found}
            out[name] = ir_measures.calc_aggregate([measure], judged, run)[measure]
    return out


def edges(spare: Path) -> dict[str, dict[str, Any]]:
    out: dict[str, Any] = {name: {"wanted": held} for name, held in EDGES.values()}
    for name, texts in (("full", EDGE_TEXTS), ("empty corpus", [])):
        mine, other = Bm25s().add(texts), Tantivy(spare / name).add(texts)
        calls = {"bm25s": mine.search, "bm25s_retrieve": mine.retrieve, "tantivy": other.search}
        for kind, call in calls.items():
            for query in EDGES if texts else ("word",):
                try:
                    found, scores = call(query)
                    answer: Any = found[scores > 0].tolist()
                except ValueError as error:
                    answer = f"ValueError: {error}"[:60]
                out.setdefault(EDGES[query][0] if texts else name, {})[kind] = answer
    return out


def medians(rounds: list[Any]) -> Any:
    if isinstance(rounds[0], dict):
        return {key: medians([one[key] for one in rounds]) for key in rounds[0]}
    if isinstance(rounds[0], float):
        return float(np.median(rounds))
    return rounds[0] if all(one == rounds[0] for one in rounds) else "differs between rounds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("RAG_FLYWHEEL_DATA"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(probe(options.probe, options.out)))
        return
    corpus = options.data / "aws_docs/corpus.jsonl.gz"
    texts = list(read(corpus).values())
    cut = np.random.default_rng(SEED)
    wordy = [text.split() for text in cut.permutation(texts)[:1000] if text.count(" ") > 80][:100]
    long = [" ".join(words[-LONG_WORDS:]) for words in wordy]
    queries = {"real": list(read(corpus.with_name("queries.jsonl.gz")).values()), "long": long}
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = ("bm25s", "tantivy", "PyStemmer", "numpy", "scipy", "ir_measures")
    out: dict[str, Any] = {"commit": commit()}
    out["versions"] = {name: version(name) for name in names}
    out["python"], out["cores"] = platform.python_version(), os.cpu_count()
    out["cores_used"] = len(os.sched_getaffinity(0))
    out["processor"] = next(x.split(": ")[1] for x in lines if x.startswith("model name"))
    out |= {"seed": SEED, "passages": len(texts), "k1": K1, "b": B, "long_words": LONG_WORDS}
    out["queries"] = {name: len(group) for name, group in queries.items()}
    out["corpus_sha256"] = hashlib.sha256(corpus.read_bytes()).hexdigest()
    rounds: list[Any] = []
    for turn in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(one_round(turn, texts, queries, Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        out["scifact_ndcg_10"] = quality(options.data / "scifact", Path(folder) / "q")
        out["edges"] = edges(Path(folder) / "e")
    out |= {"medians": medians(rounds), "rounds": rounds}
    options.out.write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
