"""What tests of a change of the encoder share: encoders that know more and less, and an index with votes.

Each topic has five passages; a question names the topic, and by a word that no passage has which of them it
means. `Knowing` knows these words, `words` only that the topic is the same, and `Deaf` nothing at all.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from fakes import Vectors, WordEncoder
from rag_flywheel import Config, Flywheel, Passage, Vote

N, N_ASKED, OF_TOPIC = 300, 240, 5
WAIT_S = 30.0
# what a change may write to: everything else has to stay as it is
WRITTEN = {
    "vectors",
    "meta",
    "moves",
    "refreshes",
    "looks",
    "builds",
    "attempts",
    "sqlite_sequence",
}


class Watched(WordEncoder):
    """Counts what it encodes, and may do something else meanwhile, once."""

    def __init__(self, dim: int, name: str, revision: str) -> None:
        super().__init__(dim, name, revision)
        self.passages: list[str] = []
        self.meanwhile: list[Callable[[], object]] = []

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        self.passages += texts
        if self.meanwhile:
            self.meanwhile.pop()()
        return super().encode_passages(texts)


class Knowing(Watched):
    """Knows that slang7 is another word for item7, and is wider than the word encoder."""

    def __init__(self) -> None:
        super().__init__(96, "knowing", "k1")

    def _encode(self, texts: Sequence[str]) -> Vectors:
        return super()._encode([text.replace("slang", "item") for text in texts])


class Deaf(Watched):
    """Puts every text somewhere, and is narrower than the word encoder."""

    def __init__(self) -> None:
        super().__init__(16, "deaf", "d1")

    def _encode(self, texts: Sequence[str]) -> Vectors:
        return super()._encode([text.replace(" ", "-") for text in texts])


def knowing() -> Knowing:
    """For `change-encoder changing:knowing`, in this process or another."""
    return Knowing()


def deaf() -> Deaf:
    """For `change-encoder changing:deaf`."""
    return Deaf()


def passage(i: int) -> Passage:
    return Passage(f"p{i}", f"topic{i // OF_TOPIC} item{i} of course")


def question(i: int) -> str:
    return f"topic{i // OF_TOPIC} slang{i}"


ASKED = [question(i) for i in range(N_ASKED)]
NEW = [question(i) for i in range(N_ASKED, N)]


def opened(root: Path, encoder: Any = None, **settings: Any) -> Flywheel:
    """The index by the encoder in its settings, or by another one."""
    config = Config(encoder="fakes:word_encoder", **settings) if settings else None
    return Flywheel.open(root, encoder=encoder, config=config)


def vote(fw: Flywheel, asked: Sequence[str], wrong: float = 0.1, seed: int = 3) -> int:
    """Every user votes on the five best hits, at times wrongly."""
    rng, votes = np.random.default_rng(seed), []
    for n, found in enumerate(fw.retrieve_many(asked, OF_TOPIC)):
        for hit in found.hits:
            right = (hit.passage_id == answer(found.query)) != (rng.random() < wrong)
            verdict = "helpful" if right else "harmful"
            votes.append(Vote(found.id, hit.passage_id, verdict, user_id=f"u{n % 50}"))
    return fw.feedback_many(votes)


def answer(asked: str) -> str:
    return f"p{asked.rpartition('slang')[2]}"


def made(root: Path, **settings: Any) -> Path:
    """A closed index with votes and two versions."""
    settings = {"n_candidates": 30, **settings}
    with opened(root, **settings) as fw:
        fw.add([passage(i) for i in range(N)])
        fw.refresh()
        vote(fw, ASKED)
        fw.refresh()
    return root


def share_right(fw: Flywheel, asked: Sequence[str]) -> float:
    """How often the first hit is the answer."""
    return float(
        np.mean([ids[0] == answer(q) for q, ids in zip(asked, order(fw, asked), strict=True)])
    )


def order(fw: Flywheel, asked: Sequence[str] = (*NEW[:20], *ASKED[::12])) -> list[list[str]]:
    return fw.rank_many(asked, 8)


def live(fw: Flywheel) -> str:
    return str(fw.status().version)


def follow(fw: Flywheel) -> Flywheel:
    """The index, once it has loaded the live version, which it does beside its answers."""
    until = time.monotonic() + WAIT_S
    while fw.retrieve("topic1", 1, record=False).version != live(fw):
        assert time.monotonic() < until, "the live version was not loaded"
        time.sleep(0.01)
    return fw


def rows(root: Path, sql: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        return list(conn.execute(sql, values))


def vectors(root: Path) -> dict[str, int]:
    """How many vectors are stored under each revision."""
    return dict(rows(root, "SELECT revision, count(*) FROM vectors GROUP BY revision"))


def contents(root: Path) -> dict[str, list[Any]]:
    """The rows of every table that a change must leave alone."""
    names = rows(root, "SELECT name FROM sqlite_master WHERE type = 'table'")
    kept = sorted(name for (name,) in names if name not in WRITTEN)
    return {name: sorted(rows(root, f"SELECT * FROM {name}"), key=repr) for name in kept}
