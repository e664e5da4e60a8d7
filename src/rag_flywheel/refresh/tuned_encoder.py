"""Puts the weights that encode queries into a version: new ones, or those of the version before."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag_flywheel import disk
from rag_flywheel.curate.source import Source
from rag_flywheel.disk import link
from rag_flywheel.encode.tower import FILE_NAME as TUNED_FILE
from rag_flywheel.encode.tuned import TunedQueries
from rag_flywheel.encoder import Encoder, QueryEncoder
from rag_flywheel.errors import counted
from rag_flywheel.improve.examples import Examples
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import Progress, Vectors
from rag_flywheel.refresh.start import Model
from rag_flywheel.store import golden
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import shortest_first, store_vectors
from rag_flywheel.store.waiting import waiting_questions

log = logging.getLogger("rag_flywheel")


@dataclass(frozen=True)
class NewEncoder:
    """An encoder of queries that goes live, with parameters fitted to it.

    examples: the past queries as it encodes them; vectors: the vectors of those queries, by hash.
    """

    queries: QueryEncoder
    parameters: Parameters
    examples: Examples
    vectors: Mapping[bytes, Vectors]


def queries_of(encoder: Encoder, model: Model) -> QueryEncoder | None:
    """The tuned encoder of queries that a model has; None: queries go through the index's encoder."""
    return None if model.tuned is None else TunedQueries(encoder, *model.tuned)


def put_queries(
    database: Database,
    source: Source,
    staged: Path,
    model: Model,
    new: NewEncoder | None,
    progress: Progress | None,
) -> str | None:
    """Put the tuned weights into a staged version; returns their revision, None without any.

    Vectors of past queries, and of those with known answers, under new weights are stored before the
    version goes live, so that no process that loads it has to make them. source: how the index reads
    events, queries untuned.
    """
    if new is None:
        disk.delete(staged, TUNED_FILE.partition("/")[0])  # the gate refused them
        if model.tuned is None:
            return None
        (staged / TUNED_FILE).parent.mkdir()
        link(model.tuned[0], staged / TUNED_FILE)
        return model.tuned[1]
    with database.transaction(durable=False) as conn:
        vector_store.note_revision(conn, new.queries.revision)
        hashes = sorted(new.vectors)
        made = np.stack([new.vectors[h] for h in hashes])
        vector_store.put_vectors(conn, hashes, made, new.queries.revision)
    encode_questions(database, source.under(new.queries), progress)
    return new.queries.revision


def encode_questions(database: Database, source: Source, progress: Progress | None) -> int:
    """Store the vectors of all questions that got votes, and of those with known answers, that have none of
    the encoder of queries yet; returns how many. They are committed 256 at a time, so that what died is
    gone on with."""
    encoder = source.queries
    with database.snapshot() as conn:
        texts = waiting_questions(conn, encoder.revision)
        if source.config.known_answers:
            known = golden.known_queries(conn)
            there = vector_store.hashes_with_vector(conn, list(known), encoder.revision)
            texts |= {name: text for name, text in known.items() if name not in there}
    wanted = shortest_first(texts)
    for _ in store_vectors(database, wanted, encoder, progress, "encoding past queries"):
        pass
    if texts:
        log.info("refresh: embedded %s that had no vector", counted(len(texts), "past question"))
    return len(texts)
