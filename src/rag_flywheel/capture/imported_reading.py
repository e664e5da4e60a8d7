"""Checks the records of an import and stages them, with ids hashed, texts masked and passages looked up."""

from collections.abc import Mapping, Sequence

from rag_flywheel.capture.imported_records import (
    AROUND,
    KINDS,
    Counts,
    Part,
    Settings,
    StagedAround,
    StagedHit,
    StagedVote,
    UnusableError,
    encoded,
)
from rag_flywheel.capture.passage_lookup import PassageLookup
from rag_flywheel.capture.scores import plain_name
from rag_flywheel.capture.signals import SignalGiven, level_of
from rag_flywheel.capture.votes import VERDICTS
from rag_flywheel.checks import (
    MOST_ANSWER_CHARS,
    MOST_HITS,
    MOST_ID_CHARS,
    MOST_NOTE_CHARS,
    MOST_TRUST,
    as_number,
    as_python,
    check_name,
    check_optional_text,
    check_query,
    check_text,
    check_trust,
    is_list,
)
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.formats.imported import Around, LeftOut, Score, Seen, seconds_of
from rag_flywheel.records import ImportedHit, ImportedRetrieval, ImportedVote, TenantScope
from rag_flywheel.store import wall_clock
from rag_flywheel.store.database import Database
from rag_flywheel.store.staging import Staging

EARLIEST = 946_684_800.0  # 2000-01-01
_LATE_S = 86_400.0  # by which clocks may differ
_WITH_VERDICT = {"vote", "answer", "judge", "adopted"}


