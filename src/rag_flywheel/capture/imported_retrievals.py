"""Writes the retrievals of an import, and finds those that its votes are on."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rag_flywheel.capture.imported_records import (
    AROUND,
    DELETED,
    FORGOTTEN,
    OPTED_OUT,
    PART,
    SHOWN,
    WHOSE,
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
from rag_flywheel.store.forgotten import Forgotten, among
from rag_flywheel.store.imports import Entry, Target
from rag_flywheel.store.retrievals import LoggedHit, RetrievalRecord
from rag_flywheel.store.runs import link as link_runs
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


class _Again(NamedTuple):
    """A retrieval that is here already: its row, its id here, its id in the tool, and what the files say."""

    rid: int
    here: str
    id: str
    part: Part


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
        for some in batches(self._staging.retrievals(), lambda each: len(each[1])):
            if self._settings.progress is not None:
                self._settings.progress("import retrievals", done, n)
            done += sum(len(parts) for _, parts in some)
            each = [(id_, parts) for id_, records in some for parts in self._by_tenant(records)]
            self._write([(id_, self._whole(id_, parts)) for id_, parts in each])

    def _whole(self, id_: str, parts: list[Part]) -> Part:
        """All that is known of a retrieval: from its records, and from what it was inside of."""
        whole = parts[0]
        for part in parts[1:]:
            whole.query = whole.query or part.query
            whole.at = _least(whole.at, part.at)
            whole.user = whole.user or part.user
            whole.session = whole.session or part.session
            whole.answer = whole.answer or part.answer
            whole.recorded_as = whole.recorded_as or part.recorded_as
            whole.inside += part.inside
            whole.hits += part.hits
            if part.n_hits is not None:
                whole.n_hits = (whole.n_hits or 0) + part.n_hits
        whole.inside = list(dict.fromkeys(whole.inside))
        whole.hits = _in_order(whole.hits)
        self._add_around(id_, whole)
        return whole

    def _by_tenant(self, records: Sequence[bytes]) -> list[list[Part]]:
        """The records of the retrievals of one id, one of each tenant that a record names. Those that name
        none are of the only one that is named; where several are, they are counted."""
        parts = [PART.decode(each) for each in records]
        of: dict[str | None, list[Part]] = {}
        for part in parts:
            of.setdefault(part.tenant, []).append(part)
        unsaid, tenants = of.pop(None, []), list(of)
        if len(tenants) > 1:
            for _ in unsaid:
                self._counts.leave_out(f"records {WHOSE}")
            return list(of.values())
        for part in unsaid if tenants else ():
            part.tenant, part.hits = tenants[0], self._shown_to(tenants[0], part.hits)
        return [parts]

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
        keys = [self._settings.name(part.tenant, retrieval_name(id_)) for id_, part in some]
        own_ids = [part.recorded_as or id_ for id_, part in some]
        new: list[tuple[bytes, str, Part]] = []
        with self._database.reading() as conn:
            stored = imports.rows_of(conn, keys)
            known = imports.rows_of_external(conn, self._settings.source, [id_ for id_, _ in some])
            own = retrievals.rows_by_id(conn, own_ids)
            out = users.opted_out(conn, {p.user for _, p in some if p.user is not None})
            of = Forgotten(conn)
            gone = among(conn, [*(of.retrieval(id_) for id_ in own_ids), *keys])
            rids = {rid for rid in stored.values() if rid is not None}
            rids |= {rid for rows in known.values() for rid, _ in rows}
            here = retrievals.ids_by_row(conn, rids | {rid for rid, _ in own.values()})
        again = list[_Again]()
        for key, own_id, (id_, part) in zip(keys, own_ids, some, strict=True):
            recorded = own.get(own_id)
            before = [] if key in stored else _of_tenant(known.get(id_, ()), part.tenant)
            if {key, of.retrieval(own_id)} & gone:
                self._leave_out(id_, part, f"retrievals {FORGOTTEN}")
            elif key in stored:
                again += self._known(id_, part, stored[key], here)
            elif len(before) > 1:  # votes that say whose they are on find theirs
                self._counts.leave_out(f"records {WHOSE}")
            elif before:
                again += self._known(id_, part, before[0], here)
            elif recorded is not None and self._settings.scope.holds(recorded[1]):
                again += self._known(id_, part, recorded[0], here)
            elif part.user in out:
                self._leave_out(id_, part, f"retrievals {OPTED_OUT}")
            elif not part.query:
                self._leave_out(id_, part, NO_QUESTION)
            elif part.n_hits is None:
                self._leave_out(id_, part, NOT_SAID)
            elif part.n_hits and not part.hits:
                self._leave_out(id_, part, NONE_THERE)
            else:
                new.append((key, id_, part))
        self._extend(again)
        self._append(new)

    def _known(
        self, id_: str, part: Part, rid: int | None, here: Mapping[int, str]
    ) -> list[_Again]:
        """Note a retrieval that came in before, and give what is here of it: its row, None: it was deleted.
        here: ids by rows."""
        self._counts.unchanged += 1
        if rid is None or rid not in here:
            self._put_shown(id_, part, Shown(-1, f"retrievals {DELETED}"))
            return []
        self._put_shown(id_, part, Shown(rid, here=here[rid]))
        return [_Again(rid, here[rid], id_, part)]

    def _is_of_another(self, part: Part, target: Target) -> bool:
        """Whether a record names another tenant than the retrieval that came in has; it is counted."""
        if part.tenant is None or target.tenant in (None, part.tenant):
            return False
        self._counts.leave_out(OF_ANOTHER)
        return True

    def _leave_out(self, id_: str, part: Part, reason: str) -> None:
        self._counts.leave_out(reason)
        self._put_shown(id_, part, Shown(-1, reason))

    def _put_shown(self, id_: str, part: Part, shown: Shown) -> None:
        shown.tenant = part.tenant
        self._staging.put_shown(id_, part.tenant, encoded(shown), part.inside)

    def _append(self, new: Sequence[tuple[bytes, str, Part]]) -> None:
        given = self._settings
        records = [self._record(part, key) for key, _, part in new]
        if given.dry_run:
            self._counts.retrievals += len(new)
            for (_, id_, part), record in zip(new, records, strict=True):
                self._n_dry += 1
                dry = WouldBe(record.id, record.at, record.tenant, record.user_id, part.hits)
                self._put_shown(id_, part, Shown(-self._n_dry - 1, "", dry))
            return
        if not given.keep_words and new:
            asked = {r.query_hash: p.query for r, (_, _, p) in zip(records, new, strict=True)}
            given.vectors.store(asked)
        if not new:
            return
        with self._database.transaction() as conn:
            # between the look and this, another process may have brought them in
            there = imports.rows_of(conn, [key for key, _, _ in new])
            out = users.opted_out(conn, {r.user_id for r in records if r.user_id is not None})
            fresh = [
                (key, id_, part, record)
                for (key, id_, part), record in zip(new, records, strict=True)
                if key not in there and record.user_id not in out
            ]
            retrievals.record_retrievals(conn, [record for *_, record in fresh])
            for *_, part, record in fresh:
                if part.answer is not None:
                    retrievals.set_answer(conn, record.id, part.answer)
            rows = retrievals.rows_by_id(conn, [record.id for *_, record in fresh])
            entries = [Entry(key, id_, rows[r.id][0]) for key, id_, _, r in fresh]
            imports.append_entries(conn, entries)
            runs = [(given.run(o), rows[r.id][0]) for *_, p, r in fresh for o in p.inside]
            link_runs(conn, runs)
        self._counts.retrievals += len(fresh)
        self._counts.unchanged += len(there)
        for key, id_, part in new:
            if key not in there and part.user in out:
                self._leave_out(id_, part, f"retrievals {OPTED_OUT}")
        for _, id_, part, record in fresh:
            self._put_shown(id_, part, Shown(rows[record.id][0], here=record.id))

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

    def _extend(self, again: Sequence[_Again]) -> None:
        """Add what an earlier file did not tell of to retrievals that came in with it."""
        with self._database.reading() as conn:
            before = imports.targets(conn, [each.rid for each in again])
        again = [
            each
            for each in again
            if each.rid in before
            and before[each.rid].id == each.here
            and not self._is_of_another(each.part, before[each.rid])
        ]
        more = {}
        for rid, here, id_, part in again:
            target = before[rid]
            if not target.imported:
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
                    self._put_shown(id_, part, Shown(rid, "", would_be, here=here))
        self._counts.extended += len(more)
        runs = [(self._settings.run(o), rid) for rid, _, _, part in again for o in part.inside]
        whose = [
            (part.user, part.session, part.answer, rid)
            for rid, _, _, part in again
            if part.user or part.session or part.answer
        ]
        if self._settings.dry_run or not (more or runs or whose):
            return
        with self._database.transaction() as conn:
            # between the look and this, another process may have deleted some
            now = retrievals.ids_by_row(conn, [each.rid for each in again])
            there = {each.rid for each in again if now.get(each.rid) == each.here}
            for rid, logged in more.items():
                if rid in there:
                    imports.replace_hits(conn, rid, logged)
            link_runs(conn, [(run, rid) for run, rid in runs if rid in there])
            imports.fill_in(conn, [each for each in whose if each[-1] in there])


class Targets:
    """Finds the retrievals that votes are on: those of these files, then those that came in before or were
    recorded here."""

    def __init__(self, database: Database, settings: Settings, staging: Staging) -> None:
        self._database = database
        self._settings = settings
        self._staging = staging

    def of(
        self, some: Sequence[StagedVote]
    ) -> Callable[[StagedVote], tuple[list[tuple[Target, bool]], str]]:
        """What gives the retrievals that a vote is on, with whether it is on what they are inside of; and why
        there is none."""
        found: dict[tuple[str, str | None], tuple[list[_On], str]] = {}
        with self._database.reading() as conn:
            for named in {(vote.on, vote.tenant) for vote in some}:
                found[named] = self._rows_on(conn, *named)
            rids = {rid for rows, _ in found.values() for rid, _, _ in rows if rid >= 0}
            stored = imports.targets(conn, sorted(rids))

        def of(vote: StagedVote) -> tuple[list[tuple[Target, bool]], str]:
            rows, reason = found[vote.on, vote.tenant]
            every = []
            for rid, shown, inside in rows:
                would_be = None if shown is None else _would_be_target(shown)
                target = would_be or stored.get(rid)
                if would_be is None and shown is not None and not _is_still(target, shown):
                    reason = f"votes on retrievals {DELETED}"  # while the import was under way
                elif target is not None and self._settings.scope.holds(target.tenant):
                    every.append((target, inside))
            if vote.tenant is not None:
                every = [on for on in every if on[0].tenant in (None, vote.tenant)]
            elif len({target.tenant for target, _ in every}) > 1:
                every = [on for on in every if _shows(on[0], vote.passage_id)]
                if len({target.tenant for target, _ in every}) != 1:
                    return [], f"votes {WHOSE}"
            return every, reason or NO_RETRIEVAL

        return of

    def _rows_on(self, conn: Connection, name: str, tenant: str | None) -> tuple[list[_On], str]:
        shown = [SHOWN.decode(each) for each in self._staging.shown(name, tenant)]
        if shown:
            on = {each.rid: _On(each.rid, each, False) for each in shown if not each.reason}
            if tenant is None and any(each.tenant is not None for each in shown):
                source = self._settings.source
                before = imports.rows_of_external(conn, source, [name]).get(name, [])
                on = {rid: _On(rid, None, False) for rid, _ in before} | on
            return list(on.values()), "" if on else f"votes on {shown[0].reason}"
        inside = [SHOWN.decode(each) for each in self._staging.shown_inside(name, tenant)]
        usable = {s.rid: _On(s.rid, s, True) for s in inside if not s.reason}
        run, scope = self._settings.run(name), self._settings.scope
        for linked in imports.rows_of_run(conn, run, scope, tenant, _MOST_RETRIEVALS):
            usable.setdefault(linked, _On(linked, None, True))
        if usable:
            return list(usable.values())[:_MOST_RETRIEVALS], ""
        if inside:
            return [], f"votes on {inside[0].reason}"
        return self._rows_here(conn, name, tenant)

    def _rows_here(self, conn: Connection, name: str, tenant: str | None) -> tuple[list[_On], str]:
        """The same where the files say nothing of it."""
        key = self._settings.name(tenant, retrieval_name(name))
        stored = imports.rows_of(conn, [key])
        before = imports.rows_of_external(conn, self._settings.source, [name]).get(name, [])
        rows = _of_tenant(before, tenant) or [rid for rid in stored.values() if rid is not None]
        if rows:
            return [_On(rid, None, False) for rid in rows], ""
        if stored:
            why = FORGOTTEN if among(conn, [key]) else DELETED
            return [], f"votes on retrievals {why}"
        own = retrievals.rows_by_id(conn, [name])
        if name in own:
            return [_On(own[name][0], None, False)], ""
        if among(conn, [Forgotten(conn).retrieval(name)]):
            return [], f"votes on retrievals {FORGOTTEN}"
        around = self._staging.around(name)
        if around is not None:
            return [], "votes on a trace or run that no retrieval was inside of"
        return [], NO_RETRIEVAL


def _shows(target: Target, passage_id: str | None) -> bool:
    """Whether a retrieval showed the passage that a vote is on, which may be one tenant's alone."""
    return any(hit.passage_id == passage_id for hit in target.hits)


def _of_tenant(rows: Sequence[tuple[int, str | None]], tenant: str | None) -> list[int]:
    """The rows of a tenant, or else those that are of none; None: all."""
    if tenant is None:
        return [rid for rid, _ in rows]
    own = [rid for rid, whose in rows if whose == tenant]
    return own or [rid for rid, whose in rows if whose is None]


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


def _is_still(target: Target | None, shown: Shown) -> bool:
    """Whether a row still is that of the retrieval that it was when that came in."""
    return target is not None and target.id == shown.here


def _would_be_target(shown: Shown) -> Target | None:
    """The target that a dry run has in place of a stored one."""
    each = shown.would_be
    if each is None:
        return None
    hits = _logged(each.hits)
    return Target(shown.rid, each.id, each.at, each.tenant, each.user, "", b"", True, hits)
