"""What a version heard: what is saved is what is loaded, and what is damaged is refused."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.index.short_codes import Codes
from rag_flywheel.rank.stored_evidence import (
    FOLDER,
    PastQuery,
    Provenance,
    StoredEvidence,
    Supports,
    load_stored_evidence,
    save_stored_evidence,
    stored_evidence_of,
)
from rag_flywheel.records import QueryKey, Support, Vectors
from thorough import thorough

DIM = 6  # not a multiple of what shares a code
ARRAYS = (
    "queries",
    "tenant",
    "offsets",
    "lineages",
    "chances",
    "log_odds",
    "named",
    "vote_offsets",
    "votes",
)
FILES = [*(f"{name}.npy" for name in (*ARRAYS, "centroids", "codes")), "tenants.json", "made.json"]
MADE = Provenance(until=100, n_forgotten=2, by="such votes")
TOLD: dict[QueryKey, PastQuery] = {
    QueryKey(b"a" * 16, None): PastQuery(
        (Support(4, 0.5, 1.5), Support(5, 0.25, 0.7, True)), (7, 9)
    ),
    QueryKey(b"a" * 16, '"acme"'): PastQuery((), (100,)),
    QueryKey(b"\x00" * 16, ""): PastQuery((Support(6, 1.0),), (1,)),
}


def vectors(n: int) -> Vectors:
    rows = np.random.default_rng(n).standard_normal((n, DIM)).astype(np.float32)
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def contents(heard: StoredEvidence) -> dict[QueryKey, PastQuery]:
    return {key: heard.past_query(row) for row, key in enumerate(heard.keys)}


def coded() -> StoredEvidence:
    """What is in TOLD, with codes; and as many more as codes take."""
    more = {
        QueryKey(bytes([i]) * 16, None): PastQuery((Support(i, 0.5),), (i,)) for i in range(20, 40)
    }
    told = {**TOLD, **more}
    return stored_evidence_of(MADE, Supports.of(told), Codes.build(vectors(len(told))))


tenants = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
supports = st.builds(Support, st.integers(0, 2**62 - 1), st.floats(0, 1))
pasts = st.builds(
    PastQuery,
    st.lists(supports, max_size=4).map(tuple),
    st.lists(st.integers(0, 2**62), min_size=1, max_size=3).map(tuple),
)
keys = st.builds(QueryKey, st.binary(min_size=16, max_size=16), tenants)


@thorough(50, few=15)
@given(st.dictionaries(keys, pasts), st.integers(0, 2**62), st.text(max_size=20))
def test_it_survives_writing_and_reading(told: dict[QueryKey, PastQuery], n: int, by: str) -> None:
    provenance = Provenance(2**62, n, by)
    with tempfile.TemporaryDirectory() as folder:
        save_stored_evidence(stored_evidence_of(provenance, Supports.of(told)), Path(folder))
        loaded = load_stored_evidence(Path(folder), dim=DIM)
    assert (contents(loaded), list(loaded.keys)) == (told, list(told))
    assert (loaded.provenance, loaded.codes) == (provenance, None)


def test_codes_survive_writing_and_reading(tmp_path: Path) -> None:
    heard = coded()
    save_stored_evidence(heard, tmp_path)
    loaded = load_stored_evidence(tmp_path, dim=DIM)
    assert heard.codes is not None
    assert loaded.codes is not None
    assert (len(loaded.codes), loaded.codes.n_learned) == (23, 23)
    queries = vectors(5)
    assert np.array_equal(loaded.codes.likely(queries, 9), heard.codes.likely(queries, 9))
    assert contents(loaded) == contents(heard)


def test_it_is_written_in_one_folder_without_pickle(tmp_path: Path) -> None:
    save_stored_evidence(coded(), tmp_path)
    assert sorted(p.name for p in (tmp_path / FOLDER).iterdir()) == sorted(FILES)
    for path in (tmp_path / FOLDER).glob("*.npy"):
        np.load(path, allow_pickle=False)
    with pytest.raises(FileExistsError):
        save_stored_evidence(StoredEvidence(), tmp_path)


def refused(folder: Path, reason: str = "", dim: int = DIM) -> None:
    with pytest.raises(CorruptFileError, match="run `rag-flywheel refresh`") as caught:
        load_stored_evidence(folder, dim=dim)
    assert f"{folder / FOLDER} cannot be read" in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "noise", "a folder"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, damage: str) -> None:
    save_stored_evidence(coded(), tmp_path)
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
@pytest.mark.parametrize("shape", [(), (0,), (2, 2), (1, 16, 1)])
def test_arrays_of_another_shape_or_kind_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    save_stored_evidence(coded(), tmp_path)
    path = tmp_path / FOLDER / name
    was = np.load(path)
    np.save(path, np.zeros(shape, was.dtype))
    refused(tmp_path)
    for other in (np.float16, np.complex128, np.dtype(">i8"), np.dtype("S8"), np.dtype("U2")):
        np.save(path, was.astype(other))
        refused(tmp_path)
    np.save(path, was.astype(object), allow_pickle=True)
    refused(tmp_path, "allow_pickle=False")


Array = npt.NDArray[Any]


def put(at: int, value: float) -> Callable[[Array], Array]:
    def change(array: Array) -> Array:
        array = array.copy()
        array[at] = value
        return array

    return change


CHANGES: list[tuple[str, Callable[[Array], Array], str]] = [
    ("queries", lambda a: a[:, :15], "queries.npy holds uint8 (23, 15); expected uint8 (23, 16)"),
    ("queries", lambda a: np.zeros_like(a), "holds a query twice"),
    ("queries", lambda a: a[:-1], "tenant.npy holds int32 (23,); expected int32 (22,)"),
    ("tenant", put(0, 3), "a tenant that is not there"),
    ("tenant", put(0, -1), "a tenant that is not there"),
    ("tenant", put(0, 2**31 - 1), "a tenant that is not there"),
    ("offsets", put(0, 1), "lineages.npy is not divided"),
    ("offsets", put(1, 2**62), "lineages.npy is not divided"),
    ("offsets", put(-1, 2**63 - 1), "lineages.npy is not divided"),
    ("offsets", put(-1, -1), "lineages.npy is not divided"),
    ("lineages", lambda a: a[:-1], "chances.npy holds float64"),
    ("lineages", put(0, -1), "impossible number"),
    ("lineages", put(0, 2**62), "impossible number"),
    ("chances", lambda a: a[:-1], "chances.npy holds float64"),
    ("chances", put(0, -0.1), "no chance"),
    ("chances", put(0, 1.1), "no chance"),
    ("chances", put(0, float("nan")), "no chance"),
    ("chances", put(0, float("inf")), "no chance"),
    ("vote_offsets", put(1, 0), "without a vote"),
    ("vote_offsets", put(2, 1), "votes.npy is not divided"),
    ("votes", put(0, 101), "impossible number"),
    ("votes", put(0, -1), "impossible number"),
    ("centroids", put(0, float("nan")), "mean of unit vectors"),
    ("centroids", put(0, float("inf")), "mean of unit vectors"),
    ("centroids", put(0, -3.0), "mean of unit vectors"),
    ("centroids", lambda a: a[:-1], "expected float32"),
    ("codes", lambda a: a[:-1], "expected uint8"),
    ("codes", lambda a: np.append(a, a), "expected uint8"),
]


@pytest.mark.parametrize(("name", "change", "reason"), CHANGES)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, change: Callable[[Array], Array], reason: str
) -> None:
    save_stored_evidence(coded(), tmp_path)
    path = tmp_path / FOLDER / f"{name}.npy"
    np.save(path, change(np.load(path)))
    refused(tmp_path, reason)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("name", ["centroids", "codes"])
def test_codes_with_other_bytes_are_refused_or_name_rows_that_are_there(
    tmp_path: Path, name: str, seed: int
) -> None:
    save_stored_evidence(coded(), tmp_path)
    path, rng = tmp_path / FOLDER / f"{name}.npy", np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 30)):
        data[rng.integers(128, len(data))] = rng.integers(256)
    path.write_bytes(data)
    try:
        codes = load_stored_evidence(tmp_path, dim=DIM).codes
    except CorruptFileError:
        return
    assert codes is not None
    found = codes.likely(vectors(9), 23)
    assert -1 <= found.min() <= found.max() <= 22  # -1: that place is empty
    longer = codes.extended(vectors(40)).likely(vectors(9), 60)
    assert -1 <= longer.min() <= longer.max() < 63


def test_codes_of_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    save_stored_evidence(coded(), tmp_path)
    refused(tmp_path, "for 23 vectors of width 60", dim=60)


def test_codes_of_nothing_are_refused(tmp_path: Path) -> None:
    save_stored_evidence(StoredEvidence(), tmp_path)
    path = tmp_path / FOLDER / "made.json"
    path.write_text(json.dumps({"until": 0, "n_forgotten": 0, "by": "", "codes_of": 0}))
    for name, array in (("centroids", np.zeros((2, 16, 4), "f4")), ("codes", np.zeros(0, "u1"))):
        np.save(tmp_path / FOLDER / f"{name}.npy", array)
    refused(tmp_path, "codes.npy is of no vectors")


SOUND = {"until": 100, "n_forgotten": 0, "by": "x", "codes_of": None}


@pytest.mark.parametrize(
    "past_query",
    [
        *([], None, "x", {}, {**SOUND, "more": 1}, {k: v for k, v in SOUND.items() if k != "by"}),
        *({**SOUND, "until": wrong} for wrong in (-1, 2**63, 1.0, "9", None, True)),
        *({**SOUND, "n_forgotten": wrong} for wrong in (-1, None)),
        *({**SOUND, "codes_of": wrong} for wrong in (-1, "many", 2**63)),
        *({**SOUND, "by": wrong} for wrong in (None, 3, ["x"])),
    ],
)
def test_what_it_was_made_of_must_be_said(tmp_path: Path, past_query: object) -> None:
    save_stored_evidence(stored_evidence_of(MADE, Supports.of(TOLD)), tmp_path)
    (tmp_path / FOLDER / "made.json").write_text(json.dumps(past_query))
    refused(tmp_path, "made.json")


@pytest.mark.parametrize(
    "past_query", ["{}", "[3]", "[null]", '[null, null, ""]', "[[]]", "[" * 200_000]
)
def test_tenants_that_do_not_fit_are_refused(tmp_path: Path, past_query: str) -> None:
    save_stored_evidence(stored_evidence_of(MADE, Supports.of(TOLD)), tmp_path)
    (tmp_path / FOLDER / "tenants.json").write_text(past_query)
    refused(tmp_path)
