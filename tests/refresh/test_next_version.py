"""Refreshes that take what they can of the version before, against ones that build everything anew."""

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fakes import WordEncoder
from folders import opened
from rag_flywheel import Flywheel, Passage
from rag_flywheel.index import dense
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.lexical import DERIVED_FOLDER, LexicalIndex
from steps import Steps

N = 120


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dense, "GRAPH_FROM", 100)
    with opened(tmp_path / "kb") as fw:
        fw.add([passage(i) for i in range(N)])
        fw.refresh()
    return tmp_path / "kb"


def passage(i: int, more: str = "") -> Passage:
    return Passage(f"p{i}", f"common word{i} and word{i + 1} {more}", f"Title {i}")


def version(fw: Flywheel, root: Path) -> Path:
    return root / "versions" / str(fw.status().version)


def removed(fw: Flywheel, root: Path) -> int:
    number = json.loads((version(fw, root) / "graph" / "graph.json").read_text())["removed"]
    assert isinstance(number, int)
    return number


def words_of(folder: Path) -> tuple[Mapping[str, int], dict[str, bytes]]:
    """The words of a version, their numbers in its texts, and what is computed from them."""
    lexical = LexicalIndex.load(folder, n_texts=N)
    names = ("tokens", "offsets", "titles")
    arrays = {name: getattr(lexical, name).tobytes() for name in names}
    derived = {path.name: path.read_bytes() for path in (folder / DERIVED_FOLDER).iterdir()}
    return lexical.vocabulary, {**arrays, **derived}


def vectors_of(folder: Path) -> tuple[list[int], bytes]:
    dense = DenseIndex.load(folder, dim=WordEncoder().dim)
    return dense.pids.tolist(), dense.vectors(dense.pids).tobytes()


def test_what_changed_is_changed_and_the_rest_is_as_built_anew(folder: Path) -> None:
    with opened(folder) as fw:
        fw.add([passage(3, "edited lately"), passage(N, "quite new")])
        fw.remove(["p7"])
        assert fw.refresh().outcome == "promoted"
        assert removed(fw, folder) == 2
        changed = version(fw, folder)
        words, vectors = words_of(changed), vectors_of(changed)
        found = [h.passage_id for h in fw.retrieve("edited lately", record=False).hits]
        assert found[0] == "p3"
        shutil.rmtree(folder / "versions")
        (folder / "CURRENT").unlink()
        fw.refresh()
        assert removed(fw, folder) == 0
        assert words_of(version(fw, folder)) == words
        assert vectors_of(version(fw, folder)) == vectors
        assert [h.passage_id for h in fw.retrieve("edited lately", record=False).hits] == found
        assert fw.verify() == []


def test_much_change_links_all_anew(folder: Path) -> None:
    with opened(folder) as fw:
        fw.remove([f"p{i}" for i in range(15)])
        fw.refresh()
        assert removed(fw, folder) == 15
        fw.add([passage(i, "again") for i in range(20, 40)])
        fw.refresh()
        assert removed(fw, folder) == 0


def test_vectors_made_again_are_indexed_though_no_text_changed(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "flywheel.db")) as conn, conn:
        conn.execute("DELETE FROM vectors")
    with opened(folder) as fw:
        report = fw.refresh()
        assert report.scores["n_embedded"] == N
        assert "none changed" not in report.reason


def test_a_damaged_version_is_nothing_to_start_from(folder: Path) -> None:
    with opened(folder) as fw:
        path = version(fw, folder) / "graph" / "low.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with opened(folder) as fw:
        fw.add([passage(5, "edited")])
        assert fw.refresh().outcome == "promoted"
        assert removed(fw, folder) == 0
        index = DenseIndex.load(version(fw, folder), dim=WordEncoder().dim)
        assert len(index) == N and np.all(np.diff(index.pids) > 0)


OTHER = np.eye(1, 64, dtype=np.float32).tobytes()  # of unit length, and of no text


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "changed"])
def test_a_version_whose_passages_do_not_find_themselves_is_not_made_live(
    folder: Path, linked: bool
) -> None:
    """Whether its indexes are those of the version before, or only rest on them."""
    with opened(folder) as fw:
        live = fw.status().version
        found = fw.retrieve("word3 common")
        if linked:
            fw.feedback(found.id, found.hits[0].passage_id, "helpful")
        else:
            fw.add([passage(N, "quite new")])
        change_vectors(folder, OTHER)
        report = fw.refresh()
        assert (report.outcome, report.version) == ("rejected", live)
        assert "do not find themselves" in report.reason
        assert fw.status().version == live == fw.retrieve("word3 common", record=False).version
        assert [v.id for v in fw.versions()] == [live]
        assert not list((folder / "staging").iterdir())
        assert fw.history(1)[0].kind == "rejected"


def change_vectors(folder: Path, vector: bytes) -> None:
    """Of all passages but the newest."""
    with closing(sqlite3.connect(folder / "flywheel.db")) as conn, conn:
        some = "SELECT text_hash FROM passages WHERE pid <= ?"
        conn.execute(f"UPDATE vectors SET vector = ? WHERE text_hash IN ({some})", (vector, N))


def test_a_version_whose_vectors_are_lost_meanwhile_is_not_made_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(monkeypatch)
    with opened(tmp_path / "kb") as fw:
        fw.add([passage(i) for i in range(10)])
        fw.refresh()
        live = fw.status().version
        found = fw.retrieve("word3 common")
        fw.feedback(found.id, found.hits[0].passage_id, "helpful")

        def lost() -> None:
            with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn, conn:
                conn.execute(
                    "DELETE FROM vectors WHERE text_hash IN (SELECT text_hash FROM passages)"
                )

        with steps.before("sql", "WHERE p.pid IN", lost):
            report = fw.refresh()
        assert (report.outcome, report.version) == ("rejected", live)
        assert "10 of 10 sampled passages have no vector" in report.reason
        assert fw.refresh().outcome == "promoted"  # which embeds them again
        assert fw.verify() == []


def test_a_version_that_holds_other_passages_is_not_made_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is read back, its vectors are another version's."""
    steps, root = Steps(monkeypatch), tmp_path / "kb"
    with opened(root) as fw:
        fw.add([passage(i) for i in range(10)])
        fw.refresh()
        first = version(fw, root)
        fw.add([passage(10)])
        live = fw.refresh().version
        fw.remove(["p3"])
        (version(fw, root) / "manifest.json").write_text("no manifest")  # so that all is built anew

        def exchanged() -> None:
            (staged,) = (root / "staging").iterdir()
            shutil.rmtree(staged / "vectors")
            shutil.copytree(first / "vectors", staged / "vectors")

        with steps.before("open", "pids.npy", exchanged):
            report = fw.refresh()
        assert (report.outcome, report.version) == ("rejected", live)
        assert "does not hold exactly the passages" in report.reason
        assert fw.refresh().outcome == "promoted"
