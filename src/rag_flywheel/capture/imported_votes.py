"""Writes the votes of an import as events: votes on passages, verdicts on answers, corrections, signals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag_flywheel.capture.answer_votes import prior_chances
from rag_flywheel.capture.imported_records import (
    DELETED,
    FORGOTTEN,
    OPTED_OUT,
    VOTE,
    Counts,
    Settings,
    StagedVote,
    UnusableError,
    batches,
)
from rag_flywheel.capture.imported_retrievals import Targets
from rag_flywheel.records import TenantScope
from rag_flywheel.store import golden, imports, notes, passages, retrievals, users, votes
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.forgotten import Forgotten, among
from rag_flywheel.store.imports import Entry, Target
from rag_flywheel.store.passages import advance_clock
from rag_flywheel.store.staging import Staging
from rag_flywheel.store.tenants import shows
from rag_flywheel.store.votes import NewAnswerVote, NewVote

_NOTES = ("text", "missing")
_NOT_SHOWN = "votes on passages that the retrieval did not show"
_NOT_THERE = "votes on passages that are not in the index"
_LEAST = 0.01  # smaller credits are not stored


@dataclass(frozen=True)
class _Cast:
    """Feedback that is to be stored. pid: the passage that it is on, None: the answer. key, external: as in
    Entry. ours: whether it names its retrieval by the id here, as what is exported does. timed: whether it
    says when it was cast."""

    key: bytes
    external: str
    target: Target
    kind: str
    verdict: str
    pid: int | None
    credits: Mapping[int, float]
    text: str | None
    user: str | None
    trust: float
    at: float
    ours: bool
    timed: bool


class VoteWriter:
    """Writes the votes that are staged, in the order of their times."""

    def __init__(
        self, database: Database, settings: Settings, staging: Staging, counts: Counts
    ) -> None:
        self._database = database
        self._settings = settings
        self._staging = staging
        self._counts = counts
        self._targets = Targets(database, settings, staging)

    def write(self) -> None:
        """Write them, some in each transaction."""
        done, n = 0, self._staging.n_votes
        for some in batches(self._staging.votes()):
            if self._settings.progress is not None:
                self._settings.progress("import votes", done, n)
            done += len(some)
            self._write(self._casts([VOTE.decode(each) for each in some]))

    def _casts(self, some: Sequence[StagedVote]) -> list[_Cast]:
        """What is to be stored of these votes; a vote on a trace is one on each of its retrievals."""
        on = self._targets.of(some)
        found = []
        for vote in some:
            targets, reason = on(vote)
            if not targets:
                self._counts.leave_out(reason)
            for target, inside in targets:
                try:
                    found.append(self._cast(vote, target, inside=inside))
                except UnusableError as error:
                    self._counts.leave_out(str(error))
        return found

    def _cast(self, vote: StagedVote, target: Target, *, inside: bool) -> _Cast:
        level, kind = vote.level, vote.kind
        if vote.score is not None and kind is None:
            said = self._settings.meanings.level(vote.score, vote.value, vote.label)
            if isinstance(said, str):
                raise UnusableError(said)
            level = said
        hit = None if inside and kind != "correction" else self._hit(vote, target)
        if kind is None:
            kind = _kind(vote, level, on_passage=hit is not None)
        verdict = vote.verdict or ("harmful" if level < 0 else "helpful")
        if level == 0.0:
            raise UnusableError("scores that are neither for nor against")
        if kind in ("vote", "correction") and hit is None:
            raise UnusableError(f"votes of the kind '{kind}' that name no passage")
        at = max(target.at, 0.0) if vote.at is None else vote.at
        text = vote.text if kind in _NOTES else vote.reason
        what = vote.passage_id, vote.rank, f"{level:.6f}", vote.shares, vote.text
        content = (vote.id, target.id, kind, verdict, *what)
        return _Cast(
            self._settings.name(
                target.tenant, repr(("vote", *content)).encode("utf-8", "surrogatepass")
            ),
            vote.id,
            target,
            kind,
            verdict,
            hit,
            _credits(vote, target, kind, hit, level),
            text,
            target.user_id if vote.by_asker else vote.user,
            vote.trust,
            at,
            vote.on == target.id,
            vote.at is not None,
        )

    def _hit(self, vote: StagedVote, target: Target) -> int | None:
        """The passage that a vote is on; None: on the answer. Raises UnusableError."""
        if vote.passage_id is not None:
            for hit in target.hits:
                if hit.passage_id == vote.passage_id:
                    return hit.pid
            there = self._present(vote.passage_id, target)
            if there is not None and vote.kind == "correction":
                return there
            raise UnusableError(_NOT_SHOWN if there is not None else _NOT_THERE)
        if vote.rank is not None:
            for place, hit in enumerate(target.hits, 1):
                if imports.rank_of(hit, place) == vote.rank:
                    return hit.pid
            raise UnusableError(_NOT_SHOWN)
        if vote.score is not None and vote.kind is None and len(target.hits) == 1:
            return target.hits[0].pid  # a score on a retrieval that showed one passage
        return None

    def _present(self, passage_id: str, target: Target) -> int | None:
        with self._database.reading() as conn:
            stored = passages.current_by_id(conn, [passage_id]).get(passage_id)
        if stored is None or not shows(self._scope(target), stored.passage):
            return None
        return stored.pid

    def _scope(self, target: Target) -> TenantScope:
        return self._settings.scope_of_json(target.tenant)

    def _write(self, casts: Sequence[_Cast]) -> None:
        given, new = self._settings, dict[bytes, _Cast]()
        with self._database.reading() as conn:
            known = imports.rows_of(conn, [cast.key for cast in casts])
            out = users.opted_out(conn, {cast.user for cast in casts if cast.user is not None})
            of = Forgotten(conn)
            names = {cast.key: _as_forgotten(of, cast) for cast in casts}
            gone = among(conn, [name for each in names.values() for name in each])
            for cast in casts:
                if gone.intersection(names[cast.key]):
                    self._counts.leave_out(f"votes {FORGOTTEN}")
                elif cast.key in known or cast.key in new or _is_recorded(conn, cast):
                    self._counts.unchanged += 1
                elif cast.user in out:
                    self._counts.leave_out(f"votes {OPTED_OUT}")
                else:
                    new[cast.key] = cast
        if given.dry_run or not new:
            self._counts.votes.update(cast.kind for cast in new.values())
            return
        if given.keep_words:
            given.vectors.store_first(cast.target.query_hash for cast in new.values())
        with self._database.transaction() as conn:
            # between the look and this, another process may have brought them in, or deleted retrievals
            known = imports.rows_of(conn, list(new))
            there = retrievals.rows_by_id(conn, [cast.target.id for cast in new.values()])
            out = users.opted_out(conn, {c.user for c in new.values() if c.user is not None})
            fresh = [
                cast
                for cast in new.values()
                if cast.key not in known and cast.target.id in there and cast.user not in out
            ]
            entries = [
                Entry(cast.key, cast.external, cast.target.rid, self._append(conn, cast))
                for cast in fresh
            ]
            imports.append_entries(conn, entries)
        self._counts.votes.update(cast.kind for cast in fresh)
        self._counts.unchanged += len(known)
        for cast in new.values():
            if cast.key not in known and cast.target.id not in there:
                self._counts.leave_out(f"votes on retrievals {DELETED}")
            elif cast.key not in known and cast.user in out:
                self._counts.leave_out(f"votes {OPTED_OUT}")

    def _append(self, conn: Connection, cast: _Cast) -> int:
        """Store an event; returns its number."""
        given, rid = self._settings, cast.target.rid
        seq, trust = advance_clock(conn), cast.trust
        if cast.kind not in ("judge", *_NOTES):
            left = given.terms.left(conn, cast.user, rid, kind=cast.kind, at=cast.at)
            trust = trust if left > 0 else 0.0
        if cast.kind == "vote" and cast.pid is not None:
            vote = NewVote(rid, cast.pid, cast.verdict, cast.user, cast.text, trust, given.source)
            votes.append_votes(conn, [vote], first_seq=seq, at=cast.at)
        elif cast.kind in _NOTES:
            kind: notes.NoteKind = "text" if cast.kind == "text" else "missing"
            notes.append_note(
                conn,
                seq=seq,
                at=cast.at,
                rid=rid,
                kind=kind,
                text=cast.text or "",
                user_id=cast.user,
            )
        else:
            credits = dict(cast.credits)
            if cast.kind == "correction" and cast.pid is not None:
                golden.append_correction(
                    conn, seq=seq, at=cast.at, rid=rid, pid=cast.pid, user_id=cast.user
                )
                named = votes.named_before(conn, rid, cast.user)
                credits = dict.fromkeys(named, 0.0) | {cast.pid: 1.0}
            new = NewAnswerVote(
                rid, cast.kind, cast.verdict, cast.user, credits, cast.text, trust, given.source
            )
            votes.append_answer_vote(conn, new, seq=seq, at=cast.at)
        return seq


def _kind(vote: StagedVote, level: float, *, on_passage: bool) -> str:
    """What a vote is that does not say it."""
    if vote.by_model:
        return "judge"
    if vote.score is not None and abs(level) < 1.0:
        return "rating"
    return "vote" if on_passage else "answer"


def _credits(
    vote: StagedVote, target: Target, kind: str, pid: int | None, level: float
) -> dict[int, float]:
    """The part of each passage in feedback that is no vote on a hit, times its strength."""
    if kind in ("vote", "correction", *_NOTES):
        return {}
    if vote.shares is not None:
        pids = {hit.passage_id: hit.pid for hit in target.hits}
        return {pids[id_]: part for id_, part in vote.shares.items() if id_ in pids}
    every = dict.fromkeys((hit.pid for hit in target.hits), 0.0)
    if vote.verdict == "retract":
        return every if pid is None else {pid: 0.0}
    if pid is not None:
        return {pid: abs(level)} if kind == "judge" else every | {pid: abs(level)}
    shown = retrievals.Shown(
        target.rid, tuple((h.pid, h.passage_id, h.score) for h in target.hits), None
    )
    parts = {p: abs(level) * chance for p, chance in prior_chances(shown).items()}
    return every | {p: part for p, part in parts.items() if part >= _LEAST}


def _as_forgotten(of: Forgotten, cast: _Cast) -> list[bytes]:
    """The keys of which one is noted if whoever cast this vote was forgotten."""
    target = cast.target
    return [cast.key, *of.votes_at(target.id, cast.pid, cast.kind, cast.verdict, cast.at)]


def _is_recorded(conn: Connection, cast: _Cast) -> bool:
    """Whether feedback is in this index already, and was exported, with its time."""
    if (cast.target.imported and not cast.ours) or cast.kind in _NOTES or not cast.timed:
        return False
    return imports.is_cast(conn, cast.target.rid, cast.pid, cast.kind, cast.verdict, cast.at)
