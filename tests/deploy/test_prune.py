"""What no version needs any more goes with the refresh that finds it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from folders import opened
from rag_flywheel.store import vectors

TUNED = "words 1, tuned"


def revisions(root: Path) -> dict[str, int]:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        return dict(conn.execute("SELECT revision, count(*) FROM vectors GROUP BY revision"))


def test_vectors_of_a_tuned_encoder_that_no_version_has(folder: Path) -> None:
    before = revisions(folder)
    with closing(sqlite3.connect(folder / "flywheel.db")) as conn, conn:
        (text_hash,) = conn.execute("SELECT text_hash FROM vectors LIMIT 1").fetchone()
        row = np.zeros((1, 64), np.float32)
        vectors.put_vectors(conn, [text_hash], row, TUNED)
        vectors.note_revision(conn, TUNED)
    assert revisions(folder) == {**before, TUNED: 1}
    with opened(folder) as fw:
        assert fw.refresh(if_votes=1_000).outcome == "unchanged"
        assert fw.verify() == []
    assert revisions(folder) == before
