"""Planted gaps: are topics that users ask in vain found, and which questions look unanswerable?

    python benchmarks/learning/gaps.py --seeds 3 --out benchmarks/results/gaps.json
    python benchmarks/learning/gaps.py --topics --out benchmarks/results/gap_topics.json \
        --docs fastapi FOLDER --docs prometheus FOLDER

RAG_FLYWHEEL_DATA holds squad11_dev and scifact. Planted are 20 articles: of each, some of the questions
that SQuAD 2.0 says have no answer there (10 or 30, drawn by the seed) are asked again and again (100
times in all, or 50). They come among train questions, which have answers: 150 times one of each of the
48 articles. Popular questions are asked more often (1/rank), in random order, by another user each.
A fifth of users votes on passages (attention 1/rank, a fifth of verdicts wrong). Besides, a tenth of
those whose answer is not among the shown hits says that it is missing, and so does a hundredth of the
others, mistakenly.

The gaps are judged by the examples that they show: one is right when most of its examples are planted
questions of one article. Precision: right ones among the best 20. Recall: articles that those are of,
among the 20. Thresholds were looked at on the 15 other articles that have such questions.

--topics: how many of 100 ordinary questions and of 20 topics that are missing are listed before any vote,
each asked once, and the topics once four people asked about them in three wordings,
on the demo's collection (Python's standard library) and, with --docs, on other documentation: of FastAPI
(docs/en/docs of its repository: tutorial, advanced, deployment and how-to) and of Prometheus (docs of its
documentation's repository: five folders). The questions are in gap_topics.json; by them the bounds were
chosen.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gain import surroundings
from rag_flywheel import Flywheel
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import SHOWN, give_feedback
from rag_flywheel.bench.demo import help_desk
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import OnAnswer, Users
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.formats.documents import read_paths
from rag_flywheel.records import Passage, Retrieval, Vote
from rag_flywheel.report.gaps import UNLIKELY

NAME, CLAIMS = "squad11_dev", "scifact"
ARTICLES, ASKED_ANSWERED = 20, 150
PLANTED = ((10, 100), (30, 100), (10, 50))  # questions of each article, times they are asked in all
VOTES, MISSING, MISTAKEN = 0.2, 0.1, 0.01
BELOW = 1_000  # questions of each kind whose best hit is looked at
FOLDERS = {
    "fastapi": ("tutorial", "advanced", "deployment", "how-to"),
    "prometheus": ("introduction", "concepts", "practices", "alerting", "instrumenting"),
}
Json = dict[str, Any]
Rng = np.random.Generator
Asks = list[tuple[str, Mapping[str, int]]]
"""(question, the passages that answer it), in the order they are asked."""


def articles() -> tuple[dict[str, list[str]], list[str]]:
    """({article: its questions without an answer}, the articles that are planted)."""
    found: dict[str, list[str]] = defaultdict(list)
    with gzip.open(find_collection(NAME) / "unanswerable.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            found[row["article"]].append(row["text"])
    names = np.random.default_rng(0).permutation(sorted(found)).tolist()
    return dict(found), names[:ARTICLES]


def asked_of(questions: Sequence[str], n: int, rng: Rng) -> list[str]:
    """n times one of these questions, the first ones most often."""
    popularity = 1.0 / np.arange(1, len(questions) + 1)
    found: list[str] = rng.choice(questions, n, p=popularity / popularity.sum()).tolist()
    return found


def planted(
    by_article: Mapping[str, Sequence[str]], names: Sequence[str], how: tuple[int, int], rng: Rng
) -> Asks:
    """Asking so many unanswerable questions of each article, so often in all."""
    n, times = how
    each = (rng.choice(by_article[name], n, replace=False).tolist() for name in names)
    return [(text, {}) for some in each for text in asked_of(some, times, rng)]


def answered(bench: Bench, rng: Rng) -> Asks:
    """Asking train questions of every article, with the passages that answer them."""
    by_article: dict[str, list[str]] = defaultdict(list)
    for query in rng.permutation(sorted(bench.train.queries)).tolist():
        (passage,) = bench.train.qrels[query]
        by_article[passage.rpartition("#")[0]].append(query)
    return [
        (bench.train.queries[query], bench.train.qrels[query])
        for name in sorted(by_article)
        for query in asked_of(by_article[name], ASKED_ANSWERED, rng)
    ]


def ask(fw: Flywheel, asked: Asks, rng: Rng) -> dict[str, int]:
    """Users ask and say what they say; returns how many said what."""
    users, said = Users(), Counter[str]()
    order = rng.permutation(len(asked)).tolist()
    for start in range(0, len(order), 16):
        part = [asked[i] for i in order[start : start + 16]]
        votes: list[Vote | OnAnswer] = []
        for seen, (_, grades) in zip(
            fw.retrieve_many([q for q, _ in part], SHOWN), part, strict=True
        ):
            votes += _votes(users, seen, grades, rng)
            helped = any(grades.get(hit.passage_id, 0) > 0 for hit in seen.hits)
            if rng.random() < (MISTAKEN if helped else MISSING):
                fw.missing(seen.id, user_id=f"user-{rng.integers(2**62)}")
                said["missing, mistakenly" if helped else "missing"] += 1
        said["votes"] += give_feedback(fw, votes)
    return {"asked": len(asked), "in_vain": sum(not grades for _, grades in asked), **said}


def _votes(users: Users, seen: Retrieval, grades: Mapping[str, int], rng: Rng) -> Sequence[Vote]:
    if rng.random() >= VOTES:
        return []
    return users.votes(seen, grades, f"user-{rng.integers(2**62)}", rng)


def found(fw: Flywheel, article_of: Mapping[str, str], n: int) -> Json:
    """Precision and recall of the best n gaps."""
    given = fw.gaps(days=30)
    shown = [
        Counter(article_of.get(text, "") for text in gap.examples).most_common(1)[0]
        + (len(gap.examples),)
        for gap in given[:n]
    ]
    right = [name for name, count, of in shown if name and count > of / 2]
    return {
        "gaps": len(given),
        "precision": len(right) / n,
        "recall": len(set(right)) / n,
        "asked": [gap.n for gap in given[:n]],
    }


def plant(seed: int, how: tuple[int, int]) -> Json:
    """One simulation."""
    began, rng = time.monotonic(), np.random.default_rng([seed, *how])
    by_article, names = articles()
    article_of = {text: name for name in names for text in by_article[name]}
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(NAME), Protocol(seed=seed), Path(scratch), None)
        with bench.open(bench.base) as fw:
            asks = [*answered(bench, rng), *planted(by_article, names, how, rng)]
            row: Json = {"seed": seed, "questions": how[0], "times": how[1]}
            row["said"] = ask(fw, asks, rng)
            row |= found(fw, article_of, len(names))
    return row | {"seconds": round(time.monotonic() - began, 1), "commit": commit()}


def unlikely() -> Json:
    """Shares of questions that are listed as unlikely to have an answer, before any vote."""
    rng = np.random.default_rng(0)
    by_article, _ = articles()
    vain = [text for name in sorted(by_article) for text in by_article[name]]
    claims = sorted(read_beir(find_collection(CLAIMS)).splits["test"].queries.values())
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(NAME), Protocol(), Path(scratch), None)
        kinds = {
            "questions with an answer": sorted(bench.test.queries.values()),
            "SQuAD's questions without one": vain,
            "science claims": claims,
        }
        with bench.open(bench.base) as fw:
            rows: Json = {"passages": len(bench.collection.passages), "below": UNLIKELY}
            for kind, texts in kinds.items():
                some = rng.permutation(texts)[:BELOW].tolist()
                seen = fw.retrieve_many(some, SHOWN, record=False)
                low = [r.answerable < UNLIKELY for r in seen]
                rows[kind] = {"n": len(some), "share": float(np.mean(low))}
    return rows


def listed(
    passages: Sequence[Passage], ordinary: Sequence[str], missing: Mapping[str, Sequence[str]]
) -> Json:
    """How many of these questions are gaps, without any feedback: the ordinary ones once each was asked;
    the missing topics too, and once four people asked about each, in three wordings."""
    found: Json = {"passages": len(passages)}
    with tempfile.TemporaryDirectory() as scratch, Flywheel.open(Path(scratch) / "kb") as fw:
        fw.add(passages)
        fw.refresh()
        for text in ordinary:
            fw.retrieve(text)
        n = sum(gap.unlikely for gap in fw.gaps())
        found["ordinary"] = {"asked": len(ordinary), "listed": n}
        for text in missing:
            fw.retrieve(text)
        once = _shown(fw, {text: [] for text in missing})
        for text, others in missing.items():
            for wording in (text, *others):
                fw.retrieve(wording)
        found["missing"] = {"asked": len(missing), "listed": once, "by_four": _shown(fw, missing)}
        found["ordinary"]["listed_then"] = _shown(fw, {text: [] for text in ordinary})
    return found


def _shown(fw: Flywheel, topics: Mapping[str, Sequence[str]]) -> int:
    """How many topics have one of their wordings among the examples of the gaps."""
    examples = {text for gap in fw.gaps() for text in gap.examples}
    return sum(not examples.isdisjoint((text, *others)) for text, others in topics.items())


def topics(docs: Mapping[str, Path]) -> Json:
    """The gaps of the demo's collection and of these folders of documentation."""
    path = Path(__file__).with_name("gap_topics.json")
    texts = json.loads(path.read_text(encoding="utf-8"))
    desk = help_desk()
    asked = {**desk.splits["test"].queries, **desk.splits["unrelated"].queries}
    some = np.random.default_rng(0).permutation(sorted(asked)).tolist()[:100]
    ordinary = [asked[query] for query in some]
    found = {"python": listed(desk.passages, ordinary, texts["python"]["missing"])}
    for name, folder in docs.items():
        passages = read_paths([folder / part for part in FOLDERS[name]]).passages
        found[name] = listed(passages, **texts[name])
    return found


def main() -> None:
    """Run all and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gaps.json"))
    parser.add_argument("--topics", action="store_true")
    parser.add_argument("--docs", nargs=2, action="append", default=[], metavar=("NAME", "FOLDER"))
    asked = parser.parse_args()
    if asked.topics:
        docs = {name: Path(folder) for name, folder in asked.docs}
        of_topics = {**surroundings(("numpy", "torch")), "commit": commit()} | topics(docs)
        asked.out.write_text(json.dumps(of_topics, indent=1) + "\n", encoding="utf-8")
        return
    result: Json = {
        "votes": VOTES,
        "missing": MISSING,
        "mistaken": MISTAKEN,
        **surroundings(("numpy", "scikit-learn", "torch")),
        "unlikely": unlikely(),
        "planted": [],
    }
    print(json.dumps(result["unlikely"], indent=1), flush=True)
    for seed in range(asked.seeds):
        for how in PLANTED:
            result["planted"].append(plant(seed, how))
            print(result["planted"][-1], flush=True)
            asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
