"""The state that queries are answered from: a version, and every event since it was built.

A State never changes; `caught_up` makes the next one from the events after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.errors import StorageError
from rag_flywheel.index.part import Part
from rag_flywheel.index.positions import find_pids
from rag_flywheel.index.statistics import WordStatistics
from rag_flywheel.rank.evidence import EvidenceView
from rag_flywheel.records import Acting, Pids
from rag_flywheel.serve.inheritance import Copies, LineageOf
from rag_flywheel.store import passages

if TYPE_CHECKING:
    from rag_flywheel.index.fresh import FreshSegment

Mask = npt.NDArray[np.bool_]


class RestoredError(StorageError):
    """The state that an answer came from is not that of the database any more: its numbers mean other
    passages."""

    def __init__(self) -> None:
        super().__init__("a backup was restored while this was answered; repeat the call")


@dataclass(frozen=True)
class State:
    """A version and what happened since, up to event number `seq`.

    timeline: that of the database, whose numbers are in it; alive[i]: whether the text version.pids[i]
    is still present; fresh: texts added since; statistics:
    the word statistics that texts are scored under; lineage_of: pid -> the row whose votes it
    inherits, and heirs: that row -> pid, where they differ; copies: the pids, and the rows whose votes
    they inherit, of texts that inherit the same votes as another one; evidence has no vote after `frozen_at`,
    None: all votes; texts: a cache of those read, which goes when one of them changes; texts_at: the number
    of an event after which none did; corpus: a name
    of its texts and of the version among which they are searched, which other texts do not have;
    edited: the number of the last event
    that changed metadata; n_forgotten: how many users were deleted, whose votes are not in it; known:
    the known answers that are in the evidence, whatever `frozen_at` is.
    """

    version: LoadedVersion
    timeline: str
    frozen_at: int | None
    seq: int
    alive: npt.NDArray[np.bool_]
    fresh: "FreshSegment"
    statistics: WordStatistics
    lineage_of: LineageOf
    heirs: Mapping[int, int]
    copies: Copies
    evidence: EvidenceView
    corpus: str
    edited: int = 0
    n_forgotten: int = 0
    known: Acting = field(default_factory=Acting)
    texts_at: int = 0
    texts: dict[int, passages.StoredPassage] = field(default_factory=dict)

    @property
    def last_vote(self) -> int:
        """The number of the last event whose vote counts."""
        return self.seq if self.frozen_at is None else min(self.seq, self.frozen_at)

    @property
    def typical_cosine(self) -> float:
        """The mean cosine of two texts of the version, or of the fresh ones when it has none."""
        version = self.version
        return version.engine.typical_cosine if len(version.pids) else self.fresh.typical_cosine

    def lineages(self, pids: Pids) -> Pids:
        """The rows whose votes these texts inherit."""
        return self.lineage_of.of(pids)


@dataclass(frozen=True)
class Scope:
    """Which texts a query may retrieve: masks over the version's positions and the fresh texts.

    searchable: the part of the version that it may retrieve, None: all of it. whole: there is no filter.
    heirs: lineage -> the pid among copies that stands for all of them; it goes before that of the state.
    """

    indexed: npt.NDArray[np.bool_]
    fresh: npt.NDArray[np.bool_]
    searchable: Part | None
    whole: bool = True
    heirs: Mapping[int, int] = field(default_factory=dict)


def scope(state: State, allowed: Pids | None, *, copies: bool = False) -> Scope:
    """The texts that are present and pass a filter; of copies among them the oldest, unless `copies`.

    allowed: pids that pass; None: no filter.
    """
    indexed, fresh = state.alive, state.fresh.present
    if allowed is not None:
        indexed = indexed & np.isin(state.version.pids, allowed, assume_unique=True)
        fresh = fresh & np.isin(state.fresh.pids, allowed, assume_unique=True)
    heirs: dict[int, int] = {}
    pids, lineages = state.copies
    if len(pids):
        standing = _among(pids, state.version.pids, indexed) | _among(pids, state.fresh.pids, fresh)
        pids, lineages = pids[standing], lineages[standing]
        shared, first = np.unique(lineages, return_index=True)
        heirs = dict(zip(shared.tolist(), pids[first].tolist(), strict=True))
        if not copies:
            others = np.delete(pids, first)
            indexed = _without(indexed, state.version.pids, others)
            fresh = _without(fresh, state.fresh.pids, others)
    searchable = None if indexed.all() else Part.of(indexed)
    return Scope(indexed, fresh, searchable, allowed is None, heirs)


def _among(wanted: Pids, pids: Pids, mask: Mask) -> Mask:
    """Which of the wanted pids are among ascending `pids` and in the mask over them."""
    at, there = find_pids(wanted, pids)
    there[there] = mask[at[there]]
    return there


def _without(mask: Mask, pids: Pids, gone: Pids) -> Mask:
    """A mask over ascending `pids` without some of them."""
    at, there = find_pids(gone, pids)
    left = mask.copy()
    left[at[there]] = False
    return left
