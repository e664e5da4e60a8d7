"""A teaching that was cut short goes on where it was, and one that cannot starts anew."""

import errno
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as safetensors
from safetensors import safe_open

from lessons import lessons, tower
from rag_flywheel.encode.tower import Weights
from rag_flywheel.improve import teach as teaching
from rag_flywheel.improve.teach import Lessons, TeachingResult, teach
from teachable import RATE

pytestmark = pytest.mark.slow  # torch alone takes seconds to load

N_STEPS = 8  # of lessons()


@pytest.fixture(autouse=True)
def always_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teaching, "RATE", RATE)
    monkeypatch.setattr(teaching, "_SAVE_EVERY_S", -1.0)


def taught(given: Lessons, checkpoint: Path) -> tuple[TeachingResult, str, list[int]]:
    """(what came of it, the revision, the steps that were made)."""
    found, steps = tower(), list[int]()
    done = teach(found, given, checkpoint, lambda _, done, __: steps.append(done))
    return done, found.revision, steps[:-1]


def cut_short(given: Lessons, checkpoint: Path, at: int) -> None:
    """Teach until so many steps are made."""

    def stop(_: str, done: int, __: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(tower(), given, checkpoint, stop)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[TeachingResult, str]:
    """Of one that was not cut short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teaching, "RATE", RATE)
        done, revision, steps = taught(lessons(), tmp_path_factory.mktemp("once") / "checkpoint")
    assert steps == list(range(N_STEPS))
    assert done.scores["tuning_steps"] < N_STEPS - 1  # so that the best have to be kept, too
    return done, revision


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(at, marks=[pytest.mark.slow] * (at not in {0, 3, N_STEPS}))
        for at in range(N_STEPS + 1)
    ],
)
def test_one_that_was_cut_short_ends_as_if_it_had_not_been(
    at: int, once: tuple[TeachingResult, str], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "tuning" / "checkpoint.safetensors"
    cut_short(lessons(), checkpoint, at)
    assert checkpoint.exists() == (at > 0)
    done, revision, steps = taught(lessons(), checkpoint)
    assert steps == list(range(at, N_STEPS))
    assert (done, revision) == once
    assert {p.name for p in tmp_path.rglob("*")} == {"tuning", "checkpoint.safetensors"}


def test_one_that_was_cut_short_many_times_ends_the_same(
    once: tuple[TeachingResult, str], tmp_path: Path
) -> None:
    for at in range(1, N_STEPS):
        cut_short(lessons(), tmp_path / "checkpoint.safetensors", at)
    done, revision, steps = taught(lessons(), tmp_path / "checkpoint.safetensors")
    assert steps == [N_STEPS - 1]
    assert (done, revision) == once


def test_how_far_it_is_is_kept_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "_SAVE_EVERY_S", 3600.0)
    cut_short(lessons(), tmp_path / "checkpoint.safetensors", N_STEPS)
    assert list(tmp_path.iterdir()) == []


def fewer(given: Lessons) -> Lessons:
    rows = np.arange(len(given) - 6)
    return Lessons(
        given.texts[:-6],
        given.examples.at(rows),
        given.validation[rows],
        given.chances[rows],
        given.vectors,
    )


def voted(given: Lessons) -> Lessons:
    chances = given.chances.copy()
    chances[3] = chances[3][::-1]
    return replace(given, chances=chances * given.examples.present)


OTHERS: dict[str, Callable[[Lessons], Lessons]] = {
    "a question less": fewer,
    "another vote": voted,
    "another text": lambda given: replace(given, texts=["thing0 ripe", *given.texts[1:]]),
    "others kept apart": lambda given: replace(given, validation=np.roll(given.validation, 6)),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_lessons_that_differ_start_anew(
    change: Callable[[Lessons], Lessons], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut_short(lessons(), tmp_path / "checkpoint.safetensors", 5)
    done, revision, steps = taught(change(lessons()), tmp_path / "checkpoint.safetensors")
    assert steps[0] == 0
    assert (done, revision, steps) == taught(change(lessons()), tmp_path / "other.safetensors")
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", ["EPOCHS", "BATCH", "RATE", "TEMPERATURE", "DECAY", "_CHECKS"])
def test_other_settings_start_anew(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(lessons(), tmp_path / "checkpoint.safetensors", 5)
    monkeypatch.setattr(teaching, name, 2 * getattr(teaching, name))
    assert taught(lessons(), tmp_path / "checkpoint.safetensors")[2][0] == 0


Tensors = dict[str, Weights]
Said = dict[str, str]
LAYER = "layers.0.weight"


def with_(change: Callable[[Tensors, Said], object]) -> Callable[[Path], None]:
    """A checkpoint of which something else is said; one that can be read."""

    def damage(path: Path) -> None:
        with safe_open(str(path), framework="np") as file:
            said = dict(file.metadata())
            tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        change(tensors, said)
        safetensors.save_file(tensors, str(path), metadata=said)

    return damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2000] ^= 0x40
    path.write_bytes(bytes(data))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def nan(name: str) -> Callable[[Path], None]:
    return with_(lambda tensors, _: tensors[name].__setitem__((1, 1), np.nan))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b"") and None,
    "no safetensors": lambda path: path.write_bytes(b"checkpoint" * 50) and None,
    "a flipped bit": flipped,
    "a folder": a_folder,
    "weights that are no numbers": nan("now.layers.1.weight"),
    "best weights that are no numbers": nan("best.layers.1.weight"),
    "a moment that is no number": nan("exp_avg_sq.layers.1.weight"),
    "weights of another shape": with_(lambda t, _: t.update({f"now.{LAYER}": np.zeros(3, "f4")})),
    "best of another shape": with_(lambda t, _: t.update({f"best.{LAYER}": np.zeros(3, "f4")})),
    "a moment of another shape": with_(lambda t, _: t.update({f"exp_avg.{LAYER}": np.zeros(3)})),
    "no best": with_(lambda tensors, _: tensors.pop(f"best.{LAYER}")),
    "no moment": with_(lambda tensors, _: tensors.pop(f"exp_avg.{LAYER}")),
    "no step": with_(lambda _, said: said.pop("step")),
    "a step in words": with_(lambda _, said: said.update(step="five")),
    "a step before the first": with_(lambda _, said: said.update(step="-3")),
    "a step after the last": with_(lambda _, said: said.update(step="99999")),
    "a loss in words": with_(lambda _, said: said.update(best_loss="little")),
    "a loss that nothing beats": with_(lambda _, said: said.update(best_loss="-0x1p9")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_starts_anew(
    damage: Callable[[Path], None],
    once: tuple[TeachingResult, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoint = tmp_path / "tuning" / "checkpoint.safetensors"
    cut_short(lessons(), checkpoint, 5)
    damage(checkpoint)
    done, revision, steps = taught(lessons(), checkpoint)
    assert steps == list(range(N_STEPS))
    assert (done, revision) == once
    (told,) = (r for r in caplog.records if "starting anew" in r.getMessage())
    assert told.levelno == logging.WARNING
    assert "checkpoint.safetensors" in told.getMessage()


def test_no_room_for_a_checkpoint_is_only_logged(
    once: tuple[TeachingResult, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done, revision, _ = taught(lessons(), tmp_path / "tuning" / "checkpoint.safetensors")
    assert (done, revision) == once
    assert list((tmp_path / "tuning").iterdir()) == []
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == N_STEPS
    assert all("how far it is cannot be kept" in t and "No space left" in t for t in told)


def test_a_file_in_the_way_of_the_checkpoint_is_only_logged(
    once: tuple[TeachingResult, str], tmp_path: Path
) -> None:
    (tmp_path / "tuning").write_text("in the way")
    assert taught(lessons(), tmp_path / "tuning" / "checkpoint.safetensors")[:2] == once


def test_a_half_written_checkpoint_leaves_the_one_before(
    once: tuple[TeachingResult, str], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    cut_short(lessons(), checkpoint, 3)
    shutil.copy(checkpoint, tmp_path / "checkpoint.part")
    cut(tmp_path / "checkpoint.part")
    done, revision, steps = taught(lessons(), checkpoint)
    assert steps == list(range(3, N_STEPS))
    assert (done, revision) == once
