"""What votes up to some event say of past queries, as arrays: a version keeps it, so that no process
that opens the folder has to judge those votes again.

It knows its files, not the store, nor how votes are judged; `by` names all that the result rests on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, starmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import all_below, divides, parsed_json, read_array, read_bytes, read_json
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.index.short_codes import Codes
from rag_flywheel.records import QueryKey, Support

FOLDER = "heard"
_HASH = 16
_LARGEST = 2**62  # event number, lineage
_MOST_MADE = 100_000  # bytes
_ARRAYS = ("queries", "tenant", "offsets", "lineages", "chances", "vote_offsets", "votes")
_OF_CODES = ("centroids", "codes")


@dataclass(frozen=True)
class PastQuery:
    """What votes on a past query say: the chances of passages, and the votes' event numbers."""

    supports: tuple[Support, ...]
    votes: tuple[int, ...]


def _offsets() -> npt.NDArray[np.int64]:
    return np.zeros(1, np.int64)


def _numbers() -> npt.NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Made:
    """What it rests on: votes up to event number `until`, after so many users were forgotten; by:
    everything else, as text, "" when it must not be used."""

    until: int = 0
    n_forgotten: int = 0
    by: str = ""


@dataclass(frozen=True)
class Heard:
    """Past query i is hashes[i] under tenants[tenant[i]]. Its supports are lineages and chances
    from offsets[i] to offsets[i + 1]; its votes, at least one, likewise by vote_offsets.

    hashes uint8 (n, 16); tenant int32 (n,); offsets, vote_offsets int64 (n + 1,); lineages, votes
    int64; chances float64. codes: of the vectors of all n, None: they are few.
    """

    made: Made = Made()
    tenants: tuple[str | None, ...] = ()
    hashes: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, _HASH), np.uint8))
    tenant: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    offsets: npt.NDArray[np.int64] = field(default_factory=_offsets)
    lineages: npt.NDArray[np.int64] = field(default_factory=_numbers)
    chances: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))
    vote_offsets: npt.NDArray[np.int64] = field(default_factory=_offsets)
    votes: npt.NDArray[np.int64] = field(default_factory=_numbers)
    codes: Codes | None = None

    def __len__(self) -> int:
        return len(self.hashes)

    @cached_property
    def keys(self) -> tuple[QueryKey, ...]:
        """The past queries, in order."""
        names = self.hashes.tobytes()
        hashes = (names[i : i + _HASH] for i in range(0, len(names), _HASH))
        tenants = map(self.tenants.__getitem__, self.tenant.tolist())
        return tuple(starmap(QueryKey, zip(hashes, tenants, strict=True)))

    def said(self, row: int) -> PastQuery:
        """What votes say of the past query in a row."""
        part = slice(self.offsets[row], self.offsets[row + 1])
        pairs = zip(self.lineages[part].tolist(), self.chances[part].tolist(), strict=True)
        votes = self.votes[self.vote_offsets[row] : self.vote_offsets[row + 1]]
        return PastQuery(tuple(Support(*pair) for pair in pairs), tuple(votes.tolist()))


def heard_of(made: Made, said: Mapping[QueryKey, PastQuery], codes: Codes | None = None) -> Heard:
    """This of these past queries, each of which has a vote; codes: of their vectors, in order."""
    tenants = {tenant: i for i, tenant in enumerate(dict.fromkeys(key.tenant for key in said))}
    supports = [s for past in said.values() for s in past.supports]
    return Heard(
        made,
        tuple(tenants),
        np.frombuffer(b"".join(key.query_hash for key in said), np.uint8).reshape(-1, _HASH),
        np.array([tenants[key.tenant] for key in said], np.int32),
        _ends([len(past.supports) for past in said.values()]),
        np.array([s.lineage for s in supports], np.int64),
        np.array([s.chance for s in supports], np.float64),
        _ends([len(past.votes) for past in said.values()]),
        np.array(list(chain.from_iterable(past.votes for past in said.values())), np.int64),
        codes,
    )


def _ends(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *lengths], dtype=np.int64)


