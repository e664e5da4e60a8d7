"""The threads of `swaps.py` that ask and check, and what they felt of each swap."""

import ctypes
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel, Retrieval
from rag_flywheel.records import Hit
from speed_times import memory_mib
from swaps_rounds import Cells, Marked, generation_of

K = 8
_RECORDED = 10  # one call in so many
_MOST_CALLS = 200_000  # of a thread
_PAUSE_S = 0.01
_APART = 1_000_003  # the numbers of calls of two threads
_SPECIAL = 5  # one call in so many asks what the rounds change


@dataclass
class Asking:
    """Asks one question after the other, and keeps what was wrong with the answers."""

    fw: Flywheel
    data: Marked
    cells: Cells
    wrong: Counter[str] = field(default_factory=Counter)

    def once(self, n: int) -> str | None:
        """One question and all checks of its answer; the version that answered."""
        query = self._query(n)
        before = {name: self.cells.get(name) for name in Cells.NAMES}
        answer = self.fw.retrieve(query, K, record=n % _RECORDED == 0)
        after = {name: self.cells.get(name) for name in Cells.NAMES}
        self._check(query, answer, before, after)
        return answer.version

    def _query(self, n: int) -> str:
        queries = self.data.queries
        if n % _SPECIAL:
            return queries[n * 7919 % len(queries)]
        return [queries[0], self.data.extra_query][n // _SPECIAL % 2]

    def _check(
        self, query: str, answer: Retrieval, before: Mapping[str, int], after: Mapping[str, int]
    ) -> None:
        hits = answer.hits
        self.wrong.update(faults(hits))
        low, high = before["generation_done"], after["generation_begun"]
        seen = {g for hit in hits if (g := generation_of(hit.text)) is not None}
        self.wrong["mixed generations"] += len(seen) > 1
        self.wrong["late or early generation"] += not all(low <= g <= high for g in seen)
        there = self.data.extra.id in {hit.passage_id for hit in hits}
        done = before["extra_done"]
        if query == self.data.extra_query and done == after["extra_begun"]:
            self.wrong["late passage"] += there != bool(done % 2)
        if query == self.data.queries[0]:
            votes = [v for hit in hits for v in hit.explanation.votes]
            self.wrong["late vote"] += max(votes, default=0) < before["vote_done"]


def faults(hits: Sequence[Hit]) -> list[str]:
    """What is wrong with hits, whatever they are."""
    found = []
    if len({hit.passage_id for hit in hits}) != K:
        found.append("not 8 different hits")
    if [hit.rank for hit in hits] != list(range(1, len(hits) + 1)):
        found.append("ranks")
    scores = [hit.score for hit in hits]
    if scores != sorted(scores, reverse=True):
        found.append("order")
    for hit in hits:
        parts = hit.explanation
        total = parts.intercept + sum(parts.terms.values()) + parts.evidence
        if abs(total - hit.score) > 1e-6:
            found.append("a score that is not the sum of its parts")
    return found


class Readers:
    """Threads that ask until they are stopped. What they note has its memory from the start."""

    def __init__(self, asking: Asking, threads: int) -> None:
        self._asking = asking
        self._stop = threading.Event()
        self._errors: list[str] = []
        self._calls = [np.full((_MOST_CALLS, 2), np.inf) for _ in range(threads)]
        self._first_ends: list[dict[str | None, float]] = [{} for _ in range(threads)]
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        calls, first_ends = self._calls[number], self._first_ends[number]
        for n in range(_MOST_CALLS):
            if self._stop.is_set():
                return
            began = time.time()
            try:
                version = self._asking.once(_APART * number + n)
            except Exception as error:
                self._errors.append(f"{type(error).__name__}: {error}")
                return
            calls[n] = began, time.time()
            first_ends.setdefault(version, calls[n, 1])
            time.sleep(_PAUSE_S)
        self._errors.append("the room for calls is too small")

    def stop(self, moments: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """End them; what was found. moments: by kind of round, when each version went live."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        calls = [each[np.isfinite(each[:, 1])] for each in self._calls]
        windows = [
            (at, max(ends[version] for ends in self._first_ends))
            for version, at in moments["swap"].items()
            if all(version in ends for ends in self._first_ends)
        ]
        usual = float(np.median([end - at for at, end in windows]))
        control = [(at, at + usual) for at in moments["control"].values()]
        near = np.concatenate([_overlaps(each, windows) for each in calls])
        aside = np.concatenate([_overlaps(each, control) for each in calls])
        ms = np.concatenate([(each[:, 1] - each[:, 0]) * 1000 for each in calls])
        kinds = {
            "while_swapped_ms": _cuts(ms[near]),
            "same_spans_of_control_ms": _cuts(ms[aside & ~near]),
            "all_other_calls_ms": _cuts(ms[~near]),
        }
        during, beside, other = (cuts.get("p99") for cuts in kinds.values())
        return {
            "errors": self._errors,
            "wrong_answers": {k: v for k, v in self._asking.wrong.items() if v},
            "answers": len(ms),
            "versions_that_answered_in_every_thread": len(windows),
            "from_live_to_every_thread_ms_p50": round(usual * 1000, 1),
            **kinds,
            "p99_ratio": during and other and round(during / other, 3),
            "p99_ratio_to_control": during and beside and round(during / beside, 3),
        }


def _overlaps(calls: Any, windows: Sequence[tuple[float, float]]) -> Any:
    found = np.zeros(len(calls), dtype=bool)
    for start, end in windows:
        low, high = np.searchsorted(calls[:, 1], start), np.searchsorted(calls[:, 0], end)
        found[low:high] = True
    return found


def _cuts(ms: Any) -> dict[str, float]:
    if not len(ms):
        return {"n": 0}
    cuts = np.percentile(ms, [50, 95, 99])
    found = {name: round(float(v), 2) for name, v in zip(("p50", "p95", "p99"), cuts, strict=True)}
    return {"n": len(ms), **found, "most": round(float(ms.max()), 2)}


def footprint(folder: Path) -> dict[str, float]:
    """Memory of this process, before and after what is free is given back; open files, threads,
    and files in the folder."""
    gc.collect()
    found = {"rss_mb": memory_mib()["resident_mib"]}
    ctypes.CDLL(None).malloc_trim(0)
    return {
        **found,
        "rss_trimmed_mb": memory_mib()["resident_mib"],
        "open_files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "threads": threading.active_count(),
        "files_in_folder": sum(p.is_file() for p in folder.rglob("*")),
    }
