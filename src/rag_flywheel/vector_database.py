"""What a database of vectors has to do, for passages to be found in it: the protocol that Milvus
(`index/milvus.py`) and PostgreSQL (`store/vector_tables.py`) have. It must not know texts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rag_flywheel.errors import EngineError

Field = Literal["dense", "words"]
Words = Mapping[int, float]
"""By the number of a word, how often a query has it."""


class Row(NamedTuple):
    """A passage by its number: its vector float32 (dim,), the numbers of its words int32 (m,), and its BM25
    score for each of them, float32 (m,)."""

    pid: int
    vector: npt.NDArray[np.float32]
    words: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chosen:
    """The only passages that may be found: these, or all but these."""

    pids: Sequence[int]
    these: bool

    def __post_init__(self) -> None:
        assert self.these or len(self.pids)


class Collection(Protocol):
    """The passages of a version, which never change. Every method may raise EngineError."""

    most: int
    """How many passages a search returns at most."""

    def search(
        self, field: Field, queries: Sequence[Any], n: int, chosen: Chosen | None
    ) -> list[list[int]]:
        """For each query the numbers of the n passages of the highest inner product, the best first: of
        vectors float32 (dim,), or of `Words`, where passages with none of them are left out."""

    def rows(self, pids: Sequence[int]) -> Iterable[Row]:
        """The rows of these passages that are there, in any order."""


class VectorDatabase(Protocol):
    """A database with the collections of one index, and others. Every method may raise EngineError."""

    @property
    def address(self) -> str:
        """Where it is, without a password."""

    def answers(self) -> bool:
        """Whether it can be asked within a second or two."""

    def name(self, collection: str) -> str:
        """What a collection is called there."""

    def has(self, collection: str, n: int) -> bool:
        """Whether a collection is there, with n passages."""

    def write(self, collection: str, dim: int, n: int, rows: Iterable[Sequence[Row]]) -> None:
        """Write a collection of n rows, given some at a time, in place of what is there; it has its name once
        all are in it."""

    def open(self, collection: str, dim: int, n: int) -> Collection:
        """A collection that is there."""

    def point(self, collection: str) -> None:
        """Let the prefix alone stand for a collection, for other programs."""

    def collections(self) -> list[str]:
        """The names of all collections."""

    def drop(self, collection: str) -> None:
        """Delete a collection, if it is there."""

    def close(self) -> None:
        """Close connections; a later call opens them anew."""


def unanswered(database: str, error: BaseException | str) -> EngineError:
    """The error of a database, named with its address, that does not answer as it should."""
    said = str(getattr(error, "message", None) or error).strip()
    why = said.splitlines()[0][:300] if said else type(error).__name__
    return EngineError(
        f"{database} does not answer as it should ({why}). Passages are found in it, so nothing is answered "
        "without it: start it, or mend `engine` in flywheel.toml, and run `rag-flywheel verify`"
    )
