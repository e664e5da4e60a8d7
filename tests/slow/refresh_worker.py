"""Refreshes a folder, and ends itself by SIGKILL in the middle: refresh_worker.py FOLDER N.

At the commit of number N // 2, before it is done where N is even, after it where N is odd. The questions
that it encodes go to stdout, one JSON line a batch; in the end ["done", outcome, how many commits].
"""

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fakes import Vectors, WordEncoder
from rag_flywheel import Flywheel

LAST = int(sys.argv[2])
n_commits = 0


def say(*what: object) -> None:
    print(json.dumps(what), flush=True)


class Committing(sqlite3.Connection):
    """Dies at a commit."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        global n_commits
        n_commits += sql == "COMMIT"
        dies = sql == "COMMIT" and n_commits == LAST // 2
        if dies and LAST % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        found = super().execute(sql, *values)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return found


class Saying(WordEncoder):
    """Says which questions it encodes."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        found = super().encode_queries(texts)
        say("encoded", list(texts))
        return found


if __name__ == "__main__":
    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **more: connect(*a, **{"factory": Committing, **more})  # type: ignore[assignment]
    with Flywheel.open(Path(sys.argv[1]), encoder=Saying()) as flywheel:
        report = flywheel.refresh()
        say("done", report.outcome, n_commits)
