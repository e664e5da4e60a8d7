"""Tunes a folder, step by step: tune_worker.py FOLDER.

On stdout, one JSON line each: "ready", then each step as it begins; it goes on when a line comes on
stdin. After the last: the report, in words.
"""

import json
import sys
from pathlib import Path

from rag_flywheel.improve import teach
from teachable import RATE
from tuned import opened


def say(*what: object) -> None:
    print(json.dumps(what), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    teach.RATE = RATE
    teach._SAVE_EVERY_S = -1.0
    with opened(Path(sys.argv[1])) as flywheel:
        flywheel.retrieve("warm up", record=False)
        say("ready")
        report = flywheel.refresh(
            tune=True, progress=lambda step, done, total: say(step, done, total)
        )
        say("report", report.outcome, report.encoder, report.version)
