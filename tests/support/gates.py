"""What tests of the gate share: past queries whose votes help, and what is read from a folder."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from fakes import WordEncoder
from plain_model import is_answer, phrasings, topics, vote_on
from rag_flywheel import Flywheel, Passage
from rag_flywheel.rank.parameters import Kernel, Parameters, parse_parameters
from rag_flywheel.rank.posterior import Rates
from rag_flywheel.store.journal import Look, record_look

QUERIES = phrasings(0, 1)
Row = tuple[str, int, float, float | None, str]


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


def make_history(root: Path) -> Path:
    """A closed index with a version from before 150 past queries got votes, a tenth of them wrong."""
    rng = np.random.default_rng(5)
    with opened(root) as fw:
        fw.add(topics())
        assert fw.refresh().parameters == "kept"
        vote_on(fw, QUERIES, lambda q, p: is_answer(q, p) != (rng.random() < 0.1))
    return root


def folder_of(fw: Flywheel, version: str | None = None) -> Path:
    return Path(fw.status().path) / "versions" / (version or str(fw.status().version))


def gate_of(fw: Flywheel) -> Any:
    return json.loads((folder_of(fw) / "gate.json").read_text())


def live(fw: Flywheel) -> Parameters:
    return parse_parameters((folder_of(fw) / "parameters.json").read_text(), name="live")


def candidate_of(fw: Flywheel) -> Parameters:
    values = gate_of(fw)["candidate"]
    parts = {"kernel": Kernel(**values["kernel"]), "rates": Rates(**values["rates"])}
    return Parameters(**{**values, **parts})


def rows_of(fw: Flywheel) -> list[Row]:
    wanted = "SELECT version, n_votes, alpha, p, outcome FROM looks ORDER BY id"
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        return list(conn.execute(wanted))


def looked(root: Path, n_votes: int, outcome: str) -> None:
    """Write down a look, as if there had been one."""
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        record_look(conn, Look("x", n_votes, 0.025, 0.5, outcome))


def edit(fw: Flywheel, n: int) -> None:
    """A small change of the corpus."""
    fw.add([Passage("edited", f"edition number{n} of a passage")])


def hashes_of(fw: Flywheel) -> dict[str, str]:
    """{hash: past query}."""
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        return {h.hex(): q for h, q in conn.execute("SELECT query_hash, query FROM retrievals")}


def gains_of(sides: dict[str, list[float | None]]) -> Any:
    both = zip(sides["candidate"], sides["incumbent"], strict=True)
    return np.array([a - b for a, b in both if a is not None and b is not None])
