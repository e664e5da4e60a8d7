"""Review, which an application reaches as `fw.review`: the queue of answers that a person decides."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

from rag_flywheel.checks import MOST_ID_CHARS, MOST_NOTE_CHARS, check_optional_text, check_text
from rag_flywheel.curate import notes
from rag_flywheel.curate.golden import Opinions, read_opinions
from rag_flywheel.curate.known import why_review
from rag_flywheel.curate.notes import note_id
from rag_flywheel.curate.opinions import Topic, item_id, question_of, standing_decisions
from rag_flywheel.curate.source import Source
from rag_flywheel.errors import InputError, UnknownIdError, quoted
from rag_flywheel.records import ReviewItem, TenantScope
from rag_flywheel.store import column_checks, golden, passages, users, wall_clock
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.event_types import Decision
from rag_flywheel.store.notes import Note
from rag_flywheel.store.tenants import Tenant, Tenants


class Review:
    """The passages on which users or sources disagree, and the decisions of reviewers on them."""

    def __init__(
        self,
        database: Database,
        source: Callable[[], Source],
        hidden: Callable[[str | None], str | None],
        add: notes.Add,
        remove: notes.Remove,
        tenants: Tenants,
    ) -> None:
        """hidden: returns what is stored of a reviewer's id; add, remove: add passages to the index, and
        remove those of ids."""
        self._tenants = tenants
        self._database = database
        self._source = source
        self._hidden = hidden
        self._add = add
        self._remove = remove

    def next(self, *, tenant: Tenant | None = None, all_tenants: bool = False) -> ReviewItem | None:
        """The item with the most votes that waits for a decision; None: nothing to decide."""
        return next(iter(self.items(tenant=tenant, all_tenants=all_tenants)), None)

    def items(self, *, tenant: Tenant | None = None, all_tenants: bool = False) -> list[ReviewItem]:
        """Every item that waits: those with the most votes first, then the notes of users.

        Items with equally many votes, and notes, are listed with the oldest first.
        """
        scope = self._tenants.scope(tenant, all_tenants)
        opinions = self._opinions(scope)
        waiting = {topic: why for topic in opinions.topics if (why := _why(opinions, topic))}
        order = sorted(waiting, key=lambda t: _place(opinions, t))
        disputed = [_item(opinions, topic, waiting[topic]) for topic in order]
        return disputed + notes.waiting(self._database, scope)

    def accept(
        self,
        item_id: str,
        *,
        text: str | None = None,
        user_id: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> str | None:
        """Decide that the item's passage is an answer: it is in the golden set from now on.

        text: what becomes the passage in place of the text that a user wrote; None: that itself.

        Returns the passage's id; None for the note that an answer is missing.

        A text that a user wrote becomes a passage, with the metadata source "correction" and the
        retrieval's id. The note that an answer is missing is confirmed, and `gaps` goes on counting
        it. Accepting also changes an earlier decision. Raises UnknownIdError for an item that
        neither waits nor was decided.
        """
        scope = self._tenants.scope(tenant, all_tenants)
        return self._decide("accept", item_id, user_id, scope, text)

    def reject(
        self,
        item_id: str,
        *,
        user_id: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> None:
        """Decide that the passage is no answer, so that it is not in the golden set. Raises as `accept`."""
        self._decide("reject", item_id, user_id, self._tenants.scope(tenant, all_tenants))

    def undo(
        self,
        item_id: str | None = None,
        *,
        user_id: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> str:
        """Take back the decision on an item; returns the item's id.

        item_id: None takes back the last decision.
        The decision before it counts again; a user's text waits again, and the passage that it became is
        removed. Raises UnknownIdError when there is none to take back, and InputError for a passage that
        was edited since.
        """
        check_optional_text("item_id", item_id, MOST_ID_CHARS)
        scope = self._tenants.scope(tenant, all_tenants)
        user = self._hidden(user_id)
        found = partial(notes.find, self._database, scope=scope)
        note = self._last_note(scope) if item_id is None else found(item_id)
        if note is not None:
            notes.decide(self._database, note, "undo", user, add=self._add, remove=self._remove)
            return note_id(note)
        with self._database.transaction(durable=True) as conn:
            made = self._standing_decisions(conn, scope)
            of_item = [d for d in made if item_id is None or _id(d) == item_id]
            if not of_item:
                on_item = f"no decision on {quoted(item_id)} stands"
                what = "no decision is left" if item_id is None else on_item
                raise UnknownIdError(f"{what}; expected one that was made and not undone")
            last = of_item[-1]
            texts = golden.query_texts(conn, [last.query], scope)
            query = column_checks.complete("query_hash", texts, [last.query])[last.query]
            _append(
                conn,
                golden.NewDecision("undo", query, last.query, last.tenant, last.lineage, user),
            )
        return _id(last)

    def _last_note(self, scope: TenantScope) -> Note | None:
        """The note of the last decision; None when that was on a passage, or there was none."""
        last = notes.last_decided(self._database, scope)
        if last is None:
            return None
        with self._database.snapshot() as conn:
            made = self._standing_decisions(conn, scope)
        return last[1] if not made or last[0] > made[-1].seq else None

    def _standing_decisions(self, conn: Connection, scope: TenantScope) -> list[Decision]:
        every = golden.decisions_until(conn, passages.read_clock(conn))
        return standing_decisions([each for each in every if scope.holds(each.tenant)])

    def _decide(
        self,
        kind: Literal["accept", "reject"],
        item_id: str,
        user_id: str | None,
        scope: TenantScope,
        text: str | None = None,
    ) -> str | None:
        """Append a decision; returns the id of the passage that it is on, if any."""
        check_text("item_id", item_id, MOST_ID_CHARS)
        check_optional_text("text", text, MOST_NOTE_CHARS)
        user = self._hidden(user_id)
        self._database.require_open()
        if (note := notes.find(self._database, item_id, scope)) is not None:
            return notes.decide(
                self._database,
                note,
                kind,
                user,
                add=self._add,
                remove=self._remove,
                edited=text,
            )
        if text is not None:
            raise InputError(
                f"found a text for item {quoted(item_id)}, which is a passage of the index; expected none: "
                "edit the passage itself by `add`"
            )
        opinions = self._opinions(scope)
        topic = next((t for t in opinions.topics if _topic_id(opinions, t) == item_id), None)
        decided = topic is not None and opinions.topics[topic].decision is not None
        if topic is None or not (decided or _why(opinions, topic)):
            raise UnknownIdError(
                f"no item {quoted(item_id)} is in the review queue; expected the id of one that "
                "`rag-flywheel review next` shows"
            )
        query, tenant = opinions.topics[topic].question
        heir = opinions.heirs[topic[1]]
        pid = heir.pid
        new = golden.NewDecision(kind, opinions.texts[query], query, tenant, pid, user)
        with self._database.transaction(durable=True) as conn:
            if query not in golden.query_texts(conn, [query]):  # forgotten meanwhile
                raise UnknownIdError(
                    f"the question of item {quoted(item_id)} was deleted meanwhile"
                )
            _append(conn, new)
        return heir.passage.id

    def _opinions(self, scope: TenantScope) -> Opinions:
        self._database.require_open()
        return read_opinions(self._database, self._source(), scope=scope)


def _append(conn: Connection, new: golden.NewDecision) -> None:
    if users.has_opted_out(conn, new.user_id):
        new = replace(new, user_id=None)
    golden.append_decision(conn, new, seq=passages.advance_clock(conn), at=wall_clock.now())


def _id(decision: Decision) -> str:
    return item_id(question_of(decision), decision.lineage)


def _topic_id(opinions: Opinions, topic: Topic) -> str:
    return item_id(opinions.topics[topic].question, topic[1])


def _why(opinions: Opinions, topic: Topic) -> str:
    disputed = topic in opinions.disputed
    return why_review(opinions.topics[topic], opinions.known_answer(topic), contradicted=disputed)


def _place(opinions: Opinions, topic: Topic) -> tuple[int, int]:
    opinion = opinions.topics[topic]
    return -len(opinion.helpful) - len(opinion.harmful), opinion.began


def _item(opinions: Opinions, topic: Topic, why: str) -> ReviewItem:
    opinion, passage = opinions.topics[topic], opinions.heirs[topic[1]].passage
    return ReviewItem(
        id=_topic_id(opinions, topic),
        query=opinions.texts[opinion.question.query_hash],
        passage_id=passage.id,
        text=passage.text,
        helpful=len(opinion.helpful),
        harmful=len(opinion.harmful),
        why=why,
        tenant=opinion.question.tenant,
    )
