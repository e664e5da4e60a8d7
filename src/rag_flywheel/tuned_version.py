"""Which weights encode queries in a version: put there or carried on, with the vectors made by them.

It must not know how weights are taught.
"""

import logging
import shutil
from pathlib import Path

import numpy as np

from rag_flywheel.build import carry_tuned
from rag_flywheel.deploy import versions as deploy
from rag_flywheel.due import Kept
from rag_flywheel.encode.tower import FILE_NAME as TUNED_FILE
from rag_flywheel.encode.tuned import TunedQueries
from rag_flywheel.encoder import Encoder, QueryEncoder
from rag_flywheel.errors import FlywheelError
from rag_flywheel.past_queries import kept_vectors
from rag_flywheel.records import Progress
from rag_flywheel.serve.state import Source
from rag_flywheel.store import passages, retrievals, votes
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.database import Database
from rag_flywheel.tuning import Tuned

log = logging.getLogger("rag_flywheel")
_FOLDER = "tuning"  # of one that is under way
CHECKPOINT = f"{_FOLDER}/checkpoint.safetensors"


def queries_of(encoder: Encoder, kept: Kept) -> QueryEncoder | None:
    """What encodes queries so far; None: the encoder as it was made."""
    return None if kept.tuned is None else TunedQueries(encoder, *kept.tuned)


def put_queries(
    database: Database,
    source: Source,
    staged: Path,
    kept: Kept,
    tuned: Tuned | None,
    progress: Progress | None,
) -> str | None:
    """The revision of what encodes queries in a staged version, its weights being put there.

    Vectors of past queries under new weights are stored before it goes live: no process that loads
    it has to make them. source: of the encoder as it was made.
    """
    if tuned is None or tuned.queries is None:
        shutil.rmtree((staged / TUNED_FILE).parent, ignore_errors=True)  # the gate refused them
        if kept.tuned is None:
            return None
        carry_tuned(kept.tuned[0], staged)
        return kept.tuned[1]
    queries = tuned.queries
    with database.transaction(durable=False) as conn:
        vector_store.note_revision(conn, queries.revision)
        hashes = sorted(tuned.vectors)
        made = np.stack([tuned.vectors[h] for h in hashes])
        vector_store.put_vectors(conn, hashes, made, queries.revision)
        voted = votes.queries_voted_on(conn, 0, passages.read_clock(conn))
        texts = retrievals.query_texts(conn, voted)
    kept_vectors(database, source.under(queries), texts, progress)
    return queries.revision


def drop_dead_vectors(root: Path, database: Database) -> None:
    """Delete the vectors of tuned encoders that no version has any more."""
    with database.reading() as conn:
        noted = vector_store.noted_revisions(conn)
    if not noted:
        return
    try:
        live = {deploy.read_manifest(root, v).tuned for v in deploy.list_versions(root)}
    except FlywheelError as error:
        log.warning("refresh: vectors of older encoders are kept: %s", error)
        return
    if noted - live:
        with database.transaction() as conn:
            n = vector_store.drop_revisions(conn, noted - live)
        log.info("refresh: dropped %d vectors of encoders that no version has", n)


def forget_progress(root: Path) -> None:
    """Delete what is kept of how far a tuning is. Raises OSError: votes of users are behind it."""
    folder = root / _FOLDER
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
