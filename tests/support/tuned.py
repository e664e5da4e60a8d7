"""What tests of tuning share: folders before and after it, and what is read from them."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from rag_flywheel import Config, Flywheel
from rag_flywheel.encode.tower import FILE_NAME
from teachable import TeachableEncoder, passages, questions, vote

N, N_ASKED = 120, 70
ASKED, NEW = questions(0, N_ASKED), questions(N_ASKED, N)
Order = list[list[str]]


def opened(root: Path, config: Config | None = None) -> Flywheel:
    return Flywheel.open(root, encoder=TeachableEncoder(), config=config)


def make_voted(root: Path, wrong: float = 0.1, config: Config | None = None) -> Path:
    """A closed index with a version from before its past queries got votes."""
    with opened(root, config) as fw:
        fw.add(passages(N))
        fw.refresh()
        vote(fw, ASKED, wrong)
    return root


def make_tuned(root: Path) -> Path:
    """A closed index whose second version is tuned."""
    with opened(make_voted(root)) as fw:
        assert fw.refresh(tune=True).encoder == "new"
    return root


def order(fw: Flywheel) -> Order:
    """The best hits of questions nobody asked before, and of some that were."""
    return fw.rank_many([*NEW, *ASKED[::7]], 8)


def live(fw: Flywheel) -> str:
    return str(fw.status().version)


def manifest_of(fw: Flywheel, version: str | None = None) -> Any:
    return json.loads((folder_of(fw, version) / "manifest.json").read_text())


def folder_of(fw: Flywheel, version: str | None = None) -> Path:
    return Path(fw.status().path) / "versions" / (version or live(fw))


def weights_of(fw: Flywheel, version: str | None = None) -> Path:
    return folder_of(fw, version) / FILE_NAME


def ids(fw: Flywheel) -> list[str]:
    """Of versions, the oldest first."""
    return sorted(v.id for v in fw.versions())


def rows(root: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        return list(conn.execute(sql))


def revisions(root: Path) -> Counter[str]:
    """How many vectors are stored under each revision."""
    return Counter(dict(rows(root, "SELECT revision, count(*) FROM vectors GROUP BY revision")))
