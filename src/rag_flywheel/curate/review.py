"""Review: what an application reaches as `fw.review`, the queue of answers a person has to decide."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from rag_flywheel.checks import check_optional_text, check_text
from rag_flywheel.curate import notes
from rag_flywheel.curate.golden import Opinions, read_opinions
from rag_flywheel.curate.known import why_review
from rag_flywheel.curate.notes import note_id
from rag_flywheel.curate.opinions import Topic, item_id, question_of, standing_decisions
from rag_flywheel.curate.source import Source
from rag_flywheel.errors import UnknownIdError
from rag_flywheel.records import ReviewItem
from rag_flywheel.store import column_checks, golden, passages, users
from rag_flywheel.store.database import Database
from rag_flywheel.store.event_types import Decision


class Review:
    """The passages on which users or sources disagree, and what reviewers decide of them."""

    def __init__(
        self,
        database: Database,
        source: Callable[[], Source],
        hidden: Callable[[str | None], str | None],
        add: notes.Add,
    ) -> None:
        """hidden: what is stored of a reviewer's id; add: how a passage comes into the index."""
        self._database = database
        self._source = source
        self._hidden = hidden
        self._add = add

    def next(self) -> ReviewItem | None:
        """The item with the most votes that waits for a decision; None: nothing to decide."""
        return next(iter(self.items()), None)

    def items(self) -> list[ReviewItem]:
        """Every item that waits, those with the most votes first, the oldest of them first; then what
        users wrote, the oldest first."""
        found = self._opinions()
        waiting = {topic: why for topic in found.topics if (why := _why(found, topic))}
        order = sorted(waiting, key=lambda t: _place(found, t))
        disputed = [_item(found, t, waiting[t]) for t in order]
        return disputed + notes.waiting(self._database)

    def accept(self, item_id: str, *, user_id: str | None = None) -> None:
        """Decide that the item's passage is an answer: it is in the golden set from now on.

        A text that a user wrote becomes a passage, with the metadata source "correction" and the
        retrieval's id; that an answer is missing is confirmed, and `gaps` goes on counting it.
        Also changes an earlier decision. Raises UnknownIdError for an item that neither waits nor
        was decided.
        """
        self._decide("accept", item_id, user_id)

    def reject(self, item_id: str, *, user_id: str | None = None) -> None:
        """Decide that it is none: whoever says so, it is not in the golden set. Raises as `accept`."""
        self._decide("reject", item_id, user_id)

    def undo(self, item_id: str | None = None, *, user_id: str | None = None) -> str:
        """Take back the decision on an item, None: the last on a passage; returns the item's id.

        What was decided of it before counts again. Raises UnknownIdError when there is none.
        """
        check_optional_text("item_id", item_id)
        user = self._hidden(user_id)
        note = None if item_id is None else notes.find(self._database, item_id)
        if note is not None:
            notes.undo(self._database, note, user)
            return note_id(note)
        with self._database.transaction(durable=True) as conn:
            now = passages.read_clock(conn)
            made = standing_decisions(golden.decisions_until(conn, now))
            of_item = [d for d in made if item_id is None or _id(d) == item_id]
            if not of_item:
                what = (
                    "no decision is left"
                    if item_id is None
                    else f"no decision on {item_id!r} stands"
                )
                raise UnknownIdError(f"{what}; expected one that was made and not undone")
            last = of_item[-1]
            texts = golden.query_texts(conn, [last.query])
            query = column_checks.complete("query_hash", texts, [last.query])[last.query]
            _append(
                conn,
                golden.NewDecision("undo", query, last.query, last.tenant, last.lineage, user),
            )
        return _id(last)

    def _decide(self, kind: Literal["accept", "reject"], item_id: str, user_id: str | None) -> None:
        check_text("item_id", item_id)
        user = self._hidden(user_id)
        self._database.require_open()
        if (note := notes.find(self._database, item_id)) is not None:
            if kind == "reject":
                notes.reject(self._database, note, user)
            else:
                notes.accept(self._database, note, user, add=self._add)
            return
        found = self._opinions()
        topic = next((t for t in found.topics if _topic_id(found, t) == item_id), None)
        decided = topic is not None and found.topics[topic].decision is not None
        if topic is None or not (decided or _why(found, topic)):
            raise UnknownIdError(
                f"no item {item_id!r} is in the review queue; expected the id of one that "
                "`rag-flywheel review next` shows"
            )
        query, tenant = found.topics[topic].question
        pid = found.heirs[topic[1]].pid
        new = golden.NewDecision(kind, found.texts[query], query, tenant, pid, user)
        with self._database.transaction(durable=True) as conn:
            if query not in golden.query_texts(conn, [query]):  # forgotten meanwhile
                raise UnknownIdError(f"the question of item {item_id!r} was deleted meanwhile")
            _append(conn, new)

    def _opinions(self) -> Opinions:
        self._database.require_open()
        return read_opinions(self._database, self._source())


def _append(conn: sqlite3.Connection, new: golden.NewDecision) -> None:
    if new.user_id is not None and users.opted_out(conn, {new.user_id}):
        new = replace(new, user_id=None)
    golden.append_decision(conn, new, seq=passages.advance_clock(conn), at=time.time())


def _id(decision: Decision) -> str:
    return item_id(question_of(decision), decision.lineage)


def _topic_id(found: Opinions, topic: Topic) -> str:
    return item_id(found.topics[topic].question, topic[1])


def _why(found: Opinions, topic: Topic) -> str:
    disputed = topic in found.disputed
    return why_review(found.topics[topic], found.known(topic), contradicted=disputed)


def _place(found: Opinions, topic: Topic) -> tuple[int, int]:
    opinion = found.topics[topic]
    return -len(opinion.helpful) - len(opinion.harmful), opinion.began


def _item(found: Opinions, topic: Topic, why: str) -> ReviewItem:
    opinion, passage = found.topics[topic], found.heirs[topic[1]].passage
    return ReviewItem(
        id=_topic_id(found, topic),
        query=found.texts[opinion.question.query_hash],
        passage_id=passage.id,
        text=passage.text,
        helpful=len(opinion.helpful),
        harmful=len(opinion.harmful),
        why=why,
    )
