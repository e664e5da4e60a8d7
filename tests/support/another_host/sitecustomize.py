"""Makes a Python process one of another host: with a name and a clock of its own.

TEST_HOST names it; TEST_SKEW_S is by how much its clock is ahead. While the file TEST_JOBS_WAIT is there, its
jobs stand still where they tell how far they are.
"""

import os
import time
from pathlib import Path
from typing import Any

if "TEST_HOST" in os.environ:
    from rag_flywheel.store.service import jobs

    _time, _skew_s = time.time, float(os.environ.get("TEST_SKEW_S", "0"))
    _note = jobs.note_progress

    def _wait(*given: Any) -> None:
        _note(*given)
        while Path(os.environ.get("TEST_JOBS_WAIT", "")).is_file():
            time.sleep(0.05)

    time.time = lambda: _time() + _skew_s
    jobs.this_host = lambda: os.environ["TEST_HOST"]  # type: ignore[assignment]
    jobs.note_progress = _wait