class Reader:
    """Checks records and stages them."""

    def __init__(
        self, database: Database, settings: Settings, staging: Staging, counts: Counts
    ) -> None:
        self._settings = settings
        self._staging = staging
        self._counts = counts
        self._lookup = PassageLookup(database)
        self._latest = wall_clock.now() + _LATE_S

    def take(self, record: object) -> None:
        """Stage a record, or count why it cannot be used. Raises InputError for what is none."""
        try:
            if isinstance(record, ImportedRetrieval):
                self._retrieval(record)
            elif isinstance(record, ImportedVote):
                self._vote(record)
            elif isinstance(record, Score):
                self._score(record)
            elif isinstance(record, Around):
                self._around(record)
            elif isinstance(record, Seen):
                self._seen(record)
            elif isinstance(record, LeftOut):
                self._counts.leave_out(record.reason)
            else:
                raise TypeError
        except UnusableError as error:
            self._counts.leave_out(str(error))
        except InputError as error:
            self._counts.leave_out(_reason(error))
        except TypeError:
            raise InputError(
                f"found a record of {type(record).__name__}; expected an ImportedRetrieval or an "
                "ImportedVote"
            ) from None

    def _retrieval(self, given: ImportedRetrieval) -> None:
        check_name("retrieval id", given.id)
        check_query(given.query, self._settings.max_query_chars)
        at = self._time(given.at)
        scope = self._scope(given.tenant)
        if not is_list(given.hits if given.hits is not None else ()) or not is_list(given.inside):
            raise InputError("hits or inside is no list")
        hits = self._found(given.hits or (), scope)
        hide, mask = self._settings.hide, self._settings.mask
        check_optional_text("answer", given.answer, MOST_ANSWER_CHARS)
        check_optional_text("recorded_as", given.recorded_as, MOST_ID_CHARS)
        part = Part(
            mask(given.query),
            at,
            hide("user_id", given.user_id),
            hide("session_id", given.session_id),
            None if given.answer is None else mask(given.answer),
            scope.tenant,
            hits,
            None if given.hits is None else len(given.hits),
            [check_text("inside", outer, MOST_ID_CHARS) for outer in given.inside if outer],
            given.recorded_as,
        )
        self._staging.add_part(given.id, at, encoded(part))

    def _found(self, given: Sequence[ImportedHit], scope: TenantScope) -> list[StagedHit]:
        """Those of these hits that are in the index; the others are counted."""
        hits = []
        for place, hit in enumerate(given, 1):
            rank = self._rank(hit, place)
            found = self._lookup.find(hit, scope)
            if found.pid is None:
                self._counts.leave_out(found.reason)
            else:
                hits.append(StagedHit(rank, found.pid, found.name))
        return hits

    def _seen(self, given: Seen) -> None:
        check_name("retrieval id", given.retrieval_id)
        scope = self._settings.scope
        hits = self._found([given.hit], scope)
        part = Part("", None, None, None, None, scope.tenant, hits, 1, [], None)
        self._staging.add_part(given.retrieval_id, None, encoded(part))

    @staticmethod
    def _rank(hit: object, place: int) -> int | None:
        if not isinstance(hit, ImportedHit):
            raise InputError(f"a hit is {type(hit).__name__}; expected an ImportedHit")
        ids = [hit.passage_id] if isinstance(hit.passage_id, str) else list(hit.passage_id or ())
        for id_ in ids:
            check_text("passage_id", id_, MOST_ID_CHARS)
        for name in ("title", "url"):
            check_optional_text(name, getattr(hit, name))
        if hit.text is not None and not isinstance(hit.text, str):
            raise InputError(f"text is {quoted(hit.text)}; expected a string")
        if hit.rank is None:
            return place
        rank = as_number(hit.rank)
        if not isinstance(rank, int) or not 0 <= rank <= MOST_HITS:
            raise InputError(f"rank is {quoted(hit.rank)}; expected 1 or more, or 0 for not known")
        return rank or None

    def _vote(self, given: ImportedVote) -> None:
        check_name("vote id", given.id)
        check_name("retrieval_id", given.retrieval_id)
        kind = given.kind
        if kind is not None and kind not in KINDS:
            raise InputError(f"kind is {quoted(kind)}; expected one of {', '.join(KINDS)}")
        scope = self._scope(given.tenant)
        passage_id = self._passage_of(given.passage_id, scope)
        check_optional_text("reason", given.reason, MOST_NOTE_CHARS)
        check_optional_text("text", given.text, MOST_NOTE_CHARS)
        if given.rank is not None and not isinstance(as_number(given.rank), int):
            raise InputError(f"rank is {quoted(given.rank)}; expected a whole number")
        shares = _shares(given.shares)
        verdict, level = _said(given)
        mask, settings = self._settings.mask, self._settings
        user = given.user_id
        vote = StagedVote(
            given.id,
            given.retrieval_id,
            verdict,
            kind,
            passage_id,
            given.rank,
            level,
            None if given.text is None else mask(given.text),
            shares,
            settings.hide("user_id", user),
            min(check_trust(given.trust) * settings.trust(user), MOST_TRUST),
            self._time(given.at),
            None if given.reason is None else mask(given.reason) or None,
            tenant=scope.tenant,
        )
        self._staging.add_vote(vote.at, encoded(vote))

    def _passage_of(self, given: str | ImportedHit | None, scope: TenantScope) -> str | None:
        """The id of the passage that a vote is on."""
        if not isinstance(given, ImportedHit):
            check_optional_text("passage_id", given, MOST_ID_CHARS)
            return given or None
        self._rank(given, 1)
        found = self._lookup.find(given, scope)
        if found.pid is None:
            raise UnusableError(f"votes on {found.reason}")
        return found.name

    def _score(self, given: Score) -> None:
        check_name("score id", given.id)
        check_name("what the score is on", given.on)
        name = check_text("name", given.name, MOST_ID_CHARS)
        check_optional_text("passage_id", given.passage_id, MOST_ID_CHARS)
        check_optional_text("comment", given.comment, MOST_NOTE_CHARS)
        check_optional_text("text", given.text, MOST_NOTE_CHARS)
        check_optional_text("label", given.label)
        if isinstance(given.value, str):
            check_text("value", given.value)
        if given.by_program:
            raise UnusableError(
                "scores that a program gave, and neither a person nor a language model"
            )
        settings, meanings = self._settings, self._settings.meanings
        meanings.see(name, given.value)
        by_model = given.by_model or plain_name(name) in meanings.judges
        author = f"{settings.source}:{name}"[:MOST_ID_CHARS] if by_model else given.author
        vote = StagedVote(
            given.id,
            given.on,
            None,
            "text" if given.text is not None else None,
            given.passage_id,
            given.rank,
            1.0,
            None if given.text is None else settings.mask(given.text),
            None,
            settings.hide("user_id", author),
            1.0 if by_model else settings.trust(given.author),
            self._time(given.at),
            None if given.comment is None else settings.mask(given.comment) or None,
            name,
            given.value,
            by_model,
            author is None,
            given.label,
            settings.scope.tenant,
        )
        self._staging.add_vote(vote.at, encoded(vote))

    def _around(self, given: Around) -> None:
        hide, mask = self._settings.hide, self._settings.mask
        check_name("trace id", given.id)
        check_optional_text("parent", given.parent, MOST_ID_CHARS)
        answer = given.answer if given.answer and len(given.answer) <= MOST_ANSWER_CHARS else None
        check_optional_text("answer", answer)
        record = StagedAround(
            given.parent or None,
            hide("user_id", given.user_id),
            hide("session_id", given.session_id),
            None if answer is None else mask(answer),
        )
        before = self._staging.around(given.id)
        if before is not None:  # what one file says of it, and what another one does
            old = AROUND.decode(before)
            record = StagedAround(
                record.parent or old.parent,
                record.user or old.user,
                record.session or old.session,
                record.answer or old.answer,
            )
        self._staging.put_around(given.id, encoded(record))

    def _time(self, at: object) -> float | None:
        found = seconds_of(at)
        if found is not None and found < EARLIEST:
            raise UnusableError("with a time before the year 2000")
        if found is not None and found > self._latest:
            raise UnusableError("with a time that is still to come")
        return found

    def _scope(self, tenant: object) -> TenantScope:
        own = self._settings.scope
        if tenant is None or tenant == "":
            return own
        named = self._settings.scope_of(tenant)  # type: ignore[arg-type]
        if own.tenant is not None and named.tenant != own.tenant:
            raise UnusableError("of another tenant")
        return named


