"""Which texts of a state inherit the votes of other rows, and which share them with one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rag_flywheel.index.positions import find_pids
from rag_flywheel.records import Pids
from rag_flywheel.store import passages
from rag_flywheel.store.connection import Connection

Copies = tuple[Pids, Pids]
"""int64 (n,) each: ascending pids of texts that share their votes with another, and their lineages."""
NO_COPIES: Copies = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


class LineageOf(dict[int, int]):
    """pid -> the row whose votes it inherits, where they differ. It is not changed."""

    def of(self, pids: Pids) -> Pids:
        """The rows whose votes these texts inherit, (n,)."""
        if not self:
            return pids
        inheritors, lineages = self._by_pid
        at, there = find_pids(pids, inheritors)
        found = pids.copy()
        found[there] = lineages[at[there]]
        return found

    @cached_property
    def _by_pid(self) -> tuple[Pids, Pids]:
        rows = np.array(sorted(self.items()), dtype=np.int64)
        return rows[:, 0], rows[:, 1]


@dataclass(frozen=True)
class Inheritance:
    """lineage_of, heirs and copies of a state, as there."""

    lineage_of: LineageOf
    heirs: Mapping[int, int]
    copies: Copies


def inheritance(conn: Connection, standing: Pids) -> Inheritance:
    """That of these texts."""
    inheritors = passages.inheritors(conn)
    if not inheritors:
        return Inheritance(LineageOf(), {}, NO_COPIES)
    rows = np.array(inheritors, dtype=np.int64)
    rows = rows[np.isin(rows[:, 0], standing)]
    firsts = np.unique(rows[:, 1])
    firsts = firsts[np.isin(firsts, standing)]
    every = np.concatenate([rows, np.stack([firsts, firsts], axis=1)])
    every = every[np.argsort(every[:, 0])]
    _, place, sizes = np.unique(every[:, 1], return_inverse=True, return_counts=True)
    copies = every[sizes[place] > 1]
    lineage_of = LineageOf(zip(*rows.T.tolist(), strict=True))
    heirs = {lineage: pid for pid, lineage in lineage_of.items()}
    return Inheritance(lineage_of, heirs, (copies[:, 0], copies[:, 1]))


def inheritance_after(
    before: Inheritance, conn: Connection, born: Mapping[int, int], ended: Sequence[int]
) -> Inheritance:
    """That of the texts of the index now, when these were begun since, by pid with their lineages, and
    these ended. Only rows of their lineages are read."""
    moved = sorted({*born.values(), *(before.lineage_of.get(pid, pid) for pid in ended)})
    groups = passages.pids_by_lineage(conn, moved)
    inherit = {pid: lineage for pid, lineage in born.items() if pid != lineage}
    gone = [pid for pid in ended if pid in before.lineage_of]
    lineage_of, heirs = before.lineage_of, before.heirs
    if inherit or gone:
        lineage_of = LineageOf(lineage_of)
        lineage_of.update(inherit)
        for pid in gone:
            del lineage_of[pid]
        heirs = dict(heirs)
        for lineage in moved:
            others = [pid for pid in groups.get(lineage, ()) if pid != lineage]
            heirs.pop(lineage, None)
            if others:
                heirs[lineage] = others[-1]
    return Inheritance(lineage_of, heirs, _copies_after(before.copies, moved, groups))


def _copies_after(
    before: Copies, moved: Sequence[int], groups: Mapping[int, Sequence[int]]
) -> Copies:
    pids, lineages = before
    stay = ~np.isin(lineages, moved)
    new = [(pid, lineage) for lineage, own in groups.items() if len(own) > 1 for pid in own]
    if not new and stay.all():
        return before
    rows = np.array(new, dtype=np.int64).reshape(-1, 2)
    pids = np.concatenate([pids[stay], rows[:, 0]])
    lineages = np.concatenate([lineages[stay], rows[:, 1]])
    order = np.argsort(pids)
    return pids[order], lineages[order]
