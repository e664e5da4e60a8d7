"""A live version whose files are what its manifest says, but which this release cannot read: one of
another release, or sealed by another hand."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from folders import PASSAGES, ids, opened
from rag_flywheel import FlywheelError, Passage


def sealed_again(version: Path, name: str, data: bytes | None) -> None:
    """A file of a version with other content, or without it, and the manifest as if it always was."""
    path, manifest = version / name, version / "manifest.json"
    values = json.loads(manifest.read_text(encoding="utf-8"))
    kind = "derived" if name.startswith("derived/") else "files"
    values[kind].pop(name)
    path.unlink()
    if data is not None:
        path.write_bytes(data)
        values[kind][name] = [hashlib.sha256(data).hexdigest(), len(data)]
    manifest.write_text(json.dumps(values), encoding="utf-8")


def as_npy(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> bytes:  # type: ignore[type-arg]
    np.save(path.with_suffix(".tmp.npy"), change(np.load(path)))
    data = path.with_suffix(".tmp.npy").read_bytes()
    path.with_suffix(".tmp.npy").unlink()
    return data


def without_lengths(version: Path) -> None:
    sealed_again(version, "tokens/lengths-1.npy", None)


def deep_words(version: Path) -> None:
    sealed_again(version, "lexical/words.json", b"[" * 200_000)


def a_word_that_is_a_number(version: Path) -> None:
    words = json.loads((version / "lexical/words.json").read_text(encoding="utf-8"))
    sealed_again(version, "lexical/words.json", json.dumps([*words[:-1], 0.5]).encode())


def wrapped_lengths(version: Path) -> None:
    def change(a: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        wrapped = [2**31 - 1, 2**31 - 1, 2]  # in int32 their sum is 0
        return np.concatenate([wrapped, a[3:]]).astype(np.int32)

    data = as_npy(version / "tokens/lengths-1.npy", change)
    sealed_again(version, "tokens/lengths-1.npy", data)


def scores_of_texts_that_are_not_there(version: Path) -> None:
    (path,) = version.glob("derived/indices*.npy")
    name = path.relative_to(version).as_posix()
    sealed_again(version, name, as_npy(path, lambda a: a + 10**6))


def scores_divided_wrongly(version: Path) -> None:
    (path,) = version.glob("derived/indptr*.npy")
    name = path.relative_to(version).as_posix()
    sealed_again(version, name, as_npy(path, lambda a: a[:-1]))


@pytest.mark.parametrize(
    "change",
    [
        without_lengths,
        deep_words,
        a_word_that_is_a_number,
        wrapped_lengths,
        scores_of_texts_that_are_not_there,
        scores_divided_wrongly,
    ],
)
def test_it_is_refused_by_name_and_a_refresh_builds_all_anew(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        good = ids(fw)
    (version,) = (root / "versions").iterdir()
    change(version)
    with opened(root) as fw:
        with pytest.raises(FlywheelError, match="refresh"):
            ids(fw)
        assert fw.refresh().outcome == "promoted"
        assert ids(fw) == good
        assert fw.refresh().outcome == "unchanged"


def test_words_that_move_from_title_to_text_are_another_row_with_the_same_votes(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add([Passage("a", "gamma delta", "alpha beta"), Passage("b", "something else")])
        fw.refresh()
        shown = fw.retrieve("alpha beta", 2)
        fw.feedback(shown.id, "a", "helpful")
        before = fw.retrieve("alpha beta", 1, record=False).hits[0].explanation.evidence
        assert before > 0
        assert fw.add([Passage("a", "alpha beta gamma delta")]).updated == 1
        after = fw.retrieve("alpha beta", 1, record=False).hits[0]
        assert after.passage_id == "a"
        assert after.explanation.evidence == pytest.approx(before, abs=0.2)
        assert fw.refresh().outcome == "promoted"  # it was "unchanged" while it was the same row