def _shares(given: object) -> dict[str, float] | None:
    """The part of each passage in a verdict. Raises InputError."""
    if given is None:
        return None
    if not isinstance(given, Mapping) or len(given) > MOST_HITS:
        raise InputError(f"shares is {type(given).__name__}; expected numbers by passage id")
    found = {}
    for passage_id, part in given.items():
        number = as_number(part)
        if number is None or not 0.0 <= number <= 1.0:
            raise InputError(f"shares is {quoted(part)}; expected numbers from 0 to 1")
        found[check_text("passage_id", passage_id, MOST_ID_CHARS)] = float(number)
    return found


def _said(given: ImportedVote) -> tuple[str | None, float]:
    """(verdict, its strength from -1 to 1) of a vote. Raises InputError."""
    kind, verdict = given.kind, given.verdict
    if verdict is not None and verdict not in VERDICTS:
        raise InputError(f"verdict is {quoted(verdict)}; expected one of {', '.join(VERDICTS)}")
    if kind in ("text", "missing"):
        if kind == "text" and not (given.text or "").strip():
            raise UnusableError("votes of the kind 'text' without a text")
        return "helpful", 1.0
    if kind == "correction":
        return "helpful", 1.0
    if kind is None or kind in _WITH_VERDICT:
        if verdict is None:
            raise UnusableError("votes without a verdict")
        return verdict, -1.0 if verdict == "harmful" else 1.0
    if verdict is not None and given.value is None:  # as it was recorded, with its share
        return verdict, -1.0 if verdict == "harmful" else 1.0
    if kind == "edited":
        raise UnusableError("signals of the kind 'edited' without a verdict")
    level = level_of(SignalGiven(None, kind, as_python(given.value)), None)
    return "harmful" if level < 0 else "helpful", level


def _reason(error: InputError) -> str:
    """Why a record cannot be used: the message without what was found, so that few reasons are counted."""
    before, _, after = str(error).partition("; expected")
    name = before.partition(" is ")[0].partition(" has ")[0]
    return f"with a bad {name}" + (f" (expected{after})" if after else "")
