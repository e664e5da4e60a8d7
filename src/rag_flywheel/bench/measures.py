"""Measures a run against qrels with ir-measures, and with harmful@8.

A run is {query id: passage ids, the best first}; it must not know which ranking produced the run.
"""

from collections.abc import Mapping, Sequence

from rag_flywheel.formats.beir import Qrels

Run = Mapping[str, Sequence[str]]
STANDARD = ("nDCG@10", "R@1", "P@8", "R@8", "R@75", "Judged@8")
"""Measures of ir-measures, by their names there; R is recall."""


def by_query(measures: Sequence[str], qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """{measure: {query: value}} of measures such as nDCG@10; 0 for a query without hits."""
    import ir_measures

    scored = {
        query: {passage: float(-rank) for rank, passage in enumerate(hits)}
        for query, hits in run.items()
    }
    # not by its parse_measure, which needs what Python 3.14 no longer has
    split = {name: name.split("@") for name in measures}
    parsed = {getattr(ir_measures, of) @ int(cutoff): n for n, (of, cutoff) in split.items()}
    found = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    for row in ir_measures.iter_calc(list(parsed), qrels, scored):
        found[parsed[row.measure]][row.query_id] = float(row.value)
    return found


def ndcg_at_10(qrels: Qrels, run: Run) -> dict[str, float]:
    """nDCG@10 by query (Järvelin and Kekäläinen 2002, as trec_eval computes it)."""
    return by_query(["nDCG@10"], qrels, run)["nDCG@10"]


def recall_at_8(qrels: Qrels, run: Run) -> dict[str, float]:
    """Recall@8 by query: the share of the relevant passages among the first 8 hits."""
    return by_query(["R@8"], qrels, run)["R@8"]


def harmful_at_8(qrels: Qrels, run: Run) -> dict[str, float]:
    """harmful@8 by query: the share of the first 8 hits that a truthful user would call harmful.

    That is the hits that do not answer the query; for a query with few answers it cannot be 0.
    """
    found = {}
    for query, judged in qrels.items():
        hits = list(run.get(query, ()))[:8]
        wrong = sum(judged.get(passage, 0) <= 0 for passage in hits)
        found[query] = wrong / len(hits) if hits else 0.0
    return found


def mean(by_query: Mapping[str, float]) -> float:
    """The mean over queries."""
    return sum(by_query.values()) / len(by_query)


def all_means(qrels: Qrels, run: Run) -> dict[str, float]:
    """The mean of every standard measure, and of harmful@8."""
    means = {name: mean(values) for name, values in by_query(STANDARD, qrels, run).items()}
    return {**means, "harmful@8": mean(harmful_at_8(qrels, run))}
