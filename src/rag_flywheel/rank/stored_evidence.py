"""Stores in a version the evidence from all votes up to some event, as arrays.

A process that opens the folder need not judge those votes again. This module must not know the
store, nor how votes are judged.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import (
    all_below,
    all_within,
    divides,
    read_array,
    read_arrays,
    read_json,
    version_file_errors,
    write_arrays,
)
from rag_flywheel.index.short_codes import Codes
from rag_flywheel.rank.memory import MOST_CHANCE
from rag_flywheel.records import Known, QueryKey, Support

FOLDER = "heard"
_MOST_READ = 4_096  # past queries, of some 2 kB each
_HASH = 16
MOST_LOG_ODDS = 1e4
_LARGEST = 2**62  # event number, lineage
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]
_MOST_PROVENANCE = 100_000  # bytes
_ARRAYS = {
    "queries": f"uint8 n {_HASH}",
    "tenant": "int32 n",
    "offsets": "int64 n+1",
    "lineages": "int64 supports",
    "chances": "float64 supports",
    "log_odds": "float64 supports",
    "named": "uint8 supports",
    "vote_offsets": "int64 n+1",
    "votes": "int64 votes",
}
_OF_CODES = ("centroids", "codes")


@dataclass(frozen=True)
class PastQuery:
    """The evidence from the votes on a past query: chances of passages, and the votes' events.

    known: its known answers, which are not stored with a version.
    """

    supports: tuple[Support, ...]
    votes: tuple[int, ...]
    known: tuple[Known, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """What stored evidence depends on.

    until: the number of the last event whose vote counts; n_forgotten: how many users had been
    forgotten; by: everything else, as text, "" when the evidence must not be used.
    """

    until: int = 0
    n_forgotten: int = 0
    by: str = ""


@dataclass(frozen=True)
class StoredEvidence:
    """Past query i is hashes[i] under tenants[tenant[i]]. Its supports are lineages and chances
    from offsets[i] to offsets[i + 1]; its votes, at least one, likewise by vote_offsets.

    hashes uint8 (n, 16); tenant int32 (n,); offsets, vote_offsets int64 (n + 1,); lineages, votes
    int64; chances, log_odds float64; named uint8; codes: short codes of the n vectors, None while n is small.
    """

    provenance: Provenance = Provenance()
    tenants: tuple[str | None, ...] = ()
    hashes: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, _HASH), np.uint8))
    tenant: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    offsets: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    lineages: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    chances: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))
    log_odds: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))
    named: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    vote_offsets: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    votes: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    codes: Codes | None = None
    _read: dict[int, PastQuery] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.hashes)

    @cached_property
    def keys(self) -> tuple[QueryKey, ...]:
        """The past queries, in order."""
        tenants = map(self.tenants.__getitem__, self.tenant.tolist())
        return tuple(map(QueryKey, self.names, tenants))

    @property
    def names(self) -> list[bytes]:
        """The hashes of the past queries, in order."""
        names = self.hashes.tobytes()
        return [names[i : i + _HASH] for i in range(0, len(names), _HASH)]

    def past_query(self, row: int) -> PastQuery:
        """The evidence from the votes on the past query in a row; those of rows asked for last are kept."""
        found = self._read.get(row)
        if found is None:
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            found = self._read[row] = self._past_query(row)
        return found

    def _past_query(self, row: int) -> PastQuery:
        part = slice(self.offsets[row], self.offsets[row + 1])
        supports = map(
            Support,
            self.lineages[part].tolist(),
            self.chances[part].tolist(),
            self.log_odds[part].tolist(),
            map(bool, self.named[part].tolist()),
        )
        votes = self.votes[self.vote_offsets[row] : self.vote_offsets[row + 1]]
        return PastQuery(tuple(supports), tuple(votes.tolist()))


@dataclass(frozen=True)
class Supports:
    """The evidence of n past queries as arrays, as StoredEvidence has it.

    votes: of each; counts int64 (n,): how many supports each has; lineages int64, chances, log_odds float64,
    named uint8: of all supports, query by query.
    """

    keys: Sequence[QueryKey]
    votes: Sequence[tuple[int, ...]]
    counts: npt.NDArray[np.int64]
    lineages: npt.NDArray[np.int64]
    chances: npt.NDArray[np.float64]
    log_odds: npt.NDArray[np.float64]
    named: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, past_query: Mapping[QueryKey, PastQuery]) -> "Supports":
        """The same of past queries that are known one by one."""
        supports = [s for past in past_query.values() for s in past.supports]
        return cls(
            tuple(past_query),
            [past.votes for past in past_query.values()],
            np.array([len(past.supports) for past in past_query.values()], np.int64),
            np.array([s.lineage for s in supports], np.int64),
            np.array([s.chance for s in supports], np.float64),
            np.array([s.log_odds for s in supports], np.float64),
            np.array([s.named for s in supports], np.uint8),
        )


def stored_evidence_of(
    provenance: Provenance, supports: Supports, codes: Codes | None = None
) -> StoredEvidence:
    """The evidence to be stored. Each past query has a vote; codes: of their vectors, in order."""
    keys, votes = supports.keys, supports.votes
    names = dict.fromkeys(key.tenant for key in keys)
    tenants = {tenant: i for i, tenant in enumerate(names)}
    return StoredEvidence(
        provenance,
        tuple(tenants),
        np.frombuffer(b"".join(key.query_hash for key in keys), np.uint8).reshape(-1, _HASH),
        np.array([tenants[key.tenant] for key in keys], np.int32),
        _ends(supports.counts.tolist()),
        supports.lineages,
        supports.chances,
        supports.log_odds,
        supports.named,
        _ends([len(each) for each in votes]),
        np.array(list(chain.from_iterable(votes)), np.int64),
        codes,
    )


def _ends(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *lengths], dtype=np.int64)


def save_stored_evidence(evidence: StoredEvidence, folder: Path) -> None:
    """Write stored evidence into a version folder, without pickle."""
    place, codes = folder / FOLDER, evidence.codes
    place.mkdir()
    texts = evidence.offsets, evidence.lineages
    supports = evidence.chances, evidence.log_odds, evidence.named
    votes = evidence.vote_offsets, evidence.votes
    write_arrays(place, _ARRAYS, evidence.hashes, evidence.tenant, *texts, *supports, *votes)
    if codes is not None:
        write_arrays(place, _OF_CODES, codes.centroids, codes.table)
    (place / "tenants.json").write_text(json.dumps(evidence.tenants), encoding="utf-8")
    codes_of = None if codes is None else codes.n_learned
    provenance = {**asdict(evidence.provenance), "codes_of": codes_of}
    (place / "made.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


class _ProvenanceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """made.json; codes_of: how many vectors the codes were learned from, None without codes."""

    until: _Count
    n_forgotten: _Count
    by: str
    codes_of: _Count | None


def load_stored_evidence(folder: Path, *, dim: int) -> StoredEvidence:
    """Read the evidence of a version whose vectors have width dim. Raises CorruptFileError."""
    place = folder / FOLDER
    with version_file_errors(place):
        file = read_json(place / "made.json", _ProvenanceFile, most=_MOST_PROVENANCE)
        tenants = tuple(read_json(place / "tenants.json", list[str | None]))
        provenance = Provenance(file.until, file.n_forgotten, file.by)
        evidence = StoredEvidence(provenance, tenants, *read_arrays(place, _ARRAYS))
        _require_sense(evidence)
        if file.codes_of is not None:
            centroids, table = (read_array(place / f"{name}.npy") for name in _OF_CODES)
            codes = Codes.of(centroids, table, n=len(evidence), n_learned=file.codes_of, dim=dim)
            evidence = replace(evidence, codes=codes)
    return evidence


def _require_sense(evidence: StoredEvidence) -> None:
    """Raise ValueError unless every name refers to something stored and every number is possible."""
    n, votes = len(evidence), evidence.votes
    if len(set(evidence.tenants)) != len(evidence.tenants):
        raise ValueError("tenants.json names a tenant twice")
    if not all_below(evidence.tenant, len(evidence.tenants)):
        raise ValueError("tenant.npy names a tenant that is not there")
    if not divides(evidence.offsets, n, len(evidence.lineages)):
        raise ValueError("lineages.npy is not divided among the queries")
    if not divides(evidence.vote_offsets, n, len(votes)):
        raise ValueError("votes.npy is not divided among the queries")
    if np.any(evidence.vote_offsets[1:] == evidence.vote_offsets[:-1]):
        raise ValueError("vote_offsets.npy leaves a query without a vote")
    if not all_below(evidence.lineages, _LARGEST) or not all_below(
        votes, evidence.provenance.until + 1
    ):
        raise ValueError("lineages.npy or votes.npy holds an impossible number")
    if not all_within(evidence.chances, 0.0, MOST_CHANCE):
        raise ValueError("chances.npy holds a number that is no chance")
    if not all_within(evidence.log_odds, -MOST_LOG_ODDS, MOST_LOG_ODDS):
        raise ValueError("log_odds.npy holds an impossible number")
    if not all_below(evidence.named, 2):
        raise ValueError("named.npy holds a number that is not 0 or 1")
    if len(set(zip(evidence.names, evidence.tenant.tolist(), strict=True))) != n:
        raise ValueError("queries.npy holds a query twice")
