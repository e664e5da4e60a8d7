"""What the pages of the dashboard take, with many retrievals in the log.

    python benchmarks/speed/speed_dashboard.py --work FOLDER

The index is that of `make serve-demo`, whose log is multiplied: each question in many variants, asked again
and again over sixty days by thousands of users, a part of them with votes. Then each screen is opened in a
process of the service, first when nothing is computed yet (what takes long is then shown as soon as it is
there), and again when it is. With Chromium, the first paint on loopback is measured too.

FOLDER/index is used when it is there, else built.
"""

import argparse
import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel.bench.dashboard_demo import make
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.passages import advance_clock
from rag_flywheel.store.sqlite import SqliteDatabase
from rag_flywheel.store.votes import NewVote, append_votes

SCREENS = (
    "/", "/overview", "/questions", "/questions?order=worst", "/questions?order=disputed", "/gaps",
    "/review", "/versions", "/passages", "/passages?q=csv", "/voters", "/health",
)  # fmt: skip
VARIANTS, USERS, DAYS, SEED = 30, 3_000, 60, 0
VOTED = 0.2  # of the retrievals
_ROUNDS = 5
_COPIED = "kind, k, filter, tenant, version, seen, session_id, latency_ms, hits, answer, answerable"


def multiply(folder: Path, n: int) -> None:
    """Copy what was recorded, as other questions of other users, until there are n retrievals."""
    rng = np.random.default_rng(SEED)
    database = SqliteDatabase(folder / FILE_NAME)
    try:
        with database.transaction(durable=True) as conn:
            had = conn.execute("SELECT rid, query, query_hash FROM retrievals").fetchall()
            names = {
                (name, v): secrets.token_bytes(16) for _, _, name in had for v in range(VARIANTS)
            }
            conn.executemany(
                "INSERT INTO vectors SELECT ?, revision, vector FROM vectors WHERE text_hash = ?",
                [(new, old) for (old, _), new in names.items()],
            )
            now, users = time.time(), [secrets.token_hex(16) for _ in range(USERS)]
            votes = []
            for _ in range(n - len(had)):
                rid, query, name = had[int(len(had) * rng.random() ** 2)]
                variant = int(VARIANTS * rng.random() ** 2)
                user = users[int(USERS * rng.random() ** 2)]
                added = (
                    conn.execute(
                        f"INSERT INTO retrievals (id, at, query, query_hash, user_id, {_COPIED}) "
                        f"SELECT ?, ?, ?, ?, ?, {_COPIED} FROM retrievals WHERE rid = ?",
                        (
                            secrets.token_hex(12),
                            now - DAYS * 86_400 * rng.random(),
                            f"{query} ({variant})",
                            names[name, variant],
                            user,
                            rid,
                        ),
                    ).lastrowid
                    or 0
                )
                if rng.random() < VOTED:
                    verdict = "helpful" if rng.random() < 0.4 else "harmful"
                    votes.append((added, rid, verdict, user))
            shown = {
                rid: json.loads(hits)[0][0]
                for rid, hits in conn.execute("SELECT rid, hits FROM retrievals")
            }
            seq = advance_clock(conn, len(votes))
            append_votes(
                conn,
                [
                    NewVote(added, shown[rid], verdict, user, None)
                    for added, rid, verdict, user in votes
                ],
                first_seq=seq,
                at=now,
            )
    finally:
        database.close()


@contextmanager
def service(index: Path) -> Iterator[str]:
    """A running service of one process; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        sys.executable,
        "-m",
        "rag_flywheel",
        "serve",
        "--index",
        str(index),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env={**os.environ})
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(address + "/passages", timeout=30).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def opened(address: str) -> tuple[float, int, bool]:
    """(milliseconds, bytes, whether something is still being computed) of a page."""
    began = time.perf_counter()
    with urllib.request.urlopen(address, timeout=60) as answer:
        body = answer.read()
    return (time.perf_counter() - began) * 1e3, len(body), b"data-again" in body


def measure(address: str) -> dict[str, dict[str, Any]]:
    """Milliseconds of each screen: the first time, and the median once what it shows is there."""
    found: dict[str, dict[str, Any]] = {}
    for path in SCREENS:
        first, n_bytes, waits = opened(address + path)
        began = time.perf_counter()
        while waits:
            time.sleep(0.1)
            _, n_bytes, waits = opened(address + path)
        there = time.perf_counter() - began
        later = [opened(address + path) for _ in range(_ROUNDS)]
        found[path] = {
            "first_ms": round(first, 1),
            "later_ms": round(statistics.median(ms for ms, _, _ in later), 1),
            "computed_after_s": round(there, 2),
            "bytes": max(n_bytes, *(n for _, n, _ in later)),
        }
    return found


def first_paints(address: str, chromium: str) -> dict[str, float]:
    """Milliseconds until each screen is painted first, medians, in a browser that has its files."""
    from playwright.sync_api import sync_playwright

    painted = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1"
    found = {}
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        for path in SCREENS:
            times = []
            for _ in range(_ROUNDS):
                page.goto(address + path)
                page.wait_for_timeout(150)
                times.append(float(page.evaluate(painted)))
            found[path] = round(statistics.median(times), 1)
        browser.close()
    return found


def main() -> None:
    """Measure, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--retrievals", type=int, default=100_000)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_dashboard.json"))
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp(prefix="speed-dashboard-"))
    index = work / "index"
    if not index.exists():
        make(index)
        multiply(index, asked.retrievals)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with Flywheel.open(index) as fw:
        status = fw.status()
    with service(index) as address:
        pages = measure(address)
        paints = first_paints(address, chromium) if chromium else {}
    result = {
        "commit": commit(),
        "seed": SEED,
        "machine": machine(),
        "n_passages": status.n_passages,
        "n_retrievals": status.n_retrievals,
        "n_votes": status.n_votes,
        "pages": {
            path: {**each, **({"first_paint_ms": paints[path]} if paints else {})}
            for path, each in pages.items()
        },
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    if asked.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
