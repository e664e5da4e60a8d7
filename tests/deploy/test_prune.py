"""What no version needs any more goes with the refresh that finds it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from folders import opened
from rag_flywheel.deploy.prune import drop_dead_vectors
from rag_flywheel.store import vectors
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.place import open_database

DEAD, ALIVE = "tuned before", "tuned since"


def revisions(root: Path) -> dict[str, int]:
    with closing(sqlite3.connect(root / FILE_NAME)) as conn:
        return dict(conn.execute("SELECT revision, count(*) FROM vectors GROUP BY revision"))


@pytest.fixture
def noted(folder: Path) -> Path:
    """A folder with a vector of each of two tuned encoders, though none of its versions is tuned."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as conn, conn:
        (text_hash,) = conn.execute("SELECT text_hash FROM vectors LIMIT 1").fetchone()
        for revision in (DEAD, ALIVE):
            vectors.put_vectors(conn, [text_hash], np.zeros((1, 64), np.float32), revision)
            vectors.note_revision(conn, revision)
    return folder


def test_vectors_of_tuned_encoders_go_where_no_version_is_tuned(noted: Path) -> None:
    before = revisions(noted)
    with opened(noted) as fw:
        assert fw.refresh(if_votes=1_000).outcome == "unchanged"
        assert fw.verify() == []
    assert revisions(noted) == {r: n for r, n in before.items() if r not in {DEAD, ALIVE}}


def test_vectors_of_the_tuned_encoders_that_versions_have_stay(noted: Path) -> None:
    before = revisions(noted)
    for manifest in noted.glob("versions/*/manifest.json"):
        values = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**values, "tuned": ALIVE}))
    with closing(open_database(noted)) as database:
        drop_dead_vectors(noted, database)
        drop_dead_vectors(noted, database)
    assert revisions(noted) == {r: n for r, n in before.items() if r != DEAD}
