"""How long calls take, for `speed.py`."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

Times = list[tuple[float, float]]


def timed(call: Callable[[int], object], n: int, threads: int = 1) -> Times:
    """Milliseconds of call(0) ... call(n - 1), by so many threads at a time: as they passed, and of
    the processor, which other work on the machine changes little."""

    def one(i: int) -> tuple[float, float]:
        began, busy = time.perf_counter(), time.thread_time()
        call(i)
        return (time.perf_counter() - began) * 1000.0, (time.thread_time() - busy) * 1000.0

    if threads == 1:
        return [one(i) for i in range(n)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(n)))


def percentiles(rounds: Sequence[Times]) -> dict[str, float]:
    """p50, p95 and p99 of each round, and of those the medians over the rounds; cpu_: the same of
    the second numbers."""
    found: dict[str, float] = {}
    for i, kind in enumerate(("", "cpu_")):
        cuts = np.median(
            [np.percentile([pair[i] for pair in spent], [50, 95, 99]) for spent in rounds], axis=0
        )
        names = (f"{kind}{name}_ms" for name in ("p50", "p95", "p99"))
        found |= dict(zip(names, map(float, cuts.round(4)), strict=True))
    return found


class Spent:
    """Seconds since it was made or last asked: as they passed, and of the processor."""

    def __init__(self) -> None:
        self._then = time.perf_counter(), time.process_time()

    def since(self) -> dict[str, float]:
        """s and cpu_s."""
        then, self._then = self._then, (time.perf_counter(), time.process_time())
        passed, busy = (round(now - was, 3) for now, was in zip(self._then, then, strict=True))
        return {"s": passed, "cpu_s": busy}


def memory_mib(pid: int | str = "self") -> dict[str, float]:
    """What a process holds now, and the most that it has held."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    said = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    names = {"resident_mib": "VmRSS", "peak_mib": "VmHWM"}
    return {name: round(int(said[field]) / 1024.0, 1) for name, field in names.items()}
