"""Forgets user after user until it is killed: forget_worker.py FOLDER FIRST.

On stdout, one JSON line each: "ready"; before a call ["begin", n]; after it returned ["done", n].
"""

import itertools
import json
import sys
from pathlib import Path

from fakes import WordEncoder
from rag_flywheel import Flywheel


def say(*what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    with Flywheel.open(Path(sys.argv[1]), encoder=WordEncoder(dim=16)) as fw:
        fw.retrieve("warm up", record=False)
        say("ready")
        for n in itertools.count(int(sys.argv[2])):
            say("begin", n)
            fw.forget(f"user-{n}-forgotten")
            say("done", n)
