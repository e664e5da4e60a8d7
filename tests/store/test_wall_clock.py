"""A clock that stands wrong: what is recorded then can be read for ever, and nothing changes its order.

The clock of the machine is not touched: a child process runs with another `time.time`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.deploy.versions import is_version_id

QUERY = "common word3"
CHILD = """
import sys, time
time.time = lambda: float(sys.argv[2])
from pathlib import Path
from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage

with Flywheel.open(Path(sys.argv[1]), encoder=WordEncoder()) as fw:
    fw.add([Passage("new", "common words of another time")])
    shown = fw.retrieve("common word3", user_id="ann", session_id="s")
    fw.feedback(shown.id, "p5", "helpful", user_id="ann")
    fw.answer_feedback(shown.id, "harmful", user_id="bob")
    fw.correct(shown.id, "p6", user_id="cyd")
    fw.signal(shown.id, "copied", user_id="dan")
    fw.missing(shown.id, "no answer", user_id="eve")
    fw.pin("common word7", "p7")
    fw.mute("fay")
    fw.gaps()
    made = fw.refresh().version
    print(made)
    fw.rollback(made)
    fw.release()
"""
CLOCKS = {
    "before 1970": -1e9,
    "long before": -1e15,
    "1970": 0.0,
    "2033": 2e9,
    "after 5138": 1.1e11,
    "year 40,000": 1.2e12,
}


def at(seconds: float, root: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(root), str(seconds)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("clock", CLOCKS)
def test_what_is_recorded_under_a_wrong_clock_can_be_read_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """A vote of a time before 1970, or after 5138, made every later call an error."""
    root = tmp_path / "kb"
    config = Config(encoder="", vote_half_life_days=30.0, retention_days=1000.0)
    monkeypatch.setenv("PYTHONPATH", ":".join(p for p in sys.path if p))
    with Flywheel.open(root, encoder=WordEncoder(), config=config) as fw:
        fw.add(Passage(f"p{i}", f"common word{i} text") for i in range(12))
        fw.refresh()
        first = fw.status().version
    made = at(CLOCKS[clock], root)
    assert is_version_id(made)
    assert made > str(first)  # the newest, whatever the clock says
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        assert fw.verify() == []
        assert fw.retrieve(QUERY, record=False).hits
        shown = fw.retrieve(QUERY, user_id="ann")
        fw.feedback(shown.id, "p5", "retract", user_id="ann")  # the later vote, by its number
        assert fw.refresh().version > made  # type: ignore[operator]
        assert (fw.verify(), len(fw.history())) == ([], len(fw.history()))
        fw.backup(tmp_path / "saved")
        fw.forget("ann")
        assert fw.verify() == []
