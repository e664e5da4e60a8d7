"""The memory of a version: what is saved is what is loaded, and a damaged one is refused."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.rank.memory import FOLDER, Memory, load_memory, save_memory
from rag_flywheel.records import QueryKey
from thorough import thorough

Chances = dict[int, float]
FILES = ("queries.npy", "offsets.npy", "lineages.npy", "chances.npy", "tenants.json")


def memory_of(told: dict[QueryKey, Chances]) -> Memory:
    lengths = [0, *(len(chances) for chances in told.values())]
    pairs = [pair for chances in told.values() for pair in chances.items()]
    return Memory(
        tuple(told),
        np.cumsum(lengths, dtype=np.int64),
        np.array([lineage for lineage, _ in pairs], dtype=np.int64),
        np.array([chance for _, chance in pairs], dtype=np.float32),
    )


def contents(memory: Memory) -> dict[QueryKey, Chances]:
    return {key: memory.before(row) for key, row in memory.rows.items()}


TOLD: dict[QueryKey, Chances] = {
    QueryKey(b"a" * 16, None): {4: 0.5, 5: 0.25},
    QueryKey(b"a" * 16, '"acme"'): {},
    QueryKey(b"\x00" * 16, ""): {6: 1.0},
}


def test_what_is_known_of_each_past_query() -> None:
    memory = memory_of(TOLD)
    assert memory.rows == {(b"a" * 16, None): 0, (b"a" * 16, '"acme"'): 1, (b"\x00" * 16, ""): 2}
    assert [memory.before(row) for row in range(3)] == [{4: 0.5, 5: 0.25}, {}, {6: 1.0}]


def test_an_empty_memory_knows_no_query(tmp_path: Path) -> None:
    assert Memory().rows == {}
    save_memory(Memory(), tmp_path)
    loaded = load_memory(tmp_path)
    assert loaded.rows == {}
    assert (loaded.offsets.tolist(), loaded.lineages.size, loaded.chances.size) == ([0], 0, 0)


tenants = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
passages = st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.floats(0, 1, width=32), max_size=5)


@thorough(50, few=12)
@given(st.dictionaries(st.builds(QueryKey, st.binary(min_size=16, max_size=16), tenants), passages))
def test_a_memory_survives_writing_and_reading(told: dict[QueryKey, Chances]) -> None:
    memory = memory_of(told)
    with tempfile.TemporaryDirectory() as folder:
        save_memory(memory, Path(folder))
        loaded = load_memory(Path(folder))
    assert loaded.keys == memory.keys
    assert contents(loaded) == told
    for name in ("offsets", "lineages", "chances"):
        was, now = getattr(memory, name), getattr(loaded, name)
        assert (now.dtype, now.tobytes()) == (was.dtype, was.tobytes())


def test_it_is_written_in_one_folder_without_pickle(tmp_path: Path) -> None:
    save_memory(memory_of(TOLD), tmp_path)
    assert sorted(p.name for p in (tmp_path / FOLDER).iterdir()) == sorted(FILES)
    for path in (tmp_path / FOLDER).glob("*.npy"):
        np.load(path, allow_pickle=False)  # raises on an array of objects
    tenants = json.loads((tmp_path / FOLDER / "tenants.json").read_text())
    assert tenants == [None, '"acme"', ""]


def test_it_is_not_written_over_another(tmp_path: Path) -> None:
    save_memory(memory_of(TOLD), tmp_path)
    with pytest.raises(FileExistsError):
        save_memory(Memory(), tmp_path)
    assert contents(load_memory(tmp_path)) == TOLD


def refused(folder: Path, reason: str = "") -> None:
    with pytest.raises(CorruptFileError, match="run `rag-flywheel refresh`") as caught:
        load_memory(folder)
    assert f"{folder / FOLDER} cannot be read" in str(caught.value)
    assert reason in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "noise", "a folder"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, damage: str) -> None:
    save_memory(memory_of(TOLD), tmp_path)
    path = tmp_path / FOLDER / name
    data = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        wrong = {"empty": b"", "cut short": data[: len(data) - 3], "noise": b"\xff\x00" * 80}
        path.write_bytes(wrong[damage])
    refused(tmp_path)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".npy")])
def test_a_pickle_is_refused_and_not_read(tmp_path: Path, name: str) -> None:
    save_memory(memory_of(TOLD), tmp_path)
    np.save(tmp_path / FOLDER / name, np.array([None, "x"], dtype=object), allow_pickle=True)
    refused(tmp_path, "allow_pickle=False")


Array = npt.NDArray[np.generic]
DIVIDE = "offsets.npy does not divide the passages among the queries"
NO_CHANCE = "chances.npy holds a number that is no chance"
HASHES = "expected uint8 (3, 16)"
OFFSETS = "expected int64 (4,)"
CHANCES = "chances.npy holds float32"
CHANGES: list[tuple[str, Callable[[Array], object], str]] = [
    ("queries.npy", lambda a: a.astype(np.int64), HASHES),
    ("queries.npy", lambda a: a[:, :15], HASHES),
    ("queries.npy", lambda a: a.reshape(-1), HASHES),
    ("queries.npy", lambda a: a.reshape(1, *a.shape), HASHES),
    ("queries.npy", lambda a: a[0, 0], HASHES),
    ("queries.npy", lambda a: a[:2], HASHES),
    ("offsets.npy", lambda a: a.astype(np.int32), OFFSETS),
    ("offsets.npy", lambda a: a.astype(">i8"), OFFSETS),
    ("lineages.npy", lambda a: a.astype(np.float64), "expected int64 (3,)"),
    ("chances.npy", lambda a: a.astype(np.float64), "expected float32 (3,)"),
    ("offsets.npy", lambda a: a[:-1], OFFSETS),
    ("offsets.npy", lambda a: a.reshape(2, 2), OFFSETS),
    ("offsets.npy", lambda a: a[0], OFFSETS),
    ("offsets.npy", lambda _: np.array([1, 2, 2, 3]), DIVIDE),
    ("offsets.npy", lambda _: np.array([0, 2, 1, 3]), DIVIDE),
    ("offsets.npy", lambda _: np.array([0, 0, 0, -1]), DIVIDE),
    ("offsets.npy", lambda _: np.array([0, 2, 2, 4]), DIVIDE),
    ("lineages.npy", lambda a: a[:-1], CHANCES),
    ("chances.npy", lambda a: a[:-1], CHANCES),
    ("chances.npy", lambda a: a.reshape(3, 1), CHANCES),
    ("chances.npy", lambda _: np.array([0.5, -0.1, 0.2], np.float32), NO_CHANCE),
    ("chances.npy", lambda _: np.array([0.5, 1.1, 0.2], np.float32), NO_CHANCE),
    ("chances.npy", lambda _: np.array([0.5, np.nan, 0.2], np.float32), NO_CHANCE),
    ("chances.npy", lambda _: np.array([0.5, np.inf, 0.2], np.float32), NO_CHANCE),
]


@pytest.mark.parametrize(("name", "change", "reason"), CHANGES)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, change: Callable[[Array], object], reason: str
) -> None:
    save_memory(memory_of(TOLD), tmp_path)
    path = tmp_path / FOLDER / name
    np.save(path, np.asarray(change(np.load(path))))
    refused(tmp_path, reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "tenants.json: Expected `array`, got `object`"),
        ("null", "tenants.json: Expected `array`, got `null`"),
        ('"abc"', "tenants.json: Expected `array`, got `str`"),
        ("[null, 5, null]", "tenants.json: Expected `str | null`, got `int` - at `$[1]`"),
        ('[null, ["x"], null]', "tenants.json: Expected `str | null`, got `array` - at `$[1]`"),
        ("[]", "expected uint8 (0, 16)"),
        ("[null, null]", "expected uint8 (2, 16)"),
        ("[null, null, null, null]", "expected uint8 (4, 16)"),
        ("[null, ", "cannot be read"),
        ("[" * 200_000, "recursion"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_tenants_that_do_not_fit_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    save_memory(memory_of(TOLD), tmp_path)
    (tmp_path / FOLDER / "tenants.json").write_text(text)
    refused(tmp_path, reason)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".npy")])
def test_an_array_with_a_damaged_header_is_refused(tmp_path: Path, name: str) -> None:
    save_memory(memory_of(TOLD), tmp_path)
    path = tmp_path / FOLDER / name
    data = bytearray(path.read_bytes())
    data[8] = 39  # the header's length: it is cut in the middle of a string
    path.write_bytes(data)
    refused(tmp_path, "damaged header")


def test_chances_may_exceed_one_by_rounding(tmp_path: Path) -> None:
    save_memory(memory_of({QueryKey(b"a" * 16, None): {4: 1.0005}}), tmp_path)
    assert load_memory(tmp_path).before(0) == {4: pytest.approx(1.0005)}
