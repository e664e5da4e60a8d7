"""Measures of a run against qrels: the door to ir-measures, and one of our own.

A run is {query id: passage ids, the best first}; it must not know what made it.
"""

from collections.abc import Mapping, Sequence

from rag_flywheel.bench.collection import Qrels

Run = Mapping[str, Sequence[str]]


def ndcg_at_10(qrels: Qrels, run: Run) -> dict[str, float]:
    """nDCG@10 by query (Järvelin and Kekäläinen 2002, as trec_eval computes it)."""
    return _by_query("nDCG@10", qrels, run)


def recall_at_8(qrels: Qrels, run: Run) -> dict[str, float]:
    """Recall@8 by query: the share of the relevant passages among the first 8 hits."""
    return _by_query("R@8", qrels, run)


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


def _by_query(measure: str, qrels: Qrels, run: Run) -> dict[str, float]:
    import ir_measures

    scored = {
        query: {passage: float(-rank) for rank, passage in enumerate(hits)}
        for query, hits in run.items()
    }
    parsed = ir_measures.parse_measure(measure)
    rows = ir_measures.iter_calc([parsed], qrels, scored)
    found = dict.fromkeys(qrels, 0.0)
    found.update({row.query_id: float(row.value) for row in rows})
    return found
