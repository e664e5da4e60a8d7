"""What weighing voters leaves to an honest minority: nDCG@10 of its own questions.

    python benchmarks/learning/minorities.py --seeds 3 --out benchmarks/results/minorities.json

RAG_FLYWHEEL_DATA holds the BEIR folders. A fifth of a hundred people want other answers than the
others: for each need the best passage before any vote that is wrong for the others. Everybody looks
at rank r with probability 1/r and errs in a fifth of their verdicts. The minority is told apart

    wording  by words in its questions, in front of what others ask
    tenant   by a tenant of its own, whose passages are the same

Each train query is asked by three of the people, in five cycles. `kept` is the share of the minority's
lift that is left compared with the same run in which all voters weigh 1: on the questions that its
people `asked`, when they are asked again, and on its `test` questions, which get no vote. `known`: how
many of its train questions have a known answer before anything is asked, by pins; they are asked, but
not scored. `weights`: the least, the mean and the largest weight of its people.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.encode.make import make_encoder
from rag_flywheel.encoder import Encoder
from rag_flywheel.improve.examples import Ints
from rag_flywheel.records import Vectors

NAMES, KINDS = ("metatool", "feedbackqa"), ("wording", "tenant")
KNOWN = (0, 40)
PEOPLE, MINORITY, ASKED = 100, 20, 3
MAX_TRAIN, MAX_TEST, N_CYCLES, SHOWN = 1_500, 400, 5, 8
WORDS = "I am on the night shift in the field office: "
HONEST = Users(eta=1.0, eps=0.2)
_AT_A_TIME = 16
_MODEL = "sentence-transformers:all-MiniLM-L6-v2"


class WithWords:
    """The prepared vectors, and those of questions with the minority's words in front by the model."""

    def __init__(self, inner: Encoder) -> None:
        self._inner, self._model = inner, make_encoder(_MODEL)
        self.name, self.revision, self.dim = inner.name, inner.revision, inner.dim
        self._known: dict[str, Vectors] = {}

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        new = [t for t in dict.fromkeys(texts) if t.startswith(WORDS) and t not in self._known]
        if new:
            self._known.update(zip(new, self._model.encode_queries(new), strict=True))
        plain = [t for t in texts if not t.startswith(WORDS)]
        rows = iter(self._inner.encode_queries(plain)) if plain else iter(())
        return np.stack([self._known[t] if t.startswith(WORDS) else next(rows) for t in texts])

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return self._inner.encode_passages(texts)


@dataclass(frozen=True)
class _Groups:
    """The two groups of people: what they ask, in which tenant, and what answers them."""

    bench: Bench
    kind: str
    wanted: Mapping[frozenset[str], str]

    def text(self, query: str, split: str, *, own: bool) -> str:
        words = str(getattr(self.bench, split).queries[query])
        return WORDS + words if own and self.kind == "wording" else words

    def where(self, *, own: bool) -> dict[str, object] | None:
        return {"team": "few" if own else "many"} if self.kind == "tenant" else None

    def answers(self, query: str, split: str, *, own: bool) -> dict[str, int]:
        known = getattr(self.bench, split).qrels[query]
        if not own:
            found = dict(known)
        else:
            found = {self.wanted[frozenset(p for p, grade in known.items() if grade > 0)]: 1}
        if self.kind == "tenant":
            found = {f"{'few' if own else 'many'} {p}": grade for p, grade in found.items()}
        return found


def run(name: str, kind: str, seed: int, *, known: int, weighed: bool) -> dict[str, Any]:
    """One collection with one kind of minority; known: as above; weighed: else all voters weigh 1."""
    began = time.monotonic()
    protocol = Protocol(seed=seed, n_cycles=N_CYCLES, max_train=MAX_TRAIN, max_test=MAX_TEST)
    with tempfile.TemporaryDirectory() as scratch, _all_alike(off=weighed):
        bench = prepare(find_collection(name), protocol, Path(scratch), None)
        assert bench.encoder is not None, "needs prepared vectors"
        bench = replace(bench, encoder=WithWords(bench.encoder))
        groups = _Groups(bench, kind, _wanted(bench))
        rng = np.random.default_rng([seed, 11])
        people = {q: rng.choice(PEOPLE, ASKED, replace=False) for part in bench.parts for q in part}
        own = sorted(q for q, some in people.items() if min(some) < MINORITY)
        pinned = set(rng.permutation(own)[:known].tolist())
        scored = {"asked": sorted(set(own) - pinned), "test": sorted(bench.test.queries)}
        key = "team" if kind == "tenant" else None
        config = Config(encoder="", tenant_key=key, tenant_required=False)
        root = Path(scratch) / "groups"
        with Flywheel.open(root, encoder=bench.encoder, config=config) as fw:
            fw.add(_passages(bench, kind))
            for query in sorted(pinned):
                (answer,) = groups.answers(query, "train", own=True)
                text = groups.text(query, "train", own=True)
                fw.pin(text, answer, where=groups.where(own=True))
            fw.refresh()
            before = _scores(fw, groups, scored)
            for part in bench.parts:
                _cycle(fw, groups, part, people, rng)
                fw.refresh()
            after = _scores(fw, groups, scored)
            raters = fw.raters([f"person-{i}" for i in range(PEOPLE)])
    few = [r.weight for r in raters if r.name and int(r.name[7:]) < MINORITY]
    return {
        "collection": name,
        "kind": kind,
        "seed": seed,
        "known": known,
        "weighed": weighed,
        "lift": {which: after[which] - before[which] for which in before},
        "static": before,
        "weights": {"least": min(few), "mean": statistics.mean(few), "most": max(few)},
        "seconds": round(time.monotonic() - began, 1),
    }