def save_heard(heard: Heard, folder: Path) -> None:
    """Write it into a version folder, without pickle."""
    place = folder / FOLDER
    place.mkdir()
    said = (heard.offsets, heard.lineages, heard.chances, heard.vote_offsets, heard.votes)
    arrays: dict[str, npt.NDArray[Any]]
    arrays = dict(zip(_ARRAYS, (heard.hashes, heard.tenant, *said), strict=True))
    if heard.codes is not None:
        arrays |= zip(_OF_CODES, (heard.codes.centroids, heard.codes.table), strict=True)
    for name, array in arrays.items():
        np.save(place / f"{name}.npy", array, allow_pickle=False)
    (place / "tenants.json").write_text(json.dumps(heard.tenants), encoding="utf-8")
    made = {
        "until": heard.made.until,
        "n_forgotten": heard.made.n_forgotten,
        "by": heard.made.by,
        "codes_of": None if heard.codes is None else heard.codes.n_learned,
    }
    (place / "made.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def load_heard(folder: Path, *, dim: int) -> Heard:
    """Read it from a version folder; dim: of the vectors. Raises CorruptFileError."""
    place = folder / FOLDER
    try:
        made, n_learned = _made(parsed_json(read_bytes(place / "made.json", most=_MOST_MADE), "it"))
        tenants = _tenants(read_json(place / "tenants.json"))
        arrays: list[Any] = [read_array(place / f"{name}.npy") for name in _ARRAYS]
        heard = Heard(made, tenants, *arrays)
        _require_whole(heard)
        if n_learned is not None:
            centroids, table = (read_array(place / f"{name}.npy") for name in _OF_CODES)
            codes = Codes.of(centroids, table, n=len(heard), n_learned=n_learned, dim=dim)
            heard = replace(heard, codes=codes)
        if len(set(heard.keys)) != len(heard):
            raise ValueError("queries.npy holds a query twice")
    except (OSError, ValueError, MemoryError) as error:
        raise CorruptFileError(
            f"{place} cannot be read ({error}); run `rag-flywheel refresh` to build it anew from "
            "the database"
        ) from error
    return heard


def _made(said: Any) -> tuple[Made, int | None]:
    if not isinstance(said, dict) or sorted(said) != ["by", "codes_of", "n_forgotten", "until"]:
        raise ValueError("made.json does not say what it was made of")
    counts = [said["until"], said["n_forgotten"]]
    if said["codes_of"] is not None:
        counts.append(said["codes_of"])
    if any(type(n) is not int or not 0 <= n <= _LARGEST for n in counts):
        raise ValueError("made.json holds a number that is no count")
    if not isinstance(said["by"], str):
        raise ValueError("made.json does not say what it was made by")
    return Made(said["until"], said["n_forgotten"], said["by"]), said["codes_of"]


def _tenants(found: object) -> tuple[str | None, ...]:
    if not isinstance(found, list) or not all(t is None or isinstance(t, str) for t in found):
        raise ValueError("tenants.json is no list of tenants")
    if len(set(found)) != len(found):
        raise ValueError("tenants.json names a tenant twice")
    return tuple(found)


def _require_whole(heard: Heard) -> None:
    if heard.hashes.dtype != np.uint8 or heard.hashes.shape[1:] != (_HASH,):
        raise ValueError("queries.npy does not hold hashes of 16 bytes")
    n = len(heard.hashes)
    if heard.tenant.dtype != np.int32 or heard.tenant.shape != (n,):
        raise ValueError("tenant.npy does not hold a number for each query")
    if not all_below(heard.tenant, len(heard.tenants)):
        raise ValueError("tenant.npy names a tenant that is not there")
    _require_parts(heard.offsets, n, heard.lineages, "lineages.npy")
    _require_parts(heard.vote_offsets, n, heard.votes, "votes.npy")
    if np.any(heard.vote_offsets[1:] == heard.vote_offsets[:-1]):
        raise ValueError("vote_offsets.npy leaves a query without a vote")
    if not all_below(heard.lineages, _LARGEST) or not all_below(heard.votes, heard.made.until + 1):
        raise ValueError("lineages.npy or votes.npy holds an impossible number")
    if heard.chances.dtype != np.float64 or heard.chances.shape != heard.lineages.shape:
        raise ValueError("lineages.npy and chances.npy do not fit")
    if not bool(np.all((heard.chances >= 0) & (heard.chances <= 1.001))):
        raise ValueError("chances.npy holds a number that is no chance")


def _require_parts(offsets: npt.NDArray[Any], n: int, parts: npt.NDArray[Any], name: str) -> None:
    if offsets.dtype != np.int64 or parts.dtype != np.int64 or parts.ndim != 1:
        raise ValueError(f"{name} or its offsets are not whole numbers of 64 bits")
    if not divides(offsets, n) or len(parts) != int(offsets[-1]):
        raise ValueError(f"{name} is not divided among the queries")
