"""Do several vectors of a passage rank better than one, before any vote?

    python benchmarks/learning/windows.py --out benchmarks/results/windows.json

RAG_FLYWHEEL_DATA holds the collections below. A passage has one vector, of which the encoder reads the
first 256 tokens. Here passages have more, and the best cosine of any counts:
windows: passages with more tokens get a vector for every 240 of them, of whole sentences, 48 of which are
those that the window before ends with. sentences: a passage of more than 64 tokens gets a vector for each
sentence; what is longer is cut between clauses. Each is measured with the vector of the whole passage as
one of them, and windows also instead of it. Every part starts with the passage's title.
nDCG@10 of test questions, by dense search alone, and by the shipped ranking before any vote, whose
candidates are those of the one vector and whose feature `dense` is computed from the best cosine.
Passages that are among the best 50 of the plain hybrid for none of the questions keep one vector.
--most-test: of each collection, how many questions (drawn without a seed, always the same). Intervals of
95 % of the gain: paired bootstrap over the questions, seed 0. --cache: a folder for vectors.
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gain import surroundings
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.intervals import bootstrap_interval
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import by_query
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, only, prepare
from rag_flywheel.config import DEFAULT_ENCODER
from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from rag_flywheel.formats.pieces import pieces
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.score import Votes, order, score
from rag_flywheel.records import Passage, Vectors
from rag_flywheel.serve.answers import Request
from rag_flywheel.store.passages import encoded_text

NAMES = ("stackfaq", "feedbackqa", "squad11_dev", "scifact")
READ, WINDOW, OVERLAP, SENTENCE = 256, 240, 48, 64  # tokens
DEPTH, POOL, MOST_TEST, MEASURE = 10, 50, 1_000, "nDCG@10"
Json = dict[str, Any]
Parts = Mapping[str, Sequence[str]]
"""The texts of the parts of passages, by id."""
Runs = dict[str, list[str]]
Floats = npt.NDArray[np.float32]


def windows(passage: Passage, model: SentenceEncoder) -> list[str]:
    """Whole sentences, up to 240 tokens with the title, each window starting with the end of the last."""
    if model.count_tokens([encoded_text(passage)])[0] <= READ:
        return []
    room = WINDOW - model.count_tokens([passage.title or ""])[0]
    found: list[list[tuple[str, int]]] = [[]]
    for text, tokens, _ in pieces(passage.text, SENTENCE, model.count_tokens):
        if found[-1] and sum(n for _, n in found[-1]) + tokens > room:
            found.append(_end(found[-1]))
        found[-1].append((text, tokens))
    return [_titled(passage, "".join(text for text, _ in each)) for each in found]


def _end(window: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The last sentences of a window, up to 48 tokens."""
    n = 0
    for i in reversed(range(len(window))):
        n += window[i][1]
        if n > OVERLAP:
            return list(window[i + 1 :])
    return []


def sentences(passage: Passage, model: SentenceEncoder) -> list[str]:
    """The sentences of a passage of more than 64 tokens."""
    if model.count_tokens([encoded_text(passage)])[0] <= SENTENCE:
        return []
    parts = pieces(passage.text, SENTENCE, model.count_tokens)
    return [_titled(passage, text) for text, _, _ in parts if any(map(str.isalpha, text))]


def _titled(passage: Passage, text: str) -> str:
    return encoded_text(Passage(passage.id, text.strip(), passage.title))


def encoded(
    texts: Sequence[str], model: SentenceEncoder, cache: Path | None
) -> tuple[Vectors, float]:
    """The vectors of texts, and the seconds that they took; from the cache where it has them."""
    digest = hashlib.blake2b("\0".join([model.revision, *texts]).encode(), digest_size=12)
    file = cache / f"{digest.hexdigest()}.npz" if cache is not None else None
    if file is not None and file.exists():
        stored = np.load(file, allow_pickle=False)
        return stored["vectors"], float(stored["seconds"])
    began, found = time.thread_time(), np.empty((len(texts), model.dim), np.float32)
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(texts), 256):
        some = by_length[start : start + 256]
        found[some] = model.encode_passages([texts[i] for i in some])
    seconds = time.thread_time() - began
    if file is not None:
        np.savez(file, vectors=found, seconds=seconds)
    return found, seconds


def best_cosines(
    queries: Vectors, whole: Vectors, parts: Vectors, owners: npt.NDArray[np.int64], *, alone: bool
) -> Floats:
    """The best cosine of any vector of each passage, (n queries, n passages).

    owners: the passage of each part; alone: passages with parts have no vector of the whole.
    """
    found: Floats = queries @ whole.T
    if alone:
        found[:, np.unique(owners)] = -1.0
    of_parts = queries @ parts.T
    for i, owner in enumerate(owners.tolist()):
        np.maximum(found[:, owner], of_parts[:, i], out=found[:, owner])
    return found