@contextmanager
def _all_alike(*, off: bool) -> Iterator[None]:
    if off:
        yield
    else:
        with patch("rag_flywheel.refresh.next_version.weighed_raters", lambda *_, **__: {}):
            yield


def _wanted(bench: Bench) -> dict[frozenset[str], str]:
    """For each set of right passages the best one before any vote that is not among them, by how many of
    its questions."""
    best: dict[frozenset[str], Counter[str]] = defaultdict(Counter)
    with bench.open(bench.base) as fw:
        for split in (bench.train, bench.test):
            ids = sorted(split.queries)
            for query, found in zip(
                ids, fw.rank_many([split.queries[q] for q in ids], 40), strict=True
            ):
                right = frozenset(p for p, grade in split.qrels[query].items() if grade > 0)
                best[right][next(p for p in found if p not in right)] += 1
    return {right: min(n, key=lambda p: (-n[p], p)) for right, n in best.items()}


def _passages(bench: Bench, kind: str) -> list[Passage]:
    own = bench.collection.passages
    if kind == "wording":
        return list(own)
    return [
        replace(p, id=f"{team} {p.id}", metadata={"team": team})
        for team in ("many", "few")
        for p in own
    ]


def _cycle(
    fw: Flywheel,
    groups: _Groups,
    queries: tuple[str, ...],
    people: Mapping[str, Ints],
    rng: np.random.Generator,
) -> None:
    asked = [(query, int(person)) for query in queries for person in people[query]]
    asked = [asked[i] for i in rng.permutation(len(asked))]
    for start in range(0, len(asked), _AT_A_TIME):
        votes = []
        for query, person in asked[start : start + _AT_A_TIME]:
            own = person < MINORITY
            text = groups.text(query, "train", own=own)
            user = f"person-{person}"
            seen = fw.retrieve(text, SHOWN, where=groups.where(own=own), user_id=user)
            votes += HONEST.votes(seen, groups.answers(query, "train", own=own), user, rng)
        fw.feedback_many(votes)


def _scores(fw: Flywheel, groups: _Groups, scored: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """nDCG@10 of the minority's questions, asked and test, and of the others' test questions."""
    return {
        "asked": _scored(fw, groups, "train", scored["asked"], own=True),
        "test": _scored(fw, groups, "test", scored["test"], own=True),
        "majority": _scored(fw, groups, "test", scored["test"], own=False),
    }


def _scored(
    fw: Flywheel, groups: _Groups, split: str, queries: Sequence[str], *, own: bool
) -> float:
    texts = [groups.text(q, split, own=own) for q in queries]
    found = dict(zip(queries, fw.rank_many(texts, 10, where=groups.where(own=own)), strict=True))
    return mean(ndcg_at_10({q: groups.answers(q, split, own=own) for q in queries}, found))


def main() -> None:
    """Run what is asked for, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=list(NAMES))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--known", nargs="+", type=int, default=list(KNOWN))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/minorities.json"))
    asked = parser.parse_args()
    machine = {"python": platform.python_version(), "n_cores": os.cpu_count()}
    runs: list[dict[str, Any]] = []
    places = list(itertools.product(asked.collections, asked.kinds, asked.known))
    for seed, (name, kind, known) in itertools.product(range(asked.seeds), places):
        plain, own = (run(name, kind, seed, known=known, weighed=w) for w in (False, True))
        kept = {
            which: own["lift"][which] / plain["lift"][which] if plain["lift"][which] else 1.0
            for which in ("asked", "test")
        }
        runs += [plain, own | {"kept": kept}]
        print(name, kind, known, seed, kept, plain["lift"], own["lift"], own["weights"], flush=True)
        result = {"people": PEOPLE, "minority": MINORITY, "machine": machine}
        result |= {"commit": commit(), "runs": runs}
        asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, kind, known in places:
        kept_ones = [
            r["kept"]["asked"]
            for r in runs
            if (r["collection"], r["kind"], r["known"]) == (name, kind, known) and "kept" in r
        ]
        middle = statistics.median(kept_ones)
        print(f"{name}, {kind}, {known} known: keeps {middle:.0%} of {len(kept_ones)} seeds")


if __name__ == "__main__":
    main()
