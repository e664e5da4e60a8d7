"""What votes up to some event say of past queries, worked out from the store for a version to keep."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from rag_flywheel.curate.chances import past_queries, rests_on
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.loaded import load_parameters
from rag_flywheel.rank.evidence import CODES_FROM, codes_of
from rag_flywheel.rank.memory import load_memory
from rag_flywheel.rank.stored_evidence import (
    StoredEvidence,
    save_stored_evidence,
    stored_evidence_of,
)
from rag_flywheel.records import Judgment
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import past_query_vectors


def evidence_until(
    until: int,
    judged: Sequence[Judgment],
    version: Path,
    conn: sqlite3.Connection,
    source: Source,
) -> StoredEvidence:
    """What a process that opens the version in a folder would find, were `until` the last vote; from
    a read transaction. Nothing where that hangs on the time.

    judged: of every vote up to it; source: as the version encodes queries.
    """
    memory, noise = load_memory(version), load_parameters(version).noise
    provenance = rests_on(until, noise, source.judged_by, source.queries.revision, conn)
    if not provenance.by:
        return StoredEvidence()
    found = past_queries(memory, noise, judged, conn)
    if len(found) < CODES_FROM:
        return stored_evidence_of(provenance, found)
    vectors = past_query_vectors(conn, [key.query_hash for key in found], source.queries)[
        : len(found)
    ]
    return stored_evidence_of(provenance, found, codes_of(vectors))


def write_stored_evidence(
    staged: Path, database: Database, source: Source, judged: Sequence[Judgment], *, until: int
) -> None:
    """Write what votes say under the parameters and the memory that are there; judged: of the votes
    up to event number `until`; source: as queries of the version are encoded."""
    with database.snapshot() as conn:
        heard = evidence_until(until, judged, staged, conn, source)
    save_stored_evidence(heard, staged)
