"""Finds the passages of the index that another tool showed: by id, or by a text, title or address that no
other passage has. It never guesses."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rag_flywheel.records import ALL_TENANTS, ImportedHit, Passage, TenantScope
from rag_flywheel.store import passages
from rag_flywheel.store.database import Database
from rag_flywheel.store.tenants import shows

NOT_THERE = "passages shown that are not in the index"
SEVERAL = "passages shown whose {what} several passages of the index have"
NAMELESS = "passages shown without an id, a text, a title or an address"
_MOST = 200_000  # passages that are remembered
_COPIES = 50
_ADDRESS = "url", "source"


@dataclass(frozen=True)
class Found:
    """A passage of the index: its row, and its id; or, with pid None, why it was not found."""

    pid: int | None
    name: str = ""
    reason: str = ""


_NOT_THERE = Found(None, reason=NOT_THERE)


class PassageLookup:
    """Looks hits up, and remembers them. Titles and addresses are read once, when the first hit needs
    them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[object, Found] = {}
        self._beside: dict[bytes, list[int]] | None = None

    def find(self, hit: ImportedHit, scope: TenantScope = ALL_TENANTS) -> Found:
        """The passage of the scope that a hit is."""
        ids = (hit.passage_id,) if isinstance(hit.passage_id, str) else tuple(hit.passage_id or ())
        if ids:
            found = self._remembered((ids, scope.tenant), lambda: self._by_id(ids, scope))
            if found.pid is not None:
                return found
        text = " ".join((hit.text or "").split())
        if text:
            name = (_digest(text), scope.tenant)
            return self._remembered(name, lambda: self._by_text(text, hit.text or "", scope))
        beside = (hit.title, hit.url, scope.tenant)
        found = self._remembered(beside, lambda: self._by_either(hit, scope))
        return found if found.pid is not None or not ids or found.reason != NAMELESS else _NOT_THERE

    def _remembered(self, name: object, find: Callable[[], Found]) -> Found:
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            found = self._known[name] = find()
        return found

    def _by_either(self, hit: ImportedHit, scope: TenantScope) -> Found:
        for what, value in (("title", hit.title), ("address", hit.url)):
            if value and (found := self._by_beside(what, value, scope)) is not None:
                return found
        return _NOT_THERE if hit.title or hit.url else Found(None, reason=NAMELESS)

    def _by_id(self, ids: Sequence[str], scope: TenantScope) -> Found:
        with self._database.reading() as conn:
            if scope.where is None:
                pids = passages.pids_by_id(conn, ids)
            else:
                stored = passages.current_by_id(conn, ids)
                pids = {id_: s.pid for id_, s in stored.items() if shows(scope, s.passage)}
        return next((Found(pids[id_], id_) for id_ in ids if id_ in pids), _NOT_THERE)

    def _by_text(self, plain: str, text: str, scope: TenantScope) -> Found:
        hashed = passages.body_hash(text)
        with self._database.reading() as conn:
            stored = passages.present_with_body(conn, hashed, _COPIES)
        same = [
            each
            for each in stored
            if " ".join(each.passage.text.split()) == plain and shows(scope, each.passage)
        ]
        if len({each.lineage for each in same}) > 1:
            return Found(None, reason=SEVERAL.format(what="text"))
        if not same:
            return _NOT_THERE
        return Found(same[0].pid, same[0].passage.id)

    def _by_beside(self, what: str, value: str, scope: TenantScope) -> Found | None:
        if self._beside is None:
            self._beside = self._read_beside()
        pids = self._beside.get(_digest(f"{what}\n{value}"), [])
        with self._database.reading() as conn:
            stored = passages.fetch(conn, pids[:_COPIES])
        same = {
            each.pid: each.passage
            for each in stored.values()
            if shows(scope, each.passage) and value in _beside(each.passage)[what]
        }
        if len(same) > 1 or len(pids) > _COPIES:
            return Found(None, reason=SEVERAL.format(what=what))
        return next((Found(pid, passage.id) for pid, passage in same.items()), None)

    def _read_beside(self) -> dict[bytes, list[int]]:
        found: dict[bytes, list[int]] = {}
        with self._database.snapshot() as conn:
            for pid, title, metadata in passages.titles_and_metadata(conn):
                for what, values in _beside(Passage("", "", title, metadata)).items():
                    for value in values:
                        pids = found.setdefault(_digest(f"{what}\n{value}"), [])
                        if len(pids) <= _COPIES:
                            pids.append(pid)
        return found


def _beside(passage: Passage) -> Mapping[str, list[str]]:
    metadata = passage.metadata
    addresses = (metadata.get(key) for key in _ADDRESS)
    return {
        "title": [passage.title] if passage.title else [],
        "address": list(dict.fromkeys(a for a in addresses if isinstance(a, str) and a)),
    }


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
