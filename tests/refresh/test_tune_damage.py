"""Weights on the disk that are not what was taught: named, never served, and built around."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_flywheel import Flywheel
from rag_flywheel.encode.tower import FILE_NAME
from rag_flywheel.errors import CorruptFileError, StorageError
from teachable import answer, share_right
from tuned import ASKED, NEW, folder_of, ids, live, manifest_of, opened, order, weights_of

pytestmark = pytest.mark.slow  # torch alone takes seconds to load


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flipped,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "gone": Path.unlink,
    "no safetensors": lambda path: path.write_bytes(b"x" * path.stat().st_size),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_weights_are_named_not_served_and_built_around(
    damage: Callable[[Path], object], tuned: Path
) -> None:
    with opened(tuned) as fw:
        first = ids(fw)[0]
        fw.rollback(first)
        fw.release()
        untuned = order(fw)
        fw.rollback(ids(fw)[1])
        fw.release()
        damage(weights_of(fw))
    with opened(tuned) as fw:
        (problem,) = fw.verify()
        assert problem.startswith(f"{live(fw)}/{FILE_NAME} ")
        with pytest.raises(CorruptFileError, match=rf"cannot be served: .*{FILE_NAME}") as caught:
            fw.retrieve(NEW[0])
        assert "rag-flywheel refresh" in str(caught.value)
        with pytest.raises(CorruptFileError, match="cannot be rolled back to"):
            fw.rollback(live(fw))
        assert fw.refresh().outcome == "promoted"
        assert manifest_of(fw)["tuned"] is None  # of the version before
        assert share_right(fw, NEW) == pytest.approx(
            np.mean([hits[0] == answer(q) for hits, q in zip(untuned, NEW, strict=False)]), abs=0.05
        )
        assert fw.refresh(tune=True).outcome == "promoted"


@pytest.mark.slow
def test_damaged_weights_are_repaired(tuned: Path) -> None:
    with opened(tuned) as fw:
        flipped(weights_of(fw))
        damaged = live(fw)
        done = fw.repair()
        assert any(damaged in line and FILE_NAME in line for line in done)
        assert fw.verify() == []
        assert share_right(fw, NEW) > 0.4
        assert manifest_of(fw)["tuned"] is None


def test_weights_that_are_already_loaded_go_on_serving(tuned: Path) -> None:
    with opened(tuned) as fw, opened(tuned) as other:
        expected = order(fw)
        flipped(weights_of(fw))
        assert order(fw) == expected
        with pytest.raises(CorruptFileError):
            order(other)


def resealed(fw: Flywheel, change: Callable[[Any], object]) -> None:
    """Another manifest, as one who means harm would write it."""
    path = folder_of(fw) / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.slow
def test_a_version_that_says_it_is_tuned_and_has_no_weights_is_named(tuned: Path) -> None:
    with opened(tuned) as fw:
        weights_of(fw).unlink()
        resealed(fw, lambda manifest: manifest["files"].pop(FILE_NAME))
    with opened(tuned) as fw:
        (problem,) = fw.verify()
        assert FILE_NAME in problem
        assert "holds no usable encoder" in problem
        with pytest.raises(CorruptFileError, match=r"no usable encoder .*rag-flywheel repair"):
            fw.retrieve(NEW[0])
        fw.repair()
        assert fw.retrieve(NEW[0]).hits
        assert fw.verify() == []


@pytest.mark.parametrize("name", [7, True, ["x"]])
def test_a_manifest_that_names_no_weights_is_refused(name: object, tuned: Path) -> None:
    with opened(tuned) as fw:
        resealed(fw, lambda manifest: manifest.update(tuned=name))
        assert fw.verify()
    with opened(tuned) as fw, pytest.raises((CorruptFileError, StorageError)):
        fw.retrieve(NEW[0])


@pytest.mark.slow
def test_a_damaged_vector_of_a_tuned_query_is_named_and_made_anew(tuned: Path) -> None:
    with opened(tuned) as fw:
        expected, revision = order(fw), manifest_of(fw)["tuned"]
    with closing(sqlite3.connect(tuned / "flywheel.db")) as conn, conn:
        conn.execute(
            "UPDATE vectors SET vector = x'00' WHERE rowid = "
            "(SELECT min(rowid) FROM vectors WHERE revision = ?)",
            (revision,),
        )
    with opened(tuned) as fw:
        with pytest.raises(CorruptFileError, match="vector"):
            fw.retrieve(ASKED[0])
        assert ["vectors: 1 cannot be used" in problem for problem in fw.verify()] == [True]
        fw.repair()
        assert fw.verify() == []
        assert order(fw) == expected
