"""The evidence of past questions as arrays is that which is computed question by question."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rag_flywheel import Flywheel, Passage
from rag_flywheel.curate.chances import past_queries, past_supports
from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.posterior import Rates
from rag_flywheel.rank.stored_evidence import Provenance, stored_evidence_of
from rag_flywheel.records import Judgment, QueryKey

MANY = 30


def memory_of(rng: np.random.Generator, keys: Sequence[QueryKey]) -> Memory:
    """Of all questions but every seventh, in another order than that of the judgments; some have a
    passage twice."""
    held = [keys[i] for i in rng.permutation(MANY).tolist() if i % 7]
    counts = rng.integers(1, 12, len(held))
    lineages = [rng.permutation(40)[:n] for n in counts]
    for some in lineages[::6]:
        some[-1] = some[0]
    chances = [rng.choice([0.0, 0.004, 0.1, 1.0], n) * rng.random(n) / n for n in counts]
    return Memory(
        tuple(held),
        np.append(0, np.cumsum(counts)).astype(np.int64),
        np.concatenate(lineages).astype(np.int64),
        np.concatenate(chances).astype(np.float32),
    )


def judgments_on(
    rng: np.random.Generator, memory: Memory, keys: Sequence[QueryKey]
) -> list[Judgment]:
    """Mostly on passages that the memory holds, some named by a user."""
    found = []
    for i in rng.permutation(MANY).tolist():
        row = memory.rows.get(keys[i])
        held: Sequence[int] = [1, 2] if row is None else list(memory.before(row))
        passages = {int(p) for p in rng.choice(held, 2)} | ({77} if i % 5 == 0 else set())
        for lineage in sorted(passages):
            helpful, harmful = rng.integers(0, 4, 2).tolist()
            votes = (i * 100 + lineage, i * 100 + 50)
            named = 1.0 if i % 11 == 0 else 0.0
            chosen = float(rng.random()) * (i % 2)
            found.append(Judgment(*keys[i], lineage, helpful, harmful, votes, 1, named, chosen))
    return found


@pytest.mark.parametrize("answers", [None, 2.5])
@pytest.mark.parametrize("noise", [0.05, 0.3, 0.48])
def test_arrays_hold_the_same_evidence(
    fw: Flywheel, help_desk: list[Passage], answers: float | None, noise: float
) -> None:
    fw.add(help_desk)
    for i in range(MANY):
        fw.retrieve(f"question {i}")
    with fw._database.reading() as conn:
        hashes = conn.execute("SELECT DISTINCT query_hash FROM retrievals ORDER BY 1").fetchall()
    keys = [QueryKey(name, None) for (name,) in hashes]
    assert len(keys) == MANY
    parameters = replace(Parameters(), rates=Rates(noise, noise), choice=1.5, answers=answers)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        memory = memory_of(rng, keys)
        judged = judgments_on(rng, memory, keys)
        with fw._database.snapshot() as conn:
            expected = past_queries(memory, parameters, judged, conn)
            supports = past_supports(memory, parameters, judged, conn)
        stored = stored_evidence_of(Provenance(10**6, 0, "x"), supports)
        assert list(stored.keys) == list(expected)
        assert len(stored.lineages) == sum(len(p.supports) for p in expected.values()) > MANY
        for row, past in enumerate(expected.values()):
            assert stored.past_query(row) == past


def test_no_judgment_leaves_no_evidence(fw: Flywheel) -> None:
    with fw._database.snapshot() as conn:
        supports = past_supports(Memory(), Parameters(), [], conn)
    assert len(stored_evidence_of(Provenance(), supports)) == 0
