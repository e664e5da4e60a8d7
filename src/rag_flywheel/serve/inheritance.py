"""Which texts of a state inherit the votes of other rows, and which share them with one another."""

import sqlite3
from collections.abc import Mapping, Sequence

import numpy as np

from rag_flywheel.records import Pids
from rag_flywheel.serve.state import NO_COPIES, Copies, State
from rag_flywheel.store import passages

Inheritance = tuple[Mapping[int, int], Mapping[int, int], Copies]
"""lineage_of, heirs and copies of a state."""


def inheritance(conn: sqlite3.Connection, standing: Pids) -> Inheritance:
    """That of these texts."""
    inheritors = passages.inheritors(conn)
    if not inheritors:
        return {}, {}, NO_COPIES
    rows = np.array(inheritors, dtype=np.int64)
    rows = rows[np.isin(rows[:, 0], standing)]
    firsts = np.unique(rows[:, 1])
    firsts = firsts[np.isin(firsts, standing)]
    every = np.concatenate([rows, np.stack([firsts, firsts], axis=1)])
    every = every[np.argsort(every[:, 0])]
    _, place, sizes = np.unique(every[:, 1], return_inverse=True, return_counts=True)
    copies = every[sizes[place] > 1]
    lineage_of = dict(zip(*rows.T.tolist(), strict=True))
    return lineage_of, {v: k for k, v in lineage_of.items()}, (copies[:, 0], copies[:, 1])


def inheritance_after(
    state: State, conn: sqlite3.Connection, born: Mapping[int, int], ended: Sequence[int]
) -> Inheritance:
    """That of the texts of the index now, when these were begun, by pid with their lineages, and these
    ended since the state. Only rows of their lineages are read."""
    moved = sorted({*born.values(), *(state.lineage_of.get(pid, pid) for pid in ended)})
    groups = passages.pids_by_lineage(conn, moved)
    inherit = {pid: lineage for pid, lineage in born.items() if pid != lineage}
    gone = [pid for pid in ended if pid in state.lineage_of]
    lineage_of, heirs = state.lineage_of, state.heirs
    if inherit or gone:
        lineage_of = {**lineage_of, **inherit}
        for pid in gone:
            del lineage_of[pid]
        heirs = dict(heirs)
        for lineage in moved:
            others = [pid for pid in groups.get(lineage, ()) if pid != lineage]
            heirs.pop(lineage, None)
            if others:
                heirs[lineage] = others[-1]
    return lineage_of, heirs, _copies_after(state.copies, moved, groups)


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
