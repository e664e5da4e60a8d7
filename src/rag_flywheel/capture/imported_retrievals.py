"""Writes the retrievals of an import, and finds those that its votes are on."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rag_flywheel.capture.imported_records import (
    AROUND,
    DELETED,
    OPTED_OUT,
    PART,
    SHOWN,
    Counts,
    Part,
    Settings,
    Shown,
    StagedHit,
    StagedVote,
    WouldBe,
    batches,
    encoded,
    retrieval_name,
)
from rag_flywheel.capture.passage_lookup import NOT_THERE
from rag_flywheel.store import imports, passages, retrievals, users, wall_clock
from rag_flywheel.store.column_checks import RANK
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.imports import Entry, Target
from rag_flywheel.store.retrievals import LoggedHit, RetrievalRecord
from rag_flywheel.store.staging import Staging
from rag_flywheel.store.tenants import shows

NO_RETRIEVAL = "votes whose retrieval is neither here nor in these files"
NO_QUESTION = "retrievals whose question is in none of the files"
NOT_SAID = "retrievals of which nothing says what they showed"
OF_ANOTHER = "records of a retrieval that is another tenant's"
NONE_THERE = "retrievals that showed no passage of the index"
_DEEP = 64  # of what retrievals may be inside of
_MOST_RETRIEVALS = 100  # that a vote on a trace is about
_UNRANKED = 0.05


class _On(NamedTuple):
    """The row of a retrieval that a vote is on; shown: what became of it, where these files tell of it;
    inside: whether the vote is on what the retrieval was inside of."""

    rid: int
    shown: Shown | None
    inside: bool


class RetrievalWriter:
    """Writes the retrievals that are staged."""

    def __init__(
        self, database: Database, settings: Settings, staging: Staging, counts: Counts
    ) -> None:
        self._database = database
        self._settings = settings
        self._staging = staging
        self._counts = counts
        self._n_dry = 0

    def write(self) -> None:
        """Write them, some in each transaction."""
        done, n = 0, self._staging.n_parts
        for some in batches(self._staging.retrievals()):
            if self._settings.progress is not None:
                self._settings.progress("import retrievals", done, n)
            done += sum(len(parts) for _, parts in some)
            self._write([(id_, self._whole(id_, parts)) for id_, parts in some])

    def _whole(self, id_: str, records: Sequence[bytes]) -> Part:
        """All that is known of a retrieval: from its records, and from what it was inside of."""
        parts = self._of_one_tenant([PART.decode(each) for each in records])
        whole = parts[0]
        for part in parts[1:]:
            whole.query = whole.query or part.query
            whole.at = _least(whole.at, part.at)
            whole.user = whole.user or part.user
            whole.session = whole.session or part.session
            whole.answer = whole.answer or part.answer
            whole.recorded_as = whole.recorded_as or part.recorded_as
            whole.inside += [outer for outer in part.inside if outer not in whole.inside]
            whole.hits += part.hits
            if part.n_hits is not None:
                whole.n_hits = (whole.n_hits or 0) + part.n_hits
        whole.hits = _in_order(whole.hits)
        self._add_around(id_, whole)
        return whole

    def _of_one_tenant(self, parts: list[Part]) -> list[Part]:
        """The records of a retrieval that are of the first tenant that one of them names, or of none that is
        named; these with that tenant and its passages alone. The others are counted."""
        tenant = next((part.tenant for part in parts if part.tenant is not None), None)
        kept = [part for part in parts if part.tenant in (None, tenant)]
        for _ in range(len(parts) - len(kept)):
            self._counts.leave_out(OF_ANOTHER)
        for part in kept:
            if part.tenant != tenant:
                part.tenant, part.hits = tenant, self._shown_to(tenant, part.hits)
        return kept

    def _shown_to(self, tenant: str | None, hits: list[StagedHit]) -> list[StagedHit]:
        """Those of these hits that a tenant may see, given as JSON; the others are counted."""
        scope = self._settings.scope_of_json(tenant)
        with self._database.reading() as conn:
            stored = passages.rows_of(conn, [hit.pid for hit in hits])
        kept = [h for h in hits if h.pid in stored and shows(scope, stored[h.pid].passage)]
        for _ in range(len(hits) - len(kept)):
            self._counts.leave_out(NOT_THERE)
        return kept

    def _add_around(self, id_: str, whole: Part) -> None:
        waiting, known = list(whole.inside), {id_}
        whole.inside = []
        while waiting and len(known) <= _DEEP:
            outer = waiting.pop(0)
            if outer in known:
                continue
            known.add(outer)
            whole.inside.append(outer)
            record = self._staging.around(outer)
            if record is not None:
                around = AROUND.decode(record)
                whole.user = whole.user or around.user
                whole.session = whole.session or around.session
                whole.answer = whole.answer or around.answer
                if around.parent is not None:
                    waiting.append(around.parent)

    def _write(self, some: Sequence[tuple[str, Part]]) -> None:
        given = self._settings
        keys = {id_: given.name(retrieval_name(id_)) for id_, _ in some}
        own_ids = [p.recorded_as or id_ for id_, p in some]
        new: list[tuple[str, Part]] = []
        with self._database.reading() as conn:
            stored = imports.rows_of(conn, list(keys.values()))
            own = retrievals.rows_by_id(conn, own_ids)
            out = users.opted_out(conn, {p.user for _, p in some if p.user is not None})
        again = []
        for id_, part in some:
            row = own.get(part.recorded_as or id_)
            if keys[id_] in stored:
                self._counts.unchanged += 1
                rid = stored[keys[id_]]
                reason = "" if rid is not None else f"retrievals {DELETED}"
                self._put_shown(id_, part, Shown(-1 if rid is None else rid, reason))
                if rid is not None:
                    again.append((rid, id_, part))
            elif row is not None and given.scope.holds(row[1]):
                self._counts.unchanged += 1
                self._put_shown(id_, part, Shown(row[0], ""))
                again.append((row[0], id_, part))
            elif part.user in out:
                self._leave_out(id_, part, f"retrievals {OPTED_OUT}")
            elif not part.query:
                self._leave_out(id_, part, NO_QUESTION)
            elif part.n_hits is None:
                self._leave_out(id_, part, NOT_SAID)
            elif part.n_hits and not part.hits:
                self._leave_out(id_, part, NONE_THERE)
            else:
                new.append((id_, part))
        self._extend(again)
        self._append(new, keys)

    def _is_of_another(self, part: Part, target: Target | None) -> bool:
        """Whether a record names another tenant than the retrieval that came in has; it is counted."""
        named = part.tenant is not None and target is not None and target.tenant is not None
        if not named or target is None or part.tenant == target.tenant:
            return False
        self._counts.leave_out(OF_ANOTHER)
        return True

    def _leave_out(self, id_: str, part: Part, reason: str) -> None:
        self._counts.leave_out(reason)
        self._put_shown(id_, part, Shown(-1, reason))

    def _put_shown(self, id_: str, part: Part, shown: Shown) -> None:
        self._staging.put_shown(id_, encoded(shown), part.inside)

    def _append(self, new: Sequence[tuple[str, Part]], keys: Mapping[str, bytes]) -> None:
        given = self._settings
        self._counts.retrievals += len(new)
        records = [self._record(part, keys[id_]) for id_, part in new]
        if given.dry_run:
            for (id_, part), record in zip(new, records, strict=True):
                self._n_dry += 1
                dry = WouldBe(record.id, record.at, record.tenant, record.user_id, part.hits)
                self._put_shown(id_, part, Shown(-self._n_dry - 1, "", dry))
            return
        if not given.keep_words and new:
            given.embed({r.query_hash: p.query for r, (_, p) in zip(records, new, strict=True)})
        if not new:
            return
        with self._database.transaction() as conn:
            # between the look and this, another process may have brought them in
            there = imports.rows_of(conn, [keys[id_] for id_, _ in new])
            out = users.opted_out(conn, {r.user_id for r in records if r.user_id is not None})
            fresh = [
                (id_, part, record)
                for (id_, part), record in zip(new, records, strict=True)
                if keys[id_] not in there and record.user_id not in out
            ]
            retrievals.record_retrievals(conn, [record for _, _, record in fresh])
            for _, part, record in fresh:
                if part.answer is not None:
                    retrievals.set_answer(conn, record.id, part.answer)
            rows = retrievals.rows_by_id(conn, [record.id for _, _, record in fresh])
            entries = [Entry(keys[id_], id_, rows[r.id][0]) for id_, _, r in fresh]
            imports.append_entries(conn, entries)
            runs = [(given.run(o), rows[r.id][0]) for _, p, r in fresh for o in p.inside]
            imports.link_runs(conn, runs)
        for id_, part, record in fresh:
            self._put_shown(id_, part, Shown(rows[record.id][0], ""))

    def _record(self, part: Part, key: bytes) -> RetrievalRecord:
        given, at = self._settings, part.at if part.at is not None else wall_clock.now()
        where = self._where(part.tenant)
        hits = _logged(part.hits)
        return RetrievalRecord(
            id=f"{int(at * 1000):011x}{key.hex()[:12]}",
            kind="retrieve",
            at=at,
            query=part.query if given.keep_words else "",
            query_hash=given.query_hash(part.query),
            k=max(part.n_hits or 0, 1),
            filter=where,
            tenant=part.tenant,
            version=None,
            seen=0,
            user_id=part.user,
            session_id=part.session,
            latency_ms=0.0,
            hits=hits,
            source=given.source,
        )

    def _where(self, tenant: str | None) -> str | None:
        where = self._settings.scope_of_json(tenant).where
        return None if where is None else json.dumps(where, sort_keys=True)

    def _extend(self, again: Sequence[tuple[int, str, Part]]) -> None:
        """Add what an earlier file did not tell of to retrievals that came in with it."""
        with self._database.reading() as conn:
            before = imports.targets(conn, [rid for rid, _, _ in again])
        again = [each for each in again if not self._is_of_another(each[2], before.get(each[0]))]
        more = {}
        for rid, id_, part in again:
            target = before.get(rid)
            if target is None or not target.imported:
                continue
            if part.tenant is None and target.tenant is not None:
                part.hits = self._shown_to(target.tenant, part.hits)
            known = {hit.pid for hit in target.hits}
            new = [hit for hit in part.hits if hit.pid not in known]
            if new:
                old = [
                    StagedHit(imports.rank_of(hit, None), hit.pid, hit.passage_id)
                    for hit in target.hits
                ]
                hits = _in_order([*old, *new])
                more[rid] = _logged(hits)
                if self._settings.dry_run:
                    would_be = WouldBe(target.id, target.at, target.tenant, target.user_id, hits)
                    self._put_shown(id_, part, Shown(rid, "", would_be))
        self._counts.extended += len(more)
        runs = [(self._settings.run(o), rid) for rid, _, part in again for o in part.inside]
        whose = [
            (part.user, part.session, part.answer, rid)
            for rid, _, part in again
            if part.user or part.session or part.answer
        ]
        if self._settings.dry_run or not (more or runs or whose):
            return
        with self._database.transaction() as conn:
            for rid, logged in more.items():
                imports.replace_hits(conn, rid, logged)
            imports.link_runs(conn, [(run, rid) for run, rid in runs if rid in before])
            imports.fill_in(conn, whose)


class Targets:
    """Finds the retrievals that votes are on: those of these files, then those that came in before or were
    recorded here."""

    def __init__(self, database: Database, settings: Settings, staging: Staging) -> None:
        self._database = database
        self._settings = settings
        self._staging = staging

    def of(
        self, some: Sequence[StagedVote]
    ) -> Callable[[str], tuple[list[tuple[Target, bool]], str]]:
        """What gives the retrievals that a vote is on, with whether it is on what they are inside of; and why
        there is none."""
        found: dict[str, tuple[list[_On], str]] = {}
        with self._database.reading() as conn:
            for name in {vote.on for vote in some}:
                found[name] = self._rows_on(conn, name)
            rids = {rid for rows, _ in found.values() for rid, _, _ in rows if rid >= 0}
            stored = imports.targets(conn, sorted(rids))

        def of(name: str) -> tuple[list[tuple[Target, bool]], str]:
            rows, reason = found[name]
            every = []
            for rid, shown, inside in rows:
                would_be = None if shown is None else _would_be_target(shown)
                target = would_be or stored.get(rid)
                if target is not None and self._settings.scope.holds(target.tenant):
                    every.append((target, inside))
            return every, reason or NO_RETRIEVAL

        return of

    def _rows_on(self, conn: Connection, name: str) -> tuple[list[_On], str]:
        record = self._staging.shown(name)
        if record is not None:
            shown = SHOWN.decode(record)
            if shown.reason:
                return [], f"votes on {shown.reason}"
            return [_On(shown.rid, shown, False)], ""
        inside = [SHOWN.decode(each) for _, each in self._staging.shown_inside(name)]
        usable = {s.rid: _On(s.rid, s, True) for s in inside if not s.reason}
        for linked in imports.rows_of_run(conn, self._settings.run(name), _MOST_RETRIEVALS):
            usable.setdefault(linked, _On(linked, None, True))
        if usable:
            return list(usable.values())[:_MOST_RETRIEVALS], ""
        if inside:
            return [], f"votes on {inside[0].reason}"
        key = self._settings.name(retrieval_name(name))
        stored = imports.rows_of(conn, [key])
        if key in stored:
            rid = stored[key]
            if rid is None:
                return [], f"votes on retrievals {DELETED}"
            return [_On(rid, None, False)], ""
        own = retrievals.rows_by_id(conn, [name])
        if name in own:
            return [_On(own[name][0], None, False)], ""
        around = self._staging.around(name)
        if around is not None:
            return [], "votes on a trace or run that no retrieval was inside of"
        return [], NO_RETRIEVAL


def _in_order(hits: Sequence[StagedHit]) -> list[StagedHit]:
    """Each passage once, by its best rank, those without one last."""
    best: dict[int, StagedHit] = {}
    for hit in hits:
        before = best.get(hit.pid)
        if before is None or (hit.rank or 2**40) < (before.rank or 2**40):
            best[hit.pid] = hit
    return sorted(best.values(), key=lambda hit: hit.rank or 2**40)


def _logged(hits: Sequence[StagedHit]) -> list[LoggedHit]:
    """Hits as they are stored: with the logarithm of the chance that such a rank is the answer, before any
    vote, as the score, since scores of other tools are on scales of their own."""
    return [
        LoggedHit(
            hit.pid, hit.name, chance_at(hit.rank), {} if hit.rank is None else {RANK: hit.rank}
        )
        for hit in hits
    ]


def chance_at(rank: int | None) -> float:
    """The logarithm of the chance that the passage of a rank is the answer: 1/2 for the first, 1/6, 1/12,
    ..., which add up to less than 1; None: the rank is not known."""
    return math.log(_UNRANKED) if rank is None else -math.log(rank * (rank + 1))


def _least(one: float | None, other: float | None) -> float | None:
    return min((at for at in (one, other) if at is not None), default=None)


def _would_be_target(shown: Shown) -> Target | None:
    """The target that a dry run has in place of a stored one."""
    each = shown.would_be
    if each is None:
        return None
    hits = _logged(each.hits)
    return Target(shown.rid, each.id, each.at, each.tenant, each.user, "", b"", True, hits)
