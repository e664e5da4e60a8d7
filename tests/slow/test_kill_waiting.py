"""SIGKILL at commits of a refresh that embeds questions of an import: none is encoded again that was
stored, and what is learned in the end is the same."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from killed import ran_to
from waiting import N_WAITING, files_of, imported, opened

WORKER = Path(__file__).with_name("refresh_worker.py")
_NEVER = 100_000

pytestmark = pytest.mark.slow


def encoded(said: list[Any]) -> Counter[str]:
    return Counter(text for word, texts, *_ in said if word == "encoded" for text in texts)


def test_a_refresh_that_is_killed_at_any_moment_goes_on_with_the_questions(tmp_path: Path) -> None:
    template = imported(tmp_path / "template")
    twin = Path(shutil.copytree(template, tmp_path / "twin"))
    said, _ = ran_to(WORKER, twin, _NEVER)
    assert said[-1][:2] == ["done", "promoted"]
    whole, n_commits = encoded(said), said[-1][2]
    assert set(whole.values()) == {1}
    learned, died_between = files_of(twin), 0
    end = 2 * n_commits + 2
    # before some, after others; each of those late in it, of which one lies between two batches
    for last in sorted({*range(2, end, 10), *range(n_commits, end, 2)}):
        root = Path(shutil.copytree(template, tmp_path / "kb"))
        said, ended = ran_to(WORKER, root, last)
        assert not ended or last >= 2 * n_commits
        with opened(root) as fw:
            assert fw.verify() == []
            waiting = fw.status().n_questions_waiting
        died_between += 0 < waiting < N_WAITING
        again, _ = ran_to(WORKER, root, _NEVER)
        times = encoded([*said, *again])
        assert times.keys() == whole.keys()
        assert (
            sum(n - 1 for n in times.values()) <= 256
        )  # those of the batch that was not committed
        with opened(root) as fw:
            assert fw.status().n_questions_waiting == 0
        assert files_of(root) == learned
        shutil.rmtree(root)
    assert died_between
