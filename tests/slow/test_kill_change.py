"""SIGKILL at every commit and rename of a change of the encoder: what was live is live, and the next goes on
to the same end without encoding again what was stored."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

import changing
from changing import Knowing, contents, live, opened, order, vectors
from killed import ran_to

WORKER = Path(__file__).with_name("change_worker.py")
_NEVER = 10_000

pytestmark = pytest.mark.slow


def test_a_change_that_is_killed_at_any_moment_changes_nothing_and_is_taken_up(
    tmp_path: Path,
) -> None:
    template = changing.made(tmp_path / "template")
    twin = Path(shutil.copytree(template, tmp_path / "twin"))
    said, _ = ran_to(WORKER, twin, _NEVER)
    assert said[-1][:2] == ["done", "promoted"]
    n_asked = said[-1][2]
    assert n_asked > 12
    before, kept = contents(template), Counter[str]()
    with opened(template) as fw:
        found, old = order(fw), live(fw)
    with opened(twin, Knowing()) as fw:
        better, stored = order(fw), vectors(twin)
    for last in range(2, 2 * n_asked + 2, 3):  # before some, after others
        root = Path(shutil.copytree(template, tmp_path / "kb"))
        said, ended = ran_to(WORKER, root, last)
        assert not ended or last >= 2 * n_asked
        assert contents(root) == before
        with opened(
            root, None if (root / "CURRENT").read_text().startswith(old) else Knowing()
        ) as fw:
            is_old = live(fw) == old
            kept["old" if is_old else "new"] += 1
            assert order(fw) == (found if is_old else better)
            assert [p for p in fw.verify() if "encoder" not in p] == []
        again, ended = ran_to(WORKER, root, _NEVER)
        assert ended
        encoded = [
            text for word, texts in [*said, *again[:-1]] if word == "encoded" for text in texts
        ]
        times = Counter(encoded)
        assert len(times) == changing.N
        assert (
            sum(n - 1 for n in times.values()) <= 256
        )  # those of the batch that was not committed
        with opened(root, Knowing()) as fw:
            assert order(fw) == better
            assert fw.verify() == []
            assert fw.status().encoder_change is None
        assert vectors(root) == stored
        assert contents(root) == before
        shutil.rmtree(root)
    assert kept["old"] > kept["new"] > 0
