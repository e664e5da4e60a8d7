"""Computes the evidence of past queries from the store, and writes it into a version."""

from collections.abc import Sequence
from pathlib import Path

from rag_flywheel.curate.chances import past_supports, rests_on
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.loaded import load_parameters
from rag_flywheel.rank.evidence import CODES_FROM, codes_of
from rag_flywheel.rank.memory import load_memory
from rag_flywheel.rank.raters import load_raters, weights_of
from rag_flywheel.rank.stored_evidence import (
    StoredEvidence,
    save_stored_evidence,
    stored_evidence_of,
)
from rag_flywheel.records import Judgment
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import past_query_vectors


def write_stored_evidence(
    staged: Path, database: Database, source: Source, judged: Sequence[Judgment], *, until: int
) -> None:
    """Write the evidence of the votes up to event number `until`, under the parameters and memory of
    the staged version; none where judgments depend on the time.

    judged: all judgments up to then; source: how the index reads events, with queries encoded as in
    the version.
    """
    memory, parameters = load_memory(staged), load_parameters(staged)
    weights = weights_of(load_raters(staged))
    evidence = StoredEvidence()
    with database.snapshot() as conn:
        provenance = rests_on(
            until, parameters, weights, source.judged_by, source.queries.revision, conn
        )
        if provenance.by:
            codes = None
            found = past_supports(memory, parameters, judged, conn)
            if len(found.keys) >= CODES_FROM:
                hashes = [key.query_hash for key in found.keys]
                vectors = past_query_vectors(conn, hashes, source.queries)
                codes = codes_of(vectors[: len(hashes)])
            evidence = stored_evidence_of(provenance, found, codes)
    save_stored_evidence(evidence, staged)
