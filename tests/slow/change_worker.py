"""Changes the encoder of a folder, and ends itself by SIGKILL: change_worker.py FOLDER N [SPEC].

At the N-th time that it asks the disk for something that lasts (a commit, a rename), before it is done
where N is even, after it where N is odd. What it encodes goes to stdout, one JSON line a batch; in the end
["done", outcome, how often the disk was asked].
"""

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from changing import Knowing, opened
from fakes import Vectors

LAST = int(sys.argv[2])
n_asked = 0


def saying() -> "Saying":
    """What the specs of the tests name."""
    return Saying()


def say(*what: object) -> None:
    print(json.dumps(what), flush=True)


def asking(call: Callable[..., Any]) -> Callable[..., Any]:
    def asked(*arguments: Any, **more: Any) -> Any:
        global n_asked
        n_asked += 1
        if n_asked == LAST // 2 and LAST % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        found = call(*arguments, **more)
        if n_asked == LAST // 2 and LAST % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    return asked


class Asking(sqlite3.Connection):
    """A commit is one of the moments."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        run = super().execute
        return asking(run)(sql, *values) if sql == "COMMIT" else run(sql, *values)


class Saying(Knowing):
    """Says what it encodes as passages."""

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        found = super().encode_passages(texts)
        say("encoded", list(texts))
        return found


if __name__ == "__main__":
    connect = sqlite3.connect
    with opened(Path(sys.argv[1])) as flywheel:
        flywheel.rank_many(["warm up"], 1)
    sqlite3.connect = lambda *a, **more: connect(*a, **{"factory": Asking, **more})  # type: ignore[assignment]
    os.rename, os.replace = asking(os.rename), asking(os.replace)
    with opened(Path(sys.argv[1])) as flywheel:
        report = flywheel.change_encoder("change_worker:saying")
        say("done", report.outcome, n_asked)