class Asked:
    """The test questions of a collection, with what the shipped ranking computes their order from."""

    def __init__(self, bench: Bench, most: int) -> None:
        some = np.random.default_rng(0).permutation(sorted(bench.test.queries)).tolist()[:most]
        self.split = only(bench.test, some)
        self.ids = sorted(self.split.queries)
        texts = [self.split.queries[query] for query in self.ids]
        with bench.open(bench.base) as fw:
            fw.retrieve("warm up", record=False)
            server = fw._serving()
            state = server._live.state()
            self.parameters, self.typical = state.version.parameters, state.typical_cosine
            self.vectors = server._encoder(state).encode(texts)
            with fw._database.reading() as conn:
                rows = conn.execute("SELECT pid, id FROM passages").fetchall()
            self.id_of = {int(pid): str(id_) for pid, id_ in rows}
            request = Request(DEPTH, record=False)
            self.ranked = [
                (each.pids, each.features[:, : len(FEATURES)])
                for each in server._ranked(state, texts, self.vectors, request)
            ]
            lookups = server._ranked(state, texts, self.vectors, request)
            self.read = {self.id_of[pid] for r in lookups for pid in r.pids[r.lookup.read].tolist()}

    def hybrid(self, cosines: Floats, row_of: Mapping[str, int]) -> Runs:
        """The order of the shipped ranking with these cosines."""
        found: Runs = {}
        for query, row, (pids, features) in zip(self.ids, cosines, self.ranked, strict=True):
            rows = [row_of[self.id_of[pid]] for pid in pids.tolist()]
            changed = features.copy()
            changed[:, 0] = (row[rows] - self.typical) / (1.0 - self.typical)
            nothing = np.zeros(len(pids))
            none = Votes(nothing, nothing, nothing, nothing)
            best = order(score(self.parameters, changed, none).scores, pids)
            found[query] = self._without(query, [self.id_of[int(pids[i])] for i in best])
        return found

    def dense(self, cosines: Floats, ids: Sequence[str]) -> Runs:
        """The order by cosine alone."""
        best = np.argsort(-cosines, axis=1, kind="stable")[:, : DEPTH + 1].tolist()
        return {
            query: self._without(query, [ids[i] for i in row])
            for query, row in zip(self.ids, best, strict=True)
        }

    def _without(self, query: str, ids: Sequence[str]) -> list[str]:
        return [id_ for id_ in ids if id_ != query or query not in self.split.own][:DEPTH]

    def scores(self, run: Runs) -> npt.NDArray[np.float64]:
        """nDCG@10 of each question."""
        of = by_query((MEASURE,), self.split.qrels, run)[MEASURE]
        return np.array([of[query] for query in self.ids])


def gain(one: npt.NDArray[np.float64], many: npt.NDArray[np.float64]) -> Json:
    """Means, and the gain with its interval."""
    low, high = bootstrap_interval(many - one, seed=0)
    return {
        "one_vector": round(float(one.mean()), 4),
        "many": round(float(many.mean()), 4),
        "gain": round(float((many - one).mean()), 4),
        "gain_interval": [round(low, 4), round(high, 4)],
    }


KINDS: Mapping[str, tuple[Callable[[Passage, SentenceEncoder], list[str]], bool]] = {
    "windows": (windows, False),
    "windows instead": (windows, True),
    "sentences": (sentences, False),
}
"""How passages are cut, and whether the parts stand in place of the whole."""


def measured(name: str, model: SentenceEncoder, most_test: int, cache: Path | None) -> Json:
    """One collection."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), Protocol(), Path(scratch), None)
        asked = Asked(bench, most_test)
    passages = bench.collection.passages
    texts = [encoded_text(p) for p in passages]
    ids, row_of = [p.id for p in passages], {p.id: i for i, p in enumerate(passages)}
    assert bench.encoder is not None, f"{name} has prepared vectors"
    whole, tokens = bench.encoder.encode_passages(texts), np.array(model.count_tokens(texts))
    found: Json = {
        "passages": len(passages),
        "longer_than_256_tokens": round(float((tokens > READ).mean()), 4),
        "questions": len(asked.ids),
        "cut": len(asked.read),
    }
    cosines = asked.vectors @ whole.T
    dense = asked.scores(asked.dense(cosines, ids))
    hybrid = asked.scores(asked.hybrid(cosines, row_of))
    for kind, (cut, alone) in KINDS.items():
        parts = [
            (row_of[p.id], part) for p in passages if p.id in asked.read for part in cut(p, model)
        ]
        print(name, kind, len(parts), "parts", flush=True)
        if not parts:
            continue
        vectors, seconds = encoded([text for _, text in parts], model, cache)
        owners = np.array([owner for owner, _ in parts], dtype=np.int64)
        best = best_cosines(asked.vectors, whole, vectors, owners, alone=alone)
        found[kind] = {
            "parts": len(parts),
            "encode_cpu_seconds": round(seconds, 1),
            "dense": gain(dense, asked.scores(asked.dense(best, ids))),
            "hybrid": gain(hybrid, asked.scores(asked.hybrid(best, row_of))),
        }
    return found


def main() -> None:
    """Run all and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/windows.json"))
    parser.add_argument("--most-test", type=int, default=MOST_TEST)
    parser.add_argument("--cache", type=Path)
    asked = parser.parse_args()
    if asked.cache is not None:
        asked.cache.mkdir(parents=True, exist_ok=True)
    model = SentenceEncoder.load(DEFAULT_ENCODER.partition(":")[2])
    result: Json = {**surroundings(("numpy", "torch")), "commit": commit(), "seed": 0}
    result |= {"most_test": asked.most_test, "collections": {}}
    for name in NAMES:
        result["collections"][name] = measured(name, model, asked.most_test, asked.cache)
        print(json.dumps(result["collections"][name], indent=1), flush=True)
        asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
