"""One store under measurement by `speed_peers.py`, in a process of its own, by orders of one line.

    python speed_peer.py NAME DATA FOLDER build|serve

Runs in the environment of the store, which need not have this project. Each answer is a line of JSON.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speed_adapters import ADAPTERS
from speed_store import Given
from speed_times import memory_mib

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text(encoding="ascii").split():
            found += family(int(child))
    return found


def busy_s() -> float:
    """Seconds of the processor that this process and all below it have taken, in all threads."""
    own = time.process_time()
    for pid in family(os.getpid())[1:]:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        own += (int(fields[11]) + int(fields[12])) / TICKS
    return own


def resident_mib() -> float:
    """What this process and all below it hold in memory now."""
    return round(sum(memory_mib(pid)["resident_mib"] for pid in family(os.getpid())), 1)


def asked(peer: Any, numbers: Sequence[int]) -> dict[str, Any]:
    """Milliseconds of each of these queries as they passed, and of the processor: of each as this
    process took it, and on average with what the processes below it took."""
    times, cpu, began = [], [], busy_s()
    for i in numbers:
        then, busy = time.perf_counter(), time.process_time()
        texts = peer.ask(i)
        times.append((time.perf_counter() - then) * 1000.0)
        cpu.append((time.process_time() - busy) * 1000.0)
        if len(texts) != peer.k or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"query {i}: {len(texts)} texts came back; expected {peer.k}")
    return {"ms": times, "cpu_ms": cpu, "cpu_mean_ms": (busy_s() - began) * 1000.0 / len(numbers)}


def main() -> None:
    """Build or open, then do what standard input says until it ends."""
    name, data, folder, what = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints

    def say(found: Any) -> None:
        print(json.dumps(found), file=out, flush=True)

    peer = ADAPTERS[name](Given(Path(data)), Path(folder))
    began, busy = time.perf_counter(), busy_s()
    if what == "build" or not peer.persistent:
        peer.build()
    if what == "build":
        spent = {"s": round(time.perf_counter() - began, 1), "cpu_s": round(busy_s() - busy, 1)}
        say(spent)
        return
    if peer.persistent:
        peer.open()
    spent = {"s": round(time.perf_counter() - began, 1), "cpu_s": round(busy_s() - busy, 1)}
    peer.given.forget()
    say(spent | peer.said())
    for line in sys.stdin:
        order = json.loads(line)
        if "ask" in order:
            say(asked(peer, order["ask"]))
        elif "width" in order:
            peer.set_width(order["width"])
            say([[int(row) for row in peer.dense(i)] for i in order["dense"]])
        else:
            say({"resident_mib": resident_mib()})
    peer.close()
    out.close()
    os._exit(0)  # some leave threads behind


if __name__ == "__main__":
    main()
