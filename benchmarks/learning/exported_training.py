"""What a set of triplets that `export training-set` wrote teaches an encoder: one epoch of the side of the
queries, and dense search alone before and after it, on questions that nobody asked.

    python benchmarks/learning/exported_training.py --out benchmarks/results/exported_training.json

Each train question of a collection under RAG_FLYWHEEL_DATA is asked by three users, who look at rank r with
probability 1 / r and are wrong in a fifth of their verdicts. The index refreshes, the split `train` of its
triplets is loaded by `datasets`, and the query encoder all-MiniLM-L6-v2 is trained on it with sentence-
transformers: the loss is the cross-entropy of the right passage among those of the batch and their hard
negatives ("in-batch negatives": Karpukhin et al., EMNLP 2020); vectors of passages never change. Test
questions are those of the collection's split test.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import asking
from rag_flywheel.bench.intervals import helped_hurt_untouched, paired_difference
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.bench.measures import by_query, mean
from rag_flywheel.bench.prepared import read_prepared
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.encode.model_folder import model_folder
from rag_flywheel.store.passages import encoded_text

N_USERS = 3
MODEL = "all-MiniLM-L6-v2"
BATCH, RATE, TEMPERATURE, WARM_UP = 64, 3e-5, 0.05, 0.1
MEASURES = ("nDCG@10", "R@8")
_DEPTH = 100
Vectors = npt.NDArray[np.float32]


def main() -> None:
    """Ask, vote, export, train and measure, once for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="feedbackqa")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/exported_training.json")
    )
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    measured_at = commit()
    found = {
        "collection": asked.collection,
        "n_users": N_USERS,
        "users": {"eta": 1.0, "eps": 0.2},
        "batch": BATCH,
        "rate": RATE,
        "temperature": TEMPERATURE,
        "runs": [_run(asked.collection, seed) for seed in asked.seeds],
        **machine("sentence-transformers", "datasets", "torch", "numpy"),
        "commit": measured_at,
    }
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _run(collection: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = find_collection(collection)
        users = Users(eta=1.0, eps=0.2)
        bench = prepare(folder, Protocol(users=users, seed=seed), Path(scratch), None)
        began = time.monotonic()
        written = _exported(bench, users, seed, Path(scratch) / "triplets")
        voted_s = time.monotonic() - began
        began = time.monotonic()
        encoder = read_prepared(folder, bench.collection)
        assert encoder is not None, "the collection has no prepared vectors"
        passages = encoder.encode_passages([encoded_text(p) for p in bench.collection.passages])
        known = {
            encoded_text(p): v for p, v in zip(bench.collection.passages, passages, strict=True)
        }
        model = _trained(Path(scratch) / "triplets", known, seed)
        trained_s = time.monotonic() - began
        ids = sorted(bench.test.queries)
        texts = [bench.test.queries[q] for q in ids]
        after = model.encode(texts, normalize_embeddings=True, convert_to_numpy=True)
        before = _untrained().encode(texts, normalize_embeddings=True, convert_to_numpy=True)
        names = [p.id for p in bench.collection.passages]
        scores = {
            name: by_query(MEASURES, bench.test.qrels, _ranked(ids, vectors, names, passages))
            for name, vectors in (("before", before), ("after", after))
        }
    return {
        "seed": seed,
        **written,
        "n_test": len(ids),
        "seconds_voting": round(voted_s, 1),
        "seconds_training": round(trained_s, 1),
        "measures": {name: _compared(scores, name, seed) for name in MEASURES},
    }


def _exported(bench: Bench, users: Users, seed: int, folder: Path) -> dict[str, Any]:
    """Cast the votes, refresh, and write the triplets; returns the numbers."""
    queries = [q for part in bench.parts for q in part]
    with bench.open(bench.base) as fw:
        n_votes = sum(
            asking(fw, bench.train, queries, users, np.random.default_rng([seed, n]))()
            for n in range(N_USERS)
        )
        fw.refresh()
        report = fw.export.training_set("triplets", folder, most_negatives=1)
    return {
        "n_asked": len(queries),
        "n_votes": n_votes,
        "rows": dict(report.written),
        "left_out": dict(report.left_out),
    }


def _untrained() -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(model_folder(MODEL)), device="cpu")


def _trained(folder: Path, known: Mapping[str, Vectors], seed: int) -> Any:
    """The query encoder after one epoch of the split train; known: the vectors of passages by their texts."""
    import torch
    from datasets import load_dataset

    rows = load_dataset(str(folder), split="train", cache_dir=str(folder / "cache"))
    torch.manual_seed(seed)
    model = _untrained()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    n_steps = -(-len(rows) // BATCH)
    order = np.random.default_rng(seed).permutation(len(rows))
    model.eval()  # without dropout, as the project tunes its own encoder
    with torch.enable_grad():
        for step in range(n_steps):
            batch = rows[np.sort(order[step * BATCH : (step + 1) * BATCH]).tolist()]
            done = step / max(n_steps * WARM_UP, 1)
            for group in optimiser.param_groups:
                group["lr"] = RATE * min(done, (n_steps - step) / (n_steps * (1 - WARM_UP)), 1.0)
            features = model.preprocess(batch["anchor"])
            queries = torch.nn.functional.normalize(model(features)["sentence_embedding"], dim=1)
            candidates = [*batch["positive"], *batch["negative"]]
            passages = torch.from_numpy(np.stack([known[text] for text in candidates]))
            scores = queries @ passages.T / TEMPERATURE
            same = torch.tensor([[a == b for b in candidates] for a in batch["positive"]])
            same.fill_diagonal_(False)  # the right passage of another question may be the same
            loss: Any = torch.nn.functional.cross_entropy(
                scores.masked_fill(same, -1e9), torch.arange(len(queries))
            )
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
    return model


def _ranked(
    ids: list[str], queries: Vectors, names: list[str], passages: Vectors
) -> dict[str, list[str]]:
    best = np.argsort(-(queries @ passages.T), axis=1, kind="stable")[:, :_DEPTH]
    return {id_: [names[i] for i in row] for id_, row in zip(ids, best.tolist(), strict=True)}


def _compared(
    scores: Mapping[str, Mapping[str, Mapping[str, float]]], name: str, seed: int
) -> dict[str, Any]:
    before, after = scores["before"][name], scores["after"][name]
    differences = np.array([after[q] - before[q] for q in sorted(after)])
    helped, hurt, untouched = helped_hurt_untouched(differences)
    return {
        "before": round(mean(before), 4),
        "after": round(mean(after), 4),
        "difference": paired_difference(after, before, seed),
        "helped": round(helped, 4),
        "hurt": round(hurt, 4),
        "untouched": round(untouched, 4),
    }


if __name__ == "__main__":
    main()
