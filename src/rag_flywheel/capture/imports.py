"""Brings retrievals and votes of other tools into the index.

All is read first, in any order, so that what cannot be read changes nothing. It is then written in batches,
each one transaction: where a call is interrupted, the same call goes on. Nothing comes in twice.
"""

from collections.abc import Iterable

from rag_flywheel.capture.imported_reading import Reader
from rag_flywheel.capture.imported_records import KINDS, Counts, Settings
from rag_flywheel.capture.imported_retrievals import RetrievalWriter
from rag_flywheel.capture.imported_votes import VoteWriter
from rag_flywheel.records import ImportReport
from rag_flywheel.store.database import Database
from rag_flywheel.store.staging import Staging


def bring_in(database: Database, records: Iterable[object], settings: Settings) -> ImportReport:
    """Bring in records, in whatever order; returns what came of them.

    Raises InputError for what is no record, and whatever reading them raises: then nothing came in.
    """
    counts = Counts()
    with Staging() as staging:
        reader = Reader(database, settings, staging, counts)
        for record in records:
            reader.take(record)
        RetrievalWriter(database, settings, staging, counts).write()
        VoteWriter(database, settings, staging, counts).write()
    return ImportReport(
        settings.source,
        counts.retrievals,
        {kind: counts.votes[kind] for kind in KINDS if counts.votes[kind]},
        counts.unchanged,
        counts.extended,
        dict(sorted(counts.left_out.items())),
        settings.dry_run,
    )
