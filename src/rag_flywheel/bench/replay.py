"""Replays ratings that real users gave to passages, for a collection that includes them.

`feedback.jsonl.gz` lines hold query, passage_id, ratings and feedback_split, as FeedbackQA
(Li et al., Findings of ACL 2022) has them; it must not know how a result is displayed.
"""

import gzip
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_flywheel.bench.cycles import answers
from rag_flywheel.bench.intervals import paired_difference
from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.records import Candidate, Vote

if TYPE_CHECKING:
    from rag_flywheel.bench.setup import Bench

FILE_NAME = "feedback.jsonl.gz"
HELPFUL = {"Excellent", "Acceptable"}
_SPLIT = "dev"


def replay(folder: Path, bench: "Bench", protocol: Protocol) -> dict[str, Any] | None:
    """The change in nDCG@10 of test queries by the ratings of dev; None when there are no ratings.

    Each rater votes on the passage that they were shown, as on an application's own hit. Questions
    that are test queries word for word are left out.
    """
    if not (folder / FILE_NAME).exists():
        return None
    texts = {p.id: f"{p.title} {p.text}".strip() for p in bench.collection.passages}
    asked = _by_query(folder, set(bench.test.queries.values()), texts)
    with bench.copy("replay") as fw:
        before = ndcg_at_10(bench.test.qrels, answers(fw, bench.test, protocol.depth))
        n_votes = 0
        for query, rated in asked.items():
            candidates = [Candidate(passage, texts[passage], 0.0) for passage in rated]
            shown = fw.rerank(query, candidates, len(rated))
            n_votes += fw.feedback_many(
                Vote(shown.id, passage, "helpful" if rating in HELPFUL else "harmful", f"rater-{i}")
                for passage, ratings in rated.items()
                for i, rating in enumerate(ratings)
            )
        fw.refresh()
        after = ndcg_at_10(bench.test.qrels, answers(fw, bench.test, protocol.depth))
    return {
        "what": f"ratings of the {_SPLIT} questions by people; nDCG@10 of the test queries",
        "n_questions": len(asked),
        "n_votes": n_votes,
        "before": mean(before),
        "after": mean(after),
        "difference": paired_difference(after, before, protocol.seed),
    }


def _by_query(
    folder: Path, test_texts: set[str], passages: Mapping[str, str]
) -> dict[str, dict[str, list[str]]]:
    """{question: {passage id: ratings}} of the dev questions."""
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)
    with gzip.open(folder / FILE_NAME, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            query = str(row["query"])
            usable = query.strip() and query not in test_texts and row["passage_id"] in passages
            if row["feedback_split"] == _SPLIT and usable:
                found[query].setdefault(str(row["passage_id"]), []).extend(row["ratings"])
    return dict(found)
