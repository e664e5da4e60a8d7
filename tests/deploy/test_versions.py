"""Version ids sort by age, however fast versions come and wherever the clock is set."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_flywheel.deploy.files import entries_below
from rag_flywheel.deploy.versions import is_version_id, new_version_id
from rag_flywheel.store import wall_clock


@pytest.mark.parametrize("back_s", [0.0, 0.4, 3_600.0])
def test_each_id_sorts_after_the_one_before(monkeypatch: pytest.MonkeyPatch, back_s: float) -> None:
    """back_s: how far the clock is set back after each."""
    now = 2e9
    monkeypatch.setattr(wall_clock, "now", lambda: now)
    made = [new_version_id(None)]
    for _ in range(200):
        now -= back_s
        made.append(new_version_id(made[-1]))
    assert made == sorted(set(made))
    assert all(is_version_id(each) for each in made)


def test_the_last_id_of_a_second_is_followed_by_one_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wall_clock, "now", lambda: 2e9)
    second = new_version_id(None)[:17]
    assert new_version_id(f"{second}ffffe") == f"{second}fffff"
    after = new_version_id(f"{second}fffff")
    assert (after > f"{second}fffff", after.startswith(second)) == (True, False)


@pytest.mark.parametrize("moment", ["derived", "derived/words.npy", "derived/more"])
def test_what_is_deleted_while_a_folder_is_looked_through_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = tmp_path / "version"
    (folder / "derived" / "more").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "derived" / "words.npy").write_bytes(b"1")
    scandir = os.scandir

    class Listed:
        """The entries of a folder as they were when it was listed; then something is deleted."""

        def __init__(self, place: Path) -> None:
            with scandir(place) as entries:
                self.entries = list(entries)
            if any(Path(entry.path) == folder / moment for entry in self.entries):
                (folder / moment).rename(tmp_path / "moved away")

        def __iter__(self) -> "Iterator[os.DirEntry[str]]":
            return iter(self.entries)

        def __enter__(self) -> "Listed":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Listed)
    found = entries_below(folder)
    assert "manifest.json" in found
    with pytest.raises(FileNotFoundError):
        entries_below(tmp_path / "never there")
